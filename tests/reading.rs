//! A user gets what Kimi said, in whatever odd form it came: nothing is called fine that was not said to be fine, and
//! no answer is lost.

use std::path::Path;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::answers::say_verdict;
use crate::support::kimi::Real;
use crate::support::model::{Model, Step};
use crate::support::world::{Ran, World};
use crate::support::{both, test};

pub(crate) fn tests() -> Vec<Trial> {
    let mut trials: Vec<Trial> = [
        both("reading::an_answer_beside_a_tool_call_is_not_lost", beside_a_tool_call),
        both("reading::an_answer_without_findings_leaves_the_round_open", without_findings),
        both("reading::an_answer_that_was_cut_is_asked_for_again", cut),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.push(test("reading::an_end_by_failure_counts_unless_the_answer_is_whole", failing_ends));
    trials
}

fn asked(real: Real, program: &Path, steps: Vec<Step>) -> (Ran, Vec<Value>) {
    let model = Model::start(steps);
    let ran = World::with_real(real, program, &model).consult(&[]);
    (ran, model.requests())
}

/// The warnings of a result, as far as they hold one of the words.
fn warnings(result: &Value, word: &str) -> Vec<String> {
    let all = result["warnings"].as_array().unwrap().iter();
    let texts = all.map(|warning| warning.as_str().unwrap().to_owned());
    texts.filter(|text| text.contains(word)).collect()
}

fn beside_a_tool_call(real: Real, program: &Path) {
    let Step::Text(answer) = say_verdict() else { panic!("the verdict is a text") };
    let calls = vec![(real.read_tool(), json!({"path": "src/store.rs"}))];
    let steps =
        vec![Step::TextAndCalls(answer, calls), Step::Text("That is all that I found.".to_owned())];
    let (ran, requests) = asked(real, program, steps);
    let result = ran.json();
    assert_eq!((ran.code, &result["parse_ok"]), (Some(0), &json!(true)), "{result:#}");
    assert_eq!(result["findings"][0]["claim"], "`add` drops the write error");
    assert_eq!(requests.len(), 2, "nothing is asked again");
}

fn without_findings(real: Real, program: &Path) {
    let oldest = json!({"response": "Fine.", "key_risks": ["torn writes"], "assumptions": [], "alternatives": [],
        "confidence": "high"});
    let (ran, requests) = asked(real, program, vec![Step::Text(oldest.to_string())]);
    let result = ran.json();
    assert_eq!(
        (&result["parse_ok"], &result["thread"]["state"], &result["key_risks"][0]),
        (&json!(true), &json!("unfinished"), &json!("torn writes")),
        "{result:#}"
    );
    let said = "Kimi's answer has no `findings`, so nothing says that it found none: ask again";
    assert_eq!(warnings(&result, "`findings`"), [said]);
    assert_eq!(requests.len(), 2, "one repair turn");
    let repair = requests[1].to_string();
    assert!(repair.contains("only an empty list says that there is nothing to find"), "{repair}");
}

fn cut(real: Real, program: &Path) {
    let finding = |claim: &str| json!({"severity": "major", "claim": claim});
    let answer = json!({"response": "r", "findings": [finding("one"), finding("two")]}).to_string();
    let begun = answer[..answer.len() - 9].to_owned();
    // The second answer is cut as well.
    let (ran, requests) = asked(real, program, vec![Step::Text(begun)]);
    let result = ran.json();
    let claims: Vec<&Value> =
        result["findings"].as_array().unwrap().iter().map(|finding| &finding["claim"]).collect();
    assert_eq!((claims, &result["parse_ok"]), (vec![&json!("one")], &json!(true)), "{result:#}");
    assert_eq!(result["thread"]["open"], json!(["F1"]));
    assert_eq!(warnings(&result, "cut off").len(), 1, "{result:#}");
    assert!(requests[1].to_string().contains("the answer was cut off before its end"));

    let (ran, _) =
        asked(real, program, vec![Step::Text(answer[..30].to_owned()), Step::Text(answer)]);
    let result = ran.json();
    assert_eq!(result["findings"].as_array().unwrap().len(), 2, "{result:#}");
}

fn failing_ends() {
    let whole = json!({"response": "r", "findings": []}).to_string();
    let check = |content: &str, ending: &str| {
        let line = json!({"role": "assistant", "content": content}).to_string();
        World::with_fake("2.1.0", &format!("echo '{line}'\n{ending}")).consult(&[])
    };
    for ending in ["exit 3", "kill -KILL $$", "echo 'error: provider.rate_limit: 429' >&2; exit 1"]
    {
        let ran = check(&whole, ending);
        let result = ran.json();
        assert_eq!(
            (ran.code, &result["parse_ok"]),
            (Some(0), &json!(true)),
            "{ending}: {result:#}"
        );
        let said = warnings(&result, "Kimi ended abnormally after its answer");
        assert_eq!(said.len(), 1, "{ending}: {result:#}");

        let ran = check("I found that the", ending);
        let error = &ran.json()["error"];
        let kind = if ending.contains("429") { "rate_limited" } else { "crashed" };
        assert_eq!(
            (&error["kind"], &error["partial"]["response"]),
            (&json!(kind), &json!("I found that the")),
            "{ending}: {error:#}"
        );
    }
    let ran = check("I would not ship it.", "exit 0");
    let result = ran.json();
    assert_eq!((ran.code, &result["response"]), (Some(4), &json!("I would not ship it.")));
}
