//! The first look: from the project's folder downwards, the nearest first, so that a limit cuts off what
//! is deepest.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::path::Path;
use std::time::Instant;

use rustix::fs::Access;

use super::changes::{Gap, Gaps};
use super::contents;
use super::entry::{Extent, Facts, Folder, Kind, Names};
use super::ground::{Budget, Ground, is_gone};
use super::repository::Repository;
use super::rules::{Allowance, Rules};
use super::{Limits, Snapshot};

/// How a folder marks itself as a cache, by the file's name and its first bytes.
const CACHE_TAG: (&str, &[u8]) = ("CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55");

/// A walk under way.
struct Walk {
    ground: Ground,
    budget: Budget,
    allowance: Allowance,
    queue: VecDeque<Folder>,
    /// Folders of repositories that are compared already.
    watched: HashSet<Box<Path>>,
    folders: Vec<Folder>,
    repositories: Vec<Repository>,
    gaps: Gaps,
}

/// Walks the project.
pub(super) fn walk(ground: Ground, limits: &Limits) -> Snapshot {
    let mut walk = Walk {
        ground,
        budget: Budget { entries: limits.entries, until: Instant::now() + limits.look },
        allowance: Allowance::new(),
        queue: VecDeque::new(),
        watched: HashSet::new(),
        folders: Vec::new(),
        repositories: Vec::new(),
        gaps: Gaps::default(),
    };
    walk.run(limits);
    let Walk { ground, folders, repositories, gaps, .. } = walk;
    Snapshot { ground, limits: limits.clone(), folders, repositories, gaps }
}

impl Walk {
    fn run(&mut self, limits: &Limits) {
        let names = self.names_from_above();
        self.queue.push_back(Folder::new(self.ground.root.clone(), names));
        let mut cut = false;
        while let Some(folder) = self.queue.pop_front() {
            cut = self.budget.is_spent() || !self.visit(folder);
            if cut {
                break;
            }
        }
        if cut {
            let compared = limits.entries - self.budget.entries;
            self.gaps.limits.push(match self.budget.entries {
                0 => Gap::Entries { compared },
                _ => Gap::FirstLook { compared, limit: limits.look },
            });
        }
        for repository in self.repositories.iter().filter(|repository| repository.branches.cut) {
            self.gaps.branches.insert(repository.root.clone());
        }
    }

    /// What holds in the project's folder by a repository that begins above it. A project that such a
    /// repository ignores is none of its.
    fn names_from_above(&mut self) -> Names {
        let root = self.ground.root.clone();
        if Repository::at(&root).is_some() {
            return Names::NoCaches;
        }
        let Some(repository) = root.ancestors().skip(1).find_map(Repository::at) else {
            return Names::NoCaches;
        };
        let mut rules =
            Rules::of_repository(&repository.root, &repository.exclude(), &mut self.allowance);
        let between: Vec<&Path> =
            root.ancestors().take_while(|above| *above != repository.root).collect();
        let mut above = repository.root.as_path();
        for folder in between.into_iter().rev() {
            rules = Rules::within(&rules, above, &mut self.allowance);
            if rules.ignores(folder, true) {
                return Names::NoCaches;
            }
            above = folder;
        }
        Names::Known { rules, repository: self.watch(repository) }
    }

    /// Looks into a folder; tells whether all of it was seen.
    fn visit(&mut self, mut folder: Folder) -> bool {
        let mut is_root = false;
        if let Names::Known { .. } | Names::NoCaches = folder.names {
            if let Some(repository) = Repository::at(&folder.path) {
                if self.is_another_tree_of_the_same(&repository, &folder) {
                    return true;
                }
                let exclude = repository.exclude();
                let rules = Rules::of_repository(&folder.path, &exclude, &mut self.allowance);
                folder.names = Names::Known { rules, repository: self.watch(repository) };
                is_root = true;
            }
            if let Names::Known { rules, .. } = &mut folder.names {
                *rules = Rules::within(rules, &folder.path, &mut self.allowance);
            }
        }
        let mounted = &mut self.gaps.mounted;
        let listed = self.ground.list(&folder, &mut self.budget, |path| _ = mounted.insert(path));
        match listed {
            Ok((mut entries, extent)) => {
                entries.shrink_to_fit();
                (folder.entries, folder.extent) = (entries, extent);
            }
            Err(error) if is_gone(&error) && *folder.path != *self.ground.root => return true,
            Err(error) => {
                let Some(extent) = closed(&folder.path, &error) else {
                    self.gaps.unreadable.insert(folder.path.into(), error.to_string());
                    return true;
                };
                folder.extent = extent;
            }
        }
        if self.is_cache(&folder) {
            return true;
        }
        if !matches!(folder.names, Names::Only(_)) {
            let below = folder.entries.iter().filter(|entry| entry.facts.kind == Kind::Folder);
            let below = below.filter(|entry| !(is_root && &*entry.name == ".git"));
            let below = below.map(|entry| folder.path.join(&*entry.name));
            self.queue.extend(below.map(|path| Folder::new(path, folder.names.clone())));
        }
        let whole = folder.extent != Extent::Partly;
        self.folders.push(folder);
        whole
    }

