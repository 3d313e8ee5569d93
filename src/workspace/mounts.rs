//! What is mounted inside a project. It is not entered: it is another file system, and one whose server
//! is gone makes whoever looks at it wait for ever.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The most that is read of the list of mounts, bytes.
const LIST: u64 = 4 << 20;
/// What it usually takes, bytes.
const USUAL: usize = 16 << 10;

/// The list of mounts, as it was when it was read.
#[derive(Debug)]
struct Mounts {
    points: Vec<PathBuf>,
    /// Stays open, since it tells when something was mounted or unmounted since.
    list: File,
}

/// Kept from one look to the next: the system makes the list anew for whoever reads it.
static KNOWN: Mutex<Option<Mounts>> = Mutex::new(None);

impl Mounts {
    /// The list, and whether it was read to its end: what was read before an error is still true.
    fn read() -> io::Result<(Mounts, bool)> {
        let list = File::open("/proc/self/mountinfo")?;
        // It is made anew for each piece that is asked for, too.
        let mut text = Vec::with_capacity(USUAL);
        let read = (&list).take(LIST).read_to_end(&mut text);
        Ok((Mounts { points: points(&text).collect(), list }, read.is_ok()))
    }

    /// The mount points below a folder.
    fn below(&self, root: &Path) -> BTreeSet<PathBuf> {
        let points = self.points.iter();
        points.filter(|point| point.starts_with(root) && *point != root).cloned().collect()
    }

    /// Whether it may be another one by now.
    fn is_old(&self) -> bool {
        let mut asked = [PollFd::new(&self.list, PollFlags::PRI)];
        let answered = poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        answered.is_err() || asked[0].revents().intersects(PollFlags::PRI | PollFlags::ERR)
    }
}

/// The mount points below a folder; none where the system does not tell.
pub(super) fn below(root: &Path) -> BTreeSet<PathBuf> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(mounts) = known.take_if(|mounts| !mounts.is_old()) {
        return known.insert(mounts).below(root);
    }
    let Ok((mounts, whole)) = Mounts::read() else { return BTreeSet::new() };
    let below = mounts.below(root);
    *known = whole.then_some(mounts);
    below
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

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_mounted_later_is_found_and_what_is_not_any_more_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let point = root.join("inside");
        std::fs::create_dir(&point).unwrap();
        assert_eq!(below(&root), BTreeSet::new());
        let run = |program: &str, args: &[&str]| {
            std::process::Command::new(program)
                .args(args)
                .arg(&point)
                .output()
                .is_ok_and(|output| output.status.success())
        };
        // Not everybody may mount, and nobody who may not sees the list change.
        if run("mount", &["-t", "tmpfs", "none"]) {
            assert_eq!(below(&root), BTreeSet::from([point.clone()]));
            assert!(run("umount", &[]));
            assert_eq!(below(&root), BTreeSet::new());
        }
    }
}
