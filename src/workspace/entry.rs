//! One file or folder as the system describes it without its being opened, and a folder's worth of them.

use std::ffi::{OsStr, OsString};
use std::fs::{self, FileType, Metadata};
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::rules::Rules;

/// The bits of a mode that say who may do what.
const PERMISSIONS: u32 = 0o7777;

/// What an entry is, as far as it matters how to compare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A folder.
    Folder,
    /// A regular file.
    File,
    /// A symbolic link; it is never followed.
    Link,
    /// A pipe, a socket or a device; it is never opened.
    Other,
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Kind {
        match (kind.is_dir(), kind.is_file(), kind.is_symlink()) {
            (true, _, _) => Kind::Folder,
            (_, true, _) => Kind::File,
            (_, _, true) => Kind::Link,
            (false, false, false) => Kind::Other,
        }
    }
}

/// What the system says of an entry. Times are nanoseconds since 1970, and may wrap: they are compared
/// for equality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) kind: Kind,
    /// Bytes.
    pub(super) size: u64,
    /// When the contents were last written, or whatever a program set it to.
    pub(super) modified: i64,
    /// When anything about it was last changed; no program can set it.
    pub(super) touched: i64,
    pub(super) inode: u64,
    /// Permissions, owner and group.
    pub(super) access: (u32, u32, u32),
}

impl Facts {
    pub(super) fn of(metadata: &Metadata) -> Facts {
        let facts = Facts {
            kind: Kind::from(metadata.file_type()),
            size: metadata.size(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            touched: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            access: (metadata.mode() & PERMISSIONS, metadata.uid(), metadata.gid()),
        };
        match facts.kind {
            Kind::File | Kind::Link => facts,
            // Its times move with whatever is made in it, be that ignored or not.
            Kind::Folder => Facts { access: facts.access, ..Facts::unknown(Kind::Folder) },
            // The times of a pipe or a terminal move when it is used.
            Kind::Other => {
                Facts { access: facts.access, inode: facts.inode, ..Facts::unknown(Kind::Other) }
            }
        }
    }

    /// When a path was last touched; 0 when the system does not tell.
    pub(super) fn last_touched(path: &Path) -> i64 {
        fs::symlink_metadata(path)
            .map_or(0, |metadata| nanoseconds(metadata.ctime(), metadata.ctime_nsec()))
    }

    /// For an entry whose folder tells names and nothing else.
    pub(super) fn unknown(kind: Kind) -> Facts {
        Facts { kind, size: 0, modified: 0, touched: 0, inode: 0, access: (0, 0, 0) }
    }
}

fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.wrapping_mul(1_000_000_000).wrapping_add(rest)
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Box<OsStr>,
    pub(super) facts: Facts,
    /// The hash of a file's contents or of a link's target, once known.
    pub(super) contents: Option<NonZeroU64>,
}

impl Entry {
    pub(super) fn new(name: OsString, facts: Facts) -> Entry {
        Entry { name: name.into_boxed_os_str(), facts, contents: None }
    }
}

/// Which names of a folder are looked at.
#[derive(Debug, Clone)]
pub(super) enum Names {
    /// Those that git would know, by the rules that hold there.
    Known {
        rules: Arc<Rules>,
        /// The place of the repository in the walk's list.
        repository: usize,
    },
    /// All but folders that mark themselves as caches.
    NoCaches,
    /// All.
    Every,
    /// These, and those that were found at the first look.
    Only(&'static [&'static str]),
}

/// How much of a folder was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Every name that matters: another one is new.
    Whole,
    /// Some: nothing can be said of other names.
    Partly,
    /// Nothing, as this user may neither list nor enter it, and what runs as this user cannot change it
    /// either. Holds when it was last touched, nanoseconds.
    Closed(i64),
}

/// A folder and what was found in it.
#[derive(Debug)]
pub(super) struct Folder {
    /// Absolute.
    pub(super) path: Box<Path>,
    pub(super) names: Names,
    pub(super) extent: Extent,
    /// In the order of their names.
    pub(super) entries: Vec<Entry>,
}

impl Folder {
    /// A folder that is yet to be looked at.
    pub(super) fn new(path: PathBuf, names: Names) -> Folder {
        Folder { path: path.into(), names, extent: Extent::Partly, entries: Vec::new() }
    }
}
