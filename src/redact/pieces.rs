//! The pieces of a text between the markers that replace secrets, so that redacting twice is redacting once.
//!
//! Each piece is searched by itself, and so are the pieces that are left around a secret, until nothing more is found.
//! A second redaction searches the same pieces.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// The most searches of one piece. Ordinary text takes two; a piece that takes more is replaced as a whole, so that the
/// time stays linear.
const SEARCHES: usize = 8;

pub(super) const OPENS: &str = "[redacted:";

/// The place and kind of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SecretSpan<'a> {
    range: Range<usize>,
    kind: &'a str,
}

impl<'a> SecretSpan<'a> {
    pub(super) fn new(range: Range<usize>, kind: &'a str) -> SecretSpan<'a> {
        SecretSpan { range, kind }
    }
}

/// Sorts spans and merges those that overlap; the first that was found gives its kind.
pub(super) fn apart(spans: Vec<SecretSpan<'_>>) -> Vec<SecretSpan<'_>> {
    let mut ranked: Vec<(usize, SecretSpan)> =
        spans.into_iter().filter(|span| !span.range.is_empty()).enumerate().collect();
    ranked.sort_unstable_by_key(|(rank, span)| (span.range.start, *rank));
    ranked.dedup_by(|(rank, span), (first, last)| {
        let overlaps = span.range.start < last.range.end;
        if overlaps {
            last.range.end = last.range.end.max(span.range.end);
            if *rank < *first {
                (*first, last.kind) = (*rank, span.kind);
            }
        }
        overlaps
    });
    ranked.into_iter().map(|(_, span)| span).collect()
}

/// The form of a marker.
#[expect(clippy::expect_used, reason = "every search uses it")]
static MARKER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\[redacted:[a-z0-9-]+\]").expect("the pattern compiles"));

/// The marker of a secret of this kind.
pub(super) fn marker(kind: &str) -> String {
    format!("{OPENS}{kind}]")
}

/// Returns whether a text holds a marker.
pub(super) fn is_marked(text: &str) -> bool {
    MARKER.is_match(text)
}

/// Returns whether a text can be the kind in a marker; a marker with any other text is not recognized.
pub(super) fn is_kind(kind: &str) -> bool {
    let marker = marker(kind);
    MARKER.find(&marker).is_some_and(|found| found.len() == marker.len())
}

/// The end of the last marker of a text, or 0.
pub(super) fn behind_markers(text: &str) -> usize {
    MARKER.find_iter(text).last().map_or(0, |marker| marker.end())
}

/// The place to cut a text at: `end`, or the start of the marker around it.
pub(super) fn outside_of_markers(text: &str, end: usize) -> usize {
    let start = text[..end].rfind('[').unwrap_or(end);
    let marker = MARKER.find(&text[start..]).filter(|marker| marker.start() == 0);
    marker.filter(|marker| start + marker.end() > end).map_or(end, |_| start)
}

/// Replaces the secrets that `search` finds, and returns the new text and the number of replacements.
pub(super) fn replace<'a>(
    text: &str,
    search: impl Fn(&str) -> Vec<SecretSpan<'a>>,
) -> (String, usize) {
    let mut writer = RedactingWriter { search, text: String::new(), count: 0 };
    let mut from = 0;
    for marker in MARKER.find_iter(text) {
        writer.piece(&text[from..marker.start()], SEARCHES);
        writer.text.push_str(marker.as_str());
        from = marker.end();
    }
    writer.piece(&text[from..], SEARCHES);
    (writer.text, writer.count)
}

struct RedactingWriter<S> {
    search: S,
    text: String,
    count: usize,
}

impl<'a, S: Fn(&str) -> Vec<SecretSpan<'a>>> RedactingWriter<S> {
    fn piece(&mut self, text: &str, searches: usize) {
        let spans = if text.is_empty() { Vec::new() } else { (self.search)(text) };
        let Some(first) = spans.first() else { return self.text.push_str(text) };
        if searches == 0 {
            return self.mark(first.kind);
        }
        let mut from = 0;
        for span in &spans {
            self.piece(&text[from..span.range.start], searches - 1);
            self.mark(span.kind);
            from = span.range.end;
        }
        self.piece(&text[from..], searches - 1);
    }

    fn mark(&mut self, kind: &str) {
        self.text.push_str(&marker(kind));
        self.count += 1;
    }
}

/// The last character boundary at or before `at`.
pub(super) fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_over_the_same_text_become_one_and_the_first_found_names_it() {
        let check = |spans: &[SecretSpan], expected: &[SecretSpan]| {
            assert_eq!(apart(spans.to_vec()), expected);
        };
        check(
            &[SecretSpan::new(5..9, "b"), SecretSpan::new(0..5, "a")],
            &[SecretSpan::new(0..5, "a"), SecretSpan::new(5..9, "b")],
        );
        check(
            &[SecretSpan::new(4..9, "first"), SecretSpan::new(0..5, "second")],
            &[SecretSpan::new(0..9, "first")],
        );
        check(
            &[SecretSpan::new(0..9, "first"), SecretSpan::new(4..5, "second")],
            &[SecretSpan::new(0..9, "first")],
        );
        check(&[SecretSpan::new(3..3, "nothing")], &[]);
    }

    #[test]
    fn a_text_is_cut_beside_a_marker() {
        let check = |text: &str, end, expected: &str| {
            assert_eq!(&text[..outside_of_markers(text, end)], expected, "{text} {end}");
        };
        check("ab[redacted:x]cd", 8, "ab");
        check("ab[redacted:x]cd", 14, "ab[redacted:x]");
        check("ab[redacted:x]cd", 15, "ab[redacted:x]c");
        check("ab[redacted:X]cd", 8, "ab[redac");
        check("ab[c", 3, "ab[");
        check("abc", 2, "ab");
    }

    #[test]
    fn a_second_search_finds_secrets_that_the_first_reveals() {
        // A `b` is found only at the end of a piece, before a marker.
        let search = |text: &str| match (text.find('a'), text.ends_with('b')) {
            (Some(at), _) => vec![SecretSpan::new(at..at + 1, "a")],
            (None, true) => vec![SecretSpan::new(text.len() - 1..text.len(), "b")],
            (None, false) => vec![],
        };
        let check = |text: &str, expected: (&str, usize)| {
            assert_eq!(replace(text, search), (expected.0.to_owned(), expected.1), "{text}");
        };
        check("xbay", ("x[redacted:b][redacted:a]y", 2));
        check("b[redacted:a]y", ("[redacted:b][redacted:a]y", 1));
        check("[redacted:a]", ("[redacted:a]", 0));
        check("xbbbbbbbbbbbbbbbb", (&("[redacted:b]".repeat(9)), 9));
    }
}
