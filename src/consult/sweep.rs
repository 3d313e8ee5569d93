//! The removal of old transcripts and sessions, beside a run.

use std::collections::HashSet;

use serde_json::json;

use super::thread::State;
use crate::error::Result;
use crate::kimi::{Dialect, session, transcript};
use crate::ledger::{self, Filter, Ledger, ThreadRow};
use crate::settings::Config;

/// Removes what is too old, in the background: a run does not depend on it.
pub(super) fn begin(config: &Config, project: &std::path::Path) {
    let (state_dir, project) = (config.state_dir().to_owned(), project.to_owned());
    let (transcript_days, session_days) =
        (config.settings.transcript_days, config.settings.session_days);
    drop(tokio::task::spawn_blocking(move || {
        transcript::sweep(&ledger::transcripts(&state_dir), transcript_days);
        // Only the ledger knows the sessions that are still needed.
        if let Ok(needed) = Ledger::open(&state_dir).and_then(|ledger| open_sessions(&ledger)) {
            session::sweep(&state_dir, &project, session_days, &needed);
        }
    }));
}

/// Kimi's sessions of a thread, each with its dialect: those of all its runs, also of failed ones.
pub(super) fn sessions_of(ledger: &Ledger, thread: &ThreadRow) -> Result<Vec<(Dialect, String)>> {
    let runs = ledger.runs_of(&thread.id)?;
    let named = [thread.session_id.clone(), thread.reversed_session_id.clone()];
    let named = named.map(|session| (json!(thread.dialect), session));
    let all = runs.into_iter().map(|run| (json!(run.dialect), run.session_id)).chain(named);
    let all = all
        .filter_map(|(dialect, session)| Some((serde_json::from_value(dialect).ok()?, session?)));
    Ok(all.collect())
}

/// The sessions of the threads that can be continued.
fn open_sessions(ledger: &Ledger) -> Result<HashSet<String>> {
    let mut sessions = HashSet::new();
    for state in [State::Unfinished, State::AwaitingAdjudication] {
        let state = Some(state.name().to_owned());
        let threads = ledger.threads(&Filter { state, limit: usize::MAX, ..Filter::default() })?;
        for thread in threads {
            sessions.extend(sessions_of(ledger, &thread)?.into_iter().map(|(_, session)| session));
        }
    }
    Ok(sessions)
}
