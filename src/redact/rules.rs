//! Secrets that are known by their form: the rules of `config/secrets.yaml`, and the user's.

use std::sync::{LazyLock, OnceLock};

use regex::{Regex, RegexSet};
use serde::Deserialize;

use super::look;
use super::pieces::{SecretSpan, is_kind};
use super::placeholder::{is_dummy, is_placeholder};
use super::prefilter::prefilter;
use super::sheet::SHEET;

/// The name of the group that alone is the secret, in a pattern that has it.
const SECRET: &str = "secret";
/// The name of the group around a built-in pattern, without what stands around the secret.
const FORM: &str = "form";
/// A place where a secret begins: a boundary, or behind an underscore, a digit or an escape, the last letter of which
/// is no part of the word that follows: `\n`, `\x3d`, `\u003d`, `%3D`, `%253D`, `=3D`, `\x1b[31m`.
const BEFORE: &str = concat!(
    r"(?:\b|(?-u:[_0-9]|\\+(?:[abefnrtv]|x[0-9A-Fa-f]{2}|u\{?[0-9A-Fa-f]{2,6}\}?)",
    r"|[%=](?:25)*[0-9A-Fa-f]{2}|\[[0-9;]{1,12}m))"
);
/// A place where a secret ends.
const AFTER: &str = r"(?:\b|_)";

/// The form of one kind of secret, as a file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// The part of the marker that replaces it: `[redacted:kind]`.
    kind: String,
    pattern: String,
    /// Words of which one stands in every match. A user's rule needs none: it is tried on every text.
    #[serde(default)]
    words: Vec<String>,
    only: Option<Only>,
    /// The pattern, compiled at the first search.
    #[serde(skip)]
    regex: OnceLock<Regex>,
}

/// The matches that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Only {
    /// Every one.
    Any,
    /// One that is no placeholder.
    Meant,
    /// One that is no word either.
    NoWord,
    /// One that looks random, and is not part of something longer.
    Random,
}

impl Rule {
    /// A rule of the user's file, which counts every match unless it says otherwise.
    ///
    /// # Errors
    /// The reason why it cannot be used.
    pub(super) fn of_user(value: serde_yaml::Value) -> Result<Rule, String> {
        let rule: Rule = serde_yaml::from_value(value).map_err(|error| error.to_string())?;
        let Rule { kind, pattern, .. } = &rule;
        if !is_kind(kind) {
            return Err(format!(
                "{kind}: a kind is made of lower-case letters, digits and hyphens"
            ));
        }
        let regex = Regex::new(pattern).map_err(|error| format!("{kind}: {error}"))?;
        if regex.is_match("") {
            return Err(format!("{kind}: the pattern matches the empty text"));
        }
        Ok(Rule { only: rule.only.or(Some(Only::Any)), regex: regex.into(), ..rule })
    }

    /// The compiled pattern; a user's is compiled as it is written, when its file is read.
    #[expect(clippy::expect_used, reason = "a test compiles each built-in pattern")]
    fn regex(&self) -> &Regex {
        self.regex
            .get_or_init(|| Regex::new(&with_ends(&self.pattern)).expect("the pattern compiles"))
    }

    /// Adds the places of the secrets of this form.
    pub(super) fn find<'a>(&'a self, text: &str, spans: &mut Vec<SecretSpan<'a>>) {
        let regex = self.regex();
        let has_group = regex.capture_names().flatten().any(|name| name == SECRET);
        // A whole match has a form of its own, which ordinary values and placeholders do not have.
        let is_none = if has_group { is_placeholder } else { is_dummy };
        for found in regex.captures_iter(text) {
            let group = if has_group { SECRET } else { FORM };
            let whole = found.get(0).filter(|_| !has_group);
            let Some(secret) = found.name(group).or(whole) else { continue };
            let is_part = || !has_group && look::ends_in_a_blob(&text[..secret.start()]);
            let counts = match self.only.unwrap_or(Only::Meant) {
                Only::Any => true,
                Only::Meant => !is_none(secret.as_str()),
                Only::NoWord => !is_none(secret.as_str()) && !look::is_word(secret.as_str()),
                Only::Random => {
                    !is_none(secret.as_str()) && look::is_random(secret.as_str()) && !is_part()
                }
            };
            if counts {
                spans.push(SecretSpan::new(secret.range(), &self.kind));
            }
        }
    }
}

/// A built-in pattern that finds a secret in the middle of an escaped text too, where it begins or ends with a
/// boundary. A boundary is that of an ASCII word, so that a key is found beside a letter of another script.
fn with_ends(pattern: &str) -> String {
    let (flags, form) = pattern.strip_prefix("(?i)").map_or(("", pattern), |form| ("(?i)", form));
    let (before, form) = form.strip_prefix(r"\b").map_or(("", form), |form| (BEFORE, form));
    let (form, after) = form.strip_suffix(r"\b").map_or((form, ""), |form| (form, AFTER));
    format!("{flags}{before}(?P<{FORM}>{form}){after}").replace(r"\b", r"(?-u:\b)")
}

static WORDS: LazyLock<RegexSet> =
    LazyLock::new(|| prefilter(SHEET.values.iter().map(|rule| rule.words.as_slice())));

/// Adds the places of the secrets whose form is built in.
pub(super) fn find(text: &str, spans: &mut Vec<SecretSpan<'_>>) {
    for at in &WORDS.matches(text) {
        SHEET.values[at].find(text, spans);
    }
}

#[cfg(test)]
mod tests {
    use super::super::prefilter::tests::check_words;
    use super::*;

    #[test]
    fn every_built_in_rule_can_be_used_and_names_words_of_all_its_matches() {
        assert!(SHEET.values.len() > 90);
        for rule in &SHEET.values {
            assert!(is_kind(&rule.kind) && !rule.regex().is_match(""), "{}", rule.kind);
            check_words(&rule.pattern, &rule.words);
        }
    }
}
