//! Locks between processes: one call at a time uses a thread, one process at a time opens the ledger, and a run holds its
//! lock until it ends. The kernel releases a lock when its process ends; the empty file may stay.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Locks a thread or a run until the file is dropped; `None` while another call holds the lock.
pub(super) fn try_take(state_dir: &Path, id: &str) -> io::Result<Option<File>> {
    let file = open(&path(state_dir, id))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Returns whether a process holds the lock of a run. It creates no file.
pub(super) fn is_held(state_dir: &Path, run: &str) -> bool {
    // A shared lock, so that two readers do not take each other for the run.
    let lock = File::open(path(state_dir, run)).map(|file| file.try_lock_shared());
    matches!(lock, Ok(Err(TryLockError::WouldBlock)))
}

/// The file that locks a thread or a run. Ids are made of letters and digits; an invented one must not name
/// another place.
pub(super) fn path(state_dir: &Path, id: &str) -> PathBuf {
    let name: String = id.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    state_dir.join("locks").join(if name.is_empty() { "_" } else { &name })
}

/// Waits until no other process opens the ledger, and stops others until the file is dropped.
pub(super) fn opening(state_dir: &Path) -> io::Result<File> {
    let file = open(&state_dir.join("locks/_ledger"))?;
    file.lock()?;
    Ok(file)
}

/// Opens a file that only the user can read, and creates it and its folders if they are missing.
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
    fn a_thread_is_locked_once_and_another_one_is_free() {
        for [one, other] in [["9f3c01ab27", "0f3c01ab27"], ["A", "B"], ["../x", "a-b"], ["", "a"]] {
            let dir = tempfile::tempdir().unwrap();
            let is_free = |thread| try_take(dir.path(), thread).unwrap().is_some();
            let held = try_take(dir.path(), one).unwrap();
            assert!(held.is_some() && !is_free(one) && is_free(other));
            // A refused attempt leaves the lock alone.
            assert!(!is_free(one) && is_held(dir.path(), one));
            drop(held);
            assert!(!is_held(dir.path(), one) && is_free(one));
        }
    }
}
