//! Reply ─► Answer: parses Kimi's text. Reading never fails: text that cannot be parsed stays text, and nothing is
//! guessed.
//!
//! The answer is the last whole JSON object that matches the contract: in a fence, bare, after prose or after other
//! objects. Unambiguous slips are fixed and reported ([`super::slips`]).

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::answer::Answer;
use super::role::Role;
use super::schema;
use super::slips::{self, LISTS};
use super::violations::Checker;
use crate::error::Violation;
use crate::hidden::Cleaned;
use crate::job::objects::{Objects, SHOWN};
use crate::job::texts::each_text;
use crate::kimi::text::{clean, first_chars, last_bytes};

/// The result of reading a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The answer, or the reasons why there is none.
    pub answer: Result<Answer, Vec<Violation>>,
    /// The completeness of the answer.
    pub form: Form,
    /// Fixed slips, dropped fields, and ambiguities.
    pub warnings: Vec<String>,
    /// The number of invisible characters that were removed from the texts of the answer.
    pub hidden: usize,
    /// The most findings of an object in the text, even of one that does not match.
    pub findings: usize,
}

/// The completeness of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The whole answer.
    Whole,
    /// The text ended inside the answer: only the findings before the cut were read.
    Cut,
    /// The five oldest fields without `findings`, which does not mean that there are none.
    WithoutFindings,
}

impl Reading {
    /// The reasons why the answer is not a whole one, as text for Kimi; `None` for a whole one.
    #[must_use]
    pub fn lacks(&self) -> Option<Vec<Violation>> {
        match (&self.answer, self.form) {
            (Err(why), _) => Some(why.clone()),
            (Ok(_), Form::Whole) => None,
            (Ok(_), Form::Cut) => Some(vec![none(CUT)]),
            (Ok(_), Form::WithoutFindings) => Some(vec![Violation::new("/findings", NO_FINDINGS)]),
        }
    }
}

const CUT: &str = "the answer was cut off before its end; say all of it in fewer words";
const NO_FINDINGS: &str =
    "required and missing; only an empty list says that there is nothing to find";

/// The longest part of a text that is searched, bytes from its end: the answer is there, and a search costs many times
/// the length of its text.
const SEARCHED: usize = 1024 * 1024;

/// The most findings of an answer. Each needs an answer of its own, and a result keeps them whole, so that more would
/// exceed what a host shows.
pub const MOST_FINDINGS: usize = 100;
/// The most slips and mismatches that are reported for one answer.
const MOST_NAMED: usize = 20;

static CHECKER: LazyLock<Checker> = LazyLock::new(|| Checker::new(schema::for_type::<Answer>()));

/// Reads the answer of this role in a text.
#[must_use]
pub fn read(text: &str, role: Role) -> Reading {
    let mut objects = Objects::find_in(last_bytes(text, SEARCHED));
    let mut fitting: Vec<Reading> = Vec::new();
    let mut misfit = None;
    let mut findings = 0;
    for object in objects.by_ref() {
        let repeated = object.repeated();
        let mut warnings = object.fixed;
        let mut fields = object.fields;
        slips::rename_answer(&mut fields, &mut warnings);
        if !is_meant_as_an_answer(&fields) {
            // For a cut object, the object inside is found by itself.
            let Some((name, inner)) = Some(fields).filter(|_| !object.is_cut).and_then(inside)
            else {
                continue;
            };
            warnings.push(format!("fixed: the answer stood in the field `{name}`"));
            fields = inner;
            slips::rename_answer(&mut fields, &mut warnings);
        }
        warnings.extend(repeated);
        let form = match (object.is_cut, fields.get("findings")) {
            (_, None) => Form::WithoutFindings,
            (true, Some(_)) => Form::Cut,
            (false, Some(_)) => Form::Whole,
        };
        let is_of_the_oldest_form = OLDEST.iter().all(|name| fields.contains_key(*name));
        findings =
            findings.max(fields.get("findings").and_then(Value::as_array).map_or(0, Vec::len));
        match fit(fields, role, form, &mut warnings) {
            Ok(_) if form == Form::WithoutFindings && !is_of_the_oldest_form => {
                let why = Violation::new("/findings", NO_FINDINGS);
                misfit = Some(if object.is_cut { vec![none(CUT)] } else { vec![why] });
            }
            Ok((answer, hidden)) => {
                cap(&mut warnings, |more| format!("{more} more such things in Kimi's answer"));
                fitting.push(Reading { answer: Ok(answer), form, warnings, hidden, findings: 0 });
                misfit = None;
            }
            Err(why) => misfit = Some(why),
        }
    }
    if let Some(chosen) = choose(fitting, misfit.as_deref()) {
        return Reading { findings, ..chosen };
    }
    let why = misfit.unwrap_or_else(|| {
        let expected = match objects.broken {
            Some(error) => format!("expected a JSON object with `response`; the one there is cannot be read: {error} of it"),
            None => "expected a JSON object with `response`".to_owned(),
        };
        vec![none(&expected)]
    });
    Reading { answer: Err(why), form: Form::Whole, warnings: Vec::new(), hidden: 0, findings }
}

