//! What may leave the machine. A secret that stands in any text never survives in any form of its
//! redaction; what is redacted once is redacted, and what holds no secret stays as it is.
//!
//! An input is a header, which says what is hidden in the text and where, and the text.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use kimi_bridge::hidden::Cleaned;
use kimi_bridge::redact::{Redacted, Secrets};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

/// How much of the text is asked for, which secret stands in it, where, and how long the text is.
const HEADER: usize = 4;
/// The value of a variable of the environment: a secret in the middle of a word too.
const VALUE: &str = "q8Zr2LmXv9WcYb4s";
/// Bytes of a text that are looked at, whatever is asked for.
const WINDOW: usize = 24 * 1024;
/// Words of a text that go into an object.
const MOST_WORDS: usize = 40;
/// Characters of a secret that say nothing yet.
const HARMLESS: usize = 12;

static SECRETS: LazyLock<Secrets> = LazyLock::new(|| {
    let vars = [("ACME_TOKEN".to_owned(), VALUE.to_owned())];
    Secrets::load(Path::new("/nonexistent"), &vars).expect("there is no file to be wrong")
});

fuzz_target!(|input: &[u8]| {
    let Some((header, text)) = input.split_at_checked(HEADER) else { return };
    let &[chars, which, place, long] = header else { unreachable!("the header") };
    let text = String::from_utf8_lossy(text);
    // What is looked at beyond a cut is longer than any input.
    let times = if long == 255 { 30_000 / text.len().max(1) + 1 } else { 1 };
    let text = text.repeat(times);
    if times == 1 {
        check(&text, usize::from(chars));
    }
    let secret = secret(which);
    if !text.contains(&secret[..HARMLESS]) {
        let at = boundary(&text, usize::from(place) * text.len() / 255);
        let (before, after) = text.split_at(at);
        let planted = if secret == VALUE {
            format!("{before}{secret}{after}")
        } else {
            format!("{before} {secret} {after}")
        };
        for redacted in check(&planted, usize::from(chars)) {
            assert!(!redacted.as_str().contains(&secret[..HARMLESS]), "{}", redacted.as_str());
        }
        check_json(&planted, &secret);
    }
});

/// Put together here, so that no scanner takes this file for a leak.
fn secret(which: u8) -> String {
    match which % 4 {
        0 => format!("AKIA{}", "ABCDEFGHIJKLMNOP"),
        1 => format!("ghp_{}", "q8Zr2LmXv9WcYb4sTdK7hN3pQf6gJx0eVuAi"),
        2 => format!("sk-ant-api03-{}", "q8Zr2LmXv9WcYb4sTdK7hN3p"),
        _ => VALUE.to_owned(),
    }
}

/// The whole redaction and the beginning of one, in which all holds that must for any text.
fn check(text: &str, chars: usize) -> [Redacted; 2] {
    let whole = SECRETS.redact(text);
    let text = &*Cleaned::new(text).text;
    assert_eq!(whole.count() == 0, whole.as_str() == text);
    assert_eq!(markers(whole.as_str()), markers(text) + whole.count());
    let again = SECRETS.redact(whole.as_str());
    assert_eq!((again.as_str(), again.count()), (whole.as_str(), 0));
    let start = SECRETS.redact_start(text, chars);
    assert!(start.as_str().chars().count() <= chars);
    // Of a text that is not looked at to its end, what stands behind can change a marker's kind.
    let is_start = whole.as_str().starts_with(start.as_str());
    assert!(is_start || text.len() > WINDOW, "{start:?} of {whole:?}");
    assert_eq!(SECRETS.redact_start(text, usize::MAX), whole);
    [whole, start]
}

/// The words of a text as the names and texts of a JSON object.
fn check_json(text: &str, secret: &str) {
    let words = text.split([' ', '\n', '"', '=']).filter(|word| !word.is_empty());
    let mut words = words.take(MOST_WORDS);
    let mut fields = Map::new();
    while let Some(name) = words.next() {
        let text = words.next().unwrap_or_default();
        fields.insert(name.to_owned(), Value::from(text));
        fields.insert(text.to_owned(), Value::from(vec![name]));
    }
    let mut once = Value::Object(fields);
    SECRETS.redact_all(&mut once);
    assert!(!once.to_string().contains(&secret[..HARMLESS]), "{once}");
    let mut twice = once.clone();
    assert_eq!((SECRETS.redact_all(&mut twice), &twice), (0, &once));
}

fn markers(text: &str) -> usize {
    let kinds = text.split("[redacted:").skip(1).filter_map(|rest| rest.split_once(']'));
    let is_kind = |kind: &str| {
        let in_kind = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !kind.is_empty() && kind.chars().all(in_kind)
    };
    kinds.filter(|(kind, _)| is_kind(kind)).count()
}

fn boundary(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or_default()
}
