//! The readings of a quote: literal, or without the marks that models and tools add to a text. Each reading must be in
//! the file word for word, so that nothing is guessed.

use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

use super::text::{Folded, Normalization, decoded, is_unspaced};
use crate::kimi::evidence::shown::{LineRange, file_names};

/// The longest quote that is read in any but the literal way, bytes.
const LONGEST: usize = 16 * 1024;
/// The most texts that are made from one quote by removing marks.
const MOST_TEXTS: usize = 8;

/// A reading of a quote: pieces that follow each other in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QuoteReading {
    pub(super) form: Normalization,
    pub(super) pieces: Vec<Piece>,
}

/// A part of a quote without gaps.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The text, normalized like the file.
    pub(super) text: String,
    /// The only lines where the piece may be, given by line numbers in the quote.
    pub(super) numbered: Option<LineRange>,
}

impl Piece {
    fn new(text: &str, form: Normalization, numbered: Option<LineRange>) -> Option<Piece> {
        let text = Folded::new(text, form).text;
        (!text.is_empty()).then_some(Piece { text, numbered })
    }

    /// The weight of the text as evidence: brackets have none, and a CJK letter has more than an ASCII letter.
    pub(super) fn weight(&self) -> usize {
        let letters = self.text.chars().filter(|c| c.is_alphanumeric());
        letters.map(|c| 1 + usize::from(!c.is_ascii())).sum()
    }

    /// Returns whether the text is one word, such as `true`. Each character counts as a word in scripts without spaces.
    pub(super) fn is_one_word(&self) -> bool {
        let words = self.text.split(|c: char| !c.is_alphanumeric() && c != '_');
        let mut words = words.filter(|word| !word.is_empty());
        let first = words.next().unwrap_or_default();
        words.next().is_none() && first.chars().filter(|&c| is_unspaced(c)).count() < 2
    }
}

/// All readings of a quote from this file, the most literal one first.
pub(super) fn readings(quote: &str, file: &str) -> Vec<QuoteReading> {
    let mut texts = vec![quote.to_owned()];
    if quote.len() <= LONGEST {
        for strip in [unfenced, unquoted, unquoted, unescaped, unmarked] {
            let stripped: Vec<String> = texts.iter().filter_map(|text| strip(text)).collect();
            texts.extend(stripped.into_iter().filter(|text| !text.trim().is_empty()));
        }
        let unnamed: Vec<String> = texts.iter().filter_map(|text| unnamed(text, file)).collect();
        texts.extend(unnamed);
        texts.truncate(MOST_TEXTS);
    }
    let whole = |form| move |text: &String| Some(vec![Piece::new(text, form, None)?]);
    let plain = texts.iter().filter_map(whole(Normalization::Plain));
    let others = texts.iter().filter(|_| quote.len() <= LONGEST);
    let numbered = others.clone().filter_map(|text| numbered(text, file));
    let elided = others.clone().filter_map(|text| elided(text));
    let readings = plain.chain(numbered).chain(elided);
    let readings = readings.map(|pieces| QuoteReading { form: Normalization::Plain, pieces });
    let decoded = others.filter_map(whole(Normalization::Decoded));
    let mut all: Vec<QuoteReading> = Vec::new();
    for reading in
        readings.chain(decoded.map(|pieces| QuoteReading { form: Normalization::Decoded, pieces }))
    {
        if !all.contains(&reading) {
            all.push(reading);
        }
    }
    all
}

/// The text inside a Markdown fence.
fn unfenced(text: &str) -> Option<String> {
    let text = text.trim();
    let fence = ["```", "~~~"].into_iter().find(|fence| text.starts_with(fence))?;
    let (_, inside) = text.split_once('\n')?;
    Some(inside.trim_end().strip_suffix(fence)?.to_owned())
}

/// The text inside backticks or quotation marks.
fn unquoted(text: &str) -> Option<String> {
    let text = text.trim();
    if text.len() > 2 && text.starts_with('`') && text.ends_with('`') {
        return Some(text.trim_matches('`').to_owned());
    }
    let pairs = ["\"\"", "''", "“”", "„“", "‘’", "«»", "「」", "『』"];
    pairs.into_iter().find_map(|pair| {
        let mut marks = pair.chars();
        let inside = text.strip_prefix(marks.next()?)?.strip_suffix(marks.next()?)?;
        Some(inside.to_owned())
    })
}

/// The text with its escape sequences decoded, for a quote that was escaped twice.
fn unescaped(text: &str) -> Option<String> {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('\\') {
        plain.push_str(before);
        let next = behind.chars().next();
        let code = behind.strip_prefix('u').and_then(|code| code.get(..4));
        let code =
            code.and_then(|code| u32::from_str_radix(code, 16).ok()).and_then(char::from_u32);
        if let Some(c) = code {
            plain.push(c);
            rest = &behind[5..];
        } else if let Some(c) = next.and_then(decoded) {
            plain.push(c);
            rest = &behind[1..];
        } else {
            plain.push('\\');
            rest = behind;
        }
    }
    plain.push_str(rest);
    (plain != text).then_some(plain)
}

