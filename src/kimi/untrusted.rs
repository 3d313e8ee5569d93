//! Access to files and folders that a run could write. A run may replace its files by a link, a pipe, a device, an
//! endless file or a very deep tree, so this file follows no link, never blocks, and reads and lists only up to a
//! limit.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// The mode of a folder that is closed to other users.
const PRIVATE: Mode = Mode::RWXU;
/// The most entries that are listed at once while a folder is emptied.
const BATCH: usize = 1_000;
/// The deepest nesting that is accepted. Programs nest their folders less deep.
const DEPTH: usize = 64;

/// Reads a file in a folder that no run could write. The path may contain links.
///
/// # Errors
/// If it is not a regular file, or has more than `most` bytes.
pub(super) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    // Opening a device may already have an effect.
    regular(rustix::fs::stat(path)?.st_mode)?;
    bounded(checked(rustix::fs::open(path, flags, Mode::empty())?)?, most)
}

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

impl Folder {
    /// Opens a folder that no run could replace. The path may contain links.
    pub(crate) fn trusted(path: &Path) -> io::Result<Folder> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Folder(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens a folder below this one.
    ///
    /// # Errors
    /// If a part of the path is a link.
    pub(crate) fn below(&self, path: impl AsRef<Path>) -> io::Result<Folder> {
        let mut folder = Folder(self.0.try_clone()?);
        for name in path.as_ref() {
            folder = folder.child(name)?;
        }
        Ok(folder)
    }

    /// Opens a folder below this one, and creates the missing parts of its path. The folder is closed to other users.
    ///
    /// # Errors
    /// If a part of the path is a link.
    pub(crate) fn make(&self, path: impl AsRef<Path>) -> io::Result<Folder> {
        let mut folder = Folder(self.0.try_clone()?);
        for name in path.as_ref() {
            match rustix::fs::mkdirat(&folder.0, name, PRIVATE) {
                Ok(()) | Err(Errno::EXIST) => folder = folder.child(name)?,
                Err(error) => return Err(error.into()),
            }
        }
        rustix::fs::fchmod(&folder.0, PRIVATE)?;
        Ok(folder)
    }

    /// Opens a folder in this one, and restores its permissions if necessary.
    fn child(&self, name: &OsStr) -> io::Result<Folder> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&self.0, name, flags, Mode::empty());
        match open() {
            Err(Errno::ACCESS) => {
                self.make_accessible(name)?;
                Ok(Folder(open()?))
            }
            opened => Ok(Folder(opened?)),
        }
    }

    /// Restores the user's permissions of a folder in this one, which a run may have removed.
    fn make_accessible(&self, name: &OsStr) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            // `fchmodat` follows links on older kernels, so the folder is changed by its descriptor.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let folder = rustix::fs::openat(&self.0, name, flags, Mode::empty())?;
            let number = std::os::fd::AsRawFd::as_raw_fd(&folder);
            rustix::fs::chmod(format!("/proc/self/fd/{number}"), PRIVATE)?;
        }
        #[cfg(not(target_os = "linux"))]
        rustix::fs::chmodat(&self.0, name, PRIVATE, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    /// Returns the type of an entry, if it exists. A link is not followed.
    pub(crate) fn kind(&self, name: &OsStr) -> Option<FileType> {
        let entry = rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(FileType::from_raw_mode(entry.st_mode))
    }

    /// Opens a regular file in this folder, without blocking.
    ///
    /// # Errors
    /// If it is not a regular file.
    pub(crate) fn open(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        let name = name.as_ref();
        // Opening a device may already have an effect.
        regular(rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)?;
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        checked(rustix::fs::openat(&self.0, name, flags, Mode::empty())?)
    }

    /// Reads a regular file in this folder.
    ///
    /// # Errors
    /// If it is not a regular file, or has more than `most` bytes.
    pub(crate) fn read(&self, name: impl AsRef<OsStr>, most: u64) -> io::Result<Vec<u8>> {
        bounded(self.open(name)?, most)
    }

    /// Returns the names of up to `most` entries, in no order.
    pub(crate) fn entries(&self, most: usize) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
            if names.len() >= most {
                break;
            }
        }
        Ok(names)
    }

    /// Writes or replaces a file atomically, closed to other users.
    ///
    /// # Errors
    /// If a folder has that name.
    pub(crate) fn write(&self, name: impl AsRef<OsStr>, bytes: &[u8]) -> io::Result<()> {
        self.put(name.as_ref(), |file| file.write_all(bytes))
    }

    /// Writes a file as [`Folder::write`] does, and waits until it is on the disk.
    pub(crate) fn write_durably(&self, name: impl AsRef<OsStr>, bytes: &[u8]) -> io::Result<()> {
        self.put(name.as_ref(), |file| file.write_all(bytes).and_then(|()| file.sync_all()))
    }

    fn put(&self, name: &OsStr, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let temporary = unused_name();
        let file = rustix::fs::openat(&self.0, &temporary, flags, Mode::RUSR | Mode::WUSR)?;
        let written = write(&mut File::from(file))
            .and_then(|()| Ok(rustix::fs::renameat(&self.0, &temporary, &self.0, name)?));
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&self.0, &temporary, AtFlags::empty());
        }
        written
    }

    /// Moves an entry into another folder.
    ///
    /// # Errors
    /// If an entry with the new name cannot be replaced.
    pub(crate) fn move_to(&self, name: &OsStr, to: &Folder, new_name: &OsStr) -> io::Result<()> {
        let rename = || rustix::fs::renameat(&self.0, name, &to.0, new_name);
        match rename() {
            // A folder without write permission cannot be moved.
            Err(Errno::ACCESS) => {
                self.make_accessible(name)?;
                Ok(rename()?)
            }
            done => Ok(done?),
        }
    }

    /// Removes an entry: deletes a file or a link, and moves a folder into the trash.
    pub(crate) fn discard(&self, name: impl AsRef<OsStr>, trash: &Folder) -> io::Result<()> {
        let name = name.as_ref();
        match self.kind(name) {
            None => Ok(()),
            Some(FileType::Directory) => self.move_to(name, trash, &unused_name()),
            Some(_) => Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?),
        }
    }

    /// Removes a file or a link, if it exists.
    pub(crate) fn remove_file(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.0, name.as_ref(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the time since an entry was changed; zero if unknown.
    pub(crate) fn age(&self, name: &Path) -> Duration {
        let entry = rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW);
        let seconds = entry.ok().and_then(|entry| u64::try_from(entry.st_mtime).ok());
        let changed = seconds.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        changed.and_then(|changed| changed.elapsed().ok()).unwrap_or_default()
    }

    /// Returns whether this folder has more entries, takes more bytes on the disk, or is nested deeper than [`DEPTH`].
    #[must_use]
    pub(crate) fn exceeds(&self, mut bytes: u64, mut entries: usize) -> bool {
        !self.fits(&mut bytes, &mut entries, DEPTH)
    }

    fn fits(&self, bytes: &mut u64, entries: &mut usize, depth: usize) -> bool {
        let names = self.entries(*entries + 1).or_else(|_| {
            rustix::fs::fchmod(&self.0, PRIVATE)?;
            self.entries(*entries + 1)
        });
        names.unwrap_or_default().into_iter().all(|name| {
            // A removed entry takes no space.
            let Ok(entry) = rustix::fs::statat(&self.0, &name, AtFlags::SYMLINK_NOFOLLOW) else {
                return true;
            };
            let taken = u64::try_from(entry.st_blocks).unwrap_or_default() * 512;
            let (Some(rest), Some(more)) = (bytes.checked_sub(taken), entries.checked_sub(1))
            else {
                return false;
            };
            (*bytes, *entries) = (rest, more);
            let is_folder = FileType::from_raw_mode(entry.st_mode) == FileType::Directory;
            let fits =
                |depth| self.child(&name).map_or(true, |folder| folder.fits(bytes, entries, depth));
            !is_folder || depth.checked_sub(1).is_some_and(fits)
        })
    }

    /// Removes up to `most` entries of this folder and the folders in it. Each inner folder is first moved into this
    /// one, so that a deep tree needs neither recursion nor long paths.
    pub(crate) fn clear(&self, most: usize) {
        let mut left = most;
        while let Ok(names) = self.entries(BATCH)
            && !names.is_empty()
        {
            for name in names {
                let Some(rest) = left.checked_sub(1) else { return };
                left = rest;
                if self.unlink(&name).is_err() {
                    self.flatten(&name, &mut left);
                }
            }
        }
    }

    /// Removes a file, a link or an empty folder.
    fn unlink(&self, name: &OsStr) -> io::Result<()> {
        let folder = self.kind(name) == Some(FileType::Directory);
        let flags = if folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        Ok(rustix::fs::unlinkat(&self.0, name, flags)?)
    }

    /// Removes the files of a folder in this one, and moves its folders into this one.
    fn flatten(&self, name: &OsStr, left: &mut usize) {
        let Ok(folder) = self.child(name) else { return };
        let _ = rustix::fs::fchmod(&folder.0, PRIVATE);
        while let Ok(names) = folder.entries(BATCH)
            && !names.is_empty()
        {
            for name in names {
                let Some(rest) = left.checked_sub(1) else { return };
                *left = rest;
                if folder.unlink(&name).is_err() {
                    let _ = folder.move_to(&name, self, &unused_name());
                }
            }
        }
        let _ = self.unlink(name);
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Returns a random name.
fn unused_name() -> OsString {
    let mut bytes = [0; 12];
    // Without random bytes, the name may be taken and the operation fails.
    let _ = getrandom::fill(&mut bytes);
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(".{}", digits.concat()).into()
}

/// Returns the opened file if it is a regular one. It may have been replaced since the first check.
fn checked(file: OwnedFd) -> io::Result<File> {
    regular(rustix::fs::fstat(&file)?.st_mode)?;
    Ok(File::from(file))
}

fn regular(mode: rustix::fs::RawMode) -> io::Result<()> {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

fn bounded(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too large"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::process::Command;

    use super::*;

    #[test]
    fn only_a_regular_file_within_the_size_limit_is_read() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::trusted(root.path()).unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("file"), "1234").unwrap();
        symlink("file", at("link")).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        File::create(at("sparse")).unwrap().set_len(1 << 40).unwrap();
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        let check = |name: &str, most: u64, expected: Option<&[u8]>| {
            assert_eq!(folder.read(name, most).ok().as_deref(), expected, "{name}");
        };
        check("file", 4, Some(b"1234"));
        check("file", 3, None);
        for name in ["link", "zero", "folder", "sparse", "pipe", "none"] {
            check(name, 1_000, None);
        }
        assert_eq!(read(&at("link"), 4).unwrap(), b"1234");
        assert!(read(&at("zero"), 4).is_err() && read(&at("pipe"), 4).is_err());
    }

    #[test]
    fn no_link_is_followed_on_the_way_to_a_folder() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("real/deep")).unwrap();
        symlink("real", root.path().join("link")).unwrap();
        let folder = Folder::trusted(root.path()).unwrap();
        assert!(folder.below("real/deep").is_ok());
        assert!(folder.below("link/deep").is_err());
        assert!(folder.make("link/new").is_err());
        folder.make("new/deep").unwrap().write("f", b"x").unwrap();
        let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode();
        assert_eq!((mode("new/deep") & 0o777, mode("new/deep/f") & 0o777), (0o700, 0o600));
    }

    #[test]
    fn a_folder_is_measured_by_size_entries_and_depth() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::trusted(root.path()).unwrap();
        folder.make("a/b").unwrap().write("f", &vec![0; 50_000]).unwrap();
        symlink("/", root.path().join("link")).unwrap();
        File::create(root.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
        assert!(!folder.exceeds(200_000, 5));
        assert!(folder.exceeds(200_000, 4) && folder.exceeds(40_000, 5));
        folder.make(["d"; DEPTH].join("/")).unwrap();
        assert!(!folder.exceeds(1_000_000, 100));
        folder.make(["d"; DEPTH + 2].join("/")).unwrap();
        assert!(folder.exceeds(1_000_000, 100));
    }

    #[test]
    fn a_deep_tree_is_removed_without_following_links() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("users")).unwrap();
        fs::write(root.path().join("users/file"), "x").unwrap();
        let folder = Folder::trusted(root.path()).unwrap();
        let trash = folder.make("trash").unwrap();
        let mut deep = folder.make("deep").unwrap();
        for level in 0..3_000 {
            rustix::fs::symlinkat(root.path().join("users"), &deep, "link").unwrap();
            rustix::fs::mkdirat(&deep, "d", Mode::RWXU).unwrap();
            let next = deep.child(OsStr::new("d")).unwrap();
            if level % 100 == 0 {
                rustix::fs::fchmod(&deep, Mode::empty()).unwrap();
            }
            deep = next;
        }
        folder.discard("deep", &trash).unwrap();
        assert!(!root.path().join("deep").exists());
        trash.clear(100);
        assert!(!trash.entries(1).unwrap().is_empty(), "the limit was ignored");
        trash.clear(50_000);
        assert_eq!(trash.entries(1).unwrap(), Vec::<OsString>::new());
        assert_eq!(fs::read(root.path().join("users/file")).unwrap(), b"x");
    }
}
