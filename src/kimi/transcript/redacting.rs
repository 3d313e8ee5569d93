//! A line of JSON without its secrets. They are looked for in the texts that it holds, not in their
//! escaped form, in which a pattern does not know them; where there are none, which is nearly always,
//! the line is not written anew.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::de::IgnoredAny;

use crate::kimi::event::json::decoded;
use crate::kimi::lines::{TEXT_BYTES, mark, without_mark};
use crate::kimi::text::first_bytes;
use crate::redact::{Redacted, Secrets};

/// The longest text that is remembered, bytes.
const SHORT: usize = 64;
/// How many are.
const REMEMBERED: usize = 2_048;

/// The secrets, and what was found to hold none: a stream says the same short names and words in every
/// line, and to look into one costs far more than to know it again.
#[derive(Debug)]
pub(super) struct Known {
    secrets: Secrets,
    clean: HashSet<String>,
    harmless_names: HashSet<String>,
}

impl Known {
    pub(super) fn new(secrets: Secrets) -> Known {
        Known { secrets, clean: HashSet::new(), harmless_names: HashSet::new() }
    }

    /// The text without its secrets; `None` where it holds none.
    fn redact(&mut self, text: &str) -> Option<String> {
        if text.is_empty() || self.clean.contains(text) {
            return None;
        }
        let redacted = self.secrets.redact_found(text).map(Redacted::into_text);
        if redacted.is_none() {
            remember(&mut self.clean, text);
        }
        redacted
    }

    /// What replaces the text of a field, if it is a secret by the field's name.
    fn redact_field(&mut self, name: &str, text: &str) -> Option<String> {
        if self.harmless_names.contains(name) {
            return None;
        }
        if !self.secrets.is_of_secret(name) {
            remember(&mut self.harmless_names, name);
            return None;
        }
        self.secrets.redact_field(name, text)
    }
}

fn remember(texts: &mut HashSet<String>, text: &str) {
    if text.len() <= SHORT && texts.len() < REMEMBERED {
        texts.insert(text.to_owned());
    }
}

/// Whether a text is a JSON object or array.
pub(super) fn is_json(text: &str) -> bool {
    text.trim_ascii_start().starts_with(['{', '['])
        && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// The line without secrets; it is one of which [`is_json`] is true. Its texts are passed through from
/// the first to the last, with no more in mind than the name that stands before one.
pub(super) fn json<'a>(known: &mut Known, line: &'a str) -> Cow<'a, str> {
    let mut redacted = String::new();
    let mut copied = 0;
    let mut at = 0;
    let mut name: Option<Cow<'_, str>> = None;
    while let Some(start) = memchr::memchr(b'"', &line.as_bytes()[at..]).map(|found| at + found) {
        let written = literal(&line[start..]);
        // A name stands directly before its text.
        let name_before = name.take().filter(|_| line[at..start].trim_ascii() == ":");
        at = start + written.len();
        let text = decoded_text(written);
        let is_name = line[at..].trim_ascii_start().starts_with(':');
        let changed = if is_name {
            known.redact(&text)
        } else {
            self::text(known, name_before.as_deref(), &text)
        };
        let mut told = text;
        if let Some(changed) = changed {
            redacted.push_str(&line[copied..start]);
            redacted.push_str(&serde_json::Value::from(changed.as_str()).to_string());
            copied = at;
            told = Cow::Owned(changed);
        }
        // A field is judged by its name as it is told, as everywhere.
        name = is_name.then_some(told);
    }
    if copied == 0 {
        return Cow::Borrowed(line);
    }
    redacted.push_str(&line[copied..]);
    Cow::Owned(redacted)
}

/// A text of a line without its secrets; `None` where it holds none. The arguments of a tool call are
/// JSON in a text.
fn text(known: &mut Known, name: Option<&str>, text: &str) -> Option<String> {
    if let (beginning, Some(left_out)) = without_mark(text)
        && !name.is_some_and(|name| known.secrets.is_of_secret(name))
    {
        // A run that has results enough to have them cut short is to be read on as fast as it comes.
        let looked_at = match beginning.len() {
            ..=TEXT_BYTES => first_bytes(beginning, TEXT_BYTES / 2),
            _ => beginning,
        };
        // Half a secret may stand where it was cut.
        let kept = known.secrets.redact_beginning(looked_at).into_text();
        let less = beginning.len().saturating_sub(kept.len()) as u64;
        return Some(kept + &mark(left_out + less));
    }
    let nested = Some(text).filter(|text| text.starts_with(['{', '[']) && is_json(text));
    let inside = nested.map(|text| json(known, text));
    let text = inside.as_deref().unwrap_or(text);
    if let Some(marker) = name.and_then(|name| known.redact_field(name, text)) {
        return Some(marker);
    }
    let redacted = known.redact(text);
    redacted
        .or_else(|| inside.filter(|inside| matches!(inside, Cow::Owned(_))).map(Cow::into_owned))
}

