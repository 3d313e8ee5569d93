//! The rows of the ledger. They are stored as JSON, so that a new field needs no other schema.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One thread.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ThreadRow {
    /// A short random id.
    pub id: String,
    /// The role's name.
    pub role: String,
    /// The project's folder.
    pub project: String,
    /// The request of the first round.
    pub request: Value,
    /// The state's name.
    pub state: String,
    /// The challenge loop.
    pub challenge: Value,
    /// The dialect of the sessions.
    pub dialect: Option<String>,
    /// Kimi's session of the thread.
    pub session_id: Option<String>,
    /// The session of a judge with the options in reverse order.
    pub reversed_session_id: Option<String>,
    /// The caller's decision, its reason and its time.
    pub decision: Option<(String, String, i64)>,
    /// Seconds since 1970, UTC.
    pub opened_at: i64,
    /// Seconds since 1970, UTC.
    pub updated_at: i64,
}

/// One round.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RoundRow {
    /// The number in the thread, from 1.
    pub number: u8,
    /// Seconds since 1970, UTC.
    pub opened_at: i64,
    /// Seconds since 1970, UTC; absent while Kimi has not answered.
    pub closed_at: Option<i64>,
    /// Kimi's checked answer, JSON; the answer of an earlier attempt until a better one arrives.
    #[serde(skip)]
    pub result: Option<String>,
    /// The mark in the prompt, which a later attempt keeps.
    pub mark: Option<String>,
    /// The error report, if Kimi did not answer.
    pub error: Option<Value>,
    /// The compressed files with everything that Kimi wrote, in the order of the runs.
    #[serde(skip)]
    pub transcripts: Vec<PathBuf>,
}

/// One run of Kimi for any tool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RunRow {
    /// A short random id.
    pub id: String,
    /// The tool that asked.
    pub tool: String,
    /// The thread that the run belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<String>,
    /// Its round in the thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round: Option<u8>,
    /// The request, without what the thread holds.
    pub request: Value,
    /// The project's folder.
    pub project: String,
    /// The kind of the run, which decides its tools and its private home.
    pub profile: String,
    /// The dialect of the Kimi that was asked.
    pub dialect: String,
    /// The version of that Kimi.
    pub version: String,
    /// Kimi's session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Seconds since 1970, UTC.
    pub started_at: i64,
    /// Seconds since 1970, UTC; absent while Kimi runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<i64>,
    pub state: RunState,
    /// The kind of the error of a run that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The state of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunState {
    #[default]
    Running,
    Answered,
    Failed,
    /// The bridge ended before the run did. It is never stored: a row that says `running` has no lock.
    Interrupted,
}

impl RunState {
    /// The name of the state, as the row has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            RunState::Running => "running",
            RunState::Answered => "answered",
            RunState::Failed => "failed",
            RunState::Interrupted => "interrupted",
        }
    }
}
