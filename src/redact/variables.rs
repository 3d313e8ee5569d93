//! The values of the environment's secrets, which are found anywhere in a text.

use aho_corasick::{AhoCorasick, MatchKind};

use super::assignment;
use super::look;
use super::names::normal;
use super::placeholder::is_placeholder;
use super::sheet::SHEET;

/// The shortest value that is looked for, bytes.
const SHORTEST: usize = 8;
/// The shortest phrase of joined words that does not occur by chance, bytes.
const SHORTEST_PHRASE: usize = 16;

/// Builds the search for the values of variables with secret names; `None` if there are none.
pub(super) fn finder(vars: &[(String, String)]) -> Option<AhoCorasick> {
    let values: Vec<&str> = vars
        .iter()
        .filter(|(name, _)| SHEET.variables.core_in(&normal(name)).is_some())
        .map(|(name, value)| (name, value.trim()))
        .filter(|(name, value)| is_secret(value, assignment::may_be_made_up(name)))
        .map(|(_, value)| value)
        .collect();
    if values.is_empty() {
        return None;
    }
    AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(values).ok()
}

/// Returns whether a value may be replaced anywhere in a text.
fn is_secret(value: &str, may_be_made_up: bool) -> bool {
    value.len() >= SHORTEST
        && !look::is_path(value)
        && !is_placeholder(value)
        && (look::is_random(value)
            || (may_be_made_up && (look::is_made_up(value) || is_phrase(value))))
}

fn is_phrase(value: &str) -> bool {
    value.len() >= SHORTEST_PHRASE
        && !value.contains(|c: char| c.is_whitespace() || c == '.')
        && value.split(['-', '_']).filter(|part| !part.is_empty()).count() >= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, value: &str, expected: bool) {
        let vars = [(name.to_owned(), value.to_owned())];
        assert_eq!(finder(&vars).is_some(), expected, "{name}={value}");
    }

    #[test]
    fn the_values_of_secret_variables_are_looked_for_and_no_others() {
        for name in [
            "GITHUB_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "DB_PASSWORD",
            "PGPASSWORD",
            "CLIENT_SECRET",
            "MY_CREDENTIALS",
            "OPENAI_APIKEY",
            "SECRET_KEY_BASE",
        ] {
            check(name, "q8Zr2LmXv9WcYb4s", true);
        }
        for name in ["BUILD_ID", "TOKENIZERS_PARALLELISM", "KEYBOARD"] {
            check(name, "q8Zr2LmXv9WcYb4s", false);
        }
        check("APP_KEY", "  q8Zr2LmXv9WcYb4s\n", true);
    }

    #[test]
    fn words_paths_and_numbers_are_left_alone() {
        for value in [
            "",
            "1",
            "true",
            "q8Zr2Lm",
            "postgres",
            "development",
            "acme_billing-service",
            "my-project-42",
            "/run/secrets/db_2f8a9c3e",
            "~/.ssh/id_ed25519",
            "https://vault.internal:8200",
            "20240131101500",
            "changeme123",
            "cache --timeout=3600",
            "key.production.json",
        ] {
            check("APP_KEY", value, false);
        }
    }

    #[test]
    fn a_password_may_be_made_up() {
        for (value, expected) in [
            ("hunter2hunter2", true),
            ("S3cret!pass", true),
            ("correct-horse-battery-staple", true),
            ("postgres", false),
            ("/run/secrets/db_2f8a9c3e", false),
        ] {
            check("DB_PASSWORD", value, expected);
        }
    }
}