/// The text without a diff or quotation column in front of every line. A diff header, `@@ -4,2 +4,3 @@`, is a gap.
fn unmarked(text: &str) -> Option<String> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let mut is_marked = false;
    let mut plain = String::new();
    for line in lines {
        if line.starts_with("@@ ") {
            plain.push_str("...\n");
            continue;
        }
        is_marked |= line.starts_with(['+', '-', '>']);
        plain.push_str(line.strip_prefix(['+', '-', '>', ' '])?);
        plain.push('\n');
    }
    is_marked.then_some(plain)
}

/// The pieces of a text whose lines begin with their number, and perhaps the file name, as tools print them. A piece
/// ends where a number is skipped.
fn numbered(text: &str, file: &str) -> Option<Vec<Piece>> {
    let mut runs: Vec<(String, LineRange)> = Vec::new();
    let mut next = None;
    let is_mark = |line: &&str| !["", "--", "...", "…"].contains(&line.trim());
    for line in text.lines().filter(is_mark) {
        let (number, text) = number_of(line, file)?;
        let is_blank = text.trim().is_empty();
        match runs.last_mut() {
            Some((run, lines)) if next == Some(number) => {
                run.push('\n');
                run.push_str(text);
                lines.1 = if is_blank { lines.1 } else { number };
            }
            _ if is_blank => {}
            _ => runs.push((text.to_owned(), (number, number))),
        }
        next = number.checked_add(1);
    }
    let pieces =
        runs.iter().map(|(text, lines)| Piece::new(text, Normalization::Plain, Some(*lines)));
    let pieces: Vec<Piece> = pieces.collect::<Option<_>>()?;
    (!pieces.is_empty()).then_some(pieces)
}

/// Splits a line into its number and its text.
fn number_of<'a>(line: &'a str, file: &str) -> Option<(u32, &'a str)> {
    let mut ends = file_names(line);
    let name = ends.find(|(name, _)| names(name, file));
    let line = name.map_or(line, |(name, _)| &line[name.len() + 1..]).trim_start();
    let line = line.strip_prefix('L').unwrap_or(line);
    let digits = line.find(|c: char| !c.is_ascii_digit())?;
    let rest = &line[digits..];
    let text = rest
        .strip_prefix(['\t', ':', '-', '|', '│', '→'])
        .or_else(|| rest.trim_start().strip_prefix(['|', '│', '→']))?;
    Some((line[..digits].parse().ok()?, text))
}

/// Returns whether a name that a tool printed, perhaps relative to another folder, can name this file.
fn names(name: &str, file: &str) -> bool {
    let name = Path::new(name.trim_start_matches("./"));
    let is_end = Path::new(file).ends_with(name) && !name.as_os_str().is_empty();
    is_end || (name.is_absolute() && name.ends_with(file))
}

/// The text without the file name in front of every line, as a search without line numbers prints it.
fn unnamed(text: &str, file: &str) -> Option<String> {
    let rests = text.lines().filter(|line| !["", "--"].contains(&line.trim())).map(|line| {
        let mut ends = line.match_indices(':').map(|(at, _)| line.split_at(at));
        ends.find(|(name, _)| names(name.trim_start(), file)).map(|(_, rest)| &rest[1..])
    });
    // The lines need not be adjacent.
    let rests: Vec<&str> = rests.collect::<Option<_>>()?;
    Some(rests.join("\n...\n")).filter(|_| !rests.is_empty())
}

/// `...` on its own line, in a comment, perhaps with text behind it, or between two parts of a line.
static ELISION: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let dots = r"(?:\.{3,}|…+)";
    let line = format!(r"(?:^[ \t]*(?:--|;+)|(?:^|[ \t])(?://+|#+))[ \t]*{dots}.*$");
    let block = format!(r"(?:/\*+[ \t]*{dots}.*?(?:\*/|$)|<!--[ \t]*{dots}.*?(?:-->|$))");
    let alone = format!(r"^[ \t]*(?:[(<]{dots}[)>]|⋮)[ \t]*$");
    Regex::new(&format!(r"(?m){line}|{block}|{alone}|\[{dots}\]|{dots}")).ok()
});

/// The pieces of a text with gaps.
fn elided(text: &str) -> Option<Vec<Piece>> {
    let elision = ELISION.as_ref().filter(|elision| elision.is_match(text))?;
    let pieces =
        elision.split(text).filter_map(|piece| Piece::new(piece, Normalization::Plain, None));
    let pieces: Vec<Piece> = pieces.collect();
    (!pieces.is_empty()).then_some(pieces)
}
