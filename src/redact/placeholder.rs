//! Values in place of a secret: a template, a word, an example, a type.

use std::sync::LazyLock;

use regex::RegexSet;

use super::names::normal;
use super::sheet::SHEET;

/// The longest value that is searched for the words of a placeholder; a longer one may hold them by chance.
const LONGEST_PLACEHOLDER: usize = 128;
/// The shortest run of one character that makes a value a mask.
const MASK_RUN: usize = 8;

static TEMPLATES: LazyLock<RegexSet> = LazyLock::new(|| compiled(&SHEET.templates));
static ORDINARY: LazyLock<RegexSet> = LazyLock::new(|| compiled(&SHEET.ordinary));

#[expect(clippy::expect_used, reason = "the file is compiled in, and a test compiles its patterns")]
fn compiled(patterns: &[String]) -> RegexSet {
    RegexSet::new(patterns).expect("the patterns compile")
}

/// Returns whether a value is a published example or a mask.
pub(super) fn is_dummy(value: &str) -> bool {
    let lower = || value.to_ascii_lowercase();
    SHEET.published.iter().any(|part| value.contains(part.as_str()))
        || value.len() <= LONGEST_PLACEHOLDER
            && (longest_run(value) >= MASK_RUN
                || SHEET.placeholders.iter().any(|part| lower().contains(part.as_str())))
}

/// Returns whether a value is a template, a placeholder or an ordinary value.
pub(super) fn is_placeholder(value: &str) -> bool {
    TEMPLATES.is_match(value)
        || is_dummy(value)
        || (value.len() <= LONGEST_PLACEHOLDER
            && (consists_of_placeholder_words(value) || ORDINARY.is_match(value)))
}

fn consists_of_placeholder_words(value: &str) -> bool {
    let words = normal(value);
    let is_placeholder = |word: &str| {
        let word = word.trim_end_matches(|c: char| c.is_ascii_digit());
        word.is_empty() || SHEET.placeholder_words.iter().any(|known| known == word)
    };
    !words.is_empty()
        && words.split('_').all(is_placeholder)
        && value.bytes().filter(u8::is_ascii_digit).count() <= 4
}

fn longest_run(value: &str) -> usize {
    let (mut longest, mut run, mut before) = (0, 0, 0);
    for byte in value.bytes() {
        run = if byte == before { run + 1 } else { 1 };
        // In base64, a run of `A` stands for zeros.
        if byte != b'A' {
            longest = longest.max(run);
        }
        before = byte;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_and_masks_are_no_secrets() {
        let check =
            |value: &str, expected: bool| assert_eq!(is_placeholder(value), expected, "{value}");
        for placeholder in [
            "<your-api-key>",
            "your-api-key-here",
            "changeme!",
            "MyPassword123",
            "${DB_PASSWORD}",
            "{{ .Values.password }}",
            "$(cat token)",
            "$TOKEN",
            "%TOKEN%",
            "********",
            "xxxxxxxxxxxx",
            "sk-...",
            "AKIAIOSFODNN7EXAMPLE",
            "sha256:4f0c9a3d5b7e8f1a",
            "uint64",
            "base64url",
            "256bits",
        ] {
            check(placeholder, true);
        }
        for value in ["hunter22", "test-3f9a8b7c6d5e", "a8f5f167f44f4964", "$tr0ng!pass", "x9<3k"] {
            check(value, false);
        }
    }
}
