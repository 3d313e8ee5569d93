//! What gives way when a result or an error is longer than its caller wants it, since hosts cut longer
//! ones without asking what matters: evidence first, then what stands beside the findings, and of a text
//! that could not be read the middle. What a finding says never gives way, nor the response of an answer
//! that could be read: whoever must answer a finding reads it whole.

use serde::Serialize;
use serde_json::{Value, json};

use super::{ConsultResult, Standing};
use crate::error::Error;
use crate::kimi::text::first_chars;

/// Characters that are left of a warning, and warnings at either end of the list.
const WARNING: (usize, usize) = (500, 10);
/// Replies that are left: three rounds bring no more rejections in earnest.
const REPLIES: usize = 300;
/// Characters that are left of the message of an error.
const MESSAGE: usize = 2_000;
/// Characters that are left of a text that could not be read, whatever else there is.
const LEAST_OF_A_TEXT: usize = 400;

impl ConsultResult {
    /// Shortens what can be spared until the result fits, and says so in its warnings.
    pub(crate) fn within(self, limit: usize) -> ConsultResult {
        if chars(&self) <= limit {
            return self;
        }
        let place = self.thread.as_ref().map(|Standing { id, round, .. }| {
            format!("`kimi-bridge threads show {id}` and {} hold it whole", transcript(id, *round))
        });
        let most = (!self.parse_ok).then_some(limit / 4 * 3);
        let mut value = json!(self);
        shorten(&mut value, 0, limit, most, place.as_deref());
        let size = chars(&value);
        if size > limit {
            let too_long = format!(
                "longer than max_result_chars ({limit}) all the same, {size} characters: findings and a response that \
                 could be read are never cut"
            );
            add_warning(&mut value, too_long);
        }
        serde_json::from_value(value).unwrap_or(self)
    }
}

/// Shortens what an error kept of a run, so that the error fits where a result would.
pub(crate) fn shorten_error(error: &mut Error, limit: usize) {
    if error.text().chars().count() <= limit {
        return;
    }
    cut(&mut error.message, MESSAGE);
    let size = error.text().chars().count();
    let Some(partial) = &mut error.partial else { return };
    let place = partial["thread"]["id"].as_str().zip(partial["thread"]["round"].as_u64());
    let place = place.map(|(id, round)| format!("{} holds it whole", transcript(id, round)));
    let around = size.saturating_sub(chars(partial));
    shorten(partial, around, limit, Some(limit / 2), place.as_deref());
}

/// Shortens the JSON of a result, or of what arrived of one, until it fits into the limit together with the
/// characters around it. A response that could not be read is cut to `most_of_text` at first; `place` says
/// where all of it is.
fn shorten(
    value: &mut Value,
    around: usize,
    limit: usize,
    most_of_text: Option<usize>,
    place: Option<&str>,
) {
    let nowhere = "the whole is kept nowhere, since this thread is not remembered";
    let place = place.unwrap_or(nowhere);
    let text = most_of_text.and_then(|_| value["response"].as_str().map(str::to_owned));
    let of_text = text.as_ref().map_or(0, |text| text.chars().count());
    let of_text = format!("response (of {of_text} characters: {place})");
    let calls = value["evidence"].as_array().map_or(0, Vec::len);
    let mut result = Shortened { value, around, limit, gave_way: Vec::new() };
    if let (Some(text), Some(most)) = (&text, most_of_text) {
        result.spare(&of_text, |value| value["response"] = json!(ends(text, most, place)));
    }
    for most in [200, 60, 0] {
        result.spare("evidence summaries", |value| {
            for call in items(value, "evidence").into_iter().flatten() {
                let summary = call["summary"].as_str().unwrap_or_default();
                call["summary"] = json!(first_chars(summary, most));
            }
        });
    }
    result.spare("raw_response_preview", |value| {
        if let Some(preview) = value.get_mut("raw_response_preview") {
            *preview = json!("");
        }
    });
    for most in [200, 100, 50, 25, 10, 3, 0] {
        result.spare(&format!("evidence (of {calls} calls)"), |value| {
            if let Some(calls) = items(value, "evidence") {
                calls.truncate(most);
            }
        });
    }
    result.spare("", |value| {
        items(value, "warnings").into_iter().for_each(keep_warnings);
    });
    for (text, list) in [(1_000, 50), (300, 20), (100, 5)] {
        let beside = "what stands beside the findings";
        result.spare(&format!("{beside} (texts of {text} characters, lists of {list})"), |value| {
            keep_beside(value, text, list);
        });
    }
    if let Some(text) = &text {
        let most = chars(&result.value["response"]).saturating_sub(result.lacks());
        result.spare(&of_text, |value| value["response"] = json!(ends(text, most, place)));
    }
    if let Some(warning) = result.warning() {
        add_warning(value, warning);
    }
}

