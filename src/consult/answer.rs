//! Kimi's answer: its findings with their citations, the judge's verdict, and the replies to rejections.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::thread::RejectionReply;
use crate::job::citation::Citation;

/// The severity of a finding.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Must be solved before the proposal is carried out.
    Blocker,
    /// Causes harm.
    Major,
    /// Should be fixed.
    Minor,
    /// A fact worth knowing.
    Note,
}

impl Severity {
    /// Every severity, the worst first.
    pub const ALL: [Severity; 4] =
        [Severity::Blocker, Severity::Major, Severity::Minor, Severity::Note];

    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Severity::Blocker => "blocker",
            Severity::Major => "major",
            Severity::Minor => "minor",
            Severity::Note => "note",
        }
    }
}

/// An answer. When it is read, its citations are unchecked and its findings have no id.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// The verdict, and what you must know to act on it
    pub response: String,
    /// In rounds 2 and 3: what Kimi makes of each rejection
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replies: Vec<RejectionReply>,
    /// The judge's choice
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// What is wrong, the most severe first; grounded ones first of the same severity
    pub findings: Vec<Finding>,
    /// What remains risky
    pub key_risks: Vec<String>,
    /// What Kimi took for granted
    pub assumptions: Vec<String>,
    /// Other ways
    pub alternatives: Vec<String>,
    /// What Kimi attacked, and it held
    pub survived: Vec<String>,
    /// What Kimi did not look at
    pub not_examined: Vec<String>,
    /// How sure Kimi is, and why
    pub confidence: String,
}

/// One point of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// `F1`, `F2`…
    pub id: String,
    /// How bad it is
    pub severity: Severity,
    /// What is wrong
    pub claim: String,
    /// How it comes to fail
    pub failure_scenario: String,
    /// What to do instead
    pub suggestion: String,
    /// What it rests on, checked by the bridge
    pub citations: Vec<Citation>,
    /// Whether a citation is `verified` or `moved`
    pub grounded: bool,
}

/// The judge's verdict.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// The option's name, as the caller gave it; absent when none is acceptable
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<String>,
    /// Every option by every criterion, 0 to 10
    pub scores: Vec<Score>,
    /// Whether the winner changed with the order of the options; then there is none
    #[serde(default)]
    pub contested: bool,
}

/// The score of one option by one criterion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Score {
    /// The option's name.
    pub option: String,
    /// The criterion.
    pub criterion: String,
    /// From 0 to 10.
    pub score: f64,
    /// The reason.
    #[serde(default)]
    pub reason: String,
}
