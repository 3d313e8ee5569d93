//! What the kernel keeps from Kimi, and from a program that only claims to be Kimi; and what it leaves
//! to it: to start from wherever it was installed, and to read the project.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::answers::{ANSWER, VERSION, a_whole_consultation, say_verdict};
use crate::support::kimi::{Real, installed};
use crate::support::model::{Model, Step};
use crate::support::server::{Era, Server};
use crate::support::tries::{self, Try};
use crate::support::world::{World, write_program};
use crate::support::{both, one, test};

pub(crate) fn tests() -> Vec<Trial> {
    let npm = |real, _: &Path| answers_from_the_home(real, npm_below);
    let folder = |real, _: &Path| answers_from_the_home(real, folder_below);
    let environment = |real, _: &Path| answers_from_the_home(real, environment_below);
    tries::tests("sandbox::nothing_gets_through", &TRIES)
        .into_iter()
        .chain([
            one("sandbox::kimi_answers_from_the_home::npm", Real::KimiCode, npm),
            one("sandbox::kimi_answers_from_the_home::folder", Real::KimiCode, folder),
            one("sandbox::kimi_answers_from_the_home::venv", Real::KimiCli, environment),
        ])
        .chain(both("sandbox::secret_files_stay_closed", secret_files_stay_closed))
        .chain(both("sandbox::without_it_hooks_do_what_they_can", hooks_do_what_they_can))
        .chain([
            test("sandbox::a_closed_path_is_named", a_closed_path_is_named),
            test("sandbox::off_is_said", off_is_said),
            test("sandbox::a_version_is_asked_inside", a_version_is_asked_inside),
            test("sandbox::the_server_is_out_of_reach", the_server_is_out_of_reach),
        ])
        .collect()
}

/// What a program in Kimi's place tries, as [`tries::Try`] describes it.
const TRIES: [Try; 33] = [
    ("creates_in_the_project", "", "echo x > pwned"),
    ("writes_in_the_project", "", "echo x >> src/main.rs"),
    ("empties_in_the_project", "", "truncate -s 0 src/main.rs"),
    ("removes_in_the_project", "", "rm src/main.rs"),
    ("renames_in_the_project", "", "mv src/main.rs src/other.rs"),
    ("links_in_the_project", "", "ln -s /etc/passwd link"),
    ("links_hard_into_the_project", "", "ln src/main.rs hard"),
    ("makes_a_folder_in_the_project", "", "mkdir folder"),
    ("makes_a_pipe_in_the_project", "", "mkfifo pipe"),
    ("makes_a_git_hook", "mkdir -p tally/.git/hooks", "echo x > .git/hooks/pre-commit"),
    ("writes_in_the_home", "", "echo x > \"$HOME/.bashrc\""),
    ("writes_in_tmp", "", "echo x > /tmp/kimi-bridge-test-$OUTSIDE"),
    ("writes_in_var_tmp", "", "echo x > /var/tmp/kimi-bridge-test-$OUTSIDE"),
    ("writes_in_shared_memory", "", "echo x > /dev/shm/kimi-bridge-test-$OUTSIDE"),
    ("reads_ssh", "mkdir .ssh; echo k > .ssh/id_rsa", "cat \"$HOME/.ssh/id_rsa\""),
    ("lists_ssh", "mkdir .ssh; echo k > .ssh/id_rsa", "ls \"$HOME/.ssh\""),
    ("reads_aws", "mkdir .aws; echo k > .aws/credentials", "cat \"$HOME/.aws/credentials\""),
    (
        "reads_the_browsers_folder",
        "mkdir -p .mozilla/firefox/x; echo c > .mozilla/firefox/x/cookies.sqlite",
        "cat \"$HOME/.mozilla/firefox/x/cookies.sqlite\"",
    ),
    ("reads_another_project", "mkdir other; echo k > other/main.rs", "cat \"$HOME/other/main.rs\""),
    (
        "reads_the_users_own_kimi",
        "mkdir .kimi-code; echo 'api_key = 1' > .kimi-code/config.toml; touch .kimi-code/mcp.json",
        "cat \"$HOME/.kimi-code/mcp.json\"",
    ),
    (
        "reads_the_ledger",
        "mkdir -p .local/state/kimi-bridge; touch .local/state/kimi-bridge/mark",
        "cat \"$HOME/.local/state/kimi-bridge/mark\"",
    ),
    ("reads_a_secret_of_the_project", "echo k > tally/.env", "cat .env"),
    (
        "reads_a_secret_deep_in_the_project",
        "mkdir -p tally/a/b; echo k > tally/a/b/x.key",
        "cat a/b/x.key",
    ),
    ("follows_a_link_to_the_home", "echo k > secret; ln -s ../secret tally/note", "cat note"),
    ("follows_a_link_to_a_secret", "echo k > tally/.env; ln -s .env tally/note", "cat note"),
    (
        "reads_what_a_secret_name_leads_to",
        "echo k > tally/plain; ln -s plain tally/.env",
        "cat plain",
    ),
    ("climbs_out_of_the_project", "echo k > secret", "cat ../secret"),
    ("lists_the_home", "", "ls \"$HOME\""),
    ("runs_a_program_of_the_project", "cp /bin/true tally/tool", "./tool"),
    ("signals_the_server", "", "kill -0 $(cut -d' ' -f4 /proc/$PPID/stat)"),
    ("signals_its_keeper", "", "kill -0 $PPID"),
    ("reads_the_servers_environment", "", "cat /proc/$(cut -d' ' -f4 /proc/$PPID/stat)/environ"),
    (
        "gains_rights",
        "",
        "! grep -q 'NoNewPrivs:[[:space:]]*1' /proc/self/status || { echo 'not permitted' >&2; false; }",
    ),
];

