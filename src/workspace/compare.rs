//! The second look: each folder of the first one again, by the rules of the first one.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::changes::{Change, Changes, Gap, Gaps, What, within};
use super::contents::Reader;
use super::entry::{Entry, Extent, Facts, Folder, Kind};
use super::ground::{Budget, Ground, is_gone};
use super::{Snapshot, mounts};

/// What became of an entry that is still there.
enum Fate {
    Same,
    Changed(What),
    /// It was touched, and the contents before are not known.
    Unsure,
}

/// A second look under way.
struct Comparison {
    ground: Ground,
    budget: Budget,
    reader: Reader,
    /// With absolute paths.
    changed: Vec<Change>,
    unsure: Vec<PathBuf>,
    /// Folders that were removed or replaced; a link in place of one is not followed.
    gone: HashSet<PathBuf>,
    gaps: Gaps,
}

/// Looks at the folders of a snapshot again.
pub(super) fn second_look(before: &Snapshot) -> Changes {
    let (now, limits) = (Instant::now(), &before.limits);
    let mut ground = before.ground.clone();
    let mut gaps = before.gaps.clone();
    for mount in mounts::below(&ground.root) {
        if ground.mounts.insert(mount.clone()) {
            gaps.mounted.insert(mount);
        }
    }
    let known = before.entries();
    let mut comparison = Comparison {
        ground,
        budget: Budget { entries: known + limits.entries, until: now + limits.look },
        reader: Reader::new(limits.contents, now + limits.look + limits.reading),
        changed: Vec::new(),
        unsure: Vec::new(),
        gone: HashSet::new(),
        gaps,
    };
    let mut compared = 0;
    for folder in &before.folders {
        if comparison.budget.is_spent() || !comparison.folder(folder) {
            comparison.gaps.limits.push(Gap::SecondLook { compared, known });
            break;
        }
        compared += folder.entries.len();
    }
    for repository in &before.repositories {
        let after = repository.read_branches(comparison.budget.until);
        if after.cut {
            comparison.gaps.branches.insert(repository.root.clone());
        }
        comparison.changed.extend(repository.moved(&after));
    }
    comparison.finish()
}

impl Comparison {
    /// Looks into a folder again; tells whether all of it was seen.
    fn folder(&mut self, folder: &Folder) -> bool {
        let is_gone_with = |above: &Path| self.gone.contains(above);
        if !self.gone.is_empty() && folder.path.ancestors().any(is_gone_with) {
            return true;
        }
        // Something was mounted meanwhile.
        if self.ground.is_mounted(&folder.path) {
            return true;
        }
        let listed = match folder.extent {
            Extent::Closed(touched) => {
                if Facts::last_touched(&folder.path) != touched {
                    self.unsure.push(folder.path.to_path_buf());
                }
                return true;
            }
            Extent::Whole => {
                let mounted = &mut self.gaps.mounted;
                self.ground.list(folder, &mut self.budget, |path| _ = mounted.insert(path))
            }
            Extent::Partly => {
                let names = folder.entries.iter().map(|entry| &*entry.name);
                Ok(self.ground.at(&folder.path, names, &mut self.budget))
            }
        };
        let (after, extent) = match listed {
            Ok(listed) => listed,
            Err(error) if is_gone(&error) => (Vec::new(), Extent::Whole),
            Err(error) => {
                self.gaps.unreadable.insert(folder.path.to_path_buf(), error.to_string());
                return true;
            }
        };
        self.entries(folder, after, extent);
        extent == Extent::Whole
    }

    /// Goes through both lists, which are in the order of names.
    fn entries(&mut self, folder: &Folder, after: Vec<Entry>, extent: Extent) {
        let mut after = after.into_iter().peekable();
        for before in &folder.entries {
            while let Some(new) = after.next_if(|after| after.name < before.name) {
                self.change(folder, &new, What::Created);
            }
            if let Some(now) = after.next_if(|after| after.name == before.name) {
                match self.fate(folder, before, &now) {
                    Fate::Same => {}
                    Fate::Changed(what) => self.change(folder, &now, what),
                    Fate::Unsure => self.unsure.push(folder.path.join(&*now.name)),
                }
            } else if extent == Extent::Whole {
                self.change(folder, before, What::Removed);
            }
        }
        for new in after {
            self.change(folder, &new, What::Created);
        }
    }

    fn change(&mut self, folder: &Folder, entry: &Entry, what: What) {
        let path = folder.path.join(&*entry.name);
        // What is mounted is passed over, not removed.
        if !self.ground.mounts.contains(&path) {
            let is_folder = entry.facts.kind == Kind::Folder;
            if what == What::Replaced || (what == What::Removed && is_folder) {
                self.gone.insert(path.clone());
            }
            self.changed.push(Change { path, is_folder, what });
        }
    }

