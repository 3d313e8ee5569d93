//! What a host and its user see of `kimi-bridge serve`, in both protocol eras.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::server::{Era, Server};
use crate::support::test;
use crate::support::world::{World, processes_with, proposal, wait_until};

const ANSWER: &str =
    r#"echo '{"role":"assistant","content":"{\"response\":\"r\",\"findings\":[]}"}'"#;

pub(crate) fn tests() -> Vec<Trial> {
    let mut trials = Vec::new();
    for era in [Era::Legacy, Era::Modern] {
        let mut add = |name: &str, run: fn(Era)| {
            trials.push(test(&format!("serve::{name}::{era:?}"), move || run(era)));
        };
        add("disabled_by_default", disabled_by_default);
        add("manual_mode", manual_mode);
        add("auto_mode", auto_mode);
        add("a_refusal_says_all", a_refusal_says_all);
        add("progress_while_kimi_works", progress_while_kimi_works);
        add("a_cancelled_call_ends_kimi", a_cancelled_call_ends_kimi);
        add("a_ping_is_answered_meanwhile", a_ping_is_answered_meanwhile);
        add("the_end_of_input_ends_kimi_and_the_server", the_end_of_input);
        add("a_signal_ends_kimi_and_the_server", a_signal);
        add("answers_before_the_end_of_input_are_written", answers_before_the_end);
    }
    trials
}

fn fake(script: &str, mode: &[(&str, &str)]) -> World {
    World::with_fake("2.1.0", script).with(mode)
}

const MANUAL: [(&str, &str); 1] = [("KIMI_BRIDGE_TOOL_ENABLED", "1")];

