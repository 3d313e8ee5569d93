//! Secrets stay home: what may leave the machine is a [`Redacted`], and only [`Redactor::redact`]
//! makes one.
//!
//! The patterns are data, in `config/secrets.yaml`. This room does not know what the text is for.

use std::fmt::Write as _;
use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

const PATTERNS: &str = include_str!("../config/secrets.yaml");

/// Text in which every secret that the patterns know has been replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redacted {
    text: String,
    count: usize,
}

impl Redacted {
    /// The text that may leave.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How many secrets were replaced.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}

#[derive(Deserialize)]
struct Entry {
    kind: String,
    pattern: String,
}

/// The compiled patterns.
#[derive(Debug)]
pub struct Redactor {
    patterns: Vec<(String, Regex)>,
}

static BUILT_IN: LazyLock<Redactor> = LazyLock::new(|| {
    let entries: Vec<Entry> = serde_yaml::from_str(PATTERNS).unwrap_or_default();
    let patterns = entries
        .into_iter()
        .filter_map(|entry| Some((entry.kind, Regex::new(&entry.pattern).ok()?)))
        .collect();
    Redactor { patterns }
});

impl Redactor {
    /// The patterns of `config/secrets.yaml`, compiled at the first use.
    #[must_use]
    pub fn built_in() -> &'static Redactor {
        &BUILT_IN
    }

    /// Replaces the secrets in every text of a JSON value, and tells how many there were. A secret is
    /// looked for in one text at a time, so that none reaches across two.
    pub fn redact_all(&self, value: &mut Value) -> usize {
        match value {
            Value::String(text) => {
                let redacted = self.redact(text);
                *text = redacted.text;
                redacted.count
            }
            Value::Array(values) => values.iter_mut().map(|value| self.redact_all(value)).sum(),
            Value::Object(fields) => fields.values_mut().map(|value| self.redact_all(value)).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
    }

    /// Replaces every secret by `[redacted:kind]`.
    #[must_use]
    pub fn redact(&self, text: &str) -> Redacted {
        let mut text = text.to_owned();
        let mut count = 0;
        for (kind, pattern) in &self.patterns {
            let mut kept = String::new();
            let mut end = 0;
            for found in pattern.captures_iter(&text) {
                let Some(secret) = found.name("secret").or_else(|| found.get(0)) else { continue };
                kept.push_str(&text[end..secret.start()]);
                let _ = write!(kept, "[redacted:{kind}]");
                end = secret.end();
                count += 1;
            }
            if end > 0 {
                kept.push_str(&text[end..]);
                text = kept;
            }
        }
        Redacted { text, count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_of_the_file_compiles() {
        let entries: Vec<Entry> = serde_yaml::from_str(PATTERNS).unwrap();
        assert!(!entries.is_empty());
        assert_eq!(Redactor::built_in().patterns.len(), entries.len());
    }

    #[test]
    fn secrets_are_replaced_and_everything_else_stays() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Redactor::built_in().redact(text).as_str(), expected, "{text}");
        };
        // Put together here, so that no scanner takes this file for a leak.
        let aws = format!("AKIA{}", "ABCDEFGHIJKLMNOP");
        let github = format!("ghp_{}", "a1B2".repeat(9));
        check(
            &format!("key {aws}, and {github}."),
            "key [redacted:aws-key], and [redacted:github-token].",
        );
        check(
            "Authorization: Bearer abcdef0123456789",
            "Authorization: Bearer [redacted:authorization]",
        );
        check(
            "postgres://app:hunter22@db:5432/x",
            "postgres://app:[redacted:url-password]@db:5432/x",
        );
        check(
            "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAx0\n-----END RSA PRIVATE KEY-----\nafter",
            "[redacted:private-key]\nafter",
        );
        check(
            "cut off: -----BEGIN PRIVATE KEY-----\nMIIEowIBAAKCAQEAx0\nMIIEowIBAAKCAQEAx0\n\nand then",
            "cut off: [redacted:private-key]\n\nand then",
        );
        check(
            "key = \"-----BEGIN PRIVATE KEY-----\\nMIIEowIBAAKCAQEAx0==\\n-----END PRIVATE KEY-----\"",
            "key = \"[redacted:private-key]\"",
        );
        for kept in [
            "commit 4f0c9a3d5b7e8f1a2b3c4d5e6f708192a3b4c5d6",
            "id 550e8400-e29b-41d4-a716-446655440000",
            "Does our parser accept \"-----BEGIN PRIVATE KEY-----\"? And more text, of some length, after it.",
            "let password = read_password()?;",
            "http://localhost:8080/path and https://user@host/",
            "the header `Authorization: Bearer <token>`",
            "sk-learn and task-0123456789",
        ] {
            check(kept, kept);
        }
        assert_eq!(Redactor::built_in().redact(&format!("{aws} {aws}")).count(), 2);
    }
}
