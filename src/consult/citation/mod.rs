//! A citation against the disk and the trace. The status is the bridge's own finding, never Kimi's
//! word.

mod text;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::text::{Folded, Lines, Place, without_numbers};
use crate::kimi::text::clean;
use crate::sandbox::rules::lexical;

/// The longest file that is searched, bytes.
const LARGEST: u64 = 16 * 1024 * 1024;
/// Bytes that are read for all citations of one answer.
const MAX_READ: u64 = 512 * 1024 * 1024;

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
    /// There is no such file, or it is closed to Kimi, or could not be read, or is larger than 16 MB: nothing is
    /// known of the quote.
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

/// A place that a finding rests on. `missing` until it has been checked.
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

/// Checks citations against one project, as it is on the disk when each is checked.
pub struct Citations<'a> {
    work_dir: &'a Path,
    /// Returns whether a file is closed to Kimi: its status must say no more than that of a file that is not there.
    is_closed: &'a dyn Fn(&Path) -> bool,
    shown: BTreeSet<PathBuf>,
    /// Bytes that may still be read.
    left: u64,
}

impl<'a> Citations<'a> {
    /// A checker for the project in `work_dir`, an absolute path without links. `shown` are the
    /// files that Kimi's tools showed it, as they named them; `is_closed` gets absolute paths.
    #[must_use]
    pub fn new(
        work_dir: &'a Path,
        shown: &BTreeSet<String>,
        is_closed: &'a dyn Fn(&Path) -> bool,
    ) -> Citations<'a> {
        let shown =
            shown.iter().filter_map(|path| work_dir.join(path).canonicalize().ok()).collect();
        Citations { work_dir, is_closed, shown, left: MAX_READ }
    }

    /// Checks one. Lines that are the wrong way round are turned; those that the path carries
    /// (`src/a.rs:24`) count when none are given.
    pub fn check(&mut self, citation: Citation) -> Citation {
        let (path, carried) = self.named(&citation.path);
        let cited = match (citation.line_start, citation.line_end) {
            (Some(start), Some(end)) => Some((start.min(end), start.max(end))),
            (start, end) => start.or(end).map(|line| (line, line)).or(carried),
        };
        let (path, status, lines) = match self.locate(path) {
            Err(status) => (citation.path, status, cited),
            Ok((real, relative)) => {
                let (status, place) = match self.find(&real, &citation.quote, cited) {
                    Err(_) => (Status::Missing, None),
                    Ok(None) => (Status::Mismatch, None),
                    Ok(Some(place)) => match (self.shown.contains(&real), place.as_cited) {
                        (false, _) => (Status::NotInTrace, Some(place)),
                        (true, true) => (Status::Verified, Some(place)),
                        (true, false) => (Status::Moved, Some(place)),
                    },
                };
                (relative, status, place.map(|place| place.lines).or(cited))
            }
        };
        let (line_start, line_end) = lines.unzip();
        Citation { path, line_start, line_end, quote: citation.quote, status }
    }

    /// The path that is meant, and the lines that it carries: as it stands if there is such a file,
    /// else without white space around it, else without its lines.
    fn named<'p>(&self, path: &'p str) -> (&'p str, Option<Lines>) {
        let exists = |path: &str| {
            let path = self.work_dir.join(path);
            path.exists() && !(self.is_closed)(&path)
        };
        let trimmed = path.trim();
        if exists(path) {
            return (path, None);
        }
        match without_lines(trimmed) {
            Some((bare, lines)) if !exists(trimmed) && exists(bare) => (bare, Some(lines)),
            _ => (trimmed, None),
        }
    }

    /// The real path of a file and its path in the project.
    fn locate(&self, path: &str) -> Result<(PathBuf, String), Status> {
        let named = self.work_dir.join(path);
        let Ok(real) = named.canonicalize() else {
            // Where it would be, were it there: links on the way may lead out.
            let there = named.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
            let would = there.map_or_else(
                || named.clone(),
                |(part, real)| real.join(named.strip_prefix(part).unwrap_or(&named)),
            );
            let inside = lexical(&would).starts_with(self.work_dir);
            return Err(if inside { Status::Missing } else { Status::Outside });
        };
        let relative = real.strip_prefix(self.work_dir).map_err(|_| Status::Outside)?;
        if (self.is_closed)(&named) {
            return Err(Status::Missing);
        }
        // A file may be named to deceive whoever reads its name.
        let relative = clean(&relative.display().to_string()).into_owned();
        if real.is_file() { Ok((real, relative)) } else { Err(Status::Missing) }
    }

    /// The place of the quote: as it is, else without line numbers that were copied with it, if it stands
    /// on just those lines. An error says that it is not known: the file cannot be read, or is too large.
    fn find(
        &mut self,
        file: &Path,
        quote: &str,
        cited: Option<Lines>,
    ) -> io::Result<Option<Place>> {
        let bytes = text::read(file, LARGEST.min(self.left))?;
        self.left -= bytes.len() as u64;
        let found = search(&bytes, quote, cited);
        let numbered = without_numbers(quote).filter(|_| found.is_none());
        let Some((quote, lines)) = numbered else { return Ok(found) };
        let found = search(&bytes, &quote, Some(lines)).filter(|place| place.as_cited);
        Ok(found.map(|place| Place { as_cited: cited == Some(lines), ..place }))
    }
}

