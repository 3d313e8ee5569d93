//! Record ─► `Account`: each finding with all that was said about it. The record keeps rounds, as they
//! happened; a reader wants the exchange below the finding.

use std::collections::BTreeMap;

use serde_json::Value;

use super::exchange::{Outcome, Said, Turn, outcome, turns};
use crate::consult::answer::Finding;
use crate::consult::record::Record;
use crate::consult::result::ConsultResult;
use crate::consult::thread::State;
use crate::kimi::text::first_chars;

/// Characters of the first line of the message that make a title.
const TITLE_CHARS: usize = 110;
/// Characters of the sentence that leads into an answer.
const LEAD_CHARS: usize = 280;

/// A record, by finding.
#[derive(Debug, Clone)]
pub(crate) struct Account<'a> {
    pub record: &'a Record,
    /// Every finding, in the order in which they came up.
    pub points: Vec<Point<'a>>,
}

/// A finding and the exchange about it.
#[derive(Debug, Clone)]
pub(crate) struct Point<'a> {
    pub finding: &'a Finding,
    /// The round in which it came up.
    pub round: u8,
    /// What was said about it, in order.
    pub turns: Vec<Turn<'a>>,
    pub outcome: Outcome,
}

impl<'a> Account<'a> {
    /// Follows each finding through the rounds.
    pub(crate) fn of(record: &'a Record) -> Account<'a> {
        let results =
            record.rounds.iter().filter_map(|round| Some((round.number, round.result.as_ref()?)));
        let findings = results
            .flat_map(|(n, result)| result.answer.findings.iter().map(move |found| (n, found)));
        let points = findings.map(|(round, finding)| {
            let turns = turns(record, round, &finding.id);
            let contested = record.contested.contains(&finding.id);
            Point { finding, round, outcome: outcome(&turns, contested), turns }
        });
        Account { record, points: points.collect() }
    }

    /// The first line of the question.
    pub(crate) fn title(&self) -> String {
        let line = self.record.message.lines().map(str::trim).find(|line| !line.is_empty());
        let line = line.unwrap_or("A question without words");
        shortened(line, TITLE_CHARS)
    }

    /// The last answer that could be read.
    pub(crate) fn last_answer(&self) -> Option<&'a ConsultResult> {
        self.record.results().next_back()
    }

    /// The sentence that leads into Kimi's last answer, or the judge's choice.
    pub(crate) fn lead(&self) -> String {
        let Some(last) = self.last_answer() else { return String::new() };
        let first = last.answer.response.trim().split("\n\n").next().unwrap_or_default();
        shortened(&first.split_whitespace().collect::<Vec<_>>().join(" "), LEAD_CHARS)
    }

    /// Where the thread stands, a clause.
    pub(crate) fn standing(&self) -> &'static str {
        match self.record.state {
            State::Unfinished => "unfinished: Kimi's answer has not arrived",
            State::AwaitingAdjudication => "the caller has findings to answer",
            State::Settled => "settled: nothing is open",
            State::Contested => "contested: the caller has to decide",
            State::Decided => "decided",
        }
    }

    /// How many findings came to which end; outcomes that did not happen are left out.
    pub(crate) fn outcomes(&self) -> Vec<(Outcome, usize)> {
        let mut counts = BTreeMap::new();
        for point in &self.points {
            *counts.entry(point.outcome).or_insert(0) += 1;
        }
        counts.into_iter().collect()
    }

    /// What was said besides findings, over all rounds, each once: title and items. Empty ones are
    /// left out.
    pub(crate) fn lists(&self) -> Vec<(&'static str, Vec<&'a str>)> {
        type Items = fn(&ConsultResult) -> &[String];
        let lists: [(&'static str, Items); 5] = [
            ("Attacked, and it held", |result| &result.answer.survived),
            ("Not examined", |result| &result.answer.not_examined),
            ("Risks that remain", |result| &result.answer.key_risks),
            ("Assumptions", |result| &result.answer.assumptions),
            ("Alternatives", |result| &result.answer.alternatives),
        ];
        let merged = lists.map(|(title, items)| {
            let mut all: Vec<&str> = Vec::new();
            for result in self.record.results() {
                for item in items(result) {
                    if !all.contains(&item.as_str()) {
                        all.push(item);
                    }
                }
            }
            (title, all)
        });
        merged.into_iter().filter(|(_, items)| !items.is_empty()).collect()
    }

    /// The context, a title and a value for each field; empty ones are left out.
    pub(crate) fn context(&self) -> Vec<(String, &'a Value)> {
        let fields = self.record.context.as_object().into_iter().flatten();
        let told = fields.filter(|(_, value)| match value {
            Value::Null => false,
            Value::String(text) => !text.trim().is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
        });
        told.map(|(name, value)| (titled(name), value)).collect()
    }
}

impl Point<'_> {
    /// The caller's last reason and Kimi's, or in brackets why Kimi gave none.
    pub(crate) fn sides(&self) -> (&str, &str) {
        let last = |caller: bool| {
            let mut turns = self.turns.iter().rev().filter(|turn| !turn.why.trim().is_empty());
            turns.find(|turn| turn.said.is_callers() == caller).map(|turn| turn.why)
        };
        let passed_over = self.turns.iter().any(|turn| turn.said == Said::Silent);
        let none =
            if passed_over { "(passed over the rejection)" } else { "(was not asked again)" };
        (last(true).unwrap_or_default(), last(false).unwrap_or(none))
    }
}

/// `proposed_approach` as `Proposed approach`.
fn titled(name: &str) -> String {
    let words = name.replace('_', " ");
    let mut chars = words.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

fn shortened(text: &str, limit: usize) -> String {
    let cut = first_chars(text, limit);
    if cut.len() == text.len() {
        return text.to_owned();
    }
    let end = cut.rfind(char::is_whitespace).filter(|&end| end > cut.len() / 2);
    format!("{}…", cut[..end.unwrap_or(cut.len())].trim_end())
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn each_finding_is_followed_through_the_rounds() {
        let record = fixture::argued();
        let account = Account::of(&record);
        let told: Vec<String> = account
            .points
            .iter()
            .map(|point| {
                let turns: Vec<_> = point.turns.iter().map(|turn| turn.said.name()).collect();
                format!("{} {} {}", point.finding.id, turns.join(" "), point.outcome)
            })
            .collect();
        assert_eq!(
            told,
            [
                "F1 ADOPT adopted",
                "F2 REJECT maintain REJECT maintain REJECT contested",
                "F3 REJECT withdraw withdrawn",
                "F4 REJECT capitulated withdrawn without a fact",
                "F5 REJECT refine ADOPT adopted",
                "F6 REJECT silent REJECT contested",
                "F7 ADOPT adopted",
            ]
        );
    }

    #[test]
    fn an_open_thread_has_open_findings() {
        let mut record = fixture::argued();
        record.rounds.truncate(2);
        record.contested.clear();
        record.rounds[1].adjudications.clear();
        let account = Account::of(&record);
        let open = account.points.iter().filter(|point| point.outcome == Outcome::Open);
        assert_eq!(
            open.map(|point| point.finding.id.as_str()).collect::<Vec<_>>(),
            ["F2", "F5", "F6"]
        );
        record.rounds.truncate(1);
        let account = Account::of(&record);
        assert!(account.outcomes().contains(&(Outcome::Rejected, 4)));
    }
}
