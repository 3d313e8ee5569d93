//! A user argues with Kimi to the end: rounds that survive a restart, findings answered, a decision.

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::answers::{say_verdict, verdict};
use crate::support::kimi::Real;
use crate::support::model::{Model, Step};
use crate::support::server::{Era, Server};
use crate::support::world::{Ran, World, proposal, wait_until};
use crate::support::{both, test};

pub(crate) fn tests() -> Vec<Trial> {
    let mut trials: Vec<Trial> = [
        both("rounds::a_deleted_thread_leaves_nothing_of_kimi", deleted_for_good),
        both("rounds::three_rounds_with_a_restart_between_them", three_rounds),
        both("rounds::a_session_that_is_gone_is_asked_afresh", asked_afresh),
        both("rounds::an_answer_that_cannot_be_read_is_asked_for_once_more", repaired),
        both("rounds::a_run_that_was_broken_off_goes_on_in_its_session", goes_on),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.extend([
        test("rounds::what_does_not_fit_the_thread_is_refused", what_does_not_fit),
        test("rounds::what_is_repeated_beside_a_thread_is_compared", repeated),
        test("rounds::all_adopted_settles_without_kimi", all_adopted),
        test("rounds::a_decision_with_open_findings_gives_them_up", given_up),
        test("rounds::of_two_replies_the_one_that_counts_is_shown", two_replies),
        test("rounds::an_unfinished_round_is_asked_again_whole", asked_again),
        test("rounds::contested_and_decided_at_the_shell", contested_and_decided),
        test("rounds::a_prior_exchange_without_a_thread", without_a_thread),
        test("rounds::a_killed_server_leaves_a_round_that_can_be_asked_again", killed),
        test("rounds::a_kill_at_any_point_loses_nothing_acknowledged", killed_at_any_point),
        test("rounds::two_calls_on_one_thread_never_interleave", never_interleave),
        test("rounds::a_ledger_that_fails_is_a_warning", a_ledger_that_fails),
    ]);
    trials
}

/// Kimi has read a file and hangs; the call is cancelled; the next one goes on where it stopped.
fn goes_on(real: Real, program: &Path) {
    let hung = std::sync::atomic::AtomicBool::new(false);
    let model = Model::start_with(move |_, nth| match nth {
        0 => Step::Calls(vec![(real.read_tool(), json!({"path": "src/store.rs"}))]),
        1 if !hung.swap(true, std::sync::atomic::Ordering::SeqCst) => Step::Hang,
        _ => say_verdict(),
    });
    let world = World::with_real(real, program, &model).with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    let mut server = Server::start(&world, Era::Legacy);
    let id = server.ask("tools/call", json!({"name": "consult_kimi", "arguments": proposal()}));
    wait_until("Kimi waits for the model", || model.requests().len() == 2);
    server.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}));
    let threads = || world.run(&["threads", "--json"]).json();
    let mut error = Value::Null;
    wait_until("the round is closed", || {
        let id = threads()[0]["id"].as_str().unwrap().to_owned();
        let thread = world.run(&["threads", "export", &id, "--format", "json"]).json();
        error = thread["rounds"][0]["error"]["error"].clone();
        error["partial"]["session_id"].is_string()
    });
    assert_eq!(error["kind"], "cancelled", "{error}");
    let thread = threads()[0]["id"].as_str().unwrap().to_owned();
    let result = server.call("consult_kimi", &json!({"thread_id": thread}));
    let result = &result["structuredContent"];
    // It read the file before it was broken off, and that counts.
    assert_eq!(result["findings"][0]["citations"][0]["status"], "verified", "{result}");
    let whole = world.run(&["threads", "export", &thread, "--format", "json"]).json();
    let whole = &whole["rounds"][0]["result"];
    assert_eq!(whole["provenance"]["session_id"], error["partial"]["session_id"], "{whole}");
    let last = model.requests().last().unwrap().to_string();
    assert!(
        last.contains("Go on where you stopped") && last.contains("Where does this lose data?"),
        "{last}"
    );
    assert!(last.contains("Append-only counter store"), "what it had read is remembered: {last}");
}

