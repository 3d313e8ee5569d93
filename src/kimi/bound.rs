//! The bound of what one run may have on the disk: in its private home, which stays, and in its temporary folder.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::untrusted::Folder;
use crate::error::{Error, Kind};

/// The most that either folder may take, bytes of the disk.
const BYTES: u64 = 1_000_000_000;
/// The most files and folders in either of them.
const ENTRIES: usize = 100_000;
/// Both in words, with the depth that is measured.
pub(super) const BOUND: &str = "1 GB, 100,000 files or 64 folders in one another";
/// The time between two looks while Kimi runs.
const INTERVAL: Duration = Duration::from_secs(3);

/// Whether a folder is over the bound.
pub(super) fn is_over(folder: &Folder) -> bool {
    folder.exceeds(BYTES, ENTRIES)
}

/// Waits for a run, and cancels it when one of its folders is over the bound. Returns whether that happened.
pub(super) async fn watch<T>(
    folders: [&Folder; 2],
    cancel: &CancellationToken,
    mut run: impl Future<Output = T> + Unpin,
) -> (T, bool) {
    let mut over = false;
    loop {
        tokio::select! {
            ran = &mut run => return (ran, over),
            () = sleep(INTERVAL), if !over => {
                over = folders.into_iter().any(is_over);
                if over {
                    cancel.cancel();
                }
            }
        }
    }
}

/// The error of a run that was cancelled for it.
pub(super) fn error(cancelled: Error) -> Error {
    let hint = "Ask again; if it happens every time, run `kimi` by hand to see what it writes.";
    Error {
        kind: Kind::TooMuchOutput,
        message: format!("Kimi put more than {BOUND} into its private folders"),
        hint: hint.to_owned(),
        ..cancelled
    }
}
