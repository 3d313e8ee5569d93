//! Old transcripts and sessions, which are removed beside a run.

use std::collections::HashSet;

use super::thread::State;
use crate::kimi::{session, transcript};
use crate::ledger::{self, Filter, Ledger};
use crate::settings::Loaded;

/// Removes what is too old. Not awaited: a run does not depend on it.
pub(super) fn begin(loaded: &Loaded, project: &std::path::Path) {
    let (state_dir, project) = (loaded.state_dir().to_owned(), project.to_owned());
    let (transcript_days, session_days) =
        (loaded.settings.transcript_days, loaded.settings.session_days);
    drop(tokio::task::spawn_blocking(move || {
        transcript::sweep(&ledger::transcripts(&state_dir), transcript_days);
        // Without the ledger it is not known which sessions are still needed.
        if let Ok(needed) = Ledger::open(&state_dir).and_then(|ledger| open_sessions(&ledger)) {
            session::sweep(&state_dir, &project, session_days, &needed);
        }
    }));
}

/// The sessions of the threads that may be gone on with.
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
