//! Citations, checked against a small project on the disk. Where a citation is said to hold, its quote
//! stands at the lines that it ends with, and where it is said to be nowhere, it is not; what leads out of
//! the project is outside.
//!
//! An input is a header, a line with a path, a line with two numbers, and the quote. The header can put
//! a part of a file in front of the quote, with other white space.

#![no_main]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use encoding_rs::{
    BIG5, EUC_JP, EUC_KR, Encoding, GB18030, KOI8_R, SHIFT_JIS, UTF_8, UTF_16BE, UTF_16LE,
    WINDOWS_1251, WINDOWS_1252,
};
use kimi_bridge::hidden::is_hidden;
use kimi_bridge::job::citation::{Citation, Citations, Status};
use kimi_bridge::kimi::evidence::shown::Shown;
use libfuzzer_sys::fuzz_target;

/// What is made up, a file, where a part of it begins (two bytes), how long it is, how it is spread.
const HEADER: usize = 6;
/// Letters and digits from which on a whole line is looked for in the whole file.
const LONG_ENOUGH: usize = 4;
/// A quote with one of these may be read in another way than as it stands.
const MARKS: [char; 22] = [
    '`', '~', '"', '\'', '\u{201c}', '\u{201e}', '\u{2018}', '\u{ab}', '\u{300c}', '\u{300e}', '.',
    '\u{2026}', '\\', '+', '-', '>', '\t', ':', '|', '\u{2192}', '\u{2502}', '\u{22ee}',
];
/// Kimi's tools did not show this file.
const UNREAD: &str = "unread.rs";
/// The same twice, and a file in each encoding.
const TEXT: &str = "first line\n\n  caf\u{e9} = 10;\n}\nlast line\n";
const CHINESE: &str =
    "\u{7b2c}\u{4e00}\u{884c}\r\n\u{8bfb}\u{53d6}\u{914d}\u{7f6e} = 1\r\n}\r\nend";
const JAPANESE: &str =
    "\u{8a2d}\u{5b9a}\u{30d5}\u{30a1}\u{30a4}\u{30eb}\n\u{8aad}\u{307f}\u{8fbc}\u{3080} = 2\n";

/// The encodings in which a file may be read that does not say its own.
const READINGS: [&Encoding; 11] = [
    UTF_8,
    UTF_16LE,
    UTF_16BE,
    GB18030,
    WINDOWS_1252,
    BIG5,
    SHIFT_JIS,
    EUC_JP,
    EUC_KR,
    WINDOWS_1251,
    KOI8_R,
];

struct Project {
    dir: PathBuf,
    shown: Shown,
    files: Vec<File>,
}

struct File {
    path: &'static str,
    text: String,
    /// In every encoding.
    readings: Vec<Reading>,
}

/// A text without white space and what cannot be seen, and where each of its lines begins.
struct Reading {
    text: String,
    lines: Vec<usize>,
}

static PROJECT: LazyLock<Project> = LazyLock::new(Project::new);

fuzz_target!(|input: &[u8]| {
    let Some((header, said)) = input.split_at_checked(HEADER) else { return };
    let said = String::from_utf8_lossy(said);
    let mut parts = said.splitn(3, '\n');
    let mut next = || parts.next().unwrap_or_default();
    let quote = quote(header, next(), next(), next());
    let mut citations = Citations::new(&PROJECT.dir, &PROJECT.shown, &|_| false, &|| false);
    let checked = citations.check(vec![quote.clone()]);
    check(&quote, &checked[0]);
});

