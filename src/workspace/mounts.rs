//! The file systems that are mounted inside a project. A look does not enter them, since a server that does not answer
//! would block it for ever.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::bytes::{Captures, Regex};

/// The mount points below a folder; empty on a system that does not list them.
pub(crate) fn below(root: &Path) -> BTreeSet<PathBuf> {
    let list = fs::read("/proc/self/mountinfo").unwrap_or_default();
    points(&list).filter(|point| point.starts_with(root) && point != root).collect()
}

/// The mount points of network file systems that hold none of these paths. Their servers may not answer.
pub(crate) fn unused_network(used: &[&Path]) -> BTreeSet<PathBuf> {
    unused_network_in(&fs::read("/proc/self/mountinfo").unwrap_or_default(), used)
}

fn unused_network_in(list: &[u8], used: &[&Path]) -> BTreeSet<PathBuf> {
    let points = mounts(list).filter(|mount| mount.is_network).map(|mount| mount.point);
    points.filter(|point| !used.iter().any(|path| path.starts_with(point))).collect()
}

/// Returns the other paths at which these folders, or folders inside them, are mounted too. A path that a later mount
/// hides is left out, except on a network file system, which is not looked at.
pub(crate) fn aliases(folders: &[PathBuf]) -> Vec<PathBuf> {
    aliases_that_exist(&fs::read("/proc/self/mountinfo").unwrap_or_default(), folders)
}

fn aliases_that_exist(list: &[u8], folders: &[PathBuf]) -> Vec<PathBuf> {
    let mounts: Vec<Mount> = mounts(list).collect();
    let aliases = folders.iter().flat_map(|folder| aliases_in(&mounts, folder));
    aliases
        .filter(|(alias, is_network)| *is_network || alias.exists())
        .map(|(alias, _)| alias)
        .collect()
}

/// Returns the other paths of a folder. The flag is true for a path on a network file system.
fn aliases_in(mounts: &[Mount], folder: &Path) -> Vec<(PathBuf, bool)> {
    // A later mount hides an earlier one at the same place.
    let around = mounts.iter().filter(|mount| folder.starts_with(&mount.point));
    let Some(own) = around.max_by_key(|mount| mount.point.components().count()) else {
        return Vec::new();
    };
    let inside = |mount: &Mount| Some(mount.root.join(folder.strip_prefix(&mount.point).ok()?));
    let Some(inside) = inside(own) else { return Vec::new() };
    let others = mounts.iter().filter(|mount| mount.device == own.device);
    let aliases = others.filter_map(|mount| {
        let alias = match inside.strip_prefix(&mount.root) {
            Ok(rest) => mount.point.join(rest),
            Err(_) => mount.root.starts_with(&inside).then(|| mount.point.clone())?,
        };
        Some((alias, mount.is_network))
    });
    aliases.filter(|(alias, _)| !alias.starts_with(folder)).collect()
}

/// A line of `/proc/self/mountinfo`.
struct Mount {
    device: Vec<u8>,
    /// The folder inside the device's file system that is mounted.
    root: PathBuf,
    point: PathBuf,
    is_network: bool,
}

/// The kinds of file systems whose answers come from another machine, or from a program that may ask one.
const NETWORK: [&str; 13] = [
    "9p",
    "afs",
    "ceph",
    "cifs",
    "fuse",
    "gfs2",
    "glusterfs",
    "lustre",
    "ncpfs",
    "nfs",
    "ocfs2",
    "smb3",
    "smbfs",
];

/// Returns whether a kind of file system is in [`NETWORK`], or is a later version or a subtype of one (`nfs4`,
/// `fuse.sshfs`).
fn is_network(kind: &[u8]) -> bool {
    let kind = kind.split(|&byte| byte == b'.').next().unwrap_or_default();
    NETWORK.iter().any(|name| kind == name.as_bytes()) || kind == b"nfs4"
}

