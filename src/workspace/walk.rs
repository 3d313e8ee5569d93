//! The first look: walks from the project's folder downwards, breadth first, so that a limit cuts off the deepest part.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use rustix::fs::Access;

use super::contents;
use super::entry::{Listing, Names};
use super::look::{Ground, Look, LookLimits, Snapshot, is_gone};
use super::repository::Repository;
use super::rules::{Allowance, IgnoreRules};

/// The mark of a cache folder: the name of a file, and its first bytes.
const CACHE_TAG: (&str, &[u8]) = ("CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55");

/// A first look under way.
struct Walk<'a> {
    look: Look<'a>,
    allowance: Allowance,
    queue: VecDeque<Listing>,
    folders: Vec<Listing>,
}

/// Walks the project.
pub(super) fn first_look(
    ground: Ground,
    limits: LookLimits,
    stopped: &dyn Fn() -> bool,
) -> Snapshot {
    let root = ground.root.clone();
    let mut walk = Walk {
        look: Look::new(ground, limits, stopped),
        allowance: Allowance::new(),
        queue: VecDeque::new(),
        folders: Vec::new(),
    };
    let names = walk.names_from_above(&root);
    walk.queue.push_back(Listing::new(root, names));
    while let Some(folder) = walk.queue.pop_front() {
        if !walk.visit(folder) {
            break;
        }
    }
    Snapshot { ground: walk.look.ground, limits, folders: walk.folders, gaps: walk.look.gaps }
}

