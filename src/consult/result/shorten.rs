//! What gives way when a result or an error is longer than its caller wants it, since hosts cut longer
//! ones without asking what matters: evidence first, then what stands beside the findings, and of a text
//! that could not be read the middle. What a finding says never gives way, nor the response of an answer
//! that could be read: whoever must answer a finding reads it whole.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Choice, ConsultResult, Finding, Standing};
use crate::consult::citation::Citation;
use crate::error::Error;
use crate::kimi::Evidence;
use crate::kimi::text::first_chars;

/// Characters that are left of the summary of a call, in turn.
const SUMMARIES: [usize; 3] = [200, 60, 0];
/// What is left beside the findings, in turn: characters of a text, and items of a list.
const BESIDE: [(usize, usize); 3] = [(1_000, 50), (300, 20), (100, 5)];
/// Characters that are left of a warning, and how many warnings at either end.
const WARNING: (usize, usize) = (500, 10);
/// Replies that are left: three rounds bring no more rejections in earnest.
const REPLIES: usize = 300;
/// Characters that are left of the message of an error.
const MESSAGE: usize = 2_000;
/// Characters that are left of a text that could not be read, whatever else there is.
const LEAST_OF_A_TEXT: usize = 400;

impl ConsultResult {
    /// Shortens what can be spared until the result fits, and says so in its warnings.
    #[must_use]
    pub fn within(mut self, limit: usize) -> ConsultResult {
        let mut room = Room::of(chars(&self), limit);
        if !room.is_lacking() {
            return self;
        }
        let unread = (!self.parse_ok).then(|| self.response.clone());
        let place = self.thread.as_ref().map(|Standing { id, round, .. }| {
            format!("`kimi-bridge threads show {id}` and {} hold it whole", transcript(id, *round))
        });
        if let Some(text) = &unread {
            room.keep_ends(&mut self.response, text, limit / 4 * 3, place.as_deref());
        }
        room.shorten_summaries(&mut self.evidence);
        if room.is_lacking() && !self.raw_response_preview.is_empty() {
            room.gave_way.push("raw_response_preview".to_owned());
            room.change(&mut self.raw_response_preview, String::clear);
        }
        room.drop_calls(&mut self.evidence);
        self.shorten_beside(&mut room);
        if let Some(text) = unread.filter(|_| room.is_lacking()) {
            let most = chars(&self.response).saturating_sub(room.lacks());
            room.keep_ends(&mut self.response, &text, most, place.as_deref());
        }
        self.warnings.extend(room.warning());
        let size = chars(&self);
        if size > limit {
            self.warnings.push(format!(
                "longer than max_result_chars ({limit}) all the same, {size} characters: findings and a response that \
                 could be read are never cut"
            ));
        }
        self
    }

    fn shorten_beside(&mut self, room: &mut Room) {
        if room.is_lacking() {
            room.change(&mut self.warnings, keep_warnings);
        }
        let told = room.gave_way.len();
        for (text, items) in BESIDE {
            if !room.is_lacking() {
                return;
            }
            self.keep_beside(text, items);
            let size = chars(self);
            if size < room.size {
                room.size = size;
                room.gave_way.truncate(told);
                room.gave_way.push(format!(
                    "what stands beside the findings (texts of {text} characters, lists of {items})"
                ));
            }
        }
    }

    /// What may give way beside the findings. Whoever adds a field decides here whether it does.
    fn keep_beside(&mut self, most: usize, items: usize) {
        let ConsultResult {
            parse_ok: _,
            response: _,
            replies,
            verdict,
            findings,
            key_risks,
            assumptions,
            alternatives,
            survived,
            not_examined,
            confidence,
            evidence: _,
            incomplete_trace: _,
            raw_response_preview: _,
            thread: _,
            provenance: _,
            warnings: _,
        } = self;
        for list in [key_risks, assumptions, alternatives, survived, not_examined] {
            list.truncate(items);
            for text in list {
                cut(text, most);
            }
        }
        cut(confidence, most);
        replies.truncate(REPLIES);
        for reply in replies {
            cut(&mut reply.because, most);
        }
        if let Some(Choice { winner, scores, contested: _ }) = verdict {
            if let Some(winner) = winner {
                cut(winner, most);
            }
            scores.truncate(items);
            for score in scores {
                for text in [&mut score.option, &mut score.criterion, &mut score.reason] {
                    cut(text, most);
                }
            }
        }
        for Finding { citations, .. } in findings {
            citations.truncate(items);
            for Citation { path, quote, .. } in citations {
                cut(path, most);
                cut(quote, most);
            }
        }
    }
}

