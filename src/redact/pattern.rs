//! Secrets that are known by their form.
//!
//! One pass over a text finds the words without which no pattern can match, and only the patterns
//! whose word is there are tried: most texts hold none. Which words those are is worked out when the program
//! is built, by `build/tables.rs`.

use std::borrow::Cow;
use std::sync::{LazyLock, OnceLock};

use aho_corasick::AhoCorasick;
use regex::{Captures, Regex};

use super::form::{Form, Only, ROW};
use super::look;
use super::needed::{finder, longest_row};
use super::pieces::{Span, is_kind};
use super::placeholder::{is_dummy, is_placeholder};
use super::sheet::SHEET;

/// A pattern that can be searched for.
#[derive(Debug)]
pub(super) struct Pattern {
    kind: Cow<'static, str>,
    text: Cow<'static, str>,
    /// Compiled at the first search: most of the built-in ones are never needed, and all together they
    /// take longer, and more memory, than the rest of a consultation.
    regex: OnceLock<Option<Regex>>,
    only: Only,
}

impl Pattern {
    /// Compiles it, or says what is wrong with it; `only` is for one that does not say it.
    pub(super) fn new(form: &Form, only: Only) -> Result<Pattern, String> {
        if !is_kind(&form.kind) {
            return Err("a kind is made of lower-case letters, digits and hyphens".to_owned());
        }
        let regex = Regex::new(&form.pattern).map_err(|error| error.to_string())?;
        if regex.is_match("") {
            return Err("the pattern matches the empty text".to_owned());
        }
        Ok(Pattern {
            kind: Cow::Owned(form.kind.clone()),
            text: Cow::Owned(form.pattern.clone()),
            regex: OnceLock::from(Some(regex)),
            only: form.only.unwrap_or(only),
        })
    }

    /// One whose making cannot fail, since a test has made it.
    const fn built_in(kind: &'static str, text: &'static str, only: Only) -> Pattern {
        Pattern {
            kind: Cow::Borrowed(kind),
            text: Cow::Borrowed(text),
            regex: OnceLock::new(),
            only,
        }
    }

    /// Adds where it matches.
    pub(super) fn find(&self, text: &str, spans: &mut Vec<Span>) {
        let compiled = self.regex.get_or_init(|| Regex::new(&self.text).ok());
        let Some(regex) = compiled else { return };
        if is_grouped(regex) {
            let secret = |found: Captures<'_>| Some(found.name(SECRET)?.range());
            let found = regex.captures_iter(text).filter_map(secret);
            let found = found.filter(|range| self.counts(&text[range.clone()], is_placeholder));
            spans.extend(found.map(|range| Span::new(range, self.kind.clone())));
        } else {
            let found = regex.find_iter(text).filter(|found| {
                let alone =
                    self.only != Only::Random || !look::ends_in_a_blob(&text[..found.start()]);
                alone && self.counts(found.as_str(), is_dummy)
            });
            spans.extend(found.map(|found| Span::new(found.range(), self.kind.clone())));
        }
    }

    /// Whether a match is a secret; a group holds what anybody may write there, a whole match has a form
    /// of its own, so that other things stand in for them.
    fn counts(&self, secret: &str, stands_in: fn(&str) -> bool) -> bool {
        match self.only {
            Only::Any => true,
            Only::Meant => !stands_in(secret),
            Only::NoWord => !stands_in(secret) && !look::is_word(secret),
            Only::Random => !stands_in(secret) && look::is_random(secret),
        }
    }
}

/// The name of the group that alone is the secret, in a pattern that has it.
const SECRET: &str = "secret";

fn is_grouped(regex: &Regex) -> bool {
    regex.capture_names().flatten().any(|name| name == SECRET)
}

// Made of `config/secrets.yaml`: `LIST`, the patterns; `IN_ROWS`, the numbers of those that need no word, but
// match nothing without a long row of what keys are made of; `WORDS`, one a line, and `HINTS`, for each of
// them the number of a pattern that may match where it stands.
include!(concat!(env!("OUT_DIR"), "/secrets.rs"));

#[expect(clippy::expect_used, reason = "the words are compiled in, and a test looks for them")]
static WORDS_AND_NAMES: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let lists = SHEET.assignments.iter();
    let mut names: Vec<&str> = lists.flat_map(|list| list.names.last_words()).collect();
    names.sort_unstable();
    names.dedup();
    finder(WORDS.lines().chain(names)).expect("these words can be looked for")
});

/// The patterns that may match in a text, and where names that say secret may end.
pub(super) fn hints(text: &str) -> (Vec<&'static Pattern>, Vec<usize>) {
    let mut applicable = [false; LIST.len()];
    if longest_row(text) >= ROW {
        for at in IN_ROWS {
            applicable[usize::from(at)] = true;
        }
    }
    // A word of no pattern is the end of a name.
    let mut names = Vec::new();
    for found in WORDS_AND_NAMES.find_overlapping_iter(text) {
        match HINTS.get(found.pattern().as_usize()) {
            Some(&at) => applicable[usize::from(at)] = true,
            None => names.push(found.end()),
        }
    }
    let chosen = LIST.iter().zip(applicable).filter(|(_, applicable)| *applicable);
    (chosen.map(|(pattern, _)| pattern).collect(), names)
}

#[cfg(test)]
mod tests {
    use super::super::words::{best_words, row};
    use super::*;

    #[test]
    fn every_built_in_pattern_compiles() {
        assert!(LIST.len() > 90);
        for Pattern { kind, text, .. } in &LIST {
            let regex = Regex::new(text);
            assert!(is_kind(kind) && regex.is_ok_and(|regex| !regex.is_match("")), "{kind}");
        }
    }

    #[test]
    fn every_built_in_pattern_waits_for_a_word_or_a_row() {
        assert_eq!(WORDS.lines().count(), HINTS.len());
        for (at, Pattern { kind, text, .. }) in (0..).zip(&LIST) {
            let hinted = WORDS.lines().zip(HINTS).filter(|(_, hint)| *hint == at);
            let words: Vec<&str> = hinted.map(|(word, _)| word).collect();
            assert_eq!(words, best_words(text).unwrap(), "{kind}");
            let in_row = words.is_empty() && row(text).unwrap().is_some_and(|row| row >= ROW);
            assert_eq!(in_row, IN_ROWS.contains(&at), "{kind}");
            assert!(in_row || !words.is_empty(), "{kind}");
        }
    }
}
