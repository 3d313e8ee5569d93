//! One look at a project: its limits, its starting folder, and the listing of a folder.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::changes::{Gap, within};
use super::entry::{Entries, Facts, Listing, Names};
use super::mounts;

/// The limits of a look. A limit that was met is a gap in [`super::Changes::incomplete`].
#[derive(Debug, Clone, Copy)]
pub(super) struct LookLimits {
    /// The most files and folders that are compared; those nearest to the project's folder come first.
    pub(super) entries: usize,
    /// The longest that a look may take.
    pub(super) look: Duration,
}

pub(super) const LIMITS: LookLimits = LookLimits { entries: 300_000, look: Duration::from_secs(3) };

/// The state of a project at one time.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(super) ground: Ground,
    pub(super) limits: LookLimits,
    /// The folders of the project, parents before children.
    pub(super) folders: Vec<Listing>,
    pub(super) gaps: BTreeSet<Gap>,
}

/// The folders of a look, the same for both looks at a project.
#[derive(Debug, Clone)]
pub(super) struct Ground {
    /// The canonical path of the project.
    pub(super) root: PathBuf,
    /// The mount points inside the project, which are not entered.
    pub(super) mounts: BTreeSet<PathBuf>,
    /// Folders that the bridge writes to.
    own: Vec<PathBuf>,
}

impl Ground {
    /// The ground of a project. A missing project becomes a gap when it is listed.
    pub(super) fn new(project: &Path, own: &[PathBuf]) -> Ground {
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let root = real(project);
        Ground {
            mounts: mounts::below(&root),
            own: own.iter().map(|own| real(own)).collect(),
            root,
        }
    }
}

/// A look under way.
pub(super) struct Look<'a> {
    pub(super) ground: Ground,
    /// The most files and folders of this look.
    entries: usize,
    /// The number of files and folders listed so far.
    listed: usize,
    until: Instant,
    /// Returns true once the look shall end early.
    stopped: &'a dyn Fn() -> bool,
    pub(super) gaps: BTreeSet<Gap>,
}

impl Look<'_> {
    pub(super) fn new(ground: Ground, limits: LookLimits, stopped: &dyn Fn() -> bool) -> Look<'_> {
        let LookLimits { entries, look } = limits;
        let until = Instant::now() + look;
        Look { ground, entries, listed: 0, until, stopped, gaps: BTreeSet::new() }
    }

    /// Lists the entries of a folder that are compared; `None` when the look met a limit.
    pub(super) fn list(&mut self, folder: &Path, names: &Names) -> io::Result<Option<Entries>> {
        let mut entries = Entries::new();
        for found in fs::read_dir(folder)? {
            let is_full = self.listed + entries.len() == self.entries;
            if is_full || Instant::now() >= self.until || (self.stopped)() {
                // A second look may end before the first look did.
                self.gaps.retain(|gap| !matches!(gap, Gap::After(_)));
                self.gaps.insert(Gap::After(self.listed));
                return Ok(None);
            }
            let found = found?;
            let path = found.path();
            // Reading the type of a mount point may wait for its server.
            if self.ground.mounts.contains(&path) {
                if !names.leave_out(&path, true) {
                    self.gaps.insert(Gap::Mounted(within(&self.ground.root, &path)));
                }
                continue;
            }
            let facts = match found.metadata() {
                Ok(metadata) => Facts::from_metadata(&metadata),
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error),
            };
            if self.ground.own.contains(&path) || names.leave_out(&path, facts.kind.is_dir()) {
                continue;
            }
            entries.insert(found.file_name(), facts);
        }
        self.listed += entries.len();
        Ok(Some(entries))
    }

    /// Records a folder that could not be read.
    pub(super) fn unreadable(&mut self, folder: &Path, error: &io::Error) {
        let folder = within(&self.ground.root, folder);
        self.gaps.insert(Gap::Unreadable(folder, error.to_string()));
    }
}

/// Returns whether an entry was removed or replaced after its folder was listed.
pub(super) fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP];
    Errno::from_io_error(error).is_some_and(|error| gone.contains(&error))
}
