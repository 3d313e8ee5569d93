//! What was not as it was, and what could not be compared, in words for a person.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Paths that a warning names; the rest are counted.
const LISTED: usize = 20;
/// Characters of a path that are shown: its last ones, which tell the file.
const SHOWN: usize = 160;

/// What happened to a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// It was not there before.
    Created,
    /// Its contents are others.
    Modified,
    /// It is no longer there.
    Removed,
    /// It is something else now: a link in place of a file, a file in place of a folder.
    Replaced,
    /// Its permissions, owner or group are others, and nothing else that was seen.
    Permissions,
}

impl What {
    fn word(self) -> &'static str {
        match self {
            What::Created => "created",
            What::Modified => "modified",
            What::Removed => "removed",
            What::Replaced => "replaced",
            What::Permissions => "permissions changed",
        }
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Below the project, or absolute if it is not in it.
    pub path: PathBuf,
    /// Whether it is a folder; what lies in a created or removed one is not listed.
    pub is_folder: bool,
    /// What happened.
    pub what: What,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.is_folder { "/" } else { "" };
        write!(f, "{}{slash} ({})", shown(&self.path), self.what.word())
    }
}

/// Why part of a project was not compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// There are more than `Limits::entries`.
    Entries {
        /// Files and folders that were compared.
        compared: usize,
    },
    /// The first look took `Limits::look`.
    FirstLook {
        /// Files and folders that were compared.
        compared: usize,
        /// The limit.
        limit: Duration,
    },
    /// The second look met a limit.
    SecondLook {
        /// Files and folders that were looked at again.
        compared: usize,
        /// And before the run.
        known: usize,
    },
    /// Other file systems are mounted inside.
    Mounted {
        /// One of them.
        first: PathBuf,
        /// How many others.
        more: usize,
    },
    /// Folders could not be read.
    Unreadable {
        /// One of them.
        first: PathBuf,
        /// What the system said of it.
        why: String,
        /// How many others.
        more: usize,
    },
    /// A repository has more branches than are read, or they could not be read.
    Branches {
        /// Its working tree.
        first: PathBuf,
        /// How many others.
        more: usize,
    },
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gap::Entries { compared } => {
                write!(f, "only the first {} files and folders were compared", grouped(*compared))
            }
            Gap::FirstLook { compared, limit } => {
                let (compared, limit) = (grouped(*compared), limit.as_secs_f32());
                write!(f, "only {compared} files and folders could be looked at in {limit} s")
            }
            Gap::SecondLook { compared, known } => {
                let (compared, known) = (grouped(*compared), grouped(*known));
                write!(f, "only {compared} of {known} files and folders were looked at again")
            }
            Gap::Mounted { first, more } => {
                write!(f, "another file system is mounted at {}{}", shown(first), and_more(*more))
            }
            Gap::Unreadable { first, why, more } => {
                write!(f, "{} could not be read: {why}{}", shown(first), and_more(*more))
            }
            Gap::Branches { first, more } => {
                write!(f, "not all branches of {} could be read{}", shown(first), and_more(*more))
            }
        }
    }
}

/// What two looks at a project differ in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// What changed, by path.
    pub changed: Vec<Change>,
    /// Files that were touched and kept their size, and whose contents before are not known.
    pub unsure: Vec<PathBuf>,
    /// What was not compared.
    pub incomplete: Vec<Gap>,
}

impl Changes {
    /// Whether the project changed; absent when nothing was seen to change and not everything was seen.
    #[must_use]
    pub fn workspace_changed(&self) -> Option<bool> {
        match (self.changed.is_empty(), self.unsure.is_empty() && self.incomplete.is_empty()) {
            (false, _) => Some(true),
            (true, true) => Some(false),
            (true, false) => None,
        }
    }

    /// What a reader of the answer should know, in a few lines that hold no control characters.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.changed.is_empty() {
            warnings.push(format!(
                "changed while Kimi ran: {}",
                listed(&self.changed, Change::to_string)
            ));
        }
        if !self.unsure.is_empty() {
            let files = listed(&self.unsure, |path| shown(path));
            warnings.push(format!("touched while Kimi ran, perhaps without a change: {files}"));
        }
        if !self.incomplete.is_empty() {
            let gaps: Vec<String> = self.incomplete.iter().map(Gap::to_string).collect();
            warnings.push(format!("not all of the project was compared: {}", gaps.join("; ")));
        }
        warnings
    }
}

/// The gaps as they are met, those of a kind together.
#[derive(Debug, Clone, Default)]
pub(super) struct Gaps {
    /// Those that end a look.
    pub(super) limits: Vec<Gap>,
    pub(super) mounted: BTreeSet<PathBuf>,
    pub(super) unreadable: BTreeMap<PathBuf, String>,
    pub(super) branches: BTreeSet<PathBuf>,
}