/// The place of the quote in any reading of the file.
fn search(bytes: &[u8], quote: &str, cited: Option<Lines>) -> Option<Place> {
    let quote = Folded::new(quote);
    let mut moved = None;
    for encoding in text::encodings(bytes) {
        let text = Folded::new(&encoding.decode_without_bom_handling(bytes).0);
        match text.find(&quote, cited) {
            Some(place) if place.as_cited => return Some(place),
            found => moved = moved.or(found),
        }
    }
    moved
}

/// `src/a.rs:24` or `src/a.rs:24-30` without its lines.
fn without_lines(path: &str) -> Option<(&str, Lines)> {
    let (bare, lines) = path.rsplit_once(':')?;
    let (start, end) = lines.split_once('-').unwrap_or((lines, lines));
    let (start, end): Lines = (start.parse().ok()?, end.parse().ok()?);
    Some((bare, (start.min(end), start.max(end))))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use encoding_rs::{BIG5, Encoding, GB18030, SHIFT_JIS, WINDOWS_1252};
    use proptest::prelude::*;

    use super::Status::{Mismatch, Missing, Moved, NotInTrace, Outside, Verified};
    use super::*;

    struct Project {
        _root: tempfile::TempDir,
        dir: PathBuf,
    }

    impl Project {
        fn new() -> Project {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().canonicalize().unwrap().join("project");
            fs::create_dir(&dir).unwrap();
            Project { _root: root, dir }
        }

        fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
            let path = self.dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }

        fn link(&self, target: &str, name: &str) {
            symlink(target, self.dir.join(name)).unwrap();
        }

        /// What a checker says that Kimi read every file but `unread.rs` for.
        fn citation(&self, path: &str, lines: Cited, quote: &str) -> Citation {
            let shown = fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().file_name());
            let shown = shown.map(|name| format!("./{}", name.display()));
            let shown = shown.filter(|name| name != "./unread.rs").chain(["src/deep.rs".into()]);
            let is_closed = |path: &Path| path.ends_with(".env") || path.ends_with("plain");
            let mut citations = Citations::new(&self.dir, &shown.collect(), &is_closed);
            citations.check(Citation {
                path: path.replace("ROOT", &self.dir.display().to_string()),
                line_start: lines.0,
                line_end: lines.1,
                quote: quote.to_owned(),
                status: Missing,
            })
        }

        #[track_caller]
        fn check(&self, path: &str, lines: Cited, quote: &str, expected: (Status, Cited)) {
            let citation = self.citation(path, lines, quote);
            let found = (citation.status, (citation.line_start, citation.line_end));
            assert_eq!(found, expected, "{path} {lines:?} {quote:?}");
        }
    }

    type Cited = (Option<u32>, Option<u32>);

    const NONE: Cited = (None, None);

    fn at(start: u32, end: u32) -> Cited {
        (Some(start), Some(end))
    }

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    fn encoded(text: &str, encoding: &'static Encoding) -> Vec<u8> {
        let (bytes, _, unmappable) = encoding.encode(text);
        assert!(!unmappable);
        bytes.into_owned()
    }

    const CODE: &str = "use x;\n\nfn main() {\n    let total = add(1,\n        2);\n}\n";

    #[test]
    fn the_lines_and_the_quote_decide() {
        let project = Project::new();
        project.write("a.rs", CODE);
        project.write("unread.rs", "let unread = 1;\nlet other = 2;\n");
        project.write("twice.txt", "same text\n1\n2\n3\nsame text\n4\n5\n6\nsame text\n");
        let check = |lines, quote, expected| project.check("a.rs", lines, quote, expected);
        check(at(4, 5), "let total = add(1,\n2);", (Verified, at(4, 5)));
        check(at(4, 4), "let total=add( 1,", (Verified, at(4, 4)));
        check(at(3, 6), "add(1, 2)", (Verified, at(3, 6)));
        check(at(3, 5), "fn main() {\r\n\tlet total = add(1, 2);", (Verified, at(3, 5)));
        check((Some(3), None), "fn main() {", (Verified, at(3, 3)));
        check((None, Some(3)), "fn main() {", (Verified, at(3, 3)));
        // Moved: the lines become those where it stands.
        check(at(1, 1), "let total = add(1,\n        2);", (Moved, at(4, 5)));
        check(at(4, 4), "let total = add(1,\n        2);", (Moved, at(4, 5)));
        check(NONE, "fn main() {", (Moved, at(3, 3)));
        check(at(0, 0), "fn main() {", (Moved, at(3, 3)));
        check(at(0, 3), "fn main() {", (Moved, at(3, 3)));
        check(at(99, 99), "fn main() {", (Moved, at(3, 3)));
        check(at(3, 99), "fn main() {", (Moved, at(3, 3)));
        check(at(3, 8), "fn main() {", (Moved, at(3, 3)));
        check(at(3, 7), "fn main() {", (Verified, at(3, 7)));
        check(at(1, 4_000_000_000), "fn main() {", (Moved, at(3, 3)));
        check(at(u32::MAX, u32::MAX), "fn main() {", (Moved, at(3, 3)));
        // The wrong way round is turned.
        check(at(5, 4), "let total = add(1,\n2);", (Verified, at(4, 5)));
        check(at(6, 5), "fn main() {", (Moved, at(3, 3)));
        // Too short for anything but its own lines.
        check(at(6, 6), "}", (Verified, at(6, 6)));
        check(at(1, 1), "}", (Mismatch, at(1, 1)));
        check(at(1, 6), "}", (Mismatch, at(1, 6)));
        check(at(5, 6), ");\n}", (Verified, at(5, 6)));
        check(NONE, ");\n}", (Mismatch, NONE));
        check(at(3, 3), "() {", (Verified, at(3, 3)));
        check(at(4, 4), "() {", (Mismatch, at(4, 4)));
        // A range is no wider than the quote can speak for.
        check(at(1, 4), "main", (Verified, at(1, 4)));
        check(at(1, 5), "main", (Moved, at(3, 3)));
        // Nothing like it, or nothing at all.
        check(at(4, 4), "let total = add(2,", (Mismatch, at(4, 4)));
        check(at(4, 4), "LET TOTAL", (Mismatch, at(4, 4)));
        check(at(4, 4), " \n\t\u{200b}", (Mismatch, at(4, 4)));
        check(at(4, 4), "", (Mismatch, at(4, 4)));
        // What is left out cannot be looked up.
        check(at(3, 6), "fn main() {\n    ...\n}", (Mismatch, at(3, 6)));
        check(at(3, 6), "fn main() { … }", (Mismatch, at(3, 6)));
        // Line numbers of a reading tool may stand before the lines that they name.
        check(at(3, 4), "3\tfn main() {\n4\t    let total = add(1,", (Verified, at(3, 4)));
        check(at(1, 2), "  3→fn main() {\n  4→    let total", (Moved, at(3, 4)));
        check(NONE, "3 | fn main() {", (Moved, at(3, 3)));
        check(at(3, 3), "4:fn main() {", (Mismatch, at(3, 3)));
        check(at(3, 4), "3\tfn main() {\n5\t    let total = add(1,", (Mismatch, at(3, 4)));
        check(at(3, 3), "99999999999\tfn main() {", (Mismatch, at(3, 3)));
        check(at(3, 3), "3 fn main() {", (Mismatch, at(3, 3)));
        // The mark of a diff is part of the quote: what is to be added does not stand there.
        check(at(3, 3), "+ fn main() {", (Mismatch, at(3, 3)));
        check(at(3, 3), "- fn main() {", (Mismatch, at(3, 3)));
        let check = |lines, expected| project.check("twice.txt", lines, "same text", expected);
        check(at(5, 5), (Verified, at(5, 5)));
        check(at(2, 2), (Moved, at(1, 1)));
        check(at(3, 3), (Moved, at(1, 1)));
        check(at(4, 4), (Moved, at(5, 5)));
        check(at(8, 8), (Moved, at(9, 9)));
        check(at(2, 4), (Moved, at(1, 1)));
        check(at(40, 50), (Moved, at(9, 9)));
        check(NONE, (Moved, at(1, 1)));
        let check =
            |lines, expected| project.check("unread.rs", lines, "let unread = 1;", expected);
        check(at(1, 1), (NotInTrace, at(1, 1)));
        check(at(2, 2), (NotInTrace, at(1, 1)));
    }

    #[test]
    fn text_counts_whatever_its_bytes() {
        let project = Project::new();
        let check = |bytes: &[u8], lines, quote, expected| {
            project.write("f", bytes);
            project.check("f", lines, quote, expected);
        };
        // Line endings.
        check(b"one line\r\nsecond\r\nthird\r\n", at(2, 3), "second\nthird", (Verified, at(2, 3)));
        check(b"one line\rsecond\rthird", at(2, 3), "second\r\nthird", (Verified, at(2, 3)));
        check(b"a\rb\nc\r\nd\n\re\n\nlast", at(8, 8), "last", (Verified, at(8, 8)));
        check(b"\r\n\r\n\r\n\nlast line", at(5, 5), "last line", (Verified, at(5, 5)));
        check(b"only line", at(1, 1), "only line\n", (Verified, at(1, 1)));
        check(b"\tif a {\n\t\tb();\n\t}", at(1, 3), "  if a { b(); }", (Verified, at(1, 3)));
        // UTF-8: marks, and what cannot be seen.
        check(b"\xef\xbb\xbfuse std;", at(1, 1), "use std;", (Verified, at(1, 1)));
        check("配置项\n读取配置".as_bytes(), at(2, 2), "读取 配置", (Verified, at(2, 2)));
        check("x\n读取".as_bytes(), at(1, 1), "读取", (Moved, at(2, 2)));
        check("ship 🎉👩‍💻 it ❤️".as_bytes(), at(1, 1), "🎉👩💻 it ❤", (Verified, at(1, 1)));
        check(
            "pass\u{200b}word\u{ad} = 1".as_bytes(),
            at(1, 1),
            "password = 1",
            (Verified, at(1, 1)),
        );
        check(b"password = 1", at(1, 1), "pass\u{feff}word\u{a0}= 1", (Verified, at(1, 1)));
        check("caf\u{e9} = 1".as_bytes(), at(1, 1), "caf\u{e9} = 1", (Verified, at(1, 1)));
        // Composed and decomposed are two texts: telling them equal takes tables.
        check("cafe\u{301} = 1".as_bytes(), at(1, 1), "caf\u{e9} = 1", (Mismatch, at(1, 1)));
        // UTF-16, with and without a mark.
        let text = "first 行\r\nnext 读取\r\n";
        let (le, be) = (u16::to_le_bytes, u16::to_be_bytes);
        check(&utf16(&format!("\u{feff}{text}"), le), at(2, 2), "next 读取", (Verified, at(2, 2)));
        check(&utf16(&format!("\u{feff}{text}"), be), at(2, 2), "next 读取", (Verified, at(2, 2)));
        check(&utf16(text, le), at(2, 2), "next 读取", (Verified, at(2, 2)));
        check(&utf16(text, be), at(1, 1), "next 读取", (Moved, at(2, 2)));
        check(&utf16("\u{10a}\nnext 10", le), at(2, 2), "next 10", (Verified, at(2, 2)));
        check(&utf16("\u{feff}odd", le)[..7], at(1, 1), "od", (Verified, at(1, 1)));
        // What is not UTF-8 is read in every way that it may be meant.
        let text = "// prüfen: 5 €\nfür naïve “Leser”\n";
        check(&encoded(text, WINDOWS_1252), at(2, 2), "für naïve “Leser”", (Verified, at(2, 2)));
        let text = "第一行\r\n读取配置文件 = 1\r\n";
        check(&encoded(text, GB18030), at(2, 2), "读取配置文件 = 1", (Verified, at(2, 2)));
        check(&encoded(text, GB18030), at(1, 1), "读取配置文件", (Moved, at(2, 2)));
        check(&encoded(text, GB18030), at(2, 2), "写入配置文件", (Mismatch, at(2, 2)));
        check(
            &encoded("读取\u{20bb7}配置", GB18030),
            at(1, 1),
            "\u{20bb7}配置",
            (Verified, at(1, 1)),
        );
        check(&encoded("讀取設定檔", BIG5), at(1, 1), "讀取設定檔", (Verified, at(1, 1)));
        let text = "// 設定ファイルを読み込む\nint x;\n";
        check(&encoded(text, SHIFT_JIS), at(1, 1), "設定ファイル", (Verified, at(1, 1)));
        check(b"caf\xe9 = total", at(1, 1), "caf\u{fffd} = total", (Verified, at(1, 1)));
        // No text at all.
        check(b"", at(1, 1), "anything", (Mismatch, at(1, 1)));
        check(b"\0\xff\xfe\0match me\0\n\x80", at(1, 1), "match me", (Verified, at(1, 1)));
        check(&vec![0; 100_000], at(1, 1), "match me", (Mismatch, at(1, 1)));
    }

    #[test]
    fn the_path_decides() {
        let project = Project::new();
        let quote = "let here = 1;";
        project.write("a.rs", quote);
        project.write("with space.rs", quote);
        project.write("odd:7", quote);
        project.write("odd", "");
        project.write(" padded ", quote);
        project.write("src/deep.rs", format!("\n{quote}\n"));
        fs::write(project.dir.join("../outside.rs"), quote).unwrap();
        fs::create_dir(project.dir.join("../project-2")).unwrap();
        fs::write(project.dir.join("../project-2/a.rs"), quote).unwrap();
        project.link("a.rs", "link.rs");
        project.link("src", "folder");
        project.link("../outside.rs", "leaves.rs");
        project.link("..", "up");
        project.link("nowhere.rs", "dangling.rs");
        project.link("loop.rs", "loop.rs");
        let check = |path: &str, status, real: &str| {
            let citation = project.citation(path, at(1, 1), quote);
            assert_eq!((citation.status, citation.path.as_str()), (status, real), "{path}");
        };
        check("a.rs", Verified, "a.rs");
        check("./a.rs", Verified, "a.rs");
        check(" a.rs\n", Verified, "a.rs");
        check(" padded ", Verified, " padded ");
        check("with space.rs", Verified, "with space.rs");
        check("src/../a.rs", Verified, "a.rs");
        check("../project/a.rs", Verified, "a.rs");
        check("ROOT/a.rs", Verified, "a.rs");
        check("ROOT/src//./deep.rs", Moved, "src/deep.rs");
        check("link.rs", Verified, "a.rs");
        check("folder/deep.rs", Moved, "src/deep.rs");
        check("folder/../a.rs", Verified, "a.rs");
        check("up/project/a.rs", Verified, "a.rs");
        check("", Missing, "");
        check(".", Missing, ".");
        check("src", Missing, "src");
        check("nope.rs", Missing, "nope.rs");
        check("a.rs/", Missing, "a.rs/");
        check("a.rs/b.rs", Missing, "a.rs/b.rs");
        check("nul\0.rs", Missing, "nul\0.rs");
        check("dangling.rs", Missing, "dangling.rs");
        check("loop.rs", Missing, "loop.rs");
        check("A.RS", Missing, "A.RS");
        check(&"long/".repeat(2_000), Missing, &"long/".repeat(2_000));
        check("../outside.rs", Outside, "../outside.rs");
        check("../nope.rs", Outside, "../nope.rs");
        check("../project-2/a.rs", Outside, "../project-2/a.rs");
        check("nope/../../nope.rs", Outside, "nope/../../nope.rs");
        check("leaves.rs", Outside, "leaves.rs");
        check("up/outside.rs", Outside, "up/outside.rs");
        check("up/nope.rs", Outside, "up/nope.rs");
        check("/etc/passwd", Outside, "/etc/passwd");
        check("/dev/zero", Outside, "/dev/zero");
        check("/nope/a.rs", Outside, "/nope/a.rs");
        check("https://example.com/a.rs", Missing, "https://example.com/a.rs");
        // Lines that the path carries.
        check("odd:7", Verified, "odd:7");
        check("odd:7 ", Verified, "odd:7");
        check("a.rs:1", Verified, "a.rs");
        check("a.rs:1:", Missing, "a.rs:1:");
        check("nope.rs:1", Missing, "nope.rs:1");
        check("../outside.rs:1", Outside, "../outside.rs:1");
        project.check("src/deep.rs:2", NONE, quote, (Verified, at(2, 2)));
        project.check("src/deep.rs:2-3", NONE, quote, (Verified, at(2, 3)));
        project.check("src/deep.rs:3-2", NONE, quote, (Verified, at(2, 3)));
        project.check("src/deep.rs:3", at(2, 2), quote, (Verified, at(2, 2)));
        project.check("src/deep.rs:9", NONE, quote, (Moved, at(2, 2)));
    }

    #[test]
    fn a_closed_file_reads_as_one_that_is_not_there() {
        let project = Project::new();
        let quote = "KEY = planted";
        for closed in [".env", "plain"] {
            project.write(closed, quote);
            for form in ["NAME", "NAME:1", " NAME ", "./NAME", "ROOT/NAME", "NAME:1-2"] {
                for quote in [quote, "something else"] {
                    let of = |name: &str| {
                        let citation = project.citation(&form.replace("NAME", name), NONE, quote);
                        Citation { path: citation.path.replace(name, "NAME"), ..citation }
                    };
                    assert_eq!(of(closed), of("none"), "{form} {quote}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_readable_file_is_missing_and_never_waited_for() {
        let project = Project::new();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            project.dir.join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(project.dir.join("socket")).unwrap();
        project.link("/dev/zero", "zero");
        project.check("pipe", at(1, 1), "quote", (Missing, at(1, 1)));
        project.check("socket", at(1, 1), "quote", (Missing, at(1, 1)));
        project.check("zero", at(1, 1), "quote", (Outside, at(1, 1)));
        assert!(text::read(&project.dir.join("pipe"), LARGEST).is_err());
        assert!(text::read(Path::new("/dev/zero"), LARGEST).is_err());
        project.write("locked", "a secret line");
        let locked = project.dir.join("locked");
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o0)).unwrap();
        // Root reads it all the same.
        let status = if File::open(&locked).is_ok() { Verified } else { Missing };
        project.check("locked", at(1, 1), "a secret line", (status, at(1, 1)));
    }

    #[test]
    fn the_disk_is_asked_again_for_each_citation() {
        let project = Project::new();
        project.write("a.rs", CODE);
        let shown = BTreeSet::from(["a.rs".to_owned()]);
        let mut citations = Citations::new(&project.dir, &shown, &|_| false);
        let mut check = |status| {
            let (line_start, line_end) = at(3, 3);
            let (path, quote) = ("a.rs".to_owned(), "fn main() {".to_owned());
            let citation = Citation { path, line_start, line_end, quote, status: Missing };
            assert_eq!(citations.check(citation).status, status);
        };
        check(Verified);
        project.write("a.rs", format!("\n{CODE}"));
        check(Moved);
        project.write("a.rs", "rewritten");
        check(Mismatch);
        fs::remove_file(project.dir.join("a.rs")).unwrap();
        check(Missing);
    }

    #[test]
    fn a_large_file_is_searched_and_a_huge_one_is_never_called_a_mismatch() {
        let project = Project::new();
        let line = "a line of a file that goes on and on without an end\n";
        project.write("huge.txt", line.repeat(160_000) + "the needle\n");
        project.check(
            "huge.txt",
            at(160_001, 160_001),
            "the needle",
            (Verified, at(160_001, 160_001)),
        );
        project.check("huge.txt", at(1, 1), "the needle", (Moved, at(160_001, 160_001)));
        project.check("huge.txt", at(1, 1), "no needle", (Mismatch, at(1, 1)));
        let mut sparse = File::create(project.dir.join("sparse")).unwrap();
        sparse.write_all(b"first line\n").unwrap();
        sparse.set_len(1 << 40).unwrap();
        project.check("sparse", at(1, 1), "first line", (Missing, at(1, 1)));
        project.check("sparse", at(1, 1), "nowhere", (Missing, at(1, 1)));
        project.write("a.rs", CODE);
        let read = BTreeSet::from(["huge.txt", "a.rs", "sparse"].map(str::to_owned));
        let mut citations = Citations::new(&project.dir, &read, &|_| false);
        citations.left = 9_000_000;
        let mut check = |path: &str, quote: &str, status| {
            let (path, quote) = (path.to_owned(), quote.to_owned());
            let (line_start, line_end) = at(3, 3);
            let citation = Citation { path, line_start, line_end, quote, status: Missing };
            assert_eq!(citations.check(citation).status, status);
        };
        check("huge.txt", "no needle", Mismatch);
        check("huge.txt", "no needle", Missing);
        // A huge file takes nothing from the others.
        check("sparse", "nowhere", Missing);
        check("a.rs", "fn main() {", Verified);
        // One line without an end, and quotes that begin to match everywhere.
        project.write("flat", "a".repeat(1_000_000) + "b");
        project.check("flat", at(1, 1), &("a".repeat(5_000) + "b"), (Verified, at(1, 1)));
        project.check("flat", at(1, 1), &("a".repeat(5_000) + "c"), (Mismatch, at(1, 1)));
    }

    #[test]
    fn a_quote_that_straddles_what_is_read_at_once_is_found() {
        let project = Project::new();
        for before in 65_520..65_540 {
            project.write("f", format!("{}\r\n读取\r\n配置 end", "x".repeat(before)));
            project.check("f", at(2, 3), "读取配置 end", (Verified, at(2, 3)));
        }
        let gap = " ".repeat(70_000);
        project.write(
            "f",
            format!(
                "first line
{gap}
last"
            ),
        );
        project.check("f", at(1, 3), "first line", (Verified, at(1, 3)));
        project.write(
            "f",
            format!(
                "one two six




one
two



{gap}six
"
            ),
        );
        project.check("f", at(5, 5), "one two six", (Moved, at(6, 11)));
    }

    /// The same by the simplest means: the folded text as one, and the line of each character.
    fn stands_at(text: &str, quote: &str) -> Vec<Lines> {
        let fold = |text: &str| -> Vec<(char, u32)> {
            let lines = (1..).zip(text.split('\n'));
            lines
                .flat_map(|(at, line)| line.chars().map(move |c| (c, at)))
                .filter(|(c, _)| !c.is_whitespace())
                .collect()
        };
        let (text, quote) = (fold(text), fold(quote));
        let same = |part: &&[(char, u32)]| part.iter().map(|p| p.0).eq(quote.iter().map(|q| q.0));
        text.windows(quote.len().max(1)).filter(same).map(|p| (p[0].1, p[p.len() - 1].1)).collect()
    }

    proptest! {
        #[test]
        fn nothing_panics(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..300),
                "(?s).{0,99}".prop_map(String::into_bytes),
            ],
            path in prop_oneof![Just("f".to_owned()), "f:[0-9]{0,11}-?[0-9]{0,3}", "(?s).{0,9}"],
            quote in prop_oneof!["(?s).{0,20}", "[0-9]{1,11}[\t:|→ ].{0,9}"],
            lines in any::<Cited>(),
        ) {
            let project = Project::new();
            project.write("f", bytes);
            let citation = project.citation(&path, lines, &quote);
            prop_assert_eq!(citation.quote, quote);
            prop_assert!(citation.line_start <= citation.line_end);
        }

        #[test]
        fn it_finds_what_the_simplest_search_finds(
            text in "[ab \n]{0,60}",
            quote in "[ab \n]{0,6}[ab]{4}",
            start in 0u32..20,
            height in 0u32..4,
        ) {
            let (project, cited) = (Project::new(), (start, start + height));
            project.write("f", &text);
            let citation = project.citation("f", at(cited.0, cited.1), &quote);
            let places = stands_at(&text, &quote);
            let inside = |place: &&Lines| start <= place.0 && place.1 <= cited.1;
            let last = u32::try_from(text.split('\n').count()).unwrap();
            let expected = if start > 0 && cited.1 <= last && places.iter().any(|p| inside(&p)) {
                (Verified, cited)
            } else {
                let gap = |p: &&Lines| {
                    if p.0 > cited.1 { p.0 - cited.1 } else { start.saturating_sub(p.1) }
                };
                places.iter().min_by_key(gap).map_or((Mismatch, cited), |&p| (Moved, p))
            };
            let lines = citation.line_start.zip(citation.line_end).unwrap();
            prop_assert_eq!((citation.status, lines), expected);
        }
    }
}
