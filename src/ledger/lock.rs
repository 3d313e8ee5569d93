//! One call at a time on a thread, across processes: an advisory lock that the kernel releases whatever
//! becomes of its holder. All threads share a file and each has a byte of it, since to make a file takes
//! longer than all else that opens a thread; where there are no such locks, each has a file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The right to work on a thread, until it is dropped.
#[derive(Debug)]
pub struct ThreadLock {
    _files: Vec<File>,
}

impl ThreadLock {
    /// Takes it; `None` while somebody else has it.
    pub(super) fn take(state_dir: &Path, thread: &str) -> io::Result<Option<ThreadLock>> {
        let lock = |files| Some(ThreadLock { _files: files });
        match byte(state_dir, thread)? {
            Taken::Ours(byte) => {
                // A bridge of before there were bytes locks the file that it has made of a thread.
                let older = OpenOptions::new().write(true).open(file_of(state_dir, thread));
                let older = match older {
                    Ok(file) => whole(file)?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        return Ok(lock(vec![byte]));
                    }
                    Err(error) => return Err(error),
                };
                Ok(older.and_then(|older| lock(vec![byte, older])))
            }
            Taken::Others => Ok(None),
            Taken::Cannot => {
                make_private(&state_dir.join(FOLDER))?;
                let file = whole(open(&file_of(state_dir, thread))?)?;
                Ok(file.and_then(|file| lock(vec![file])))
            }
        }
    }
}

/// Whose a thread's byte is.
enum Taken {
    Ours(File),
    Others,
    /// There are no such locks here, or it has no byte.
    Cannot,
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[expect(clippy::cast_possible_truncation, reason = "the system's own small constants")]
fn byte(state_dir: &Path, thread: &str) -> io::Result<Taken> {
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    let Some(place) = place_of(thread) else { return Ok(Taken::Cannot) };
    make_private(state_dir)?;
    let file = open(&state_dir.join("thread-locks"))?;
    let one_byte = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: place,
        l_len: 1,
        l_pid: 0,
    };
    // It belongs to what was opened here, not to the process: two calls of one server exclude each other.
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&one_byte)) {
        Ok(_) => Ok(Taken::Ours(file)),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(Taken::Others),
        // Some file systems, and systems that play Linux, know none.
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::ENOLCK) => Ok(Taken::Cannot),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
fn byte(_: &Path, _: &str) -> io::Result<Taken> {
    Ok(Taken::Cannot)
}

/// Which byte is a thread's: its id read as a number, if it is written as ids are. Ids of one length have
/// bytes of their own.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn place_of(thread: &str) -> Option<i64> {
    let is_id = thread.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    if is_id {
        i64::from_str_radix(thread, 36).ok().filter(|&place| place < i64::MAX)
    } else {
        None
    }
}

/// Where the files lie that lock a thread each.
const FOLDER: &str = "locks";

/// The file that locks a thread where it has no byte.
fn file_of(state_dir: &Path, thread: &str) -> PathBuf {
    // An id is made of letters and digits; what a caller invents must not name another place.
    let name: String = thread.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    state_dir.join(FOLDER).join(name)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// Locks a whole file; `None` while somebody else has it.
fn whole(file: File) -> io::Result<Option<File>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Makes a folder and its parents; what is made is readable by nobody else.
pub(super) fn make_private(folder: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_free(dir: &Path, thread: &str) -> bool {
        ThreadLock::take(dir, thread).unwrap().is_some()
    }

    #[test]
    fn a_thread_is_taken_once_and_another_one_is_free() {
        // As they are made, one that has no byte, and one that a caller invented.
        for [one, other] in [["9f3c01ab27", "0f3c01ab27"], ["A", "B"], ["../x", "a-b"]] {
            let dir = tempfile::tempdir().unwrap();
            let held = ThreadLock::take(dir.path(), one).unwrap();
            assert!(held.is_some() && !is_free(dir.path(), one) && is_free(dir.path(), other));
            // Closing what was opened in vain leaves the lock alone.
            assert!(!is_free(dir.path(), one));
            drop(held);
            assert!(is_free(dir.path(), one));
        }
    }

    #[test]
    fn a_thread_that_an_older_bridge_works_on_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        make_private(&dir.path().join(FOLDER)).unwrap();
        let older = open(&file_of(dir.path(), "9f3c01ab27")).unwrap();
        older.lock().unwrap();
        assert!(!is_free(dir.path(), "9f3c01ab27") && is_free(dir.path(), "9f3c01ab28"));
        drop(older);
        assert!(is_free(dir.path(), "9f3c01ab27"));
    }

    #[test]
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    fn every_id_has_a_byte_of_its_own() {
        let check = |id: &str, place| assert_eq!(place_of(id), place, "{id}");
        check("0000000000", Some(0));
        check("ffffffffff", Some(1_566_925_045_741_275));
        check("zzzzzzzzzzzzzz", None);
        check("+abc", None);
        check("", None);
    }
}
