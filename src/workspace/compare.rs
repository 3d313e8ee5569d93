//! The second look: lists each folder of the first look again, with the rules of the first look.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::changes::{Change, ChangeKind, Changes, Gap, within};
use super::entry::{Entries, Listing};
use super::look::{Look, LookLimits, Snapshot, is_gone};
use super::mounts;

/// A second look under way.
struct Comparison<'a> {
    look: Look<'a>,
    changed: BTreeSet<Change>,
    /// Removed or replaced folders. A link in place of a folder is not followed.
    gone: HashSet<PathBuf>,
}

/// Lists the folders of a snapshot again.
pub(super) fn second_look(before: &Snapshot, stopped: &dyn Fn() -> bool) -> Changes {
    // The second half is for new files and folders.
    let limits = LookLimits { entries: 2 * before.limits.entries, ..before.limits };
    let mut look = Look::new(before.ground.clone(), limits, stopped);
    look.gaps.clone_from(&before.gaps);
    for mount in mounts::below(&look.ground.root) {
        if look.ground.mounts.insert(mount.clone()) {
            look.gaps.insert(Gap::Mounted(within(&look.ground.root, &mount)));
        }
    }
    let mut comparison = Comparison { look, changed: BTreeSet::new(), gone: HashSet::new() };
    for folder in &before.folders {
        if !comparison.folder(folder) {
            break;
        }
    }
    Changes { changed: comparison.changed, incomplete: comparison.look.gaps }
}

