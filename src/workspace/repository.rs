//! What of a repository's own folder tells that something was done to it: where the branches stand, and
//! what decides which programs git runs. Left out is what comes and goes by itself: the index, objects,
//! logs, tags and remote branches.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::changes::{Change, What};
use super::contents;
use super::entry::{Folder, Names};

/// Loose branches that are read, and as many packed ones; working trees that are asked for theirs.
const BRANCHES: usize = 20_000;
const TREES: usize = 1_000;
/// Bytes of packed references.
const PACKED: u64 = 32 << 20;

/// A repository that was met in the walk.
#[derive(Debug)]
pub(super) struct Repository {
    /// The working tree.
    pub(super) root: PathBuf,
    /// Its own part: `.git`, or a folder in another repository's.
    git: PathBuf,
    /// What it shares with other working trees.
    pub(super) common: PathBuf,
    /// As they stood at the first look.
    pub(super) branches: Branches,
}

/// Where the branches stand.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Branches {
    /// What `HEAD` says: a branch or a commit.
    head: Option<String>,
    /// The commit of each branch.
    tips: BTreeMap<String, String>,
    /// Branches that are checked out in other working trees; they move when somebody works there.
    elsewhere: BTreeSet<String>,
    /// Whether there are more.
    pub(super) cut: bool,
}

impl Repository {
    /// The repository whose working tree begins at this folder.
    pub(super) fn at(root: &Path) -> Option<Repository> {
        let dot = root.join(".git");
        let git = if fs::metadata(&dot).ok()?.is_dir() {
            dot
        } else {
            root.join(contents::read_line(&dot).ok()?.strip_prefix("gitdir:")?.trim_start())
        };
        fs::symlink_metadata(git.join("HEAD")).ok()?;
        let git = fs::canonicalize(git).ok()?;
        let common = match contents::read_line(&git.join("commondir")) {
            Ok(common) => fs::canonicalize(git.join(common)).ok()?,
            Err(_) => git.clone(),
        };
        Some(Repository { root: root.to_owned(), git, common, branches: Branches::default() })
    }

    /// The file of rules that is the repository's own.
    pub(super) fn exclude(&self) -> PathBuf {
        self.common.join("info/exclude")
    }

    /// The folders of the repository's own that are compared. The names that they need not have are
    /// listed too: a hook may be planted in a folder that was not there.
    pub(super) fn folders(&self) -> Vec<Folder> {
        let mut parts = vec![&self.common, &self.git];
        parts.dedup();
        let of_part = |part: &PathBuf| {
            [
                (
                    part.clone(),
                    Names::Only(&["commondir", "config", "config.worktree", "hooks", "info"]),
                ),
                (part.join("hooks"), Names::Every),
                (part.join("info"), Names::Only(&["attributes", "exclude", "sparse-checkout"])),
                // The newer way to keep branches, which tells only that one moved.
                (part.join("reftable"), Names::Only(&["tables.list"])),
            ]
            .map(|(path, names)| Folder::new(path, names))
        };
        parts.into_iter().flat_map(of_part).collect()
    }

    /// What became of the branches since the first look.
    pub(super) fn moved(&self, after: &Branches) -> Vec<Change> {
        let before = &self.branches;
        let change = |path: PathBuf, before: Option<&String>, after: Option<&String>| {
            let what = match (before, after) {
                (None, None) => return None,
                (None, Some(_)) => What::Created,
                (Some(_), None) => What::Removed,
                (Some(before), Some(after)) if before == after => return None,
                (Some(_), Some(_)) => What::Modified,
            };
            Some(Change { path, is_folder: false, what })
        };
        let names: BTreeSet<&String> = before.tips.keys().chain(after.tips.keys()).collect();
        let ours =
            |name: &String| !before.elsewhere.contains(name) && !after.elsewhere.contains(name);
        names
            .into_iter()
            .filter(|name| ours(name))
            .filter_map(|name| {
                let path = self.common.join("refs/heads").join(name);
                change(path, before.tips.get(name), after.tips.get(name))
            })
            .chain(change(self.git.join("HEAD"), before.head.as_ref(), after.head.as_ref()))
            .collect()
    }

