//! The search for secrets that are recognized by their form.

use std::sync::LazyLock;

use regex::RegexSet;

use super::look;
use super::pieces::SecretSpan;
use super::placeholder::{is_dummy, is_placeholder};
use super::prefilter::prefilter;
use super::rule::{FORM, Only, Rule, SECRET};
use super::sheet::SHEET;

/// Adds the places of the secrets of one form.
pub(super) fn find_one<'a>(rule: &'a Rule, text: &str, spans: &mut Vec<SecretSpan<'a>>) {
    let regex = rule.regex();
    let has_group = regex.capture_names().flatten().any(|name| name == SECRET);
    // A whole match has a form that ordinary values and placeholders do not have.
    let is_excluded = if has_group { is_placeholder } else { is_dummy };
    for found in regex.captures_iter(text) {
        let group = if has_group { SECRET } else { FORM };
        let whole = found.get(0).filter(|_| !has_group);
        let Some(secret) = found.name(group).or(whole) else { continue };
        let is_part = || !has_group && look::ends_in_a_blob(&text[..secret.start()]);
        let counts = match rule.only.unwrap_or(Only::Meant) {
            Only::Any => true,
            Only::Meant => !is_excluded(secret.as_str()),
            Only::NoWord => !is_excluded(secret.as_str()) && !look::is_word(secret.as_str()),
            Only::Random => {
                !is_excluded(secret.as_str()) && look::is_random(secret.as_str()) && !is_part()
            }
        };
        if counts {
            spans.push(SecretSpan::new(secret.range(), &rule.kind));
        }
    }
}

static WORDS: LazyLock<RegexSet> =
    LazyLock::new(|| prefilter(SHEET.values.iter().map(|rule| rule.words.as_slice())));

/// Adds the places of the secrets that match a built-in form.
pub(super) fn find(text: &str, spans: &mut Vec<SecretSpan<'_>>) {
    for at in &WORDS.matches(text) {
        find_one(&SHEET.values[at], text, spans);
    }
}

#[cfg(test)]
mod tests {
    use super::super::pieces::is_kind;
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