/// Shortens what an error kept of a run, so that the error fits where a result would.
pub fn shorten_error(error: &mut Error, limit: usize) {
    let mut room = Room::of(error.text().chars().count(), limit);
    if !room.is_lacking() {
        return;
    }
    room.change(&mut error.message, |message| cut(message, MESSAGE));
    let Some(partial) = &mut error.partial else { return };
    let place = partial["thread"]["id"].as_str().zip(partial["thread"]["round"].as_u64());
    let place = place.map(|(id, round)| format!("{} holds it whole", transcript(id, round)));
    let said = partial["response"].as_str().map(str::to_owned);
    let mut response = said.clone().unwrap_or_default();
    if let Some(said) = &said {
        room.keep_ends(&mut response, said, limit / 2, place.as_deref());
    }
    let evidence = partial.get_mut("evidence").map(Value::take);
    if let Some(mut evidence) = evidence.and_then(|calls| serde_json::from_value(calls).ok()) {
        room.shorten_summaries(&mut evidence);
        room.drop_calls(&mut evidence);
        partial["evidence"] = json!(evidence);
    }
    let warnings = partial.get_mut("warnings").map(Value::take);
    let mut warnings: Vec<String> =
        warnings.and_then(|warnings| serde_json::from_value(warnings).ok()).unwrap_or_default();
    if room.is_lacking() {
        room.change(&mut warnings, keep_warnings);
    }
    if let Some(said) = said {
        if room.is_lacking() {
            let most = chars(&response).saturating_sub(room.lacks());
            room.keep_ends(&mut response, &said, most, place.as_deref());
        }
        partial["response"] = json!(response);
    }
    warnings.extend(room.warning());
    partial["warnings"] = json!(warnings);
}

/// How a caller names the transcript of a round.
fn transcript(id: &str, round: impl std::fmt::Display) -> String {
    format!("kimi-bridge://threads/{id}/rounds/{round}/transcript")
}

/// How much room there is, and what has given way to make some.
struct Room {
    /// How long the whole is, characters, without the warning that tells what gave way.
    size: usize,
    limit: usize,
    gave_way: Vec<String>,
}

impl Room {
    fn of(size: usize, limit: usize) -> Room {
        Room { size, limit, gave_way: Vec::new() }
    }

    fn warning(&self) -> Option<String> {
        let what = self.gave_way.join(", ");
        (!what.is_empty())
            .then(|| format!("shortened to max_result_chars ({}): {what}", self.limit))
    }

    /// How many characters too long it is.
    fn lacks(&self) -> usize {
        // The warning is one more item of a list.
        let warning = self.warning().map_or(0, |warning| chars(&warning) + 1);
        (self.size + warning).saturating_sub(self.limit)
    }

    fn is_lacking(&self) -> bool {
        self.lacks() > 0
    }

    /// Changes a part of the whole, and counts that alone.
    fn change<T: Serialize>(&mut self, part: &mut T, with: impl FnOnce(&mut T)) {
        let before = chars(part);
        with(part);
        self.size = (self.size + chars(part)).saturating_sub(before);
    }

    fn shorten_summaries(&mut self, evidence: &mut Vec<Evidence>) {
        if !self.is_lacking() || evidence.is_empty() {
            return;
        }
        self.gave_way.push("evidence summaries".to_owned());
        for keep in SUMMARIES {
            self.change(evidence, |calls| {
                for call in calls {
                    call.summary.truncate(first_chars(&call.summary, keep).len());
                }
            });
            if !self.is_lacking() {
                return;
            }
        }
    }