impl Project {
    /// In the folder of what is built, so that nothing is left elsewhere.
    fn new() -> Project {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/citation");
        fs::create_dir_all(root.join("project/src")).expect("a folder can be made");
        let dir = root.join("project").canonicalize().expect("the folder is there");
        let big = (1..6_000).map(|n| format!("line {n} of many")).collect::<Vec<_>>().join("\n");
        let utf16 = |bytes: fn(u16) -> [u8; 2], text: &str| -> Vec<u8> {
            text.encode_utf16().flat_map(bytes).collect()
        };
        let store = include_str!("../../demo/tally/src/store.rs");
        let main = include_str!("../../demo/tally/src/main.rs");
        let ends = "a line\rb line\nc line\r\nd line\n\re line\n\nf line";
        let hidden = "pass\u{200b}word = 1\n\u{1f469}\u{200d}\u{1f680} ship\u{ad}ped\n";
        let plain = |text: &str| text.as_bytes().to_vec();
        let encoded = |text: &str, encoding: &'static Encoding| encoding.encode(text).0.to_vec();
        let files = [
            ("src/store.rs", plain(store), store),
            ("src/main.rs", plain(main), main),
            (UNREAD, plain(TEXT), TEXT),
            ("with space: 3", plain(TEXT), TEXT),
            ("ends.txt", plain(ends), ends),
            ("hidden.txt", plain(hidden), hidden),
            ("big.txt", plain(&big), &big),
            ("marked.txt", utf16(u16::to_le_bytes, &format!("\u{feff}{CHINESE}")), CHINESE),
            ("le.txt", utf16(u16::to_le_bytes, TEXT), TEXT),
            ("be.txt", utf16(u16::to_be_bytes, TEXT), TEXT),
            ("latin.txt", encoded(TEXT, WINDOWS_1252), TEXT),
            ("gb.txt", encoded(CHINESE, GB18030), CHINESE),
            ("jis.txt", encoded(JAPANESE, SHIFT_JIS), JAPANESE),
            ("empty", Vec::new(), ""),
        ];
        let files = files.map(|(path, bytes, text)| {
            write(&dir.join(path), &bytes);
            let read = |encoding: &'static Encoding| encoding.decode_without_bom_handling(&bytes).0;
            let readings =
                READINGS.into_iter().map(|encoding| Reading::of(&read(encoding))).collect();
            File { path, text: text.to_owned(), readings }
        });
        write(&root.join("outside.rs"), store.as_bytes());
        for (target, name) in [
            ("src/store.rs", "link.rs"),
            ("src", "folder"),
            ("../outside.rs", "leaves.rs"),
            ("..", "up"),
            ("nowhere", "dangling"),
            ("/etc", "system"),
        ] {
            if dir.join(name).symlink_metadata().is_err() {
                symlink(target, dir.join(name)).expect("a link can be made");
            }
        }
        let shown = files.iter().map(|file| file.path).filter(|&path| path != UNREAD);
        let mut all = Shown::new();
        shown.for_each(|path| all.entry(path.to_owned()).or_default().add((1, u32::MAX)));
        Project { dir, shown: all, files: files.into() }
    }
}

/// Writes what is not there yet: another run may be reading.
fn write(path: &Path, bytes: &[u8]) {
    if fs::read(path).ok().as_deref() != Some(bytes) {
        fs::write(path, bytes).expect("a file can be written");
    }
}

impl Reading {
    fn of(text: &str) -> Reading {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut reading = Reading { text: String::new(), lines: vec![0] };
        for line in text.split('\n') {
            reading.text.push_str(&folded(line));
            reading.lines.push(reading.text.len());
        }
        reading
    }

    /// The text of these lines, from 1; nothing where the text has no such lines.
    fn at(&self, start: u32, end: u32) -> Option<&str> {
        let start = self.lines.get(usize::try_from(start.checked_sub(1)?).ok()?)?;
        let end = self.lines.get(usize::try_from(end).ok()?)?;
        self.text.get(*start..*end)
    }
}

fn folded(text: &str) -> String {
    text.chars().filter(|&c| !c.is_whitespace() && !is_hidden(c)).collect()
}

