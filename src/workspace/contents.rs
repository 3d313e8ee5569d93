//! Reads small files that another program may have put there. Only regular files are opened, and no read waits.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Opens a regular file. The type is checked before, since opening a device may already have an effect, and again
/// afterwards, since the file may have been replaced meanwhile.
fn open(path: &Path) -> io::Result<File> {
    let regular = |is_file: bool| is_file.then_some(()).ok_or(io::ErrorKind::InvalidInput);
    regular(fs::symlink_metadata(path)?.is_file())?;
    let flags =
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    regular(file.metadata()?.is_file())?;
    Ok(file)
}

/// Reads a regular file of up to `limit` bytes.
pub(super) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// Reads a small text file, without the white space at its ends.
pub(super) fn read_line(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&read(path, 8 << 10)?).trim().to_owned())
}

/// Returns whether a path is a regular file that begins with these bytes.
pub(super) fn starts_with(path: &Path, bytes: &[u8]) -> bool {
    let mut head = vec![0; bytes.len()];
    open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok_and(|()| head == bytes)
}
