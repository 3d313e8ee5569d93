//! The result for the model of a host: without the text of files, which the model can read itself, and within
//! `max_result_chars`, since hosts cut longer results at any place. The ledger, the shell and the exports have the whole
//! result.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::ConsultResult;
use crate::error::Error;
use crate::kimi::text::first_chars;
use crate::settings::Settings;

/// The most characters of an entry of the evidence.
const MAX_ENTRY_CHARS: usize = 160;
/// The most characters of a warning, and the warnings that are kept at each end of the list.
const WARNING: (usize, usize) = (500, 10);
/// The most characters of a path or a quote in a shortened result.
const MAX_CITED_CHARS: usize = 200;
/// The citations that every finding keeps.
const MIN_CITATIONS: usize = 3;
/// The most characters of the message of a shortened error.
const MAX_MESSAGE_CHARS: usize = 2_000;
/// The characters that an unreadable answer always keeps.
const MIN_TEXT_CHARS: usize = 400;
/// The characters reserved for the warning about the omitted parts.
const NOTICE_CHARS: usize = 600;
/// The lists that are shortened, the least important first, each with its name in the warning.
const LISTS: [(&str, &str); 10] = [
    ("/evidence/searched", "searches"),
    ("/evidence/read", "files read"),
    ("/evidence/failed", "failed calls"),
    ("/verdict/scores", "scores"),
    ("/survived", "survived"),
    ("/not_examined", "not_examined"),
    ("/assumptions", "assumptions"),
    ("/alternatives", "alternatives"),
    ("/key_risks", "key_risks"),
    ("/replies", "replies"),
];

/// The limit of a request, or else of the settings, characters.
pub(crate) fn max_result_chars(request: &Map<String, Value>, settings: &Settings) -> usize {
    let asked = request.get("max_result_chars");
    let asked = asked.and_then(|limit| limit.as_u64().or_else(|| limit.as_str()?.parse().ok()));
    let asked = asked.and_then(|limit| usize::try_from(limit).ok());
    asked.unwrap_or(settings.max_result_chars)
}

impl ConsultResult {
    /// The result as JSON of at most `limit` characters, unless its findings alone, or a response that could be read,
    /// are longer.
    pub(crate) fn for_host(&self, limit: usize) -> Value {
        let mut value = json!(self);
        make_brief(&mut value);
        let text = (!self.parse_ok).then_some(limit / 4 * 3);
        fit(&mut value, 0, limit, text);
        let size = chars(&value);
        if size > limit {
            add_warning(
                &mut value,
                format!(
                    "longer than max_result_chars ({limit}) all the same, {size} characters: findings and a response \
                     that could be read are never cut"
                ),
            );
        }
        value
    }
}

/// Shortens an error to the limit of a result.
pub(crate) fn shorten_error(error: &mut Error, limit: usize) {
    if let Some(partial) = &mut error.partial {
        make_brief(partial);
    }
    if error.text().chars().count() <= limit {
        return;
    }
    cut(&mut error.message, MAX_MESSAGE_CHARS);
    let size = error.text().chars().count();
    let Some(partial) = &mut error.partial else { return };
    let around = size.saturating_sub(chars(partial));
    fit(partial, around, limit, Some(limit / 2));
}

/// Replaces Kimi's tool calls by a summary, and removes empty fields.
fn make_brief(value: &mut Value) {
    let Some(fields) = value.as_object_mut() else { return };
    fields.shift_remove("raw_response_preview");
    if let Some(calls) = fields.get("evidence").and_then(Value::as_array) {
        let evidence = summary(calls);
        fields.insert("evidence".to_owned(), evidence);
    }
    if let Some(provenance) = fields.get_mut("provenance").and_then(Value::as_object_mut) {
        provenance.shift_remove("session_id");
        // Without `workspace_changed` it is unknown whether the project changed.
        provenance.retain(|name, field| name == "workspace_changed" || *field != json!(0));
    }
    for list in ["findings", "replies"] {
        for item in fields.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(item) = item.as_object_mut() else { continue };
            item.retain(|name, field| {
                !is_empty(field) && (name != "capitulated" || *field == json!(true))
            });
        }
    }
    fields.retain(|name, field| {
        let is_needed = ["findings", "response"].contains(&name.as_str());
        is_needed || !(is_empty(field) || (name == "incomplete_trace" && *field == json!(false)))
    });
}