fn tool_names(server: &mut Server) -> Vec<String> {
    let list = server.request("tools/list", json!({}));
    list["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["name"].as_str().unwrap().to_owned())
        .collect()
}

fn disabled_by_default(era: Era) {
    let world = fake(ANSWER, &[]);
    let mut server = Server::start(&world, era);
    assert_eq!(tool_names(&mut server), ["kimi_status"]);
    let status = server.call("kimi_status", &json!({}));
    let structured = &status["structuredContent"];
    assert_eq!(structured["mode"], "disabled");
    assert!(structured["mode_hint"].as_str().unwrap().contains("KIMI_BRIDGE_TOOL_ENABLED=1"));
    assert_eq!(structured["kimi"]["dialect"], "kimi-code");
    assert_eq!(structured["kimi"]["login_seen"], false);
    assert_eq!(
        serde_json::from_str::<Value>(status["content"][0]["text"].as_str().unwrap()).unwrap(),
        *structured
    );
    let refused = server.call("consult_kimi", &proposal());
    assert_eq!(refused["isError"], true);
    assert!(refused["content"][0]["text"].as_str().unwrap().contains("KIMI_BRIDGE_TOOL_ENABLED=1"));
    let unknown = server.call("ask_kimi", &json!({}));
    assert_eq!(
        unknown["message"],
        "there is no tool `ask_kimi`; there are consult_kimi, record_decision and kimi_status"
    );
}

fn manual_mode(era: Era) {
    let world = fake(ANSWER, &MANUAL);
    let mut server = Server::start(&world, era);
    assert_eq!(tool_names(&mut server), ["consult_kimi", "record_decision", "kimi_status"]);
    let answer = server.call("consult_kimi", &proposal());
    assert_eq!(answer["structuredContent"]["parse_ok"], true, "{answer:#}");
    assert_eq!(answer["isError"], false);
    let mut unasked = proposal();
    unasked["initiated_by"] = json!("agent");
    let refused = server.call("consult_kimi", &unasked);
    assert_eq!(refused["isError"], true);
    assert_eq!(
        refused["structuredContent"]["error"]["message"],
        "manual mode takes no consultation that the agent starts by itself"
    );
}

fn auto_mode(era: Era) {
    let world = fake(ANSWER, &MANUAL).with(&[("KIMI_BRIDGE_AUTO_ENABLED", "1")]);
    let mut server = Server::start(&world, era);
    let mut unasked = proposal();
    unasked["initiated_by"] = json!("agent");
    assert_eq!(server.call("consult_kimi", &unasked)["structuredContent"]["parse_ok"], true);
}

fn a_refusal_says_all(era: Era) {
    let world = fake("echo asked >> \"$HOME/asked\"", &MANUAL);
    let mut server = Server::start(&world, era);
    let refused = server.call("consult_kimi", &json!({"mesage": "m", "context": {"goals": []}}));
    assert_eq!(refused["isError"], true);
    let text = refused["content"][0]["text"].as_str().unwrap();
    for said in [
        "/message: required and missing: The question, in your words",
        "/context/proposed_approach: required and missing",
        "/context/goals: expected 1 or more items",
        "/mesage: no such field",
        "did you mean /message?",
        "\"proposed_approach\": \"Append each increment",
    ] {
        assert!(text.contains(said), "{said} is not in {text}");
    }
    let error = &refused["structuredContent"]["error"];
    assert_eq!((&error["kind"], &error["retryable"]), (&json!("request"), &json!(false)));
    assert_eq!(error["violations"].as_array().unwrap().len(), 4);
    assert!(
        !world.home().join("asked").exists(),
        "Kimi was started for a request that does not fit"
    );
}

/// Waits at each point until the test has seen what it wants to see.
fn stepwise() -> String {
    let wait = |file: &str| format!("while [ ! -e \"$HOME/{file}\" ]; do sleep 0.02; done");
    let read = r#"echo '{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"Read","arguments":"{\"path\":\"src/store.rs\"}"}}]}'"#;
    let limited = r#"echo '{"role":"meta","type":"turn.step.retrying","next_attempt":2,"max_attempts":10,"delay_ms":11500,"status_code":429,"error_message":"slow"}'"#;
    format!("{read}; {}; {limited}; {}; {ANSWER}", wait("one"), wait("two"))
}

fn call_with_progress(server: &mut Server) -> u64 {
    let params =
        json!({"name": "consult_kimi", "arguments": proposal(), "_meta": {"progressToken": "p1"}});
    server.ask("tools/call", params)
}

fn progress_saying(notification: &Value, words: &str) -> bool {
    let params = &notification["params"];
    notification["method"] == "notifications/progress"
        && params["progressToken"] == "p1"
        && params["message"]
            .as_str()
            .is_some_and(|message| message.starts_with(words) && message.ends_with(" s"))
}

fn progress_while_kimi_works(era: Era) {
    let world = fake(&stepwise(), &MANUAL).with(&[("KIMI_BRIDGE_HEARTBEAT_SECONDS", "1")]);
    let mut server = Server::start(&world, era);
    let id = call_with_progress(&mut server);
    server.wait_for(|note| progress_saying(note, "reading src/store.rs · "));
    // A heartbeat comes although nothing happens.
    server.notifications.truncate(0);
    server.wait_for(|note| progress_saying(note, "reading src/store.rs · "));
    fs::write(world.home().join("one"), "").unwrap();
    server.wait_for(|note| progress_saying(note, "rate limited, attempt 2 of 10, next in 12 s · "));
    fs::write(world.home().join("two"), "").unwrap();
    assert_eq!(server.answer(id)["structuredContent"]["parse_ok"], true);
    let steps: Vec<f64> = server
        .notifications
        .iter()
        .filter_map(|note| note["params"]["progress"].as_f64())
        .collect();
    assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{steps:?}");
}

/// A Kimi that never ends by itself, with a child of its own.
const ENDLESS: &str = "touch \"$HOME/started\"; (exec -a \"$0-child\" sleep 1000) & wait";

fn started(server: &mut Server, world: &World) -> u64 {
    let id = call_with_progress(server);
    wait_until("Kimi runs", || world.home().join("started").exists());
    id
}

#[track_caller]
fn nobody_left(world: &World) {
    let fake = world.root().join("fake").display().to_string();
    wait_until("Kimi and its child are gone", || processes_with(&fake).is_empty());
}

fn a_cancelled_call_ends_kimi(era: Era) {
    let world = fake(ENDLESS, &MANUAL);
    let mut server = Server::start(&world, era);
    let id = started(&mut server, &world);
    server.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": {"requestId": id, "reason": "the user changed their mind"}}));
    nobody_left(&world);
    assert_eq!(tool_names(&mut server).len(), 3, "the server goes on");
}

fn a_ping_is_answered_meanwhile(era: Era) {
    let world = fake(ENDLESS, &MANUAL);
    let mut server = Server::start(&world, era);
    started(&mut server, &world);
    assert_eq!(tool_names(&mut server).len(), 3);
    if era == Era::Legacy {
        assert_eq!(server.request("ping", json!({})), json!({}));
    }
    drop(server.close());
    nobody_left(&world);
}

fn the_end_of_input(era: Era) {
    let world = fake(ENDLESS, &MANUAL);
    let mut server = Server::start(&world, era);
    started(&mut server, &world);
    let (status, _) = server.close();
    assert_eq!(status.code(), Some(0));
    nobody_left(&world);
}

fn a_signal(era: Era) {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let world = fake(ENDLESS, &MANUAL);
        let mut server = Server::start(&world, era);
        started(&mut server, &world);
        let pid = rustix::process::Pid::from_raw(server.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        assert_eq!(server.wait().code(), Some(0));
        nobody_left(&world);
    }
}

fn answers_before_the_end(era: Era) {
    let world = fake(ANSWER, &MANUAL);
    let mut server = Server::start(&world, era);
    let ids: Vec<u64> = (0..20).map(|_| server.ask("tools/list", json!({}))).collect();
    let (status, lines) = server.close();
    assert_eq!(status.code(), Some(0));
    for id in ids {
        assert!(
            lines.iter().any(|line| line["id"] == id && line["result"]["tools"].is_array()),
            "{id} got no answer"
        );
    }
}
