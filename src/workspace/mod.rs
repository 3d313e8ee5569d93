//! The proof that the project did not change: its state before a run and after it, compared.
//!
//! A [`Snapshot`] is taken before the run and gives the [`Changes`] after it. They say that something
//! changed *while* Kimi ran, never that Kimi did it: the user's own editor saves files too.
//!
//! # What it rests on
//!
//! - Git is not run. A project's `.git/config` can name programs that `git status` then runs
//!   (`core.fsmonitor`, filters), and nothing would confine them. The same facts are only read here.
//! - Contents are not read. An entry is compared by its type, size, times, inode, permissions and owner.
//!   A program can set the time of modification, but not the time at which anything about an entry last
//!   changed (`ctime`). So a file that was written with the contents that it had counts as modified.
//! - The rules that say what is ignored are those of the first look. A run cannot hide a file by
//!   writing a `.gitignore`.
//! - Of the `ignore` crate only the matcher is used. Its walker opens everything that is called
//!   `.gitignore`, and waits for ever when that is a pipe.
//!
//! # What is compared
//!
//! In a repository, all that its `.gitignore` files and `info/exclude` do not ignore. A file that they
//! ignore is not compared, even if git tracks it. The user's global ignore file is not read, as that
//! would need their environment; more is compared without it. Of `.git`, the files that change how git
//! behaves or where branches stand, and not those that a background fetch or an editor's `git status`
//! rewrites. Elsewhere everything, except in folders that mark themselves as caches (`CACHEDIR.TAG`).
//!
//! # What escapes it
//!
//! Files that are ignored; other working trees of the same repository and their branches; a file that
//! keeps its size and is written on both sides of a look within a tick of the kernel's clock (a few
//! milliseconds); memory that was mapped for writing before the first look; a superuser who turns the
//! clock back.

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
    /// Looks at a project without opening its files. Parts that could not be looked at are gaps in
    /// [`Snapshot::changes`]. The folders in `own` are left out: the bridge itself writes there. Blocks
    /// for as long as the limits allow, or until `stopped` returns true; a file system that does not
    /// answer blocks for longer.
    pub(crate) fn take(project: &Path, own: &[PathBuf], stopped: &dyn Fn() -> bool) -> Snapshot {
        walk::first_look(Ground::new(project, own), LIMITS, stopped)
    }

    /// Looks again, and returns the differences. Blocks as [`Snapshot::take`] does.
    pub(crate) fn changes(&self, stopped: &dyn Fn() -> bool) -> Changes {
        compare::second_look(self, stopped)
    }
}
