//! The differences between two looks and the parts that were not compared, and their text for the user.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// The most changes or gaps that a warning names; the rest are counted.
const LISTED: usize = 20;
/// The most characters of a path that are shown: the last ones, which name the file.
const SHOWN: usize = 160;

/// The kind of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ChangeKind {
    Created,
    /// The file was written, even with the same contents.
    Modified,
    Removed,
    /// The entry has another type: a link in place of a file, a file in place of a folder.
    Replaced,
    /// Only the permissions, the owner or the group differ.
    Permissions,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Change {
    /// A path below the project, or absolute if it is elsewhere.
    pub path: PathBuf,
    /// True for a folder. The contents of a created or removed folder are not listed.
    pub is_folder: bool,
    pub what: ChangeKind,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.is_folder { "/" } else { "" };
        let what = match self.what {
            ChangeKind::Created => "created",
            ChangeKind::Modified => "modified",
            ChangeKind::Removed => "removed",
            ChangeKind::Replaced => "replaced",
            ChangeKind::Permissions => "permissions changed",
        };
        write!(f, "{}{slash} ({what})", shown(&self.path))
    }
}

/// Part of a project that was not compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Gap {
    /// The whole project, since a look did not end in time.
    Late,
    /// The files and folders after this many, where a look met a limit.
    After(usize),
    /// Another file system, mounted here.
    Mounted(PathBuf),
    /// A folder that could not be read, and the reason.
    Unreadable(PathBuf, String),
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gap::Late => write!(f, "it could not be looked at in time"),
            Gap::After(compared) => {
                write!(f, "only the first {} files and folders were compared", grouped(*compared))
            }
            Gap::Mounted(path) => write!(f, "another file system is mounted at {}", shown(path)),
            Gap::Unreadable(path, why) => write!(f, "{} could not be read: {why}", shown(path)),
        }
    }
}

/// The differences between two looks at a project.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub changed: BTreeSet<Change>,
    /// The parts that were not compared.
    pub incomplete: BTreeSet<Gap>,
}

impl Changes {
    /// Returns whether the project changed; `None` when no change was seen but not everything was compared.
    pub(crate) fn workspace_changed(&self) -> Option<bool> {
        match (self.changed.is_empty(), self.incomplete.is_empty()) {
            (false, _) => Some(true),
            (true, true) => Some(false),
            (true, false) => None,
        }
    }

    /// The warnings of a result, without control characters.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.changed.is_empty() {
            warnings.push(format!("changed while Kimi ran: {}", listed(&self.changed, ", ")));
        }
        if !self.incomplete.is_empty() {
            let gaps = listed(&self.incomplete, "; ");
            warnings.push(format!("not all of the project was compared: {gaps}"));
        }
        warnings
    }
}

/// The first items of a set as text, and the number of the others.
fn listed<T: fmt::Display>(all: &BTreeSet<T>, separator: &str) -> String {
    let words: Vec<String> = all.iter().take(LISTED).map(T::to_string).collect();
    let more = match all.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {} more", grouped(more)),
    };
    words.join(separator) + &more
}

/// A path relative to the project; unchanged for the project itself and for a path outside it.
pub(super) fn within(root: &Path, path: &Path) -> PathBuf {
    let below = path.strip_prefix(root).ok().filter(|below| !below.as_os_str().is_empty());
    below.unwrap_or(path).to_owned()
}

/// The escaped form of a path, which cannot act on a terminal or break a line.
#[expect(clippy::unnecessary_debug_formatting, reason = "only this form is escaped")]
fn shown(path: &Path) -> String {
    let quoted = format!("{path:?}");
    let text = &quoted[1..quoted.len() - 1];
    match text.char_indices().rev().nth(SHOWN) {
        Some((cut, _)) => format!("…{}", &text[cut..]),
        None => text.to_owned(),
    }
}

/// A number with a comma before every three digits.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    fn change(path: &str, is_folder: bool, what: ChangeKind) -> Change {
        Change { path: path.into(), is_folder, what }
    }

    #[test]
    fn a_warning_says_that_a_change_happened_meanwhile_but_not_who_made_it() {
        let check = |changes: Changes, changed: Option<bool>, warnings: &[&str]| {
            assert_eq!(
                (changes.workspace_changed(), changes.warnings()),
                (changed, warnings.iter().map(ToString::to_string).collect())
            );
        };
        check(Changes::default(), Some(false), &[]);
        let changed = BTreeSet::from([
            change("notes", true, ChangeKind::Created),
            change("src/it's.rs", false, ChangeKind::Modified),
            change("x", false, ChangeKind::Permissions),
        ]);
        let differences = "changed while Kimi ran: notes/ (created), src/it's.rs (modified), x (permissions changed)";
        check(
            Changes { changed: changed.clone(), ..Changes::default() },
            Some(true),
            &[differences],
        );
        let incomplete = BTreeSet::from([
            Gap::Unreadable("b".into(), "no".to_owned()),
            Gap::Mounted("a".into()),
            Gap::After(1_300_000),
        ]);
        let gaps = "not all of the project was compared: \
                    only the first 1,300,000 files and folders were compared; \
                    another file system is mounted at a; b could not be read: no";
        check(Changes { incomplete: incomplete.clone(), ..Changes::default() }, None, &[gaps]);
        check(Changes { changed, incomplete }, Some(true), &[differences, gaps]);
        let late = Changes { incomplete: [Gap::Late].into(), ..Changes::default() };
        let gap = "not all of the project was compared: it could not be looked at in time";
        check(late, None, &[gap]);
    }

    #[test]
    fn names_with_control_characters_are_escaped_and_long_ones_are_cut() {
        let check = |name: &[u8], expected: &str| {
            assert_eq!(shown(Path::new(OsStr::from_bytes(name))), expected);
        };
        check("中文/émoji 🎉".as_bytes(), "中文/émoji 🎉");
        check(b"a\nb\x1b[31m\xff\x80\t", "a\\nb\\u{1b}[31m\\xFF\\x80\\t");
        check(b"\"a\" 'b' \\", "\\\"a\\\" 'b' \\\\");
        check("a\u{202e}b\u{200b}\u{2028}".as_bytes(), "a\\u{202e}b\\u{200b}\\u{2028}");
        let long = "é".repeat(SHOWN + 9) + "end";
        assert_eq!(shown(Path::new(&long)), format!("…{}end", "é".repeat(SHOWN - 2)));
    }

    #[test]
    fn a_long_list_is_counted() {
        let change = |n| change(&format!("{n:04}"), false, ChangeKind::Removed);
        let changed = (0..LISTED + 1234).map(change).collect();
        let all = Changes { changed, ..Changes::default() };
        let [warning] = &all.warnings()[..] else { panic!("one warning") };
        assert!(warning.ends_with("0019 (removed) and 1,234 more"), "{warning}");
    }
}
