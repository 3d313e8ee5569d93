//! The search for all quotes from one file, in one pass over its text.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::quote::{Piece, QuoteReading};
use super::text::{self, Folded, Normalization, line_count, number};
use crate::kimi::evidence::shown::{LineRange, Ranges};

/// The least weight of a piece that can be found; a closing brace is everywhere.
const MIN_WEIGHT: usize = 4;
/// The least weight of a part of a line that proves a place when it occurs once.
const SOLE_WEIGHT: usize = 12;
/// The most bytes of quotes in one pass, since the search takes many times as much memory.
const PASS_BYTES: usize = 256 * 1024;
/// The matches between two checks of `stop`.
const STRIDE: usize = 4096;

/// A quote to search for.
#[derive(Debug)]
pub(super) struct QuoteQuery {
    pub(super) readings: Vec<QuoteReading>,
    pub(super) cited: Option<LineRange>,
}

/// The place of a quote, the worst result first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QuoteMatch {
    Nowhere,
    /// The quote is at these lines, which were not shown to Kimi.
    Unshown(LineRange),
    Moved(LineRange),
    AsCited,
}

impl QuoteMatch {
    fn rank(self) -> u8 {
        match self {
            QuoteMatch::Nowhere => 0,
            QuoteMatch::Unshown(_) => 1,
            QuoteMatch::Moved(_) => 2,
            QuoteMatch::AsCited => 3,
        }
    }

    /// Returns the better of two; the first if they are equal.
    fn or(self, other: QuoteMatch) -> QuoteMatch {
        if other.rank() > self.rank() { other } else { self }
    }
}

/// Finds each quote in the bytes of a file of which `shown` lines were shown. `None` once `stop` returns true.
pub(super) fn search(
    bytes: &[u8],
    wanted: &[QuoteQuery],
    shown: &Ranges,
    stop: &dyn Fn() -> bool,
) -> Option<Vec<QuoteMatch>> {
    let mut found = vec![QuoteMatch::Nowhere; wanted.len()];
    for encoding in text::encodings(bytes) {
        let (text, _) = encoding.decode_without_bom_handling(bytes);
        for form in [Normalization::Plain, Normalization::Decoded] {
            // A literal match at the cited lines needs no other reading.
            let enough = match form {
                Normalization::Plain => QuoteMatch::AsCited,
                Normalization::Decoded if !text.contains('\\') => continue,
                Normalization::Decoded => QuoteMatch::Moved((0, 0)),
            };
            let of_form = |reading: &&QuoteReading| reading.form == form;
            let tasks = wanted.iter().enumerate();
            let tasks = tasks.filter(|(at, _)| found[*at].rank() < enough.rank());
            let mut tasks: Vec<(usize, Task<'_>)> = tasks
                .flat_map(|(at, quote)| {
                    let readings = quote.readings.iter().filter(of_form);
                    readings.map(move |reading| (at, Task::new(&reading.pieces, quote.cited)))
                })
                .collect();
            if tasks.is_empty() {
                continue;
            }
            let text = Folded::new(&text, form);
            for tasks in batches(&mut tasks) {
                pass(&text, tasks, shown, stop)?;
                for (at, task) in tasks {
                    found[*at] = found[*at].or(task.found(&text));
                }
            }
        }
    }
    Some(found)
}

/// Splits the tasks into batches, each for one pass.
fn batches<'a, 'p>(mut tasks: &'a mut [(usize, Task<'p>)]) -> Vec<&'a mut [(usize, Task<'p>)]> {
    let mut batches = Vec::new();
    while !tasks.is_empty() {
        let mut bytes = 0;
        let fits = tasks.iter().take_while(|(_, task)| {
            bytes += task.pieces.iter().map(|piece| piece.text.len()).sum::<usize>();
            bytes <= PASS_BYTES
        });
        let count = fits.count().max(1);
        let (batch, rest) = tasks.split_at_mut(count);
        batches.push(batch);
        tasks = rest;
    }
    batches
}

