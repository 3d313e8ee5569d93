//! One call at a time on a thread, across processes: an advisory lock on a file that the kernel
//! releases whatever becomes of its holder.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The right to work on a thread, until it is dropped.
#[derive(Debug)]
pub struct ThreadLock {
    _file: File,
}

impl ThreadLock {
    pub(super) fn take(state_dir: &Path, thread: &str) -> io::Result<Option<ThreadLock>> {
        let folder = state_dir.join("locks");
        make_private(&folder)?;
        // An id is made of letters and digits; what a caller invents must not name another place.
        let name: String = thread.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(name))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(ThreadLock { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Makes a folder and its parents; what is made is readable by nobody else.
pub(super) fn make_private(folder: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_taken_once_and_another_one_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let held = ThreadLock::take(dir.path(), "a").unwrap();
        assert!(held.is_some());
        assert!(ThreadLock::take(dir.path(), "a").unwrap().is_none());
        assert!(ThreadLock::take(dir.path(), "b").unwrap().is_some());
        drop(held);
        assert!(ThreadLock::take(dir.path(), "a").unwrap().is_some());
    }
}