pub(crate) const QUOTE: &str = "let _ = writeln!(self.file, \"{key} {value}\");";

pub(crate) fn fenced(answer: &Value) -> Step {
    Step::Text(format!("```json\n{answer:#}\n```"))
}

pub(crate) fn reply(findings: Value, replies: Value) -> Value {
    let mut answer = verdict(24, QUOTE);
    answer["findings"] = findings;
    answer["replies"] = replies;
    answer
}

fn new_finding() -> Value {
    json!([{"severity": "minor", "claim": "`total` panics on an unknown key", "citations": [
        {"path": "src/store.rs", "line_start": 29, "line_end": 29, "quote": "self.totals[key]"}]}])
}

pub(crate) fn call(server: &mut Server, arguments: &Value) -> Value {
    let result = server.call("consult_kimi", arguments);
    assert_eq!(result["isError"], false, "{result:#}");
    result["structuredContent"].clone()
}

pub(crate) fn answer_to(thread: &Value, adjudications: &Value) -> Value {
    json!({"thread_id": thread["id"], "prior_exchange": {"adjudications": adjudications}})
}

fn three_rounds(real: Real, program: &Path) {
    let reads = |path: &str| Step::Calls(vec![(real.read_tool(), json!({"path": path}))]);
    let model = Model::start(vec![
        reads("src/store.rs"),
        fenced(&verdict(24, QUOTE)),
        fenced(&reply(
            new_finding(),
            json!([{"finding": "F1", "stance": "maintain", "because": "line 24 drops it"}]),
        )),
        fenced(&reply(
            json!([]),
            json!([{"finding": "F1", "stance": "withdraw", "because": "main.rs line 6 checks the disk first"}]),
        )),
    ]);
    let world = World::with_real(real, program, &model).with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    let mut server = Server::start(&world, Era::Modern);
    let first = call(&mut server, &proposal());
    assert_eq!(first["thread"]["state"], "awaiting_adjudication");
    assert_eq!(first["thread"]["open"], json!(["F1"]));
    drop(server.close());

    let reject = |finding: &str| json!({"finding": finding, "verdict": "REJECT", "reasoning": "the disk is checked first"});
    let mut server = Server::start(&world, Era::Legacy);
    let second = call(&mut server, &answer_to(&first["thread"], &json!([reject("F1")])));
    assert_eq!(second.get("warnings"), None, "the session is resumed");
    assert_eq!(
        second["replies"],
        json!([{"finding": "F1", "stance": "maintain", "because": "line 24 drops it"}])
    );
    // The file was read in the round before, in the same conversation.
    assert_eq!(second["findings"][0]["citations"][0]["status"], "verified", "{second:#}");
    assert_eq!(
        (&second["findings"][0]["id"], &second["thread"]["round"]),
        (&json!("F2"), &json!(2))
    );
    assert_eq!(second["thread"]["open"], json!(["F1", "F2"]));
    drop(server.close());

    let mut server = Server::start(&world, Era::Modern);
    let answers = json!([reject("F1"), {"finding": "F2", "verdict": "ADOPT"}]);
    let third = call(&mut server, &answer_to(&first["thread"], &answers));
    assert_eq!(
        (&third["thread"]["state"], &third["thread"]["round"]),
        (&json!("settled"), &json!(3)),
        "{third:#}"
    );
    assert_eq!(third["replies"][0]["stance"], "withdraw");
    assert_eq!(third["replies"][0].get("capitulated"), None);

    // The model's log: one conversation, in which the proposal stands once, with reading tools only.
    let requests = model.requests();
    let last = requests.last().unwrap()["messages"].to_string();
    for (said, times) in [
        ("You are the skeptic.", 1),
        ("This is round 2 of the same argument.", 1),
        ("This is round 3 of the same argument.", 1),
        ("the disk is checked first", 2),
        ("Append-only counter store", 1),
    ] {
        assert_eq!(last.matches(said).count(), times, "{said}");
    }
    for offered in model.offered_tools() {
        assert!(
            offered
                .iter()
                .all(|tool| ["FetchURL", "Glob", "Grep", "Read", "ReadFile"]
                    .contains(&tool.as_str()))
        );
    }

    let decided = server.call(
        "record_decision",
        &json!({"thread_id": first["thread"]["id"], "decision": "log the error", "rationale": "F2 was adopted"}),
    );
    assert_eq!(decided["structuredContent"]["thread"]["state"], "decided", "{decided:#}");
    let shown = world.run(&["threads", "show", first["thread"]["id"].as_str().unwrap()]).stdout;
    for said in [
        "Where does this lose data?",
        "line 24 drops it",
        "the disk is checked first",
        "log the error",
    ] {
        assert!(shown.contains(said), "{said} is not in:\n{shown}");
    }
}