/// The files that were read, the patterns and addresses that were searched, and the calls that failed.
fn summary(calls: &[Value]) -> Value {
    let mut seen = HashSet::new();
    let mut lists = Map::new();
    for call in calls {
        let tool = call["tool"].as_str().unwrap_or_default();
        let argument = ["pattern", "query", "url", "path"]
            .iter()
            .find_map(|name| call["args"][*name].as_str())
            .unwrap_or_default();
        let argument = first_chars(argument, MAX_ENTRY_CHARS);
        let (list, entry) = match (call["ok"] == json!(true), tool) {
            (true, "ReadFile") => ("read", argument.to_owned()),
            (true, _) => ("searched", argument.to_owned()),
            (false, _) => ("failed", format!("{tool} {argument}").trim_end().to_owned()),
        };
        if seen.insert((list, entry.clone())) {
            let list = lists.entry(list).or_insert_with(|| json!([]));
            list.as_array_mut().into_iter().for_each(|list| list.push(json!(entry)));
        }
    }
    Value::Object(lists)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Removes the least important parts, and no more than necessary, until the value and the characters around it fit. An
/// unreadable response is cut to `most_of_text` characters first.
fn fit(value: &mut Value, around: usize, limit: usize, most_of_text: Option<usize>) {
    let size = around + chars(value);
    if size <= limit {
        return;
    }
    let whole = place(value);
    let mut excess = (size + NOTICE_CHARS).saturating_sub(limit);
    let mut gone = Vec::new();
    let text = most_of_text.and_then(|_| value["response"].as_str().map(str::to_owned));
    let shorten_text = |value: &mut Value, excess: &mut usize, most: usize| {
        let Some(text) = &text else { return };
        let before = chars(&value["response"]);
        value["response"] = json!(ends(text, most, &whole));
        let saved = before.saturating_sub(chars(&value["response"]));
        *excess = excess.saturating_sub(saved);
    };
    shorten_text(value, &mut excess, most_of_text.unwrap_or_default());
    keep_warnings(value, &mut excess);
    for (pointer, name) in LISTS {
        let Some(list) = value.pointer_mut(pointer).and_then(Value::as_array_mut) else { continue };
        let all = list.len();
        pop(list, 0, &mut excess);
        if list.len() < all {
            gone.push(format!("{} of {all} {name}", all - list.len()));
        }
    }
    let mut citations = 0;
    let findings = value.get_mut("findings").and_then(Value::as_array_mut);
    for finding in findings.into_iter().flatten() {
        let Some(cited) = finding.get_mut("citations").and_then(Value::as_array_mut) else {
            continue;
        };
        citations += cited.len();
        pop(cited, MIN_CITATIONS, &mut excess);
        citations -= cited.len();
        for text in cited.iter_mut().filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
            shorten(text, MAX_CITED_CHARS, &mut excess);
        }
    }
    if citations > 0 {
        gone.push(format!("{citations} citations"));
    }
    if let Some(confidence) = value.get_mut("confidence") {
        shorten(confidence, MAX_CITED_CHARS, &mut excess);
    }
    let most = chars(&value["response"]).saturating_sub(excess);
    if excess > 0 {
        shorten_text(value, &mut excess, most);
    }
    if let Some(text) = text.filter(|text| value["response"] != json!(text)) {
        gone.insert(0, format!("the middle of a response of {} characters", text.chars().count()));
    }
    let what = if gone.is_empty() { "long texts".to_owned() } else { gone.join(", ") };
    add_warning(value, format!("left out for max_result_chars ({limit}): {what}; {whole}"));
}

/// The sentence that says where all of a result is.
fn place(value: &Value) -> String {
    match (value["thread"]["id"].as_str(), value["thread"]["round"].as_u64()) {
        (Some(id), Some(round)) => format!(
            "`kimi-bridge threads show {id}` and kimi-bridge://threads/{id}/rounds/{round}/transcript have all of it"
        ),
        _ => "nothing else has it, since this thread is not remembered".to_owned(),
    }
}

/// Removes items from the end of a list until the result fits or only `least` are left.
fn pop(list: &mut Vec<Value>, least: usize, excess: &mut usize) {
    while *excess > 0 && list.len() > least {
        let Some(item) = list.pop() else { break };
        *excess = excess.saturating_sub(chars(&item) + 1);
    }
}