    fn drop_calls(&mut self, evidence: &mut Vec<Evidence>) {
        if !self.is_lacking() || evidence.is_empty() {
            return;
        }
        self.gave_way.push(format!("evidence (of {} calls)", evidence.len()));
        while self.is_lacking() && !evidence.is_empty() {
            self.change(evidence, |calls| calls.truncate(calls.len() / 2));
        }
    }

    /// Keeps the beginning of a text and its end, where a verdict usually stands, in so many characters
    /// of JSON; `place` says where the whole is.
    fn keep_ends(&mut self, kept: &mut String, text: &str, most: usize, place: Option<&str>) {
        if chars(text) <= most {
            return;
        }
        let place =
            place.unwrap_or("the whole is kept nowhere, since this thread is not remembered");
        let mark =
            |left_out: usize| format!("\n\n[… {left_out} characters left out: {place} …]\n\n");
        let all = text.chars().count();
        let most = most.max(LEAST_OF_A_TEXT).saturating_sub(chars(&mark(all)));
        let first = fitting(text.chars(), most / 2);
        let last = fitting(text.chars().rev(), most / 2).min(all - first);
        let end = text.char_indices().rev().take(last).last().map_or(text.len(), |(at, _)| at);
        let ends =
            format!("{}{}{}", first_chars(text, first), mark(all - first - last), &text[end..]);
        self.change(kept, |kept| *kept = ends);
        let what = format!("response (of {all} characters: {place})");
        if !self.gave_way.contains(&what) {
            self.gave_way.push(what);
        }
    }
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

/// A text that is longer than it may be.
fn cut(text: &mut String, most: usize) {
    let end = first_chars(text, most).len();
    if end < text.len() {
        text.truncate(end);
        text.push('…');
    }
}

/// Keeps the first warnings and the last: Kimi has a hand in those between.
fn keep_warnings(warnings: &mut Vec<String>) {
    let (most, ends) = WARNING;
    for warning in warnings.iter_mut() {
        cut(warning, most);
    }
    let more = warnings.len().saturating_sub(2 * ends);
    if more > 0 {
        warnings.splice(ends..ends + more, [format!("{more} more warnings")]);
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
    use crate::consult::thread::{Stance, State};
    use crate::error::Kind;

    #[test]
    fn a_long_result_gives_up_evidence_first_and_findings_never() {
        let answer = json!({"response": "r", "verdict": {}, "findings": [{"severity": "note", "claim": "c".repeat(1_000)}]});
        let result = made(&answer.to_string(), 40, 6_000);
        assert!(serde_json::to_string(&result).unwrap().len() <= 6_000);
        assert_eq!((result.findings[0].claim.len(), result.evidence.len()), (1_000, 40));
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
        let response = &result.response;
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
        assert!(result.response.contains("this thread is not remembered"), "{}", result.response);
        let short = format!("I would not. {}", "x".repeat(1_000));
        assert_eq!(made(&short, 0, 6_000).response, short);
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
        let reply = super::super::Reply {
            finding: "F1".to_owned(),
            stance: Stance::Maintain,
            because: long.clone(),
            capitulated: false,
        };
        result.replies = vec![reply; 3];
        result.warnings = vec![long.clone(); 400];
        let result = result.within(20_000);
        assert!(chars(&result) <= 20_000, "{}", chars(&result));
        let finding = &result.findings[0];
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
        assert!(result.findings.iter().all(|finding| finding.claim.len() == 3_000));
        assert_eq!(result.response.len(), 3_000);
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
            let mut room = Room::of(whole, most);
            let mut kept = text.clone();
            room.keep_ends(&mut kept, &text, most, Some("there"));
            prop_assert!(chars(&kept) <= most, "{}", chars(&kept));
            prop_assert_eq!(room.size, chars(&kept));
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
