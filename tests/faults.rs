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
    let world =
        World::with_fake("2.1.0", "sleep 1000").with(&[("KIMI_BRIDGE_FIRST_LINE_SECONDS", "1")]);
    check(&world.consult(&[]), 31, "Kimi wrote nothing within first_line_seconds (1 s)");
    nobody_left(&world);
}

fn silence_in_the_middle() {
    let script = format!("{VERSION}; {READ}; sleep 1000");
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
    let world = World::with_fake("2.1.0", &format!("{VERSION}; {ANSWER}; sleep 1000"))
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
        let world =
            World::with_fake("2.1.0", &format!("{VERSION}; touch \"$HOME/started\"; sleep 1000"));
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
        wait_until("Kimi runs", || world.home().join("started").exists());
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

fn nothing_is_left_in_the_state_folder() {
    let world = World::with_fake("2.1.0", &format!("{VERSION}; {ANSWER}"));
    assert_eq!(world.consult(&[]).code, Some(0));
    let runs: Vec<_> = fs::read_dir(world.state().join("runs")).unwrap().collect();
    assert!(runs.is_empty(), "{runs:?}");
}
