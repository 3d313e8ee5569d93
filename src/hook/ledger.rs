//! Reads the ledger for a hook, read-only and with a time limit.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::error::Result;
use crate::ledger::Ledger;

/// The time limit of a query. On a broken ledger SQLite retries for ten seconds, but the host waits only five.
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a query on the ledger of a state folder; `None` if it fails or takes too long.
pub(super) fn read<T: Send + 'static>(
    state_dir: &Path,
    query: impl FnOnce(&Ledger) -> Result<T> + Send + 'static,
) -> Option<T> {
    let state_dir = state_dir.to_owned();
    let (sender, receiver) = mpsc::channel();
    let reading = move || {
        let found = Ledger::open_read_only(&state_dir).and_then(|ledger| query(&ledger));
        // Sending fails only after the time limit, when the receiver is gone.
        let _ = sender.send(found);
    };
    thread::Builder::new().spawn(reading).ok()?;
    receiver.recv_timeout(QUERY_TIMEOUT).ok()?.ok()
}
