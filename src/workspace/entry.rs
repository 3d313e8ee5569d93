//! One file or folder as the system describes it without its being opened, and a folder of them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, FileType, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::changes::What;
use super::rules::IgnoreRules;

/// One entry at one time. Times are seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) kind: FileType,
    inode: u64,
    /// Bytes.
    size: u64,
    /// The time of the last write, or whatever a program set it to.
    modified: (i64, i64),
    /// The time of the last change of anything about the entry; no program can set it.
    touched: (i64, i64),
    /// Permissions, owner and group.
    access: (u32, u32, u32),
}

impl Facts {
    pub(super) fn of(metadata: &Metadata) -> Facts {
        Facts {
            kind: metadata.file_type(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            touched: (metadata.ctime(), metadata.ctime_nsec()),
            access: (metadata.mode(), metadata.uid(), metadata.gid()),
        }
    }

    /// The difference from an earlier look. A folder's entries are compared one by one, and a pipe, a
    /// socket or a device changes whenever it is used.
    pub(super) fn since(&self, before: &Facts) -> Option<What> {
        let is_data = self.kind.is_file() || self.kind.is_symlink();
        let is_special = !is_data && !self.kind.is_dir();
        let written = |facts: &Facts| (facts.inode, facts.size, facts.modified);
        if self.kind != before.kind || (is_special && self.inode != before.inode) {
            Some(What::Replaced)
        } else if is_data && written(self) != written(before) {
            Some(What::Modified)
        } else if self.access != before.access {
            Some(What::Permissions)
        } else {
            (is_data && self.touched != before.touched).then_some(What::Modified)
        }
    }
}

/// The entries of a folder by name.
pub(super) type Entries = BTreeMap<OsString, Facts>;

/// The names of a folder that are compared.
#[derive(Debug, Clone)]
pub(super) enum Names {
    /// All that the rules of a repository do not ignore.
    Known {
        rules: IgnoreRules,
        /// The folder that the repository shares with its other working trees.
        common: Arc<Path>,
    },
    /// All, but not in folders that mark themselves as caches.
    NoCaches,
    /// These.
    Only(&'static [&'static str]),
    /// All but these paths and the locks of git.
    Except(Arc<[PathBuf]>),
}

impl Names {
    /// Whether an entry is not compared.
    pub(super) fn leave_out(&self, path: &Path, is_folder: bool) -> bool {
        match self {
            Names::Known { rules, .. } => rules.ignores(path, is_folder),
            Names::NoCaches => false,
            Names::Only(names) => !names.iter().any(|name| path.ends_with(name)),
            Names::Except(paths) => {
                path.extension().is_some_and(|extension| extension == "lock")
                    || paths.iter().any(|except| except == path)
            }
        }
    }
}

/// A folder and the entries that were found in it.
#[derive(Debug)]
pub(super) struct Listing {
    /// Absolute.
    pub(super) path: PathBuf,
    pub(super) names: Names,
    pub(super) entries: Entries,
    /// The time of the last change of a folder that this user may not enter. Nothing that runs as this
    /// user can change its contents without changing the folder.
    pub(super) closed: Option<(i64, i64)>,
}

impl Listing {
    /// A folder that is yet to be looked at.
    pub(super) fn new(path: PathBuf, names: Names) -> Listing {
        Listing { path, names, entries: Entries::new(), closed: None }
    }

    /// The time of the last change of anything about the folder, even of one that cannot be listed.
    pub(super) fn last_touched(&self) -> Option<(i64, i64)> {
        Some(Facts::of(&fs::symlink_metadata(&self.path).ok()?).touched)
    }
}