/// What the input says.
fn quote(header: &[u8], path: &str, lines: &str, quote: &str) -> Citation {
    let &[made_up, file, high, low, length, spread] = header else { unreachable!("the header") };
    let file = &PROJECT.files[usize::from(file) % PROJECT.files.len()];
    let mut path = path.replace("ROOT", &PROJECT.dir.display().to_string());
    let mut lines = lines.split(' ').map(|line| line.parse().ok());
    let mut lines = (lines.next().flatten(), lines.next().flatten());
    let mut quote = quote.to_owned();
    if made_up & 1 > 0 {
        file.path.clone_into(&mut path);
    }
    if made_up & 2 > 0 {
        let from = usize::from(u16::from_be_bytes([high, low])) % (file.text.len() + 1);
        let part: Vec<char> = file.text.chars().skip(from).take(length.into()).collect();
        let white = [" ", "\n", "\u{200b}", ""][usize::from(spread) % 4];
        let part =
            part.chunks(usize::from(spread).max(1)).map(|part| part.iter().collect::<String>());
        quote.insert_str(0, &part.collect::<Vec<_>>().join(white));
        if made_up & 4 > 0 {
            let before: String = file.text.chars().take(from).collect();
            let line = u32::try_from(before.lines().count()).expect("the files are small");
            lines = (Some(line + u32::from(spread % 3)), Some(line + u32::from(spread % 7)));
        }
    }
    if made_up & 8 > 0 {
        let numbered = quote.lines().zip(lines.0.unwrap_or_default()..);
        let numbered = numbered.map(|(line, at)| format!("{at:>6}\t{line}"));
        quote = numbered.collect::<Vec<_>>().join("\n");
    }
    Citation { path, line_start: lines.0, line_end: lines.1, quote, status: Status::Missing }
}

fn check(quote: &Citation, citation: &Citation) {
    assert_eq!(citation.quote, quote.quote);
    let lines = citation.line_start.zip(citation.line_end);
    assert_eq!(lines.is_none(), citation.line_start.or(citation.line_end).is_none());
    assert!(lines.is_none_or(|(start, end)| start <= end));
    let real = |path: &str| PROJECT.dir.join(path).canonicalize().ok();
    // A path that stands for a file is that file; what is written about its lines only counts else.
    if let Some(real) = real(&quote.path).filter(|real| !real.starts_with(&PROJECT.dir)) {
        assert_eq!(citation.status, Status::Outside, "{}", real.display());
    }
    if climbs_out(&quote.path) {
        assert_eq!(citation.status, Status::Outside, "{}", quote.path);
    }
    let file = || {
        let real = real(&citation.path).expect("the file is there");
        let file = PROJECT.files.iter().find(|file| PROJECT.dir.join(file.path) == real);
        file.expect("the file is one of the project")
    };
    match citation.status {
        Status::Outside => {
            assert!(real(&quote.path).is_none_or(|real| !real.starts_with(&PROJECT.dir)));
            assert_eq!(citation.path, quote.path);
        }
        Status::Missing => assert_eq!(citation.path, quote.path),
        Status::Mismatch => {
            let file = file();
            let quote = quote.quote.trim();
            let letters = quote.chars().filter(|c| c.is_alphanumeric()).count();
            let says_something = letters >= LONG_ENOUGH && quote.split_whitespace().count() > 1;
            let mut lines = file.text.split(['\n', '\r']).map(str::trim);
            assert!(!says_something || lines.all(|line| line != quote), "{}", file.path);
        }
        status @ (Status::Verified | Status::Moved | Status::NotInTrace) => {
            let file = file();
            assert_eq!(status == Status::NotInTrace, file.path == UNREAD);
            let (start, end) = lines.expect("it stands somewhere");
            let stands = |quote: &str| {
                let quote = folded(quote);
                let mut texts = file.readings.iter().filter_map(|text| text.at(start, end));
                !quote.is_empty() && texts.any(|text| text.contains(&quote))
            };
            let may_be_marked = quote.quote.contains(MARKS);
            assert!(may_be_marked || stands(&quote.quote), "{citation:?}");
            if let (Status::Verified, Some(first), Some(last)) =
                (status, quote.line_start, quote.line_end)
            {
                assert_eq!((start, end), (first.min(last), first.max(last)));
            }
        }
    }
}

/// Whether a path goes up from the project by its own words, without any of the project's links.
fn climbs_out(path: &str) -> bool {
    let mut depth = 0_i32;
    let path = path.trim();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ if depth < 0 => {}
            // What is there may be a link, and what is not may be the path of something else.
            _ if part.contains("..") || PROJECT.dir.join(part).symlink_metadata().is_ok() => {
                return false;
            }
            _ => depth += 1,
        }
        if depth < 0 {
            // It may come back by the project's name.
            return !path.contains("project");
        }
    }
    false
}