    fn fate(&mut self, folder: &Folder, before: &Entry, now: &Entry) -> Fate {
        let (was, is) = (&before.facts, &now.facts);
        if was == is && (was.kind != Kind::Link || before.contents == now.contents) {
            return Fate::Same;
        }
        if was.kind != is.kind {
            return Fate::Changed(What::Replaced);
        }
        let access =
            if was.access == is.access { Fate::Same } else { Fate::Changed(What::Permissions) };
        match was.kind {
            Kind::Link if before.contents != now.contents => Fate::Changed(What::Modified),
            Kind::Other if was.inode != is.inode => Fate::Changed(What::Replaced),
            Kind::File if was.size != is.size => Fate::Changed(What::Modified),
            Kind::File if was.size > 0 => {
                let path = folder.path.join(&*now.name);
                let same = before.contents.and_then(|before| {
                    Some(self.reader.hash(&path, is, &self.ground.seal)? == before)
                });
                match (same, access) {
                    (Some(false), _) => Fate::Changed(What::Modified),
                    (None, Fate::Same) => Fate::Unsure,
                    (Some(true) | None, access) => access,
                }
            }
            Kind::Folder | Kind::File | Kind::Link | Kind::Other => access,
        }
    }

    /// Sorts, and drops what lies in a folder that was itself removed or replaced.
    fn finish(mut self) -> Changes {
        let root = &self.ground.root;
        let gone = &self.gone;
        let stands = |path: &Path| !path.ancestors().skip(1).any(|above| gone.contains(above));
        self.changed.retain(|change| stands(&change.path));
        for change in &mut self.changed {
            change.path = within(root, &change.path);
        }
        self.changed.sort_unstable();
        self.changed.dedup();
        self.unsure.retain(|path| stands(path));
        let mut unsure: Vec<PathBuf> = self.unsure.iter().map(|path| within(root, path)).collect();
        unsure.sort_unstable();
        Changes { changed: self.changed, unsure, incomplete: self.gaps.finish(root) }
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
    use super::super::{Limits, Snapshot};
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
    fn what_changed_is_told_by_path() {
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
    fn what_became_something_else_is_replaced() {
        let relink = |project: &Project, path: &str, target: &str| {
            project.remove(path);
            project.link(target, path);
        };
        check(|project| relink(project, "link", "b"), &["link (modified)"]);
        check(|project| relink(project, "link", "a"), &[]);
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
    fn what_was_only_touched_is_not_a_change() {
        check(|project| project.write("a", "one"), &[]);
        let touch = |project: &Project| {
            File::open(project.at("a")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        };
        check(touch, &[]);
        let to_and_fro = |project: &Project| {
            project.write("a", "other");
            project.write("a", "one");
            let mode = fs::metadata(project.at("b")).unwrap().mode();
            set_mode(project, "b", 0o700);
            set_mode(project, "b", mode);
            project.write("passing", "x");
            project.remove("passing");
        };
        check(to_and_fro, &[]);
        let saved_by_an_editor = |project: &Project| {
            project.write("a~", "one");
            project.rename("a~", "a");
        };
        check(saved_by_an_editor, &[]);
    }

    #[test]
    fn a_time_that_was_set_back_hides_nothing() {
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
    fn a_touched_file_is_unsure_when_its_contents_before_are_not_known() {
        let project = Project::with(&[("big", "12345"), ("small", "1234")]);
        project.write("grown", "1");
        let sparse = File::create(project.at("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let unsure = |limits: &Limits, remember: &dyn Fn(&mut Snapshot)| {
            let mut snapshot = Snapshot::take(&project.root, &[], limits);
            remember(&mut snapshot);
            for (path, text) in [("big", "54321"), ("small", "4321"), ("grown", "12")] {
                let text =
                    if path == "grown" { text.repeat(grown(&project)) } else { text.to_owned() };
                project.write(path, &text);
            }
            sparse.set_modified(SystemTime::now()).unwrap();
            words(&snapshot.changes())
        };
        let remember = |snapshot: &mut Snapshot| snapshot.remember_contents(|| false);
        let small = Limits { file: 4, ..Limits::default() };
        let first = unsure(&small, &remember);
        assert_eq!(first, ["grown (modified)", "small (modified)", "big ?", "sparse ?"]);
        let all = ["grown (modified)", "big ?", "small ?", "sparse ?"];
        assert_eq!(unsure(&Limits::default(), &|_| ()), all);
        assert_eq!(
            unsure(&Limits::default(), &|snapshot| snapshot.remember_contents(|| true)),
            all
        );
        assert_eq!(unsure(&Limits { contents: 0, ..Limits::default() }, &remember), all);
        assert_eq!(
            unsure(&Limits { reading: Duration::ZERO, ..Limits::default() }, &remember),
            all
        );
    }

    fn grown(project: &Project) -> usize {
        usize::try_from(fs::metadata(project.at("grown")).unwrap().len()).unwrap() + 1
    }

    #[test]
    fn contents_that_changed_before_they_were_read_are_not_taken_for_those_before() {
        let project = Project::with(&[("a", "one")]);
        let mut snapshot = project.look();
        project.write("a", "ONE");
        snapshot.remember_contents(|| false);
        assert_eq!(words(&snapshot.changes()), ["a ?"]);
    }

    #[test]
    fn a_second_look_that_meets_its_limit_says_so() {
        let project = Project::with(&[("a", "one"), ("d/c", "x")]);
        let mut snapshot = project.look();
        snapshot.limits.look = Duration::ZERO;
        let changes = snapshot.changes();
        let gap = "only 0 of 3 files and folders were looked at again";
        assert_eq!((changes.workspace_changed(), words(&changes)), (None, vec![gap.to_owned()]));
    }

    #[test]
    fn a_folder_that_fills_up_is_bounded() {
        let project = Project::with(&[("a", "one"), ("z/b", "x")]);
        let limits = Limits { entries: 3, ..Limits::default() };
        let snapshot = Snapshot::take(&project.root, &[], &limits);
        for n in 0..20 {
            project.write(&n.to_string(), "x");
        }
        let changes = snapshot.changes();
        assert_eq!(changes.workspace_changed(), Some(true));
        assert!(changes.changed.len() <= 6, "{changes:?}");
        assert_eq!(changes.incomplete, [Gap::SecondLook { compared: 0, known: 3 }]);
    }

    #[test]
    fn what_is_mounted_meanwhile_was_not_removed() {
        let project = Project::with(&[("mnt/a", "one"), ("b", "x")]);
        let snapshot = project.look();
        let mut comparison = Comparison {
            ground: snapshot.ground.clone(),
            budget: Budget { entries: 9, until: Instant::now() + Duration::from_secs(60) },
            reader: Reader::new(0, Instant::now()),
            changed: Vec::new(),
            unsure: Vec::new(),
            gone: HashSet::new(),
            gaps: Gaps::default(),
        };
        comparison.ground.mounts.insert(project.at("mnt"));
        assert!(snapshot.folders.iter().all(|folder| comparison.folder(folder)));
        assert_eq!(words(&comparison.finish()), ["another file system is mounted at mnt"]);
    }

    /// What a naive reading finds at a path.
    #[derive(Debug, Clone, PartialEq)]
    enum State {
        Folder(u32),
        File(Vec<u8>, u32),
        Link(PathBuf),
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
                } else if metadata.is_symlink() {
                    State::Link(fs::read_link(&path).unwrap())
                } else {
                    State::File(fs::read(&path).unwrap(), metadata.mode())
                };
                all.insert(path.strip_prefix(root).unwrap().to_owned(), state);
            }
        }
        all
    }

    fn difference(
        before: &BTreeMap<PathBuf, State>,
        after: &BTreeMap<PathBuf, State>,
    ) -> Vec<Change> {
        let mut changes: BTreeMap<&Path, What> = BTreeMap::new();
        for path in before.keys().chain(after.keys()) {
            let what = match (before.get(path), after.get(path)) {
                (None, _) => What::Created,
                (_, None) => What::Removed,
                (Some(before), Some(after)) if before == after => continue,
                (Some(State::Folder(_)), Some(State::Folder(_))) => What::Permissions,
                (Some(State::File(before, _)), Some(State::File(after, _))) if before == after => {
                    What::Permissions
                }
                (Some(State::File(..)), Some(State::File(..)))
                | (Some(State::Link(_)), Some(State::Link(_))) => What::Modified,
                (Some(_), Some(_)) => What::Replaced,
            };
            changes.insert(path, what);
        }
        let whole = |path: &Path| {
            let made = [What::Created, What::Removed, What::Replaced];
            path.ancestors()
                .skip(1)
                .any(|above| changes.get(above).is_some_and(|what| made.contains(what)))
        };
        let is_folder =
            |path: &Path| matches!(after.get(path).or(before.get(path)), Some(State::Folder(_)));
        let change = |(path, what): (&&Path, &What)| Change {
            path: path.to_path_buf(),
            is_folder: is_folder(path),
            what: *what,
        };
        changes.iter().filter(|(path, _)| !whole(path)).map(change).collect()
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

    /// Does what can be done; a file may stand where a folder is wanted.
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
        fn any_edits_are_told_exactly(first in edits(20), then in edits(6)) {
            let project = Project::new();
            for edit in &first {
                apply(&project, edit);
            }
            let mut snapshot = project.look();
            snapshot.remember_contents(|| false);
            let before = states(&project.root);
            for edit in &then {
                apply(&project, edit);
            }
            let changed = difference(&before, &states(&project.root));
            prop_assert_eq!(snapshot.changes(), Changes { changed, ..Changes::default() });
        }
    }
}
