//! A user looks at the runs of Kimi: each is there while it is under way, after it ended, and after a crash.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::rounds::{says, set_answer, thread_of};
use crate::support::answers::{VERSION, verdict};
use crate::support::server::{Era, Server};
use crate::support::test;
use crate::support::world::{World, proposal, wait_until};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("runs::every_run_of_a_thread_is_listed_and_deleted_with_it", listed),
        test("runs::a_run_that_fails_names_its_error", failed),
        test("runs::the_transcript_of_a_round_holds_all_its_runs", one_round),
        test("runs::a_killed_run_is_interrupted", killed),
        test("runs::an_entry_that_cannot_be_written_is_a_warning", not_written),
    ]
}

pub(crate) fn runs(world: &World) -> Vec<Value> {
    let Value::Array(runs) = world.run(&["runs", "--json"]).json() else { panic!("no list") };
    runs
}

/// A run without what differs each time, which must be there.
#[track_caller]
fn without_times(run: &Value, ended: bool) -> Value {
    let mut run = run.clone();
    let fields = run.as_object_mut().unwrap();
    let started = fields.remove("started_at").and_then(|at| at.as_i64()).unwrap();
    let end = fields.remove("ended_at").and_then(|at| at.as_i64());
    assert_eq!(end.is_some_and(|end| end >= started), ended);
    assert_eq!(fields.remove("id").unwrap().as_str().unwrap().len(), 10);
    run
}

/// How a run of a skeptic is listed.
fn row(world: &World, thread: &Value, round: u8, state: &str) -> Value {
    json!({
        "tool": "consult_kimi", "thread_id": thread, "round": round, "request": {"role": "skeptic"},
        "project": world.project(), "profile": "reader", "dialect": "kimi-code", "version": "2.1.0", "state": state,
    })
}

fn listed() {
    let world = says(&verdict(24, ""));
    assert_eq!(world.run(&["runs"]).stdout, "No runs.\n");
    let id = thread_of(&world.consult(&[]));
    let thread = json!(id);
    let reject = ["consult", "--json", "--thread", &id, "--reject", "F1=the disk is checked first"];
    assert_eq!(world.run(&reject).code, Some(0));
    let other = thread_of(&world.consult(&[]));
    let expected = [
        row(&world, &json!(other), 1, "answered"),
        row(&world, &thread, 2, "answered"),
        row(&world, &thread, 1, "answered"),
    ];
    let seen = |world: &World| -> Vec<Value> {
        runs(world).iter().map(|run| without_times(run, true)).collect()
    };
    assert_eq!(seen(&world), expected);
    let first = runs(&world)[2]["id"].as_str().unwrap().to_owned();
    let transcript = world.state().join(format!("transcripts/{first}.jsonl.gz"));
    let round = &world.run(&["threads", "export", &id, "--format", "json"]).json()["rounds"][0];
    assert_eq!(round["transcripts"], json!([transcript]));
    let text = world.run(&["runs", "--limit", "1"]).stdout;
    assert!(
        text.contains(&format!("  consult_kimi  answered  thread {other}, round 1  ")),
        "{text}"
    );
    assert_eq!(world.run(&["threads", "delete", &id]).code, Some(0));
    assert_eq!(seen(&world), expected[..1]);
    assert!(!transcript.exists());
}

fn failed() {
    let world = World::with_fake("2.1.0", &format!("{VERSION}; exit 3"));
    let ran = world.consult(&[]);
    let kind = ran.json()["error"]["kind"].clone();
    let threads = world.run(&["threads", "--json"]).json();
    let mut expected = row(&world, &threads[0]["id"], 1, "failed");
    expected["error"] = kind;
    assert!(expected["error"].is_string(), "{ran:?}");
    let [run] = runs(&world).try_into().unwrap();
    assert_eq!(without_times(&run, true), expected);
}

/// An answer that cannot be read leaves the round open, and it is asked again.
fn one_round() {
    let world = says(&json!("I would not.")).with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    let id = thread_of(&world.consult(&[]));
    set_answer(&world, &verdict(24, ""));
    let again = world.run(&["consult", "--json", "--thread", &id]).json();
    assert_eq!(again["thread"]["round"], 1, "{again:#}");
    let uri = format!("kimi-bridge://threads/{id}/rounds/1/transcript");
    let mut server = Server::start(&world, Era::Modern);
    let read = server.request("resources/read", json!({"uri": uri}));
    let text = read["contents"][0]["text"].as_str().unwrap_or_else(|| panic!("{read:#}"));
    let [first, second] = text.lines().collect::<Vec<_>>().try_into().unwrap();
    assert!(first.contains("I would not.") && second.contains("`add` drops"), "{text}");
}

fn killed() {
    let world = says(&verdict(24, "")).with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    fs::write(world.beside("wait"), "").unwrap();
    let mut server = Server::start(&world, Era::Modern);
    server.ask("tools/call", json!({"name": "consult_kimi", "arguments": proposal()}));
    wait_until("the run is under way", || {
        runs(&world).first().is_some_and(|run| run["state"] == "running")
    });
    server.signal(rustix::process::Signal::KILL);
    wait_until("the run is over", || runs(&world)[0]["state"] != "running");
    fs::remove_file(world.beside("wait")).unwrap();
    let [run] = runs(&world).try_into().unwrap();
    let thread = run["thread_id"].clone();
    assert_eq!(without_times(&run, false), row(&world, &thread, 1, "interrupted"));

    let again = world.run(&["consult", "--json", "--thread", thread.as_str().unwrap()]);
    assert_eq!(again.code, Some(0), "{again:?}");
    let states: Vec<_> = runs(&world).iter().map(|run| run["state"].clone()).collect();
    assert_eq!(states, ["answered", "interrupted"]);
}

/// The ledger takes threads, and refuses runs.
fn not_written() {
    let world = says(&verdict(24, ""));
    thread_of(&world.consult(&[]));
    let ledger = rusqlite::Connection::open(world.state().join("ledger.sqlite")).unwrap();
    let trigger =
        "CREATE TRIGGER refuse BEFORE INSERT ON runs BEGIN SELECT RAISE (ABORT, 'no'); END";
    ledger.execute_batch(trigger).unwrap();
    let ran = world.consult(&[]);
    thread_of(&ran);
    let expected = "this run is not remembered: the ledger could not be written: no";
    assert!(ran.json()["warnings"].as_array().unwrap().contains(&json!(expected)), "{ran:?}");
}
