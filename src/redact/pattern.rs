//! Secrets that are known by their form.
//!
//! One pass over a text finds the words without which no pattern can match, and only the patterns
//! whose word is there are tried: most texts hold none.

use std::borrow::Cow;
use std::sync::{LazyLock, OnceLock};

use aho_corasick::AhoCorasick;
use regex::{Captures, Regex};
use serde::Deserialize;

use super::look;
use super::needed::{best_words, longest_row, row};
use super::pieces::{Span, is_kind};
use super::placeholder::{is_dummy, is_placeholder};
use super::sheet::SHEET;

/// Bytes in a row that keys are made of; ordinary words seldom have so many.
const ROW: usize = 24;

/// One pattern of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    /// What it becomes: `[redacted:kind]`.
    pub(super) kind: String,
    pattern: String,
    only: Option<Only>,
}

/// Which matches count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Only {
    /// Every one.
    Any,
    /// One that is no placeholder.
    Meant,
    /// One that is no word either.
    NoWord,
    /// One that looks random, and is not part of something longer.
    Random,
}

/// A pattern that can be searched for.
#[derive(Debug)]
pub(super) struct Pattern {
    kind: Cow<'static, str>,
    text: String,
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
        Ok(Pattern { regex: OnceLock::from(Some(regex)), ..Pattern::built_in(form, only) })
    }

    /// One whose making cannot fail, since a test has made it.
    fn built_in(form: &Form, only: Only) -> Pattern {
        Pattern {
            kind: Cow::Owned(form.kind.clone()),
            text: form.pattern.clone(),
            regex: OnceLock::new(),
            only: form.only.unwrap_or(only),
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

/// What a word of a text points to.
#[derive(Debug, Clone, Copy)]
enum Hint {
    /// The pattern of this number may match.
    Pattern(usize),
    /// A name that says secret may end here.
    Name,
}

/// The built-in patterns, and the words to look for before one is tried.
pub(super) struct Patterns {
    list: Vec<Pattern>,
    /// Those that have no such word, but match nothing without a long row of what keys are made of.
    in_rows: Vec<usize>,
    /// Those that have neither.
    always: Vec<usize>,
    words: AhoCorasick,
    hints: Vec<Hint>,
}

#[expect(clippy::expect_used, reason = "the file is compiled in, and a test makes them")]
static BUILT_IN: LazyLock<Patterns> = LazyLock::new(|| {
    Patterns::new().expect("config/secrets.yaml holds words that can be looked for")
});

impl Patterns {
    /// Made at the first use.
    pub(super) fn built_in() -> &'static Patterns {
        &BUILT_IN
    }

    fn new() -> Result<Patterns, String> {
        let mut list = Vec::new();
        let (mut in_rows, mut always) = (Vec::new(), Vec::new());
        let mut words: Vec<String> = Vec::new();
        let mut hints = Vec::new();
        for (at, form) in SHEET.values.iter().enumerate() {
            // What a word boundary is, is a matter of ASCII here: that keeps the searches fast.
            let pattern = form.pattern.replace(r"\b", r"(?-u:\b)");
            let form = Form { kind: form.kind.clone(), pattern, only: form.only };
            let needed = best_words(&form.pattern);
            if needed.is_empty() {
                let row = row(&form.pattern).is_some_and(|row| row >= ROW);
                if row { &mut in_rows } else { &mut always }.push(at);
            }
            hints.extend(needed.iter().map(|_| Hint::Pattern(at)));
            words.extend(needed);
            list.push(Pattern::built_in(&form, Only::Meant));
        }
        let mut names: Vec<&str> =
            SHEET.assignments.iter().flat_map(|list| list.names.last_words()).collect();
        names.sort_unstable();
        names.dedup();
        hints.extend(names.iter().map(|_| Hint::Name));
        words.extend(names.into_iter().map(str::to_owned));
        let words = AhoCorasick::builder().ascii_case_insensitive(true).build(words);
        let words = words.map_err(|error| error.to_string())?;
        Ok(Patterns { list, in_rows, always, words, hints })
    }

    /// The patterns that may match in a text, and where names that say secret may end.
    pub(super) fn hints(&self, text: &str) -> (Vec<&Pattern>, Vec<usize>) {
        let mut applicable = vec![false; self.list.len()];
        let in_rows = if longest_row(text) < ROW { &[] } else { &*self.in_rows };
        for &at in self.always.iter().chain(in_rows) {
            applicable[at] = true;
        }
        let mut names = Vec::new();
        for found in self.words.find_overlapping_iter(text) {
            match self.hints[found.pattern().as_usize()] {
                Hint::Pattern(at) => applicable[at] = true,
                Hint::Name => names.push(found.end()),
            }
        }
        let chosen = self.list.iter().zip(applicable).filter(|(_, applicable)| *applicable);
        (chosen.map(|(pattern, _)| pattern).collect(), names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_pattern_compiles() {
        let Patterns { list, always, .. } = Patterns::built_in();
        let always: Vec<_> = always.iter().map(|&at| &list[at].text).collect();
        assert!(list.len() > 90 && always.is_empty(), "{always:?}");
        for Pattern { kind, text, .. } in list {
            let regex = Regex::new(text);
            assert!(is_kind(kind) && regex.is_ok_and(|regex| !regex.is_match("")), "{kind}");
        }
    }
}
