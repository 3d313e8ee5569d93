//! What was said about one finding, in order, and what became of it.

use std::fmt;

use serde::Serialize;

use crate::consult::record::Record;
use crate::consult::thread::{Ruling, Stance};

/// One thing said about a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn<'a> {
    /// The round of Kimi's answer, or the round that the caller answered.
    pub round: u8,
    pub said: Said,
    /// The reason that was given; may be empty for an adoption.
    pub why: &'a str,
}

/// What one of the two said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    Ruled(Ruling),
    Replied(Stance),
    /// Kimi gave in without naming a fact.
    Capitulated,
    /// Kimi passed over a rejection, which counts as maintaining.
    Silent,
}

/// What became of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// The caller took it up.
    Adopted,
    /// Kimi gave it up for a fact that it named.
    Withdrawn,
    /// Kimi gave it up without one.
    Capitulated,
    Contested,
    /// The caller rejected it, and Kimi has not answered.
    Rejected,
    /// Nobody has answered it.
    Open,
}

impl Said {
    /// Whether the caller said it; else Kimi did.
    pub(crate) fn is_callers(self) -> bool {
        match self {
            Said::Ruled(_) => true,
            Said::Replied(_) | Said::Capitulated | Said::Silent => false,
        }
    }

    /// A word for it, unlike all others.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Said::Ruled(Ruling::Adopt) => "ADOPT",
            Said::Ruled(Ruling::Reject) => "REJECT",
            Said::Replied(Stance::Withdraw) => "withdraw",
            Said::Replied(Stance::Refine) => "refine",
            Said::Replied(Stance::Maintain) => "maintain",
            Said::Capitulated => "capitulated",
            Said::Silent => "silent",
        }
    }

    /// What a reader should bear in mind about it.
    pub(crate) fn note(self) -> Option<&'static str> {
        match self {
            Said::Capitulated => {
                Some("It gave in without naming a fact; do not count this as agreement.")
            }
            Said::Silent => Some("Kimi passed over this rejection; that counts as maintaining."),
            Said::Ruled(_) | Said::Replied(_) => None,
        }
    }
}

impl Outcome {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Adopted => "adopted",
            Outcome::Withdrawn => "withdrawn",
            Outcome::Capitulated => "withdrawn without a fact",
            Outcome::Contested => "contested",
            Outcome::Rejected => "rejected",
            Outcome::Open => "open",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who speaks in a turn, and when.
pub(crate) fn actor(turn: &Turn<'_>) -> String {
    let who = if turn.said.is_callers() { "The caller, after round" } else { "Kimi, round" };
    format!("{who} {}", turn.round)
}

/// What was said about the finding `id`, which came up in round `born`.
pub(super) fn turns<'a>(record: &'a Record, born: u8, id: &str) -> Vec<Turn<'a>> {
    let mut turns: Vec<Turn<'a>> = Vec::new();
    for round in record.rounds.iter().filter(|round| round.number >= born) {
        let asked = turns.last().is_some_and(|turn| turn.said == Said::Ruled(Ruling::Reject));
        let answered = round.result.as_ref().filter(|result| asked && result.parse_ok);
        if let Some(result) = answered {
            let reply = result.answer.replies.iter().find(|reply| reply.finding == id);
            let said = match reply {
                Some(reply) if reply.capitulated => Said::Capitulated,
                Some(reply) => Said::Replied(reply.stance),
                None => Said::Silent,
            };
            let why = reply.map_or("", |reply| &reply.because);
            turns.push(Turn { round: round.number, said, why });
        }
        let ruled = round.adjudications.iter().filter(|answer| answer.finding == id);
        turns.extend(ruled.map(|answer| Turn {
            round: round.number,
            said: Said::Ruled(answer.verdict),
            why: &answer.reasoning,
        }));
    }
    turns
}

/// What became of a finding about which this was said.
pub(super) fn outcome(turns: &[Turn<'_>], contested: bool) -> Outcome {
    match turns.last().map(|turn| turn.said) {
        _ if contested => Outcome::Contested,
        Some(Said::Ruled(Ruling::Adopt)) => Outcome::Adopted,
        Some(Said::Ruled(Ruling::Reject)) => Outcome::Rejected,
        Some(Said::Replied(Stance::Withdraw)) => Outcome::Withdrawn,
        Some(Said::Capitulated) => Outcome::Capitulated,
        Some(Said::Replied(Stance::Refine | Stance::Maintain) | Said::Silent) | None => {
            Outcome::Open
        }
    }
}
