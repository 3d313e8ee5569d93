//! Reply ─► Answer: Kimi's last words, read. Reading never fails: what cannot be read stays text,
//! and nothing is guessed.
//!
//! The answer is the last JSON object in the text that fits, whether it stands in a fence, bare,
//! after prose or after other objects. A few slips that models make are mended and named; anything
//! else is left alone.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::citation::Status;
use super::objects::objects_in;
use super::role::Role;
use super::schema;
use super::texts::each_text;
use super::violations::Checker;
use crate::error::Violation;
use crate::hidden::Cleaned;
use crate::kimi::text::{clean, first_chars, last_bytes};

/// What reading brought.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The answer, or why there is none.
    pub answer: Result<Answer, Vec<Violation>>,
    /// What was mended, passed over or ambiguous.
    pub warnings: Vec<String>,
    /// Characters that nobody can see, taken out of the answer's texts.
    pub hidden: usize,
}

/// The most of a text that is searched, bytes from its end: an answer stands there, and a search
/// costs many times the length of what it goes through.
const SEARCHED: usize = 1024 * 1024;

/// The most findings that an answer may hold. Each is answered one by one, and a result keeps each whole,
/// so that more of them would be neither a review nor a result that a host shows.
pub const MOST_FINDINGS: usize = 100;
/// The most citations of one finding; they are read from the disk, each of them.
const MOST_CITATIONS: usize = 20;
/// What is said of the slips of one answer, and of what does not fit in it.
const MOST_TOLD: usize = 20;

static CHECKER: LazyLock<Checker> = LazyLock::new(|| Checker::new(schema::of::<Answer>()));

/// Reads the answer of this role in a text.
#[must_use]
pub fn read(text: &str, role: Role) -> Reading {
    let mut fitting: Vec<(Answer, Vec<String>, usize)> = Vec::new();
    let mut misfit = None;
    for object in objects_in(last_bytes(text, SEARCHED)) {
        let mut warnings = object.mended;
        let mut fields = object.fields;
        if !is_meant_as_an_answer(&fields) {
            continue;
        }
        mend(&mut fields, role, &mut warnings);
        few(&mut warnings, |more| format!("{more} more such things in Kimi's answer"));
        let findings = fields.get("findings").and_then(Value::as_array).map_or(0, Vec::len);
        if findings > MOST_FINDINGS {
            let expected = format!("expected at most {MOST_FINDINGS} findings, found {findings}");
            misfit = Some(vec![Violation::new("/findings", expected)]);
            continue;
        }
        let mut value = Value::Object(fields);
        let mut hidden = 0;
        // JSON escapes can hold what the stream's cleaning could not see.
        each_text(&mut value, &mut |text| {
            let cleaned = Cleaned::of(text);
            hidden += cleaned.hidden;
            *text = cleaned.text.into_owned();
        });
        let mut violations = CHECKER.violations(&value);
        if role == Role::Judge && value.get("verdict").is_none() {
            violations
                .push(Violation { pointer: "/verdict".to_owned(), ..none("required and missing") });
        }
        few(&mut violations, |more| none(&format!("{more} more things do not fit")));
        match serde_json::from_value::<Answer>(value) {
            Ok(answer) if violations.is_empty() => {
                fitting.push((answer, warnings, hidden));
                misfit = None;
            }
            Err(error) if violations.is_empty() => misfit = Some(vec![none(&error.to_string())]),
            Ok(_) | Err(_) => misfit = Some(violations),
        }
    }
    let count = fitting.len();
    if let Some((answer, mut warnings, hidden)) = fitting.pop() {
        if count > 1 {
            warnings.push(format!(
                "{count} objects in Kimi's text fit the answer; the last one was used"
            ));
        }
        if let Some(later) = misfit {
            let why: Vec<String> = later.iter().map(ToString::to_string).collect();
            let why = why.join("; ");
            warnings.push(format!(
                "a later object in Kimi's text may be meant instead, but does not fit: {why}"
            ));
        }
        return Reading { answer: Ok(answer), warnings, hidden };
    }
    let why = misfit.unwrap_or_else(|| vec![none("expected a JSON object with `response`")]);
    Reading { answer: Err(why), warnings: Vec::new(), hidden: 0 }
}

const LISTS: [&str; 7] =
    ["findings", "replies", "key_risks", "assumptions", "alternatives", "survived", "not_examined"];

/// An example, a snippet or a tool's output is passed over; a `response` beside another field of
/// the contract is an answer.
fn is_meant_as_an_answer(fields: &Map<String, Value>) -> bool {
    let others = LISTS.iter().chain(&["confidence", "verdict"]);
    fields.contains_key("response") && others.into_iter().any(|&name| fields.contains_key(name))
}

