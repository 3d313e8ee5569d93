//! The metadata of a file or folder, read without opening it, and the listing of a folder.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, FileType, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::changes::ChangeKind;
use super::rules::IgnoreRules;

/// The metadata of an entry at one time. Times are seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) kind: FileType,
    inode: u64,
    /// Bytes.
    size: u64,
    /// The time of the last write, which any program can set.
    modified: (i64, i64),
    /// The time of the last change of the contents or metadata (`ctime`), which no program can set.
    touched: (i64, i64),
    /// Permissions, owner and group.
    access: (u32, u32, u32),
}

impl Facts {
    pub(super) fn from_metadata(metadata: &Metadata) -> Facts {
        Facts {
            kind: metadata.file_type(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            touched: (metadata.ctime(), metadata.ctime_nsec()),
            access: (metadata.mode(), metadata.uid(), metadata.gid()),
        }
    }

    /// Returns the difference from an earlier look. A folder's entries are compared one by one, and a pipe, a socket or
    /// a device changes whenever it is used.
    pub(super) fn since(&self, before: &Facts) -> Option<ChangeKind> {
        let is_data = self.kind.is_file() || self.kind.is_symlink();
        let is_special = !is_data && !self.kind.is_dir();
        let written = |facts: &Facts| (facts.inode, facts.size, facts.modified);
        if self.kind != before.kind || (is_special && self.inode != before.inode) {
            Some(ChangeKind::Replaced)
        } else if is_data && written(self) != written(before) {
            Some(ChangeKind::Modified)
        } else if self.access != before.access {
            Some(ChangeKind::Permissions)
        } else {
            (is_data && self.touched != before.touched).then_some(ChangeKind::Modified)
        }
    }
}

/// The entries of a folder by name.
pub(super) type Entries = BTreeMap<OsString, Facts>;

/// The choice of the names in a folder that are compared.
#[derive(Debug, Clone)]
pub(super) enum Names {
    /// All names that the rules of a repository do not ignore.
    Known {
        rules: IgnoreRules,
        /// The folder that the repository shares with its other working trees.
        common: Arc<Path>,
    },
    /// All names, except in folders that are marked as caches.
    NoCaches,
    /// Only these names.
    Only(&'static [&'static str]),
    /// All names except these paths and the locks of git.
    Except(Arc<[PathBuf]>),
}

impl Names {
    /// Returns whether an entry is left out of the comparison.
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

/// A folder and its entries.
#[derive(Debug)]
pub(super) struct Listing {
    /// Absolute.
    pub(super) path: PathBuf,
    pub(super) names: Names,
    pub(super) entries: Entries,
    /// The time of the last change of a folder that this user may not enter. A process of this user cannot change its
    /// contents without changing the folder.
    pub(super) closed: Option<(i64, i64)>,
}

impl Listing {
    /// A folder that is not yet listed.
    pub(super) fn new(path: PathBuf, names: Names) -> Listing {
        Listing { path, names, entries: Entries::new(), closed: None }
    }

    /// The time of the last change of the folder itself, available even if the folder cannot be listed.
    pub(super) fn last_touched(&self) -> Option<(i64, i64)> {
        Some(Facts::from_metadata(&fs::symlink_metadata(&self.path).ok()?).touched)
    }
}
