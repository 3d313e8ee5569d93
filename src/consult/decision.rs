//! The end of a thread: its caller decides or deletes it.

use std::path::Path;

use serde_json::{Value, json};

use super::Request;
use super::record::unknown;
use super::result::Standing;
use super::standing::{locked, round_error, standing};
use super::sweep::sessions_of;
use super::thread::Thread;
use crate::error::{Error, Kind, Result, Violation};
use crate::job;
use crate::kimi::home::HomeKey;
use crate::kimi::session;
use crate::ledger::now;
use crate::redact::Secrets;
use crate::settings::Config;

/// Closes a thread with the caller's decision.
pub(crate) fn record_decision(request: &Request, config: &Config) -> Result<Standing> {
    let secrets = job::secrets::load(config)?;
    decide(request, config, &secrets).map_err(|error| secrets.redact_error(error))
}

fn decide(request: &Request, config: &Config, secrets: &Secrets) -> Result<Standing> {
    let names = ["thread_id", "decision", "rationale"];
    let [id, decision, rationale] =
        names.map(|name| request.0.get(name).and_then(Value::as_str).unwrap_or_default().trim());
    let missing = names.iter().zip([id, decision, rationale]).filter(|(_, text)| text.is_empty());
    let violations: Vec<Violation> = missing
        .map(|(name, _)| Violation::new(format!("/{name}"), "required: a text that is not blank"))
        .collect();
    if !violations.is_empty() {
        return Err(Error {
            violations,
            ..Error::new(
                Kind::Request,
                "the decision is not complete",
                "Name the thread, what will be done, and why.",
            )
        });
    }
    let (ledger, _lock) = locked(id, config, "another call")?;
    let Some((mut row, _)) = ledger.thread(id)? else {
        return Err(unknown(id));
    };
    let mut thread = Thread::from_row(&row)?;
    let hint = "A decided thread stays as it is; open a new one.";
    thread.decide().map_err(|why| round_error(why, hint))?;
    let text = |text: &str| secrets.redact(text).into_text();
    row.decision = Some((text(decision), text(rationale), now()));
    thread.state().name().clone_into(&mut row.state);
    row.challenge = json!(thread);
    row.updated_at = now();
    ledger.save(&row, None)?;
    Ok(standing(id, &thread))
}

/// Deletes a thread that no other call uses, and its Kimi sessions. Returns a message for everything that could not be
/// removed.
pub(crate) fn forget(id: &str, config: &Config) -> Result<Vec<String>> {
    let (ledger, _lock) = locked(id, config, "a call")?;
    let mut left = Vec::new();
    // An unreadable thread can still be deleted.
    if let Ok(Some((row, _))) = ledger.thread(id) {
        let sessions = sessions_of(&ledger, &row).unwrap_or_else(|error| {
            left.push(format!("Kimi's sessions of this thread: {}", error.message));
            Vec::new()
        });
        for (dialect, session) in sessions {
            if let Err(error) =
                session::delete(config, HomeKey::reader(dialect, Path::new(&row.project)), &session)
            {
                left.push(format!("Kimi's session {session}: {error}"));
            }
        }
    }
    if !ledger.delete(id)? {
        return Err(unknown(id));
    }
    Ok(left)
}
