//! The removal of old transcripts and sessions, beside a run.

use std::collections::HashSet;

use serde_json::json;

use super::thread::State;
use crate::kimi::{Dialect, session, transcript};
use crate::ledger::{self, Filter, Ledger, RoundRow, ThreadRow};
use crate::settings::Loaded;

/// Removes what is too old, in the background: a run does not depend on it.
pub(super) fn begin(loaded: &Loaded, project: &std::path::Path) {
    let (state_dir, project) = (loaded.state_dir().to_owned(), project.to_owned());
    let (transcript_days, session_days) =
        (loaded.settings.transcript_days, loaded.settings.session_days);
    drop(tokio::task::spawn_blocking(move || {
        transcript::sweep(&ledger::transcripts(&state_dir), transcript_days);
        // Only the ledger knows the sessions that are still needed.
        if let Ok(needed) = Ledger::open(&state_dir).and_then(|ledger| open_sessions(&ledger)) {
            session::sweep(&state_dir, &project, session_days, &needed);
        }
    }));
}

/// Kimi's sessions of a thread, each with its dialect. A round that was broken off has its session in the error.
pub(super) fn sessions_of(thread: &ThreadRow, rounds: &[RoundRow]) -> Vec<(Dialect, String)> {
    let named = [thread.session_id.as_deref(), thread.reversed_session_id.as_deref()];
    let named = named.map(|session| (json!(thread.dialect), session));
    let partial =
        rounds.iter().filter_map(|round| Some(&round.error.as_ref()?["error"]["partial"]));
    let broken_off =
        partial.map(|partial| (partial["dialect"].clone(), partial["session_id"].as_str()));
    let all = named.into_iter().chain(broken_off);
    all.filter_map(|(dialect, session)| {
        Some((serde_json::from_value(dialect).ok()?, session?.to_owned()))
    })
    .collect()
}

/// The sessions of the threads that can be continued.
fn open_sessions(ledger: &Ledger) -> crate::error::Result<HashSet<String>> {
    let mut sessions = HashSet::new();
    for state in [State::Unfinished, State::AwaitingAdjudication] {
        let state = Some(state.name().to_owned());
        let threads = ledger.threads(&Filter { state, limit: usize::MAX, ..Filter::default() })?;
        for thread in threads {
            let rounds = ledger.thread(&thread.id)?.map_or_else(Vec::new, |(_, rounds)| rounds);
            sessions.extend(sessions_of(&thread, &rounds).into_iter().map(|(_, session)| session));
        }
    }
    Ok(sessions)
}
