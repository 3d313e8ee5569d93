//! The paths that a run may open, as plain data. Nothing here enforces them.
//!
//! Landlock only adds rights. A path that must stay closed inside an open folder is therefore left out: its folder is
//! opened entry by entry, and all other entries as a whole. A file that appears in such a folder later stays closed too.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::ops::Bound;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::secret_files::{SecretFiles, SecretPaths, Stop};
use super::system::PRIVATE_FOLDERS;
use crate::workspace::mounts;

/// The most entries that are opened one by one. A folder beyond that stays closed as a whole.
const ENTRIES: usize = 32_768;

/// The devices that a run may open. `/dev/fd` is a link to `/proc`, and opens nothing new.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// A right, which covers everything below a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Access {
    /// Listing folders.
    List,
    /// That, and reading files.
    Read,
    /// That, and executing files.
    Run,
    /// Reading, and every change, but not executing.
    Write,
    /// Reading and writing one device.
    Device,
}

/// The paths that one run needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SandboxRequest<'a> {
    /// The user's home, which is closed except for the paths of this request.
    pub(crate) home: &'a Path,
    /// The project, if the run is about one.
    pub(crate) project: Option<&'a Path>,
    /// The folder whose secret files stay closed: the project, even if the run does not read it.
    pub(crate) searched: Option<&'a Path>,
    /// Paths in the home that may be read and executed: the program, its runtime, and those of a setting.
    pub(crate) run: &'a [PathBuf],
    /// Paths in the home that may be read.
    pub(crate) read: &'a [PathBuf],
    /// Folders that may be written.
    pub(crate) write: &'a [PathBuf],
    /// Folders without links that stay closed wherever they lie, unless named above: the bridge's own
    /// state, Kimi's login.
    pub(crate) closed: &'a [PathBuf],
    /// The rules for secret files of the project.
    pub(crate) secret: &'a SecretFiles,
}

/// Files that appeared in a project after the rules were made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Appeared {
    /// Secret files that were not closed.
    pub(crate) open: Vec<PathBuf>,
    /// Files that were closed, although they are not secret.
    pub(crate) closed: Vec<PathBuf>,
    /// Folders that were not searched a second time.
    pub(crate) unseen: Vec<PathBuf>,
}

/// The paths that a run may open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Rules {
    /// Each right and the file or folder that it holds for.
    pub(crate) list: Vec<(Access, PathBuf)>,
    /// The secret files and folders of the project, which stay closed, in order.
    pub(crate) secret: Vec<PathBuf>,
    /// Folders of the project that stay closed as a whole, since they have too many secret files or were not searched.
    pub(crate) shut: Vec<PathBuf>,
    /// Folders of the project that were opened entry by entry.
    pub(crate) opened_by_entry: Vec<PathBuf>,
}

