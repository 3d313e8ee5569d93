//! What the hooks of the Claude Code plugin do, started as Claude Code starts them: an event on standard input.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::test;
use crate::support::world::{Ran, World};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("hooks::a_person_sees_what_kimi_said", a_person_sees_what_kimi_said),
        test("hooks::without_the_ledger_the_event_is_shown", without_the_ledger),
        test("hooks::nothing_else_is_answered", nothing_else_is_answered),
        test("hooks::a_plan_is_turned_back_once_in_auto_mode", a_plan_is_turned_back),
        test("hooks::a_plan_that_kimi_has_seen_passes", a_plan_that_kimi_has_seen),
    ]
}

/// A machine whose Kimi gives an answer with two findings.
fn world_with_an_answer() -> World {
    let answer =
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/captures/kimi-code/fenced.stdout");
    World::with_fake("2.1.0", &format!("cat > /dev/null; cat '{answer}'"))
}

/// Runs a hook to its end. It never fails, and says nothing beside its answer.
#[track_caller]
fn hook(world: &World, args: &[&str], event: &[u8]) -> Option<Value> {
    let mut child = world
        .bridge(&[&["hook"], args].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let written = child.stdin.take().unwrap().write_all(event);
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert!(written.is_ok(), "the host can write its event to the end");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    (!ran.stdout.is_empty()).then(|| ran.json())
}

#[track_caller]
fn shown(world: &World, event: &Value) -> Option<String> {
    let answer = hook(world, &["show"], event.to_string().as_bytes())?;
    assert_eq!(answer.as_object().unwrap().len(), 1, "{answer:#}");
    Some(answer["systemMessage"].as_str().unwrap().to_owned())
}

fn posted(result: &Value) -> Value {
    json!({"session_id": "7872ab6a", "hook_event_name": "PostToolUse",
        "tool_name": "mcp__plugin_kimi-bridge_kimi__consult_kimi", "tool_response": result.to_string()})
}

fn notified(result: &Value) -> Value {
    let text = result.to_string().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let prompt = format!(
        "<task-notification>\n<task-id>k1</task-id>\n<status>completed</status>\n<summary>MCP task k1 \
         (plugin:kimi-bridge:kimi/consult_kimi) completed.</summary>\n<result>\n{text}\n</result>\n</task-notification>"
    );
    json!({"session_id": "7872ab6a", "hook_event_name": "UserPromptSubmit", "prompt": prompt})
}

/// The result of a consultation, and the same as an event may bring it: shortened.
fn consulted(world: &World) -> (Value, Value) {
    let whole = world.consult(&[]).json();
    let mut shortened = whole.clone();
    shortened["findings"] = json!([]);
    shortened["warnings"] = json!(["from the <event> & no more\u{1b}[31m"]);
    (whole, shortened)
}

/// Every file of the state folder, with its time.
fn state(world: &World) -> Vec<(PathBuf, SystemTime, String)> {
    let files = World::content_of(&world.state()).into_iter();
    let timed = files.map(|(file, content)| {
        let modified = fs::metadata(&file).unwrap().modified().unwrap();
        (file, modified, content)
    });
    timed.collect()
}

fn a_person_sees_what_kimi_said() {
    let world = world_with_an_answer();
    let (whole, shortened) = consulted(&world);
    let before = state(&world);
    let response = whole["response"].as_str().unwrap();
    let finding = &whole["findings"][0];
    let citation = &finding["citations"][0];
    let place = format!(
        "     {}:{} ({})",
        citation["path"].as_str().unwrap(),
        citation["line_start"],
        citation["status"].as_str().unwrap().replace('_', " ")
    );
    let head = format!(
        "  F1 {}: {}",
        finding["severity"].as_str().unwrap(),
        finding["claim"].as_str().unwrap()
    );
    for event in [posted(&shortened), notified(&shortened)] {
        let text = shown(&world, &event).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..3], [&format!("Kimi, round 1: {response}"), &head, &place], "{text}");
    }
    assert_eq!(state(&world), before, "the ledger is only read");

    // Nothing is left open, and Kimi is not asked.
    let id = whole["thread"]["id"].as_str().unwrap();
    let settled =
        world.run(&["consult", "--json", "--thread", id, "--adopt", "F1", "--adopt", "F2"]).json();
    assert_eq!(
        shown(&world, &posted(&settled)).unwrap(),
        "Kimi, round 1: Settled: nothing is left open, and Kimi was not asked again.\n  No new finding."
    );
}

