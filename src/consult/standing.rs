//! The state of a thread as text, and the errors of calls that do not fit it.

use std::fs::File;

use super::result::Standing;
use super::thread::{State, Thread};
use crate::error::{Error, Kind, Result};
use crate::ledger::{Ledger, ThreadRow};
use crate::settings::Config;

/// The state of a thread, and the next step of its caller.
pub(crate) fn standing(id: &str, thread: &Thread) -> Standing {
    let open: Vec<String> = thread.open_findings().into_iter().map(str::to_owned).collect();
    let round = thread.round();
    let state = thread.state();
    let next = match state {
        State::Unfinished => format!(
            "Kimi's answer to round {round} is missing: call consult_kimi with thread_id \"{id}\" alone to ask again."
        ),
        State::AwaitingAdjudication => format!(
            "Answer {}: call consult_kimi with thread_id \"{id}\" and prior_exchange.adjudications, ADOPT or REJECT \
             for each, a reason for every REJECT.",
            open.join(", ")
        ),
        State::Settled => format!(
            "Nothing is open: carry on, and record what you do with record_decision (thread_id \"{id}\")."
        ),
        State::Contested => format!(
            "{} is rejected by you and maintained by Kimi: weigh both sides, decide, and call record_decision with \
             thread_id \"{id}\".",
            thread.contested().join(", ")
        ),
        State::Decided => "The thread is closed.".to_owned(),
        State::GivenUp => format!("The thread is closed. Never answered: {}.", open.join(", ")),
    };
    let is_open = matches!(state, State::AwaitingAdjudication | State::GivenUp);
    let open = if is_open { open } else { Vec::new() };
    Standing { id: id.to_owned(), round, state, next, open }
}

/// The next step for a round in which Kimi was interrupted and can continue.
pub(crate) fn broken_off(id: &str, round: u8) -> String {
    format!(
        "Kimi was broken off in round {round}: call consult_kimi with thread_id \"{id}\" alone, and it goes on where \
         it stopped. A longer timeout_seconds may help."
    )
}

/// Opens the ledger and locks a thread for one call. `other` names the call that may hold the lock.
pub(super) fn locked(id: &str, config: &Config, other: &str) -> Result<(Ledger, File)> {
    let ledger = Ledger::open(config.state_dir())?;
    match ledger.lock(id)? {
        Some(lock) => Ok((ledger, lock)),
        None => Err(Error::from_kind(
            Kind::Busy,
            format!("the thread {id} is busy: {other} is working on it"),
        )),
    }
}

pub(super) fn round_error(message: impl Into<String>, hint: &str) -> Error {
    Error::new(Kind::Round, message, hint)
}

impl Thread {
    /// Parses the thread in a row of the ledger.
    pub(super) fn from_row(row: &ThreadRow) -> Result<Thread> {
        serde_json::from_value(row.challenge.clone()).map_err(|error| unreadable(&row.id, &error))
    }
}

pub(super) fn unreadable(id: &str, error: &serde_json::Error) -> Error {
    Error::new(
        Kind::Ledger,
        format!("what is remembered of the thread {id} cannot be read: {error}"),
        "Delete it with `kimi-bridge threads delete`, and open a new one.",
    )
}
