//! Reads the ledger for a hook: without a change to it, and within a bounded time.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::error::Result;
use crate::ledger::Ledger;

/// The longest that the ledger may take. A broken one keeps SQLite trying for ten seconds, and a host waits for five.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a query of the ledger of a state folder finds; `None` where it cannot be read.
pub(super) fn read<T: Send + 'static>(
    state_dir: &Path,
    query: impl FnOnce(&Ledger) -> Result<T> + Send + 'static,
) -> Option<T> {
    let state_dir = state_dir.to_owned();
    let (sender, receiver) = mpsc::channel();
    let reading = move || {
        let found = Ledger::open_read_only(&state_dir).and_then(|ledger| query(&ledger));
        // The receiver is gone where it took too long.
        let _ = sender.send(found);
    };
    thread::Builder::new().spawn(reading).ok()?;
    receiver.recv_timeout(PATIENCE).ok()?.ok()
}
