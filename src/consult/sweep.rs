//! The removal of old transcripts and sessions, beside a run.

use std::collections::HashSet;

use super::round;
use super::thread::State;
use crate::kimi::{session, transcript};
use crate::ledger::{Filter, Ledger};
use crate::settings::Loaded;

/// Removes what is too old, in the background: a run does not depend on it.
pub(super) fn begin(loaded: &Loaded, project: &std::path::Path) {
    let (state_dir, project) = (loaded.state_dir().to_owned(), project.to_owned());
    let (transcript_days, session_days) =
        (loaded.settings.transcript_days, loaded.settings.session_days);
    drop(tokio::task::spawn_blocking(move || {
        transcript::sweep(&round::transcripts(&state_dir), transcript_days);
        // Only the ledger knows the sessions that are still needed.
        if let Ok(needed) = Ledger::open(&state_dir).and_then(|ledger| open_sessions(&ledger)) {
            session::sweep(&state_dir, &project, session_days, &needed);
        }
    }));
}

/// The sessions of the threads that can be continued.
fn open_sessions(ledger: &Ledger) -> crate::error::Result<HashSet<String>> {
    let mut sessions = HashSet::new();
    for state in [State::Unfinished, State::AwaitingAdjudication] {
        let state = Some(state.name().to_owned());
        let threads = ledger.threads(&Filter { state, limit: usize::MAX, ..Filter::default() })?;
        for thread in threads {
            sessions.extend(thread.session_id.into_iter().chain(thread.reversed_session_id));
        }
    }
    Ok(sessions)
}
