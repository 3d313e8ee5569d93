//! A user runs `doctor`, and it names each problem with its remedy.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::answers::a_whole_consultation;
use crate::support::kimi::Real;
use crate::support::model::{Model, Step};
use crate::support::report::{Report, bare, normal, report, served, with_kimi, write};
use crate::support::world::{World, processes_with, wait_until, write_program};
use crate::support::{both, test};

pub(crate) fn tests() -> Vec<Trial> {
    let mut trials = both("doctor::a_machine_that_is_ready", a_machine_that_is_ready);
    trials.extend(both("doctor::a_live_trial", a_live_trial));
    trials.extend(both("doctor::a_live_trial_that_fails", a_live_trial_that_fails));
    trials.extend([
        test("doctor::a_machine_that_is_not_ready", a_machine_that_is_not_ready),
        test("doctor::no_kimi_at_all", no_kimi_at_all),
        test("doctor::only_a_retired_kimi", only_a_retired_kimi),
        test("doctor::the_first_usable_one_is_used", the_first_usable_one),
        test("doctor::a_closed_path_is_found_and_opened", a_closed_path),
        test("doctor::a_wrapper_of_a_link_is_followed", a_wrapper_of_a_link),
        test("doctor::a_program_that_broke_since", a_program_that_broke),
        test("doctor::settings_that_do_not_fit_hide_nothing", settings_that_do_not_fit),
        test("doctor::versions_are_held_against_the_tested_ones", versions),
        test("doctor::logins_are_seen_and_not_read", logins),
        test("doctor::the_state_folder", the_state_folder),
        test("doctor::nothing_secret_is_printed", nothing_secret_is_printed),
        test("doctor::interrupting_it_ends_what_it_tries", interrupting),
    ]);
    trials
}

