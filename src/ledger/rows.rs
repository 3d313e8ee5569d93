//! The rows of the ledger. They are stored as JSON, so that a new field needs no other schema.

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
    /// The dialect of the Kimi that remembers the conversation.
    pub dialect: Option<String>,
    /// Its session.
    pub session_id: Option<String>,
    /// The session of a judge that was asked with the options in the other order.
    pub reversed_session_id: Option<String>,
    /// The caller's decision, its reason, and when it was made.
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
    /// From 1.
    pub number: u8,
    /// Seconds since 1970, UTC.
    pub opened_at: i64,
    /// Seconds since 1970, UTC; absent while Kimi has not answered.
    pub closed_at: Option<i64>,
    /// Kimi's checked answer, JSON; that of an earlier attempt until there is a better one.
    #[serde(skip)]
    pub result: Option<String>,
    /// The mark in the prompt, which a later attempt keeps.
    pub mark: Option<String>,
    /// Why Kimi did not answer.
    pub error: Option<Value>,
    /// The compressed file with everything that Kimi wrote.
    pub transcript: Option<String>,
}