impl Gaps {
    /// The gaps with paths as a person knows them.
    pub(super) fn finish(mut self, root: &Path) -> Vec<Gap> {
        let first = |paths: &BTreeSet<PathBuf>| {
            paths.first().map(|first| (within(root, first), paths.len() - 1))
        };
        let mut gaps = self.limits;
        gaps.extend(first(&self.mounted).map(|(first, more)| Gap::Mounted { first, more }));
        if let Some((path, why)) = self.unreadable.pop_first() {
            let more = self.unreadable.len();
            gaps.push(Gap::Unreadable { first: within(root, &path), why, more });
        }
        gaps.extend(first(&self.branches).map(|(first, more)| Gap::Branches { first, more }));
        gaps
    }
}

/// A path as seen from the project; the project itself, and what is not in it, in full.
pub(super) fn within(root: &Path, path: &Path) -> PathBuf {
    let below = path.strip_prefix(root).ok().filter(|below| !below.as_os_str().is_empty());
    below.unwrap_or(path).to_owned()
}

/// A path that cannot act on a terminal or break a line: what cannot be printed is escaped.
fn shown(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        text.extend(chunk.valid().escape_debug());
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    match text.char_indices().rev().nth(SHOWN) {
        Some((cut, _)) => format!("…{}", &text[cut..]),
        None => text,
    }
}

fn listed<T>(all: &[T], word: impl Fn(&T) -> String) -> String {
    let words: Vec<String> = all.iter().take(LISTED).map(word).collect();
    words.join(", ") + &and_more(all.len().saturating_sub(LISTED))
}

fn and_more(count: usize) -> String {
    if count == 0 { String::new() } else { format!(" and {} more", grouped(count)) }
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

    use super::*;

    fn change(path: &str, is_folder: bool, what: What) -> Change {
        Change { path: path.into(), is_folder, what }
    }

    #[test]
    fn the_words_say_when_and_not_who() {
        let check = |changes: Changes, changed: Option<bool>, warnings: &[&str]| {
            assert_eq!(
                (changes.workspace_changed(), changes.warnings()),
                (changed, warnings.iter().map(ToString::to_string).collect())
            );
        };
        check(Changes::default(), Some(false), &[]);
        let changed = vec![
            change("notes", true, What::Created),
            change("src/it's.rs", false, What::Modified),
            change("x", false, What::Permissions),
        ];
        check(
            Changes { changed: changed.clone(), ..Changes::default() },
            Some(true),
            &[
                "changed while Kimi ran: notes/ (created), src/it\\'s.rs (modified), x (permissions changed)",
            ],
        );
        let unsure = vec!["data.db".into()];
        check(
            Changes { unsure: unsure.clone(), ..Changes::default() },
            None,
            &["touched while Kimi ran, perhaps without a change: data.db"],
        );
        let gap = Gap::Entries { compared: 1_300_000 };
        let entries = "not all of the project was compared: only the first 1,300,000 files and folders were compared";
        check(Changes { incomplete: vec![gap.clone()], ..Changes::default() }, None, &[entries]);
        let all = Changes { changed: changed[..1].to_vec(), unsure, incomplete: vec![gap] };
        assert_eq!((all.workspace_changed(), all.warnings().len()), (Some(true), 3));
    }

    #[test]
    fn each_gap_says_what_is_missing() {
        let first = PathBuf::from("a");
        let check = |gap: Gap, expected: &str| assert_eq!(gap.to_string(), expected);
        check(
            Gap::FirstLook { compared: 999, limit: Duration::from_millis(2500) },
            "only 999 files and folders could be looked at in 2.5 s",
        );
        check(
            Gap::SecondLook { compared: 1, known: 2000 },
            "only 1 of 2,000 files and folders were looked at again",
        );
        check(
            Gap::Mounted { first: first.clone(), more: 0 },
            "another file system is mounted at a",
        );
        check(
            Gap::Unreadable { first: first.clone(), why: "no".into(), more: 1 },
            "a could not be read: no and 1 more",
        );
        check(Gap::Branches { first, more: 0 }, "not all branches of a could be read");
    }

    #[test]
    fn names_that_would_act_are_escaped_and_long_ones_are_cut() {
        let check = |name: &[u8], expected: &str| {
            assert_eq!(shown(Path::new(OsStr::from_bytes(name))), expected);
        };
        check("中文/émoji 🎉".as_bytes(), "中文/émoji 🎉");
        check(b"a\nb\x1b[31m\xff\x80\t", "a\\nb\\u{1b}[31m\\xff\\x80\\t");
        check("a\u{202e}b\u{200b}\u{2028}".as_bytes(), "a\\u{202e}b\\u{200b}\\u{2028}");
        let long = "é".repeat(SHOWN + 9) + "end";
        assert_eq!(shown(Path::new(&long)), format!("…{}end", "é".repeat(SHOWN - 2)));
    }

    #[test]
    fn a_long_list_is_counted() {
        let many: Vec<Change> = (10..10 + LISTED + 1234)
            .map(|n| change(&n.to_string(), false, What::Removed))
            .collect();
        let changes = Changes { changed: many, ..Changes::default() };
        let [warning] = &changes.warnings()[..] else { panic!("one warning") };
        assert!(warning.ends_with("29 (removed) and 1,234 more"), "{warning}");
    }
}
