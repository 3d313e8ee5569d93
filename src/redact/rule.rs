//! The form of one kind of secret, from `config/secrets.yaml` or from the user's file.

use std::sync::OnceLock;

use regex::Regex;
use serde::Deserialize;

use super::pieces::is_kind;

/// The name of the group that alone is the secret, in a pattern that has it.
pub(super) const SECRET: &str = "secret";
/// The name of the group around a built-in pattern, without what stands around the secret.
pub(super) const FORM: &str = "form";
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
    pub(super) kind: String,
    pub(super) pattern: String,
    /// Every match holds one of these words. A user's rule needs none: it is tried on every text.
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
    pub(super) fn regex(&self) -> &Regex {
        self.regex
            .get_or_init(|| Regex::new(&with_ends(&self.pattern)).expect("the pattern compiles"))
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