/// The fields of the oldest contract, which had no findings.
const OLDEST: [&str; 5] = ["response", "key_risks", "assumptions", "alternatives", "confidence"];

/// Returns whether an object is meant as an answer: it has `response` and another field of the contract. Examples,
/// snippets and outputs of tools do not.
fn is_meant_as_an_answer(fields: &Map<String, Value>) -> bool {
    let others = LISTS.iter().chain(&["confidence", "verdict"]);
    fields.contains_key("response") && others.into_iter().any(|&name| fields.contains_key(name))
}

/// The field of an object that holds the answer, as in `{"review": {…}}`, and its name.
fn inside(fields: Map<String, Value>) -> Option<(String, Map<String, Value>)> {
    fields.into_iter().find_map(|(name, value)| match value {
        Value::Object(inner) => {
            let mut renamed = inner.clone();
            slips::rename_answer(&mut renamed, &mut Vec::new());
            let name = first_chars(&clean(&name), SHOWN).to_owned();
            is_meant_as_an_answer(&renamed).then_some((name, inner))
        }
        _ => None,
    })
}

/// Converts fields to an answer, and counts its invisible characters; or returns the mismatches.
fn fit(
    mut fields: Map<String, Value>,
    role: Role,
    form: Form,
    warnings: &mut Vec<String>,
) -> Result<(Answer, usize), Vec<Violation>> {
    slips::fix(&mut fields, role, warnings);
    if form == Form::WithoutFindings {
        fields.insert("findings".to_owned(), Value::Array(Vec::new()));
    }
    let findings = fields["findings"].as_array().map_or(0, Vec::len);
    if findings > MOST_FINDINGS {
        let expected = format!("expected at most {MOST_FINDINGS} findings, found {findings}");
        return Err(vec![Violation::new("/findings", expected)]);
    }
    let mut value = Value::Object(fields);
    let mut hidden = 0;
    // JSON escapes can hold invisible characters, which the cleaning of the stream does not see.
    each_text(&mut value, &mut |text| {
        let cleaned = Cleaned::new(text);
        hidden += cleaned.hidden;
        *text = cleaned.text.into_owned();
    });
    let mut violations = CHECKER.violations(&value);
    if role == Role::Judge && value.get("verdict").is_none() && form != Form::Cut {
        violations.push(Violation::new("/verdict", "required and missing"));
    }
    cap(&mut violations, |more| none(&format!("{more} more things do not fit")));
    match serde_json::from_value::<Answer>(value) {
        Ok(answer) if violations.is_empty() => Ok((answer, hidden)),
        Err(error) if violations.is_empty() => Err(vec![none(&error.to_string())]),
        Ok(_) | Err(_) => Err(violations),
    }
}

