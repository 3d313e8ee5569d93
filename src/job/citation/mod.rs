//! The check of citations against the disk and the trace. The status is determined by the bridge, never by Kimi.

#[cfg(test)]
mod forms;
mod path;
mod quote;
mod search;
mod status;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::status::Status;

use self::path::{Located, ProjectFiles};
use self::quote::readings;
use self::search::{QuoteMatch, QuoteQuery, search};
use crate::kimi::evidence::shown::{LineRange, Ranges, Shown};
use crate::sandbox::SecretFiles;
use crate::sandbox::rules::canonical;

/// The longest file that is searched, bytes.
const LARGEST: u64 = 16 * 1024 * 1024;
/// The most bytes that are read for all citations of one answer.
const MAX_READ: u64 = 512 * 1024 * 1024;

/// A place in a file that a finding rests on. `missing` until it is checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Citation {
    /// Relative to the project if the file is in it, otherwise as Kimi wrote it.
    pub path: String,
    /// The first line, from 1; absent if Kimi gave none and the quote was not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line_start: Option<u32>,
    /// The last line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line_end: Option<u32>,
    /// The text at these lines, according to Kimi.
    pub quote: String,
    /// The result of the check.
    pub status: Status,
}

/// Returns whether a file was closed to a run, so that its citations read as missing. `closed` has no links.
pub(crate) fn is_closed(
    path: &Path,
    project: &Path,
    closed: &[PathBuf],
    secret: &SecretFiles,
) -> bool {
    let real = canonical(path);
    closed.iter().any(|closed| real.starts_with(closed)) || secret.is_secret(project, path)
}

/// The check of citations against one project and its current state on the disk.
pub struct Citations<'a> {
    work_dir: &'a Path,
    is_closed: &'a dyn Fn(&Path) -> bool,
    stop: &'a dyn Fn() -> bool,
    /// The lines of each file that were shown, by its canonical path.
    shown: BTreeMap<PathBuf, Ranges>,
    /// The bytes that may still be read.
    left: u64,
    /// The number of citations that were not checked for lack of time.
    unchecked: usize,
}

impl<'a> Citations<'a> {
    /// Creates a checker for the project at the canonical path `work_dir`. `shown` are the lines that Kimi's tools
    /// showed it; `is_closed` gets absolute paths. When `stop` returns `true`, the remaining citations stay unchecked.
    #[must_use]
    pub fn new(
        work_dir: &'a Path,
        shown: &Shown,
        is_closed: &'a dyn Fn(&Path) -> bool,
        stop: &'a dyn Fn() -> bool,
    ) -> Citations<'a> {
        let mut by_file: BTreeMap<PathBuf, Ranges> = BTreeMap::new();
        for (name, lines) in shown {
            if let Ok(real) = work_dir.join(name).canonicalize() {
                by_file.entry(real).or_default().extend(lines);
            }
        }
        Citations { work_dir, is_closed, stop, shown: by_file, left: MAX_READ, unchecked: 0 }
    }

    /// Checks all citations of one answer, file by file. Reversed lines are swapped; the lines in a path
    /// (`src/a.rs:24`) are used if the citation has none.
    pub fn check(&mut self, mut citations: Vec<Citation>) -> Vec<Citation> {
        let shown: Vec<PathBuf> =
            self.shown.keys().filter_map(|real| self.relative(real)).collect();
        let place =
            ProjectFiles { work_dir: self.work_dir, is_closed: self.is_closed, shown: &shown };
        let mut by_file: BTreeMap<PathBuf, Vec<(usize, QuoteQuery)>> = BTreeMap::new();
        for (at, citation) in citations.iter_mut().enumerate() {
            let lines = match (citation.line_start, citation.line_end) {
                (Some(start), Some(end)) => Some((start.min(end), start.max(end))),
                (start, end) => start.or(end).map(|line| (line, line)),
            };
            citation.cite(lines);
            match place.locate(&citation.path) {
                Err(status) => citation.status = status,
                Ok(Located { real, relative, carried }) => {
                    let cited = lines.or(carried);
                    citation.cite(cited);
                    let readings = readings(&citation.quote, &relative);
                    citation.path = relative;
                    by_file.entry(real).or_default().push((at, QuoteQuery { readings, cited }));
                }
            }
        }
        for (file, wanted) in by_file {
            let (places, wanted): (Vec<usize>, Vec<QuoteQuery>) = wanted.into_iter().unzip();
            let found = self.search(&file, &wanted);
            for (nth, at) in places.into_iter().enumerate() {
                citations[at].take(found.as_ref().map(|found| found[nth]));
            }
        }
        citations
    }

    /// The number of citations that were not checked for lack of time.
    #[must_use]
    pub fn unchecked(&self) -> usize {
        self.unchecked
    }

    /// Finds the quotes in a file; `None` if it cannot be read, is too large, or there is no time.
    fn search(&mut self, file: &Path, wanted: &[QuoteQuery]) -> Option<Vec<QuoteMatch>> {
        if (self.stop)() {
            self.unchecked += wanted.len();
            return None;
        }
        let bytes = text::read(file, LARGEST.min(self.left)).ok()?;
        self.left -= bytes.len() as u64;
        let none = Ranges::default();
        let found = search(&bytes, wanted, self.shown.get(file).unwrap_or(&none), self.stop);
        self.unchecked += if found.is_none() { wanted.len() } else { 0 };
        found
    }

    fn relative(&self, real: &Path) -> Option<PathBuf> {
        let relative = real.strip_prefix(self.work_dir).ok()?;
        real.is_file().then(|| relative.to_owned())
    }
}