impl Rules {
    /// Makes the rules of a request. It searches the project for secret files until `stop` returns `true`, which takes a
    /// while in a large project.
    pub(crate) fn new(wanted: &SandboxRequest<'_>, stop: Stop<'_>) -> Rules {
        let mut rules = Rules::default();
        let project = wanted.project.map(canonical);
        let home = canonical(wanted.home);
        let mut private: BTreeSet<PathBuf> = wanted.closed.iter().cloned().collect();
        private.extend(PRIVATE_FOLDERS.map(PathBuf::from));
        let searched = wanted.searched.map(canonical);
        let used = [Some(&home), project.as_ref(), searched.as_ref()];
        let used: Vec<&Path> = used.into_iter().flatten().map(PathBuf::as_path).collect();
        let network = mounts::unused_network(&used);
        let mut closed = private.clone();
        if let Some(folder) = searched {
            let SecretPaths { secret, unseen } = wanted.secret.search(&folder, stop);
            closed.extend(secret.iter().chain(&unseen).cloned());
            // Where the project is mounted a second time, they stay closed as well.
            for alias in mounts::aliases(std::slice::from_ref(&folder)) {
                let inside = |path: &PathBuf| Some(alias.join(path.strip_prefix(&folder).ok()?));
                closed.extend(secret.iter().chain(&unseen).filter_map(inside));
            }
            rules.secret = secret;
            rules.shut = unseen;
        }
        // In the home only the paths of the request are open. A home at `/` closes nothing.
        let hides = home.parent().is_some();
        let mut without_home = closed.clone();
        // A disk, a terminal or shared memory would give what the home or another process holds.
        without_home.insert("/dev".into());
        if hides {
            without_home.insert(home.clone());
        }
        let around = Opened::around(Path::new("/"), Access::Run, &without_home, &network);
        rules.list = around.list;
        if let Some(project) = project {
            let is_hidden = |folder: &Path| project.starts_with(folder);
            // The user chose the project, wherever it lies.
            let inside = if (hides && is_hidden(&home)) || private.iter().any(|p| is_hidden(p)) {
                let inside = Opened::around(&project, Access::Read, &closed, &network);
                rules.list.extend(inside.list);
                (inside.shut, inside.by_entry)
            } else {
                (around.shut, around.by_entry)
            };
            let of_project = |paths: Vec<PathBuf>| {
                paths.into_iter().filter(|path| path.starts_with(&project)).collect::<Vec<_>>()
            };
            rules.shut.extend(of_project(inside.0));
            rules.opened_by_entry = of_project(inside.1);
            // Names are no secret: listing works as before.
            rules.list.push((Access::List, project));
        }
        let named =
            [(Access::Run, wanted.run), (Access::Read, wanted.read), (Access::Write, wanted.write)];
        for (access, paths) in named {
            let paths = paths.iter().map(|path| canonical(path));
            // A setting or a strange installation must not open the whole home by accident.
            for path in paths.filter(|path| !hides || !home.starts_with(path)) {
                match access {
                    // The program may lie in the project, beside a secret file.
                    Access::Run | Access::Read => {
                        let closed = below(&path, &closed).cloned().collect();
                        rules.list.extend(Opened::around(&path, access, &closed, &network).list);
                    }
                    // What is made in such a folder must be open as well.
                    Access::Write | Access::List | Access::Device => {
                        rules.list.push((access, path));
                    }
                }
            }
        }
        rules.list.push((Access::List, "/dev".into()));
        rules.list.extend(DEVICES.map(|device| (Access::Device, device.into())));
        // By bytes, since comparing paths by their components takes longer than all the rest.
        let bytes = |(access, path): &(Access, PathBuf)| (*access, path.as_os_str().to_owned());
        rules.list.sort_by_cached_key(bytes);
        rules.list.dedup();
        rules
    }

    /// Returns whether the rules allow reading a path.
    pub(crate) fn allow_reading(&self, path: &Path) -> bool {
        reaches(&self.readable(), &canonical(path))
    }

    /// The files and folders that may be read, in order, without those inside another one.
    fn readable(&self) -> Vec<&Path> {
        let open = self.list.iter().filter(|(access, _)| match access {
            Access::Read | Access::Run | Access::Write => true,
            Access::List | Access::Device => false,
        });
        let mut open: Vec<&Path> = open.map(|(_, path)| path.as_path()).collect();
        // Paths compare by their components, so what lies below a folder follows it at once.
        open.sort_unstable();
        open.dedup_by(|next, folder| next.starts_with(folder));
        open
    }

    /// Returns what appeared in the project since: secret files that lie where everything was opened whole, and
    /// files that lie where only what was there had been opened. Once `stop` returns `true`, the rest is left out.
    pub(crate) fn appeared(
        &self,
        project: &Path,
        secret: &SecretFiles,
        stop: Stop<'_>,
    ) -> Appeared {
        let SecretPaths { secret: now, mut unseen } = secret.search(&canonical(project), stop);
        let new: Vec<PathBuf> =
            now.into_iter().filter(|path| self.secret.binary_search(path).is_err()).collect();
        let readable = self.readable();
        let known: BTreeSet<&PathBuf> =
            [&self.secret, &self.shut, &self.opened_by_entry, &new].into_iter().flatten().collect();
        let mut closed = Vec::new();
        for folder in self.opened_by_entry.iter().take_while(|_| !stop()) {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let files = entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()))
                .map(|entry| entry.path());
            closed.extend(files.filter(|path| !known.contains(path) && !reaches(&readable, path)));
        }
        unseen.retain(|folder| !self.shut.contains(folder));
        Appeared {
            open: new.iter().filter(|path| reaches(&readable, path)).cloned().collect(),
            closed,
            unseen,
        }
    }

    /// The rights and paths as an order holds them.
    pub(crate) fn for_order(&self) -> Vec<(Access, OsString)> {
        self.list.iter().map(|(access, path)| (*access, path.into())).collect()
    }
}

