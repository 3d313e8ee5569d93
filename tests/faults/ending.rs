//! One cell of the table: a fault, and how the call ends.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::nobody_left;
use super::table::{Amount, AtTheMark, Case, LONG, Outcome, Unkept};
use crate::support::fake::{Dialect, FIRST_WORDS, GO, HERE, LAST_WORDS, Script, play};
use crate::support::server::{Era, Server, outcome};
use crate::support::world::{World, kill_all_with, processes_with, proposal, wait_until};

/// The most memory that a server takes here, whatever Kimi sends, bytes.
const MEMORY: u64 = 64 << 20;

/// The most that a host gets, characters; what this file holds has no finding in it.
const RESULT: usize = 40_000;
/// The warning of a run without a sandbox.
const NO_SANDBOX: &str = "Kimi ran without a sandbox (it is switched off). Its tool list, private home and environment \
     still limited it, but only Kimi's own rules kept it away from secret files.";

/// Who sees to it that nobody of a run is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    ByKeeper,
    /// The bridge itself, as far as a process group goes; and no sandbox.
    ByNobody,
}

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// By itself, and the answer comes this way.
    Undisturbed(Way),
    /// Somebody cuts it off.
    CutOff(By),
}

/// Where a call comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Host,
    Shell,
}

/// Who cuts a call off that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The host cancels it.
    Cancel,
    /// The host closes the server's input.
    EndOfInput,
    /// The server is told to end.
    Term,
    /// The same, by Ctrl-C.
    Int,
    /// The server is killed.
    Kill,
}

impl Ending {
    const ALL: [Ending; 7] = [
        Ending::Undisturbed(Way::Host),
        Ending::Undisturbed(Way::Shell),
        Ending::CutOff(By::Cancel),
        Ending::CutOff(By::EndOfInput),
        Ending::CutOff(By::Term),
        Ending::CutOff(By::Int),
        Ending::CutOff(By::Kill),
    ];

    /// Those that a case is crossed with.
    pub(super) fn of(case: &Case) -> Vec<Ending> {
        let wanted = |ending: &Ending| match (case.amount, ending) {
            (Amount::Little, _)
            | (Amount::Much, Ending::Undisturbed(_) | Ending::CutOff(By::Cancel | By::Kill)) => {
                true
            }
            // A server that ends waits five seconds for its answers, and the tests' is a slow one.
            (Amount::Much, Ending::CutOff(By::EndOfInput | By::Term | By::Int)) => false,
        };
        Ending::ALL.into_iter().filter(wanted).collect()
    }
}

/// What the caller got.
#[derive(Debug, PartialEq)]
enum Got {
    /// An answer: whether it could be read, its text and its warnings.
    Answer(Value, Value, Value),
    /// An error: its kind, its message and what it kept.
    Error(Value, Value, Value),
}

impl Got {
    fn of(result: &Value) -> Got {
        let [of_error, of_answer] =
            [["kind", "message", "partial"], ["parse_ok", "response", "warnings"]];
        if let Some(error) = result.get("error") {
            let [kind, message, mut partial] = of_error.map(|name| error[name].clone());
            if let Some(thread) = partial.get_mut("thread") {
                // Its id is another every time.
                *thread = thread["state"].take();
            }
            partial_in_brief(&mut partial);
            Got::Error(kind, message, partial)
        } else {
            let mut answer = of_answer.map(|name| result[name].clone());
            answer.iter_mut().for_each(in_brief);
            if answer[2].is_null() {
                answer[2] = json!([]);
            }
            let [parse_ok, response, warnings] = answer;
            Got::Answer(parse_ok, response, warnings)
        }
    }

    /// What a case brings where nobody disturbs.
    fn undisturbed(case: &Case, held: Held) -> Got {
        let unheld = (held == Held::ByNobody).then(|| NO_SANDBOX.to_owned());
        match &case.outcome {
            Outcome::Answer(text, warnings) => {
                let warnings: Vec<_> = warnings.iter().chain(&unheld).collect();
                Got::Answer(json!(true), json!(text), json!(warnings))
            }
            Outcome::Text(warnings) => {
                let warnings: Vec<_> = unheld.iter().chain(warnings).collect();
                Got::Answer(json!(false), json!(LONG), json!(warnings))
            }
            Outcome::Error(_, kind, message) => {
                Got::Error(json!(kind), json!(message), expected_partial(case))
            }
        }
    }

