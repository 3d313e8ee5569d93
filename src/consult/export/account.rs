//! Record ─► `Account`, the data of the templates. A record is ordered by rounds; an account puts the exchange about
//! each finding below it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::exchange::{Outcome, Said, Turn, outcome, turns};
use crate::consult::answer::Finding;
use crate::consult::record::Record;
use crate::consult::result::ConsultResult;
use crate::kimi::text::first_chars;

/// The most characters of the title, which is the first line of the message.
const TITLE_CHARS: usize = 110;
/// The most characters of the lead.
const LEAD_CHARS: usize = 280;

/// A thread, ordered by findings.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Account<'a> {
    record: &'a Record,
    /// The first line of the question.
    title: String,
    /// The question; empty if the title is all of it.
    message: &'a str,
    /// The fields of the context that are not empty, with their values.
    context: Vec<(String, Value)>,
    /// The last answer.
    last: Option<&'a ConsultResult>,
    /// The first paragraph of the last answer.
    lead: String,
    /// Every finding, in the order of appearance.
    exchanges: Vec<Exchange<'a>>,
    /// The number of findings with each outcome.
    outcomes: Vec<(Outcome, usize)>,
    /// The other lists of the answers, merged over all rounds: title and items.
    lists: Vec<(&'static str, Vec<&'a str>)>,
}

/// A finding and the exchange about it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Exchange<'a> {
    finding: &'a Finding,
    /// The round in which the finding appeared.
    round: u8,
    /// The turns, in order.
    turns: Vec<Turn<'a>>,
    outcome: Outcome,
    /// The caller's last reason.
    caller: &'a str,
    /// Kimi's last reason, or a note in brackets why there is none.
    kimi: &'a str,
}

impl<'a> Account<'a> {
    /// Follows each finding through the rounds.
    pub(crate) fn new(record: &'a Record) -> Account<'a> {
        let answered =
            record.rounds.iter().filter_map(|round| Some((round.number, round.result.as_ref()?)));
        let exchanges: Vec<Exchange<'a>> = answered
            .flat_map(|(round, result)| {
                let findings = result.answer.findings.iter();
                findings.map(move |finding| Exchange::new(record, round, finding))
            })
            .collect();
        let mut outcomes = BTreeMap::new();
        for exchange in &exchanges {
            *outcomes.entry(exchange.outcome).or_insert(0) += 1;
        }
        let first_line = record.message.lines().map(str::trim).find(|line| !line.is_empty());
        let title = shortened(first_line.unwrap_or("A question without words"), TITLE_CHARS);
        let last = record.results().next_back();
        let lead = last.and_then(|result| result.answer.response.trim().split("\n\n").next());
        let lead: Vec<&str> = lead.unwrap_or_default().split_whitespace().collect();
        Account {
            message: if record.message.trim() == title { "" } else { &record.message },
            title,
            context: fields(&record.context),
            last,
            lead: shortened(&lead.join(" "), LEAD_CHARS),
            exchanges,
            outcomes: outcomes.into_iter().collect(),
            lists: lists(record),
            record,
        }
    }
}

impl<'a> Exchange<'a> {
    fn new(record: &'a Record, round: u8, finding: &'a Finding) -> Exchange<'a> {
        let turns = turns(record, round, &finding.id);
        let last = |callers: bool| {
            let mut turns = turns.iter().rev().filter(|turn| !turn.why.trim().is_empty());
            turns.find(|turn| turn.callers == callers).map(|turn| turn.why)
        };
        let was_silent = turns.iter().any(|turn| turn.said == Said::Silent);
        let none =
            if was_silent { "(did not answer the rejection)" } else { "(was not asked again)" };
        Exchange {
            finding,
            round,
            outcome: outcome(&turns, record.contested.contains(&finding.id)),
            caller: last(true).unwrap_or_default(),
            kimi: last(false).unwrap_or(none),
            turns,
        }
    }
}

fn lists(record: &Record) -> Vec<(&'static str, Vec<&str>)> {
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
        for item in record.results().flat_map(items) {
            if !all.contains(&item.as_str()) {
                all.push(item);
            }
        }
        (title, all)
    });
    merged.into_iter().filter(|(_, items)| !items.is_empty()).collect()
}

/// The non-empty fields of an object in its order, which a map in a template would lose.
fn fields(object: &Value) -> Vec<(String, Value)> {
    let fields = object.as_object().into_iter().flatten();
    let is_shown = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
    };
    let shown = fields.filter(|(_, value)| is_shown(value));
    shown.map(|(name, value)| (name.clone(), in_order(value))).collect()
}

/// The texts and lists of a value, in which each object is `{"fields": [[name, value], …]}`.
fn in_order(value: &Value) -> Value {
    match value {
        Value::Object(_) => json!({"fields": fields(value)}),
        Value::Array(items) => items.iter().map(in_order).collect(),
        Value::String(_) => value.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) => json!(value.to_string()),
    }
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
    use super::super::{fixture, words};
    use super::*;

    #[test]
    fn each_finding_is_followed_through_the_rounds() {
        let record = fixture::argued();
        let account = Account::new(&record);
        let shown: Vec<String> = account
            .exchanges
            .iter()
            .map(|exchange| {
                let turns: Vec<_> =
                    exchange.turns.iter().map(|turn| words::said(turn.said).name).collect();
                let outcome = words::outcome(exchange.outcome).name;
                format!("{} {} {outcome}", exchange.finding.id, turns.join(" "))
            })
            .collect();
        assert_eq!(
            shown,
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
        let account = Account::new(&record);
        let open = account.exchanges.iter().filter(|exchange| exchange.outcome == Outcome::Open);
        assert_eq!(
            open.map(|exchange| exchange.finding.id.as_str()).collect::<Vec<_>>(),
            ["F2", "F5", "F6"]
        );
        record.rounds.truncate(1);
        let account = Account::new(&record);
        assert!(account.outcomes.contains(&(Outcome::Rejected, 4)));
    }
}