/// Cuts a text if the result is still too long.
fn shorten(value: &mut Value, most: usize, excess: &mut usize) {
    let before = chars(value);
    if let (Value::String(text), true) = (&mut *value, *excess > 0) {
        cut(text, most);
    }
    *excess = excess.saturating_sub(before.saturating_sub(chars(value)));
}

fn add_warning(value: &mut Value, warning: String) {
    match value.get_mut("warnings").and_then(Value::as_array_mut) {
        Some(warnings) => warnings.push(Value::String(warning)),
        None => value["warnings"] = json!([warning]),
    }
}

/// Keeps the first and the last warnings if the result is too long: those between may repeat Kimi's text.
fn keep_warnings(value: &mut Value, excess: &mut usize) {
    let (text, ends) = WARNING;
    let Some(warnings) = value.get_mut("warnings").and_then(Value::as_array_mut) else { return };
    for warning in warnings.iter_mut() {
        shorten(warning, text, excess);
    }
    let more = warnings.len().saturating_sub(2 * ends);
    if more > 0 && *excess > 0 {
        let removed: Vec<Value> =
            warnings.splice(ends..ends + more, [json!(format!("{more} more warnings"))]).collect();
        *excess = excess.saturating_sub(chars(&removed));
    }
}

/// The beginning and the end of a text, in at most `most` characters of JSON. A text that fits is unchanged.
fn ends(text: &str, most: usize, place: &str) -> String {
    let most = most.max(MIN_TEXT_CHARS);
    if chars(text) <= most {
        return text.to_owned();
    }
    let mark = |left_out: usize| format!("\n\n[… {left_out} characters left out: {place} …]\n\n");
    let all = text.chars().count();
    let most = most.saturating_sub(chars(&mark(all)));
    let first = fitting(text.chars(), most / 2);
    let last = fitting(text.chars().rev(), most / 2).min(all - first);
    let end = text.char_indices().rev().take(last).last().map_or(text.len(), |(at, _)| at);
    format!("{}{}{}", first_chars(text, first), mark(all - first - last), &text[end..])
}

/// The number of leading characters that fit into `most` characters of JSON.
fn fitting(text: impl Iterator<Item = char>, most: usize) -> usize {
    let mut size = 0;
    let sizes = text.map(|c| chars(&c.to_string()) - chars(""));
    sizes
        .take_while(|of_one| {
            size += of_one;
            size <= most
        })
        .count()
}

/// Cuts a text that is longer than `most` characters.
fn cut(text: &mut String, most: usize) {
    let end = first_chars(text, most).len();
    if end < text.len() {
        text.truncate(end);
        text.push('…');
    }
}

