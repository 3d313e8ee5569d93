//! Opens and reads files that somebody else may have put there: regular ones only, bounded, and never
//! waited for.

use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _};
use std::num::NonZeroU64;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{Mode, OFlags};

use super::entry::Facts;

/// Opens a regular file. Anything else is refused before it is opened, since opening a pipe would wait
/// and opening a device may act, and once more after it, since it may have been replaced meanwhile.
fn open(path: &Path) -> io::Result<File> {
    let regular = |is_file: bool| is_file.then_some(()).ok_or(io::ErrorKind::InvalidInput);
    regular(fs::symlink_metadata(path)?.is_file())?;
    let flags =
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    regular(file.metadata()?.is_file())?;
    Ok(file)
}

/// The whole of a regular file of up to `limit` bytes.
pub(super) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// A small text file without the white space at its ends.
pub(super) fn read_line(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&read(path, 8 << 10)?).trim().to_owned())
}

/// Whether this is a regular file that begins with these bytes.
pub(super) fn starts_with(path: &Path, bytes: &[u8]) -> bool {
    let mut head = vec![0; bytes.len()];
    open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok_and(|()| head == bytes)
}

/// Reads contents until its bytes or its time are spent.
pub(super) struct Reader {
    /// Bytes that may still be read.
    left: u64,
    until: Instant,
    /// Kept from one file to the next.
    buffer: Vec<u8>,
}

impl Reader {
    pub(super) fn new(bytes: u64, until: Instant) -> Reader {
        Reader { left: bytes, until, buffer: Vec::new() }
    }

    pub(super) fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }

    /// The hash of a file that still has these facts when it has been read.
    pub(super) fn hash(
        &mut self,
        path: &Path,
        facts: &Facts,
        seal: &RandomState,
    ) -> Option<NonZeroU64> {
        if facts.size > self.left || self.is_late() {
            return None;
        }
        let file = open(path).ok()?;
        self.buffer.clear();
        let read = (&file).take(facts.size + 1).read_to_end(&mut self.buffer).ok()?;
        self.left = self.left.saturating_sub(read as u64);
        let after = Facts::of(&file.metadata().ok()?);
        (after == *facts).then(|| seal_bytes(seal, &self.buffer)).flatten()
    }
}

/// A hash that is `None` once in 2^64 times, which then counts as unknown.
pub(super) fn seal_bytes(seal: &RandomState, bytes: &[u8]) -> Option<NonZeroU64> {
    NonZeroU64::new(seal.hash_one(bytes))
}
