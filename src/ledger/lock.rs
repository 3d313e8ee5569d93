//! One call at a time on a thread, across processes: an advisory lock that the kernel releases whatever
//! becomes of its holder. On Linux all threads share a file and each has a byte of it, since to make a
//! file takes longer than all else that opens a thread; elsewhere each has a file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The right to work on a thread, until it is dropped.
#[derive(Debug)]
pub struct ThreadLock {
    _file: File,
}

impl ThreadLock {
    /// Takes it; `None` while somebody else has it.
    pub(super) fn take(state_dir: &Path, thread: &str) -> io::Result<Option<ThreadLock>> {
        let locked = locked(state_dir, thread)?;
        Ok(locked.map(|file| ThreadLock { _file: file }))
    }
}

#[cfg(target_os = "linux")]
#[expect(clippy::cast_possible_truncation, reason = "the system's own small constants")]
fn locked(state_dir: &Path, thread: &str) -> io::Result<Option<File>> {
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    let file = open(&state_dir.join("thread-locks"))?;
    let one_byte = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: place_of(thread),
        l_len: 1,
        l_pid: 0,
    };
    // It belongs to what was opened here, not to the process: two calls of one server exclude each other.
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&one_byte)) {
        Ok(_) => Ok(Some(file)),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Which byte is a thread's: its id read as a number. What cannot be one names no thread, whoever invented it.
#[cfg(target_os = "linux")]
fn place_of(thread: &str) -> i64 {
    i64::from_str_radix(thread, 36).ok().filter(|place| (0..i64::MAX).contains(place)).unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
fn locked(state_dir: &Path, thread: &str) -> io::Result<Option<File>> {
    use std::fs::TryLockError;

    let folder = state_dir.join("locks");
    make_private(&folder)?;
    // An id is made of letters and digits; what a caller invents must not name another place.
    let name: String = thread.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    let file = open(&folder.join(name))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
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
        // Closing another one's file leaves it alone.
        assert!(ThreadLock::take(dir.path(), "a").unwrap().is_none());
        drop(held);
        assert!(ThreadLock::take(dir.path(), "a").unwrap().is_some());
    }
}