/// A result that becomes shorter.
struct Shortened<'a> {
    value: &'a mut Value,
    /// Characters around it.
    around: usize,
    limit: usize,
    /// What gave way, for the warning.
    gave_way: Vec<String>,
}

impl Shortened<'_> {
    /// Takes a step where the result is too long. The warning names the step where it makes the result shorter:
    /// once for each kind, which the words before a bracket name.
    fn spare(&mut self, name: &str, step: impl FnOnce(&mut Value)) {
        if self.lacks() == 0 {
            return;
        }
        let before = chars(self.value);
        step(self.value);
        if chars(self.value) >= before {
            return;
        }
        let kind = name.split(" (").next().unwrap_or_default();
        match self.gave_way.iter_mut().find(|told| told.split(" (").next() == Some(kind)) {
            Some(told) => name.clone_into(told),
            None if kind.is_empty() => {}
            None => self.gave_way.push(name.to_owned()),
        }
    }

    /// How many characters too long it is, with the warning, which is one more item of a list.
    fn lacks(&self) -> usize {
        let warning = self.warning().map_or(0, |warning| chars(&warning) + 1);
        (self.around + chars(self.value) + warning).saturating_sub(self.limit)
    }

    fn warning(&self) -> Option<String> {
        let (limit, gave_way) = (self.limit, self.gave_way.join(", "));
        (!gave_way.is_empty())
            .then(|| format!("shortened to max_result_chars ({limit}): {gave_way}"))
    }
}

fn add_warning(value: &mut Value, warning: String) {
    match items(value, "warnings") {
        Some(warnings) => warnings.push(Value::String(warning)),
        None => value["warnings"] = json!([warning]),
    }
}

fn items<'a>(value: &'a mut Value, list: &str) -> Option<&'a mut Vec<Value>> {
    value.get_mut(list)?.as_array_mut()
}

/// Shortens all but the response and the findings' own words: texts to `text` characters, lists to `list` items.
fn keep_beside(value: &mut Value, text: usize, list: usize) {
    for (name, field) in value.as_object_mut().into_iter().flatten() {
        match name.as_str() {
            "response" | "thread" | "provenance" | "evidence" | "warnings" => {}
            "findings" => {
                let findings = field.as_array_mut().into_iter().flatten();
                let citations = findings.filter_map(|finding| finding.get_mut("citations"));
                citations.for_each(|citations| trim(citations, text, list));
            }
            "replies" => trim(field, text, REPLIES),
            _ => trim(field, text, list),
        }
    }
}

/// Keeps the first warnings and the last: Kimi has a hand in those between.
fn keep_warnings(warnings: &mut Vec<Value>) {
    let (text, ends) = WARNING;
    for warning in warnings.iter_mut() {
        trim(warning, text, 0);
    }
    let more = warnings.len().saturating_sub(2 * ends);
    if more > 0 {
        warnings.splice(ends..ends + more, [json!(format!("{more} more warnings"))]);
    }
}