/// Mends the slips that leave no doubt what was meant, and names them.
fn mend(fields: &mut Map<String, Value>, role: Role, warnings: &mut Vec<String>) {
    let known = |name: &str| {
        name == "response" || name == "confidence" || name == "verdict" || LISTS.contains(&name)
    };
    let unknown: Vec<String> = fields.keys().filter(|name| !known(name)).cloned().collect();
    for name in unknown {
        fields.shift_remove(&name);
        let name = first_chars(&clean(&name), 60).to_owned();
        warnings.push(format!("the answer's unknown field `{name}` was passed over"));
    }
    fields.retain(|_, value| !value.is_null());
    if role != Role::Judge && fields.shift_remove("verdict").is_some() {
        warnings.push("the field `verdict`, which is the judge's, was passed over".to_owned());
    }
    for name in LISTS {
        make_list(fields, name, name, warnings);
    }
    for (at, finding) in objects(fields, "findings").enumerate() {
        finding.retain(|_, value| !value.is_null());
        make_list(finding, "citations", &format!("findings/{at}/citations"), warnings);
        if let Some(Value::Array(citations)) = finding.get_mut("citations")
            && citations.len() > MOST_CITATIONS
        {
            let all = citations.len();
            citations.truncate(MOST_CITATIONS);
            warnings
                .push(format!("`findings/{at}/citations`: {MOST_CITATIONS} of {all} were kept"));
        }
        for citation in objects(finding, "citations") {
            citation.retain(|_, value| !value.is_null());
            for name in ["line_start", "line_end"] {
                citation.get_mut(name).map(whole);
            }
            complete(citation, json!({"quote": ""}), json!({"status": Status::Missing}));
        }
        let texts = json!({"failure_scenario": "", "suggestion": "", "citations": []});
        complete(finding, texts, json!({"id": "", "grounded": false}));
    }
    for reply in objects(fields, "replies") {
        complete(reply, json!({"because": ""}), json!({"capitulated": false}));
    }
    if let Some(Value::Object(verdict)) = fields.get_mut("verdict") {
        verdict.retain(|_, value| !value.is_null());
        complete(verdict, json!({"scores": []}), json!({"contested": false}));
    }
    if let Some(number @ Value::Number(_)) = fields.get_mut("confidence") {
        warnings.push("mended: `confidence` was a number".to_owned());
        *number = Value::String(number.to_string());
    }
    for name in LISTS {
        fields.entry(name).or_insert(json!([]));
    }
    fields.entry("confidence").or_insert(json!(""));
}

/// The objects in a list.
fn objects<'a>(
    fields: &'a mut Map<String, Value>,
    list: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let items = fields.get_mut(list).and_then(Value::as_array_mut);
    items.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Adds the fields that Kimi may leave out. The bridge's own fields have these values until they are
/// filled in, whatever Kimi wrote there.
fn complete(fields: &mut Map<String, Value>, optional: Value, own: Value) {
    if let (Value::Object(optional), Value::Object(own)) = (optional, own) {
        for (name, value) in optional {
            fields.entry(name).or_insert(value);
        }
        fields.extend(own);
    }
}

/// 10.0 is a whole number to a schema, and none to the reader.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just before")]
fn whole(number: &mut Value) {
    if let Some(float) = number.as_f64().filter(|_| number.is_f64())
        && float.fract() == 0.0
        && (0.0..f64::from(u32::MAX)).contains(&float)
    {
        *number = Value::from(float as u32);
    }
}

/// A text, or for lists of records one record, where a list of one belongs.
fn make_list(fields: &mut Map<String, Value>, name: &str, place: &str, warnings: &mut Vec<String>) {
    let takes_records = ["findings", "replies", "citations"].contains(&name);
    let Some(value) = fields.get_mut(name) else { return };
    let is_one = if takes_records { value.is_object() } else { value.is_string() };
    if is_one {
        warnings.push(format!("mended: `{place}` was not a list"));
        *value = Value::Array(vec![value.take()]);
    }
}

/// The first of what is told; of the rest the number.
fn few<T>(told: &mut Vec<T>, more: impl FnOnce(usize) -> T) {
    let over = told.len().saturating_sub(MOST_TOLD);
    if over > 0 {
        told.truncate(MOST_TOLD);
        told.push(more(over));
    }
}

