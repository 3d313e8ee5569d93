//! The user's login and a run: it sees its own token alone, and nothing but a renewed one comes back.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use data_encoding::BASE64URL_NOPAD;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::leftovers::{consult, install, outside};
use crate::support::answers::{ANSWER, VERSION, a_whole_consultation};
use crate::support::kimi::Real;
use crate::support::model::Model;
use crate::support::world::{Ran, World, wait_until};
use crate::support::{both, test};

pub(crate) fn tests() -> Vec<Trial> {
    let planted = PLANTED.iter().map(|&(name, plant)| {
        test(&format!("walls::in_place_of_the_login::{name}"), move || holds_up_nobody(plant))
    });
    let no_tokens = NO_TOKENS.iter().map(|&(name, plant)| {
        test(&format!("walls::never_written_back::{name}"), move || is_not_written_back(plant))
    });
    let others = [
        test("walls::tokens_of_other_services_are_out_of_reach", other_services),
        test("walls::a_renewed_token_is_the_users_at_once", renewed),
        test("walls::a_token_that_a_killed_bridge_left_is_the_users_later", killed),
        test("walls::a_half_written_token_replaces_no_renewed_one", half_written),
        test("walls::a_token_for_another_account_is_not_written_back", another_account),
        test("walls::the_users_newer_token_wins", users_newer),
        test("walls::two_runs_renew_at_once", two_at_once),
    ];
    let real = both("walls::the_real_cli_renews_its_login", real_cli_renews);
    planted.chain(no_tokens).chain(others).chain(real).collect()
}

/// A token's file as both programs write it.
fn token(name: &str) -> String {
    json!({"access_token": format!("access-{name}"), "refresh_token": format!("refresh-{name}"),
        "expires_at": 9_000_000_000_u64, "scope": "s", "token_type": "Bearer", "expires_in": 900})
    .to_string()
}

/// How a program renews its token, as a shell command.
fn renew(name: &str) -> String {
    let text = token(name);
    format!(
        "echo '{text}' > \"$D/credentials/x.tmp\"; mv \"$D/credentials/x.tmp\" \"$D/credentials/kimi-code.json\""
    )
}

fn credentials(world: &World) -> PathBuf {
    world.home().join(".kimi-code/credentials")
}

fn logged_in(script: &str) -> World {
    let world = World::with_fake("2.1.0", "");
    fs::create_dir_all(credentials(&world).join("mcp")).unwrap();
    fs::write(credentials(&world).join("kimi-code.json"), token("old")).unwrap();
    fs::write(credentials(&world).join("other.json"), token("other")).unwrap();
    fs::write(credentials(&world).join("mcp/service.json"), token("service")).unwrap();
    install(&world, script);
    world
}

fn users(world: &World) -> String {
    fs::read_to_string(credentials(world).join("kimi-code.json")).unwrap().trim().to_owned()
}

fn other_services() {
    let reach = "cat \"$HOME/.kimi-code/credentials/other.json\" || cat \"$HOME/.kimi-code/credentials/mcp/service.json\" \
                 || ls \"$HOME/.kimi-code/credentials\" || echo evil > \"$HOME/.kimi-code/credentials/other.json\" \
                 || touch \"$HOME/.kimi-code/credentials/planted\"";
    let world = logged_in(&format!(
        "ls -R \"$D/credentials\" > \"$D/seen\"; if ({reach}) > /dev/null 2>&1; then touch \"$D/through\"; fi; \
         for name in other new; do echo '{}' > \"$D/credentials/$name.json\"; done; {VERSION}; {ANSWER}",
        token("evil")
    ));
    let before = World::content_of(&credentials(&world));
    let ran = consult(&world);
    assert_eq!((ran.code, &ran.json()["provenance"]["sandbox"]), (Some(0), &json!("landlock")));
    let seen = fs::read_to_string(world.kimis().join("seen")).unwrap();
    assert_eq!(seen.lines().skip(1).collect::<Vec<_>>(), ["kimi-code.json"]);
    assert!(!world.kimis().join("through").exists());
    assert_eq!(World::content_of(&credentials(&world)), before);
    outside(&world, reach);
}