    /// What a call brings that was cut off: what had arrived, and what Kimi says when it is asked to end.
    fn cut_off(case: &Case) -> Got {
        let message = json!("the call was cancelled");
        Got::Error(json!("cancelled"), message, expected_partial(case))
    }
}

fn expected_partial(case: &Case) -> Value {
    let mut partial = case.arrived.partial();
    partial_in_brief(&mut partial);
    partial
}

/// The part that a host and the shell have in common: a host gets no text of files and no empty fields.
fn partial_in_brief(partial: &mut Value) {
    let Some(fields) = partial.as_object_mut() else { return };
    let calls = fields.get("evidence").and_then(Value::as_array);
    if let Some([call]) = calls.map(Vec::as_slice) {
        let failed = format!(
            "{} {}",
            call["tool"].as_str().unwrap(),
            call["args"]["path"].as_str().unwrap()
        );
        fields.insert("evidence".to_owned(), json!({"failed": [failed]}));
    }
    fields.retain(|_, field| ![json!(null), json!([]), json!({})].contains(field));
}

/// What is too long for a table, as it stands there: a host gets less of it than a file does, and is told.
fn in_brief(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with(FIRST_WORDS) && text.ends_with(LAST_WORDS) => {
            *value = json!(LONG);
        }
        Value::Array(items) => {
            let shortened = |item: &Value| {
                item.as_str().is_some_and(|text| text.starts_with("left out for max_result_chars"))
            };
            items.retain(|item| !shortened(item));
        }
        _ => {}
    }
}

/// Plays one cell, and looks at what is left of it.
pub(super) fn check(case: &Case, dialect: Dialect, held: Held, ending: Ending) {
    let Case { version, steps, .. } = case;
    let mut world = Script { dialect, version: version.clone(), run: steps.clone() }
        .world()
        .with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1"), ("KIMI_BRIDGE_GRACE_SECONDS", case.grace)]);
    if held == Held::ByNobody {
        world = world.with(&[("KIMI_BRIDGE_KEEPER", "0"), ("KIMI_BRIDGE_SANDBOX", "off")]);
    }
    let got = match ending {
        Ending::Undisturbed(way) => {
            fs::write(world.beside(GO), "").unwrap();
            world = world.with(case.limits);
            let got = match way {
                Way::Host => asked_by_a_host(case, &world),
                Way::Shell => asked_in_the_shell(case, &world),
            };
            assert_eq!(got, Got::undisturbed(case, held));
            Some(got)
        }
        Ending::CutOff(by) => {
            let mut server = Server::start(&world, Era::Legacy);
            let id = ask(&mut server, case);
            wait_until("the program is at its mark", || world.is_marked(dialect.name(), HERE));
            cut_off(case, &world, held, server, id, by)
        }
    };
    let killed = ending == Ending::CutOff(By::Kill);
    if held == Held::ByNobody && killed {
        // Nobody was there to end anybody.
        kill_all_with(&world.root().display().to_string());
    }
    expect_left(case, held, &world);
    kill_all_with(&world.root().display().to_string());
    // A server that was killed could not clear up.
    assert_eq!(runs(&world), usize::from(killed));
    if held == Held::ByNobody {
        // How the thread goes on has nothing to do with who held the run.
        return;
    }
    let answered = matches!(got, Some(Got::Answer(Value::Bool(true), ..)));
    // What comes after the fault is held to no limit of it.
    for (name, _) in case.limits {
        world.env.remove(*name);
    }
    goes_on(case, &world, dialect, answered);
    nobody_left(&world);
    assert_eq!(runs(&world), 0, "the next run clears up");
}

/// Waits until nobody is left but who may be.
#[track_caller]
fn expect_left(case: &Case, held: Held, world: &World) {
    if held == Held::ByKeeper || case.unkept == Unkept::Nobody {
        return nobody_left(world);
    }
    let root = world.root().display().to_string();
    let is_child = |line: &String| line.contains(play::AS_CHILD);
    wait_until("the program is gone", || processes_with(&root).iter().all(is_child));
}

/// How many folders of runs there are.
fn runs(world: &World) -> usize {
    fs::read_dir(world.state().join("runs")).unwrap().count()
}