impl Citation {
    fn cite(&mut self, lines: Option<LineRange>) {
        (self.line_start, self.line_end) = lines.unzip();
    }

    /// Sets the status and the lines from a match; `None` if the file could not be searched.
    fn take(&mut self, found: Option<QuoteMatch>) {
        let (status, lines) = match found {
            None => (Status::Missing, None),
            Some(QuoteMatch::Nowhere) => (Status::Mismatch, None),
            Some(QuoteMatch::Unshown(lines)) => (Status::NotInTrace, Some(lines)),
            Some(QuoteMatch::Moved(lines)) => (Status::Moved, Some(lines)),
            Some(QuoteMatch::AsCited) => (Status::Verified, None),
        };
        self.status = status;
        if lines.is_some() {
            self.cite(lines);
        }
    }
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

    pub(super) struct Project {
        _root: tempfile::TempDir,
        dir: PathBuf,
    }

    impl Project {
        pub(super) fn new() -> Project {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().canonicalize().unwrap().join("project");
            fs::create_dir(&dir).unwrap();
            Project { _root: root, dir }
        }

        pub(super) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
            let path = self.dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }

        pub(super) fn dir(&self) -> &Path {
            &self.dir
        }

        pub(super) fn size(&self, name: &str) -> u64 {
            self.dir.join(name).metadata().unwrap().len()
        }

        fn link(&self, target: &str, name: &str) {
            symlink(target, self.dir.join(name)).unwrap();
        }

