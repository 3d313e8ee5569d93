//! What is mounted inside a project. It is not entered: it is another file system, and one whose server
//! is gone makes whoever looks at it wait for ever.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// The most that is read of the list of mounts, bytes.
const LIST: u64 = 4 << 20;
/// What it usually takes, bytes.
const USUAL: usize = 16 << 10;

/// The mount points below a folder; none where the system does not tell.
pub(super) fn below(root: &Path) -> BTreeSet<PathBuf> {
    // The system makes the list anew for each piece of it that is asked for.
    let mut list = Vec::with_capacity(USUAL);
    if let Ok(file) = std::fs::File::open("/proc/self/mountinfo") {
        // What was read before an error is still true.
        let _ = file.take(LIST).read_to_end(&mut list);
    }
    points(&list).filter(|point| point.starts_with(root) && point != root).collect()
}

/// The fifth field of each line.
fn points(list: &[u8]) -> impl Iterator<Item = PathBuf> {
    list.split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b' ').nth(4))
        .map(|field| OsString::from_vec(unescape(field)).into())
}

/// White space and backslashes stand as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        let (byte, length) = match escaped.filter(|_| byte == b'\\') {
            Some(escaped) => (escaped, 3),
            None => (byte, 0),
        };
        bytes.push(byte);
        rest = &after[length..];
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_mounts_names_their_points() {
        let list = b"36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw\n\
            37 35 0:5 /a /home/me/my\\040project/\\134x\\012 rw - tmpfs none rw\n\
            broken line\n";
        let expected = ["/mnt", "/home/me/my project/\\x\n"].map(PathBuf::from);
        assert_eq!(points(list).collect::<Vec<_>>(), expected);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_systems_own_mounts_are_found() {
        assert!(below(Path::new("/")).contains(Path::new("/proc")));
        assert!(!below(Path::new("/proc")).contains(Path::new("/proc")));
    }
}
