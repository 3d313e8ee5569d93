//! A file as text, and the search for a quote in it. White space and invisible characters do not count
//! in either.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use rustix::fs::{Mode, OFlags};

use crate::hidden::is_hidden;

/// The weight below which a quote is found only where it fills the cited lines: a closing brace stands
/// everywhere.
const MIN_WEIGHT: usize = 4;

/// Lines, from 1, both included.
pub(super) type Lines = (u32, u32);

/// The lines where a quote stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) lines: Lines,
    /// Whether the cited lines hold; then `lines` are those.
    pub(super) as_cited: bool,
}

/// The bytes of the file at this path, which holds no links, if there are at most `limit` of them.
/// Anything but a regular file is refused before it is opened: opening a pipe would block, and opening a
/// device may act.
pub(super) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let regular = |is_file: bool| is_file.then_some(()).ok_or(io::ErrorKind::InvalidInput);
    regular(fs::symlink_metadata(path)?.is_file())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    regular(metadata.is_file())?;
    let mut bytes = Vec::new();
    if metadata.len() <= limit {
        // It may grow meanwhile.
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 <= limit {
            return Ok(bytes);
        }
    }
    Err(io::ErrorKind::FileTooLarge.into())
}

/// The encodings in which these bytes may be text. A byte order mark decides. UTF-8 is always among the
/// others: Kimi's tools read every file as that.
pub(super) fn encodings(bytes: &[u8]) -> Vec<&'static Encoding> {
    if let Some((marked, _)) = Encoding::for_bom(bytes) {
        return vec![marked];
    }
    let mut encodings = Vec::new();
    // UTF-16 without a mark: ASCII in it has a zero in every second byte, and no text holds U+0000.
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

/// A text without the characters that do not count.
#[derive(Debug)]
pub(super) struct Folded {
    text: String,
    /// Where each line begins in it, bytes.
    lines: Vec<usize>,
}

impl Folded {
    pub(super) fn new(text: &str) -> Folded {
        let mut folded = Folded { text: String::new(), lines: vec![0] };
        let mut before = ' ';
        for c in text.chars() {
            match c {
                '\n' if before == '\r' => {}
                '\n' | '\r' => folded.lines.push(folded.text.len()),
                c if counts(c) => folded.text.push(c),
                _ => {}
            }
            before = c;
        }
        folded
    }

    /// The place of a quote: the cited lines if it stands there, else the nearest lines where it does.
    /// Cited lines that the text does not have do not hold.
    pub(super) fn find(&self, quote: &Folded, cited: Option<Lines>) -> Option<Place> {
        if quote.text.is_empty() {
            return None;
        }
        let is_short = quote.text.chars().map(weight).sum::<usize>() < MIN_WEIGHT;
        // A quote can speak for as many lines as it has characters, a short one for those that it fills.
        let most = if is_short { 0 } else { number(quote.text.chars().count()) };
        let may_hold = |cited: Lines, place: Lines| {
            let is_inside = 1 <= cited.0 && cited.0 <= place.0 && place.1 <= cited.1;
            let is_there = cited.1 <= number(self.lines.len());
            is_inside && is_there && height(cited) <= most.max(height(place))
        };
        let mut nearest = None;
        let kind = Some(AhoCorasickKind::NoncontiguousNFA);
        let finder = AhoCorasick::builder().kind(kind).build([&quote.text]).ok()?;
        for found in finder.find_overlapping_iter(&self.text) {
            let place = (self.line(found.start()), self.line(found.end() - 1));
            if let Some(lines) = cited.filter(|&cited| may_hold(cited, place)) {
                return Some(Place { lines, as_cited: true });
            }
            let far = distance(cited.unwrap_or_default(), place);
            if nearest.is_none_or(|(least, _)| far < least) {
                nearest = Some((far, place));
            }
        }
        let nearest = nearest.filter(|_| !is_short);
        nearest.map(|(_, lines)| Place { lines, as_cited: false })
    }

    /// The line of a byte, from 1.
    fn line(&self, at: usize) -> u32 {
        number(self.lines.partition_point(|&begin| begin <= at))
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn height((start, end): Lines) -> u32 {
    (end - start).saturating_add(1)
}

/// Lines between the two; none when they touch or overlap.
fn distance(cited: Lines, place: Lines) -> u32 {
    place.0.saturating_sub(cited.1).max(cited.0.saturating_sub(place.1))
}

/// How much a character says: brackets say nothing, and one letter of CJK more than one of ASCII.
fn weight(c: char) -> usize {
    if c.is_alphanumeric() { 1 + usize::from(!c.is_ascii()) } else { 0 }
}

/// Whether a character counts. Models drop and change white space, and the bridge itself takes invisible
/// characters out of Kimi's text. Canonically equal text is not made the same: é as one character and as
/// two are two quotes.
fn counts(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_graphic() } else { !c.is_whitespace() && !is_hidden(c) }
}

/// The quote without the line numbers that a reading tool puts before each line, and the lines that
/// they name. They must run on without a gap.
pub(super) fn without_numbers(quote: &str) -> Option<(String, Lines)> {
    let mut text = String::new();
    let mut lines: Option<Lines> = None;
    for line in quote.lines().filter(|line| !line.trim().is_empty()) {
        let line = line.trim_start();
        let digits = line.find(|c: char| !c.is_ascii_digit())?;
        let number: u32 = line[..digits].parse().ok()?;
        let rest = line[digits..]
            .strip_prefix(['\t', ':', '|', '→'])
            .or_else(|| line[digits..].trim_start().strip_prefix(['|', '→']))?;
        let start = match lines {
            Some((_, end)) if end.checked_add(1) != Some(number) => return None,
            Some((start, _)) => start,
            None => number,
        };
        lines = Some((start, number));
        text.push_str(rest);
        text.push('\n');
    }
    Some((text, lines?))
}
