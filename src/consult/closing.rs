//! Where a thread stands in words, and how its caller closes it.

use serde_json::json;

use super::record::unknown;
use super::result::Standing;
use super::thread::{State, Thread};
use crate::error::{Error, Kind, Result, Violation};
use crate::ledger::{Ledger, now};
use crate::redact::Secrets;
use crate::settings::Loaded;

/// Where a thread stands, and what its caller must do now.
#[must_use]
pub fn standing(id: &str, thread: &Thread) -> Standing {
    let open: Vec<String> = thread.open_findings().into_iter().map(str::to_owned).collect();
    let round = u8::try_from(thread.rounds.len()).unwrap_or(1);
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
    };
    let open = if state == State::AwaitingAdjudication { open } else { Vec::new() };
    Standing { id: id.to_owned(), round, state, next, open }
}

/// What the caller must do about a round in which Kimi was broken off, and remembers it.
#[must_use]
pub fn broken_off(id: &str, round: u8) -> String {
    format!(
        "Kimi was broken off in round {round}: call consult_kimi with thread_id \"{id}\" alone, and it goes on where \
         it stopped. A longer timeout_seconds may help."
    )
}

/// Closes a thread with the caller's decision.
///
/// # Errors
/// [`Kind::Round`] when there is no such thread, it is busy or decided; [`Kind::Ledger`].
pub fn decide(
    id: &str,
    decision: &str,
    rationale: &str,
    loaded: &Loaded,
    secrets: &Secrets,
) -> Result<Standing> {
    let ledger = Ledger::open(loaded.state_dir())?;
    let Some(_lock) = ledger.lock(id)? else {
        return Err(round_error(
            format!("the thread {id} is busy"),
            "Wait for the other call to end.",
        ));
    };
    let Some((mut row, _)) = ledger.thread(id)? else {
        return Err(unknown(id));
    };
    let mut thread: Thread =
        serde_json::from_value(row.challenge.clone()).map_err(|error| unreadable(id, &error))?;
    thread.decide().map_err(|violations| {
        let why =
            violations.first().map(|violation| violation.expected.clone()).unwrap_or_default();
        round_error(why, "A decided thread stays as it is; open a new one.")
    })?;
    let text = |text: &str| secrets.redact(text).into_text();
    row.decision = Some((text(decision), text(rationale), now()));
    thread.state().name().clone_into(&mut row.state);
    row.challenge = json!(thread);
    row.updated_at = now();
    ledger.save(&row, None)?;
    Ok(standing(id, &thread))
}

/// Forgets a thread that no call is working on.
///
/// # Errors
/// [`Kind::Round`] when there is no such thread or it is busy; [`Kind::Ledger`].
pub fn forget(id: &str, loaded: &Loaded) -> Result<()> {
    let ledger = Ledger::open(loaded.state_dir())?;
    let Some(_lock) = ledger.lock(id)? else {
        return Err(round_error(
            format!("the thread {id} is busy: a call is working on it"),
            "Wait for that call to end.",
        ));
    };
    if ledger.delete(id)? { Ok(()) } else { Err(unknown(id)) }
}

/// What a decision lacks.
#[must_use]
pub fn missing(field: &str) -> Violation {
    Violation::new(format!("/{field}"), "required: a text that is not blank")
}

/// The refusal of a decision that lacks something.
#[must_use]
pub fn undecided(violations: Vec<Violation>) -> Error {
    Error {
        violations,
        ..Error::new(
            Kind::Request,
            "the decision is not complete",
            "Name the thread, what will be done, and why.",
        )
    }
}

pub(super) fn round_error(message: String, hint: &str) -> Error {
    Error::new(Kind::Round, message, hint)
}

pub(super) fn unreadable(id: &str, error: &serde_json::Error) -> Error {
    Error::new(
        Kind::Ledger,
        format!("what is remembered of the thread {id} cannot be read: {error}"),
        "Delete it with `kimi-bridge threads delete`, and open a new one.",
    )
}