fn renewed() {
    let wait = "while [ ! -e \"${0%/*}/go\" ]; do sleep 0.02; done";
    let world = logged_in(&format!("{}; {wait}; {VERSION}; {ANSWER}", renew("new")));
    let ran = thread::scope(|scope| {
        let running = scope.spawn(|| consult(&world));
        wait_until("the renewed token is the user's", || users(&world) == token("new"));
        // One that the user's own Kimi renews meanwhile reaches the run.
        fs::write(credentials(&world).join("kimi-code.json"), token("newer")).unwrap();
        let copy = world.kimis().join("credentials/kimi-code.json");
        wait_until("the run has it", || fs::read_to_string(&copy).unwrap() == token("newer"));
        fs::write(world.beside("go"), "").unwrap();
        running.join().unwrap()
    });
    assert_eq!((ran.code, &ran.json()["warnings"]), (Some(0), &json!([])));
    assert_eq!(users(&world), token("newer"));
    let mode = |name: &str| {
        fs::metadata(credentials(&world).join(name)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode("kimi-code.json"), 0o600);
    let left: Vec<_> = World::content_of(&world.home().join(".kimi-code")).into_keys().collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

fn killed() {
    let world = logged_in(&format!("{VERSION}; {ANSWER}"));
    assert_eq!(consult(&world).code, Some(0));
    fs::write(world.kimis().join("credentials/kimi-code.json"), token("new")).unwrap();
    assert_eq!(consult(&world).code, Some(0));
    assert_eq!(users(&world), token("new"));
}

fn half_written() {
    let world = logged_in(&format!("{VERSION}; {ANSWER}"));
    assert_eq!(consult(&world).code, Some(0));
    let copy = world.kimis().join("credentials/kimi-code.json");
    fs::write(&copy, token("new")).unwrap();
    let half = "{\"access_token\": \"ol";
    fs::write(credentials(&world).join("kimi-code.json"), half).unwrap();
    assert_eq!(consult(&world).code, Some(0));
    assert_eq!(
        (fs::read_to_string(&copy).unwrap(), users(&world)),
        (token("new"), half.to_owned())
    );
}

fn another_account() {
    let jwt =
        |claims: &Value| format!("e30.{}.s", BASE64URL_NOPAD.encode(claims.to_string().as_bytes()));
    let file = |access: &Value, refresh: &Value| {
        json!({"access_token": jwt(access), "refresh_token": jwt(refresh)}).to_string()
    };
    let [sub, other_sub, no_sub] = [json!({"sub": "me"}), json!({"sub": "other"}), json!({})];
    let [id, other_id] = [json!({"user_id": "me"}), json!({"user_id": "other"})];
    for (old, new, is_written) in [
        (file(&sub, &sub), file(&json!({"sub": "me", "exp": 1}), &sub), true),
        (file(&sub, &sub), file(&other_sub, &sub), false),
        (file(&sub, &sub), file(&sub, &other_sub), false),
        (file(&sub, &sub), file(&no_sub, &sub), false),
        (file(&sub, &sub), token("new"), false),
        (file(&id, &sub), file(&json!({"user_id": "me", "exp": 1}), &sub), true),
        (file(&id, &sub), file(&other_id, &sub), false),
    ] {
        let put = format!("echo '{new}' > \"$D/credentials/kimi-code.json\"");
        let world = logged_in(&format!("{put}; {VERSION}; {ANSWER}"));
        fs::write(credentials(&world).join("kimi-code.json"), &old).unwrap();
        // The second run begins with what the first one left.
        for _ in 0..2 {
            assert_eq!(consult(&world).code, Some(0));
        }
        assert_eq!(users(&world), if is_written { new } else { old });
    }
}

/// A name, and a command that puts something in the place of the run's token.
const NO_TOKENS: [(&str, &str); 6] = [
    ("text", "echo x > \"$T\""),
    ("mark_of_a_refused_one", "echo '{\"access_token\": \"\", \"refresh_token\": \"\"}' > \"$T\""),
    ("link", "ln -sf /etc/passwd \"$T\""),
    ("pipe", "rm \"$T\"; mkfifo \"$T\""),
    ("folder", "rm \"$T\"; mkdir -p \"$T/x\""),
    (
        "endless_file",
        "printf '{\"access_token\": \"a\", \"refresh_token\": \"b\"}' > \"$T\"; truncate -s 900M \"$T\"",
    ),
];

fn is_not_written_back(plant: &str) {
    let script = format!("T=\"$D/credentials/kimi-code.json\"; {plant}; {VERSION}; {ANSWER}");
    let world = logged_in(&script);
    let before = World::content_of(&credentials(&world));
    for _ in 0..2 {
        assert_eq!(consult(&world).code, Some(0), "{plant}");
    }
    assert_eq!(World::content_of(&credentials(&world)), before, "{plant}");
}

fn users_newer() {
    let wait = "touch \"$D/renewed\"; while [ ! -e \"${0%/*}/go\" ]; do sleep 0.02; done";
    let world = logged_in(&format!("{}; {wait}; {VERSION}; {ANSWER}", renew("new")));
    // The user's own Kimi renews its token at the same time.
    let lock = world.home().join(".kimi-code/oauth/kimi-code.lock");
    fs::create_dir_all(&lock).unwrap();
    thread::scope(|scope| {
        let running = scope.spawn(|| consult(&world));
        wait_until("the run has renewed its token", || world.kimis().join("renewed").exists());
        fs::write(credentials(&world).join("kimi-code.json"), token("users")).unwrap();
        fs::remove_dir(&lock).unwrap();
        fs::write(world.beside("go"), "").unwrap();
        assert_eq!(running.join().unwrap().code, Some(0));
    });
    assert_eq!(users(&world), token("users"));
}

fn two_at_once() {
    // Each waits until both have renewed.
    let script = format!(
        "N=${{PWD##*/}}; {}; echo renewed > \"$D/$N-$$\"; sleep 1.5; {VERSION}; {ANSWER}",
        renew("NAME").replace("NAME", "'\"$N-$$\"'")
    );
    let world = logged_in(&script);
    let second = world.home().join("second");
    fs::create_dir(&second).unwrap();
    let ask = |folder: &Path| {
        let context = world.root().join(format!("{}.json", folder.file_name().unwrap().display()));
        fs::write(&context, r#"{"proposed_approach": "p", "goals": ["g"]}"#).unwrap();
        let mut command = world.bridge(&["consult", "--json", "-m", "m", "-c"]);
        Ran::from(command.arg(context).current_dir(folder).output().unwrap())
    };
    let before = World::content_of(&credentials(&world));
    let rans: Vec<Ran> = thread::scope(|scope| {
        let project = world.project();
        let folders = [project.clone(), project, second];
        let running = folders.map(|folder| scope.spawn(move || ask(&folder)));
        running.map(|one| one.join().unwrap()).into()
    });
    for ran in rans {
        assert_eq!((ran.code, &ran.json()["warnings"]), (Some(0), &json!([])), "{ran:?}");
    }
    let stored: Value = serde_json::from_str(&users(&world)).unwrap();
    let name = stored["access_token"].as_str().unwrap().strip_prefix("access-").unwrap();
    assert_eq!(users(&world), token(name), "one of them, and whole");
    assert_ne!(name, "old");
    let mut after = World::content_of(&credentials(&world));
    let file = credentials(&world).join("kimi-code.json");
    after.insert(file.clone(), before[&file].clone());
    assert_eq!(after, before);
}

/// A name, and a command that puts something in the place of the user's token.
const PLANTED: [(&str, &str); 3] = [
    ("pipe", "mkfifo kimi-code.json"),
    ("device", "ln -s /dev/zero kimi-code.json"),
    ("endless_file", "truncate -s 900M kimi-code.json"),
];

fn holds_up_nobody(plant: &str) {
    let world = logged_in(&format!("{VERSION}; {ANSWER}"));
    let plant = format!("rm kimi-code.json; {plant}");
    let done = Command::new("sh").args(["-ec", &plant]).current_dir(credentials(&world)).status();
    assert!(done.unwrap().success());
    let bridge = env!("CARGO_BIN_EXE_kimi-bridge");
    for command in ["status --json", "doctor --json"] {
        let script = format!("ulimit -v 4000000; exec timeout 60 '{bridge}' {command}");
        let mut shell = Command::new("bash");
        shell.args(["-c", &script]).env_clear().envs(&world.env).current_dir(world.project());
        let ran = Ran::from(shell.output().unwrap());
        assert_ne!(ran.code, Some(124), "{command} does not end");
        assert!(ran.json().is_object(), "{ran:?}");
    }
    assert_eq!(consult(&world).code, Some(0));
    let shown = "timeout 1 cat kimi-code.json > /dev/null; [ $? -eq 124 ]";
    let shown = Command::new("bash").args(["-c", shown]).current_dir(credentials(&world)).status();
    assert!(shown.unwrap().success(), "{plant} can be read to its end");
}

/// The service that renews tokens: each refresh token once.
fn service() -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("http://{}", listener.local_addr().unwrap());
    let asked = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        let mut length = 0;
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let answer = json!({"access_token": "access-new", "refresh_token": "refresh-new", "expires_in": 3600,
            "scope": "s", "token_type": "Bearer"})
        .to_string();
        write!(
            connection,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
            answer.len()
        )
        .unwrap();
        String::from_utf8(body).unwrap()
    });
    (host, asked)
}

