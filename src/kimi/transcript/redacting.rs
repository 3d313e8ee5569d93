//! Removes secrets from a line of JSON. It searches the decoded strings, since escapes would hide a secret from the
//! patterns, and leaves the rest of the line unchanged.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use serde::de::IgnoredAny;

use crate::kimi::event::json;
use crate::redact::Secrets;

/// A string in JSON.
#[expect(clippy::expect_used, reason = "tests use it")]
static STRING: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"(?s)"(?:[^"\\]|\\.)*""#).expect("a valid pattern"));

/// Returns whether a text is a JSON object or array.
pub(super) fn is_json(text: &str) -> bool {
    text.trim_ascii_start().starts_with(['{', '['])
        && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Removes the secrets from a line for which [`is_json`] is true.
pub(super) fn redact<'a>(secrets: &Secrets, line: &'a str) -> Cow<'a, str> {
    let mut redacted = String::new();
    let (mut copied, mut end) = (0, 0);
    let mut previous = None;
    for string in STRING.find_iter(line) {
        let name = previous.filter(|_| line[end..string.start()].trim_ascii() == ":");
        end = string.end();
        let mut text = json::text(string.as_str()).unwrap_or_default();
        if let Some(clean) = redact_text(secrets, name.as_deref(), &text) {
            redacted.push_str(&line[copied..string.start()]);
            redacted.push_str(&serde_json::to_string(&clean).unwrap_or_default());
            copied = end;
            text = clean;
        }
        previous = Some(text);
    }
    if copied == 0 {
        return Cow::Borrowed(line);
    }
    redacted.push_str(&line[copied..]);
    Cow::Owned(redacted)
}

/// Removes secrets and invisible characters from a string, with regard to the name of its field; `None` if there are
/// none. The string may be JSON, as the arguments of a tool call are.
fn redact_text(secrets: &Secrets, name: Option<&str>, text: &str) -> Option<String> {
    let inner = if is_json(text) { redact(secrets, text) } else { Cow::Borrowed(text) };
    if let Some(marker) = name.and_then(|name| secrets.redact_field(name, &inner)) {
        return Some(marker);
    }
    let redacted = secrets.redact(&inner);
    (redacted.as_str() != text).then(|| redacted.into_text())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Redacts a line by parsing it into a value, with [`Secrets::redact_all`].
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
        // Assembled here, so that no scanner reports this file as a leak.
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
                let redacted: Value = serde_json::from_str(&redact(&secrets, &line)).unwrap();
                let expected: Value = serde_json::from_str(&reference(&secrets, &line).unwrap()).unwrap();
                prop_assert_eq!(redacted, expected);
            }
        }
    }

    #[test]
    fn the_rest_of_a_redacted_line_is_unchanged() {
        let check = |line: &str, expected: &str| {
            assert_eq!(redact(&Secrets::default(), line), expected);
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