fn asked_afresh(real: Real, program: &Path) {
    let answer = reply(
        json!([]),
        json!([{"finding": "F1", "stance": "maintain", "because": "it is dropped"}]),
    );
    let model = Model::start(vec![fenced(&verdict(24, QUOTE)), fenced(&answer)]);
    let world = World::with_real(real, program, &model);
    let first = world.consult(&[]).json();
    fs::remove_dir_all(world.private_home(real.name()).join("sessions")).unwrap();
    let id = first["thread"]["id"].as_str().unwrap();
    let ran = world.run(&[
        "consult",
        "--json",
        "--thread",
        id,
        "--reject",
        "F1=the disk is checked first",
    ]);
    assert_eq!(
        ran.json()["warnings"],
        json!([
            "Kimi's session could not be resumed: the round was asked in a new session, with the history in the prompt"
        ])
    );
    assert_eq!(ran.json()["thread"]["state"], "awaiting_adjudication");
    let asked = model.requests()[1]["messages"].to_string();
    for said in [
        "You are the skeptic.",
        "`add` drops the write error",
        "the disk is checked first",
        "You are asked afresh",
    ] {
        assert!(asked.contains(said), "{said}");
    }
}

fn repaired(real: Real, program: &Path) {
    let model = Model::start(vec![
        Step::Calls(vec![(real.read_tool(), json!({"path": "src/store.rs"}))]),
        Step::Text("It loses data, I think.".to_owned()),
        fenced(&verdict(24, QUOTE)),
    ]);
    let world = World::with_real(real, program, &model);
    let result = world.consult(&[]).json();
    assert_eq!(result["parse_ok"], true, "{result:#}");
    assert_eq!(result["findings"][0]["citations"][0]["status"], "verified");
    assert_eq!(
        result["warnings"],
        json!(["Kimi's first answer could not be read; it was asked once more"])
    );
    let last = model.requests().last().unwrap()["messages"].to_string();
    assert!(
        last.contains("Your last answer could not be read.")
            && last.contains("expected a JSON object"),
        "{last}"
    );
}

/// A Kimi of the kind that speaks kimi-code's stream and says what a file beside it holds.
pub(crate) fn says(answer: &Value) -> World {
    let world = World::with_fake(
        "2.1.0",
        "cat \"${0%/*}/answer\"; while [ -e \"${0%/*}/wait\" ]; do sleep 0.02; done",
    );
    set_answer(&world, answer);
    world
}

pub(crate) fn set_answer(world: &World, answer: &Value) {
    let line = json!({"role": "assistant", "content": answer.to_string()});
    fs::write(world.beside("answer"), format!("{line}\n")).unwrap();
}

pub(crate) fn thread_of(ran: &Ran) -> String {
    ran.json()["thread"]["id"].as_str().unwrap().to_owned()
}

pub(crate) fn refusal(ran: &Ran) -> (i32, String, Vec<String>) {
    let error = &ran.json()["error"];
    let violations = error["violations"].as_array().into_iter().flatten();
    let violations = violations.map(|v| {
        format!("{}: {}", v["pointer"].as_str().unwrap(), v["expected"].as_str().unwrap())
    });
    (ran.code.unwrap(), error["message"].as_str().unwrap().to_owned(), violations.collect())
}