fn mounts(list: &[u8]) -> impl Iterator<Item = Mount> {
    list.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ').skip(2);
        let device = fields.next()?.to_vec();
        let (root, point) = (decoded(fields.next()?), decoded(fields.next()?));
        // The number of fields before a dash is not fixed; the kind of the file system follows it.
        let kind = fields.skip_while(|field| *field != b"-").nth(1);
        Some(Mount { device, root, point, is_network: kind.is_some_and(is_network) })
    })
}

fn points(list: &[u8]) -> impl Iterator<Item = PathBuf> {
    mounts(list).map(|mount| mount.point)
}

/// Decodes a path in which white space and backslashes are `\` and three octal digits.
fn decoded(field: &[u8]) -> PathBuf {
    let byte = |escape: &Captures<'_>| {
        let digits = str::from_utf8(&escape[1]).unwrap_or_default();
        [u8::from_str_radix(digits, 8).unwrap_or_default()]
    };
    OsString::from_vec(ESCAPE.replace_all(field, byte).into()).into()
}

#[expect(clippy::expect_used, reason = "every look uses it")]
static ESCAPE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\\([0-3][0-7]{2})").expect("the pattern compiles"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_from_the_list() {
        let list = b"36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw\n\
            37 35 0:5 /a /home/me/my\\040project/\\134x\\012 rw - tmpfs none rw\n\
            broken line\n";
        let expected = ["/mnt", "/home/me/my project/\\x\n"].map(PathBuf::from);
        assert_eq!(points(list).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_folder_is_found_at_every_path_where_it_is_mounted() {
        let list = b"1 0 8:1 / / rw - ext4 a rw\n2 1 0:5 / /tmp rw - tmpfs b rw\n3 1 8:1 /home/me /srv/me rw - x\n\
            4 1 8:1 /home /srv/all rw - x\n5 1 8:1 /home/me/.ssh /keys rw - x\n6 1 8:1 /usr /home/me/usr rw - x\n\
            7 1 8:1 /home/other /srv/other rw - x\n8 1 8:2 /home/me /disk rw - x\n9 1 8:1 /x /home/me/deep rw - x\n";
        let mounts: Vec<Mount> = mounts(list).collect();
        let check = |folder: &str, expected: &[&str]| {
            let expected: Vec<_> = expected.iter().map(|path| (path.into(), false)).collect();
            assert_eq!(aliases_in(&mounts, Path::new(folder)), expected, "{folder}");
        };
        check("/home/me", &["/srv/me", "/srv/all/me", "/keys"]);
        check("/srv/me", &["/home/me", "/srv/all/me", "/keys"]);
        check("/tmp/x", &[]);
        check("/var", &[]);
    }

    /// None of these paths exists.
    #[test]
    fn a_network_file_system_is_not_looked_at() {
        let list = b"1 0 0:9 / /none/me/nfs rw - nfs4 s:/x rw\n2 0 0:9 / /none/nfs rw shared:1 - nfs4 s:/x rw\n\
            3 0 8:2 / /none/me/disk rw - ext4 a rw\n4 0 8:2 / /none/disk rw - ext4 a rw\n\
            5 0 0:7 / /none/ssh rw - fuse.sshfs s rw\n6 0 0:8 / /none/pc rw - 9p C: rw\n";
        let folders = ["/none/me/nfs", "/none/me/disk"].map(PathBuf::from);
        assert_eq!(aliases_that_exist(list, &folders), [Path::new("/none/nfs")]);
        let unused = |used: &str| unused_network_in(list, &[Path::new(used)]);
        let all = ["/none/me/nfs", "/none/nfs", "/none/pc", "/none/ssh"].map(PathBuf::from);
        assert_eq!(unused("/none/me"), BTreeSet::from(all.clone()));
        assert_eq!(unused("/none/me/nfs/p"), all[1..].iter().cloned().collect());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_systems_own_mounts_are_found() {
        assert!(below(Path::new("/")).contains(Path::new("/proc")));
        assert!(!below(Path::new("/proc")).contains(Path::new("/proc")));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn each_look_finds_the_current_mounts() {
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
