//! Secrets that are recognized by the name that they are assigned to: `api_key = "…"`, `--token …`, `"password": "…"`,
//! `?secret=…`, `<password>…</password>`.
//!
//! A search for the last words of all names comes first. An assignment must follow the name, and the value must look
//! like a secret, since code assigns calls, types and variables to the same names.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::names::{LONGEST, normal};
use super::pieces::{SecretSpan, behind_markers, is_marked};
use super::sheet::{Assignment, SHEET};
use super::value;

#[expect(clippy::expect_used, reason = "the words are compiled in, and a test searches for them")]
static LAST_WORDS: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let words = SHEET.assignments.iter().flat_map(|list| list.names.last_words());
    let searcher = AhoCorasick::builder().ascii_case_insensitive(true).build(words);
    searcher.expect("the words can be searched for")
});

/// Adds the places of the secrets that are assigned to a secret name.
pub(super) fn find(text: &str, spans: &mut Vec<SecretSpan<'_>>) {
    let mut searched_to = 0;
    for word in LAST_WORDS.find_overlapping_iter(text) {
        if word.end() <= searched_to {
            continue;
        }
        let Some(place) = name_around(text, word.end()) else { continue };
        searched_to = place.end;
        let name = &text[place.clone()];
        let escape = escape_length(&text[..place.start], name);
        let found = secret_name(name).or_else(|| secret_name(&name[escape..]));
        if let Some((assignment, core)) = found {
            let secret;
            (secret, searched_to) = value::behind(text, place, assignment, core);
            spans.extend(secret.map(|range| SecretSpan::new(range, &assignment.kind)));
        }
    }
}

/// The kind of the secret in a field, judged by the field's name and the look of its text; `None` if it is no secret.
pub(super) fn in_field(name: &str, text: &str) -> Option<&'static str> {
    // A marker names the secret that it replaced, not the field.
    let name = &name[behind_markers(name)..];
    if name.len() > LONGEST || is_marked(text) {
        return None;
    }
    let (assignment, _) = secret_name(name)?;
    value::is_secret(text, assignment).then_some(&assignment.kind)
}

/// Returns whether a person may have made up the value of such a name.
pub(super) fn may_be_made_up(name: &str) -> bool {
    secret_name(name).is_some_and(|(assignment, _)| assignment.made_up)
}

/// The whole name around the end of a word; `None` when it is too long for a name.
fn name_around(text: &str, end: usize) -> Option<Range<usize>> {
    let in_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let bytes = text.as_bytes();
    let before = bytes[..end].iter().rev().take(LONGEST).take_while(|&byte| in_name(byte)).count();
    let after = bytes[end..].iter().take(LONGEST).take_while(|&byte| in_name(byte)).count();
    (before + after < LONGEST).then_some(end - before..end + after)
}