    /// Puts a repository on the list, and its own folders before what waits.
    fn watch(&mut self, mut repository: Repository) -> usize {
        repository.branches = repository.read_branches(self.budget.until);
        for folder in repository.folders().into_iter().rev() {
            if self.watched.insert(folder.path.clone()) {
                self.queue.push_front(folder);
            }
        }
        self.repositories.push(repository);
        self.repositories.len() - 1
    }

    /// Another working tree, kept inside this one, belongs to whoever works there.
    fn is_another_tree_of_the_same(&self, repository: &Repository, folder: &Folder) -> bool {
        match &folder.names {
            Names::Known { repository: outer, .. } => {
                self.repositories[*outer].common == repository.common
            }
            Names::NoCaches | Names::Every | Names::Only(_) => false,
        }
    }

    fn is_cache(&self, folder: &Folder) -> bool {
        let (tag, signature) = CACHE_TAG;
        matches!(folder.names, Names::NoCaches)
            && *folder.path != *self.ground.root
            && folder.entries.iter().any(|entry| &*entry.name == tag)
            && contents::starts_with(&folder.path.join(tag), signature)
    }
}

/// Whether a folder is one that this user may neither list nor enter.
fn closed(path: &Path, error: &io::Error) -> Option<Extent> {
    let refused = error.kind() == io::ErrorKind::PermissionDenied;
    let closed = refused && rustix::fs::access(path, Access::EXEC_OK).is_err();
    closed.then(|| Extent::Closed(Facts::last_touched(path)))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::time::Duration;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::super::fixture::{COMMIT, Project, words};
    use super::*;

    const GIT: [&str; 5] =
        [".git", ".git/config", ".git/hooks", ".git/hooks/pre-commit.sample", ".git/info"];

    fn check(project: &Project, expected: &[&str]) {
        let snapshot = project.look();
        let mut expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
        expected.sort();
        assert_eq!(project.compared(&snapshot), expected);
        assert_eq!(words(&snapshot.changes()), Vec::<String>::new());
    }

    fn with_git<'a>(paths: &[&'a str]) -> Vec<&'a str> {
        [&GIT[..], &[".git/info/exclude"], paths].concat()
    }

    #[test]
    fn in_a_repository_what_git_would_know_is_compared() {
        let project = Project::with(&[
            ("src/main.rs", "x"),
            ("src/.gitignore", "*.o\n"),
            ("src/main.o", "x"),
            ("main.o", "x"),
            (".env", "x"),
            (".gitignore", "/target/\n"),
            ("target/debug/a", "x"),
            ("target2/a", "x"),
            ("mine.local", "x"),
            (".git/index", "x"),
            (".git/FETCH_HEAD", "x"),
            (".git/refs/remotes/origin/main", COMMIT),
        ]);
        project.repository("");
        let known = [
            ".env",
            ".gitignore",
            "main.o",
            "src",
            "src/.gitignore",
            "src/main.rs",
            "target2",
            "target2/a",
        ];
        check(&project, &with_git(&known));
    }

    #[test]
    fn elsewhere_everything_is_compared_but_caches() {
        let tag = "Signature: 8a477f597d28d172789f06886806bc55\n# more";
        let project = Project::with(&[
            ("CACHEDIR.TAG", tag),
            (".gitignore", "*.o\n"),
            ("main.o", "x"),
            ("target/CACHEDIR.TAG", tag),
            ("target/debug/a", "x"),
            ("no_cache/CACHEDIR.TAG", "Signature: none"),
            (".git/config", "no repository: it has no HEAD"),
        ]);
        project.folder("empty");
        check(
            &project,
            &[
                ".git",
                ".git/config",
                ".gitignore",
                "CACHEDIR.TAG",
                "empty",
                "main.o",
                "no_cache",
                "no_cache/CACHEDIR.TAG",
                "target",
            ],
        );
    }

    #[test]
    fn a_project_inside_a_repository_obeys_the_rules_from_above() {
        let outer = Project::with(&[
            (".gitignore", "*.log\n/home/\n"),
            ("a/.gitignore", "!keep.log\n/b/c/out\n"),
            ("a/b/c/keep.log", "x"),
            ("a/b/c/other.log", "x"),
            ("a/b/c/my.local", "x"),
            ("a/b/c/out", "x"),
            ("a/b/c/code", "x"),
            ("home/me/x.log", "x"),
        ]);
        outer.repository("");
        let inner = |path: &str| Snapshot::take(&outer.at(path), &[], &Limits::default());
        let known = ["a/b/c/code", "a/b/c/keep.log"];
        assert_eq!(
            outer.compared(&inner("a/b/c")),
            [&GIT[1..], &[".git/info/exclude"], &known].concat()
        );
        // A home that keeps its settings in a repository ignores everything else.
        assert_eq!(outer.compared(&inner("home/me")), ["home/me/x.log"]);
    }

    #[test]
    fn repositories_inside_have_rules_and_hooks_of_their_own() {
        let project = Project::with(&[
            (".gitignore", "*.o\n/vendor/lib/secret\n"),
            ("vendor/lib/a.o", "x"),
            ("vendor/lib/secret", "x"),
            ("vendor/lib/a.local", "x"),
            ("sub/.git", "gitdir: ../.git/modules/sub\n"),
            ("sub/code", "x"),
            (".git/modules/sub/HEAD", COMMIT),
            (".git/modules/sub/config", "x"),
            ("tree/.git", "gitdir: ../.git/worktrees/tree\n"),
            ("tree/code", "x"),
            (".git/worktrees/tree/HEAD", "ref: refs/heads/other\n"),
            (".git/worktrees/tree/commondir", "../..\n"),
        ]);
        project.repository("");
        project.repository("vendor/lib");
        check(
            &project,
            &with_git(&[
                ".git/modules/sub/config",
                ".gitignore",
                "sub",
                "sub/.git",
                "sub/code",
                "tree",
                "vendor",
                "vendor/lib",
                "vendor/lib/.git",
                "vendor/lib/.git/config",
                "vendor/lib/.git/hooks",
                "vendor/lib/.git/hooks/pre-commit.sample",
                "vendor/lib/.git/info",
                "vendor/lib/.git/info/exclude",
                "vendor/lib/a.o",
                "vendor/lib/secret",
            ]),
        );
    }

    #[test]
    fn a_linked_working_tree_is_a_project_like_any_other() {
        let outer = Project::with(&[
            ("main/.git/worktrees/tree/HEAD", "ref: refs/heads/other\n"),
            ("main/.git/worktrees/tree/commondir", "../..\n"),
            ("main/.git/worktrees/tree/config.worktree", "x"),
            ("tree/code", "x"),
            ("tree/a.local", "x"),
        ]);
        outer.repository("main");
        outer.write(
            "tree/.git",
            &format!("gitdir: {}\n", outer.at("main/.git/worktrees/tree").display()),
        );
        let snapshot = Snapshot::take(&outer.at("tree"), &[], &Limits::default());
        assert_eq!(
            outer.compared(&snapshot),
            [
                "main/.git/config",
                "main/.git/hooks",
                "main/.git/hooks/pre-commit.sample",
                "main/.git/info",
                "main/.git/info/exclude",
                "main/.git/worktrees/tree/commondir",
                "main/.git/worktrees/tree/config.worktree",
                "tree/.git",
                "tree/code",
            ]
        );
    }

    #[test]
    fn what_is_ignored_is_not_compared_even_if_git_tracks_it() {
        let project = Project::with(&[(".gitignore", "build/\n"), ("build/kept", "x")]);
        project.repository("");
        project.write(".git/index", "an index that names build/kept");
        check(&project, &with_git(&[".gitignore"]));
    }

    #[test]
    fn nothing_that_lies_about_is_opened_waited_for_or_followed() {
        let project = Project::with(&[("a/file", "x"), ("deep/.gitignore/x", "x")]);
        project.repository("");
        for pipe in ["pipe", "a/.gitignore", "a/.git", "a/CACHEDIR.TAG", ".git/packed-refs"] {
            project.pipe(pipe);
        }
        mknodat(CWD, project.at("socket"), FileType::Socket, Mode::RWXU, 0).unwrap();
        project.link("..", "a/up");
        project.link("a", "link");
        project.link("nowhere", "broken");
        project.link("broken2", "broken2");
        project.write("odd\n\u{1b}[31m", "x");
        let not_utf8 = project.root.join(OsStr::from_bytes(b"\xff"));
        fs::write(not_utf8, "x").unwrap();
        let mut snapshot = project.look();
        snapshot.remember_contents(|| false);
        let known = [
            "a",
            "a/.git",
            "a/.gitignore",
            "a/CACHEDIR.TAG",
            "a/file",
            "a/up",
            "broken",
            "broken2",
            "deep",
            "deep/.gitignore",
            "deep/.gitignore/x",
            "link",
            "odd\n\u{1b}[31m",
            "pipe",
            "socket",
            "\u{fffd}",
        ];
        let mut expected = with_git(&known);
        expected.sort_unstable();
        assert_eq!(project.compared(&snapshot), expected);
        // A pipe stands where the packed branches belong.
        let gap = format!("not all branches of {} could be read", project.root.display());
        assert_eq!(words(&snapshot.changes()), [gap]);
    }

    #[test]
    fn a_limit_leaves_the_deepest_out_and_says_so() {
        let project = Project::with(&[("a", "x"), ("b/c", "x"), ("b/d/e", "x")]);
        let take = |limits: Limits| Snapshot::take(&project.root, &[], &limits);
        let snapshot = take(Limits { entries: 4, ..Limits::default() });
        assert_eq!(project.compared(&snapshot), ["a", "b", "b/c", "b/d"]);
        assert_eq!(
            snapshot.changes().warnings(),
            [
                "not all of the project was compared: only the first 4 files and folders were compared"
            ]
        );
        let snapshot = take(Limits { look: Duration::ZERO, ..Limits::default() });
        assert_eq!(
            words(&snapshot.changes()),
            ["only 0 files and folders could be looked at in 0 s"]
        );
        let snapshot = take(Limits { entries: 5, ..Limits::default() });
        assert_eq!(words(&snapshot.changes()), Vec::<String>::new());
    }

    #[test]
    fn a_huge_folder_is_cut_at_the_limit_and_compared_as_far_as_it_was_seen() {
        let project = Project::new();
        for n in 0..300 {
            project.write(&format!("{n}"), "x");
        }
        let limits = Limits { entries: 200, ..Limits::default() };
        let snapshot = Snapshot::take(&project.root, &[], &limits);
        let seen = project.compared(&snapshot);
        assert_eq!(seen.len(), 200);
        project.write("new", "it may have been there");
        project.remove(&seen[0]);
        let gap = "only the first 200 files and folders were compared".to_owned();
        assert_eq!(words(&snapshot.changes()), [format!("{} (removed)", seen[0]), gap]);
    }

    #[test]
    fn what_is_mounted_and_what_the_bridge_writes_is_passed_over() {
        let project = Project::with(&[("mnt/disk/a", "x"), ("state/ledger", "x"), ("b", "x")]);
        let mut ground = Ground::new(&project.root, &[project.at("state")]);
        ground.mounts.insert(project.at("mnt/disk"));
        let snapshot = walk(ground, &Limits::default());
        assert_eq!(project.compared(&snapshot), ["b", "mnt"]);
        project.write("state/ledger", "more");
        assert_eq!(words(&snapshot.changes()), ["another file system is mounted at mnt/disk"]);
    }

    #[test]
    fn a_project_that_cannot_be_looked_at_is_not_called_unchanged() {
        let project = Project::with(&[("file", "x")]);
        let check = |path: &str, why: &str| {
            let path = project.at(path);
            let changes = Snapshot::take(&path, &[], &Limits::default()).changes();
            let expected = format!("{} could not be read: {why}", path.display());
            assert_eq!((changes.workspace_changed(), words(&changes)), (None, vec![expected]));
        };
        check("none", "No such file or directory (os error 2)");
        check("file", "Not a directory (os error 20)");
    }

    #[test]
    fn a_closed_folder_is_taken_as_it_looks_from_outside() {
        use std::os::unix::fs::PermissionsExt as _;
        let as_nobody = || {
            if rustix::process::geteuid().is_root() {
                let nobody = Some(rustix::thread::Uid::from_raw(65_534));
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            let project = Project::with(&[("closed/a", "x"), ("blind/b", "x"), ("names/c", "x")]);
            let mode = |path, mode| {
                fs::set_permissions(project.at(path), fs::Permissions::from_mode(mode)).unwrap();
            };
            mode("closed", 0o000);
            mode("names", 0o400);
            let snapshot = project.look();
            assert_eq!(
                project.compared(&snapshot),
                ["blind", "blind/b", "closed", "names", "names/c"]
            );
            assert_eq!(words(&snapshot.changes()), Vec::<String>::new());

            mode("closed", 0o700);
            project.write("closed/new", "x");
            mode("closed", 0o000);
            assert_eq!(words(&snapshot.changes()), ["closed ?"]);

            mode("blind", 0o100);
            let gap = "blind could not be read: Permission denied (os error 13)";
            assert_eq!(words(&project.look().changes()), [gap]);
            for path in ["closed", "names", "blind"] {
                mode(path, 0o700);
            }
        };
        std::thread::spawn(as_nobody).join().unwrap();
    }
}