fn what_does_not_fit() {
    let world = says(&verdict(24, QUOTE));
    let id = thread_of(&world.consult(&[]));
    let call = |more: &[&str]| {
        let mut args = vec!["consult", "--json", "--thread", &id];
        args.extend(more);
        refusal(&world.run(&args))
    };
    assert_eq!(call(&[]), (3, format!("the thread {id} awaits your answer to F1"), vec![]));
    // A caller that lost its context finds the claims in the refusal.
    for more in [&[][..], &["--adopt", "F7"]] {
        let ran = world.run(&[&["consult", "--json", "--thread", &id], more].concat());
        let hint = ran.json()["error"]["hint"].as_str().unwrap().to_owned();
        assert!(hint.ends_with(" Open are F1: `add` drops the write error"), "{hint}");
    }
    assert_eq!(
        call(&["--reject", "F1=no", "--adopt", "F7"]),
        (
            3,
            "the adjudications do not fit".to_owned(),
            vec![
                "/prior_exchange/adjudications/0/finding: `F7` is not open; open are F1".to_owned(),
                "/prior_exchange/adjudications/1/reasoning: a REJECT needs a reason that Kimi can answer: the fact or \
                 the constraint that speaks against it"
                    .to_owned(),
            ]
        )
    );
    let ran = world.run(&["consult", "--json", "--thread", "nosuch"]);
    assert_eq!(refusal(&ran).1, "there is no thread nosuch");
}

fn repeated() {
    let world = says(&verdict(24, QUOTE)).with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    let mut server = Server::start(&world, Era::Modern);
    let mut first = proposal();
    first["files"] = json!(["src/store.rs", "Cargo.toml"]);
    let ids: Vec<Value> =
        (0..2).map(|_| call(&mut server, &first)["thread"]["id"].clone()).collect();
    set_answer(&world, &reply(json!([]), json!([])));
    write_prompt_keeper(&world);
    let reject =
        json!([{"finding": " f1", "verdict": "reject", "reason": "the disk is checked first"}]);

    // All that was said is said again, in other words for the same place; the agent goes on by itself.
    let mut same = first.clone();
    same["thread_id"] = ids[0].clone();
    same["prior_exchange"] = json!({"round": 1, "adjudications": reject});
    same["work_dir"] = json!(world.project());
    same["files"] = json!(["./Cargo.toml", world.project().join("src/store.rs")]);
    same["initiated_by"] = json!("agent");
    let second = call(&mut server, &same);
    assert_eq!(second["thread"]["round"], 2, "{second:#}");
    let silent = "Kimi did not answer the rejection of F1: it counts as maintained";
    let afresh = "Kimi's session could not be resumed: the round was asked in a new session, with the history in the prompt";
    let warnings = second["warnings"].as_array().unwrap();
    assert!(warnings.iter().all(|warning| warning == silent || warning == afresh), "{second:#}");
    let prompt = fs::read_to_string(world.kimis().join("prompt")).unwrap();
    assert!(!prompt.contains("The other side adds"), "{prompt}");

    let mut other = same.clone();
    other["thread_id"] = ids[1].clone();
    other["role"] = json!("debugger");
    other["context"]["goals"] = json!(["speed"]);
    other["files"] = json!(["src/main.rs"]);
    other["work_dir"] = json!("/tmp");
    let second = call(&mut server, &other);
    let warning = "not used, since the thread keeps what it was opened with: role, context, work_dir, files. \
                   A changed proposal needs a new thread";
    assert!(second["warnings"].as_array().unwrap().contains(&json!(warning)), "{second:#}");

    // Manual mode still takes no consultation that the agent begins.
    let mut begun = proposal();
    begun["initiated_by"] = json!("agent");
    let refused = server.call("consult_kimi", &begun);
    assert_eq!(refused["structuredContent"]["error"]["kind"], "request");
}