/// The length of a value as JSON, characters.
fn chars<T: Serialize + ?Sized>(value: &T) -> usize {
    serde_json::to_string(value).map_or(0, |json| json.chars().count())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Standing;
    use super::super::tests::made;
    use super::*;
    use crate::consult::thread::{RejectionReply, Stance, State};
    use crate::error::Kind;

    fn answer(findings: usize) -> Value {
        let citation = json!({"path": "src/store.rs", "line_start": 24, "line_end": 24,
            "quote": "let _ = writeln!(self.file, \"{key} {value}\");"});
        let finding = json!({"severity": "major", "claim": "`add` drops the error of the write, so an increment that \
            was acknowledged is not on disk.", "failure_scenario": "The disk is full: the total in memory grows, and \
            the restart forgets it.", "suggestion": "Return the io::Result.", "citations": [citation]});
        json!({"response": "The plan loses acknowledged increments in two ways.", "confidence": "high: read",
            "verdict": {"winner": "SQLite"}, "findings": vec![finding; findings]})
    }

    fn remembered(mut result: ConsultResult) -> ConsultResult {
        let (id, next) = ("ab12".to_owned(), "n".to_owned());
        result.thread =
            Some(Standing { id, round: 2, state: State::Unfinished, next, open: vec![] });
        result
    }

    #[test]
    fn a_result_of_forty_one_calls_and_five_findings_is_short() {
        let mut result = remembered(made(&answer(5).to_string(), 41));
        for (number, call) in result.evidence.iter_mut().enumerate() {
            match number % 3 {
                0 => {
                    call.args["path"] = json!(format!("src/a/long/enough/path/module_{number}.rs"));
                }
                1 => {
                    call.tool = "Grep".to_owned();
                    call.args.insert("pattern".to_owned(), json!(format!("fn total_{number}\\(")));
                }
                _ => call.ok = false,
            }
        }
        let value = result.for_host(40_000);
        assert!(value.to_string().len() <= 6_000, "{}", value.to_string().len());
        let evidence = &value["evidence"];
        let lengths =
            ["read", "searched", "failed"].map(|list| evidence[list].as_array().unwrap().len());
        // A call that was made twice is one entry.
        assert_eq!(lengths, [14, 14, 1], "{evidence}");
        assert!(!value.to_string().contains("ssss"), "the text of files stays away: {value}");
        for absent in ["raw_response_preview", "incomplete_trace", "warnings", "survived"] {
            assert_eq!(value.get(absent), None);
        }
    }

    #[test]
    fn a_second_round_with_five_short_replies_is_shorter() {
        let mut result = remembered(made(&answer(0).to_string(), 4));
        let reply = |number| RejectionReply {
            finding: format!("F{number}"),
            stance: Stance::Maintain,
            because: "the restart still forgets it".to_owned(),
            capitulated: false,
        };
        result.answer.replies = (1..=5).map(reply).collect();
        let value = result.for_host(40_000);
        assert!(value.to_string().len() <= 1_500, "{}: {value}", value.to_string().len());
        assert_eq!(
            (value["replies"].as_array().unwrap().len(), &value["findings"]),
            (5, &json!([]))
        );
    }

    #[test]
    fn a_long_result_loses_the_least_important_parts_first() {
        let findings = vec![json!({"severity": "note", "claim": "c".repeat(1_000)}); 3];
        let survived: Vec<String> = (0..100).map(|number| format!("{number:03} held")).collect();
        let answer =
            json!({"response": "r", "verdict": {}, "findings": findings, "survived": survived});
        let mut result = remembered(made(&answer.to_string(), 400));
        for (number, call) in result.evidence.iter_mut().enumerate() {
            call.args["path"] = json!(format!("src/{number:03}.rs"));
        }
        let whole = result.for_host(usize::MAX);
        assert_eq!(whole["evidence"]["read"].as_array().unwrap().len(), 400);
        let value = result.for_host(7_000);
        let size = chars(&value);
        assert!((6_000..=7_000).contains(&size), "{size}");
        assert_eq!(value["survived"].as_array().unwrap().len(), 100);
        let left = value["evidence"]["read"].as_array().unwrap().len();
        assert!((1..400).contains(&left), "{left}");
        assert_eq!(
            value["warnings"],
            json!([format!(
                "left out for max_result_chars (7000): {} of 400 files read; `kimi-bridge threads show ab12` and \
                 kimi-bridge://threads/ab12/rounds/2/transcript have all of it",
                400 - left
            )])
        );
        let value = result.for_host(4_000);
        assert!(chars(&value) <= 4_500, "{}", chars(&value));
        assert!(
            value["findings"]
                .as_array()
                .unwrap()
                .iter()
                .all(|one| one["claim"] == json!("c".repeat(1_000)))
        );
    }

    #[test]
    fn an_unreadable_answer_keeps_its_beginning_and_end() {
        let text = format!("I would not. {}\nReject it.", "x\"".repeat(2_000_000));
        let value = remembered(made(&text, 40)).for_host(20_000);
        let response = value["response"].as_str().unwrap();
        assert!(chars(&value) <= 20_000 && chars(response) > 14_000, "{}", chars(&value));
        assert!(response.starts_with("I would not. x\"x") && response.ends_with("x\"\nReject it."));
        let place = "`kimi-bridge threads show ab12` and kimi-bridge://threads/ab12/rounds/2/transcript have all of it";
        assert!(response.contains(&format!(" characters left out: {place} …]")), "{response}");
        assert_eq!(
            value["warnings"],
            json!([
                "Kimi's answer could not be read: /: expected a JSON object with `response`",
                format!(
                    "left out for max_result_chars (20000): the middle of a response of 4000024 characters; {place}"
                )
            ])
        );
        let value = made(&text, 400).for_host(2_000);
        assert!(chars(&value) <= 2_000, "{}", chars(&value));
        assert!(
            value["response"].as_str().unwrap().contains("this thread is not remembered"),
            "{value}"
        );
        let short = format!("I would not. {}", "x".repeat(1_000));
        assert_eq!(made(&short, 0).for_host(6_000)["response"], short);
    }

    #[test]
    fn everything_except_findings_is_shortened() {
        let long = "y".repeat(3_000);
        let citations = vec![json!({"path": "p", "quote": long}); 19];
        let finding =
            json!({"severity": "note", "claim": "c".repeat(3_000), "citations": citations});
        let score = json!({"option": long, "criterion": long, "score": 1, "reason": long});
        let answer = json!({"response": "r", "confidence": long, "key_risks": vec![&long; 90],
            "survived": vec!["s"; 900], "verdict": {"winner": "w", "scores": vec![score; 30]}, "findings": [finding]});
        let mut result = made(&answer.to_string(), 40);
        result.warnings = vec![long.clone(); 400];
        let value = result.for_host(20_000);
        assert!(chars(&value) <= 20_000, "{}", chars(&value));
        let finding = &value["findings"][0];
        assert_eq!(finding["claim"].as_str().unwrap().len(), 3_000);
        assert_eq!(value["warnings"][10], json!("380 more warnings"));
        assert!(
            value["warnings"][21]
                .as_str()
                .unwrap()
                .starts_with("left out for max_result_chars (20000): ")
        );
    }

    #[test]
    fn a_result_that_cannot_be_cut_is_reported_as_too_long() {
        let finding = json!({"severity": "note", "claim": "c".repeat(3_000)});
        let answer =
            json!({"response": "r".repeat(3_000), "verdict": {}, "findings": vec![finding; 100]});
        let value = made(&answer.to_string(), 1).for_host(20_000);
        let findings = value["findings"].as_array().unwrap();
        assert!(findings.iter().all(|finding| finding["claim"].as_str().unwrap().len() == 3_000));
        assert_eq!(value["response"].as_str().unwrap().len(), 3_000);
        let told = value["warnings"].as_array().unwrap().last().unwrap().as_str().unwrap();
        assert!(told.starts_with("longer than max_result_chars (20000) all the same, 3"), "{told}");
        assert!(
            told.ends_with("findings and a response that could be read are never cut"),
            "{told}"
        );
    }

    #[test]
    fn a_long_error_is_shortened_too() {
        let call = |number| json!({"tool": "ReadFile", "args": {"path": format!("{number:0>60}")}, "ok": true});
        let calls: Vec<Value> = (0..300).map(call).collect();
        let with = |response: &str| Error {
            partial: Some(json!({"response": response, "evidence": calls,
                "warnings": vec!["w".repeat(900); 300], "thread": {"id": "ab12", "round": 1}})),
            ..Error::new(Kind::TimedOut, "m".repeat(9_000), "h")
        };
        let shortened = |mut error: Error, limit| {
            shorten_error(&mut error, limit);
            assert!(error.text().chars().count() <= limit, "{}", error.text());
            error.partial.unwrap()
        };
        let partial = shortened(with("so far"), 20_000);
        assert_eq!(partial["response"], "so far");
        let partial = shortened(with(&format!("so far {} at last", "x".repeat(90_000))), 20_000);
        let response = partial["response"].as_str().unwrap();
        assert!(response.starts_with("so far x") && response.ends_with("x at last"), "{response}");
        let told = partial["warnings"].as_array().unwrap().last().unwrap().as_str().unwrap();
        assert!(told.contains("the middle of a response of 90015 characters"), "{told}");
    }

    proptest! {
        #[test]
        fn a_text_is_cut_to_what_it_may_take_and_nothing_is_told_wrongly(
            text in "[a\"\\\\\n\u{1}é中👩\u{7f}]{0,900}",
            most in MIN_TEXT_CHARS..1_200,
        ) {
            let whole = chars(&text);
            prop_assert_eq!(fitting(text.chars(), whole - 2), text.chars().count());
            let kept = ends(&text, most, "there");
            prop_assert!(chars(&kept) <= most, "{}", chars(&kept));
            if let Some((first, rest)) = kept.split_once("\n\n[… ") {
                let (left_out, last) = rest.split_once(" characters left out: there …]\n\n").unwrap();
                let left_out: usize = left_out.parse().unwrap();
                prop_assert!(text.starts_with(first) && text.ends_with(last));
                let told = first.chars().count() + left_out + last.chars().count();
                prop_assert_eq!(told, text.chars().count());
            } else {
                prop_assert_eq!(kept, text);
            }
        }
    }
}