fn without_the_ledger() {
    let world = world_with_an_answer();
    let (whole, event) = consulted(&world);
    let response = whole["response"].as_str().unwrap();
    let expected = |round: u8| {
        format!(
            "Kimi, round {round}: {response}\n  No new finding.\n  Warning: from the <event> & no more"
        )
    };
    let text = |world: &World, event: &Value, round: u8| {
        for event in [posted(event), notified(event)] {
            assert_eq!(shown(world, &event), Some(expected(round)));
        }
    };
    // A server with another state folder, a round that is not there, and a thread that is not there.
    let elsewhere = world.root().join("elsewhere").display().to_string();
    let other = World::new().with(&[("KIMI_BRIDGE_STATE_DIR", &elsewhere)]);
    text(&other, &event, 1);
    assert!(!Path::new(&elsewhere).exists(), "no ledger is made");
    let mut later = event.clone();
    later["thread"]["round"] = json!(3);
    text(&world, &later, 3);
    let mut unknown = event.clone();
    unknown["thread"]["id"] = json!("../../etc/passwd' OR 1=1");
    text(&world, &unknown, 1);
    // A ledger that cannot be read: the log holds all of a young one.
    for file in ["ledger.sqlite", "ledger.sqlite-wal"] {
        fs::write(world.state().join(file), "x".repeat(9_000)).unwrap();
    }
    let before = state(&world);
    text(&world, &event, 1);
    assert_eq!(state(&world), before);
    let no_thread = json!({"parse_ok": true, "response": "r", "findings": []});
    assert_eq!(shown(&world, &posted(&no_thread)).unwrap(), "Kimi: r\n  No new finding.");
}

fn nothing_else_is_answered() {
    let world = world_with_an_answer();
    let (whole, _) = consulted(&world);
    let event = posted(&whole).to_string();
    let before = state(&world);
    let long = json!({"hook_event_name": "PostToolUse", "tool_response": "x".repeat(9_000_000)});
    let mut other = posted(&whole);
    other["tool_name"] = json!("mcp__github__search");
    let refused = posted(&json!({"error": {"kind": "request", "message": "m"}}));
    let typed =
        json!({"hook_event_name": "UserPromptSubmit", "prompt": "ask Kimi about consult_kimi"});
    let deep = "[".repeat(100_000);
    for input in [
        "",
        "no JSON",
        "[]",
        &event[..event.len() - 9],
        &deep,
        &long.to_string(),
        &other.to_string(),
        &refused.to_string(),
        &typed.to_string(),
    ] {
        for name in ["show", "plan"] {
            let answer = hook(&world, &[name], input.as_bytes());
            assert_eq!(answer, None, "{name} {}", &input[..input.len().min(200)]);
        }
    }
    assert_eq!(hook(&world, &["show"], b"\xff\xfe"), None);
    for args in [&[][..], &["shows"], &["--help"]] {
        assert_eq!(hook(&world, args, event.as_bytes()), None, "{args:?}");
    }
    // Settings that cannot be used are no reason to hide Kimi's words.
    let world = world.with(&[("KIMI_BRIDGE_TIMEOUT_SECONDS", "15m")]);
    assert!(hook(&world, &["show"], event.as_bytes()).is_some());
    assert_eq!(state(&world), before);
    // Where there is not even a home.
    let mut nowhere = World::new();
    nowhere.env.remove("HOME");
    let _ = hook(&nowhere, &["show"], typed.to_string().as_bytes());
}