/// The JSON text with which this begins, as it is written.
fn literal(json: &str) -> &str {
    let bytes = json.as_bytes();
    let mut end = 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[end..]) {
        if bytes[end + found] == b'"' {
            return &json[..=end + found];
        }
        end += found + 2;
    }
    json
}

fn decoded_text(written: &str) -> Cow<'_, str> {
    let inner = &written[1..written.len() - 1];
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Cow::Borrowed(inner);
    }
    Cow::Owned(decoded(written).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// The same by way of a value, as [`Secrets::redact_all`] does it.
    fn reference(secrets: &Secrets, line: &str) -> Option<String> {
        let value = serde_json::from_str(line).ok();
        let mut value = value.filter(|value: &Value| value.is_object() || value.is_array())?;
        nested(secrets, &mut value);
        secrets.redact_all(&mut value);
        Some(value.to_string())
    }

    fn nested(secrets: &Secrets, value: &mut Value) {
        match value {
            Value::String(text) if text.starts_with(['{', '[']) => {
                *text = reference(secrets, text).unwrap_or_else(|| text.clone());
            }
            Value::Array(values) => values.iter_mut().for_each(|value| nested(secrets, value)),
            Value::Object(fields) => fields.values_mut().for_each(|value| nested(secrets, value)),
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        // Put together here, so that no scanner takes this file for a leak.
        let key = format!("AKIA{}", "ABCDEFGHIJKLMNOP");
        let texts = [
            "token",
            "password",
            "q8Zr2LmXv9WcYb4s",
            "hunter22",
            "\"token\": \"q8Zr2LmXv9WcYb4s\"",
            &format!("{key} {} password", "x".repeat(90)),
            &format!("[redacted:x] {} password", "x".repeat(90)),
            &format!("{} password", "x".repeat(90)),
            "a\nb",
            "[1,2]",
            "[redacted:token]",
            &key,
            &format!("\\{key}\n"),
        ]
        .map(str::to_owned);
        let text = prop_oneof![proptest::sample::select(texts.to_vec()), "\\PC{0,5}"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec((text.clone(), inner.clone()), 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
                inner.prop_map(|value| Value::from(value.to_string())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn a_line_is_redacted_as_its_value_would_be(value in any_json()) {
            let secrets = Secrets::default();
            let line = value.to_string();
            prop_assert_eq!(is_json(&line), value.is_object() || value.is_array());
            if is_json(&line) {
                let redacted: Value = serde_json::from_str(&json(&mut Known::new(secrets.clone()), &line)).unwrap();
                let expected: Value = serde_json::from_str(&reference(&secrets, &line).unwrap()).unwrap();
                prop_assert_eq!(redacted, expected);
            }
        }
    }

    #[test]
    fn a_text_that_was_cut_holds_no_half_of_a_secret() {
        let secrets = Secrets::default();
        let long = "x ".repeat(10_000);
        let line =
            json!({"role": "tool", "content": format!("{long}AKIAABCDEF{}", mark(5))}).to_string();
        let value: Value =
            serde_json::from_str(&json(&mut Known::new(secrets.clone()), &line)).unwrap();
        let (kept, left_out) = without_mark(value["content"].as_str().unwrap());
        let left_out = usize::try_from(left_out.unwrap()).unwrap();
        assert!(long.starts_with(kept) && kept.len() > 7_000);
        assert_eq!(kept.len() + left_out, long.len() + 10 + 5);
    }

    #[test]
    fn what_is_redacted_keeps_the_rest_as_it_is_written() {
        let check = |line: &str, expected: &str| {
            assert_eq!(json(&mut Known::new(Secrets::default()), line), expected);
        };
        check(
            r#"{ "a" : 1.50, "b\u00e4":[ "\u0041" ] }"#,
            r#"{ "a" : 1.50, "b\u00e4":[ "\u0041" ] }"#,
        );
        check(
            r#"{"token" : "q8Zr2LmXv9WcYb4s" , "n":1e3}"#,
            r#"{"token" : "[redacted:token]" , "n":1e3}"#,
        );
        check(r#"{"token":["q8Zr2LmXv9WcYb4s"]}"#, r#"{"token":["q8Zr2LmXv9WcYb4s"]}"#);
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        check(&deep, &deep);
    }
}