impl Walk<'_> {
    /// The names that are compared in the project's folder, by the rules of a repository that begins above it. A
    /// project that this repository ignores does not belong to it.
    fn names_from_above(&mut self, root: &Path) -> Names {
        let nearest = root.ancestors().find_map(Repository::at);
        let Some(repository) = nearest.filter(|repository| repository.root != *root) else {
            return Names::NoCaches;
        };
        let mut rules = self.rules_for(&repository);
        let mut folder = repository.root.clone();
        for name in root.strip_prefix(&repository.root).unwrap_or(root) {
            rules.add(&folder, &folder.join(".gitignore"), &mut self.allowance);
            folder.push(name);
            if rules.ignores(&folder, true) {
                return Names::NoCaches;
            }
        }
        self.queue.extend(repository.folders());
        Names::Known { rules, common: repository.common.into() }
    }

    /// Lists a folder; returns false when the look met a limit.
    fn visit(&mut self, mut folder: Listing) -> bool {
        let mut is_repository = false;
        if let Names::Known { .. } | Names::NoCaches = folder.names
            && let Some(repository) = Repository::at(&folder.path)
        {
            // Work in another working tree of the same repository does not concern this project.
            if matches!(&folder.names, Names::Known { common, .. } if **common == *repository.common)
            {
                return true;
            }
            self.queue.extend(repository.folders());
            let rules = self.rules_for(&repository);
            folder.names = Names::Known { rules, common: repository.common.into() };
            is_repository = true;
        }
        if let Names::Known { rules, .. } = &mut folder.names {
            rules.add(&folder.path, &folder.path.join(".gitignore"), &mut self.allowance);
        }
        match self.look.list(&folder.path, &folder.names) {
            Ok(Some(entries)) => folder.entries = entries,
            Ok(None) => return false,
            Err(error) if is_gone(&error) && folder.path != self.look.ground.root => return true,
            Err(error) => {
                let refused = error.kind() == io::ErrorKind::PermissionDenied;
                if !refused || rustix::fs::access(&folder.path, Access::EXEC_OK).is_ok() {
                    self.look.unreadable(&folder.path, &error);
                    return true;
                }
                folder.closed = folder.last_touched();
            }
        }
        if self.is_cache(&folder) {
            return true;
        }
        if !matches!(folder.names, Names::Only(_)) {
            for (name, facts) in &folder.entries {
                if facts.kind.is_dir() && !(is_repository && name == ".git") {
                    let below = Listing::new(folder.path.join(name), folder.names.clone());
                    self.queue.push_back(below);
                }
            }
        }
        self.folders.push(folder);
        true
    }

    /// The outermost rules of a repository.
    fn rules_for(&mut self, repository: &Repository) -> IgnoreRules {
        let mut rules = IgnoreRules::default();
        let exclude = repository.common.join("info/exclude");
        rules.add(&repository.root, &exclude, &mut self.allowance);
        rules
    }

    fn is_cache(&self, folder: &Listing) -> bool {
        let (tag, signature) = CACHE_TAG;
        matches!(folder.names, Names::NoCaches)
            && folder.path != self.look.ground.root
            && folder.entries.keys().any(|name| name == tag)
            && contents::starts_with(&folder.path.join(tag), signature)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use super::super::fixture::{COMMIT, Project, words};
    use super::super::look::LIMITS;
    use super::*;

    const GIT: [&str; 8] = [
        ".git",
        ".git/HEAD",
        ".git/config",
        ".git/hooks",
        ".git/hooks/pre-commit.sample",
        ".git/info",
        ".git/info/exclude",
        ".git/refs/heads/main",
    ];

    fn check(project: &Project, expected: &[&str]) {
        let snapshot = project.look();
        let mut expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
        expected.sort();
        assert_eq!(project.compared(&snapshot), expected);
        assert_eq!(words(&snapshot), Vec::<String>::new());
    }

    fn look_at(project: &Path) -> Snapshot {
        Snapshot::take(project, &[], &|| false)
    }

    fn with_git<'a>(paths: &[&'a str]) -> Vec<&'a str> {
        [&GIT[..], paths].concat()
    }

    #[test]
    fn in_a_repository_only_files_that_git_does_not_ignore_are_compared() {
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
    fn outside_of_repositories_all_but_caches_is_compared() {
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
        let inner = |path: &str| look_at(&outer.at(path));
        let known = ["a/b/c/code", "a/b/c/keep.log"];
        assert_eq!(outer.compared(&inner("a/b/c")), [&GIT[1..], &known].concat());
        // A home that keeps its settings in a repository ignores everything else.
        assert_eq!(outer.compared(&inner("home/me")), ["home/me/x.log"]);
    }

    #[test]
    fn nested_repositories_have_their_own_rules_and_hooks() {
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
                ".git/modules/sub/HEAD",
                ".git/modules/sub/config",
                ".gitignore",
                "sub",
                "sub/.git",
                "sub/code",
                "tree",
                "vendor",
                "vendor/lib",
                "vendor/lib/.git",
                "vendor/lib/.git/HEAD",
                "vendor/lib/.git/config",
                "vendor/lib/.git/hooks",
                "vendor/lib/.git/hooks/pre-commit.sample",
                "vendor/lib/.git/info",
                "vendor/lib/.git/info/exclude",
                "vendor/lib/.git/refs/heads/main",
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
        let snapshot = look_at(&outer.at("tree"));
        assert_eq!(
            outer.compared(&snapshot),
            [
                "main/.git/config",
                "main/.git/hooks",
                "main/.git/hooks/pre-commit.sample",
                "main/.git/info",
                "main/.git/info/exclude",
                "main/.git/worktrees/tree/HEAD",
                "main/.git/worktrees/tree/commondir",
                "main/.git/worktrees/tree/config.worktree",
                "tree/.git",
                "tree/code",
            ]
        );
    }

    #[test]
    fn an_ignored_file_is_not_compared_even_if_git_tracks_it() {
        let project = Project::with(&[(".gitignore", "build/\n"), ("build/kept", "x")]);
        project.repository("");
        project.write(".git/index", "an index that names build/kept");
        check(&project, &with_git(&[".gitignore"]));
    }

    #[test]
    fn pipes_devices_and_links_are_not_opened_or_followed() {
        let project = Project::with(&[("a/file", "x"), ("deep/.gitignore/x", "x")]);
        project.repository("");
        for pipe in ["pipe", "a/.gitignore", "a/.git", "a/CACHEDIR.TAG", ".git/packed-refs"] {
            project.pipe(pipe);
        }
        let _socket = UnixListener::bind(project.at("socket")).unwrap();
        project.link("..", "a/up");
        project.link("a", "link");
        project.link("nowhere", "broken");
        project.link("broken2", "broken2");
        project.write("odd\n\u{1b}[31m", "x");
        let not_utf8 = project.root.join(OsStr::from_bytes(b"\xff"));
        fs::write(not_utf8, "x").unwrap();
        let snapshot = project.look();
        let known = [
            ".git/packed-refs",
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
        assert_eq!(words(&snapshot), Vec::<String>::new());
    }

    #[test]
    fn a_limit_leaves_out_the_deepest_part_and_is_reported() {
        let project = Project::with(&[("a", "x"), ("b/c", "x"), ("b/d/e", "x")]);
        let snapshot = project.look_within(LookLimits { entries: 4, ..LIMITS });
        assert_eq!(project.compared(&snapshot), ["a", "b", "b/c", "b/d"]);
        assert_eq!(
            snapshot.changes(&|| false).warnings(),
            [
                "not all of the project was compared: only the first 4 files and folders were compared"
            ]
        );
        let snapshot = project.look_within(LookLimits { look: Duration::ZERO, ..LIMITS });
        assert_eq!(words(&snapshot), ["only the first 0 files and folders were compared"]);
        let snapshot = project.look_within(LookLimits { entries: 5, ..LIMITS });
        assert_eq!(words(&snapshot), Vec::<String>::new());
    }

    #[test]
    fn a_folder_beyond_the_limit_is_not_compared_in_part() {
        let project = Project::new();
        for n in 0..300 {
            project.write(&format!("{n}"), "x");
        }
        let snapshot = project.look_within(LookLimits { entries: 200, ..LIMITS });
        project.remove("0");
        assert_eq!(words(&snapshot), ["only the first 0 files and folders were compared"]);
    }

    #[test]
    fn mounts_and_folders_of_the_bridge_are_skipped() {
        let project = Project::with(&[("mnt/disk/a", "x"), ("state/ledger", "x"), ("b", "x")]);
        let mut ground = Ground::new(&project.root, &[project.at("state")]);
        ground.mounts.insert(project.at("mnt/disk"));
        let snapshot = first_look(ground, LIMITS, &|| false);
        assert_eq!(project.compared(&snapshot), ["b", "mnt"]);
        project.write("state/ledger", "more");
        assert_eq!(words(&snapshot), ["another file system is mounted at mnt/disk"]);
    }

    #[test]
    fn a_project_that_cannot_be_listed_is_not_called_unchanged() {
        let project = Project::with(&[("file", "x")]);
        let check = |path: &str, why: &str| {
            let path = project.at(path);
            let snapshot = look_at(&path);
            let expected = format!("{} could not be read: {why}", path.display());
            assert_eq!(words(&snapshot), [expected]);
            assert_eq!(snapshot.changes(&|| false).workspace_changed(), None);
        };
        check("none", "No such file or directory (os error 2)");
        check("file", "Not a directory (os error 20)");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_closed_folder_is_compared_from_outside() {
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
            assert_eq!(project.compared(&snapshot), ["blind", "blind/b", "closed", "names"]);
            assert_eq!(words(&snapshot), Vec::<String>::new());

            mode("closed", 0o700);
            project.write("closed/new", "x");
            mode("closed", 0o000);
            assert_eq!(words(&snapshot), ["closed/ (modified)"]);

            mode("blind", 0o100);
            let gap = "blind could not be read: Permission denied (os error 13)";
            assert_eq!(words(&project.look()), [gap]);
            for path in ["closed", "names", "blind"] {
                mode(path, 0o700);
            }
        };
        std::thread::spawn(as_nobody).join().unwrap();
    }
}