/// Copies a folder with links for files: an installation is large.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&path, &to);
        } else if kind.is_symlink() {
            symlink(fs::read_link(&path).unwrap(), to).unwrap();
        } else if fs::hard_link(&path, &to).is_err() {
            fs::copy(&path, &to).unwrap();
        }
    }
}

/// As `npm install -g` with a prefix below the home leaves it, and a Node of a version manager.
fn npm_below(home: &Path) -> Vec<PathBuf> {
    let modules = home.join(".npm-global/lib/node_modules");
    let (bin, node) = (home.join(".npm-global/bin"), home.join(".nvm/versions/node/v24/bin"));
    copy(&installed().join("kimi-code/node_modules"), &modules);
    for folder in [&bin, &node] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::rename(modules.join("node/bin/node"), node.join("node")).unwrap();
    symlink("../lib/node_modules/@moonshot-ai/kimi-code/dist/main.mjs", bin.join("kimi")).unwrap();
    vec![bin, node]
}

/// A folder with everything in it, copied somewhere and put on the path by a link.
fn folder_below(home: &Path) -> Vec<PathBuf> {
    copy(&installed().join("kimi-code"), &home.join("apps/kimi-code"));
    let bin = home.join("bin");
    fs::create_dir_all(&bin).unwrap();
    symlink("../apps/kimi-code/kimi", bin.join("kimi")).unwrap();
    vec![bin]
}

/// A virtual environment, as `uv tool install` or `pipx` makes one, with a link to its program.
fn environment_below(home: &Path) -> Vec<PathBuf> {
    let from = installed().join("kimi-cli-1.51.0");
    let to = home.join(".local/share/uv/tools/kimi-cli");
    copy(&from, &to);
    let program = fs::read_to_string(from.join("bin/kimi")).unwrap();
    fs::remove_file(to.join("bin/kimi")).unwrap();
    let moved = program.replace(from.to_str().unwrap(), to.to_str().unwrap());
    assert_ne!(program, moved, "the program names its Python by the whole path");
    write_program(&to.join("bin/kimi"), &moved);
    let bin = home.join(".local/bin");
    fs::create_dir_all(&bin).unwrap();
    symlink("../share/uv/tools/kimi-cli/bin/kimi", bin.join("kimi")).unwrap();
    vec![bin]
}

