//! What a user is told, and what is left running, when a program in Kimi's place misbehaves.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::json;

use crate::support::test;
use crate::support::world::{Ran, World, processes_with, wait_until};

const VERSION: &str = r#"echo '{"role":"meta","type":"system.version","version":"2.1.0"}'"#;
const ANSWER: &str =
    r#"echo '{"role":"assistant","content":"{\"response\":\"r\",\"findings\":[]}"}'"#;
const READ: &str = r#"echo '{"role":"assistant","content":"so far","tool_calls":[{"id":"a","function":{"name":"Read","arguments":"{\"path\":\"src/store.rs\"}"}}]}'"#;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("faults::silence_before_the_first_line", silence_before_the_first_line),
        test("faults::silence_in_the_middle", silence_in_the_middle),
        test("faults::a_program_that_ignores_being_asked_to_end", ignores_term),
        test("faults::a_hang_after_the_answer_loses_nothing", hang_after_the_answer),
        test("faults::a_grandchild_that_holds_the_pipes", a_grandchild_holds_the_pipes),
        test("faults::a_flood_is_ended", a_flood_is_ended),
        test("faults::a_line_over_the_limit_is_skipped", a_long_line_is_skipped),
        test("faults::junk_and_bad_bytes_are_skipped", junk_is_skipped),
        test("faults::a_death_by_signal", a_death_by_signal),
        test("faults::a_bad_end_after_the_answer_is_a_warning", a_bad_end_after_the_answer),
        test("faults::interrupting_the_shell_command_ends_kimi", interrupting_ends_kimi),
        test("faults::half_an_answer_is_no_answer", half_an_answer),
        test("faults::kimi_cli_may_think_before_its_first_line", kimi_cli_thinks_first),
        test("faults::a_version_that_never_ends_or_floods", a_version_that_never_ends),
        test("faults::interrupting_a_read_of_standard_input", interrupting_a_read),
        test("faults::the_log_holds_no_secret", the_log_holds_no_secret),
        test("faults::the_child_gets_none_of_the_hosts_tokens", the_childs_environment),
        test("faults::nothing_is_left_in_the_state_folder", nothing_is_left_in_the_state_folder),
    ]
}

#[track_caller]
fn check(ran: &Ran, code: i32, message: &str) {
    let error = &ran.json()["error"];
    assert_eq!((ran.code, error["message"].as_str().unwrap()), (Some(code), message), "{ran:?}");
}

/// Nobody of this world is running any more.
#[track_caller]
fn nobody_left(world: &World) {
    let root = world.root().display().to_string();
    wait_until("everybody of the run is gone", || processes_with(&root).is_empty());
}

fn silence_before_the_first_line() {
    let world = World::with_fake("2.1.0", "exec -a \"$0-me\" sleep 1000")
        .with(&[("KIMI_BRIDGE_FIRST_LINE_SECONDS", "1")]);
    check(&world.consult(&[]), 31, "Kimi wrote nothing within first_line_seconds (1 s)");
    nobody_left(&world);
}

fn silence_in_the_middle() {
    let script = format!("{VERSION}; {READ}; exec -a \"$0-me\" sleep 1000");
    let world = World::with_fake("2.1.0", &script).with(&[("KIMI_BRIDGE_SILENCE_SECONDS", "1")]);
    let ran = world.consult(&[]);
    check(&ran, 31, "Kimi wrote nothing for silence_seconds (1 s)");
    assert_eq!(ran.json()["error"]["partial"]["response"], "so far");
    assert_eq!(ran.json()["error"]["partial"]["evidence"][0]["tool_call_id"], "a");
    nobody_left(&world);
}

fn ignores_term() {
    let script = "trap '' TERM; (trap '' TERM; exec -a \"$0-grandchild\" sleep 1000) & while true; do sleep 0.1; done";
    let world = World::with_fake("2.1.0", script)
        .with(&[("KIMI_BRIDGE_FIRST_LINE_SECONDS", "1"), ("KIMI_BRIDGE_GRACE_SECONDS", "1")]);
    check(&world.consult(&[]), 31, "Kimi wrote nothing within first_line_seconds (1 s)");
    nobody_left(&world);
}

fn hang_after_the_answer() {
    let world =
        World::with_fake("2.1.0", &format!("{VERSION}; {ANSWER}; exec -a \"$0-me\" sleep 1000"))
            .with(&[("KIMI_BRIDGE_SILENCE_SECONDS", "1")]);
    let ran = world.consult(&[]);
    assert_eq!((ran.code, &ran.json()["parse_ok"]), (Some(0), &json!(true)));
    let warning =
        "Kimi had answered but did not end by itself: Kimi wrote nothing for silence_seconds (1 s)";
    assert_eq!(ran.json()["warnings"], json!([warning]));
    nobody_left(&world);
}

