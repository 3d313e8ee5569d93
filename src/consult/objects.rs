//! Every JSON object that stands in a text, whatever surrounds it.

use serde_json::{Map, Value};

/// How deep brackets may nest; `serde_json` reads no deeper either.
const DEPTH: usize = 128;

/// An object and what was mended to read it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub fields: Map<String, Value>,
    /// What was mended, for the reader.
    pub mended: Vec<String>,
}

/// The outermost objects of a text, in order. An object inside a string or inside another object is
/// part of that; a brace that begins no object is passed over.
pub(crate) fn objects_in(text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = text[at..].find('{') {
        at += next;
        match object_at(&text[at..]) {
            Some((object, length)) => {
                found.push(object);
                at += length;
            }
            None => at += 1,
        }
    }
    found
}

/// The object that the text begins with, and how long it is, bytes.
fn object_at(text: &str) -> Option<(Found, usize)> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Map<String, Value>>();
    match stream.next()? {
        Ok(fields) => Some((Found { fields, mended: Vec::new() }, stream.byte_offset())),
        // Only then is there something to gain from a second look.
        Err(error) if error.to_string().starts_with("trailing comma") => {
            let (length, commas) = trailing_commas(text)?;
            let mut mended = String::with_capacity(length);
            let mut kept = 0;
            for &comma in &commas {
                mended.push_str(&text[kept..comma]);
                kept = comma + 1;
            }
            mended.push_str(&text[kept..length]);
            let fields = serde_json::from_str(&mended).ok()?;
            let what = match commas.len() {
                1 => "mended: a trailing comma".to_owned(),
                count => format!("mended: {count} trailing commas"),
            };
            Some((Found { fields, mended: vec![what] }, length))
        }
        Err(_) => None,
    }
}

/// Where the object that the text begins with ends, and the commas in it that stand before a
/// closing bracket. `None` when its brackets do not match.
fn trailing_commas(text: &str) -> Option<(usize, Vec<usize>)> {
    let mut closers = Vec::new();
    let mut commas = Vec::new();
    let mut comma = None;
    let mut in_string = false;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'{' => closers.push(b'}'),
            b'[' => closers.push(b']'),
            b'}' | b']' => {
                if closers.pop() != Some(byte) {
                    return None;
                }
                commas.extend(comma);
                if closers.is_empty() {
                    return Some((at + 1, commas));
                }
            }
            b'"' => in_string = true,
            _ => {}
        }
        if closers.len() > DEPTH {
            return None;
        }
        match byte {
            b',' => comma = Some(at),
            b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => comma = None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(text: &str, expected: &[Value]) {
        let found: Vec<_> =
            objects_in(text).into_iter().map(|found| Value::Object(found.fields)).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn objects_are_found_wherever_they_stand() {
        check(r#"a {"b": {"c": 1}} {d} {} "#, &[json!({"b": {"c": 1}}), json!({})]);
        check(r#"{"a": "{\"b\": 1}"} [{"c": 2}]"#, &[json!({"a": "{\"b\": 1}"}), json!({"c": 2})]);
        check(r#"{"open": {"inner": 1}"#, &[json!({"inner": 1})]);
        check("中{\"a\": \"中\"}中", &[json!({"a": "中"})]);
    }

    #[test]
    fn trailing_commas_are_dropped_but_not_in_strings() {
        check(r#"{"a": [1, 2, ], "b": ",}", }"#, &[json!({"a": [1, 2], "b": ",}"})]);
        check(r#"{"a": 1,,}"#, &[]);
        check(r#"{"a": [1,}"#, &[]);
    }

    #[test]
    fn hostile_nesting_ends() {
        check(&"{".repeat(200_000), &[]);
        check(&"{\"a\":".repeat(50_000), &[]);
        check(&"{\"a\":[1,],".repeat(20_000), &[]);
    }
}
