//! A citation against the disk and the trace. The status is the bridge's own finding, never Kimi's
//! word.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::answer::Quote;

/// The largest file that is searched for a quote, bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// The shortest quote, white space aside, that counts as found elsewhere in a file: a closing brace
/// stands everywhere.
const MIN_MOVED: usize = 4;

/// Whether a citation holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The quote stands at those lines, and Kimi read the file.
    Verified,
    /// It stands elsewhere in the file; the lines are corrected.
    Moved,
    /// It stands in the file, but no tool call of Kimi's touched that file.
    NotInTrace,
    /// It is nowhere in the file.
    Mismatch,
    /// There is no such file.
    Missing,
    /// The file is not in the project.
    Outside,
}

impl Status {
    /// Whether a finding may rest on it.
    #[must_use]
    pub fn grounds(self) -> bool {
        match self {
            Status::Verified | Status::Moved => true,
            Status::NotInTrace | Status::Mismatch | Status::Missing | Status::Outside => false,
        }
    }
}

/// A citation that has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Citation {
    /// Relative to the project where the file is in it, else as Kimi named it.
    pub path: String,
    /// The first line, from 1; absent when Kimi named none and the quote was not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line_start: Option<u32>,
    /// The last line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line_end: Option<u32>,
    /// What Kimi says stands there.
    pub quote: String,
    /// Whether it does.
    pub status: Status,
}

/// Checks citations against one project, reading each file once.
#[derive(Debug)]
pub struct Citations<'a> {
    work_dir: &'a Path,
    shown: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Option<Folded>>,
}

