//! How a folder is listed, the same at both looks.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::hash::RandomState;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::io::Errno;

use super::contents::seal_bytes;
use super::entry::{Entry, Extent, Facts, Folder, Kind, Names};
use super::mounts;

/// Where a look happens, and what it passes over.
#[derive(Debug, Clone)]
pub(super) struct Ground {
    /// The project, without links.
    pub(super) root: PathBuf,
    /// What is mounted inside.
    pub(super) mounts: BTreeSet<PathBuf>,
    /// Folders that the bridge writes to.
    pub(super) own: Vec<PathBuf>,
    /// The keys of the hashes.
    pub(super) seal: RandomState,
}

/// What a look may still spend.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) entries: usize,
    pub(super) until: Instant,
}

impl Budget {
    pub(super) fn is_spent(&self) -> bool {
        self.entries == 0 || Instant::now() >= self.until
    }
}

impl Ground {
    /// The ground of a project; one that cannot be found is told when it is listed.
    pub(super) fn new(project: &Path, own: &[PathBuf]) -> Ground {
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let root = real(project);
        Ground {
            mounts: mounts::below(&root),
            own: own.iter().map(|own| real(own)).collect(),
            seal: RandomState::new(),
            root,
        }
    }

    /// What stands in a folder now, in the order of names. Calls `mounted` for what it passes over
    /// because it is mounted there.
    pub(super) fn list(
        &self,
        folder: &Folder,
        budget: &mut Budget,
        mut mounted: impl FnMut(PathBuf),
    ) -> io::Result<(Vec<Entry>, Extent)> {
        if let Names::Only(names) = folder.names {
            return Ok(self.at(&folder.path, names.iter().map(OsStr::new), budget));
        }
        let mut entries = Vec::new();
        for found in fs::read_dir(&folder.path)? {
            if budget.is_spent() {
                entries.sort_unstable_by(by_name);
                return Ok((entries, Extent::Partly));
            }
            let found = found?;
            let path = found.path();
            // A mount point is not even asked what it is.
            if self.mounts.contains(&path) {
                if !folder.names.leave_out(&path, true) {
                    mounted(path);
                }
                continue;
            }
            let Ok(kind) = found.file_type() else { continue };
            if folder.names.leave_out(&path, kind.is_dir()) || self.own.contains(&path) {
                continue;
            }
            let facts = match found.metadata() {
                Ok(metadata) => Facts::of(&metadata),
                Err(error) if is_gone(&error) => continue,
                Err(_) => Facts::unknown(Kind::from(kind)),
            };
            entries.push(self.entry(&path, found.file_name(), facts));
            budget.entries -= 1;
        }
        entries.sort_unstable_by(by_name);
        Ok((entries, Extent::Whole))
    }

    /// What stands under these names of a folder.
    pub(super) fn at<'a>(
        &self,
        folder: &Path,
        names: impl Iterator<Item = &'a OsStr>,
        budget: &mut Budget,
    ) -> (Vec<Entry>, Extent) {
        let mut entries = Vec::new();
        let mut extent = Extent::Whole;
        for name in names {
            if budget.is_spent() {
                extent = Extent::Partly;
                break;
            }
            let path = folder.join(name);
            if let Ok(metadata) = fs::symlink_metadata(&path) {
                entries.push(self.entry(&path, name.to_owned(), Facts::of(&metadata)));
                budget.entries -= 1;
            }
        }
        entries.sort_unstable_by(by_name);
        (entries, extent)
    }

    /// Whether a path is a mount point or lies below one.
    pub(super) fn is_mounted(&self, path: &Path) -> bool {
        !self.mounts.is_empty() && path.ancestors().any(|above| self.mounts.contains(above))
    }

    fn entry(&self, path: &Path, name: OsString, facts: Facts) -> Entry {
        let mut entry = Entry::new(name, facts);
        if facts.kind == Kind::Link {
            let target = fs::read_link(path).unwrap_or_default();
            entry.contents = seal_bytes(&self.seal, target.as_os_str().as_bytes());
        }
        entry
    }
}

impl Names {
    fn leave_out(&self, path: &Path, is_folder: bool) -> bool {
        match self {
            Names::Known { rules, .. } => rules.ignores(path, is_folder),
            Names::NoCaches | Names::Every | Names::Only(_) => false,
        }
    }
}

/// Whether somebody removed or replaced what was to be looked at.
pub(super) fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP];
    Errno::from_io_error(error).is_some_and(|error| gone.contains(&error))
}

fn by_name(a: &Entry, b: &Entry) -> std::cmp::Ordering {
    a.name.cmp(&b.name)
}
