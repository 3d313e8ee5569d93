//! The form of one kind of secret, from `config/secrets.yaml` or from the user's file.

use std::sync::OnceLock;

use regex::Regex;
use serde::Deserialize;

use super::pieces::is_kind;

/// The name of the group that holds the secret, in a pattern whose match is longer.
pub(super) const SECRET: &str = "secret";
/// The name of the group around a built-in pattern, without the boundaries.
pub(super) const FORM: &str = "form";
/// The place before a secret: a word boundary, an underscore, a digit, or an escape whose last letter is no part of the
/// word behind it: `\n`, `\x3d`, `\u003d`, `%3D`, `%253D`, `=3D`, `\x1b[31m`.
const BEFORE: &str = concat!(
    r"(?:\b|(?-u:[_0-9]|\\+(?:[abefnrtv]|x[0-9A-Fa-f]{2}|u\{?[0-9A-Fa-f]{2,6}\}?)",
    r"|[%=](?:25)*[0-9A-Fa-f]{2}|\[[0-9;]{1,12}m))"
);
/// The place behind a secret.
const AFTER: &str = r"(?:\b|_)";

/// The form of one kind of secret, as a file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// The part of the marker that replaces it: `[redacted:kind]`.
    pub(super) kind: String,
    pub(super) pattern: String,
    /// Words of which every match holds one. A user's rule needs none and is tried on every text.
    #[serde(default)]
    pub(super) words: Vec<String>,
    pub(super) only: Option<Only>,
    /// The pattern, compiled at the first search.
    #[serde(skip)]
    regex: OnceLock<Regex>,
}

/// The matches that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Only {
    /// Every match.
    Any,
    /// A match that is no placeholder.
    Meant,
    /// A match that is neither a placeholder nor a word.
    NoWord,
    /// A match that looks random and is not part of something longer.
    Random,
}

impl Rule {
    /// A rule of the user's file, which counts every match unless it says otherwise.
    ///
    /// # Errors
    /// The reason why it cannot be used.
    pub(super) fn from_user(value: serde_yaml::Value) -> Result<Rule, String> {
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

    /// Returns the compiled pattern. A user's pattern is compiled unchanged when its file is read.
    #[expect(clippy::expect_used, reason = "a test compiles each built-in pattern")]
    pub(super) fn regex(&self) -> &Regex {
        self.regex
            .get_or_init(|| Regex::new(&with_ends(&self.pattern)).expect("the pattern compiles"))
    }
}

/// Widens the boundaries at the ends of a built-in pattern, so that it also finds a secret inside an escaped text.
/// Boundaries are those of ASCII words, so that a key is found beside a letter of another script.
fn with_ends(pattern: &str) -> String {
    let (flags, form) = pattern.strip_prefix("(?i)").map_or(("", pattern), |form| ("(?i)", form));
    let (before, form) = form.strip_prefix(r"\b").map_or(("", form), |form| (BEFORE, form));
    let (form, after) = form.strip_suffix(r"\b").map_or((form, ""), |form| (form, AFTER));
    format!("{flags}{before}(?P<{FORM}>{form}){after}").replace(r"\b", r"(?-u:\b)")
}
