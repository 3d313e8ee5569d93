//! The disk limit of a run, for its private home and its temporary folder.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::untrusted::Folder;
use crate::error::{Error, Kind};

/// The most bytes on the disk for each folder.
const BYTES: u64 = 1_000_000_000;
/// The most files and folders in each folder.
const ENTRIES: usize = 100_000;
/// The limits in words, with the deepest nesting.
pub(super) const BOUND: &str = "1 GB, 100,000 files or 64 nested folders";
/// The time between two checks while Kimi runs.
const INTERVAL: Duration = Duration::from_secs(3);

/// Returns whether a folder is over a limit.
pub(super) fn is_over(folder: &Folder) -> bool {
    folder.exceeds(BYTES, ENTRIES)
}

/// Waits for a run, and cancels it if one of its folders is over a limit. Returns whether that happened.
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

/// Turns the error of a cancelled run into that of a folder over a limit.
pub(super) fn error(cancelled: Error) -> Error {
    let hint = "Ask again; if it happens every time, run `kimi` by hand to see what it writes.";
    Error {
        kind: Kind::TooMuchOutput,
        message: format!("Kimi wrote more than {BOUND} into its private folders"),
        hint: hint.to_owned(),
        ..cancelled
    }
}