fn a_machine_that_is_ready(real: Real, program: &Path) {
    let model = Model::start(vec![Step::Hang]);
    let world = bare(World::with_real(real, program, &model));
    // Where a path is as long on every machine, so that lines end at the same words.
    let here = world.home().join("bin/kimi");
    symlink(program.canonicalize().unwrap(), &here).unwrap();
    let world = world.with(&[("KIMI_PATH", &here.display().to_string())]);
    write(&world.home().join(".claude.json"), &served(""));
    let ran = world.run(&["doctor"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    insta::assert_snapshot!(format!("ready__{}", real.name()), normal(&ran.stdout));
    let report = report(&world);
    report.is_whole();
    assert_eq!(report.code, 0);
    assert_eq!(model.requests(), Vec::<Value>::new(), "nothing was asked");
}

fn a_live_trial(real: Real, program: &Path) {
    let model = Model::start(a_whole_consultation(real));
    let world = bare(World::with_real(real, program, &model));
    let before = World::content_of(&world.project());
    let ran = world.run(&["doctor", "--live"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    assert!(ran.stdout.contains("All is well."), "{}", ran.stdout);
    let (_, trial) = ran.stdout.split_once("Consultation\n").unwrap();
    insta::assert_snapshot!("trial", normal(trial));
    assert_eq!(World::content_of(&world.project()), before);
    assert_eq!(world.run(&["threads", "--json"]).json(), json!([]), "the thread is forgotten");

    let report = Report::of(&world.run(&["doctor", "--live", "--json"]));
    report.is_whole();
    let (status, says, _) = &report.checks("network", "service")[0];
    assert_eq!(status, "ok");
    assert!(says.starts_with("127.0.0.1:") && says.contains(" was reached in "), "{says}");
    assert_eq!(report.checks("consultation", "workspace")[0].0, "ok");
}

fn a_live_trial_that_fails(real: Real, program: &Path) {
    let refused = json!({"error": {"message": "Invalid Authentication", "type": "error"}});
    let model = Model::start(vec![Step::Status(401, refused)]);
    let world = bare(World::with_real(real, program, &model));
    let report = Report::of(&world.run(&["doctor", "--live", "--json"]));
    report.is_whole();
    assert_eq!(report.code, 13);
    let (status, says, remedy) = &report.checks("consultation", "answer")[0];
    assert_eq!(
        (status.as_str(), remedy.as_str()),
        ("problem", "Log in again (`kimi login`), or replace the API key; then ask again.")
    );
    assert!(says.contains("Invalid Authentication"), "{says}");
    assert_eq!(world.run(&["threads", "--json"]).json(), json!([]));
}

fn a_machine_that_is_not_ready() {
    let world = bare(World::new());
    let program = world.home().join("bin/kimi");
    write_program(&program, "#!/bin/sh\necho 2.0.9\n");
    let world = world.with(&[
        ("KIMI_PATH", &program.display().to_string()),
        ("HTTPS_PROXY", "http://me:pass@proxy:3128"),
        ("NODE_EXTRA_CA_CERTS", "/no/such.pem"),
        ("KIMI_BRIDGE_TIMEOUT_SECOND", "7"),
        ("KIMI_BRIDGE_GRACE_SECONDS", "700"),
        ("KIMI_BRIDGE_SILENCE_SECONDS", "400"),
    ]);
    write(&world.home().join(".config/kimi-bridge/secrets.yaml"), "[]");
    write(&world.project().join(".mcp.json"), "{");
    write(
        &world.home().join(".codex/config.toml"),
        "[mcp_servers.kimi-bridge]\ncommand = '/no/such/kimi-bridge'\nargs = ['serve']\n",
    );
    write(&world.home().join(".gemini/settings.json"), "{}");
    let ran = world.run(&["doctor"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(15), ""), "{}", ran.stdout);
    insta::assert_snapshot!("not_ready", normal(&ran.stdout));
    report(&world).is_whole();
}

fn no_kimi_at_all() {
    let world = bare(World::new());
    let node = world.home().join("bin/node");
    write_program(&node, "#!/bin/sh\necho v20.20.0\n");
    let report = report(&world);
    report.is_whole();
    assert_eq!(report.code, 10);
    report.check(
        "kimi",
        "program",
        &[(
            "problem",
            "no `kimi` on PATH or in its usual places",
            "Install Kimi Code CLI (`npm install -g @moonshot-ai/kimi-code`, Node 24) and log in (`kimi login`), or set \
             KIMI_PATH to the program. `kimi-bridge doctor` shows what is found, and why it is not used.",
        )],
    );
    let (status, says, _) = &report.checks("kimi", "node")[0];
    let too_old =
        format!("`node` v20.20.0 at {} is too old; Kimi Code CLI needs Node 24", node.display());
    assert_eq!((status.as_str(), says), ("problem", &too_old));
    report.check(
        "hosts",
        "registered",
        &[("note", "with no known host", "`kimi-bridge setup` registers it.")],
    );
    assert!(!world.state().exists(), "nothing is made");
}

const NOTICE: &str = "kimi, version 1.52.0\nkimi-cli is no longer maintained.";

fn only_a_retired_kimi() {
    let world = bare(World::with_fake(NOTICE, ""));
    let report = report(&world);
    assert_eq!(report.code, 11);
    let program = world.root().join("fake/kimi").display().to_string();
    let (status, says, _) = &report.checks("kimi", "program")[0];
    assert_eq!(
        (status.as_str(), says.as_str()),
        (
            "problem",
            format!("{program} is the retired release of kimi-cli, which answers nothing any more")
                .as_str()
        )
    );
    let other =
        format!("kimi-cli 1.52.0 at {program} (KIMI_PATH): retired, it only prints a notice");
    assert!(report.checks("kimi", "other").iter().any(|(_, says, _)| *says == other));
}

fn the_first_usable_one() {
    let world = World::new();
    let saying = |folder: &str, words: &str| {
        write_program(
            &world.home().join(folder).join("kimi"),
            &format!("#!/bin/sh\necho '{words}'\n"),
        );
        world.home().join(folder).display().to_string()
    };
    let places = [
        saying("games", "Kimi the game, level 3"),
        saying("old", NOTICE),
        saying("new", "2.1.0"),
        saying("spare", "kimi, version 1.51.0"),
    ];
    saying(".local/bin", "2.0.0");
    let path = format!("{}:/usr/bin:/bin", places.join(":"));
    let world = world.with(&[("PATH", &path), ("KIMI_MODEL_API_KEY", "sk-scripted")]);
    let seen = report(&world);
    assert_eq!(seen.code, 0);
    let [games, old, new, spare] = places;
    let usual = world.home().join(".local/bin/kimi").display().to_string();
    seen.check(
        "kimi",
        "program",
        &[("ok", &format!("kimi-code 2.1.0 at {new}/kimi: the first usable one, and on PATH"), "")],
    );
    let others: Vec<String> =
        seen.checks("kimi", "other").into_iter().map(|(_, says, _)| says).collect();
    assert_eq!(
        others[..4],
        [
            format!(
                "{games}/kimi (PATH) does not answer --version as a Kimi does: Kimi the game, level 3"
            ),
            format!("kimi-cli 1.52.0 at {old}/kimi (PATH): retired, it only prints a notice"),
            format!("kimi-cli 1.51.0 at {spare}/kimi (PATH): the first usable one is used"),
            format!("kimi-code 2.0.0 at {usual} (a usual place): the first usable one is used"),
        ]
    );

    let world =
        world.with(&[("KIMI_BRIDGE_KIMI_PATH", &format!("{spare}/kimi")), ("KIMI_API_KEY", "k")]);
    let seen = report(&world);
    seen.check(
        "kimi",
        "program",
        &[("ok", &format!("kimi-cli 1.51.0 at {spare}/kimi: KIMI_BRIDGE_KIMI_PATH names it"), "")],
    );
    let passed = format!("{new}/kimi was not asked: a setting names another");
    assert!(seen.checks("kimi", "other").iter().any(|(_, says, _)| *says == passed));
}

fn a_closed_path() {
    let world = bare(World::new()).with(&[("KIMI_MODEL_API_KEY", "sk-scripted")]);
    // Names that only the running script puts together, so that nobody can know them before.
    let home = world.home();
    write(&home.join("parts/first.sh"), "s=second; . \"$HOME/more/$s.sh\" || exit 1\n");
    write(&home.join("more/second.sh"), "version=2.1.0\n");
    let program = world.root().join("fake/kimi");
    write_program(
        &program,
        "#!/bin/bash\nf=first; . \"$HOME/parts/$f.sh\" || exit 1\necho $version\n",
    );
    let world = world.with(&[("KIMI_PATH", &program.display().to_string())]);
    let seen = report(&world);
    seen.is_whole();
    assert_eq!(seen.code, 42);
    let (parts, more) =
        (home.join("parts").display().to_string(), home.join("more").display().to_string());
    let (status, says, remedy) = &seen.checks("kimi", "program")[0];
    assert_eq!(status, "problem");
    assert!(says.contains(&format!("closes {parts}/first.sh to it")), "{says}");
    let settings = home.join(".config/kimi-bridge/settings.yaml");
    assert_eq!(
        *remedy,
        format!(
            "Set `readable: [{parts}, {more}]` in {} (or KIMI_BRIDGE_READABLE={parts}:{more} in the environment): in a \
             trial, Kimi then started.",
            settings.display()
        )
    );
    let note = format!(
        "kimi-code 2.1.0 at {} (KIMI_PATH): it does not start inside the sandbox",
        program.display()
    );
    assert_eq!(seen.checks("kimi", "other")[0], ("note".to_owned(), note, String::new()));

    // What it says is true.
    write(&settings, &format!("readable: [{parts}, {more}]\n"));
    let seen = report(&world);
    assert_eq!(seen.code, 0, "{}", seen.json);
    assert_eq!(seen.checks("sandbox", "readable").len(), 2);
    assert_eq!(seen.checks("sandbox", "start")[0].0, "ok");

    // It is remembered that this is a Kimi, and tried nevertheless.
    fs::remove_file(&settings).unwrap();
    let seen = report(&world);
    assert_eq!(seen.code, 42);
    assert_eq!(seen.checks("kimi", "program")[0].0, "ok");
    let (status, _, again) = &seen.checks("sandbox", "start")[0];
    assert_eq!((status.as_str(), again), ("problem", remedy));

    // Without the sandbox nothing is closed.
    let seen = report(&world.with(&[("KIMI_BRIDGE_SANDBOX", "off")]));
    assert_eq!(seen.code, 0);
    seen.check(
        "sandbox",
        "setting",
        &[(
            "warning",
            "off: only its tool list, its private home and its environment limit Kimi",
            "Set `sandbox: auto`.",
        )],
    );
}

fn a_wrapper_of_a_link() {
    let world = bare(World::new()).with(&[("KIMI_MODEL_API_KEY", "sk-scripted")]);
    let home = world.home();
    // The last file lies in the home itself, which is never offered as a whole.
    write_program(
        &home.join("apps/kimi/real"),
        "#!/bin/bash\n. \"$HOME/.kimirc\" || exit 1\necho $version\n",
    );
    write(&home.join(".kimirc"), "version=2.1.0\n");
    fs::create_dir_all(home.join("links")).unwrap();
    symlink("../apps/kimi/real", home.join("links/kimi")).unwrap();
    let program = world.root().join("fake/kimi");
    write_program(&program, "#!/bin/bash\nexec \"$HOME/links/kimi\"\n");
    let world = world.with(&[("KIMI_PATH", &program.display().to_string())]);
    let seen = report(&world);
    assert_eq!(seen.code, 42);
    let (apps, rc) = (home.join("apps/kimi"), home.join(".kimirc"));
    let (apps, rc) = (apps.display(), rc.display());
    let (_, _, remedy) = &seen.checks("kimi", "program")[0];
    assert!(remedy.starts_with(&format!("Set `readable: [{apps}, {rc}]` in ")), "{remedy}");

    // A program that never says what it lacks is not promised to start.
    write_program(
        &home.join("apps/kimi/real"),
        "#!/bin/bash\n. \"$HOME/.kimirc\" 2>&- || { echo 'no luck' >&2; exit 1; }\necho $version\n",
    );
    let seen = report(&world);
    let (_, _, remedy) = &seen.checks("kimi", "program")[0];
    let expected = format!("With {apps} open, the program failed too: ");
    assert!(remedy.starts_with(&expected) && remedy.contains("no luck"), "{remedy}");
}

fn a_program_that_broke() {
    let world = bare(World::new()).with(&[("KIMI_MODEL_API_KEY", "sk-scripted")]);
    let runtime = world.root().join("runtime");
    write_program(&runtime, "#!/bin/sh\necho 2.1.0\n");
    let program = world.root().join("fake/kimi");
    write_program(&program, &format!("#!/bin/sh\nexec {}\n", runtime.display()));
    let world = world.with(&[("KIMI_PATH", &program.display().to_string())]);
    assert_eq!(report(&world).code, 0);
    fs::remove_file(&runtime).unwrap();
    let seen = report(&world);
    seen.is_whole();
    assert_eq!(seen.code, 40);
    let (status, says, remedy) = &seen.checks("sandbox", "start")[0];
    assert_eq!(
        (status.as_str(), remedy.as_str()),
        (
            "problem",
            "Check that the program can be started by hand; `kimi-bridge doctor` tries it inside and outside the sandbox."
        )
    );
    let begins = "kimi-code 2.1.0 does not start, not even outside the sandbox: ";
    assert!(says.starts_with(begins) && says.contains("not found"), "{says}");
}

fn settings_that_do_not_fit() {
    let world = with_kimi("2.1.0").with(&[
        ("KIMI_BRIDGE_TIMEOUT_SECONDS", "soon"),
        ("KIMI_BRIDGE_TOOL_ENABELD", "1"),
        ("KIMI_BRIDGE_AUTO_ENABLED", "1"),
    ]);
    let file = world.home().join(".config/kimi-bridge/settings.yaml");
    write(&file, "grace_second: 1\nsilence_seconds: 400\n");
    let seen = report(&world);
    seen.is_whole();
    assert_eq!(seen.code, 15);
    let remedy = "Fix it: until then every other command refuses to start, and a server offers kimi_status alone. docs/settings.md describes every setting.";
    let of_file = format!(
        "{}: there is no setting `grace_second` (did you mean grace_seconds?)",
        file.display()
    );
    seen.check(
        "settings",
        "setting",
        &[
            ("problem", &of_file, remedy),
            (
                "problem",
                "KIMI_BRIDGE_TIMEOUT_SECONDS: timeout_seconds: expected a whole number",
                remedy,
            ),
        ],
    );
    let program = world.root().join("fake/kimi").display().to_string();
    let by_file = format!("silence_seconds = 400, by {}", file.display());
    seen.check(
        "settings",
        "changed",
        &[
            ("note", "auto_enabled = true, by KIMI_BRIDGE_AUTO_ENABLED", ""),
            ("note", &format!("kimi_path = {program}, by KIMI_PATH"), ""),
            ("note", &by_file, ""),
        ],
    );
    seen.check(
        "settings",
        "unknown",
        &[(
            "warning",
            "KIMI_BRIDGE_TOOL_ENABELD is no setting of this version",
            "Did you mean KIMI_BRIDGE_TOOL_ENABLED? Rename it, or remove it.",
        )],
    );
    seen.check(
        "settings",
        "mode",
        &[(
            "warning",
            "disabled: auto_enabled alone does nothing",
            "Set tool_enabled as well (KIMI_BRIDGE_TOOL_ENABLED=1).",
        )],
    );
    assert_eq!(seen.checks("sandbox", "start")[0].0, "ok", "the rest was looked at");
    write(&file, "- no mapping\n");
    assert_eq!(report(&world).checks("settings", "setting").len(), 2);
}

fn versions() {
    let check = |version: &str, expected: (&str, &str, &str)| {
        let world = with_kimi(version).with(&[("KIMI_API_KEY", "k")]);
        report(&world).check("kimi", "version", &[expected]);
    };
    let update = "Update it: `npm install -g @moonshot-ai/kimi-code@2.1.0`.";
    check("2.1.0", ("ok", "2.1.0 is the tested one", ""));
    check("2.0.9", ("warning", "2.0.9 is older than the tested 2.1.0", update));
    check(
        "2.10.0",
        (
            "note",
            "2.10.0 is newer than the tested 2.1.0",
            "If answers cannot be read, go back: `npm install -g @moonshot-ai/kimi-code@2.1.0`.",
        ),
    );
    check(
        "kimi, version 1.51.0",
        (
            "ok",
            "1.51.0 is the tested one, and the last of kimi-cli that works: do not update it",
            "",
        ),
    );
    check(
        "kimi, version 1.40.0",
        (
            "warning",
            "1.40.0 is older than the tested 1.51.0",
            "Update it: `uv tool install kimi-cli==1.51.0`.",
        ),
    );
}

fn logins() {
    let world = || {
        let mut world = bare(World::with_fake("2.1.0", "exit 1"));
        world.env.retain(|name, _| !name.starts_with("KIMI_MODEL_"));
        world
    };
    let log_in =
        "Run `kimi login` in a terminal, or set a model in Kimi's config.toml; then ask again.";
    let seen = report(&world());
    assert_eq!(seen.code, 12);
    seen.check(
        "kimi",
        "login",
        &[("problem", "kimi-code has no login, no key and no provider", log_in)],
    );

    let expired = world();
    let token = expired.home().join(".kimi-code/credentials/kimi-code.json");
    write(&token, r#"{"access_token": "eyJhbGciOi", "expires_at": 1700000000}"#);
    let seen = report(&expired);
    assert_eq!(seen.code, 0);
    let says = format!("the token in {} has expired, and cannot be renewed", token.display());
    seen.check(
        "kimi",
        "login",
        &[
            (
                "warning",
                &says,
                "Log in again (`kimi login`), or replace the API key; then ask again.",
            ),
            ("warning", "there is no token or key that could be used", log_in),
        ],
    );
    write(
        &token,
        r#"{"access_token": "eyJhbGciOi", "refresh_token": "r", "expires_at": 1700000000}"#,
    );
    let says = "a token in kimi-code.json; only a consultation shows that it works (--live)";
    report(&expired).check("kimi", "login", &[("ok", says, "")]);

    let half = world().with(&[("KIMI_MODEL_NAME", "k2")]);
    assert_eq!(report(&half).code, 12);
    let broken = world();
    write(&broken.home().join(".kimi-code/config.toml"), "[providers.p\napi_key = 'sk-x'\n");
    let seen = report(&broken);
    assert_eq!(seen.code, 15);
    let (status, says, remedy) = &seen.checks("kimi", "login")[0];
    assert_eq!(
        (status.as_str(), remedy.as_str()),
        ("problem", "Fix the file, or run `kimi` once, which says what is wrong with it.")
    );
    assert!(
        says.contains("config.toml cannot be used: ") && says.ends_with(" on line 1"),
        "{says}"
    );
}

fn the_state_folder() {
    let world = with_kimi("2.1.0");
    let state = world.state();
    fs::create_dir_all(state.join("runs/run-left")).unwrap();
    fs::write(state.join("runs/run-left/lock"), "").unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(state.join("ledger.sqlite"), "x".repeat(5000)).unwrap();
    let seen = report(&world);
    seen.is_whole();
    assert_eq!(seen.code, 41);
    let path = state.display();
    seen.check(
        "state",
        "folder",
        &[(
            "warning",
            &format!("{path} is open to other users (rights 755)"),
            &format!("Close it: `chmod 700 {path}`."),
        )],
    );
    let (status, says, _) = &seen.checks("state", "ledger")[0];
    assert!(status == "problem" && says.contains("file is not a database"), "{says}");
    seen.check(
        "state",
        "runs",
        &[(
            "note",
            "1 left behind, by a bridge that was killed or by a run that wrote very much; later runs remove them",
            "",
        )],
    );
    fs::remove_file(state.join("ledger.sqlite")).unwrap();
    world.run(&["threads"]);
    let older = state.join("ledger-4.db");
    fs::write(&older, "").unwrap();
    let says = format!(
        "{} has the threads of an older version, which this one does not read",
        older.display()
    );
    report(&world).check(
        "state",
        "ledger",
        &[("ok", "opens; version 7, 0 threads", ""), ("note", &says, "")],
    );
    let elsewhere = world.with(&[("KIMI_BRIDGE_STATE_DIR", "/dev/null/state")]);
    let seen = report(&elsewhere);
    assert!(seen.code != 0, "{}", seen.json);
    assert_eq!(seen.checks("state", "folder")[0].0, "problem");
}

fn nothing_secret_is_printed() {
    let key = "sk-AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbCdEfGhIjKl";
    let world = bare(World::with_fake(
        "2.1.0",
        &format!("echo 'error: bad key {key}' >&2; exit 1"),
    ))
    .with(&[
        ("KIMI_MODEL_API_KEY", key),
        ("KIMI_MODEL_NAME", "k2"),
        ("KIMI_MODEL_BASE_URL", "http://user:s3cret-pass@127.0.0.1:9/v1?token=s3cret-token"),
        ("HTTPS_PROXY", "http://user:s3cret-pass@proxy:3128"),
        ("ALL_PROXY", "user:s3cret-pass@proxy"),
        ("NO_PROXY", "127.0.0.1"),
        ("MY_KEY", key),
    ]);
    let home = world.home();
    let config = format!(
        "[providers.p]\napi_key = '{key}'\nbase_url = 'https://user:s3cret-pass@x.example/{key}'\n[providers.q]\napi_key_env = 'MY_KEY'\n"
    );
    write(&home.join(".kimi-code/config.toml"), &config);
    write(
        &home.join(".kimi-code/credentials/t.json"),
        &format!(r#"{{"access_token": "{key}", "expires_at": 1}}"#),
    );
    let env = json!({"KIMI_MODEL_API_KEY": key, "KIMI_BRIDGE_TIMEOUT_SECONDS": key, "KIMI_BRIDGE_SECRET": key});
    let entry =
        json!({"command": env!("CARGO_BIN_EXE_kimi-bridge"), "args": ["serve"], "env": env});
    write(&home.join(".claude.json"), &json!({"mcpServers": {"kimi-bridge": entry}}).to_string());
    write(
        &home.join(".cursor/mcp.json"),
        &format!("{{\"mcpServers\": {{\"x\": {{\"env\": {{\"K\": {key}}}}}}}}}"),
    );
    write(&home.join(".codex/config.toml"), &format!("[mcp_servers.x.env]\nK = '{key}\n"));
    for args in [
        &["doctor"][..],
        &["doctor", "--json"],
        &["doctor", "--live"],
        &["doctor", "--live", "--json"],
    ] {
        let ran = world.run(args);
        let all = format!("{}{}", ran.stdout, ran.stderr);
        assert!(all.contains("proxy:3128"), "{all}");
        for secret in ["s3cret", "AbCdEfGhIj", "QrStUvWxYz"] {
            assert!(!all.contains(secret), "{secret} is in:\n{all}");
        }
    }
    write(&home.join(".kimi-code/config.toml"), &format!("[providers.p]\napi_key = '{key}\n"));
    let ran = world.run(&["doctor"]);
    assert_eq!(ran.code, Some(15));
    assert!(!ran.stdout.contains("AbCdEf"), "{}", ran.stdout);
}

fn interrupting() {
    let world = bare(World::new());
    let program = world.root().join("fake/kimi");
    write_program(&program, "#!/bin/bash\nexec -a \"$0-me\" sleep 1000\n");
    let world = world.with(&[("KIMI_PATH", &program.display().to_string())]);
    let mut child =
        world.bridge(&["doctor"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let asleep = format!("{}-me", program.display());
    wait_until("it is asked", || !processes_with(&asleep).is_empty());
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let root = world.root().display().to_string();
    wait_until("nobody is left", || processes_with(&root).is_empty());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