impl Comparison<'_> {
    /// Compares a folder; returns false when the look met a limit.
    fn folder(&mut self, folder: &Listing) -> bool {
        let is_left_out =
            |above: &Path| self.gone.contains(above) || self.look.ground.mounts.contains(above);
        if folder.path.ancestors().any(is_left_out) {
            return true;
        }
        if folder.closed.is_some() {
            if folder.last_touched() != folder.closed {
                self.change(&folder.path, true, ChangeKind::Modified);
            }
            return true;
        }
        let after = match self.look.list(&folder.path, &folder.names) {
            Ok(Some(after)) => after,
            Ok(None) => return false,
            Err(error) if is_gone(&error) => Entries::new(),
            Err(error) => {
                self.look.unreadable(&folder.path, &error);
                return true;
            }
        };
        for (name, before) in &folder.entries {
            let (what, kind) = match after.get(name) {
                Some(now) => (now.since(before), now.kind),
                None => (Some(ChangeKind::Removed), before.kind),
            };
            if let Some(what) = what {
                self.change(&folder.path.join(name), kind.is_dir(), what);
            }
        }
        for (name, now) in after.iter().filter(|(name, _)| !folder.entries.contains_key(*name)) {
            self.change(&folder.path.join(name), now.kind.is_dir(), ChangeKind::Created);
        }
        true
    }

    fn change(&mut self, path: &Path, is_folder: bool, what: ChangeKind) {
        // A file system mounted over an entry does not remove the entry.
        if self.look.ground.mounts.contains(path) {
            return;
        }
        if matches!(what, ChangeKind::Removed | ChangeKind::Replaced) {
            self.gone.insert(path.to_owned());
        }
        let path = within(&self.look.ground.root, path);
        self.changed.insert(Change { path, is_folder, what });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::super::fixture::{Project, words};
    use super::super::look::LIMITS;
    use super::*;

    fn check(edit: impl FnOnce(&Project), expected: &[&str]) {
        let project =
            Project::with(&[("a", "one"), ("b", "two"), ("d/c", "three"), ("d/e/f", "four")]);
        project.link("a", "link");
        project.pipe("pipe");
        project.folder("empty");
        assert_eq!(project.changes(edit), expected);
    }

    fn set_mode(project: &Project, path: &str, mode: u32) {
        fs::set_permissions(project.at(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn changes_are_reported_by_path() {
        check(|_| {}, &[]);
        check(|project| project.write("a", "ONE"), &["a (modified)"]);
        check(|project| project.write("d/c", ""), &["d/c (modified)"]);
        check(|project| project.remove("b"), &["b (removed)"]);
        check(|project| project.write("d/e/new", "x"), &["d/e/new (created)"]);
        check(|project| project.write("n/e/w", "x"), &["n/ (created)"]);
        check(|project| project.folder("d/g"), &["d/g/ (created)"]);
        check(|project| project.rename("a", "z"), &["a (removed)", "z (created)"]);
        check(|project| project.rename("d", "z"), &["d/ (removed)", "z/ (created)"]);
        check(|project| set_mode(project, "a", 0o755), &["a (permissions changed)"]);
        check(|project| set_mode(project, "d", 0o711), &["d/ (permissions changed)"]);
        check(|project| fs::remove_dir(project.at("empty")).unwrap(), &["empty/ (removed)"]);
        check(
            |project| fs::remove_dir_all(&project.root).unwrap(),
            &[
                "a (removed)",
                "b (removed)",
                "d/ (removed)",
                "empty/ (removed)",
                "link (removed)",
                "pipe (removed)",
            ],
        );
    }

    #[test]
    fn an_entry_of_another_type_is_replaced() {
        let relink = |project: &Project, path: &str, target: &str| {
            project.remove(path);
            project.link(target, path);
        };
        check(|project| relink(project, "link", "b"), &["link (modified)"]);
        check(|project| relink(project, "link", "a"), &["link (modified)"]);
        check(|project| relink(project, "a", "b"), &["a (replaced)"]);
        let folder = |project: &Project| {
            fs::remove_dir_all(project.at("d")).unwrap();
            project.write("d", "x");
        };
        check(folder, &["d (replaced)"]);
        let elsewhere = |project: &Project| {
            project.rename("d", "moved");
            project.link("moved", "d");
        };
        check(elsewhere, &["d (replaced)", "moved/ (created)"]);
        let to_itself = |project: &Project| {
            fs::remove_dir_all(project.at("d")).unwrap();
            project.link("d", "d");
        };
        check(to_itself, &["d (replaced)"]);
        let pipe = |project: &Project| {
            project.rename("pipe", "old");
            project.pipe("pipe");
            project.remove("old");
        };
        check(pipe, &["pipe (replaced)"]);
        check(|project| set_mode(project, "pipe", 0o600), &["pipe (permissions changed)"]);
    }

    #[test]
    fn a_rewritten_file_counts_as_modified() {
        check(|project| project.write("a", "one"), &["a (modified)"]);
        let touch = |project: &Project| {
            File::open(project.at("a")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        };
        check(touch, &["a (modified)"]);
        let saved_by_an_editor = |project: &Project| {
            project.write("a~", "one");
            project.rename("a~", "a");
        };
        check(saved_by_an_editor, &["a (modified)"]);
    }

    #[test]
    fn a_file_that_was_created_and_removed_is_no_change() {
        let in_passing = |project: &Project| {
            project.write("passing", "x");
            project.remove("passing");
            let mode = fs::metadata(project.at("d")).unwrap().mode();
            set_mode(project, "d", 0o700);
            set_mode(project, "d", mode);
            fs::read(project.at("a")).unwrap();
        };
        check(in_passing, &[]);
    }

    #[test]
    fn setting_the_time_back_hides_no_change() {
        let hidden = |project: &Project| {
            let before = fs::metadata(project.at("a")).unwrap();
            project.write("a", "ONE");
            File::open(project.at("a")).unwrap().set_modified(before.modified().unwrap()).unwrap();
            let after = fs::metadata(project.at("a")).unwrap();
            assert_eq!((before.mtime_nsec(), before.len()), (after.mtime_nsec(), after.len()));
        };
        check(hidden, &["a (modified)"]);
    }

    #[test]
    fn a_run_cannot_hide_files_by_rules_of_its_own() {
        let project = Project::with(&[(".gitignore", "*.log\n"), ("src/a", "x"), ("x.log", "x")]);
        project.repository("");
        let edit = |project: &Project| {
            project.write("src/.gitignore", "*\n");
            project.write("src/a", "y");
            project.write("src/new", "x");
            project.write("new.log", "x");
            project.write(".git/info/exclude", "src\n");
            project.write(".gitignore", "");
        };
        assert_eq!(
            project.changes(edit),
            [
                ".git/info/exclude (modified)",
                ".gitignore (modified)",
                "src/.gitignore (created)",
                "src/a (modified)",
                "src/new (created)",
            ]
        );
    }

    #[test]
    fn a_second_look_that_meets_its_limit_says_so() {
        let project = Project::with(&[("a", "one"), ("d/c", "x")]);
        let mut snapshot = project.look();
        snapshot.limits.look = Duration::ZERO;
        let gap = "only the first 0 files and folders were compared";
        assert_eq!(words(&snapshot), [gap]);
        assert_eq!(snapshot.changes(&|| false).workspace_changed(), None);
        let snapshot = project.look();
        assert_eq!(snapshot.changes(&|| true).incomplete, [Gap::After(0)].into());
    }

    #[test]
    fn the_look_at_a_growing_folder_is_bounded() {
        let project = Project::with(&[("a", "one"), ("z/b", "x")]);
        let snapshot = project.look_within(LookLimits { entries: 3, ..LIMITS });
        for n in 0..20 {
            project.write(&n.to_string(), "x");
        }
        assert_eq!(words(&snapshot), ["only the first 0 files and folders were compared"]);
    }

    #[test]
    fn a_folder_that_is_mounted_over_was_not_removed() {
        let project = Project::with(&[("mnt/a", "one"), ("b", "x")]);
        let mut snapshot = project.look();
        snapshot.ground.mounts.insert(project.at("mnt"));
        assert_eq!(words(&snapshot), ["another file system is mounted at mnt"]);
    }

    /// The facts that a simple comparison takes from a path: permissions for a folder; permissions and times for
    /// others. A file that was renamed to this path may differ only in its inode.
    #[derive(Debug, Clone, PartialEq)]
    enum State {
        Folder(u32),
        File { modified: (i64, i64, u64, u64), touched: (i64, i64), mode: u32 },
        Link { touched: (i64, i64) },
    }

    fn states(root: &Path) -> BTreeMap<PathBuf, State> {
        let mut all = BTreeMap::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                let state = if metadata.is_dir() {
                    folders.push(path.clone());
                    State::Folder(metadata.mode())
                } else {
                    let touched = (metadata.ctime(), metadata.ctime_nsec());
                    let (size, inode) = (metadata.len(), metadata.ino());
                    let modified = (metadata.mtime(), metadata.mtime_nsec(), size, inode);
                    if metadata.is_symlink() {
                        State::Link { touched }
                    } else {
                        State::File { modified, touched, mode: metadata.mode() }
                    }
                };
                all.insert(path.strip_prefix(root).unwrap().to_owned(), state);
            }
        }
        all
    }

    fn difference(
        before: &BTreeMap<PathBuf, State>,
        after: &BTreeMap<PathBuf, State>,
    ) -> BTreeSet<Change> {
        let mut changes: BTreeMap<&Path, ChangeKind> = BTreeMap::new();
        for path in before.keys().chain(after.keys()) {
            let what = match (before.get(path), after.get(path)) {
                (None, _) => ChangeKind::Created,
                (_, None) => ChangeKind::Removed,
                (Some(before), Some(after)) if before == after => continue,
                (Some(State::Folder(_)), Some(State::Folder(_))) => ChangeKind::Permissions,
                (
                    Some(State::File { modified: before, mode: old, .. }),
                    Some(State::File { modified: after, mode: new, .. }),
                ) if before == after && old != new => ChangeKind::Permissions,
                (Some(State::File { .. }), Some(State::File { .. }))
                | (Some(State::Link { .. }), Some(State::Link { .. })) => ChangeKind::Modified,
                (Some(_), Some(_)) => ChangeKind::Replaced,
            };
            changes.insert(path, what);
        }
        let is_below_a_change = |path: &Path| {
            let made = [ChangeKind::Created, ChangeKind::Removed, ChangeKind::Replaced];
            path.ancestors()
                .skip(1)
                .any(|above| changes.get(above).is_some_and(|what| made.contains(what)))
        };
        let is_folder =
            |path: &Path| matches!(after.get(path).or(before.get(path)), Some(State::Folder(_)));
        let change = |(path, what): (&&Path, &ChangeKind)| Change {
            path: path.to_path_buf(),
            is_folder: is_folder(path),
            what: *what,
        };
        changes.iter().filter(|(path, _)| !is_below_a_change(path)).map(change).collect()
    }

    #[derive(Debug, Clone)]
    enum Edit {
        Write(&'static str, &'static str),
        Remove(&'static str),
        Folder(&'static str),
        Link(&'static str, &'static str),
        Mode(&'static str, u32),
        Rename(&'static str, &'static str),
    }

    /// Applies an edit if it is possible; a file may be in place of a folder.
    fn apply(project: &Project, edit: &Edit) {
        let _ = match *edit {
            Edit::Write(path, text) => {
                let _ = fs::create_dir_all(project.at(path).parent().unwrap());
                fs::write(project.at(path), text)
            }
            Edit::Remove(path) => {
                fs::remove_file(project.at(path)).or_else(|_| fs::remove_dir_all(project.at(path)))
            }
            Edit::Folder(path) => fs::create_dir_all(project.at(path)),
            Edit::Link(target, path) => std::os::unix::fs::symlink(target, project.at(path)),
            Edit::Mode(path, mode) => {
                fs::set_permissions(project.at(path), fs::Permissions::from_mode(mode))
            }
            Edit::Rename(from, to) => fs::rename(project.at(from), project.at(to)),
        };
    }

    fn edits(most: usize) -> impl Strategy<Value = Vec<Edit>> {
        let path = || {
            proptest::sample::select(vec![
                "a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "f/a", "f/b",
            ])
        };
        let text = proptest::sample::select(vec!["", "x", "y", "xx", "xy"]);
        let edit = prop_oneof![
            6 => (path(), text).prop_map(|(path, text)| Edit::Write(path, text)),
            2 => path().prop_map(Edit::Remove),
            1 => path().prop_map(Edit::Folder),
            1 => (path(), path()).prop_map(|(target, path)| Edit::Link(target, path)),
            1 => (path(), proptest::sample::select(vec![0o700, 0o755]))
                .prop_map(|(path, mode)| Edit::Mode(path, mode)),
            2 => (path(), path()).prop_map(|(from, to)| Edit::Rename(from, to)),
        ];
        proptest::collection::vec(edit, 0..most)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn any_edits_are_reported_exactly(first in edits(20), then in edits(6)) {
            let project = Project::new();
            for edit in &first {
                apply(&project, edit);
            }
            let snapshot = project.look();
            let before = states(&project.root);
            for edit in &then {
                apply(&project, edit);
            }
            let changed = difference(&before, &states(&project.root));
            let expected = Changes { changed, ..Changes::default() };
            prop_assert_eq!(snapshot.changes(&|| false), expected);
        }
    }
}