/// Returns whether a path without links is one of these, or lies in one; they are in order, and none lies in
/// another.
fn reaches(open: &[&Path], path: &Path) -> bool {
    let behind = open.partition_point(|open| *open <= path);
    open[..behind].last().is_some_and(|open| path.starts_with(open))
}

/// The path without links; the part that does not exist stays as it is.
pub(crate) fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The path without `.` and `..`. It need not exist.
pub(crate) fn lexical(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, part| {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => path.push(part),
        }
        path
    })
}

/// A folder that is opened around closed paths.
#[derive(Default)]
struct Opened {
    list: Vec<(Access, PathBuf)>,
    shut: Vec<PathBuf>,
    by_entry: Vec<PathBuf>,
}

impl Opened {
    /// `network` are mount points that are not looked at, since their server may not answer.
    fn around(
        root: &Path,
        access: Access,
        closed: &BTreeSet<PathBuf>,
        network: &BTreeSet<PathBuf>,
    ) -> Opened {
        let mut opened = Opened::default();
        let mut budget = ENTRIES;
        let on_network = |path: &Path| path.ancestors().any(|folder| network.contains(folder));
        let barred = around_closed(closed, on_network);
        let mut paths = VecDeque::from([root.to_owned()]);
        while let Some(path) = paths.pop_front() {
            if closed.contains(&path) {
                continue;
            }
            if below(&path, closed).next().is_none() {
                let is_barred =
                    |path: &Path| inode(path).is_some_and(|inode| barred.contains(&inode));
                if on_network(&path) || !is_barred(&path) {
                    opened.list.push((access, path));
                }
                continue;
            }
            if on_network(&path) {
                continue;
            }
            let entries: Vec<PathBuf> = fs::read_dir(&path)
                .into_iter()
                .flatten()
                .flatten()
                // A link opens nothing by itself: the kernel asks about what it leads to.
                .filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()))
                .map(|entry| entry.path())
                .collect();
            let Some(rest) = budget.checked_sub(entries.len()) else {
                opened.shut.push(path);
                continue;
            };
            budget = rest;
            paths.extend(entries);
            opened.by_entry.push(path);
        }
        opened
    }
}