impl<'a> Citations<'a> {
    /// A checker for the project in `work_dir`, an absolute path without links. `shown` are the
    /// files that Kimi's tools showed it, as they named them.
    #[must_use]
    pub fn new(work_dir: &'a Path, shown: &BTreeSet<String>) -> Citations<'a> {
        let shown =
            shown.iter().filter_map(|path| work_dir.join(path).canonicalize().ok()).collect();
        Citations { work_dir, shown, files: BTreeMap::new() }
    }

    /// Checks one.
    pub fn check(&mut self, quote: Quote) -> Citation {
        let mut citation = Citation {
            line_start: quote.line_start,
            line_end: quote.line_end.or(quote.line_start),
            quote: quote.quote,
            status: Status::Missing,
            path: quote.path,
        };
        let named = self.work_dir.join(citation.path.trim());
        let Ok(real) = named.canonicalize() else {
            if !lexically(&named).starts_with(self.work_dir) {
                citation.status = Status::Outside;
            }
            return citation;
        };
        let Ok(relative) = real.strip_prefix(self.work_dir) else {
            citation.status = Status::Outside;
            return citation;
        };
        if !real.is_file() {
            return citation;
        }
        citation.path = relative.display().to_string();
        let file = self.files.entry(real.clone()).or_insert_with(|| Folded::read(&real));
        let range = citation.line_start.zip(citation.line_end);
        let found = file.as_ref().and_then(|file| file.find(&citation.quote, range));
        citation.status = match found {
            None => Status::Mismatch,
            Some(place) => {
                if !place.as_cited {
                    citation.line_start = Some(place.line_start);
                    citation.line_end = Some(place.line_end);
                }
                match (self.shown.contains(&real), place.as_cited) {
                    (false, _) => Status::NotInTrace,
                    (true, true) => Status::Verified,
                    (true, false) => Status::Moved,
                }
            }
        };
        citation
    }
}

/// The path without `.` and `..`, which need not exist.
fn lexically(path: &Path) -> PathBuf {
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

/// A file without its white space, and where in it each line begins.
#[derive(Debug)]
struct Folded {
    text: String,
    /// The place in `text` at which each line begins, in order.
    lines: Vec<usize>,
}

struct Place {
    line_start: u32,
    line_end: u32,
    as_cited: bool,
}

impl Folded {
    fn read(path: &Path) -> Option<Folded> {
        if fs::metadata(path).ok()?.len() > MAX_FILE {
            return None;
        }
        Some(Folded::of(&decode(&fs::read(path).ok()?)))
    }

    fn of(file: &str) -> Folded {
        let mut text = String::with_capacity(file.len());
        let mut lines = vec![0];
        let mut chars = file.chars().peekable();
        while let Some(c) = chars.next() {
            let ends_line = c == '\n' || (c == '\r' && chars.peek() != Some(&'\n'));
            if ends_line {
                lines.push(text.len());
            } else if counts(c) {
                text.push(c);
            }
        }
        Folded { text, lines }
    }

    /// Where the quote stands: at the cited lines, else the place nearest to them.
    fn find(&self, quote: &str, cited: Option<(u32, u32)>) -> Option<Place> {
        let quote: String = quote.chars().filter(|&c| counts(c)).collect();
        if quote.is_empty() {
            return None;
        }
        let short = quote.chars().count() < MIN_MOVED;
        if let Some((start, end)) = cited
            && self.between(start, end).is_some_and(|text| text.contains(&quote))
            && !(short && end > start)
        {
            return Some(Place { line_start: start, line_end: end, as_cited: true });
        }
        if short {
            return None;
        }
        let places = self.text.match_indices(&quote).map(|(at, _)| Place {
            line_start: self.line_of(at),
            line_end: self.line_of(at + quote.len() - 1),
            as_cited: false,
        });
        places.min_by_key(|place| cited.map_or(0, |(start, _)| place.line_start.abs_diff(start)))
    }

    /// The folded text of these lines, from 1, both included.
    fn between(&self, start: u32, end: u32) -> Option<&str> {
        let first = usize::try_from(start).ok()?.checked_sub(1)?;
        let from = *self.lines.get(first)?;
        let after = usize::try_from(end.max(start)).ok()?;
        if after > self.lines.len() {
            return None;
        }
        let to = self.lines.get(after).copied().unwrap_or(self.text.len());
        self.text.get(from..to)
    }

    /// The line that the byte at this place of the folded text stands on. Lines without text begin
    /// where the next one does, so the last that begins there is meant.
    fn line_of(&self, at: usize) -> u32 {
        let line = self.lines.partition_point(|&begins| begins <= at);
        u32::try_from(line).unwrap_or(u32::MAX)
    }
}

/// White space and what cannot be seen do not count: models drop and change both.
fn counts(c: char) -> bool {
    !c.is_whitespace()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        && !c.is_control()
}

fn decode(bytes: &[u8]) -> String {
    let wide = |read: fn([u8; 2]) -> u16| {
        let units = bytes[2..].chunks_exact(2).map(|pair| read([pair[0], pair[1]]));
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    match bytes {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Project {
        root: tempfile::TempDir,
    }

    impl Project {
        fn new() -> Project {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().join("project");
            fs::create_dir(&dir).unwrap();
            let write = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).unwrap();
            write("a.rs", b"use x;\n\nfn main() {\n    let total = add(1,\n        2);\n}\n");
            write("crlf.txt", b"one line\r\nsecond line\r\nthird line\r\n");
            write("twice.txt", b"same text\nother\nsame text\n");
            write("utf16.txt", b"\xff\xfef\0i\0r\0s\0t\0\n\0n\0e\0x\0t\0");
            write("binary", b"\0\xff\xfe\0match me\0");
            write("unread.rs", b"let unread = 1;\n");
            fs::write(root.path().join("outside.rs"), "let outside = 1;").unwrap();
            std::os::unix::fs::symlink("../outside.rs", dir.join("link.rs")).unwrap();
            Project { root }
        }

        #[track_caller]
        fn check(
            &self,
            path: &str,
            lines: Option<(u32, u32)>,
            quote: &str,
            expected: (Status, Option<(u32, u32)>),
        ) {
            let dir = self.root.path().join("project").canonicalize().unwrap();
            let shown =
                ["a.rs", "./crlf.txt", "twice.txt", "utf16.txt", "binary", "link.rs", "nope.rs"];
            let shown = shown.iter().map(|&path| path.to_owned()).collect();
            let citation = Citations::new(&dir, &shown).check(Quote {
                path: path.replace("ROOT", &dir.display().to_string()),
                line_start: lines.map(|(start, _)| start),
                line_end: lines.map(|(_, end)| end),
                quote: quote.to_owned(),
            });
            assert_eq!(
                (citation.status, citation.line_start.zip(citation.line_end)),
                expected,
                "{path} {quote:?}"
            );
        }
    }

    #[test]
    fn the_disk_and_the_trace_decide() {
        use Status::{Mismatch, Missing, Moved, NotInTrace, Outside, Verified};
        let project = Project::new();
        let at = |start, end| Some((start, end));
        project.check("a.rs", at(4, 5), "let total = add(1,\n2);", (Verified, at(4, 5)));
        project.check("./a.rs", at(4, 4), "let total=add( 1,", (Verified, at(4, 4)));
        project.check("ROOT/a.rs", at(3, 6), "add(1, 2)", (Verified, at(3, 6)));
        project.check("a.rs", at(1, 1), "let total = add(1,\n        2);", (Moved, at(4, 5)));
        project.check("a.rs", at(99, 99), "fn main() {", (Moved, at(3, 3)));
        project.check("a.rs", at(0, 0), "fn main() {", (Moved, at(3, 3)));
        project.check("a.rs", None, "fn main() {", (Moved, at(3, 3)));
        project.check("a.rs", at(6, 6), "}", (Verified, at(6, 6)));
        project.check("a.rs", at(1, 1), "}", (Mismatch, at(1, 1)));
        project.check("a.rs", at(1, 6), "}", (Mismatch, at(1, 6)));
        project.check("a.rs", at(1, 4_000_000_000), "fn main() {", (Moved, at(3, 3)));
        project.check("a.rs", at(4, 4), "let total = add(2,", (Mismatch, at(4, 4)));
        project.check("a.rs", at(4, 4), " ", (Mismatch, at(4, 4)));
        project.check("crlf.txt", at(2, 3), "second line\nthird line", (Verified, at(2, 3)));
        project.check("twice.txt", at(2, 2), "same text", (Moved, at(1, 1)));
        project.check("twice.txt", at(3, 3), "same text", (Verified, at(3, 3)));
        project.check("utf16.txt", at(2, 2), "next", (Verified, at(2, 2)));
        project.check("binary", at(1, 1), "match me", (Verified, at(1, 1)));
        project.check("unread.rs", at(1, 1), "let unread = 1;", (NotInTrace, at(1, 1)));
        project.check("nope.rs", at(1, 1), "x", (Missing, at(1, 1)));
        project.check(".", at(1, 1), "x", (Missing, at(1, 1)));
        project.check("../outside.rs", at(1, 1), "let outside = 1;", (Outside, at(1, 1)));
        project.check("../nope.rs", at(1, 1), "x", (Outside, at(1, 1)));
        project.check("link.rs", at(1, 1), "let outside = 1;", (Outside, at(1, 1)));
        project.check("/etc/passwd", at(1, 1), "root", (Outside, at(1, 1)));
    }
}