fn real_cli_renews(real: Real, program: &Path) {
    let model = Model::start(a_whole_consultation(real));
    let (host, asked) = service();
    let world = World::new().with(&[
        ("KIMI_PATH", &program.display().to_string()),
        ("NO_PROXY", "127.0.0.1"),
        ("KIMI_BRIDGE_SANDBOX", "required"),
    ]);
    let base_url = model.base_url();
    let (folder, name, world) = match real {
        Real::KimiCode => {
            let environment = json!({"oauthHost": host, "baseUrl": base_url}).to_string();
            let hash = Sha256::digest(environment.as_bytes());
            let hash: Vec<String> = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
            (".kimi-code", format!("kimi-code-env-{}", hash.concat()), world)
        }
        Real::KimiCli | Real::Retired => {
            (".kimi", "kimi-code".to_owned(), world.with(&[("KIMI_CODE_OAUTH_HOST", &host)]))
        }
    };
    let folder = world.home().join(folder);
    fs::create_dir_all(folder.join("credentials")).unwrap();
    let oauth_host =
        if real == Real::KimiCode { format!("oauth_host = \"{host}\"\n") } else { String::new() };
    let config = format!(
        "default_model = \"mine\"\n[providers.\"managed:kimi-code\"]\ntype = \"kimi\"\nbase_url = \"{base_url}\"\n\
         api_key = \"\"\n[providers.\"managed:kimi-code\".oauth]\nstorage = \"file\"\nkey = \"oauth/{name}\"\n{oauth_host}\
         [models.mine]\nprovider = \"managed:kimi-code\"\nmodel = \"kimi-for-coding\"\nmax_context_size = 262144\n"
    );
    fs::write(folder.join("config.toml"), config).unwrap();
    let file = folder.join("credentials").join(format!("{name}.json"));
    fs::write(&file, token("old").replace("9000000000", "1000000000")).unwrap();
    let ran = world.consult(&[]);
    assert_eq!((ran.code, &ran.json()["warnings"]), (Some(0), &json!([])), "{ran:?}");
    assert!(asked.join().unwrap().contains("refresh-old"));
    let stored: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(stored["refresh_token"], "refresh-new");
    let copy = world.private_home(real.name()).join("credentials").join(format!("{name}.json"));
    assert_eq!(fs::read(copy).unwrap(), fs::read(&file).unwrap());
}