/// Cuts the texts of a value to `text` characters and its lists to `list` items.
fn trim(value: &mut Value, text: usize, list: usize) {
    match value {
        Value::String(words) => cut(words, text),
        Value::Array(items) => {
            items.truncate(list);
            for item in items {
                trim(item, text, list);
            }
        }
        Value::Object(fields) => fields.values_mut().for_each(|field| trim(field, text, list)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// How a caller names the transcript of a round.
fn transcript(id: &str, round: impl std::fmt::Display) -> String {
    format!("kimi-bridge://threads/{id}/rounds/{round}/transcript")
}

/// The beginning of a text and its end, where a verdict usually stands, in so many characters of JSON. A text
/// that fits stays as it is.
fn ends(text: &str, most: usize, place: &str) -> String {
    let most = most.max(LEAST_OF_A_TEXT);
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

/// How many of these characters take so many in JSON at most.
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

/// Cuts a text that is longer than it may be.
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

    use super::super::tests::made;
    use super::*;
    use crate::consult::thread::{RejectionReply, Stance, State};
    use crate::error::Kind;

    #[test]
    fn a_long_result_gives_up_evidence_first_and_findings_never() {
        let answer = json!({"response": "r", "verdict": {}, "findings": [{"severity": "note", "claim": "c".repeat(1_000)}]});
        let result = made(&answer.to_string(), 40, 6_000);
        assert!(serde_json::to_string(&result).unwrap().len() <= 6_000);
        assert_eq!((result.answer.findings[0].claim.len(), result.evidence.len()), (1_000, 40));
        assert_eq!(result.warnings, ["shortened to max_result_chars (6000): evidence summaries"]);
        let result = made(&answer.to_string(), 400, 6_000);
        assert!(serde_json::to_string(&result).unwrap().len() <= 6_000);
        assert_eq!(
            result.warnings,
            [
                "shortened to max_result_chars (6000): evidence summaries, raw_response_preview, evidence (of 400 calls)"
            ]
        );
    }

    fn remembered(mut result: ConsultResult) -> ConsultResult {
        let (id, next) = ("ab12".to_owned(), "n".to_owned());
        result.thread =
            Some(Standing { id, round: 2, state: State::Unfinished, next, open: vec![] });
        result
    }

    #[test]
    fn of_a_text_that_cannot_be_read_the_beginning_and_the_end_are_kept() {
        let text = format!("I would not. {}\nReject it.", "x\"".repeat(2_000_000));
        let result = remembered(made(&text, 40, usize::MAX / 2)).within(20_000);
        let response = &result.answer.response;
        assert!(chars(&result) <= 20_000 && chars(response) > 14_000, "{}", chars(&result));
        assert!(response.starts_with("I would not. x\"x") && response.ends_with("x\"\nReject it."));
        let place = "`kimi-bridge threads show ab12` and kimi-bridge://threads/ab12/rounds/2/transcript hold it whole";
        assert!(response.contains(&format!(" characters left out: {place} …]")), "{response}");
        assert_eq!(
            result.warnings,
            [
                "Kimi's answer could not be read: /: expected a JSON object with `response`",
                &format!(
                    "shortened to max_result_chars (20000): response (of 4000024 characters: {place}), evidence \
                     summaries"
                )
            ]
        );
        assert_eq!(result.evidence.len(), 40);

        let result = made(&text, 400, 2_000);
        assert!(chars(&result) <= 2_000 && result.evidence.is_empty(), "{}", chars(&result));
        assert!(
            result.answer.response.contains("this thread is not remembered"),
            "{}",
            result.answer.response
        );
        let short = format!("I would not. {}", "x".repeat(1_000));
        assert_eq!(made(&short, 0, 6_000).answer.response, short);
    }

    #[test]
    fn whatever_stands_beside_the_findings_gives_way() {
        let long = "y".repeat(3_000);
        let citations = vec![json!({"path": long, "quote": long}); 19];
        let finding =
            json!({"severity": "note", "claim": "c".repeat(3_000), "citations": citations});
        let score = json!({"option": long, "criterion": long, "score": 1, "reason": long});
        let answer = json!({"response": "r", "confidence": long, "key_risks": vec![&long; 90],
            "survived": vec!["s"; 900], "verdict": {"winner": long, "scores": vec![score; 30]}, "findings": [finding]});
        let mut result = made(&answer.to_string(), 40, usize::MAX / 2);
        let reply = RejectionReply {
            finding: "F1".to_owned(),
            stance: Stance::Maintain,
            because: long.clone(),
            capitulated: false,
        };
        result.answer.replies = vec![reply; 3];
        result.warnings = vec![long.clone(); 400];
        let result = result.within(20_000);
        assert!(chars(&result) <= 20_000, "{}", chars(&result));
        let finding = &result.answer.findings[0];
        assert_eq!((finding.claim.len(), finding.citations.len()), (3_000, 5));
        let told = "shortened to max_result_chars (20000): evidence summaries, raw_response_preview, evidence (of 40 \
                    calls), what stands beside the findings (texts of 100 characters, lists of 5)";
        assert_eq!((&*result.warnings[10], &*result.warnings[21]), ("380 more warnings", told));
    }

    #[test]
    fn what_is_never_cut_is_said_to_be_too_long() {
        let finding = json!({"severity": "note", "claim": "c".repeat(3_000)});
        let answer =
            json!({"response": "r".repeat(3_000), "verdict": {}, "findings": vec![finding; 100]});
        let result = made(&answer.to_string(), 1, 20_000);
        assert!(result.answer.findings.iter().all(|finding| finding.claim.len() == 3_000));
        assert_eq!(result.answer.response.len(), 3_000);
        let [.., told] = result.warnings.as_slice() else { panic!("{:?}", result.warnings) };
        assert!(
            told.starts_with("longer than max_result_chars (20000) all the same, 3")
                && told.ends_with("findings and a response that could be read are never cut"),
            "{told}"
        );
    }

    #[test]
    fn a_long_error_gives_up_evidence_too() {
        let call = json!({"tool": "ReadFile", "tool_call_id": "1", "args": {}, "summary": "s".repeat(800), "ok": true});
        let with = |response: &str| Error {
            partial: Some(json!({"response": response, "evidence": vec![&call; 300],
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
        let place = "kimi-bridge://threads/ab12/rounds/1/transcript holds it whole";
        assert!(response.contains(place), "{response}");
        assert_eq!(
            partial["warnings"].as_array().unwrap().last().unwrap(),
            &json!(format!(
                "shortened to max_result_chars (20000): response (of 90015 characters: {place}), evidence summaries, \
                 evidence (of 300 calls)"
            ))
        );
    }

    proptest! {
        #[test]
        fn a_text_is_cut_to_what_it_may_take_and_nothing_is_told_wrongly(
            text in "[a\"\\\\\n\u{1}é中👩\u{7f}]{0,900}",
            most in LEAST_OF_A_TEXT..1_200,
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