fn none(expected: &str) -> Violation {
    Violation { pointer: String::new(), expected: expected.to_owned(), did_you_mean: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::answer::{Finding, Score, Severity, Verdict};
    use super::super::citation::Citation;
    use super::*;

    fn oldest() -> Value {
        json!({"response": "No.", "key_risks": ["r"], "assumptions": [], "alternatives": ["a"], "confidence": "high: read"})
    }

    fn oldest_answer() -> Answer {
        Answer {
            response: "No.".into(),
            key_risks: vec!["r".into()],
            alternatives: vec!["a".into()],
            confidence: "high: read".into(),
            ..Answer::default()
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &Answer, warnings: &[&str]) {
        let reading = read(text, Role::Skeptic);
        assert_eq!(reading.answer.as_ref(), Ok(expected), "{text}");
        assert_eq!(reading.warnings, warnings, "{text}");
    }

    #[test]
    fn the_five_oldest_fields_are_a_full_answer_however_they_are_wrapped() {
        let object = oldest().to_string();
        for text in [
            object.clone(),
            format!("```json\n{object}\n```"),
            format!("~~~\n{object}\n~~~\nThat is all."),
            format!(
                "Prose with {{braces}} and {{\"not\": \"it\"}}.\n```rust\nfn f() {{ g({{}}) }}\n```\n{object}"
            ),
            format!("{{ unbalanced \" quote {{ {object}"),
            format!("{{\"response\": \"an example without more\"}} {object} {{\"response\": 1}}"),
        ] {
            check(&text, &oldest_answer(), &[]);
        }
    }

    #[test]
    fn strings_that_hold_fences_braces_or_whole_answers_do_not_confuse_it() {
        let mut object = oldest();
        object["response"] =
            json!(format!("```json\n{}\n``` and }} {{", json!({"response": "no", "findings": []})));
        let expected =
            Answer { response: object["response"].as_str().unwrap().into(), ..oldest_answer() };
        check(&format!("```json\n{object:#}\n```"), &expected, &[]);
    }

    #[test]
    fn the_last_object_that_fits_is_the_answer() {
        let first = json!({"response": "draft", "findings": []});
        check(
            &format!("{first}\nOn reflection:\n{}", oldest()),
            &oldest_answer(),
            &["2 objects in Kimi's text fit the answer; the last one was used"],
        );
        let broken = json!({"response": "broken", "findings": "none"});
        check(
            &format!("{}\n{broken}", oldest()),
            &oldest_answer(),
            &[
                "a later object in Kimi's text may be meant instead, but does not fit: /findings: expected an array, \
               found a string",
            ],
        );
    }

    #[test]
    fn a_verdict_is_the_judges_and_a_judge_needs_one() {
        let mut object = oldest();
        object["verdict"] = json!("reject");
        check(
            &object.to_string(),
            &oldest_answer(),
            &["the field `verdict`, which is the judge's, was passed over"],
        );
        let why = read(&oldest().to_string(), Role::Judge).answer.unwrap_err();
        assert_eq!(why[0].to_string(), "/verdict: required and missing");
    }

    #[test]
    fn small_slips_are_mended_and_named() {
        let finding = Finding {
            id: String::new(),
            severity: Severity::Minor,
            claim: "c".into(),
            failure_scenario: String::new(),
            suggestion: String::new(),
            citations: vec![Citation {
                path: "a.rs".into(),
                line_start: Some(1),
                line_end: None,
                quote: "x".into(),
                status: Status::Missing,
            }],
            grounded: false,
        };
        check(
            r#"{"response": "No.", "findings": {"severity": "minor", "claim": "c", "failure_scenario": null,
                "citations": {"path": "a.rs", "line_start": 1.0, "quote": "x"},},
                "key_risks": "r", "alternatives": ["a",], "confidence": 0.9, "mood": "grim",}"#,
            &Answer { findings: vec![finding], confidence: "0.9".into(), ..oldest_answer() },
            &[
                "mended: 3 trailing commas",
                "the answer's unknown field `mood` was passed over",
                "mended: `findings` was not a list",
                "mended: `key_risks` was not a list",
                "mended: `findings/0/citations` was not a list",
                "mended: `confidence` was a number",
            ],
        );
    }

    #[test]
    fn anything_else_is_no_answer_and_says_why() {
        let check = |text: &str, expected: &[&str]| {
            let why: Vec<_> = read(text, Role::Skeptic)
                .answer
                .unwrap_err()
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(why, expected, "{text}");
        };
        check("I would not ship it.", &["/: expected a JSON object with `response`"]);
        check("", &["/: expected a JSON object with `response`"]);
        check(
            "{\"response\": \"cut off, \\\"findings\\\": [",
            &["/: expected a JSON object with `response`"],
        );
        check(
            &json!({"response": 7, "findings": [{"severity": "awful", "claim": "c"}, "f"]})
                .to_string(),
            &[
                "/response: expected a string, found a number",
                "/findings/0/severity: expected one of blocker, major, minor, note, found \"awful\"",
                "/findings/1: expected an object, found a string",
            ],
        );
    }

    #[test]
    fn absurd_numbers_of_anything_are_bounded() {
        let finding = json!({"severity": "note", "claim": "c"});
        let with = |findings: usize| json!({"response": "r", "findings": vec![&finding; findings]});
        let read_whole = |answer: &Value| read(&answer.to_string(), Role::Skeptic);
        assert_eq!(read_whole(&with(100)).answer.unwrap().findings.len(), 100);
        let why = read_whole(&with(9_000)).answer.unwrap_err();
        assert_eq!(
            why.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["/findings: expected at most 100 findings, found 9000"]
        );

        let mut answer = with(1);
        answer["findings"][0]["citations"] = json!(vec![json!({"path": "a.rs"}); 300]);
        for n in 0..5_000 {
            answer[format!("field{n}")] = json!(n);
        }
        let reading = read_whole(&answer);
        assert_eq!(reading.answer.unwrap().findings[0].citations.len(), 20);
        let last = "4981 more such things in Kimi's answer";
        assert_eq!((reading.warnings.len(), reading.warnings[20].as_str()), (21, last));

        let why = read_whole(&json!({"response": "r", "key_risks": vec![1; 5_000]})).answer;
        let why = why.unwrap_err();
        assert_eq!((why.len(), why[20].to_string()), (21, "/: 4980 more things do not fit".into()));
    }

    #[test]
    fn what_cannot_be_seen_is_stripped_from_every_text() {
        let text = r#"{"response": "a\u001b[31mb\u202ec", "key_risks": ["\u200bx"]}"#;
        check(
            text,
            &Answer { response: "abc".into(), key_risks: vec!["x".into()], ..Answer::default() },
            &[],
        );
        assert_eq!(read(text, Role::Skeptic).hidden, 7);
    }

    fn text() -> impl Strategy<Value = String> {
        // Text that cleaning leaves alone, with all that could confuse the search for objects.
        "([a-zé中 \n\"\\\\{}\\[\\],:`~]|```json|\\{\"response\": \"x\", \"findings\": \\[\\]\\}){0,12}"
    }

    fn texts() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec(text(), 0..3)
    }

    prop_compose! {
        fn citation()(path in "[a-z/]{1,9}", line_start in proptest::option::of(0u32..99),
            line_end in proptest::option::of(0u32..99), quote in text()) -> Citation {
            Citation { path, line_start, line_end, quote, status: Status::Missing }
        }
    }

    prop_compose! {
        fn finding()(
            severity in prop_oneof![Just(Severity::Blocker), Just(Severity::Major), Just(Severity::Minor), Just(Severity::Note)],
            claim in text(), failure_scenario in text(), suggestion in text(),
            citations in proptest::collection::vec(citation(), 0..3),
        ) -> Finding {
            Finding { id: String::new(), severity, claim, failure_scenario, suggestion, citations, grounded: false }
        }
    }

    prop_compose! {
        fn verdict()(winner in proptest::option::of(text()), scores in proptest::collection::vec(
            (text(), text(), 0u8..=10, text()), 0..3)) -> Verdict {
            let scores = scores.into_iter().map(|(option, criterion, score, reason)| {
                Score { option, criterion, score: score.into(), reason }
            });
            Verdict { winner, scores: scores.collect(), contested: false }
        }
    }

    prop_compose! {
        fn answer()(response in text(), verdict in verdict().prop_map(Some),
            findings in proptest::collection::vec(finding(), 0..3),
            lists in (texts(), texts(), texts(), texts(), texts()), confidence in text()) -> Answer {
            let (key_risks, assumptions, alternatives, survived, not_examined) = lists;
            Answer { response, verdict, replies: vec![], findings, key_risks, assumptions, alternatives, survived, not_examined, confidence }
        }
    }

    proptest! {
        #[test]
        fn every_valid_answer_comes_back_whole(answer in answer(), before in "[a-z .\n`]{0,20}", pretty: bool) {
            let json = if pretty { serde_json::to_string_pretty(&answer) } else { serde_json::to_string(&answer) };
            let text = format!("{before}\n```json\n{}\n```\n", json.unwrap());
            prop_assert_eq!(read(&text, Role::Judge), Reading { answer: Ok(answer), warnings: vec![], hidden: 0 });
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,200}|([{}\\[\\]\",:a1 ]|\"response\": |\"findings\": ){0,80}") {
            let reading = read(&text, Role::Skeptic);
            prop_assert!(reading.answer.is_ok() || reading.answer.is_err_and(|why| !why.is_empty()));
        }
    }
}
