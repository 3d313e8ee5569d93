//! A thread as it is looked back on: the proposal, every round with its findings, verdicts and
//! replies, and the decision. What the terminal, the exports and the resources show is made from it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::result::ConsultResult;
use super::role::Role;
use super::thread::{Adjudication, State};

/// The whole argument about one proposal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The thread's id.
    pub id: String,
    /// What Kimi was asked to be.
    pub role: Role,
    /// The project's folder.
    pub project: PathBuf,
    /// The question, redacted.
    pub message: String,
    /// What the role needed to know, redacted.
    pub context: Value,
    /// Where the thread stands.
    pub state: State,
    /// When it was opened, seconds since 1970 UTC.
    pub opened_at: i64,
    /// When it last changed, likewise.
    pub updated_at: i64,
    /// The rounds, in order.
    pub rounds: Vec<RoundRecord>,
    /// The findings that are rejected and maintained at the end.
    pub contested: Vec<String>,
    /// The caller's decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

/// One round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// From 1.
    pub number: u8,
    /// When it was opened, seconds since 1970 UTC.
    pub opened_at: i64,
    /// What Kimi answered; absent while it has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<ConsultResult>,
    /// Why it has not, as an error report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
    /// The caller's answers to what was open after this round.
    pub adjudications: Vec<Adjudication>,
    /// The compressed file with everything that Kimi wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transcript: Option<PathBuf>,
}

/// The caller's decision, which closes a thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What will be done.
    pub decision: String,
    /// Why.
    pub rationale: String,
    /// When, seconds since 1970 UTC.
    pub at: i64,
}
