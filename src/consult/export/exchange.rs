//! The exchange about one finding, in order, and its outcome.

use serde::{Deserialize, Serialize};

use crate::consult::record::Record;
use crate::consult::thread::{RejectionReply, Ruling, Stance};

/// One statement about a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Turn<'a> {
    /// True for the caller, false for Kimi.
    pub callers: bool,
    /// The speaker, and the round of Kimi's answer or the round that the caller answered.
    pub actor: String,
    pub said: Said,
    /// The reason; may be empty for an adoption.
    pub why: &'a str,
}

/// The content of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    Adopt,
    Reject,
    Withdraw,
    Refine,
    Maintain,
    /// Kimi withdrew without naming a fact.
    Capitulated,
    /// Kimi skipped a rejection, which counts as maintaining.
    Silent,
}

/// The outcome of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// The caller adopted it.
    Adopted,
    /// Kimi withdrew it and named a fact.
    Withdrawn,
    /// Kimi withdrew it without naming a fact.
    Capitulated,
    Contested,
    /// The caller rejected it, and Kimi has not replied.
    Rejected,
    /// The caller has not answered it.
    Open,
}

impl From<&RejectionReply> for Said {
    fn from(reply: &RejectionReply) -> Said {
        match reply.stance {
            _ if reply.capitulated => Said::Capitulated,
            Stance::Withdraw => Said::Withdraw,
            Stance::Refine => Said::Refine,
            Stance::Maintain => Said::Maintain,
        }
    }
}

/// The exchange about the finding `id`, which appeared in round `born`.
pub(super) fn turns<'a>(record: &'a Record, born: u8, id: &str) -> Vec<Turn<'a>> {
    let mut turns: Vec<Turn<'a>> = Vec::new();
    for round in record.rounds.iter().filter(|round| round.number >= born) {
        let number = round.number;
        let asked = turns.last().is_some_and(|turn| turn.said == Said::Reject);
        let answered = round.result.as_ref().filter(|result| asked && result.parse_ok);
        if let Some(result) = answered {
            let reply = result.answer.replies.iter().find(|reply| reply.finding == id);
            turns.push(Turn {
                callers: false,
                actor: format!("Kimi, round {number}"),
                said: reply.map_or(Said::Silent, Said::from),
                why: reply.map_or("", |reply| &reply.because),
            });
        }
        let ruled = round.adjudications.iter().filter(|answer| answer.finding == id);
        turns.extend(ruled.map(|answer| Turn {
            callers: true,
            actor: format!("The caller, after round {number}"),
            said: match answer.verdict {
                Ruling::Adopt => Said::Adopt,
                Ruling::Reject => Said::Reject,
            },
            why: &answer.reasoning,
        }));
    }
    turns
}

/// The outcome of a finding after this exchange.
pub(super) fn outcome(turns: &[Turn<'_>], contested: bool) -> Outcome {
    match turns.last().map(|turn| turn.said) {
        _ if contested => Outcome::Contested,
        Some(Said::Adopt) => Outcome::Adopted,
        Some(Said::Reject) => Outcome::Rejected,
        Some(Said::Withdraw) => Outcome::Withdrawn,
        Some(Said::Capitulated) => Outcome::Capitulated,
        Some(Said::Refine | Said::Maintain | Said::Silent) | None => Outcome::Open,
    }
}
