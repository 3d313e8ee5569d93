//! A call fails on the way, and the user calls again.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::rounds::{
    QUOTE, answer_to, call, fenced, refusal, reply, says, set_answer, thread_of,
    write_prompt_keeper,
};
use crate::support::answers::{say_verdict, verdict};
use crate::support::kimi::Real;
use crate::support::model::{Model, Step};
use crate::support::server::{Era, Server};
use crate::support::world::{World, proposal, wait_until, write_program};
use crate::support::{both, one, test};

pub(crate) fn tests() -> Vec<Trial> {
    let mut trials: Vec<Trial> = [
        both("retries::a_rejection_is_sent_however_its_round_failed", sent),
        both("retries::a_rejection_that_arrived_is_gone_on_with", arrived),
        both("retries::a_session_that_the_service_refuses_is_left", refused),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.push(one("retries::a_prompt_in_a_file_is_sent_again", Real::KimiCode, in_a_file));
    trials.extend([
        test("retries::the_same_call_is_the_retry", same_call),
        test("retries::a_project_that_moved_is_named", moved),
        test("retries::a_call_has_one_deadline", one_deadline),
    ]);
    trials
}

const REASON: &str = "the disk is checked first";

/// What the model does with the next requests of round 2.
type Fault = Arc<AtomicUsize>;
const NONE: usize = 0;
const RATE_LIMIT: usize = 1;
const HANG: usize = 2;

/// A world with an answered first round, and a Kimi that crashes at its start while the file `crash` lies beside it.
fn with_a_rejection(real: Real, program: &Path) -> (Model, World, Fault, Value) {
    let fault: Fault = Arc::default();
    let kept = Arc::clone(&fault);
    let model = Model::start_with(move |request, _| {
        if !request["messages"].to_string().contains("This is round 2") {
            return say_verdict();
        }
        match kept.load(Ordering::SeqCst) {
            RATE_LIMIT => {
                Step::Status(429, json!({"error": {"message": "slow down", "type": "error"}}))
            }
            HANG => Step::Hang,
            _ => maintains(),
        }
    });
    let world = World::with_real(real, program, &model);
    let wrapper = world.beside("kimi");
    write_program(
        &wrapper,
        &format!(
            "#!/bin/bash\n[ \"$1\" != --version ] && [ -e \"${{0%/*}}/crash\" ] && exit 1\nexec '{}' \"$@\"\n",
            program.display()
        ),
    );
    let wrapper = wrapper.display().to_string();
    let world = world.with(&[("KIMI_PATH", &wrapper), ("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    let first = world.consult(&[]).json();
    assert_eq!(first["thread"]["open"], json!(["F1"]), "{first:#}");
    (model, world, fault, first["thread"].clone())
}

fn maintains() -> Step {
    fenced(&reply(
        json!([]),
        json!([{"finding": "F1", "stance": "maintain", "because": "line 24 drops it"}]),
    ))
}

fn rejection() -> Value {
    json!([{"finding": "F1", "verdict": "REJECT", "reasoning": REASON}])
}

/// The last request holds the rejection, and its answer is taken.
#[track_caller]
fn check(model: &Model, answered: &Value, how: &str) {
    assert_eq!(answered["replies"][0]["because"], "line 24 drops it", "{how}: {answered:#}");
    let last = model.requests().last().unwrap()["messages"].to_string();
    assert_eq!(last.matches(REASON).count(), 1, "{how}: {last}");
}

/// A crash at the start, a limit that ends the run before its prompt is in, a rate limit, a project that is away.
fn sent(real: Real, program: &Path) {
    for how in ["crash", "limit", "rate limit", "away"] {
        let (model, world, fault, thread) = with_a_rejection(real, program);
        let id = thread["id"].as_str().unwrap();
        let again = ["consult", "--json", "--thread", id];
        let reject = [&again[..], &["--reject", "F1=the disk is checked first"]].concat();
        let failed = match how {
            "crash" => {
                fs::write(world.beside("crash"), "").unwrap();
                let failed = world.run(&reject);
                fs::remove_file(world.beside("crash")).unwrap();
                failed
            }
            "limit" => world.run(&[&reject[..], &["--timeout", "1"]].concat()),
            "rate limit" => {
                fault.store(RATE_LIMIT, Ordering::SeqCst);
                let failed = world.run(&reject);
                fault.store(NONE, Ordering::SeqCst);
                failed
            }
            _ => {
                let away = world.home().join("elsewhere");
                fs::rename(world.project(), &away).unwrap();
                let failed =
                    world.bridge(&reject).current_dir(world.home()).output().unwrap().into();
                fs::rename(&away, world.project()).unwrap();
                failed
            }
        };
        let error = failed.json()["error"].clone();
        let answered = if how == "away" {
            assert_eq!(error["kind"], "round", "{error:#}");
            world.run(&reject).json()
        } else {
            assert_eq!(error["retryable"], true, "{how}: {error:#}");
            // What a service refuses has arrived in the session, and can be gone on with.
            let arrived = error["partial"]["session_id"].is_string();
            assert!(how == "limit" || arrived == (how == "rate limit"), "{how}: {error:#}");
            world.run(&again).json()
        };
        check(&model, &answered, how);
        let last = model.requests().last().unwrap()["messages"].to_string();
        let goes_on = error["partial"]["session_id"].is_string();
        assert_eq!(last.contains("Go on where you stopped"), goes_on, "{how}: {last}");
    }
}

/// The prompt of round 2 is in the session when the call is cancelled: the next one goes on, and says nothing twice.
fn arrived(real: Real, program: &Path) {
    let (model, world, fault, thread) = with_a_rejection(real, program);
    fault.store(HANG, Ordering::SeqCst);
    let error = cancelled(&world, &model, &answer_to(&thread, &rejection()));
    assert!(error["partial"]["session_id"].is_string(), "{error:#}");
    fault.store(NONE, Ordering::SeqCst);
    let id = thread["id"].as_str().unwrap();
    let answered = world.run(&["consult", "--json", "--thread", id]).json();
    assert_eq!(answered["replies"][0]["because"], "line 24 drops it", "{answered:#}");
    let last = model.requests().last().unwrap()["messages"].to_string();
    for (said, times) in [(REASON, 1), ("Go on where you stopped", 1), ("You are the skeptic.", 1)]
    {
        assert_eq!(last.matches(said).count(), times, "{said}: {last}");
    }
}

/// Cancels a call as soon as the model has its request, and returns the error that the ledger keeps.
fn cancelled(world: &World, model: &Model, arguments: &Value) -> Value {
    let before = model.requests().len();
    let mut server = Server::start(world, Era::Legacy);
    let call = server.ask("tools/call", json!({"name": "consult_kimi", "arguments": arguments}));
    wait_until("the model is asked", || model.requests().len() > before);
    server.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": call}}));
    let id = world.run(&["threads", "--json"]).json()[0]["id"].as_str().unwrap().to_owned();
    let mut error = Value::Null;
    wait_until("the round is closed", || {
        let thread = world.run(&["threads", "export", &id, "--format", "json"]).json();
        error = thread["rounds"].as_array().unwrap().last().unwrap()["error"]["error"].clone();
        error.is_object()
    });
    assert_eq!(error["kind"], "cancelled", "{error:#}");
    error
}

/// The file of the prompt is gone with its run, so there is nothing to go on with.
fn in_a_file(real: Real, program: &Path) {
    let (model, world, fault, thread) = with_a_rejection(real, program);
    let world = world.with(&[("KIMI_BRIDGE_PRIVATE_PROMPTS", "1")]);
    // The model does not read the file, so the round is known by its path alone.
    let hangs = Arc::new(AtomicUsize::new(1));
    let kept = Arc::clone(&hangs);
    let by_file = Model::start_with(move |request, _| {
        let text = request["messages"].to_string();
        match kept.load(Ordering::SeqCst) {
            0 if text.contains("Your request stands in the file") => maintains(),
            0 => Step::Text("no request".to_owned()),
            _ => Step::Hang,
        }
    });
    let mut world = world;
    world.env.extend(real.model_env(&by_file));
    let error = cancelled(&world, &by_file, &answer_to(&thread, &rejection()));
    assert_eq!(error["partial"]["session_id"], Value::Null, "{error:#}");
    hangs.store(0, Ordering::SeqCst);
    let answered =
        world.run(&["consult", "--json", "--thread", thread["id"].as_str().unwrap()]).json();
    assert_eq!(answered["thread"]["round"], 2, "{answered:#}");
    let last = by_file.requests().last().unwrap()["messages"].to_string();
    assert!(!last.contains("Go on where you stopped"), "{last}");
    assert_eq!(last.matches("Your request stands in the file").count(), 2, "{last}");
    drop((model, fault));
}

/// Whatever the service says when it refuses a conversation, the round is asked in a new session; a rate limit has to come twice.
fn refused(real: Real, program: &Path) {
    for status in [400, 403, 429, 500] {
        let model = Model::start_with(move |request, _| {
            let text = request["messages"].to_string();
            if text.contains("You are asked afresh") {
                maintains()
            } else if text.contains("This is round 2 of the same argument") {
                Step::Status(
                    status,
                    json!({"error": {"message": "not this conversation", "type": "error"}}),
                )
            } else {
                say_verdict()
            }
        });
        let world = World::with_real(real, program, &model);
        let id = thread_of(&world.consult(&[]));
        let reject =
            ["consult", "--json", "--thread", &id, "--reject", "F1=the disk is checked first"];
        let answered = world.run(&reject).json();
        let answered = if status == 429 {
            assert_eq!(answered["error"]["kind"], "rate_limited", "{answered:#}");
            world.run(&reject).json()
        } else {
            answered
        };
        let afresh = "Kimi's session could not be resumed: the round was asked in a new session, with the history in the prompt";
        assert!(
            answered["warnings"].as_array().unwrap().contains(&json!(afresh)),
            "{status}: {answered:#}"
        );
        check(&model, &answered, &status.to_string());
    }
}

fn same_call() {
    let world = says(&verdict(24, QUOTE)).with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    let mut server = Server::start(&world, Era::Modern);
    let first = call(&mut server, &proposal());
    fs::write(world.beside("answer"), "").unwrap();
    let mut request = answer_to(&first["thread"], &rejection());
    request["prior_exchange"]["round"] = json!(1);
    for _ in 0..2 {
        let failed = server.call("consult_kimi", &request);
        let error = &failed["structuredContent"]["error"];
        assert_eq!(
            (&error["kind"], &error["retryable"]),
            (&json!("empty_answer"), &json!(true)),
            "{error:#}"
        );
    }
    let mut other = request.clone();
    other["prior_exchange"]["adjudications"][0]["verdict"] = json!("ADOPT");
    let error = server.call("consult_kimi", &other)["structuredContent"]["error"].clone();
    let violation =
        "`F1` had another verdict in the call that failed, and Kimi has not answered that yet";
    assert_eq!(error["violations"][0]["expected"], violation, "{error:#}");

    set_answer(
        &world,
        &reply(json!([]), json!([{"finding": "F1", "stance": "maintain", "because": "b"}])),
    );
    write_prompt_keeper(&world);
    let second = call(&mut server, &request);
    assert_eq!(
        (&second["thread"]["round"], &second["thread"]["open"]),
        (&json!(2), &json!(["F1"]))
    );
    let prompt = fs::read_to_string(world.kimis().join("prompt")).unwrap();
    assert!(prompt.contains(REASON), "{prompt}");
}

fn moved() {
    let world = says(&verdict(24, QUOTE));
    let id = thread_of(&world.consult(&[]));
    let was = world.project().canonicalize().unwrap();
    let away = world.home().join("elsewhere");
    fs::rename(&was, &away).unwrap();
    let reject = ["consult", "--json", "--thread", &id, "--reject", "F1=the disk is checked first"];
    let ran = world.bridge(&reject).current_dir(world.home()).output().unwrap().into();
    let message = format!(
        "the project of the thread {id} was {}: No such file or directory (os error 2)",
        was.display()
    );
    assert_eq!(refusal(&ran), (3, message, vec![]));
    // Nothing was taken: the finding is still open, and can be adopted without the project.
    let shown = world.bridge(&["threads", "--json"]).current_dir(world.home()).output().unwrap();
    assert!(String::from_utf8(shown.stdout).unwrap().contains("\"awaiting_adjudication\""));
    let adopt = ["consult", "--json", "--thread", &id, "--adopt", "F1"];
    let ran: crate::support::world::Ran =
        world.bridge(&adopt).current_dir(world.home()).output().unwrap().into();
    assert_eq!(ran.json()["thread"]["state"], "settled", "{ran:?}");
}

/// Waiting in turn and a repair are within the time of the call.
fn one_deadline() {
    let world = says(&verdict(24, QUOTE))
        .with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1"), ("KIMI_BRIDGE_MAX_PARALLEL", "1")]);
    fs::write(world.beside("wait"), "").unwrap();
    let mut server = Server::start(&world, Era::Legacy);
    let ask = |server: &mut Server, timeout: u64| {
        let mut request = proposal();
        request["timeout_seconds"] = json!(timeout);
        let params = json!({"name": "consult_kimi", "arguments": request, "_meta": {"progressToken": timeout}});
        server.ask("tools/call", params)
    };
    let first = ask(&mut server, 600);
    let says = |server: &mut Server, words: &str| {
        server.wait_for(|one| {
            one["params"]["message"].as_str().is_some_and(|message| message.contains(words))
        });
    };
    says(&mut server, " of 600 s");
    let second = ask(&mut server, 2);
    let error = server.answer(second)["structuredContent"]["error"].clone();
    assert_eq!(
        (&error["kind"], &error["message"]),
        (&json!("timed_out"), &json!("the call took longer than timeout_seconds (2 s)"))
    );
    assert!(server.notifications.iter().any(|one| {
        let message = one["params"]["message"].as_str().unwrap_or_default();
        message.starts_with("waiting in turn") && message.ends_with(" of 2 s")
    }));
    fs::remove_file(world.beside("wait")).unwrap();
    assert_eq!(server.answer(first)["structuredContent"]["parse_ok"], true);

    // The first turn takes what there is of the time: for a second one nothing is left.
    let script = r#"
        session='{"role":"meta","type":"session.resume_hint","session_id":"session_1"}'
        [[ " $* " = *" -S "* ]] && sleep 600
        echo '{"role":"assistant","content":"no JSON"}'; echo "$session"
    "#;
    let world = World::with_fake("2.1.0", script);
    let result = world.consult(&["--timeout", "5"]).json();
    let failed = "Kimi was asked once more for a form that can be read: the call took longer than timeout_seconds (5 s)";
    assert_eq!(
        (&result["parse_ok"], &result["warnings"][0]),
        (&json!(false), &json!(failed)),
        "{result:#}"
    );
}