fn a_grandchild_holds_the_pipes() {
    let script = format!("{VERSION}; {ANSWER}; (exec -a \"$0-grandchild\" sleep 1000) & exit 0");
    let world = World::with_fake("2.1.0", &script);
    let ran = world.consult(&[]);
    assert_eq!((ran.code, &ran.json()["warnings"]), (Some(0), &json!([])));
    nobody_left(&world);
}

fn a_flood_is_ended() {
    let world = World::with_fake("2.1.0", &format!("{READ}; while true; do {VERSION}; done"))
        .with(&[("KIMI_BRIDGE_MAX_RUN_BYTES", "1000000")]);
    let ran = world.consult(&[]);
    check(&ran, 32, "Kimi wrote more than max_run_bytes (1000000)");
    assert_eq!(ran.json()["error"]["partial"]["response"], "so far");
    nobody_left(&world);
}

fn a_long_line_is_skipped() {
    let long = "head -c 100000 /dev/zero | tr '\\0' x; echo";
    let world = World::with_fake("2.1.0", &format!("{VERSION}; {long}; {ANSWER}"))
        .with(&[("KIMI_BRIDGE_MAX_LINE_BYTES", "5000")]);
    let ran = world.consult(&[]);
    let warning = "a line of 100000 bytes was skipped: it is over max_line_bytes";
    assert_eq!((ran.code, &ran.json()["warnings"]), (Some(0), &json!([warning])));
}

fn junk_is_skipped() {
    let script = format!(
        r#"printf '\xff\xfe junk\n'; echo '{{"role":"meta","type":"new.thing"}}'; echo '[1]'; echo; printf '\0'; {VERSION}; {ANSWER}"#
    );
    let ran = World::with_fake("2.1.0", &script).consult(&[]);
    assert_eq!(
        (ran.code, &ran.json()["warnings"]),
        (
            Some(0),
            &json!([
                "a line of Kimi's stream was skipped: unknown meta `new.thing`",
                "3 lines of Kimi's stream were skipped: they are no JSON"
            ])
        )
    );
}

fn a_death_by_signal() {
    let ran = World::with_fake("2.1.0", &format!("{READ}; kill -SEGV $$")).consult(&[]);
    check(&ran, 33, "a signal ended Kimi before it answered");
    assert_eq!(ran.json()["error"]["partial"]["response"], "so far");
}

fn a_bad_end_after_the_answer() {
    let ran = World::with_fake("2.1.0", &format!("{ANSWER}; exit 3")).consult(&[]);
    assert_eq!(
        (ran.code, &ran.json()["warnings"]),
        (Some(0), &json!(["Kimi ended abnormally after its answer (exit status: 3)"]))
    );
}

fn interrupting_ends_kimi() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let world = World::with_fake(
            "2.1.0",
            &format!("{VERSION}; touch \"$KIMI_CODE_HOME/started\"; sleep 1000"),
        );
        let context = world.root().join("context.json");
        fs::write(&context, r#"{"proposed_approach": "p", "goals": ["g"]}"#).unwrap();
        let context = context.display().to_string();
        let mut command = world.bridge(&["consult", "-m", "why", "-c", &context]);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until("Kimi runs", || world.kimis().join("started").exists());
        let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.status.signal()), (Some(34), None));
        assert!(
            String::from_utf8(output.stderr)
                .unwrap()
                .starts_with("error: the call was cancelled\n")
        );
        nobody_left(&world);
    }
}

fn half_an_answer() {
    let half = r#"echo '{"role":"assistant","content":"I found that the"}'"#;
    let error =
        "echo 'error: failed to run prompt: provider.connection_error: terminated' >&2; exit 1";
    let ran = World::with_fake("2.1.0", &format!("{VERSION}; {half}; {error}")).consult(&[]);
    check(
        &ran,
        21,
        "the service failed or could not be reached: provider.connection_error: terminated",
    );
    assert_eq!(ran.json()["error"]["partial"]["response"], "I found that the");
}

