//! Whatever Kimi answers, a host gets no more than it shows.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::fake::Step::{Begin, Complain, Exit, Raw, Read, Say, SayAtLength, Session};
use crate::support::fake::{Dialect, FIRST_WORDS, LAST_WORDS, Script, Step};
use crate::support::server::{Era, Server};
use crate::support::test;
use crate::support::world::{World, proposal};

/// What `max_result_chars` is where nobody sets it.
const MOST: usize = 40_000;

pub(super) fn tests() -> Vec<Trial> {
    vec![
        test("faults::length::a_long_text_keeps_its_ends_and_says_where_the_whole_is", a_long_text),
        test("faults::length::whatever_else_is_long_gives_way", whatever_else_is_long),
        test("faults::length::findings_and_a_readable_response_never_give_way", findings_stay),
        test("faults::length::thousands_of_findings_are_no_review", thousands_of_findings),
        test("faults::length::what_an_error_kept_is_bounded", what_an_error_kept),
    ]
}

/// A machine whose Kimi does this, and what a host gets of it.
fn asked(run: Vec<Step>) -> (World, Value) {
    let world = Script::new(Dialect::KimiCode, [vec![Begin], run].concat())
        .world()
        .with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1"), ("KIMI_BRIDGE_REPAIR", "0")]);
    let mut server = Server::start(&world, Era::Legacy);
    let result = server.call("consult_kimi", &proposal())["structuredContent"].clone();
    server.close();
    (world, result)
}

fn chars(value: &Value) -> usize {
    value.to_string().chars().count()
}

/// What a result says of its length.
fn told(result: &Value) -> Vec<&str> {
    let warnings = result["warnings"].as_array().unwrap().iter().filter_map(Value::as_str);
    warnings.filter(|warning| warning.contains("max_result_chars")).collect()
}

fn a_long_text() {
    let (world, result) = asked(vec![SayAtLength(1_500_000), Session]);
    assert!(chars(&result) <= MOST, "{} characters", chars(&result));
    let id = result["thread"]["id"].as_str().unwrap();
    let transcript = format!("kimi-bridge://threads/{id}/rounds/1/transcript");
    let place = format!("`kimi-bridge threads show {id}` and {transcript} have all of it");
    let all = 1_500_000 + FIRST_WORDS.len() + LAST_WORDS.len();
    let shortened = format!(
        "left out for max_result_chars ({MOST}): the middle of a response of {all} characters; {place}"
    );
    assert_eq!(told(&result), [shortened]);
    let response = result["response"].as_str().unwrap();
    assert!(response.starts_with(FIRST_WORDS) && response.ends_with(LAST_WORDS), "{response}");
    assert!(response.contains(&format!(" characters left out: {place} …]")), "{response}");

    // Both places do.
    let shown = world.run(&["threads", "show", id]).stdout;
    assert!(shown.chars().filter(|&c| c == 'x').count() >= 1_500_000, "{} bytes", shown.len());
    let mut server = Server::start(&world, Era::Legacy);
    let read = server.request("resources/read", json!({"uri": transcript}));
    let text = read["contents"][0]["text"].as_str().unwrap();
    assert!(text.contains(FIRST_WORDS) && text.contains(LAST_WORDS), "{} bytes", text.len());
}

fn whatever_else_is_long() {
    let long = "y".repeat(60_000);
    let answer = json!({
        "response": "r",
        "confidence": long,
        "key_risks": vec![&long[..100]; 900],
        "findings": [{"severity": "note", "claim": "c", "citations": [{"path": long, "quote": long}]}],
        "replies": vec![json!({"finding": long, "stance": "maintain"}); 3],
        "more": long,
    });
    let session = json!({"role": "meta", "type": "session.resume_hint", "session_id": long});
    let session = Raw(format!("{session}\n").into_bytes());
    let (world, result) = asked(vec![Read, session, Say(answer.to_string())]);
    assert!(chars(&result) <= MOST, "{} characters", chars(&result));
    assert_eq!((&result["parse_ok"], &result["findings"][0]["claim"]), (&json!(true), &json!("c")));
    assert_eq!(result["provenance"].get("session_id"), None, "no session is called that");
    let [shortened] = told(&result)[..] else { panic!("{:#}", result["warnings"]) };
    assert!(shortened.contains(" of 900 key_risks"), "{shortened}");
    let id = result["thread"]["id"].as_str().unwrap();
    let shown = world.run(&["threads", "show", id]).stdout;
    assert!(shown.len() > 100_000, "{} bytes are remembered", shown.len());
}

fn findings_stay() {
    let finding = json!({"severity": "note", "claim": "c".repeat(900)});
    let answer = json!({"response": "r".repeat(9_000), "findings": vec![finding; 100]});
    let (_, result) = asked(vec![Say(answer.to_string())]);
    let findings = result["findings"].as_array().unwrap();
    let whole = |finding: &Value| finding["claim"].as_str().is_some_and(|claim| claim.len() == 900);
    assert!(findings.len() == 100 && findings.iter().all(whole));
    assert_eq!(result["response"].as_str().unwrap().len(), 9_000);
    let [.., too_long] = told(&result)[..] else { panic!("{:#}", result["warnings"]) };
    assert!(
        too_long.ends_with("findings and a response that could be read are never cut"),
        "{too_long}"
    );
}

fn thousands_of_findings() {
    let finding = json!({"severity": "note", "claim": "c"});
    let answer = json!({"response": "r", "findings": vec![finding; 9_000]});
    let (_, result) = asked(vec![Say(answer.to_string())]);
    assert!(chars(&result) <= MOST, "{} characters", chars(&result));
    assert_eq!((&result["parse_ok"], &result["findings"]), (&json!(false), &json!([])));
    let why =
        "Kimi's answer could not be read: /findings: expected at most 100 findings, found 9000";
    assert_eq!(result["warnings"][0], why);
}

fn what_an_error_kept() {
    let words = [FIRST_WORDS, &"x".repeat(500_000), LAST_WORDS].concat();
    let call = json!({"role": "assistant", "content": words,
        "tool_calls": [{"id": "b", "function": {"name": "Read", "arguments": "{}"}}]});
    let call = Raw(format!("{call}\n").into_bytes());
    let complaint = Complain("error: ".to_owned() + &"z".repeat(15_000));
    let (world, result) = asked(vec![Read, call, complaint, Exit(1)]);
    assert!(chars(&result) <= MOST, "{} characters", chars(&result));
    let partial = &result["error"]["partial"];
    assert_eq!(result["error"]["kind"], "crashed");
    let response = partial["response"].as_str().unwrap();
    assert!(response.starts_with(FIRST_WORDS) && response.ends_with(LAST_WORDS), "{response}");
    let id = partial["thread"]["id"].as_str().unwrap();
    let place = format!("kimi-bridge://threads/{id}/rounds/1/transcript have all of it");
    assert!(response.contains(&place), "{response}");
    assert_eq!(told(partial).len(), 1, "{:#}", partial["warnings"]);
    assert_eq!(partial["evidence"], json!({"failed": ["ReadFile src/store.rs", "ReadFile"]}));
    let mut server = Server::start(&world, Era::Legacy);
    let uri = format!("kimi-bridge://threads/{id}/rounds/1/transcript");
    let read = server.request("resources/read", json!({"uri": uri}));
    let text = read["contents"][0]["text"].as_str().unwrap();
    assert!(text.contains(&words), "{} bytes", text.len());
}
