//! A user lets Kimi choose between options, and is not fooled by their order.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::rounds::fenced;
use crate::runs::runs;
use crate::support::kimi::Real;
use crate::support::model::{Model, Step};
use crate::support::world::World;
use crate::support::{both, one};

pub(crate) fn tests() -> Vec<Trial> {
    let mut trials: Vec<Trial> = [
        both("judge::both_orders_are_asked_in_every_round", both_orders),
        both("judge::a_winner_counts_whatever_it_is_called", winners),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.push(one("judge::an_answer_to_one_order_is_kept", Real::KimiCode, in_one_order));
    trials
}

const OPTIONS: &str = "options: [{name: log, summary: a log}, {name: SQLite, summary: a database}]\ncriteria: [speed]\n";

/// Whether a request holds the options in the order given.
fn in_order(request: &Value) -> bool {
    request["messages"].to_string().contains("1. name: log")
}

/// A judge who says this of the options in the order given, and in the other.
fn world(
    real: Real,
    program: &Path,
    said: impl Fn(bool, usize) -> Value + Send + 'static,
) -> (Model, World) {
    let model = Model::start_with(move |request, _| {
        let round = if request["messages"].to_string().contains("This is round 2") { 2 } else { 1 };
        fenced(&said(in_order(request), round))
    });
    let world = World::with_real(real, program, &model);
    fs::write(world.root().join("judge.yaml"), OPTIONS).unwrap();
    (model, world)
}

fn ask(world: &World) -> Value {
    let context = world.root().join("judge.yaml").display().to_string();
    world.run(&["consult", "--json", "--role", "judge", "-m", "which?", "-c", &context]).json()
}

fn answer(winner: &Value, claim: &str, replies: &Value) -> Value {
    let finding = json!({"severity": "minor", "claim": claim, "citations": []});
    let findings = if claim.is_empty() { json!([]) } else { json!([finding]) };
    json!({"response": format!("{winner} it is"), "verdict": {"winner": winner, "scores": []},
        "findings": findings, "replies": replies, "confidence": "low"})
}

/// Whatever stands first wins, and each order brings a finding of its own; in round 2 as well.
fn both_orders(real: Real, program: &Path) {
    let maintain =
        |because: &str| json!([{"finding": "F1", "stance": "maintain", "because": because}]);
    let (model, world) = world(real, program, move |in_order, round| match (in_order, round) {
        (true, 1) => answer(&json!("Option 1"), "a log grows for ever", &json!([])),
        (false, 1) => answer(&json!("Option 1"), "a database locks", &json!([])),
        (true, _) => answer(&json!("**LOG**"), "", &maintain("line 12 appends")),
        (false, _) => answer(
            &json!("sqlite (embedded)"),
            "",
            &json!([{"finding": "F1", "stance": "withdraw",
            "because": "You are right."}]),
        ),
    });
    let first = ask(&world);
    assert_eq!(first["verdict"], json!({"scores": [], "contested": true}), "{first:#}");
    let differs = |first: &Value| {
        let warning = first["warnings"][0].as_str().unwrap().to_owned();
        let says = "the winner changes with the order of the options: log in the order given, SQLite in the other";
        assert!(warning.starts_with(says), "{warning}");
    };
    differs(&first);
    let claims: Vec<_> =
        first["findings"].as_array().unwrap().iter().map(|f| (&f["id"], &f["claim"])).collect();
    assert_eq!(
        claims,
        [
            (&json!("F1"), &json!("a log grows for ever")),
            (&json!("F2"), &json!("a database locks"))
        ]
    );
    assert_eq!(model.requests().len(), 2);

    let id = first["thread"]["id"].as_str().unwrap();
    // Each order is a run of its own, with a session and a transcript.
    let runs = runs(&world);
    assert_eq!(runs.len(), 2, "{runs:?}");
    for run in runs {
        let order = run["request"]["option_order"].as_str();
        let claim = ["a log grows for ever", "a database locks"][usize::from(order.is_some())];
        assert_eq!((&run["thread_id"], &run["round"]), (&json!(id), &json!(1)));
        assert!(run["session_id"].is_string() && run["state"] == "answered", "{run}");
        let file = format!("transcripts/{}.jsonl.gz", run["id"].as_str().unwrap());
        let file = fs::File::open(world.state().join(file)).unwrap();
        let mut text = String::new();
        MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
        assert!(text.contains(claim), "{order:?}: {text}");
    }
    let again = [
        "consult",
        "--json",
        "--thread",
        id,
        "--adopt",
        "F2",
        "--reject",
        "F1=it is compacted daily",
    ];
    let second = world.run(&again).json();
    assert_eq!(second["verdict"]["contested"], true, "{second:#}");
    differs(&second);
    // Of the two orders' replies the one that keeps more counts.
    assert_eq!(second["replies"][0]["because"], "line 12 appends");
    assert_eq!(second["thread"]["open"], json!(["F1"]));
    // Each order goes on in its own session.
    let requests = model.requests();
    assert_eq!(requests.len(), 4);
    for in_this_order in [true, false] {
        let asked: Vec<String> = requests[2..]
            .iter()
            .filter(|request| in_order(request) == in_this_order)
            .map(|request| request["messages"].to_string())
            .collect();
        assert_eq!(asked.len(), 1);
        for (said, times) in
            [("You are the judge.", 1), ("This is round 2 of the same argument.", 1)]
        {
            assert_eq!(asked[0].matches(said).count(), times, "{said}: {}", asked[0]);
        }
    }
    let once = world.with(&[("KIMI_BRIDGE_JUDGE_BOTH_ORDERS", "0")]);
    assert_eq!(ask(&once)["verdict"], json!({"winner": "log", "scores": [], "contested": false}));
}

/// A name in other words is that name in both orders; one that is no option is asked for again.
fn winners(real: Real, program: &Path) {
    let (_model, named) = world(real, program, |in_order, _| {
        answer(&json!(if in_order { "Option 2" } else { "`sqlite`" }), "", &json!([]))
    });
    let result = ask(&named);
    assert_eq!(
        result["verdict"],
        json!({"winner": "SQLite", "scores": [], "contested": false}),
        "{result:#}"
    );
    assert_eq!(result["warnings"], json!([]));

    let model = Model::start_with(move |request, _| {
        let repaired = request["messages"].to_string().contains("expected the name of one option");
        fenced(&answer(&json!(if repaired { "log" } else { "a third way" }), "", &json!([])))
    });
    let repaired = World::with_real(real, program, &model);
    fs::write(repaired.root().join("judge.yaml"), OPTIONS).unwrap();
    assert_eq!(ask(&repaired)["verdict"]["winner"], "log");
    assert_eq!(model.requests().len(), 4);
    let model = Model::start(vec![fenced(&answer(&json!("a third way"), "", &json!([])))]);
    let never = World::with_real(real, program, &model);
    fs::write(never.root().join("judge.yaml"), OPTIONS).unwrap();
    let result = ask(&never);
    assert_eq!(
        (&result["parse_ok"], &result["thread"]["state"]),
        (&json!(false), &json!("unfinished")),
        "{result:#}"
    );
}

/// The order given fails or cannot be read; the other one answers, and the next round asks both again.
fn in_one_order(real: Real, program: &Path) {
    for (fault, why) in [
        (
            Step::Status(401, json!({"error": {"message": "no", "type": "error"}})),
            "the other run failed: ",
        ),
        (Step::Text("no JSON".to_owned()), "the other answer could not be read"),
    ] {
        let model = Model::start_with(move |request, nth| {
            if in_order(request) && nth < 4 {
                fault.clone()
            } else {
                fenced(&answer(&json!("log"), "a log grows", &json!([])))
            }
        });
        let world = World::with_real(real, program, &model);
        fs::write(world.root().join("judge.yaml"), OPTIONS).unwrap();
        let first = ask(&world);
        assert_eq!(first["verdict"]["winner"], "log", "{first:#}");
        let warned = format!("the options were judged in one order only: {why}");
        let warnings = first["warnings"].as_array().unwrap();
        assert!(warnings.iter().any(|one| one.as_str().unwrap().starts_with(&warned)), "{first:#}");
        let id = first["thread"]["id"].as_str().unwrap();
        let reject = ["consult", "--json", "--thread", id, "--reject", "F1=it is compacted daily"];
        let before = model.requests().len();
        let second = world.run(&reject).json();
        assert_eq!(second["verdict"]["winner"], "log", "{second:#}");
        let orders: Vec<bool> = model.requests()[before..].iter().map(in_order).collect();
        assert!(orders.contains(&true) && orders.contains(&false), "{orders:?}");
        // The session of the run that failed is deleted too.
        assert_eq!(world.run(&["threads", "delete", id]).code, Some(0));
        let left = World::content_of(&world.state()).into_iter();
        let left = left.filter(|(_, text)| text.contains("a database")).map(|(path, _)| path);
        assert_eq!(left.collect::<Vec<_>>(), Vec::<PathBuf>::new());
    }
}