/// Chooses the answer among the objects that match: the last whole one. A later one without findings and replies is a
/// summary, and does not replace an earlier one with findings.
fn choose(mut fitting: Vec<Reading>, later: Option<&[Violation]>) -> Option<Reading> {
    let count = fitting.len();
    let rank = |reading: &Reading| {
        let named = reading
            .answer
            .as_ref()
            .is_ok_and(|answer| !answer.findings.is_empty() || !answer.replies.is_empty());
        (named, reading.form == Form::Whole)
    };
    let best = fitting.iter().map(rank).max()?;
    let last = fitting.iter().rposition(|reading| rank(reading) == best)?;
    let mut chosen = fitting.swap_remove(last);
    if count > 1 {
        let which =
            if last + 1 == count { "the last one" } else { "the last whole one with findings" };
        let lacks = lacking(&chosen, &fitting);
        chosen.warnings.push(format!(
            "{count} objects in Kimi's text fit the answer; {which} was used{lacks}"
        ));
    }
    match chosen.form {
        Form::Whole => {}
        Form::Cut => chosen.warnings.push(
            "Kimi's answer was cut off before its end: what was complete before the cut was kept"
                .to_owned(),
        ),
        Form::WithoutFindings => chosen.warnings.push(
            "Kimi's answer has no `findings`, so nothing says that it found none: ask again"
                .to_owned(),
        ),
    }
    if let Some(later) = later {
        let why: Vec<String> = later.iter().map(ToString::to_string).collect();
        chosen.warnings.push(format!(
            "a later object in Kimi's text may be meant instead, but does not fit: {}",
            why.join("; ")
        ));
    }
    Some(chosen)
}

/// The findings of other answers that the chosen one lacks, as text.
fn lacking(chosen: &Reading, others: &[Reading]) -> String {
    let findings = |reading: &Reading| -> Vec<String> {
        let answer = reading.answer.as_ref().into_iter();
        let claims = answer.flat_map(|answer| &answer.findings);
        claims
            .map(|one| format!("{}: {}", one.severity.name(), first_chars(&one.claim, SHOWN)))
            .collect()
    };
    let mut said: BTreeSet<String> = findings(chosen).into_iter().collect();
    let all = others.iter().flat_map(findings);
    let mut lacking: Vec<String> = all.filter(|finding| said.insert(finding.clone())).collect();
    cap(&mut lacking, |more| format!("{more} more"));
    match lacking.as_slice() {
        [] => String::new(),
        lacking => format!(". It lacks these findings: {}", lacking.join("; ")),
    }
}