/// A piece that was found.
#[derive(Debug, Clone, Copy)]
struct Match {
    start: usize,
    end: usize,
    lines: LineRange,
    is_whole: bool,
    is_shown: bool,
}

/// Searches the text once, and adds the matches to each task. `None` once `stop` returns true.
fn pass(
    text: &Folded,
    tasks: &mut [(usize, Task<'_>)],
    shown: &Ranges,
    stop: &dyn Fn() -> bool,
) -> Option<()> {
    if stop() {
        return None;
    }
    let mut patterns: HashMap<&str, usize> = HashMap::new();
    let mut users: Vec<Vec<(usize, usize)>> = Vec::new();
    for (at, (_, task)) in tasks.iter().enumerate() {
        for (nth, piece) in task.pieces.iter().enumerate() {
            let pattern = *patterns.entry(piece.text.as_str()).or_insert(users.len());
            if pattern == users.len() {
                users.push(Vec::new());
            }
            users[pattern].push((at, nth));
        }
    }
    let mut texts = vec![""; users.len()];
    for (text, at) in patterns {
        texts[at] = text;
    }
    let kind = Some(AhoCorasickKind::NoncontiguousNFA);
    let Ok(finder) = AhoCorasick::builder().kind(kind).build(texts) else { return Some(()) };
    for (count, found) in finder.find_overlapping_iter(&text.text).enumerate() {
        if count % STRIDE == STRIDE - 1 && stop() {
            return None;
        }
        let (start, end) = (found.start(), found.end());
        if !text.is_bounded(start, end) {
            continue;
        }
        let lines = (text.line(start), text.line(end - 1));
        let is_whole = text.is_whole(start, end);
        let found_here = Match { start, end, lines, is_whole, is_shown: shown.holds(lines) };
        for &(at, nth) in &users[found.pattern().as_usize()] {
            tasks[at].1.take(nth, found_here, text.line_count());
        }
    }
    Some(())
}

/// A reading of a quote, and its matches so far.
struct Task<'p> {
    pieces: &'p [Piece],
    cited: Option<LineRange>,
    /// The chains of pieces in the cited lines: in the shown lines, and in any.
    shown: Chain,
    any: Chain,
    /// The places of each piece, anywhere.
    places: Vec<QuotePlaces>,
}

/// A chain of pieces that follow each other.
#[derive(Debug, Default)]
struct Chain {
    next: usize,
    /// The end of the last piece, bytes.
    end: usize,
    lines: Option<LineRange>,
}

/// The places of one piece.
#[derive(Debug, Default)]
struct QuotePlaces {
    count: usize,
    first: Option<Match>,
    /// The nearest place that fills its lines; shown ones first.
    nearest: Option<(bool, u32, LineRange)>,
}

impl<'p> Task<'p> {
    fn new(pieces: &'p [Piece], cited: Option<LineRange>) -> Task<'p> {
        let places = pieces.iter().map(|_| QuotePlaces::default()).collect();
        Task { pieces, cited, shown: Chain::default(), any: Chain::default(), places }
    }

    fn take(&mut self, nth: usize, found: Match, of_lines: u32) {
        let place = &mut self.places[nth];
        place.count += 1;
        place.first = place.first.or(Some(found));
        if found.is_whole {
            let far = distance(self.cited.unwrap_or_default(), found.lines);
            let nearer = (!found.is_shown, far, found.lines);
            let is_nearer = |best: (bool, u32, LineRange)| (nearer.0, nearer.1) < (best.0, best.1);
            if place.nearest.is_none_or(is_nearer) {
                place.nearest = Some(nearer);
            }
        }
        let is_here = match (self.pieces[nth].numbered, self.cited) {
            (Some(numbered), _) => numbered == found.lines,
            (None, Some(cited)) if self.pieces.len() == 1 => {
                self.may_hold(cited, found.lines, of_lines)
            }
            (None, Some(cited)) => cited.0 <= found.lines.0 && found.lines.1 <= cited.1,
            (None, None) => false,
        };
        if is_here {
            self.any.take(nth, found, self.pieces.len());
            if found.is_shown {
                self.shown.take(nth, found, self.pieces.len());
            }
        }
    }

    /// Returns whether the cited lines are close enough to those of the quote: they contain them, and are no more than
    /// the quote has characters; for a short quote, no more than it fills.
    fn may_hold(&self, cited: LineRange, place: LineRange, of_lines: u32) -> bool {
        let is_inside = 1 <= cited.0 && cited.0 <= place.0 && place.1 <= cited.1;
        let most = if self.is_short() { 0 } else { number(self.chars()) };
        is_inside && cited.1 <= of_lines && line_count(cited) <= most.max(line_count(place))
    }

    fn chars(&self) -> usize {
        self.pieces.iter().map(|piece| piece.text.chars().count()).sum()
    }

    fn is_short(&self) -> bool {
        self.pieces.iter().map(Piece::weight).sum::<usize>() < MIN_WEIGHT
    }

    fn found(&self, text: &Folded) -> QuoteMatch {
        if self.pieces.len() > 1 && self.is_short() {
            return QuoteMatch::Nowhere;
        }
        let chained = |chain: &Chain| chain.lines.filter(|_| chain.next == self.pieces.len());
        let as_cited =
            |lines| self.cited.is_some_and(|cited| self.may_hold(cited, lines, text.line_count()));
        let (shown, any) = (chained(&self.shown), chained(&self.any));
        if shown.is_some_and(as_cited) {
            return QuoteMatch::AsCited;
        }
        // The numbers in a quote determine its place.
        let is_numbered = self.pieces.iter().any(|piece| piece.numbered.is_some());
        let other_place = match (is_numbered, shown, any) {
            (true, Some(lines), _) => Some((lines, true)),
            (true, None, any) => any.map(|lines| (lines, false)),
            (false, ..) => self.other_place(),
        };
        match (other_place, any.filter(|&lines| as_cited(lines)).and(self.cited)) {
            (Some((lines, true)), _) => QuoteMatch::Moved(lines),
            (_, Some(cited)) => QuoteMatch::Unshown(cited),
            (Some((lines, false)), None) => QuoteMatch::Unshown(lines),
            (None, None) => QuoteMatch::Nowhere,
        }
    }

    /// The lines of the quote if its place is unambiguous, and whether they were shown.
    fn other_place(&self) -> Option<(LineRange, bool)> {
        let says_something = |piece: &Piece| piece.weight() >= MIN_WEIGHT;
        if let ([piece], [places]) = (self.pieces, self.places.as_slice()) {
            let nearest = places.nearest.filter(|_| says_something(piece) && !piece.is_one_word());
            if let Some((unshown, _, lines)) = nearest {
                return Some((lines, !unshown));
            }
        }
        let mut all: Option<Match> = None;
        for (piece, places) in self.pieces.iter().zip(&self.places) {
            if !says_something(piece) {
                continue;
            }
            let one = places.first.filter(|_| places.count == 1)?;
            let before = all.unwrap_or(one);
            let proves = one.is_whole || piece.weight() >= SOLE_WEIGHT;
            let follows = all.is_none_or(|before| before.end <= one.start);
            let lines = (before.lines.0, one.lines.1);
            let is_shown = before.is_shown && one.is_shown;
            all = Some(Match { lines, is_shown, ..one }).filter(|_| proves && follows);
            all?;
        }
        all.map(|all| (all.lines, all.is_shown))
    }
}

impl Chain {
    fn take(&mut self, nth: usize, found: Match, pieces: usize) {
        let is_next = nth == self.next;
        // For a last piece such as a closing brace, the last match counts.
        let is_last_again = pieces > 1 && self.next == pieces && nth + 1 == pieces;
        if (is_next || is_last_again) && found.start >= self.end {
            let start = self.lines.map_or(found.lines.0, |lines| lines.0);
            self.lines = Some((start, found.lines.1));
            self.end = found.end;
            self.next = nth + 1;
        }
    }
}

/// The lines between two ranges; 0 when they touch or overlap.
fn distance(cited: LineRange, place: LineRange) -> u32 {
    place.0.saturating_sub(cited.1).max(cited.0.saturating_sub(place.1))
}