fn given_up() {
    let world = says(&verdict(24, QUOTE)).with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    let mut server = Server::start(&world, Era::Modern);
    let id = call(&mut server, &proposal())["thread"]["id"].as_str().unwrap().to_owned();
    let listed = world.run(&["threads"]).stdout;
    assert!(listed.contains("awaiting_adjudication (1 open)"), "{listed}");
    let decision = json!({"thread_id": id, "decision": "ship", "rationale": "no time"});
    let decided = server.call("record_decision", &decision);
    let thread = &decided["structuredContent"]["thread"];
    assert_eq!(
        (&thread["state"], &thread["open"], &thread["next"]),
        (&json!("given_up"), &json!(["F1"]), &json!("The thread is closed. Never answered: F1."))
    );
    let listed = world.run(&["threads", "--state", "given_up"]).stdout;
    assert!(
        listed.starts_with(&format!("{id}  skeptic   given_up (1 open)  just now\n")),
        "{listed}"
    );
    assert_eq!(world.run(&["threads", "--json"]).json()[0]["open"], 1);
    let page = world.run(&["threads", "export", &id, "--format", "html"]).stdout;
    assert!(page.contains("<span class=\"state given_up\">"), "{page}");
    let again = world.run(&["consult", "--json", "--thread", &id, "--adopt", "F1"]);
    let message = format!("the thread {id} is given_up: there is nothing more to ask Kimi");
    assert_eq!(refusal(&again).1, message);
}

fn two_replies() {
    let world = says(&verdict(24, QUOTE));
    let id = thread_of(&world.consult(&[]));
    let said = |stance: &str, because: &str| json!({"finding": "F1", "stance": stance, "because": because});
    let replies = json!([said("withdraw", "You are right."), said("maintain", "line 24 drops it")]);
    set_answer(&world, &reply(json!([]), replies));
    let reject = "F1=the disk is checked first";
    let second = world.run(&["consult", "--json", "--thread", &id, "--reject", reject]).json();
    assert_eq!(second["replies"], json!([said("maintain", "line 24 drops it")]), "{second:#}");
    assert_eq!(second["thread"]["open"], json!(["F1"]));
    let warning = "Kimi replied more than once to a rejection; the reply that keeps more counts, not: \
                   F1 withdraw: You are right.";
    assert!(second["warnings"].as_array().unwrap().contains(&json!(warning)), "{second:#}");
}

fn asked_again() {
    let world = says(&verdict(24, QUOTE));
    let id = thread_of(&world.consult(&[]));
    fs::write(world.beside("answer"), "").unwrap();
    let reject = ["--reject", "F1=the disk is checked first", "-m", "See also main.rs."];
    let failed = world.run(&[["consult", "--json", "--thread", &id].as_slice(), &reject].concat());
    assert_eq!((failed.code, &failed.json()["error"]["kind"]), (Some(22), &json!("empty_answer")));
    // A Kimi that is missing for a while costs nothing that is remembered.
    let path = world.env["KIMI_PATH"].clone();
    let mut missing = world;
    missing.env.insert("KIMI_PATH".to_owned(), "/no/such/kimi".to_owned());
    assert_eq!(missing.run(&["consult", "--json", "--thread", &id]).code, Some(10));
    missing.env.insert("KIMI_PATH".to_owned(), path);
    let world = missing;

    // The round is asked again with its rejections and with what was added.
    write_prompt_keeper(&world);
    set_answer(
        &world,
        &reply(
            json!([]),
            json!([{"finding": "f1 ", "stance": "refine", "because": "only when full"},
        {"finding": "F9", "stance": "withdraw", "because": "you are right"}]),
        ),
    );
    let again = world.run(&["consult", "--json", "--thread", &id]).json();
    let prompt = fs::read_to_string(world.kimis().join("prompt")).unwrap();
    for said in ["the disk is checked first", "See also main.rs.", "`add` drops the write error"] {
        assert!(prompt.contains(said), "{said} is not in:\n{prompt}");
    }
    assert_eq!(
        again["replies"],
        json!([{"finding": "F1", "stance": "refine", "because": "only when full"}])
    );
    let strays =
        "Kimi replied to what was not rejected; it changes nothing: F9 withdraw: you are right";
    assert!(again["warnings"].as_array().unwrap().contains(&json!(strays)), "{again:#}");
    let contested = ["consult", "--json", "--thread", &id, "--reject", "F1=it cannot be full"];
    let contested = world.run(&contested).json();
    assert_eq!(
        contested["response"],
        "Contested; you decide. F1: you reject it (it cannot be full); Kimi maintains it (only when full)."
    );
    assert!(world.run(&["threads", "--search", "cannot be full"]).stdout.contains(&id));
}