/// The device and number of a file, by which the kernel knows what is open.
fn inode(path: &Path) -> Option<(u64, u64)> {
    let metadata = path.symlink_metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// The closed paths and the folders that contain them. Each would open a closed path if it is mounted a second time
/// under another path.
fn around_closed(
    closed: &BTreeSet<PathBuf>,
    on_network: impl Fn(&Path) -> bool,
) -> BTreeSet<(u64, u64)> {
    let paths: BTreeSet<&Path> = closed.iter().flat_map(|path| path.ancestors()).collect();
    paths.into_iter().filter(|path| !on_network(path)).filter_map(inode).collect()
}

/// The closed paths below a folder.
fn below<'a>(folder: &'a Path, closed: &'a BTreeSet<PathBuf>) -> impl Iterator<Item = &'a PathBuf> {
    // Paths compare by their components, so what lies below a folder follows it at once.
    let behind = (Bound::Excluded(folder), Bound::Unbounded);
    closed.range::<Path, _>(behind).take_while(move |path| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::secret_files::Holding;

    /// The rules for a home with these files in a temporary folder.
    fn rules(files: &[&str], project: &str, run: &[&str]) -> (PathBuf, Rules) {
        let root = tempfile::tempdir().unwrap().keep().canonicalize().unwrap();
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let secret = SecretFiles::new([".env", "*.key"], &[] as &[Holding]).unwrap();
        let run: Vec<PathBuf> = run.iter().map(|path| root.join(path)).collect();
        let wanted = SandboxRequest {
            home: &root.join("home"),
            project: Some(&root.join(project)),
            searched: Some(&root.join(project)),
            run: &run,
            read: &[],
            write: &[root.join("home/state/run")],
            closed: &[root.join("home/state")],
            secret: &secret,
        };
        let rules = Rules::new(&wanted, &|| false);
        (root, rules)
    }

    #[track_caller]
    fn check(files: &[&str], project: &str, run: &[&str], open: &[&str], closed: &[&str]) {
        let (root, rules) = rules(files, project, run);
        for path in open {
            assert!(rules.allow_reading(&root.join(path)), "{path} is closed: {rules:#?}");
        }
        for path in closed {
            assert!(!rules.allow_reading(&root.join(path)), "{path} is open: {rules:#?}");
        }
        assert!(rules.allow_reading(Path::new("/usr/bin/env")));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn in_the_home_only_the_project_and_the_requested_paths_are_open() {
        check(
            &[
                "home/p/a",
                "home/q/a",
                "home/tool/bin/kimi",
                "home/state/run/x",
                "home/state/l",
                "other/a",
            ],
            "home/p",
            &["home/tool"],
            &["home/p/a", "home/p/new", "home/tool/bin/kimi", "home/state/run/x", "other/a"],
            &["home", "home/q/a", "home/state/l", "home/state", "."],
        );
    }

    #[test]
    fn around_a_secret_file_everything_is_open() {
        check(
            &[
                "home/p/a/b/x.key",
                "home/p/a/b/y",
                "home/p/a/c/z",
                "home/p/.env",
                "home/p/.envy",
                "home/p/f",
            ],
            "home/p",
            &[],
            &["home/p/a/b/y", "home/p/a/c/z", "home/p/.envy", "home/p/f"],
            &["home/p/a/b/x.key", "home/p/.env", "home/p/a/b/late"],
        );
    }

    #[test]
    fn a_program_of_the_project_opens_no_secret_beside_it() {
        for home in ["home", "srv"] {
            let path = |path: &str| format!("{home}/p/{path}");
            let files = [path("tools/kimi"), path("tools/x.key"), path("tools/lib/a"), path("b")];
            let files = files.each_ref().map(String::as_str);
            let [program, secret, library, other] = files;
            let (folder, project) = (path("tools"), path(""));
            check(
                &[&files[..], &["home/a"]].concat(),
                &project,
                &[&folder],
                &[program, library, other],
                &[secret],
            );
        }
    }

    #[test]
    fn a_folder_that_is_only_searched_is_not_opened_and_its_secrets_are_closed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let secret = SecretFiles::new(["*.key"], &[]).unwrap();
        let home = root.join("home");
        for (project, is_open) in [("home/p", false), ("srv/p", true)] {
            let project = root.join(project);
            fs::create_dir_all(project.join("bin")).unwrap();
            for file in ["a", "x.key", "bin/kimi", "bin/y.key"] {
                fs::write(project.join(file), "").unwrap();
            }
            let wanted = SandboxRequest {
                home: &home,
                project: None,
                searched: Some(&project),
                run: &[project.join("bin")],
                read: &[],
                write: &[],
                closed: &[],
                secret: &secret,
            };
            let rules = Rules::new(&wanted, &|| false);
            let open = |path: &str| rules.allow_reading(&project.join(path));
            assert_eq!(["a", "bin/kimi"].map(open), [is_open, true], "{project:?}");
            assert_eq!(["x.key", "bin/y.key"].map(open), [false, false], "{project:?}");
        }
    }

    #[test]
    fn a_project_outside_the_home_has_its_secrets_closed_as_well() {
        check(
            &["srv/p/.env", "srv/p/f", "srv/q/.env", "home/a"],
            "srv/p",
            &[],
            &["srv/p/f", "srv/q/.env"],
            &["srv/p/.env", "home/a"],
        );
    }

    #[test]
    fn a_project_that_is_the_home_keeps_the_bridges_state_closed() {
        check(
            &["home/a", "home/.env", "home/state/l", "home/state/run/x"],
            "home",
            &[],
            &["home/a", "home/state/run/x"],
            &["home/.env", "home/state/l"],
        );
    }

    #[test]
    fn a_project_that_holds_the_home_does_not_open_it() {
        check(&["home/a", "b"], ".", &[], &["b"], &["home/a"]);
    }

    #[test]
    fn a_network_file_system_around_a_closed_path_stays_closed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for folder in ["disk/me", "disk/other", "nfs/me", "nfs/other", "more"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let paths = |paths: &[&str]| paths.iter().map(|path| root.join(path)).collect();
        let (closed, network) = (paths(&["disk/me", "nfs/me"]), paths(&["nfs", "more"]));
        let opened = Opened::around(&root, Access::Read, &closed, &network);
        let opened: BTreeSet<PathBuf> = opened.list.into_iter().map(|(_, path)| path).collect();
        assert_eq!(opened, paths(&["disk/other", "more"]));
    }

    #[test]
    fn sockets_and_tickets_of_the_users_login_stay_closed() {
        let (root, rules) = rules(&["home/p/a"], "home/p", &[]);
        for path in ["/run/user", "/run/user/1000/token", "/run/credentials/x", "/run/secrets/x"] {
            assert!(!rules.allow_reading(Path::new(path)), "{path}");
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn no_requested_path_opens_the_whole_home() {
        check(&["home/p/a", "home/q"], "home/p", &["home", "."], &["home/p/a"], &["home/q"]);
    }

    #[test]
    fn a_folder_with_too_many_entries_stays_closed_and_is_reported() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("home/p/many")).unwrap();
        for number in 0..ENTRIES {
            fs::File::create(root.join(format!("home/p/many/{number}"))).unwrap();
        }
        for file in ["many/.env", ".env", "f"] {
            fs::write(root.join("home/p").join(file), "").unwrap();
        }
        let secret = SecretFiles::new([".env"], &[]).unwrap();
        let (home, project) = (root.join("home"), root.join("home/p"));
        let wanted = SandboxRequest {
            home: &home,
            project: Some(&project),
            searched: Some(&project),
            run: &[],
            read: &[],
            write: &[],
            closed: &[],
            secret: &secret,
        };
        let rules = Rules::new(&wanted, &|| false);
        assert_eq!(rules.shut, [project.join("many")]);
        assert_eq!(rules.opened_by_entry, std::slice::from_ref(&project));
        assert!(rules.allow_reading(&project.join("f")));
        assert!(!rules.allow_reading(&project.join("many/1")));
    }

    #[test]
    fn later_files_are_reported() {
        let (root, rules) = rules(&["home/p/a/x.key", "home/p/b/y"], "home/p", &[]);
        let (project, secret) =
            (root.join("home/p"), SecretFiles::new([".env", "*.key"], &[]).unwrap());
        assert_eq!(rules.appeared(&project, &secret, &|| false), Appeared::default());
        for path in ["a/late", "a/late.key", "b/late", "b/.env"] {
            fs::write(project.join(path), "").unwrap();
        }
        let expected = Appeared {
            open: vec![project.join("b/.env")],
            closed: vec![project.join("a/late")],
            unseen: vec![],
        };
        assert_eq!(rules.appeared(&project, &secret, &|| false), expected);
        let stopped = Appeared { unseen: vec![project.clone()], ..Appeared::default() };
        assert_eq!(rules.appeared(&project, &secret, &|| true), stopped);
        fs::remove_dir_all(root).unwrap();
    }

    /// The rules for a project of these files, and what appears in it when nothing does. Of so many files, looking
    /// each up in a list of the others would take many minutes.
    fn rules_of_many(files: impl Iterator<Item = String>) -> Rules {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let project = root.join("home/p");
        for file in files {
            let file = project.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::File::create(file).unwrap();
        }
        let secret = SecretFiles::new([".env"], &[]).unwrap();
        let wanted = SandboxRequest {
            home: &root.join("home"),
            project: Some(&project),
            searched: Some(&project),
            run: &[],
            read: &[],
            write: &[],
            closed: &[],
            secret: &secret,
        };
        let rules = Rules::new(&wanted, &|| false);
        let nothing = rules.appeared(&project, &secret, &|| false);
        assert_eq!(nothing, Appeared::default());
        rules
    }

    #[test]
    fn thousands_of_packages_with_a_secret_each_take_no_time() {
        let files = (0..3_000).flat_map(|n| [format!("{n}/.env"), format!("{n}/main.rs")]);
        let rules = rules_of_many(files);
        assert_eq!((rules.secret.len(), rules.opened_by_entry.len()), (3_000, 3_001));
    }

    #[test]
    fn deep_folders_with_a_secret_at_their_ends_take_no_time() {
        let chain = |n: usize| format!("{n}/{}.env", "d/".repeat(99));
        let rules = rules_of_many((0..60).map(chain));
        assert_eq!((rules.secret.len(), rules.opened_by_entry.len()), (60, 6_001));
    }
}