fn request(case: &Case) -> Value {
    let mut request = proposal();
    if case.context_bytes > 0 {
        request["context"]["constraints"] = json!(["x".repeat(case.context_bytes)]);
    }
    request
}

fn ask(server: &mut Server, case: &Case) -> u64 {
    server.ask("tools/call", json!({"name": "consult_kimi", "arguments": request(case)}))
}

fn asked_by_a_host(case: &Case, world: &World) -> Got {
    let mut server = Server::start(world, Era::Legacy);
    let id = ask(&mut server, case);
    let result = server.answer(id);
    let told = result["structuredContent"].to_string().chars().count();
    assert!(told <= RESULT, "the host got {told} characters");
    let memory = server.peak_memory();
    assert!(memory < MEMORY, "the server took {memory} bytes");
    let (status, rest) = server.close();
    assert_eq!((status.code(), rest), (Some(0), vec![]));
    Got::of(&result["structuredContent"])
}

fn asked_in_the_shell(case: &Case, world: &World) -> Got {
    let file = world.root().join("context.json");
    let request = request(case);
    fs::write(&file, request["context"].to_string()).unwrap();
    let file = file.display().to_string();
    let message = request["message"].as_str().unwrap();
    let ran = world.run(&["consult", "--json", "--message", message, "--context", &file]);
    let code = match case.outcome {
        Outcome::Answer(..) => 0,
        Outcome::Text(_) => 4,
        Outcome::Error(code, ..) => code,
    };
    assert_eq!(ran.code, Some(code), "{ran:?}");
    Got::of(&ran.json())
}

/// Cuts a call off; returns what came of it all the same.
fn cut_off(
    case: &Case,
    world: &World,
    held: Held,
    mut server: Server,
    id: u64,
    by: By,
) -> Option<Got> {
    let ((status, lines), expected) = match by {
        By::Cancel => {
            server.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
                "params": {"requestId": id, "reason": "the user changed their mind"}}));
            expect_left(case, held, world);
            let tools = server.request("tools/list", json!({}));
            assert_eq!(tools["tools"].as_array().unwrap().len(), 3, "the server goes on");
            // Who cancelled a request gets no answer to it.
            (server.close(), None)
        }
        By::EndOfInput => (server.close(), Some(Got::cut_off(case))),
        By::Term => (server.signal(Signal::TERM), Some(Got::cut_off(case))),
        By::Int => (server.signal(Signal::INT), Some(Got::cut_off(case))),
        By::Kill => (server.signal(Signal::KILL), None),
    };
    let ended = if by == By::Kill { (None, Some(9)) } else { (Some(0), None) };
    assert_eq!((status.code(), status.signal()), ended, "the server ends");
    let mut answers = lines.iter().filter(|line| line["id"] == id);
    let got = answers.next().map(|line| Got::of(&outcome(line)["structuredContent"]));
    assert_eq!(answers.count(), 0, "one request, one answer");
    match case.at_the_mark {
        AtTheMark::Working => assert_eq!(got, expected),
        AtTheMark::Ended => {
            assert!(got == expected || got == Some(Got::undisturbed(case, held)), "{got:?}");
        }
    }
    got
}

/// The thread is remembered; the round of a call that brought no answer can be asked again.
fn goes_on(case: &Case, world: &World, dialect: Dialect, answered: bool) {
    let threads = world.run(&["threads", "--json"]).json();
    let [thread] = threads.as_array().unwrap().as_slice() else { panic!("{threads:#}") };
    let state = thread["state"].as_str().unwrap();
    match case.at_the_mark {
        AtTheMark::Working => assert_eq!(state, if answered { "settled" } else { "unfinished" }),
        // An answer may be remembered that its caller did not get any more.
        AtTheMark::Ended => assert!(state == "settled" || !answered, "{state}"),
    }
    Script::answering(dialect).install(world);
    let ran = if state == "unfinished" {
        world.run(&["consult", "--json", "--thread", thread["id"].as_str().unwrap()])
    } else {
        world.consult(&[])
    };
    let expected = Got::Answer(json!(true), json!("r"), json!([]));
    assert_eq!((ran.code, Got::of(&ran.json())), (Some(0), expected), "{ran:?}");
}