fn leaving(session: &str, transcript: &Path, plan: &str) -> Value {
    json!({"session_id": session, "transcript_path": transcript, "permission_mode": "plan",
        "hook_event_name": "PreToolUse", "tool_name": "ExitPlanMode",
        "tool_input": {"plan": plan, "planFilePath": "/home/me/.claude/plans/a.md"}})
}

/// The environment of a hook of the plugin, and the folder for what it remembers.
fn in_plugin(world: World, auto: Option<&str>) -> World {
    let data = world.home().join(".claude/plugins/data/kimi-bridge").display().to_string();
    let world = world.with(&[("CLAUDE_PLUGIN_ROOT", "/plugin"), ("CLAUDE_PLUGIN_DATA", &data)]);
    match auto {
        Some(auto) => world.with(&[("CLAUDE_PLUGIN_OPTION_AUTO", auto)]),
        None => world,
    }
}

#[track_caller]
fn is_turned_back(world: &World, event: &Value) -> bool {
    let Some(answer) = hook(world, &["plan"], event.to_string().as_bytes()) else { return false };
    let output = &answer["hookSpecificOutput"];
    assert_eq!(
        (&output["hookEventName"], &output["permissionDecision"]),
        (&json!("PreToolUse"), &json!("deny"))
    );
    let reason = output["permissionDecisionReason"].as_str().unwrap();
    assert!(reason.starts_with("Not an error: ") && reason.contains("consult_kimi"), "{reason}");
    true
}

fn a_plan_is_turned_back() {
    let plan = "Append each increment to a log. ".repeat(20);
    let long = |session: &str| leaving(session, Path::new("/none"), &plan);
    for off in [None, Some("false"), Some("")] {
        assert!(!is_turned_back(&in_plugin(World::new(), off), &long("s1")), "{off:?}");
    }
    let world = in_plugin(World::new(), Some("true"));
    assert!(!is_turned_back(&world, &leaving("s1", Path::new("/none"), "Rename a variable.")));
    assert!(is_turned_back(&world, &long("s1")));
    assert!(!is_turned_back(&world, &long("s1")), "once a session");
    assert!(is_turned_back(&world, &long("s2")));
    // Registered by hand, with the hooks of the plugin.
    let by_hand = in_plugin(World::new(), None).with(&[("KIMI_BRIDGE_AUTO_ENABLED", "1")]);
    assert!(!is_turned_back(&by_hand, &long("s1")), "no tool is offered");
    let by_hand = by_hand.with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    assert!(is_turned_back(&by_hand, &long("s1")));
    // Nothing can be remembered, or nothing can be asked.
    let mut forgetful = in_plugin(World::new(), Some("true"));
    forgetful.env.remove("CLAUDE_PLUGIN_DATA");
    assert!(!is_turned_back(&forgetful, &long("s1")));
    let wrong = in_plugin(World::new(), Some("true")).with(&[("KIMI_BRIDGE_MAX_PARALLEL", "x")]);
    assert!(!is_turned_back(&wrong, &long("s1")));
    assert!(!wrong.state().exists() && !world.state().exists(), "no ledger is made");
}

fn a_plan_that_kimi_has_seen() {
    let world = in_plugin(world_with_an_answer(), Some("true"));
    let plan = "Append each increment to a log. ".repeat(20);
    let transcript = world.home().join("session.jsonl");
    let began =
        |time: &str| fs::write(&transcript, json!({"timestamp": time}).to_string()).unwrap();
    world.consult(&[]).json();
    began("2020-01-01T00:00:00.123Z");
    assert!(!is_turned_back(&world, &leaving("s1", &transcript, &plan)));
    began("2990-01-01T00:00:00.123Z");
    assert!(is_turned_back(&world, &leaving("s1", &transcript, &plan)), "seen before the session");
    // Another project's thread is none of this one.
    began("2020-01-01T00:00:00.123Z");
    let other = world.home().display().to_string();
    let world = world.with(&[("CLAUDE_PROJECT_DIR", &other)]);
    assert!(is_turned_back(&world, &leaving("s2", &transcript, &plan)));
}