/// The number of bytes at the beginning of a name that belong to an escape: the `n` of `\npwd`, the `22` of `%22pwd`.
fn escape_length(before: &str, name: &str) -> usize {
    let is_hex = |from: usize, to: usize| {
        name.as_bytes().get(from..to).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    match (before.as_bytes().last(), name.as_bytes()) {
        (Some(b'%'), _) if is_hex(0, 2) => 2,
        (Some(b'\\'), [b'u', ..]) if is_hex(1, 5) => 5,
        (Some(b'\\'), [b'x', ..]) if is_hex(1, 3) => 3,
        (Some(b'\\'), [b'n' | b'r' | b't', ..]) => 1,
        _ => 0,
    }
}

/// The assignment whose patterns match a name, and the words that matched; a tail of the name is ignored.
fn secret_name(name: &str) -> Option<(&'static Assignment, &'static str)> {
    let normal = normal(name);
    let mut bare = normal.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
    while let Some((rest, last)) = bare.rsplit_once('_')
        && SHEET.name_tails.iter().any(|tail| tail == last)
    {
        bare = rest;
    }
    if SHEET.harmless_names.core_in(bare).is_some() {
        return None;
    }
    SHEET.assignments.iter().find_map(|list| Some((list, list.names.core_in(bare)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, &str)>) {
        let mut spans = Vec::new();
        find(text, &mut spans);
        let expected = expected.map(|(kind, value)| {
            let start = text.find(value).unwrap();
            SecretSpan::new(start..start + value.len(), kind)
        });
        assert_eq!(spans, expected.into_iter().collect::<Vec<_>>(), "{text}");
    }

    const RANDOM: &str = "q8Zr2LmXv9WcYb4s";

    #[test]
    fn a_secret_is_found_by_its_name_in_every_form_of_assignment() {
        for text in [
            "token = \"q8Zr2LmXv9WcYb4s\"",
            "token='q8Zr2LmXv9WcYb4s'",
            "token: q8Zr2LmXv9WcYb4s",
            "token := `q8Zr2LmXv9WcYb4s`",
            "let token: Option<&str> = Some(\"q8Zr2LmXv9WcYb4s\");",
            "var token string = \"q8Zr2LmXv9WcYb4s\"",
            "\"token\" => \"q8Zr2LmXv9WcYb4s\"",
            "\\\"token\\\": \\\"q8Zr2LmXv9WcYb4s\\\"",
            "(\"token\", \"q8Zr2LmXv9WcYb4s\")",
            "config['token'] = b'q8Zr2LmXv9WcYb4s'",
            "set_token(\"q8Zr2LmXv9WcYb4s\")",
            "<token>q8Zr2LmXv9WcYb4s</token>",
            "/?a=1&token=q8Zr2LmXv9WcYb4s&b=2",
            "/#token=q8Zr2LmXv9WcYb4s&b=2",
            "x --token q8Zr2LmXv9WcYb4s -v",
            "TOKEN_PROD_2=q8Zr2LmXv9WcYb4s",
            "token: Bearer q8Zr2LmXv9WcYb4s",
            "token=\"q8Zr2LmXv9WcYb4s",
            "the token: q8Zr2LmXv9WcYb4s. Then",
        ] {
            check(text, Some(("token", RANDOM)));
        }
    }

    #[test]
    fn a_text_without_an_assignment_stays() {
        for text in [
            "token",
            "token q8Zr2LmXv9WcYb4s",
            "token, \"q8Zr2LmXv9WcYb4s\"",
            "[\"token\",\n \"q8Zr2LmXv9WcYb4s\"]",
            "token > q8Zr2LmXv9WcYb4s",
            "tokens = q8Zr2LmXv9WcYb4s",
            "token_count = q8Zr2LmXv9WcYb4s",
            "csrf_token = q8Zr2LmXv9WcYb4s",
            "token = q8Zr2LmXv9WcYb4s()",
            "token = q8Zr2LmXv9WcYb4s[0]",
            "token = q8Zr2LmXv9WcYb4s::new",
            "token = &q8Zr2LmXv9WcYb4s",
            "token = self.q8z.other",
            "token = \"of q8Zr2LmXv9WcYb4s words\"",
            "token = https://q8Zr2LmXv9WcYb4s/",
            "private_key: PKCS7PrivateKeyTypes",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn a_name_behind_an_escape_is_recognized() {
        for text in [
            "\\npwd=hunter22",
            "\\u0022pwd\": \"hunter22\"",
            "?%22pwd=hunter22",
            "C:\\x22pwd=hunter22",
        ] {
            check(text, Some(("password", "hunter22")));
        }
        check("C:\\token = q8Zr2LmXv9WcYb4s", Some(("token", RANDOM)));
    }

    #[test]
    fn only_a_password_may_be_made_up() {
        check("password = hunter22", Some(("password", "hunter22")));
        check("token = hunter22", None);
    }

    #[test]
    fn a_long_value_is_replaced_to_its_end() {
        let long = "q8Zr2LmXv9WcYb4s".repeat(100);
        check(&format!("token = \"{long}\""), Some(("token", &long)));
        check(&format!("token={long} and"), Some(("token", &long)));
    }

    #[test]
    fn a_field_is_secret_by_its_name() {
        let check = |name: &str, text: &str, expected| assert_eq!(in_field(name, text), expected);
        check("accessToken", RANDOM, Some("token"));
        check("access_token", "[redacted:token]", None);
        check("path", RANDOM, None);
        check("password", "hunter22", Some("password"));
        check("password", "the one in the vault", None);
    }
}
