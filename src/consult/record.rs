//! A thread as it is looked back on: the proposal, every round with its findings, verdicts and
//! replies, and the decision. What the terminal, the exports and the resources show is made from it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::result::ConsultResult;
use super::role::Role;
use super::thread::{Adjudication, State, Thread};
use crate::error::{Error, Kind, Result};
use crate::ledger::{Ledger, RoundRow, ThreadRow};
use crate::settings::Loaded;

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

impl Record {
    /// Reads what the ledger keeps of a thread.
    ///
    /// # Errors
    /// [`Kind::Ledger`] when it cannot be read.
    pub fn of(row: &ThreadRow, rounds: &[RoundRow]) -> Result<Record> {
        let at = |error: serde_json::Error| {
            Error::new(
                Kind::Ledger,
                format!("what is remembered of the thread {} cannot be read: {error}", row.id),
                "Delete it with `kimi-bridge threads delete`.",
            )
        };
        let request: Value = serde_json::from_str(&row.request).map_err(at)?;
        let thread: Thread = serde_json::from_str(&row.challenge).map_err(at)?;
        let mut told = Vec::new();
        for round in rounds {
            let of_thread = thread.rounds.get(usize::from(round.number).saturating_sub(1));
            told.push(RoundRecord {
                number: round.number,
                opened_at: round.opened_at,
                result: round
                    .result
                    .as_deref()
                    .map(serde_json::from_str)
                    .transpose()
                    .map_err(at)?,
                error: round.error.as_deref().map(serde_json::from_str).transpose().map_err(at)?,
                adjudications: of_thread
                    .map(|round| round.adjudications.clone())
                    .unwrap_or_default(),
                transcript: round.transcript.as_ref().map(PathBuf::from),
            });
        }
        Ok(Record {
            id: row.id.clone(),
            role: serde_json::from_value(request["role"].clone()).map_err(at)?,
            project: row.project.clone().into(),
            message: request["message"].as_str().unwrap_or_default().to_owned(),
            context: request["context"].clone(),
            state: thread.state(),
            opened_at: row.opened_at,
            updated_at: row.updated_at,
            rounds: told,
            contested: thread.contested(),
            decision: row.decision.clone().map(|(decision, rationale, at)| Decision {
                decision,
                rationale,
                at,
            }),
        })
    }
}

/// Looks a thread up.
///
/// # Errors
/// [`Kind::Round`] when there is none of this id, [`Kind::Ledger`] when it cannot be read.
pub fn load(loaded: &Loaded, id: &str) -> Result<Record> {
    let found = Ledger::open(loaded.state_dir())?.thread(id)?;
    let (row, rounds) = found.ok_or_else(|| {
        Error::new(
            Kind::Round,
            format!("there is no thread {id}"),
            "`kimi-bridge threads` lists them.",
        )
    })?;
    Record::of(&row, &rounds)
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