/// Kimi, installed below the home, starts and reads the project, with nothing told to the bridge.
fn answers_from_the_home(real: Real, install: fn(&Path) -> Vec<PathBuf>) {
    let model = Model::start(a_whole_consultation(real));
    let mut world = World::new();
    world.env.extend(real.model_env(&model));
    let mut path = install(&world.home());
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let path = std::env::join_paths(path).unwrap();
    let world =
        world.with(&[("PATH", path.to_str().unwrap()), ("KIMI_BRIDGE_SANDBOX", "required")]);
    let ran = world.consult(&[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let result = ran.json();
    assert_eq!(
        (&result["provenance"]["sandbox"], &result["provenance"]["dialect"], &result["warnings"]),
        (&json!("landlock"), &json!(real.name()), &json!([]))
    );
    assert_eq!(result["findings"][0]["grounded"], true, "{result}");
}

/// Files of the project that hold a secret, and some beside them that do not.
fn plant(project: &Path) {
    let write = |path: &str, text: &str| {
        fs::create_dir_all(project.join(path).parent().unwrap()).unwrap();
        fs::write(project.join(path), text).unwrap();
    };
    write("conf/tls/server.key", "planted-1\n");
    write("conf/tls/readme.txt", "open-1 beside a key\n");
    write("conf/deploy.pem", "-----BEGIN PRIVATE KEY-----\nplanted-2\n");
    write("conf/public.pem", "-----BEGIN CERTIFICATE-----\nopen-2\n");
    write("prod.json", "{\"type\": \"service_account\", \"private_key\": \"planted-3\"}\n");
    write("other.json", "{\"type\": \"open-3\"}\n");
    write("id_ed25519", "planted-4\n");
    write("terraform.tfvars", "x = \"planted-5\"\n");
    write(".npmrc", "//registry/:_authToken=planted-6\n");
    write("keys/kubeconfig", "token: planted-7\n");
    write(".env", "KEY=planted-8\n");
    write("late/place.txt", "open-4\n");
}

const SECRET: [&str; 8] = [
    "conf/tls/server.key",
    "conf/deploy.pem",
    "prod.json",
    "id_ed25519",
    "terraform.tfvars",
    ".npmrc",
    "keys/kubeconfig",
    ".env",
];
const OPEN: [&str; 4] = ["conf/tls/readme.txt", "conf/public.pem", "other.json", "late/place.txt"];

/// A model that tries to read every file, then searches and lists them.
fn reads_everything(real: Real) -> Vec<Step> {
    let reads = SECRET.iter().chain(&OPEN);
    let mut calls: Vec<(&str, Value)> =
        reads.map(|path| (real.read_tool(), json!({"path": path}))).collect();
    calls
        .push(("Grep", json!({"pattern": "planted|open-", "path": ".", "output_mode": "content"})));
    calls.push(("Grep", json!({"pattern": "open-", "path": "conf", "output_mode": "content"})));
    calls.push(("Glob", json!({"pattern": "conf/**"})));
    vec![Step::Calls(calls), say_verdict()]
}

/// What the model got to see, and the results of the two searches and the list.
#[track_caller]
fn saw_only_what_is_open(model: &Model, result: &Value) {
    let seen = model.requests().last().unwrap().to_string();
    for number in 1..=SECRET.len() {
        assert!(!seen.contains(&format!("planted-{number}")), "planted-{number} left: {seen}");
    }
    for number in 1..=OPEN.len() {
        assert!(seen.contains(&format!("open-{number}")), "open-{number} is missing: {seen}");
    }
    let calls = result["evidence"].as_array().unwrap();
    let searches: Vec<&Value> = calls.iter().filter(|call| call["tool"] != "ReadFile").collect();
    assert!(searches.iter().all(|call| call["ok"] == true), "{searches:#?}");
    assert!(searches[0]["summary"].as_str().unwrap().contains("open-4"), "{searches:#?}");
    assert!(searches[1]["summary"].as_str().unwrap().contains("open-1"), "{searches:#?}");
    assert!(searches[2]["summary"].as_str().unwrap().contains("readme.txt"), "{searches:#?}");
}

fn secret_files_stay_closed(real: Real, program: &Path) {
    let model = Model::start(reads_everything(real));
    let world = World::with_real(real, program, &model);
    plant(&world.project());
    let ran = world.consult(&[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    saw_only_what_is_open(&model, &ran.json());
    assert_eq!(ran.json()["warnings"], json!([]));
}

fn hooks_do_what_they_can(real: Real, program: &Path) {
    let model = Model::start(reads_everything(real));
    let world = World::with_real(real, program, &model).with(&[("KIMI_BRIDGE_SANDBOX", "off")]);
    plant(&world.project());
    let ran = world.consult(&[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    saw_only_what_is_open(&model, &ran.json());
    let warnings = ran.json()["warnings"].to_string();
    assert!(warnings.contains("Kimi ran without a sandbox (it is switched off)"), "{warnings}");
}

/// A program that needs a file of the home which nobody could have guessed.
fn needy() -> World {
    let script =
        format!("part=extra; . \"$HOME/odd/place/$part.sh\" || exit 1; {VERSION}; {ANSWER}");
    let world = World::with_fake("2.1.0", &script);
    fs::create_dir_all(world.home().join("odd/place")).unwrap();
    fs::write(world.home().join("odd/place/extra.sh"), "true\n").unwrap();
    world
}

fn a_closed_path_is_named() {
    let world = needy();
    let folder = world.home().canonicalize().unwrap().join("odd/place");
    let ran = world.consult(&[]);
    let error = &ran.json()["error"];
    assert_eq!((ran.code, &error["kind"]), (Some(42), &json!("sandbox")), "{ran:?}");
    let closed = format!("which closes {}/extra.sh to it", folder.display());
    assert!(error["message"].as_str().unwrap().contains(&closed), "{error}");
    let open = format!("readable: [{}]", folder.display());
    assert!(error["hint"].as_str().unwrap().contains(&open), "{error}");
    // And what the hint says helps.
    let world = needy();
    let folder = world.home().join("odd/place").display().to_string();
    let ran = world.with(&[("KIMI_BRIDGE_READABLE", &folder)]).consult(&[]);
    assert_eq!(
        (ran.code, &ran.json()["provenance"]["sandbox"]),
        (Some(0), &json!("landlock")),
        "{ran:?}"
    );
}

fn off_is_said() {
    let script = format!("{VERSION}; {ANSWER}");
    let settings = [("KIMI_BRIDGE_SANDBOX", "off"), ("KIMI_BRIDGE_KEEPER", "0")];
    let ran = World::with_fake("2.1.0", &script).with(&settings).consult(&[]);
    assert_eq!((ran.code, &ran.json()["provenance"]["sandbox"]), (Some(0), &json!("none")));
    let warnings = ran.json()["warnings"].as_array().unwrap().len();
    assert_eq!(warnings, 1, "{ran:?}");
}

fn a_version_is_asked_inside() {
    let world = World::with_fake("2.1.0", "true");
    let evil =
        format!("#!/bin/bash\necho x > '{}'; echo 2.1.0\n", world.home().join("pwned").display());
    write_program(&world.root().join("fake/kimi"), &evil);
    let status = world.run(&["status", "--json"]).json();
    assert_eq!(status["kimi"]["version"], "2.1.0");
    assert!(!world.home().join("pwned").exists());
}

fn the_server_is_out_of_reach() {
    let script = format!(
        "server=$(cut -d' ' -f4 /proc/$PPID/stat); for pid in $server $PPID; do for signal in TERM INT KILL STOP; do \
         kill -$signal $pid; done; done; {VERSION}; {ANSWER}"
    );
    let world = World::with_fake("2.1.0", &script).with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    let mut server = Server::start(&world, Era::Modern);
    for _ in 0..2 {
        let arguments =
            json!({"message": "m", "context": {"proposed_approach": "p", "goals": ["g"]}});
        let result = server.call("consult_kimi", &arguments);
        assert_eq!(result["structuredContent"]["parse_ok"], true, "{result}");
    }
    let (status, _) = server.close();
    assert!(status.success());
}