/// Lets the fake Kimi keep the last prompt that it was given.
pub(crate) fn write_prompt_keeper(world: &World) {
    let path = world.env["KIMI_PATH"].clone();
    let script = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        script.replace(
            "cat \"${0%/*}/answer\"",
            "echo \"$*\" > \"$KIMI_CODE_HOME/prompt\"; cat \"${0%/*}/answer\"",
        ),
    )
    .unwrap();
}

fn all_adopted() {
    let world = says(&verdict(24, QUOTE));
    let id = thread_of(&world.consult(&[]));
    fs::remove_file(world.beside("answer")).unwrap();
    let result = world.run(&["consult", "--json", "--thread", &id, "--adopt", "F1"]).json();
    assert_eq!(result["response"], "Settled: nothing is left open, and Kimi was not asked again.");
    assert_eq!(
        (&result["thread"]["state"], &result["thread"]["round"]),
        (&json!("settled"), &json!(1))
    );
    let again = world.run(&["consult", "--json", "--thread", &id, "--adopt", "F1"]);
    assert_eq!(
        refusal(&again).1,
        format!("the thread {id} is settled: there is nothing more to ask Kimi")
    );
}

/// Neither the ledger, nor a transcript, nor Kimi's own session keeps a word of a deleted thread.
fn deleted_for_good(real: Real, program: &Path) {
    let model = Model::start(vec![fenced(&verdict(24, QUOTE))]);
    let world = World::with_real(real, program, &model);
    let id = thread_of(&world.consult(&[]));
    let question = "Where does this lose data?";
    let keeping = || {
        let files = World::content_of(&world.state()).into_iter();
        let keeping = files.filter(|(_, text)| text.contains(question)).map(|(path, _)| path);
        keeping.collect::<Vec<_>>()
    };
    assert!(!keeping().is_empty());
    assert_eq!(world.run(&["threads", "delete", &id]).code, Some(0));
    assert_eq!(keeping(), Vec::<PathBuf>::new());
}

fn contested_and_decided() {
    let world = says(&verdict(24, QUOTE));
    let id = thread_of(&world.consult(&[]));
    set_answer(
        &world,
        &reply(
            json!([]),
            json!([{"finding": "F1", "stance": "maintain", "because": "still dropped"}]),
        ),
    );
    let reject = ["consult", "--json", "--thread", &id, "--reject", "F1=the disk is checked first"];
    assert_eq!(world.run(&reject).json()["thread"]["state"], "awaiting_adjudication");
    let contested = world.run(&reject).json();
    assert_eq!(contested["thread"]["state"], "contested");
    assert_eq!(contested["findings"][0]["claim"], "`add` drops the write error");
    assert_eq!(contested["replies"][0]["because"], "still dropped");

    let decide = [
        "threads",
        "decide",
        &id,
        "--decision",
        "ship as it is",
        "--rationale",
        "the disk is checked first",
    ];
    assert_eq!(world.run(&decide).stdout, format!("{id} is decided. The thread is closed.\n"));
    assert_eq!(world.run(&decide).failed().1, "the thread is decided already");
    let listed = world.run(&["threads"]).stdout;
    assert!(listed.starts_with(&format!("{id}  skeptic   decided  just now\n")), "{listed}");
    for (filter, found) in [
        (["--state", "decided"], true),
        (["--state", "settled"], false),
        (["--search", "still dropped"], true),
        (["--search", "elephants"], false),
        (["--project", "."], true),
        (["--project", "/"], false),
    ] {
        let listed = world.run(&[["threads"].as_slice(), &filter].concat()).stdout;
        assert_eq!(listed.contains(&id), found, "{filter:?}: {listed}");
    }
    for (format, holds) in
        [("md", "ship as it is"), ("html", "<!doctype html>"), ("json", "\"state\": \"decided\"")]
    {
        let exported = world.run(&["threads", "export", &id, "--format", format]).stdout;
        assert!(
            exported.to_lowercase().contains(holds) && exported.contains("still dropped"),
            "{exported}"
        );
    }
    let transcripts = || fs::read_dir(world.state().join("transcripts")).unwrap().count();
    assert_eq!(transcripts(), 2);
    assert_eq!(
        world.run(&["threads", "delete", &id]).stdout,
        format!("{id} is deleted, with Kimi's transcripts and sessions of it.\n")
    );
    assert_eq!(
        world.run(&["threads", "show", &id]).failed(),
        (3, format!("there is no thread {id}"))
    );
    assert_eq!(world.run(&["threads"]).stdout, "No threads.\n");
    assert_eq!(transcripts(), 0);
}