/// Keeps the first items, and the number of the rest.
fn cap<T>(named: &mut Vec<T>, more: impl FnOnce(usize) -> T) {
    let over = named.len().saturating_sub(MOST_NAMED);
    if over > 0 {
        named.truncate(MOST_NAMED);
        named.push(more(over));
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
    use super::*;
    use crate::job::citation::{Citation, Status};

    const NO_FINDINGS_SAID: &str =
        "Kimi's answer has no `findings`, so nothing says that it found none: ask again";

    /// An answer without findings.
    fn nothing() -> Value {
        json!({"response": "No.", "findings": [], "key_risks": ["r"], "assumptions": [], "alternatives": ["a"],
            "confidence": "high: read"})
    }

    fn nothing_answer() -> Answer {
        Answer {
            response: "No.".into(),
            key_risks: vec!["r".into()],
            alternatives: vec!["a".into()],
            confidence: "high: read".into(),
            ..Answer::default()
        }
    }

    fn finding(claim: &str) -> Finding {
        Finding {
            id: String::new(),
            severity: Severity::Minor,
            claim: claim.into(),
            failure_scenario: String::new(),
            suggestion: String::new(),
            citations: vec![],
            grounded: false,
        }
    }

    /// An answer with a finding for each claim.
    fn with(claims: &[&str]) -> Value {
        let found = |claim: &&str| json!({"severity": "minor", "claim": claim});
        let findings: Vec<Value> = claims.iter().map(found).collect();
        json!({"response": "r", "findings": findings})
    }

    fn with_answer(claims: &[&str]) -> Answer {
        let findings = claims.iter().map(|claim| finding(claim)).collect();
        Answer { response: "r".into(), findings, ..Answer::default() }
    }

    #[track_caller]
    fn check(text: &str, expected: &Answer, warnings: &[&str]) {
        let reading = read(text, Role::Skeptic);
        assert_eq!(reading.answer.as_ref(), Ok(expected), "{text}");
        assert_eq!(reading.warnings, warnings, "{text}");
    }

    fn misfits(text: &str) -> Vec<String> {
        let why = read(text, Role::Skeptic).answer.unwrap_err();
        why.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_answer_is_found_in_any_wrapping() {
        let object = nothing().to_string();
        for text in [
            object.clone(),
            format!("```json\n{object}\n```"),
            format!("~~~\n{object}\n~~~\nThat is all."),
            format!(
                "Prose with {{braces}} and {{\"not\": \"it\"}}.\n```rust\nfn f() {{ g({{}}) }}\n```\n{object}"
            ),
            format!("{{ unbalanced \" quote {{ {object}"),
            format!("{{\"response\": \"an example without more\"}} {object} {{\"response\": 1}}"),
            format!("{{\"an opening\": 1, \"without an end\": {object}"),
        ] {
            check(&text, &nothing_answer(), &[]);
        }
    }

    #[test]
    fn strings_that_hold_fences_braces_or_whole_answers_do_not_confuse_it() {
        let mut object = nothing();
        object["response"] =
            json!(format!("```json\n{}\n``` and }} {{", json!({"response": "no", "findings": []})));
        let expected =
            Answer { response: object["response"].as_str().unwrap().into(), ..nothing_answer() };
        check(&format!("```json\n{object:#}\n```"), &expected, &[]);
    }

    #[test]
    fn only_an_empty_list_says_that_nothing_was_found() {
        let without = |more: &Value| {
            let mut object = nothing();
            object.as_object_mut().unwrap().remove("findings");
            object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            object
        };
        // The five oldest fields are read, but not as a whole answer.
        let reading = read(&without(&json!({})).to_string(), Role::Skeptic);
        assert_eq!(reading.answer.as_ref(), Ok(&nothing_answer()));
        assert_eq!(
            (reading.form, reading.warnings.as_slice()),
            (Form::WithoutFindings, &[NO_FINDINGS_SAID.to_owned()][..])
        );
        let lacks = reading.lacks().unwrap();
        assert_eq!(lacks[0].to_string(), format!("/findings: {NO_FINDINGS}"));

        // Other names for the findings are unambiguous.
        let found = json!([{"severity": "minor", "claim": "c"}]);
        for name in ["issues", "Findings", "key_findings", "keyFindings", "problems"] {
            let text = without(&json!({name: found})).to_string();
            let expected = Answer { findings: vec![finding("c")], ..nothing_answer() };
            check(&text, &expected, &[&format!("fixed: `findings` was called `{name}`")]);
            assert_eq!(read(&text, Role::Skeptic).lacks(), None);
        }

        // Fewer of the oldest fields are no answer.
        let bare = json!({"response": "All is well.", "key_risks": []}).to_string();
        assert_eq!(misfits(&bare), [format!("/findings: {NO_FINDINGS}")]);
        let elsewhere = without(&json!({"findings": "delivered above"})).to_string();
        assert_eq!(misfits(&elsewhere), ["/findings: expected an array, found a string"]);
    }

    #[test]
    fn the_last_whole_answer_counts_and_findings_are_not_lost_to_a_later_summary() {
        let two = "2 objects in Kimi's text fit the answer; the last one was used";
        let (first, second, nothing) =
            (with(&["a", "b"]), with(&["c"]), json!({"response": "r", "findings": []}));
        check(
            &format!("{first}\nOn reflection:\n{second}"),
            &with_answer(&["c"]),
            &[&format!("{two}. It lacks these findings: minor: a; minor: b")],
        );
        check(&format!("{second} {second}"), &with_answer(&["c"]), &[two]);
        check(
            &format!("{first}\nIn short:\n{nothing}"),
            &with_answer(&["a", "b"]),
            &["2 objects in Kimi's text fit the answer; the last whole one with findings was used"],
        );
        check(&format!("{nothing} {}", self::nothing()), &nothing_answer(), &[two]);
        let broken = json!({"response": "broken", "findings": "none"});
        check(
            &format!("{}\n{broken}", self::nothing()),
            &nothing_answer(),
            &[
                "a later object in Kimi's text may be meant instead, but does not fit: /findings: expected an array, \
               found a string",
            ],
        );
    }

    #[test]
    fn an_answer_in_a_field_of_another_object_is_read() {
        for name in ["review", "answer"] {
            let text = json!({"note": {"a": 1}, name: with(&["a"])}).to_string();
            let fixed = format!("fixed: the answer stood in the field `{name}`");
            check(&text, &with_answer(&["a"]), &[&fixed]);
        }
        let cut = &json!({"review": with(&["a"])}).to_string();
        let reading = read(&cut[..cut.len() - 1], Role::Skeptic);
        assert_eq!((reading.answer, reading.warnings), (Ok(with_answer(&["a"])), vec![]));
    }

    #[test]
    fn the_whole_findings_of_a_cut_answer_are_kept() {
        let whole = with(&["a", "b", "c"]).to_string();
        let cut = &whole[..whole.rfind("\"claim\"").unwrap() + 6];
        let reading = read(cut, Role::Skeptic);
        assert_eq!(reading.answer.as_ref(), Ok(&with_answer(&["a", "b"])));
        assert_eq!(
            (reading.form, reading.warnings.as_slice()),
            (
                Form::Cut,
                &["Kimi's answer was cut off before its end: what was complete before the cut was kept"
                    .to_owned()][..]
            )
        );
        assert_eq!(reading.lacks().unwrap()[0].to_string(), format!("/: {CUT}"));
        // A cut before the end of the first finding leaves no finding.
        let cut = &whole[..whole.find("\"claim\"").unwrap()];
        assert_eq!(misfits(cut), ["/: expected a JSON object with `response`"]);
        let cut = r#"{"response": "r", "confidence": "high", "findings": [{"severity""#;
        assert_eq!(misfits(cut), [format!("/: {CUT}")]);
    }

    #[test]
    fn only_a_judge_gives_a_verdict_and_must() {
        let mut object = nothing();
        object["verdict"] = json!("reject");
        check(
            &object.to_string(),
            &nothing_answer(),
            &["the answer's field `verdict` was left out; it said: reject"],
        );
        let why = read(&nothing().to_string(), Role::Judge).answer.unwrap_err();
        assert_eq!(why[0].to_string(), "/verdict: required and missing");
    }

    #[track_caller]
    fn check_finding(found: &Value, expected: Finding, warnings: &[&str]) {
        let text = json!({"response": "r", "findings": [found]}).to_string();
        let expected =
            Answer { response: "r".into(), findings: vec![expected], ..Answer::default() };
        check(&text, &expected, warnings);
    }

    #[test]
    fn small_slips_are_fixed_and_reported() {
        let citation = |path: &str, first: Option<u32>, last: Option<u32>, quote: &str| Citation {
            path: path.into(),
            line_start: first,
            line_end: last,
            quote: quote.into(),
            status: Status::Missing,
        };
        let cited = |citations| Finding { citations, ..finding("c") };
        check(
            r#"{"response": "No.", "findings": {"severity": "minor", "claim": "c", "failure_scenario": null,
                "citations": {"path": "a.rs", "line_start": 1.0, "quote": "x"},},
                "key_risks": "r", "alternatives": ["a",], "confidence": 0.9, "mood": "grim",}"#,
            &Answer {
                findings: vec![cited(vec![citation("a.rs", Some(1), None, "x")])],
                confidence: "0.9".into(),
                ..nothing_answer()
            },
            &[
                "fixed: 3 trailing commas",
                "the answer's field `mood` was left out; it said: grim",
                "fixed: `findings` was not a list",
                "fixed: `key_risks` was not a list",
                "fixed: `findings/0/citations` was not a list",
                "fixed: `confidence` was a number",
            ],
        );

        for (said, severity) in [
            ("MINOR", Severity::Minor),
            ("Critical", Severity::Blocker),
            ("high", Severity::Major),
            ("medium", Severity::Minor),
            ("low", Severity::Note),
            ("info", Severity::Note),
            ("严重", Severity::Major),
        ] {
            let found = json!({"severity": said, "claim": "c"});
            let warning =
                format!("fixed: `findings/0/severity` was `{said}`, read as `{}`", severity.name());
            let warnings = if said == "MINOR" { vec![] } else { vec![warning.as_str()] };
            check_finding(&found, Finding { severity, ..finding("c") }, &warnings);
        }
        for (lines, first, last) in [
            (json!("24-30"), 24, 30),
            (json!("L24–L30"), 24, 30),
            (json!([24, 30]), 24, 30),
            (json!(24), 24, 24),
        ] {
            let found = json!({"severity": "minor", "claim": "c", "citations": [{"path": "a.rs", "lines": lines}]});
            check_finding(&found, cited(vec![citation("a.rs", Some(first), Some(last), "")]), &[]);
        }
        check_finding(
            &json!({"severity": "minor", "claim": "c", "citations": "src/a.rs:24"}),
            cited(vec![citation("src/a.rs", Some(24), Some(24), "")]),
            &[
                "fixed: `findings/0/citations` was not a list",
                "fixed: `findings/0/citations/0` was a text",
            ],
        );
        check_finding(
            &json!({"severity": "minor", "claim": "c", "citations": [{"file": "a.rs", "line_start": "7", "quote": "x"}]}),
            cited(vec![citation("a.rs", Some(7), None, "x")]),
            &["fixed: `findings/0/citations/0/path` was called `file`"],
        );
        // The contents of unknown fields are reported.
        check_finding(
            &json!({"severity": "minor", "claim": "c", "impact": "all data", "citations": [{"path": "a.rs", "why": 7}]}),
            cited(vec![citation("a.rs", None, None, "")]),
            &[
                "the answer's field `findings/0/impact` was left out; it said: all data",
                "the answer's field `findings/0/citations/0/why` was left out; it said: 7",
            ],
        );
        check(
            r#"{"response": "r", "findings": [{"severity": "minor", "claim": "other", "claim": "c"}]}"#,
            &with_answer(&["c"]),
            &[
                "the field `findings/0/claim` stood twice; the last one counts, another said: \"other\"",
            ],
        );
    }

    #[test]
    fn anything_else_is_no_answer_and_the_reason_is_reported() {
        let check = |text: &str, expected: &[&str]| assert_eq!(misfits(text), expected, "{text}");
        check("I would not ship it.", &["/: expected a JSON object with `response`"]);
        check("", &["/: expected a JSON object with `response`"]);
        check(
            "{\"response\": \"no\",\n \"findings\" []}",
            &[
                "/: expected a JSON object with `response`; the one there is cannot be read: expected `:` at line 2 \
               column 13 of it",
            ],
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

        let mut risks = with(0);
        risks["key_risks"] = json!(vec![1; 5_000]);
        let why = read_whole(&risks).answer.unwrap_err();
        assert_eq!((why.len(), why[20].to_string()), (21, "/: 4980 more things do not fit".into()));
    }

    #[test]
    fn invisible_characters_are_removed_from_every_text() {
        let text =
            r#"{"response": "a\u001b[31mb\u202ec", "findings": [], "key_risks": ["\u200bx"]}"#;
        check(
            text,
            &Answer { response: "abc".into(), key_risks: vec!["x".into()], ..Answer::default() },
            &[],
        );
        assert_eq!(read(text, Role::Skeptic).hidden, 7);
    }

    fn text() -> impl Strategy<Value = String> {
        // Text that cleaning does not change, with everything that could confuse the search for objects.
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
        fn any_finding()(
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
            findings in proptest::collection::vec(any_finding(), 0..3),
            lists in (texts(), texts(), texts(), texts(), texts()), confidence in text()) -> Answer {
            let (key_risks, assumptions, alternatives, survived, not_examined) = lists;
            Answer { response, verdict, replies: vec![], findings, key_risks, assumptions, alternatives, survived, not_examined, confidence }
        }
    }

    /// A message of Kimi, and its answer if it is whole.
    fn message() -> impl Strategy<Value = (String, Option<Answer>)> {
        let json = |answer: &Answer| serde_json::to_string(answer).unwrap();
        prop_oneof![
            "[a-z .,'{}\\[\\]\n]{0,30}".prop_map(|prose| (prose, None)),
            "I read `fn main\\(\\) \\{ \\}` in [a-z]{1,9}.".prop_map(|prose| (prose, None)),
            (answer(), "[a-z .\n]{0,20}", any::<bool>()).prop_map(
                move |(answer, before, fenced)| {
                    let text = if fenced {
                        format!("{before}\n```json\n{}\n```\n", json(&answer))
                    } else {
                        format!("{before}{}", json(&answer))
                    };
                    (text, Some(answer))
                }
            ),
            // In another object, with a repeated name, an unknown field, or a comment.
            (answer(), 0usize..4).prop_map(move |(answer, way)| {
                let json = json(&answer);
                let text = match way {
                    0 => format!("{{\"review\": {json}}}"),
                    1 => format!("{{\"response\": \"draft\", {}", &json[1..]),
                    2 => format!("{{\"mood\": {{\"grim\": [7]}}, {}", &json[1..]),
                    _ => format!("{{ // all of it\n{}", &json[1..]),
                };
                (text, Some(answer))
            }),
            // With an example before it.
            answer().prop_map(move |answer| {
                let text = format!("For {{\"tally\": {{\"a\": 1}}}}:\n{}", json(&answer));
                (text, Some(answer))
            }),
            (answer(), 1usize..400).prop_map(move |(answer, left_out)| {
                let mut text = json(&answer);
                let end = text.len().saturating_sub(left_out).max(1);
                text.truncate((0..=end).rev().find(|&at| text.is_char_boundary(at)).unwrap());
                (text, None)
            }),
        ]
    }

    proptest! {
        #[test]
        fn every_valid_answer_comes_back_whole(answer in answer(), before in "[a-z .\n`]{0,20}", pretty: bool) {
            let json = if pretty { serde_json::to_string_pretty(&answer) } else { serde_json::to_string(&answer) };
            let text = format!("{before}\n```json\n{}\n```\n", json.unwrap());
            let findings = answer.findings.len();
            let whole = Reading { answer: Ok(answer), form: Form::Whole, warnings: vec![], hidden: 0, findings };
            prop_assert_eq!(read(&text, Role::Judge), whole);
        }

        #[test]
        fn no_whole_answer_is_lost_among_many_messages(messages in proptest::collection::vec(message(), 1..5)) {
            let texts: Vec<&str> = messages.iter().map(|(text, _)| text.as_str()).collect();
            let whole: Vec<&Answer> = messages.iter().filter_map(|(_, answer)| answer.as_ref()).collect();
            let Reading { answer, warnings, .. } = read(&texts.join("\n\n"), Role::Judge);
            if whole.is_empty() {
                return Ok(());
            }
            let read = answer.expect("a whole answer is read");
            // Each answer that is not returned is counted with its findings, and never replaced by one with fewer.
            prop_assert!(whole.iter().all(|one| **one == read) || !warnings.is_empty(), "{:?}", texts);
            let said = warnings.join("\n");
            for finding in whole.iter().flat_map(|one| &one.findings) {
                let is_kept = read.findings.iter().any(|one| one.claim == finding.claim);
                prop_assert!(is_kept || said.contains(first_chars(&finding.claim, SHOWN)), "{:?}: {:?}", finding.claim, texts);
            }
            let has_findings = whole.iter().any(|one| !one.findings.is_empty());
            prop_assert!(!has_findings || !read.findings.is_empty(), "{:?}", texts);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,200}|([{}\\[\\]\",:a1 ]|\"response\": |\"findings\": ){0,80}") {
            let reading = read(&text, Role::Skeptic);
            prop_assert!(reading.answer.is_ok() || reading.answer.is_err_and(|why| !why.is_empty()));
        }
    }
}
