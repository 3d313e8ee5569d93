//! The proof that the project did not change: its state before a run and after it, compared.
//!
//! A [`Snapshot`] is taken before the run, remembers contents while the run goes on, and tells the
//! [`Changes`] afterwards. It says that something changed *while* Kimi ran, never that Kimi did it:
//! the person's own editor saves files too.
//!
//! # What it rests on
//!
//! - Git is not asked. A project's `.git/config` can name programs that `git status` then runs
//!   (`core.fsmonitor`, filters), and nothing would confine them. The same facts are only read here.
//! - The time at which an entry was last touched (`ctime`) cannot be set by a program, unlike the time
//!   of modification. Equal facts mean an untouched file; what was touched and what was changed are
//!   told apart by contents. These are kept as `SipHash` with random keys: who does not know the keys
//!   and does not see the result cannot look for another text with the same hash.
//! - Times advance in ticks, so [`Snapshot::take`] waits for the tick to pass if a file was touched in
//!   the very one in which it looked.
//! - The rules that say what is ignored are those of the first look. A run cannot hide a file by
//!   writing a `.gitignore`.
//! - Of the `ignore` crate only the matcher is used. Its walker opens whatever is called `.gitignore`,
//!   and waits for ever when that is a pipe.
//!
//! # What is compared
//!
//! In a repository, all that its `.gitignore` files and `info/exclude` do not ignore. A file that they
//! ignore is not compared, even if git tracks it. The user's global ignore file is not read, as that
//! would need their environment; more is compared without it. Of `.git`, what changes how git behaves or where
//! branches stand, and not what a background fetch or an editor's `git status` rewrites. Elsewhere
//! everything, but for folders that mark themselves as caches (`CACHEDIR.TAG`).
//!
//! # What escapes it
//!
//! Files that git ignores; other working trees of the same repository and their branches; memory that
//! was mapped for writing before the first look; a superuser who turns the clock back.

mod changes;
mod compare;
mod contents;
mod entry;
#[cfg(test)]
mod fixture;
mod ground;
mod mounts;
mod repository;
mod rules;
mod walk;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use changes::Gaps;
pub use changes::{Change, Changes, Gap, What};
use contents::Reader;
use entry::{Folder, Kind};
use ground::Ground;
use repository::Repository;

/// Longer than any tick of a kernel's clock.
const TICK: Duration = Duration::from_millis(20);

/// How far the looks go. A limit that was met is told as a [`Gap`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Files and folders that are compared; those nearest to the project's folder come first.
    pub entries: usize,
    /// The longest that each of the two looks may take.
    pub look: Duration,
    /// Bytes of all files whose contents are remembered; those modified last come first.
    pub contents: u64,
    /// Bytes of one such file.
    pub file: u64,
    /// The longest that reading contents may take, on each side of the run.
    pub reading: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            entries: 300_000,
            look: Duration::from_secs(3),
            contents: 64 << 20,
            file: 4 << 20,
            reading: Duration::from_secs(1),
        }
    }
}

/// The state of a project at one time.
#[derive(Debug)]
pub struct Snapshot {
    ground: Ground,
    limits: Limits,
    /// Parents before what they hold.
    folders: Vec<Folder>,
    repositories: Vec<Repository>,
    gaps: Gaps,
}

impl Snapshot {
    /// Looks at a project without opening its files. What cannot be looked at is told by
    /// [`Snapshot::changes`]. The folders in `own` are left out: the bridge itself writes there. Blocks,
    /// as its other functions do, for as long as the limits say.
    #[must_use]
    pub fn take(project: &Path, own: &[PathBuf], limits: &Limits) -> Snapshot {
        let snapshot = walk::walk(Ground::new(project, own), limits);
        snapshot.let_the_tick_pass();
        snapshot
    }

    /// How many files and folders are compared.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.folders.iter().map(|folder| folder.entries.len()).sum()
    }

    /// Reads the files, so that a touched one can be told from a changed one. May run beside Kimi, on
    /// a thread of its own: a file counts only if it is still as the first look found it. Ends when
    /// `stopped` says so.
    pub fn remember_contents(&mut self, stopped: impl Fn() -> bool) {
        let Limits { contents, file, reading, .. } = self.limits;
        let mut order = Vec::new();
        for (at, folder) in self.folders.iter().enumerate() {
            for (nth, entry) in folder.entries.iter().enumerate() {
                if entry.facts.kind == Kind::File && (1..=file).contains(&entry.facts.size) {
                    order.push((entry.facts.modified, at, nth));
                }
            }
        }
        // A file that was edited lately is the likeliest to be saved again.
        order.sort_unstable_by(|a, b| b.cmp(a));
        let mut reader = Reader::new(contents, Instant::now() + reading);
        for (_, at, nth) in order {
            if stopped() || reader.is_late() {
                return;
            }
            let folder = &mut self.folders[at];
            let entry = &mut folder.entries[nth];
            let path = folder.path.join(&*entry.name);
            entry.contents = reader.hash(&path, &entry.facts, &self.ground.seal);
        }
    }

    /// Looks again, and tells what is not as it was.
    #[must_use]
    pub fn changes(&self) -> Changes {
        compare::second_look(self)
    }

    /// A file that is written in the tick in which it was last touched keeps its time.
    fn let_the_tick_pass(&self) {
        let entries = self.folders.iter().flat_map(|folder| &folder.entries);
        let Some(newest) = entries.map(|entry| entry.facts.touched).max() else { return };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX).saturating_sub(newest);
        if u128::from(since.unsigned_abs()) < TICK.as_nanos() {
            thread::sleep(TICK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fixture::{Project, words};

    #[test]
    fn a_look_ends_after_the_tick_in_which_a_file_was_touched() {
        let project = Project::with(&[("a", "x")]);
        let snapshot = project.look();
        let touched = snapshot.folders[0].entries[0].facts.touched;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert!(now >= Duration::from_nanos(touched.unsigned_abs()) + TICK);
    }

    #[test]
    fn the_files_modified_last_are_remembered_first() {
        let project = Project::with(&[("old", "1234"), ("new", "1234"), ("middle", "1234")]);
        for (path, seconds) in [("old", 1), ("middle", 2), ("new", 3)] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            std::fs::File::open(project.at(path)).unwrap().set_modified(time).unwrap();
        }
        let limits = Limits { contents: 8, ..Limits::default() };
        let mut snapshot = Snapshot::take(&project.root, &[], &limits);
        snapshot.remember_contents(|| false);
        for path in ["old", "new", "middle"] {
            project.write(path, "4321");
        }
        let expected = ["middle (modified)", "new (modified)", "old ?"];
        assert_eq!(words(&snapshot.changes()), expected);
    }

    #[test]
    fn contents_are_remembered_beside_the_run() {
        let project = Project::with(&[("a", "x"), ("b", "y")]);
        let mut snapshot = project.look();
        let remembering = thread::spawn(move || {
            snapshot.remember_contents(|| false);
            snapshot
        });
        let snapshot = remembering.join().unwrap();
        project.write("a", "z");
        project.write("b", "y");
        assert_eq!(words(&snapshot.changes()), ["a (modified)"]);
    }
}