fn without_a_thread() {
    let world = says(&reply(
        json!([]),
        json!([{"finding": "F1", "stance": "withdraw", "because": "You are right."}]),
    ))
    .with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    let mut server = Server::start(&world, Era::Modern);
    let mut request = proposal();
    request["prior_exchange"] = json!({"round": 1, "adjudications":
        [{"finding": "F1", "verdict": "REJECT", "reasoning": "the disk is checked first"}]});
    let refused = server.call("consult_kimi", &request);
    assert_eq!(
        refused["structuredContent"]["error"]["violations"][0]["pointer"],
        "/prior_exchange/kimi_response"
    );
    request["prior_exchange"]["kimi_response"] = json!(" ");
    let refused = server.call("consult_kimi", &request);
    assert_eq!(
        refused["structuredContent"]["error"]["violations"][0]["pointer"],
        "/prior_exchange/kimi_response"
    );
    request["prior_exchange"]["kimi_response"] = json!("F1: the write error is dropped");
    let result = call(&mut server, &request);
    assert_eq!(
        (&result["thread"]["round"], &result["thread"]["state"]),
        (&json!(2), &json!("settled")),
        "{result:#}"
    );
    assert_eq!(result["replies"][0]["capitulated"], true);

    // What Kimi says later is part of the history too: this Kimi never remembers its session.
    let maintained =
        json!([{"finding": "F1", "stance": "maintain", "because": "line 24 drops it"}]);
    set_answer(&world, &reply(new_finding(), maintained));
    let second = call(&mut server, &request);
    write_prompt_keeper(&world);
    let answers = json!([
        {"finding": "F1", "verdict": "REJECT", "reasoning": "it cannot be full"},
        {"finding": "F2", "verdict": "ADOPT"}
    ]);
    call(&mut server, &answer_to(&second["thread"], &answers));
    let prompt = fs::read_to_string(world.kimis().join("prompt")).unwrap();
    for said in ["F1: the write error is dropped", "line 24 drops it", "`total` panics"] {
        assert!(prompt.contains(said), "{said} is not in:\n{prompt}");
    }
}

fn killed() {
    let world = says(&verdict(24, QUOTE)).with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    fs::write(world.beside("wait"), "").unwrap();
    let mut server = Server::start(&world, Era::Modern);
    server.ask("tools/call", json!({"name": "consult_kimi", "arguments": proposal()}));
    let state = || world.run(&["threads", "--json"]).json();
    wait_until("the round is open", || state()[0]["state"] == "unfinished");
    server.signal(rustix::process::Signal::KILL);
    fs::remove_file(world.beside("wait")).unwrap();

    let id = state()[0]["id"].as_str().unwrap().to_owned();
    let again = world.run(&["consult", "--json", "--thread", &id]);
    assert_eq!(again.json()["thread"]["state"], "awaiting_adjudication", "{again:?}");
    assert_eq!(again.json()["thread"]["id"], json!(id));
}

