//! Every way in which Kimi is known to fail, brought about for real, and what the user is told.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::kimi::Real;
use crate::support::model::{Model, Step};
use crate::support::world::{Ran, World, write_program};
use crate::support::{both, one, test};

pub(crate) fn tests() -> Vec<Trial> {
    let mut trials: Vec<Trial> = [
        both("failures::a_bad_key", a_bad_key),
        both("failures::a_spent_quota", a_spent_quota),
        both("failures::a_rate_limit", a_rate_limit),
        both("failures::a_server_error", a_server_error),
        both("failures::a_request_that_the_service_refuses", refused),
        both("failures::a_model_that_kimi_does_not_know", unknown_model),
        both("failures::no_connection", no_connection),
        both("failures::a_stream_that_breaks_off", a_stream_that_breaks_off),
        both("failures::empty_answers", empty_answers),
        both("failures::not_logged_in", not_logged_in),
        both("failures::what_had_arrived_is_kept", what_had_arrived_is_kept),
        both("failures::a_run_that_never_answers_times_out", times_out),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.push(one("failures::a_retired_program_is_recognised", Real::Retired, retired));
    trials.push(test("failures::no_kimi_at_all", no_kimi_at_all));
    trials.push(test("failures::a_kimi_that_cannot_start", a_kimi_that_cannot_start));
    trials.push(test("failures::a_machine_on_which_nothing_starts", nothing_starts));
    trials.push(test("failures::a_host_that_ignores_its_children", ignored_children));
    trials.push(one("failures::an_old_node_is_named", Real::KimiCode, old_node));
    trials.push(one("failures::the_node_beside_kimi_is_used", Real::KimiCode, node_beside));
    trials
}

fn failing(real: Real, program: &Path, step: Step) -> Ran {
    let model = Model::start(vec![step]);
    World::with_real(real, program, &model).consult(&[])
}

/// The exit code and kind, and that the message repeats the service's words.
#[track_caller]
fn check(ran: &Ran, code: i32, kind: &str, words: &str) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    let error = &ran.json()["error"];
    assert_eq!(error["kind"], kind, "{ran:?}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(words), "{message}");
    assert!(error["hint"].as_str().unwrap().ends_with('.'), "{error}");
    assert!(ran.stderr.starts_with(&format!("error: {message}\nhint: ")), "{}", ran.stderr);
}

fn error_body(message: &str, kind: &str) -> Value {
    json!({"error": {"message": message, "type": kind}})
}

fn a_bad_key(real: Real, program: &Path) {
    let ran =
        failing(real, program, Step::Status(401, error_body("Invalid Authentication", "error")));
    check(&ran, 13, "bad_key", "Invalid Authentication");
}

fn a_spent_quota(real: Real, program: &Path) {
    let body =
        error_body("You've reached your usage limit for this period", "access_terminated_error");
    check(
        &failing(real, program, Step::Status(403, body)),
        14,
        "quota",
        "reached your usage limit",
    );
}

fn a_rate_limit(real: Real, program: &Path) {
    let body = error_body("You have reached your request rate limit", "error");
    let ran = failing(real, program, Step::Status(429, body));
    check(&ran, 20, "rate_limited", "request rate limit");
    assert_eq!(ran.json()["error"]["retryable"], true);
}

fn a_server_error(real: Real, program: &Path) {
    let ran = failing(real, program, Step::Status(500, error_body("upstream exploded", "error")));
    check(&ran, 21, "unavailable", "upstream exploded");
}

fn refused(real: Real, program: &Path) {
    let page = Value::String(
        "<html><head><title>413 Request Entity Too Large</title></head></html>".to_owned(),
    );
    let listed = "Kimi For Coding is currently only available for Coding Agents such as Kimi CLI";
    let cases = [
        (
            400,
            error_body("The request was rejected: high risk", "content_filter"),
            23,
            "declined",
            "high risk",
        ),
        (402, error_body("Insufficient balance", "error"), 14, "quota", "Insufficient balance"),
        (403, error_body("Your account has been banned", "error"), 13, "bad_key", "banned"),
        (403, error_body(listed, "access_terminated_error"), 17, "not_admitted", "For Coding"),
        (404, error_body("Not found the model k9", "error"), 23, "declined", "k9"),
        (413, page, 23, "declined", "413"),
    ];
    for (status, body, code, kind, words) in cases {
        let ran = failing(real, program, Step::Status(status, body));
        check(&ran, code, kind, words);
        assert_eq!(ran.json()["error"]["retryable"], false);
    }
}

fn unknown_model(real: Real, program: &Path) {
    let world = World::new().with(&[("KIMI_PATH", &program.display().to_string())]);
    let folder = world.home().join(if real == Real::KimiCode { ".kimi-code" } else { ".kimi" });
    fs::create_dir_all(&folder).unwrap();
    let config = "default_model = \"nope\"\n[providers.p]\ntype = \"kimi\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                  api_key = \"key\"\n[models.k]\nprovider = \"p\"\nmodel = \"k\"\nmax_context_size = 262144\n";
    fs::write(folder.join("config.toml"), config).unwrap();
    check(&world.consult(&[]), 15, "settings", "nope");
}

fn no_connection(real: Real, program: &Path) {
    let model = Model::start(vec![Step::Hang]);
    let world = World::with_real(real, program, &model);
    drop(model);
    check(&world.consult(&[]), 21, "unavailable", "Connection error");
}

fn a_stream_that_breaks_off(real: Real, program: &Path) {
    let broken = Step::Status(500, Value::Null);
    let ran = failing(real, program, Step::Think("look at the store".to_owned(), Box::new(broken)));
    let words = if real == Real::KimiCode { "terminated" } else { "peer closed connection" };
    check(&ran, 21, "unavailable", words);
}

fn empty_answers(real: Real, program: &Path) {
    check(&failing(real, program, Step::Empty), 22, "empty_answer", "empty response");
}

fn not_logged_in(real: Real, program: &Path) {
    let world = World::new().with(&[("KIMI_PATH", &program.display().to_string())]);
    let name = real.name();
    let words = format!("{name} has no login, no key and no provider");
    check(&world.consult(&[]), 12, "not_logged_in", &words);
    assert_eq!(world.run(&["threads"]).stdout, "No threads.\n", "what was never asked is not kept");
    // With a provider and no more, Kimi is asked, and says what it lacks.
    let folder = world.home().join(if real == Real::KimiCode { ".kimi-code" } else { ".kimi" });
    fs::create_dir_all(&folder).unwrap();
    let provider =
        "[providers.p]\ntype = \"kimi\"\nbase_url = \"http://127.0.0.1:9/v1\"\napi_key = \"\"\n";
    fs::write(folder.join("config.toml"), provider).unwrap();
    let words = if real == Real::KimiCode { "No model configured" } else { "LLM not set" };
    check(&world.consult(&[]), 12, "not_logged_in", words);
}

fn what_had_arrived_is_kept(real: Real, program: &Path) {
    let model = Model::start(vec![
        Step::TextAndCalls(
            "I will read the store first.".to_owned(),
            vec![(real.read_tool(), json!({"path": "src/store.rs"}))],
        ),
        Step::Status(401, error_body("Invalid Authentication", "error")),
    ]);
    let ran = World::with_real(real, program, &model).consult(&[]);
    check(&ran, 13, "bad_key", "Invalid Authentication");
    let partial = &ran.json()["error"]["partial"];
    assert_eq!(partial["response"], "I will read the store first.");
    assert_eq!(partial["evidence"][0]["tool"], "ReadFile");
    assert_eq!(partial["evidence"][0]["ok"], true);
}

fn times_out(real: Real, program: &Path) {
    let model = Model::start(vec![Step::Hang]);
    let world = World::with_real(real, program, &model);
    let ran = world.consult(&["--timeout", "6"]);
    check(&ran, 30, "timed_out", "the call took longer than timeout_seconds (6 s)");
    let home = world.home().display().to_string();
    assert_eq!(
        crate::support::world::processes_with(&home),
        Vec::<String>::new(),
        "nobody is left"
    );
}

fn retired(_: Real, program: &Path) {
    let world = World::new().with(&[("KIMI_PATH", &program.display().to_string())]);
    check(&world.consult(&[]), 11, "kimi_retired", "is the retired release of kimi-cli");
}

fn no_kimi_at_all() {
    let world = World::new();
    let path = world.root().join("bin").display().to_string();
    check(&world.with(&[("PATH", &path)]).consult(&[]), 10, "kimi_missing", "no `kimi` on PATH");
    let world = World::new().with(&[("KIMI_PATH", "/no/such/kimi")]);
    check(
        &world.consult(&[]),
        10,
        "kimi_missing",
        "there is no program at /no/such/kimi, which `kimi_path` names",
    );
}

/// Kimi is there: the state folder is not.
fn nothing_starts() {
    let world = World::with_fake("2.1.0", "true");
    fs::write(world.root().join("file"), "").unwrap();
    let state = world.root().join("file/state");
    let world = world.with(&[("KIMI_BRIDGE_STATE_DIR", &state.display().to_string())]);
    let (code, message) = world.consult(&[]).failed();
    assert!(
        code == 40 && message.starts_with(&format!("could not make {}", state.display())),
        "{message}"
    );
}

fn ignored_children() {
    let answer = r#"echo '{"role":"assistant","content":"{\"response\":\"r\",\"findings\":[]}"}'"#;
    let world = World::with_fake("2.1.0", answer);
    let context = world.root().join("context.yaml");
    fs::write(&context, "proposed_approach: p\ngoals: [g]\n").unwrap();
    let bridge = world.bridge(&["consult", "-m", "m", "-c", &context.display().to_string()]);
    let mut command = std::process::Command::new("bash");
    // What a shell ignores, its programs are started with.
    command.args(["-c", "trap '' CHLD; exec \"$0\" \"$@\""]).arg(bridge.get_program());
    command.args(bridge.get_args()).env_clear().envs(&world.env).current_dir(world.project());
    let ran = Ran::from(command.output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

/// A folder with a `node` that prints a version and starts nothing.
fn fake_node(world: &World, version: &str) -> String {
    let bin = world.root().join("other/bin");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && {{ echo {version}; exit; }}\necho 'SyntaxError: export' >&2\nexit 1\n"
    );
    write_program(&bin.join("node"), &script);
    bin.display().to_string()
}

fn old_node(real: Real, program: &Path) {
    let model =
        Model::start(vec![Step::Status(401, error_body("Invalid Authentication", "error"))]);
    let world = World::with_real(real, program, &model);
    // The script itself, as npm links it, without the node of its packages.
    let script =
        program.parent().unwrap().join("node_modules/@moonshot-ai/kimi-code/dist/main.mjs");
    let script = script.canonicalize().unwrap().display().to_string();
    let bin = fake_node(&world, "v20.20.2");
    let path = format!("{bin}:/usr/bin:/bin");
    let too_old = format!("`node` v20.20.2 at {bin}/node is too old; Kimi Code CLI needs Node 24");
    let world = world.with(&[("KIMI_PATH", &script), ("PATH", &path)]);
    let ran = world.consult(&[]);
    assert_eq!(ran.failed(), (40, too_old.clone()));
    assert!(ran.stderr.contains("hint: Install Node 24 "), "{ran:?}");
    let doctor = world.run(&["doctor"]).stdout;
    assert!(doctor.contains("✗ program      `node` v20.20.2 at "), "{doctor}");
    let status = world.run(&["status"]).stdout;
    assert_eq!(status.matches(&too_old).count(), 1, "{status}");
    assert!(status.contains(": no Kimi: see above"), "{status}");

    let nothing = world.root().join("nothing").display().to_string();
    let world = world.with(&[("PATH", &nothing)]);
    assert_eq!(
        world.consult(&[]).failed(),
        (40, "there is no `node` on PATH; Kimi Code CLI needs Node 24".to_owned())
    );
}

/// As nvm has it: the script and its Node in one folder, and another Node on PATH.
fn node_beside(real: Real, program: &Path) {
    let model =
        Model::start(vec![Step::Status(401, error_body("Invalid Authentication", "error"))]);
    let world = World::with_real(real, program, &model);
    let modules = program.parent().unwrap().join("node_modules");
    let nvm = world.home().join(".nvm/versions/node/v24/bin");
    fs::create_dir_all(&nvm).unwrap();
    symlink(modules.join("@moonshot-ai/kimi-code/dist/main.mjs"), nvm.join("kimi")).unwrap();
    fs::copy(modules.join(".bin/node"), nvm.join("node")).unwrap();
    let path = format!("{}:/usr/bin:/bin", fake_node(&world, "v20.20.2"));
    let kimi = nvm.join("kimi").display().to_string();
    let world = world.with(&[("KIMI_PATH", &kimi), ("PATH", &path)]);
    check(&world.consult(&[]), 13, "bad_key", "Invalid Authentication");
    let doctor = world.run(&["doctor"]).stdout;
    assert!(doctor.contains("✓ node         v24."), "{doctor}");
}

fn a_kimi_that_cannot_start() {
    let world = World::with_fake("Kimi: a game", "true");
    check(
        &world.consult(&[]),
        10,
        "kimi_missing",
        "does not answer `--version` as a Kimi does: Kimi: a game",
    );
}