fn kimi_cli_thinks_first() {
    let script = format!("cat > /dev/null; sleep 2; {ANSWER}");
    let limits = [("KIMI_BRIDGE_FIRST_LINE_SECONDS", "1"), ("KIMI_BRIDGE_SILENCE_SECONDS", "60")];
    assert_eq!(
        World::with_fake("kimi, version 1.51.0", &script).with(&limits).consult(&[]).code,
        Some(0)
    );
    let world = World::with_fake("2.1.0", &script).with(&limits);
    check(&world.consult(&[]), 31, "Kimi wrote nothing within first_line_seconds (1 s)");
    nobody_left(&world);
}

fn a_version_that_never_ends() {
    let world = World::with_fake("'; yes; echo '", "true");
    let ran = world.consult(&[]);
    check_start(
        &ran,
        10,
        "does not answer `--version` as a Kimi does: Kimi wrote more than max_run_bytes",
    );
    nobody_left(&world);

    // The answer is there at once, and a child that holds the pipe does not delay it for long.
    let world = World::with_fake("2.1.0'; (exec -a \"$0-child\" sleep 1000) & echo '", ANSWER);
    assert_eq!(world.consult(&[]).code, Some(0));
    nobody_left(&world);

    let world = World::with_fake(
        "'; touch \"$KIMI_CODE_HOME/asked\"; exec -a \"$0-me\" sleep 1000; echo '",
        "true",
    );
    // The home of the version call is the world's too.
    let mut command = world.bridge(&["status"]);
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the version is asked", || world.kimis().join("asked").exists());
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    child.wait_with_output().unwrap();
    nobody_left(&world);
}

#[track_caller]
fn check_start(ran: &Ran, code: i32, words: &str) {
    let message = ran.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(ran.code == Some(code) && message.contains(words), "{ran:?}");
}

fn interrupting_a_read() {
    let world = World::with_fake("2.1.0", ANSWER);
    let mut command = world.bridge(&["consult", "-m", "why", "-c", "-"]);
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    // The handlers are there once the reading thread is.
    wait_until("it reads", || {
        let threads = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap().count();
        threads > 1
    });
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = {
        let mut child = child;
        let stdin = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        output
    };
    assert_eq!(output.status.code(), Some(34), "{output:?}");
}

fn the_log_holds_no_secret() {
    let secret = format!("AKIA{}", "ABCDEFGHIJKLMNOP");
    let world = World::with_fake("2.1.0", ANSWER)
        .with(&[("KIMI_BRIDGE_DEBUG", "1"), ("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    let log = world.root().join("log");
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "consult_kimi",
        "arguments": {"message": format!("why {secret}"), "context": {"proposed_approach": "p", "goals": ["g"]}},
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {}}}});
    let mut command = world.bridge(&["serve"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, format!("{request}\n").as_bytes()).unwrap();
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    drop(stdin);
    child.wait().unwrap();
    assert!(line.contains("parse_ok"), "{line}");
    let log = fs::read_to_string(&log).unwrap();
    assert!(log.contains("started") && !log.contains(&secret), "{log}");
}

fn the_childs_environment() {
    let world = World::with_fake("2.1.0", &format!("env > \"$KIMI_CODE_HOME/env\"; {ANSWER}"))
        .with(&[
            ("ANTHROPIC_API_KEY", "sk-ant-of-the-host"),
            ("CLAUDE_CODE_MESSAGING_TOKEN", "host-token"),
            ("AWS_SECRET_ACCESS_KEY", "aws"),
            ("KIMI_MODEL_NAME", "kimi-for-coding"),
        ]);
    assert_eq!(world.consult(&[]).code, Some(0));
    let env = fs::read_to_string(world.kimis().join("env")).unwrap();
    let mut names: Vec<&str> =
        env.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.sort_unstable();
    // The last three are the shell's own.
    let shells_own = ["PWD", "SHLVL", "_"];
    names.retain(|name| !shells_own.contains(name));
    assert_eq!(
        names,
        [
            "FASTMCP_ENV_FILE",
            "HOME",
            "KIMI_CLI_NO_AUTO_UPDATE",
            "KIMI_CODE_HOME",
            "KIMI_CODE_NO_AUTO_UPDATE",
            "KIMI_DISABLE_TELEMETRY",
            "KIMI_MODEL_NAME",
            "LANG",
            "NO_COLOR",
            "PATH",
            "RIPGREP_CONFIG_PATH",
            "SHELL",
            "TMPDIR",
        ]
    );
}

fn nothing_is_left_in_the_state_folder() {
    let world = World::with_fake("2.1.0", &format!("{VERSION}; {ANSWER}"));
    assert_eq!(world.consult(&[]).code, Some(0));
    let runs: Vec<_> = fs::read_dir(world.state().join("runs")).unwrap().collect();
    assert!(runs.is_empty(), "{runs:?}");
}