fn killed_at_any_point() {
    let world = says(&verdict(24, QUOTE)).with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    let acknowledged = thread_of(&world.consult(&[]));
    let rejected =
        json!([{"finding": "F1", "verdict": "REJECT", "reasoning": "the disk is checked first"}]);
    for pause in [0, 2, 4, 8, 12, 16, 24, 32, 64] {
        let mut server = Server::start(&world, Era::Modern);
        // Both ends of a round are hit: one that opens a thread, and one that goes on with it.
        let arguments = answer_to(&json!({"id": acknowledged}), &rejected);
        server.ask("tools/call", json!({"name": "consult_kimi", "arguments": proposal()}));
        server.ask("tools/call", json!({"name": "consult_kimi", "arguments": arguments}));
        std::thread::sleep(std::time::Duration::from_millis(pause));
        server.signal(rustix::process::Signal::KILL);
        let threads = world.run(&["threads", "--json", "--limit", "100"]).json();
        let ids: Vec<_> =
            threads.as_array().unwrap().iter().map(|thread| thread["id"].clone()).collect();
        assert!(ids.contains(&json!(acknowledged)), "{pause} ms: {ids:?}");
    }
    let threads =
        world.run(&["threads", "--json", "--limit", "100", "--state", "unfinished"]).json();
    for thread in threads.as_array().unwrap() {
        let again = world.run(&["consult", "--json", "--thread", thread["id"].as_str().unwrap()]);
        assert_ne!(again.json()["thread"]["state"], "unfinished", "{again:?}");
    }
    let first = world.run(&["threads", "export", &acknowledged, "--format", "json"]).json();
    assert_eq!(first["rounds"][0]["result"]["findings"][0]["claim"], "`add` drops the write error");
}

fn never_interleave() {
    let world = says(&verdict(24, QUOTE)).with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    let id = thread_of(&world.consult(&[]));
    fs::write(world.beside("wait"), "").unwrap();
    let mut first = Server::start(&world, Era::Modern);
    let answers =
        json!([{"finding": "F1", "verdict": "REJECT", "reasoning": "the disk is checked first"}]);
    let request = answer_to(&json!({"id": id}), &answers);
    let asked = first.ask("tools/call", json!({"name": "consult_kimi", "arguments": request}));
    wait_until("the round is open", || {
        let shown = world.run(&["threads", "export", &id, "--format", "json"]).json();
        shown["rounds"].as_array().unwrap().len() == 2
    });
    let mut second = Server::start(&world, Era::Legacy);
    let busy = second.call("consult_kimi", &request);
    let busy = &busy["structuredContent"]["error"];
    let message = format!("the thread {id} is busy: another call is working on it");
    assert_eq!(
        (&busy["kind"], &busy["message"], &busy["retryable"]),
        (&json!("busy"), &json!(message), &json!(true))
    );
    let delete = world.run(&["threads", "delete", &id]);
    assert_eq!(delete.failed().1, format!("the thread {id} is busy: a call is working on it"));
    // Another thread is not held up.
    fs::remove_file(world.beside("wait")).unwrap();
    assert_eq!(call(&mut second, &proposal())["thread"]["round"], 1);
    assert_eq!(first.answer(asked)["structuredContent"]["thread"]["round"], 2);
}

fn a_ledger_that_fails() {
    let world = says(&verdict(24, QUOTE));
    fs::create_dir_all(world.state()).unwrap();
    fs::write(world.state().join("ledger.sqlite"), "x".repeat(5_000)).unwrap();
    let ran = world.consult(&[]);
    assert_eq!((ran.code, ran.json().get("thread")), (Some(0), None));
    let warning = ran.json()["warnings"][0].as_str().unwrap().to_owned();
    assert!(
        warning.starts_with("this thread is not remembered: ")
            && warning.contains("not a database"),
        "{warning}"
    );
    assert_eq!(world.run(&["threads"]).code, Some(41));
}
