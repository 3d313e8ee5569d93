//! The label, mark and tone of each state, for the terminal, Markdown and the page.

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::exchange::{Outcome, Said};
use crate::consult::answer::{Severity, Verdict};
use crate::consult::role::Role;
use crate::consult::thread::State;
use crate::job::citation::{Citation, Status};
use crate::kimi::Evidence;

/// The severity of a state; a terminal gives each tone a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tone {
    Good,
    Doubt,
    Bad,
    Quiet,
}

/// The label of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct StateLabel {
    pub tone: Tone,
    /// One character; empty if none is needed.
    pub mark: &'static str,
    pub name: &'static str,
    /// The meaning; empty if the name says it.
    pub means: &'static str,
}

const fn shown(
    tone: Tone,
    mark: &'static str,
    name: &'static str,
    means: &'static str,
) -> StateLabel {
    StateLabel { tone, mark, name, means }
}

/// The label for the result of checking a citation.
pub(super) fn status(status: Status) -> StateLabel {
    match status {
        Status::Verified => {
            shown(Tone::Good, "✓", "verified", "it stands there, and Kimi's tools showed it")
        }
        Status::Moved => shown(
            Tone::Good,
            "↷",
            "moved",
            "it stands elsewhere in the file; the lines are corrected",
        ),
        Status::NotInTrace => shown(
            Tone::Doubt,
            "?",
            "not in trace",
            "it stands there, but Kimi's tools did not show it",
        ),
        Status::Mismatch => {
            shown(Tone::Bad, "≠", "mismatch", "the quote is nowhere in the file, or too common")
        }
        Status::Missing => shown(
            Tone::Bad,
            "✗",
            "missing",
            "there is no such file, or it is closed to Kimi, too long, or could not be read",
        ),
        Status::Outside => shown(Tone::Bad, "⊘", "outside", "the file is not in the project"),
    }
}

pub(super) fn severity(severity: Severity) -> StateLabel {
    let tone = match severity {
        Severity::Blocker | Severity::Major => Tone::Bad,
        Severity::Minor => Tone::Doubt,
        Severity::Note => Tone::Quiet,
    };
    shown(tone, "", severity.name(), "")
}

/// The label for the state of a thread.
pub(super) fn state(state: State) -> StateLabel {
    let (tone, means) = match state {
        State::Unfinished => (Tone::Bad, "unfinished: Kimi's answer has not arrived"),
        State::AwaitingAdjudication => (Tone::Doubt, "the caller has findings to answer"),
        State::Settled => (Tone::Good, "settled: nothing is open"),
        State::Contested => (Tone::Doubt, "contested: the caller has to decide"),
        State::Decided => (Tone::Good, "decided"),
        State::GivenUp => (Tone::Doubt, "given up: findings were never answered"),
    };
    shown(tone, "", state.name(), means)
}

/// The label for the outcome of a finding.
pub(super) fn outcome(outcome: Outcome) -> StateLabel {
    let (tone, name) = match outcome {
        Outcome::Adopted => (Tone::Good, "adopted"),
        Outcome::Withdrawn => (Tone::Quiet, "withdrawn"),
        Outcome::Capitulated => (Tone::Doubt, "withdrawn without a fact"),
        Outcome::Contested => (Tone::Bad, "contested"),
        Outcome::Rejected => (Tone::Doubt, "rejected"),
        Outcome::Open => (Tone::Doubt, "open"),
    };
    shown(tone, "=", name, "")
}

/// The label for a step of the exchange about a finding.
pub(super) fn said(said: Said) -> StateLabel {
    let capitulated = "It gave in without naming a fact; do not count this as agreement.";
    let silent = "Kimi did not answer this rejection; that counts as maintaining it.";
    match said {
        Said::Adopt => shown(Tone::Good, "▸", "ADOPT", ""),
        Said::Reject => shown(Tone::Bad, "▸", "REJECT", ""),
        Said::Withdraw => shown(Tone::Good, "◂", "withdraw", ""),
        Said::Refine => shown(Tone::Doubt, "◂", "refine", ""),
        Said::Maintain => shown(Tone::Bad, "◂", "maintain", ""),
        Said::Capitulated => shown(Tone::Doubt, "◂", "capitulated", capitulated),
        Said::Silent => shown(Tone::Doubt, "◂", "silent", silent),
    }
}

/// The heading for the context of a role.
pub(super) fn subject(role: Role) -> &'static str {
    match role {
        Role::Skeptic => "The proposal",
        Role::Architect => "The design",
        Role::Debugger => "The bug",
        Role::Judge => "The options",
    }
}

/// The lines of a citation, as shown behind its path: `:24`, `:12-15`, or nothing.
pub(super) fn line_range(citation: &Citation) -> String {
    match (citation.line_start, citation.line_end) {
        (Some(start), Some(end)) if end > start => format!(":{start}-{end}"),
        (Some(start), _) => format!(":{start}"),
        (None, _) => String::new(),
    }
}

/// The judge's choice, or the reason why there is none.
pub(super) fn winner(choice: &Verdict) -> &str {
    match (&choice.winner, choice.contested) {
        (_, true) => "contested: it changed with the order of the options",
        (Some(winner), false) => winner,
        (None, false) => "none of the options is acceptable",
    }
}

/// The target of a tool call; empty if its arguments do not show it.
pub(super) fn target(call: &Evidence) -> &str {
    let mut names = ["path", "pattern", "query", "url"].iter();
    names.find_map(|&name| call.args.get(name)?.as_str()).unwrap_or_default()
}

/// A length of time.
pub(super) fn duration(milliseconds: u64) -> String {
    match milliseconds {
        short @ ..1_000 => format!("{short} ms"),
        long => format!("{} s", long.div_ceil(1_000)),
    }
}

/// The message and the hint of a round without an answer, from its error report.
pub(super) fn failure(report: &Value) -> (String, String) {
    if report.is_null() {
        return ("Kimi's answer never arrived".to_owned(), "It can be asked again.".to_owned());
    }
    let error = report.get("error").unwrap_or(report);
    let field = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    (field("message"), field("hint"))
}

/// `2026-11-20 22:14 UTC` from seconds since 1970 UTC.
pub(super) fn date(seconds: i64) -> String {
    let date = DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    date.format("%Y-%m-%d %H:%M UTC").to_string()
}