    /// Loose branches first, then packed ones: git removes a loose one only after it was packed, so that
    /// none is missed in between.
    pub(super) fn read_branches(&self, until: Instant) -> Branches {
        let head = contents::read_line(&self.git.join("HEAD")).ok();
        let mut branches = Branches { head, ..Branches::default() };
        branches.add_loose(&self.common.join("refs/heads"), until);
        if let Ok(packed) = contents::read(&self.common.join("packed-refs"), PACKED) {
            branches.add_packed(&packed);
        } else {
            branches.cut |= self.common.join("packed-refs").exists();
        }
        let ours = branches.head.as_deref().and_then(branch);
        let trees = fs::read_dir(self.common.join("worktrees")).into_iter().flatten().flatten();
        let trees = trees.take(TREES).map(|tree| tree.path()).chain([self.common.clone()]);
        branches.elsewhere = trees
            .filter(|tree| *tree != self.git)
            .filter_map(|tree| branch(&contents::read_line(&tree.join("HEAD")).ok()?))
            .filter(|name| ours.as_ref() != Some(name))
            .collect();
        branches
    }
}

impl Branches {
    fn add_loose(&mut self, heads: &Path, until: Instant) {
        let mut folders = vec![heads.to_owned()];
        let mut left = BRANCHES;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if left == 0 || Instant::now() >= until {
                    self.cut = true;
                    return;
                }
                left -= 1;
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path);
                } else if path.extension() != Some(OsStr::new("lock"))
                    && let Ok(tip) = contents::read_line(&path)
                {
                    let name = path.strip_prefix(heads).unwrap_or(&path);
                    self.tips.insert(name.to_string_lossy().into_owned(), tip);
                }
            }
        }
    }

    /// Adds those that are not loose.
    fn add_packed(&mut self, packed: &[u8]) {
        for line in packed.split(|&byte| byte == b'\n') {
            let line = String::from_utf8_lossy(line);
            let Some((tip, name)) = line.split_once(" refs/heads/") else { continue };
            if self.tips.len() == 2 * BRANCHES {
                self.cut = true;
                return;
            }
            self.tips.entry(name.to_owned()).or_insert_with(|| tip.to_owned());
        }
    }
}