        /// Checks a citation as if every line of every file except `unread.rs` was shown.
        fn citation(&self, path: &str, lines: Cited, quote: &str) -> Citation {
            let files = fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().file_name());
            let files = files.map(|name| format!("./{}", name.display()));
            let files = files.filter(|name| name != "./unread.rs").chain(["src/deep.rs".into()]);
            self.citation_shown(path, lines, quote, &whole(files))
        }

        pub(super) fn citation_shown(
            &self,
            path: &str,
            lines: Cited,
            quote: &str,
            shown: &Shown,
        ) -> Citation {
            let is_closed = |path: &Path| path.ends_with(".env") || path.ends_with("plain");
            let mut citations = Citations::new(&self.dir, shown, &is_closed, &|| false);
            let path = path.replace("ROOT", &self.dir.display().to_string());
            citations.check(vec![citation(&path, lines, quote)]).remove(0)
        }

        #[track_caller]
        fn check(&self, path: &str, lines: Cited, quote: &str, expected: (Status, Cited)) {
            let citation = self.citation(path, lines, quote);
            let found = (citation.status, (citation.line_start, citation.line_end));
            assert_eq!(found, expected, "{path} {lines:?} {quote:?}");
        }
    }

    pub(super) fn citation(path: &str, lines: Cited, quote: &str) -> Citation {
        Citation {
            path: path.to_owned(),
            line_start: lines.0,
            line_end: lines.1,
            quote: quote.to_owned(),
            status: Missing,
        }
    }

    /// All lines of these files.
    pub(super) fn whole(files: impl IntoIterator<Item = String>) -> Shown {
        let all = |file| {
            let mut lines = Ranges::default();
            lines.add((1, u32::MAX));
            (file, lines)
        };
        files.into_iter().map(all).collect()
    }

    pub(super) type Cited = (Option<u32>, Option<u32>);

    pub(super) const NONE: Cited = (None, None);

    pub(super) fn at(start: u32, end: u32) -> Cited {
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
    fn the_status_depends_on_lines_and_quote() {
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
        // Moved: the lines become those of the quote.
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
        // Reversed lines are swapped.
        check(at(5, 4), "let total = add(1,\n2);", (Verified, at(4, 5)));
        check(at(6, 5), "fn main() {", (Moved, at(3, 3)));
        // Too short to be found anywhere but at its own lines.
        check(at(6, 6), "}", (Verified, at(6, 6)));
        check(at(1, 1), "}", (Mismatch, at(1, 1)));
        check(at(1, 6), "}", (Mismatch, at(1, 6)));
        check(at(5, 6), ");\n}", (Verified, at(5, 6)));
        check(NONE, ");\n}", (Mismatch, NONE));
        check(at(3, 3), "() {", (Verified, at(3, 3)));
        check(at(4, 4), "() {", (Mismatch, at(4, 4)));
        // The cited range is limited by the length of the quote.
        check(at(1, 4), "main", (Verified, at(1, 4)));
        check(at(1, 5), "main", (Mismatch, at(1, 5)));
        // Not in the file, or empty.
        check(at(4, 4), "let total = add(2,", (Mismatch, at(4, 4)));
        check(at(4, 4), "LET TOTAL", (Mismatch, at(4, 4)));
        check(at(4, 4), " \n\t\u{200b}", (Mismatch, at(4, 4)));
        check(at(4, 4), "", (Mismatch, at(4, 4)));
        // A quote may begin with the line numbers of a reading tool.
        check(at(3, 4), "3\tfn main() {\n4\t    let total = add(1,", (Verified, at(3, 4)));
        check(at(1, 2), "  3→fn main() {\n  4→    let total", (Moved, at(3, 4)));
        check(NONE, "3 | fn main() {", (Moved, at(3, 3)));
        check(at(3, 3), "4:fn main() {", (Mismatch, at(3, 3)));
        check(at(3, 4), "3\tfn main() {\n5\t    let total = add(1,", (Mismatch, at(3, 4)));
        check(at(3, 3), "99999999999\tfn main() {", (Mismatch, at(3, 3)));
        check(at(3, 3), "3 fn main() {", (Mismatch, at(3, 3)));
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
    fn quotes_are_found_in_every_encoding() {
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
        // UTF-8: byte order marks and invisible characters.
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
        // Composed and decomposed forms are different texts, since a comparison needs tables.
        check("cafe\u{301} = 1".as_bytes(), at(1, 1), "caf\u{e9} = 1", (Mismatch, at(1, 1)));
        // UTF-16, with and without a byte order mark.
        let text = "first 行\r\nnext 读取\r\n";
        let (le, be) = (u16::to_le_bytes, u16::to_be_bytes);
        check(&utf16(&format!("\u{feff}{text}"), le), at(2, 2), "next 读取", (Verified, at(2, 2)));
        check(&utf16(&format!("\u{feff}{text}"), be), at(2, 2), "next 读取", (Verified, at(2, 2)));
        check(&utf16(text, le), at(2, 2), "next 读取", (Verified, at(2, 2)));
        check(&utf16(text, be), at(1, 1), "next 读取", (Moved, at(2, 2)));
        check(&utf16("\u{10a}\nnext 10", le), at(2, 2), "next 10", (Verified, at(2, 2)));
        check(&utf16("\u{feff}odd", le)[..7], at(1, 1), "od", (Verified, at(1, 1)));
        // A file that is not UTF-8 is tried in every likely encoding.
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
        // Binary files and the empty file.
        check(b"", at(1, 1), "anything", (Mismatch, at(1, 1)));
        check(b"\0\xff\xfe\0match me\0\n\x80", at(1, 1), "match me", (Verified, at(1, 1)));
        check(&vec![0; 100_000], at(1, 1), "match me", (Mismatch, at(1, 1)));
    }

    #[test]
    fn the_status_depends_on_the_path() {
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
        // Lines in the path.
        check("odd:7", Verified, "odd:7");
        check("odd:7 ", Verified, "odd:7");
        check("a.rs:1", Verified, "a.rs");
        check("nope.rs:1", Missing, "nope.rs:1");
        check("../outside.rs:1", Outside, "../outside.rs:1");
        project.check("src/deep.rs:2", NONE, quote, (Verified, at(2, 2)));
        project.check("src/deep.rs:2-3", NONE, quote, (Verified, at(2, 3)));
        project.check("src/deep.rs:3-2", NONE, quote, (Verified, at(2, 3)));
        project.check("src/deep.rs:3", at(2, 2), quote, (Verified, at(2, 2)));
        project.check("src/deep.rs:9", NONE, quote, (Moved, at(2, 2)));
    }

    #[test]
    fn a_closed_file_looks_like_a_missing_one() {
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
    fn an_unreadable_file_is_missing_and_never_blocks() {
        let project = Project::new();
        let pipe = std::process::Command::new("mkfifo").arg(project.dir.join("pipe")).status();
        assert!(pipe.unwrap().success());
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
        // Root can read it anyway.
        let status = if File::open(&locked).is_ok() { Verified } else { Missing };
        project.check("locked", at(1, 1), "a secret line", (status, at(1, 1)));
    }

    #[test]
    fn the_disk_is_read_again_for_each_answer() {
        let project = Project::new();
        project.write("a.rs", CODE);
        let shown = whole(["a.rs".to_owned()]);
        let mut citations = Citations::new(&project.dir, &shown, &|_| false, &|| false);
        let mut check = |status| {
            let checked = citations.check(vec![citation("a.rs", at(3, 3), "fn main() {")]);
            assert_eq!(checked[0].status, status);
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
    fn a_large_file_is_searched_and_a_huge_one_is_never_a_mismatch() {
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
        let read = whole(["huge.txt", "a.rs", "sparse"].map(str::to_owned));
        let mut citations = Citations::new(&project.dir, &read, &|_| false, &|| false);
        citations.left = 9_000_000;
        let mut check = |path: &str, quote: &str, status| {
            let checked = citations.check(vec![citation(path, at(3, 3), quote)]);
            assert_eq!(checked[0].status, status);
        };
        check("huge.txt", "no needle", Mismatch);
        check("huge.txt", "no needle", Missing);
        // A huge file does not use up the bytes of the others.
        check("sparse", "nowhere", Missing);
        check("a.rs", "fn main() {", Verified);
        // A single line without an end, and quotes that begin to match everywhere.
        project.write("flat", "a+".repeat(1_000_000) + "b");
        project.check("flat", at(1, 1), &("a+".repeat(5_000) + "b"), (Verified, at(1, 1)));
        project.check("flat", at(1, 1), &("a+".repeat(5_000) + "c"), (Mismatch, at(1, 1)));
    }

    #[test]
    fn a_quote_across_the_end_of_a_block_is_found() {
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

    /// A simple reference search: the words of the text, each with its line. Returns the places of the quote, and
    /// whether each fills its lines.
    fn places_of(text: &str, quote: &str) -> Vec<(LineRange, bool)> {
        let lines = (1..).zip(text.split('\n'));
        let words =
            lines.flat_map(|(at, line)| line.split_whitespace().map(move |word| (word, at)));
        let words: Vec<(&str, u32)> = words.collect();
        let quote: Vec<&str> = quote.split_whitespace().collect();
        let places = (0..=words.len().saturating_sub(quote.len())).filter(|&from| {
            let part = words[from..].iter().take(quote.len()).map(|word| word.0);
            part.eq(quote.iter().copied())
        });
        let places = places.map(|from| {
            let last = from + quote.len() - 1;
            let lines = (words[from].1, words[last].1);
            let begins = from == 0 || words[from - 1].1 < lines.0;
            (lines, begins && words.get(last + 1).is_none_or(|next| next.1 > lines.1))
        });
        places.collect()
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
        fn the_search_agrees_with_a_simple_reference_search(
            text in "[ab \n]{0,60}",
            quote in "[ab \n]{0,12}[ab]{4}",
            start in 0u32..20,
            height in 0u32..4,
        ) {
            let (project, cited) = (Project::new(), (start, start + height));
            project.write("f", &text);
            let citation = project.citation("f", at(cited.0, cited.1), &quote);
            let places = places_of(&text, &quote);
            let inside = |(place, _): &(LineRange, bool)| start <= place.0 && place.1 <= cited.1;
            let last = u32::try_from(text.split('\n').count()).unwrap();
            let expected = if start > 0 && cited.1 <= last && places.iter().any(inside) {
                (Verified, cited)
            } else {
                let gap = |(p, _): &&(LineRange, bool)| {
                    if p.0 > cited.1 { p.0 - cited.1 } else { start.saturating_sub(p.1) }
                };
                let nearest = places.iter().filter(|place| place.1).min_by_key(gap);
                let letters = quote.chars().filter(|c| !c.is_whitespace()).count();
                let sole = places.first().filter(|p| places.len() == 1 && (p.1 || letters >= 12));
                let is_one_word = quote.split_whitespace().count() == 1;
                let moved = nearest.filter(|_| !is_one_word).or(sole);
                moved.map_or((Mismatch, cited), |&(place, _)| (Moved, place))
            };
            let lines = citation.line_start.zip(citation.line_end).unwrap();
            prop_assert_eq!((citation.status, lines), expected);
        }
    }
}
