//! The parts of a repository's own folder that show a change: `HEAD`, the branches, and the files that decide which
//! programs git runs. They are compared like files; only the names of branches in other working trees are read. The
//! parts that change by themselves are left out: the index, objects, logs, tags and remote branches.

use std::fs;
use std::path::{Path, PathBuf};

use super::contents;
use super::entry::{Listing, Names};

/// A repository that the walk found.
#[derive(Debug)]
pub(super) struct Repository {
    /// The working tree.
    pub(super) root: PathBuf,
    /// The working tree's own git folder: `.git`, or a folder in the git folder of another working tree.
    git: PathBuf,
    /// The git folder that is shared with other working trees.
    pub(super) common: PathBuf,
}

impl Repository {
    /// Finds the repository whose working tree begins at this folder.
    pub(super) fn at(root: &Path) -> Option<Repository> {
        let dot_git = root.join(".git");
        let git = if fs::metadata(&dot_git).ok()?.is_dir() {
            dot_git
        } else {
            root.join(contents::read_line(&dot_git).ok()?.strip_prefix("gitdir:")?.trim_start())
        };
        fs::symlink_metadata(git.join("HEAD")).ok()?;
        let git = fs::canonicalize(git).ok()?;
        let common = match contents::read_line(&git.join("commondir")) {
            Ok(common) => fs::canonicalize(git.join(common)).ok()?,
            Err(_) => git.clone(),
        };
        Some(Repository { root: root.to_owned(), git, common })
    }

    /// The folders that are compared. `hooks` and `info` are also compared by name, so that a hook in a new folder is
    /// seen.
    pub(super) fn folders(&self) -> Vec<Listing> {
        let own = |name, names| Listing::new(self.git.join(name), Names::Only(names));
        let shared = |name, names| Listing::new(self.common.join(name), names);
        vec![
            own("", &["HEAD", "commondir", "config.worktree"]),
            own("info", &["sparse-checkout"]),
            // The newer storage of branches, which shows only that some branch moved.
            own("reftable", &["tables.list"]),
            shared("reftable", Names::Only(&["tables.list"])),
            shared("", Names::Only(&["config", "hooks", "info", "packed-refs"])),
            shared("hooks", Names::Except(Vec::new().into())),
            shared("info", Names::Only(&["attributes", "exclude"])),
            shared("refs/heads", Names::Except(self.branches_elsewhere().into())),
        ]
    }

    /// The branches that are checked out only in other working trees; they move with the work there.
    fn branches_elsewhere(&self) -> Vec<PathBuf> {
        let branch = |tree: &Path| {
            let head = contents::read_line(&tree.join("HEAD")).ok()?;
            Some(self.common.join(head.strip_prefix("ref: ")?))
        };
        let here = branch(&self.git);
        let trees = fs::read_dir(self.common.join("worktrees")).into_iter().flatten().flatten();
        let trees = trees.take(1_000).map(|tree| tree.path()).chain([self.common.clone()]);
        trees
            .filter(|tree| *tree != self.git)
            .filter_map(|tree| branch(&tree))
            .filter(|branch| Some(branch) != here.as_ref())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{COMMIT, Project};
    use super::*;

    const OTHER: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c";

    fn check(edit: impl FnOnce(&Project), expected: &[&str]) {
        let project = Project::with(&[
            (".git/refs/heads/team/topic", COMMIT),
            (".git/refs/heads/theirs", COMMIT),
            (".git/worktrees/tree/HEAD", "ref: refs/heads/theirs\n"),
            (".git/packed-refs", "packed"),
            (".git/FETCH_HEAD", "x"),
            (".git/index", "x"),
            ("a", "x"),
        ]);
        project.repository("");
        assert_eq!(project.changes(edit), expected);
    }

    #[test]
    fn moved_branches_are_a_change() {
        let main = ".git/refs/heads/main";
        check(|project| project.write(main, OTHER), &[".git/refs/heads/main (modified)"]);
        check(|project| project.write(".git/HEAD", OTHER), &[".git/HEAD (modified)"]);
        check(
            |project| project.write(".git/refs/heads/n/ew", COMMIT),
            &[".git/refs/heads/n/ (created)"],
        );
        check(
            |project| project.remove(".git/refs/heads/team/topic"),
            &[".git/refs/heads/team/topic (removed)"],
        );
        check(
            |project| project.write(".git/refs/heads/packed", OTHER),
            &[".git/refs/heads/packed (created)"],
        );
        check(|project| project.write(".git/packed-refs", ""), &[".git/packed-refs (modified)"]);
    }

    #[test]
    fn branches_that_git_packs_are_a_change() {
        let pack = |project: &Project| {
            project.write(".git/packed-refs", "all");
            project.remove(".git/refs/heads/main");
        };
        check(pack, &[".git/packed-refs (modified)", ".git/refs/heads/main (removed)"]);
    }

    #[test]
    fn housekeeping_and_branches_of_other_working_trees_are_no_change() {
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
        check(|project| project.write(".git/refs/heads/theirs", OTHER), &[]);
    }

    #[test]
    fn files_that_decide_which_programs_git_runs_are_compared() {
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
    fn a_hook_in_a_new_folder_and_a_new_repository_are_seen() {
        let project = Project::with(&[("a", "x"), ("bare/.git/HEAD", COMMIT)]);
        let edit = |project: &Project| {
            project.repository("");
            project.write("bare/.git/hooks/pre-push", "#!/bin/sh\n");
        };
        assert_eq!(project.changes(edit), [".git/ (created)", "bare/.git/hooks/ (created)"]);
    }

    #[test]
    fn the_newer_storage_of_branches_shows_that_one_moved() {
        let project =
            Project::with(&[(".git/reftable/tables.list", "1\n"), (".git/reftable/1.ref", "x")]);
        project.repository("");
        let commit = |project: &Project| project.write(".git/reftable/tables.list", "1\n2\n");
        assert_eq!(project.changes(commit), [".git/reftable/tables.list (modified)"]);
    }
}
