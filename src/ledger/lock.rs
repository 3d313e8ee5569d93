//! Locks between processes: one call at a time works on a thread, and one process at a time opens the
//! ledger. The kernel releases a lock when its holder ends, however it ends; the empty file may stay.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Locks a thread until the file is dropped; `None` while another call has it.
pub(super) fn try_thread(state_dir: &Path, thread: &str) -> io::Result<Option<File>> {
    let file = open(&path(state_dir, thread))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The file that locks a thread. Ids are made of letters and digits; an invented one must not name
/// another place.
pub(super) fn path(state_dir: &Path, thread: &str) -> PathBuf {
    let name: String = thread.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    state_dir.join("locks").join(if name.is_empty() { "_" } else { &name })
}

/// Waits until no other process is opening the ledger; none can until the file is dropped.
pub(super) fn opening(state_dir: &Path) -> io::Result<File> {
    let file = open(&state_dir.join("locks/_ledger"))?;
    file.lock()?;
    Ok(file)
}

/// Opens a file that only the user can read; makes it and its folders where there are none.
fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_taken_once_and_another_one_is_free() {
        for [one, other] in [["9f3c01ab27", "0f3c01ab27"], ["A", "B"], ["../x", "a-b"], ["", "a"]] {
            let dir = tempfile::tempdir().unwrap();
            let is_free = |thread| try_thread(dir.path(), thread).unwrap().is_some();
            let held = try_thread(dir.path(), one).unwrap();
            assert!(held.is_some() && !is_free(one) && is_free(other));
            // A refused attempt leaves the lock alone.
            assert!(!is_free(one));
            drop(held);
            assert!(is_free(one));
        }
    }
}
