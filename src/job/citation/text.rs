//! A file as text, normalized for the comparison with a quote.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use rustix::fs::{Mode, OFlags};

use crate::hidden::is_hidden;
use crate::kimi::evidence::shown::LineRange;

/// Reads the file at a canonical path, up to `limit` bytes. Anything but a regular file is refused before it is opened,
/// since opening a pipe would block and opening a device may act.
pub(super) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let regular = |is_file: bool| is_file.then_some(()).ok_or(io::ErrorKind::InvalidInput);
    regular(fs::symlink_metadata(path)?.is_file())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    regular(metadata.is_file())?;
    let mut bytes = Vec::new();
    if metadata.len() <= limit {
        // The file may grow meanwhile.
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 <= limit {
            return Ok(bytes);
        }
    }
    Err(io::ErrorKind::FileTooLarge.into())
}

/// The encodings in which these bytes may be text. A byte order mark decides. UTF-8 is always among the others, since
/// Kimi's tools read every file as UTF-8.
pub(super) fn encodings(bytes: &[u8]) -> Vec<&'static Encoding> {
    if let Some((marked, _)) = Encoding::for_bom(bytes) {
        return vec![marked];
    }
    let mut encodings = Vec::new();
    // UTF-16 without a byte order mark: ASCII has a zero in every second byte, and no text holds U+0000.
    if bytes.contains(&0) && !bytes.chunks_exact(2).any(|pair| pair == [0, 0]) {
        encodings.extend([UTF_16LE, UTF_16BE]);
    }
    encodings.push(UTF_8);
    if str::from_utf8(bytes).is_err() {
        let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
        detector.feed(bytes, true);
        encodings.push(detector.guess(None, Utf8Detection::Deny));
    }
    encodings
}

/// The way in which a text and a quote are made comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Normalization {
    /// White space counts only between two words or numbers, since models drop and change it.
    Plain,
    /// Escape sequences such as `\n` and `\"` count as their characters, since a model may decode them once too often.
    /// Line breaks and tabs count, except for indentation.
    Decoded,
}

/// A normalized text. Invisible characters are dropped, since they are removed from Kimi's text too. Unicode
/// normalization is not applied: é as one character and as two are different.
#[derive(Debug)]
pub(super) struct Folded {
    pub(super) text: String,
    /// The start of each line in `text`, bytes.
    lines: Vec<usize>,
}

/// White space that is not yet written, since its effect depends on the next character.
#[derive(Default)]
struct PendingSpace {
    /// Line breaks of the text itself.
    breaks: usize,
    /// Set for line breaks of escape sequences too.
    has_break: bool,
    has_tab: bool,
    has_space: bool,
}

impl Folded {
    pub(super) fn new(text: &str, form: Normalization) -> Folded {
        let mut folded = Folded { text: String::new(), lines: vec![0] };
        let mut gap = PendingSpace::default();
        let mut last = None;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let escaped = chars.peek().filter(|_| form == Normalization::Decoded && c == '\\');
            let escaped = escaped.and_then(|&next| decoded(next));
            match (escaped.unwrap_or(c), escaped.is_some()) {
                ('\r', false) if chars.peek() == Some(&'\n') => {}
                ('\n' | '\r', false) => (gap.breaks, gap.has_break) = (gap.breaks + 1, true),
                ('\n' | '\r', true) => gap.has_break = true,
                ('\t', _) => gap.has_tab = true,
                (c, _) if c.is_whitespace() => gap.has_space = true,
                (c, _) if is_hidden(c) => {}
                (c, _) => {
                    folded.close(&std::mem::take(&mut gap), last, c, form);
                    folded.text.push(c);
                    last = Some(c);
                }
            }
            if escaped.is_some() {
                chars.next();
            }
        }
        folded.lines.extend(std::iter::repeat_n(folded.text.len(), gap.breaks));
        folded
    }

    /// Writes the part of the white space between two characters that counts.
    fn close(&mut self, gap: &PendingSpace, last: Option<char>, next: char, form: Normalization) {
        let mark = match form {
            Normalization::Decoded if gap.has_break => Some('\n'),
            Normalization::Decoded if gap.has_tab => Some('\t'),
            _ if gap.has_break || gap.has_tab || gap.has_space => {
                last.filter(|&last| is_parted(last, next)).map(|_| ' ')
            }
            _ => None,
        };
        // White space before the first character does not count.
        self.text.extend(mark.filter(|_| last.is_some()));
        self.lines.extend(std::iter::repeat_n(self.text.len(), gap.breaks));
    }

    /// Returns whether a part of the text begins and ends at the boundaries of words and numbers.
    pub(super) fn is_bounded(&self, start: usize, end: usize) -> bool {
        let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        let meet = |at: usize| {
            let (mut before, mut behind) = (self.text[..at].chars().rev(), self.text[at..].chars());
            let (a, b) = (before.next(), behind.next());
            match (a, b) {
                (Some('.'), b) => is_digit(before.next()) && is_digit(b),
                (a, Some('.')) => is_digit(a) && is_digit(behind.next()),
                (a, b) => a.zip(b).is_some_and(|(a, b)| is_joined(a, b)),
            }
        };
        !meet(start) && !meet(end)
    }

    /// Returns whether a part of the text fills its lines.
    pub(super) fn is_whole(&self, start: usize, end: usize) -> bool {
        let behind = self.text[end..].trim_start_matches([' ', '\n', '\t']);
        let next = self.text.len() - behind.len();
        let begins = self.lines.binary_search(&start).is_ok();
        begins && (behind.is_empty() || self.line(next) > self.line(end - 1))
    }

    /// The line of a byte, from 1.
    pub(super) fn line(&self, at: usize) -> u32 {
        number(self.lines.partition_point(|&begin| begin <= at))
    }

    /// The number of lines.
    pub(super) fn line_count(&self) -> u32 {
        number(self.lines.len())
    }
}

pub(super) fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub(super) fn line_count((start, end): LineRange) -> u32 {
    (end - start).saturating_add(1)
}

/// The character of the escape sequence of a backslash and this character.
pub(super) fn decoded(c: char) -> Option<char> {
    match c {
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        '"' | '\'' | '\\' | '/' => Some(c),
        _ => None,
    }
}

/// Returns whether two adjacent characters belong to one word.
fn is_joined(a: char, b: char) -> bool {
    let is_word = |c: char| c == '_' || (c.is_alphanumeric() && !is_unspaced(c));
    is_word(a) && is_word(b)
}

/// Returns whether white space between two characters counts, since they would join to one word or number.
fn is_parted(a: char, b: char) -> bool {
    let is_point = |a: char, b: char| a == '.' && b.is_ascii_digit();
    is_joined(a, b) || is_point(a, b) || is_point(b, a)
}

/// Returns whether a character belongs to a script without white space between words: Thai, Lao, Myanmar, Khmer, and
/// those of East Asia.
pub(super) fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{2e80}'..)
}
