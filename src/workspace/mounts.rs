//! The file systems that are mounted inside a project. They are not entered: looking at one whose server
//! does not answer never ends.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::bytes::{Captures, Regex};

/// The mount points below a folder; none on a system that does not list them.
pub(super) fn below(root: &Path) -> BTreeSet<PathBuf> {
    let list = fs::read("/proc/self/mountinfo").unwrap_or_default();
    points(&list).filter(|point| point.starts_with(root) && point != root).collect()
}

/// The fifth field of each line, in which white space and backslashes are written as `\` and three octal digits.
fn points(list: &[u8]) -> impl Iterator<Item = PathBuf> {
    let decoded = |escape: &Captures<'_>| {
        let digits = str::from_utf8(&escape[1]).unwrap_or_default();
        [u8::from_str_radix(digits, 8).unwrap_or_default()]
    };
    list.split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b' ').nth(4))
        .map(move |field| OsString::from_vec(ESCAPE.replace_all(field, decoded).into()).into())
}

#[expect(clippy::expect_used, reason = "every look uses it")]
static ESCAPE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\\([0-3][0-7]{2})").expect("the pattern compiles"));

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
    fn each_look_finds_what_is_mounted_then() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let point = root.join("inside");
        fs::create_dir(&point).unwrap();
        assert_eq!(below(&root), BTreeSet::new());
        let run = |program: &str, args: &[&str]| {
            std::process::Command::new(program)
                .args(args)
                .arg(&point)
                .output()
                .is_ok_and(|output| output.status.success())
        };
        // Mounting needs rights that few users have.
        if run("mount", &["-t", "tmpfs", "none"]) {
            assert_eq!(below(&root), BTreeSet::from([point.clone()]));
            assert!(run("umount", &[]));
            assert_eq!(below(&root), BTreeSet::new());
        }
    }
}
