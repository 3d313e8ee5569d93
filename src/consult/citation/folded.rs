//! A quote without its white space, and the search for it in text that arrives in pieces.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use crate::kimi::hidden::is_hidden;

/// What a quote must weigh to count as found anywhere but at just the lines that it fills: a closing
/// brace stands everywhere.
const MIN_WEIGHT: usize = 4;

/// Lines, from 1, both included.
pub(super) type Lines = (u32, u32);

/// Where a quote stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) lines: Lines,
    /// Whether the cited lines hold; then `lines` are those.
    pub(super) as_cited: bool,
}

/// A quote, without what does not count.
#[derive(Debug)]
pub(super) struct Folded {
    chars: Vec<char>,
    /// For each number of characters that match, how many still do when the next does not.
    fallback: Vec<usize>,
    /// Whether it says too little to be looked for elsewhere.
    short: bool,
}

impl Folded {
    /// Nothing when nothing of the quote counts.
    pub(super) fn of(quote: &str) -> Option<Folded> {
        let chars: Vec<char> = quote.chars().filter(|&c| counts(c)).collect();
        let mut fallback = vec![0; chars.len()];
        let mut matched = 0;
        for at in 1..chars.len() {
            while matched > 0 && chars[at] != chars[matched] {
                matched = fallback[matched - 1];
            }
            matched += usize::from(chars[at] == chars[matched]);
            fallback[at] = matched;
        }
        let short = chars.iter().map(|&c| weight(c)).sum::<usize>() < MIN_WEIGHT;
        (!chars.is_empty()).then_some(Folded { chars, fallback, short })
    }

    pub(super) fn is_ascii(&self) -> bool {
        self.chars.iter().all(char::is_ascii)
    }

    /// Whether lines that a quote was cited with are no wider than it can speak for: one line for
    /// each of its characters, and only the very lines that it fills when it is short.
    fn speaks_for(&self, cited: Lines, place: Lines) -> bool {
        let inside = cited.0 >= 1 && cited.0 <= place.0 && place.1 <= cited.1;
        let height = |(start, end): Lines| u64::from(end.abs_diff(start)) + 1;
        let most = if self.short { 0 } else { self.chars.len() as u64 };
        inside && height(cited) <= most.max(height(place))
    }
}

/// A search for one quote in one text.
#[derive(Debug)]
pub(super) struct Search<'a> {
    quote: &'a Folded,
    cited: Option<Lines>,
    matched: usize,
    /// Characters that counted so far.
    at: u64,
    line: u32,
    after_return: bool,
    /// Where the lines begin that the last characters stand on, as `at` and line.
    begins: VecDeque<(u64, u32)>,
    /// Whether the quote stands at the cited lines, as far as they have come.
    as_cited: bool,
    nearest: Option<Lines>,
}

impl<'a> Search<'a> {
    pub(super) fn new(quote: &'a Folded, cited: Option<Lines>) -> Search<'a> {
        let begins = VecDeque::new();
        let (matched, at, line, after_return) = (0, 0, 1, false);
        let (as_cited, nearest) = (false, None);
        Search { quote, cited, matched, at, line, after_return, begins, as_cited, nearest }
    }

    /// Takes the next piece of the text; breaks when no more of it can change what was found.
    pub(super) fn feed(&mut self, text: &str) -> ControlFlow<()> {
        for c in text.chars() {
            if c == '\n' || c == '\r' {
                if c == '\r' || !self.after_return {
                    self.line = self.line.saturating_add(1);
                }
                self.after_return = c == '\r';
                continue;
            }
            self.after_return = false;
            if counts(c) {
                self.take(c);
            }
        }
        if self.is_decided() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// What was found in the text up to here. Cited lines that the text does not have do not hold.
    pub(super) fn found(&self) -> Option<Place> {
        match self.cited {
            Some(lines) if self.as_cited && lines.1 <= self.line => {
                Some(Place { lines, as_cited: true })
            }
            _ => self.nearest.map(|lines| Place { lines, as_cited: false }),
        }
    }

    fn is_decided(&self) -> bool {
        match (self.cited, self.nearest) {
            (Some(cited), _) if self.as_cited => cited.1 <= self.line,
            (Some(cited), Some(nearest)) => {
                // What is being matched may have begun on an earlier line than this one.
                let next = self.begins.front().map_or(self.line, |&(_, line)| line);
                next > cited.1 && next - cited.1 > distance(cited, nearest)
            }
            (None, nearest) => nearest.is_some(),
            (Some(_), None) => false,
        }
    }

    fn take(&mut self, c: char) {
        if self.begins.back().is_none_or(|&(_, line)| line != self.line) {
            self.begins.push_back((self.at, self.line));
        }
        let Folded { chars, fallback, .. } = self.quote;
        while self.matched > 0 && c != chars[self.matched] {
            self.matched = fallback[self.matched - 1];
        }
        self.matched += usize::from(c == chars[self.matched]);
        self.at += 1;
        let first = self.at - self.matched as u64;
        while self.begins.get(1).is_some_and(|&(begin, _)| begin <= first) {
            self.begins.pop_front();
        }
        if self.matched == chars.len() {
            let start = self.begins.front().map_or(self.line, |&(_, line)| line);
            self.stands_at((start, self.line));
            self.matched = fallback[self.matched - 1];
        }
    }

    fn stands_at(&mut self, place: Lines) {
        let cited = self.cited.unwrap_or_default();
        self.as_cited |= self.quote.speaks_for(cited, place);
        let nearer = self.nearest.is_none_or(|old| distance(cited, place) < distance(cited, old));
        if !self.quote.short && nearer {
            self.nearest = Some(place);
        }
    }
}

/// Lines between the two; none when they touch or overlap.
fn distance(cited: Lines, place: Lines) -> u32 {
    place.0.saturating_sub(cited.1).max(cited.0.saturating_sub(place.1))
}

/// How much a character says: brackets say nothing, and one letter of CJK more than one of ASCII.
fn weight(c: char) -> usize {
    if c.is_alphanumeric() { 1 + usize::from(!c.is_ascii()) } else { 0 }
}

/// White space and what cannot be seen do not count: models drop and change both, and the bridge
/// itself strips from Kimi's text what cannot be seen. Canonically equal text is not made the same:
/// é as one character and as two are two quotes.
fn counts(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_graphic();
    }
    !c.is_whitespace() && !is_hidden(c)
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
