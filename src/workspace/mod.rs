//! The changes of a project during a run: its state before the run, compared with its state after it.
//!
//! A [`Snapshot`] is taken before the run and gives the [`Changes`] after it. They say that something changed *while*
//! Kimi ran, never that Kimi did it: the user's own editor saves files too.
//!
//! # How it works
//!
//! - Git is not run. A project's `.git/config` can name programs that `git status` runs outside of any sandbox
//!   (`core.fsmonitor`, filters).
//! - Contents are not read. An entry is compared by its type, size, times, inode, permissions and owner. A program can
//!   set the time of modification, but not the time of the last change (`ctime`). So a file that is rewritten with the
//!   same contents counts as modified.
//! - The ignore rules are those of the first look, so that a run cannot hide a file by writing a `.gitignore`.
//! - Of the `ignore` crate, only the matcher is used. Its walker opens everything that is called `.gitignore`, and
//!   hangs when that is a pipe.
//!
//! # What is compared
//!
//! In a repository: all files that its `.gitignore` files and `info/exclude` do not ignore. An ignored file is not
//! compared, even if git tracks it. The user's global ignore file is not read, so more is compared. Of `.git`: the
//! files that change the behaviour of git or move a branch, but not those that a background fetch or an editor's
//! `git status` rewrites. Elsewhere: everything, except folders that are marked as caches (`CACHEDIR.TAG`).
//!
//! # What it misses
//!
//! Ignored files; other working trees of the same repository and their branches; a file that keeps its size and is
//! written on both sides of a look within a tick of the kernel's clock (a few milliseconds); memory that was mapped for
//! writing before the first look; a superuser who sets the clock back.

mod changes;
mod compare;
mod contents;
mod entry;
#[cfg(test)]
mod fixture;
mod look;
pub(crate) mod mounts;
mod repository;
mod rules;
mod walk;

use std::path::{Path, PathBuf};

pub(crate) use changes::{Changes, Gap};
pub(crate) use look::Snapshot;
use look::{Ground, LIMITS};

impl Snapshot {
    /// Takes a snapshot of a project without opening its files. Parts that cannot be listed are gaps in
    /// [`Snapshot::changes`]. The folders in `own`, to which the bridge writes, are left out. Blocks until the limits
    /// are met or `stopped` returns true; a file system that does not answer blocks for longer.
    pub(crate) fn take(project: &Path, own: &[PathBuf], stopped: &dyn Fn() -> bool) -> Snapshot {
        walk::first_look(Ground::new(project, own), LIMITS, stopped)
    }

    /// Looks again and returns the differences. Blocks like [`Snapshot::take`].
    pub(crate) fn changes(&self, stopped: &dyn Fn() -> bool) -> Changes {
        compare::second_look(self, stopped)
    }
}