/// The branch that a `HEAD` names.
fn branch(head: &str) -> Option<String> {
    Some(head.strip_prefix("ref: refs/heads/")?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::super::fixture::{COMMIT, Project};
    use super::*;

    const OTHER: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c";

    fn check(edit: impl FnOnce(&Project), expected: &[&str]) {
        let project = Project::with(&[
            (".git/refs/heads/team/topic", COMMIT),
            (".git/refs/heads/theirs", COMMIT),
            (".git/worktrees/tree/HEAD", "ref: refs/heads/theirs\n"),
            (
                ".git/packed-refs",
                &format!(
                    "# pack-refs with: peeled\n{COMMIT} refs/heads/packed\n{COMMIT} refs/tags/v1\n^{COMMIT}\n"
                ),
            ),
            (".git/FETCH_HEAD", "x"),
            (".git/index", "x"),
            ("a", "x"),
        ]);
        project.repository("");
        assert_eq!(project.changes(edit), expected);
    }

    #[test]
    fn where_branches_stand_is_compared() {
        let main = ".git/refs/heads/main";
        check(|project| project.write(main, OTHER), &[".git/refs/heads/main (modified)"]);
        check(|project| project.write(main, &format!("{COMMIT}\n")), &[]);
        check(|project| project.write(".git/HEAD", OTHER), &[".git/HEAD (modified)"]);
        check(
            |project| project.write(".git/refs/heads/n/ew", COMMIT),
            &[".git/refs/heads/n/ew (created)"],
        );
        check(
            |project| project.remove(".git/refs/heads/team/topic"),
            &[".git/refs/heads/team/topic (removed)"],
        );
        check(
            |project| project.write(".git/refs/heads/packed", OTHER),
            &[".git/refs/heads/packed (modified)"],
        );
        check(
            |project| project.write(".git/packed-refs", ""),
            &[".git/refs/heads/packed (removed)"],
        );
    }

    #[test]
    fn housekeeping_and_other_working_trees_are_no_change() {
        let pack = |project: &Project| {
            let heads = ["main", "packed", "team/topic", "theirs"];
            let packed = heads.map(|name| format!("{COMMIT} refs/heads/{name}\n")).concat();
            project.write(".git/packed-refs", &packed);
            for name in ["main", "team/topic", "theirs"] {
                project.remove(&format!(".git/refs/heads/{name}"));
            }
        };
        check(pack, &[]);
        let meanwhile = |project: &Project| {
            project.write(".git/index", "more");
            project.write(".git/index.lock", "x");
            project.write(".git/refs/heads/main.lock", "x");
            project.write(".git/FETCH_HEAD", "other");
            project.write(".git/refs/remotes/origin/main", OTHER);
            project.write(".git/refs/tags/v2", OTHER);
            project.write(".git/objects/ab/cd", "x");
            project.write(".git/logs/HEAD", "more");
        };
        check(meanwhile, &[]);
        let elsewhere = |project: &Project| {
            project.write(".git/refs/heads/theirs", OTHER);
            project.write(".git/worktrees/second/HEAD", "ref: refs/heads/second\n");
            project.write(".git/refs/heads/second", OTHER);
        };
        check(elsewhere, &[]);
    }

    #[test]
    fn what_decides_which_programs_git_runs_is_compared() {
        let config = "[core]\n\tfsmonitor = ./evil\n";
        check(|project| project.write(".git/config", config), &[".git/config (modified)"]);
        check(
            |project| project.write(".git/config.worktree", config),
            &[".git/config.worktree (created)"],
        );
        check(
            |project| project.write(".git/hooks/post-commit", "#!/bin/sh\n"),
            &[".git/hooks/post-commit (created)"],
        );
        check(
            |project| project.write(".git/info/attributes", "* filter=evil\n"),
            &[".git/info/attributes (created)"],
        );
        check(|project| fs::remove_dir_all(project.at(".git")).unwrap(), &[".git/ (removed)"]);
    }

    #[test]
    fn a_hook_in_a_folder_that_was_not_there_and_a_repository_that_was_not_are_seen() {
        let project = Project::with(&[("a", "x"), ("bare/.git/HEAD", COMMIT)]);
        let edit = |project: &Project| {
            project.repository("");
            project.write("bare/.git/hooks/pre-push", "#!/bin/sh\n");
        };
        assert_eq!(project.changes(edit), [".git/ (created)", "bare/.git/hooks/ (created)"]);
    }

    #[test]
    fn the_newer_way_to_keep_branches_tells_that_one_moved() {
        let project =
            Project::with(&[(".git/reftable/tables.list", "1\n"), (".git/reftable/1.ref", "x")]);
        project.repository("");
        let commit = |project: &Project| project.write(".git/reftable/tables.list", "1\n2\n");
        assert_eq!(project.changes(commit), [".git/reftable/tables.list (modified)"]);
    }

    #[test]
    fn too_many_branches_are_told() {
        let mut packed = String::new();
        for n in 0..=2 * BRANCHES {
            writeln!(packed, "{COMMIT} refs/heads/b{n}").unwrap();
        }
        let project = Project::with(&[(".git/packed-refs", &packed)]);
        project.repository("");
        let gap = format!("not all branches of {} could be read", project.root.display());
        assert_eq!(project.changes(|_| ()), [gap]);
    }
}
