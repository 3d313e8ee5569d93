//! Bounds the texts of calls that the evidence keeps, and removes secrets and invisible characters from them.
//! Arguments need this most, because a refused call to write a file can contain the whole file.

use serde_json::{Map, Value};

use crate::hidden::Cleaned;
use crate::kimi::text::{clean, first_chars};
use crate::redact::Secrets;

/// The most characters of one argument of a call.
pub(super) const ARG_CHARS: usize = 2_000;
/// The most characters of the name of a tool, a call or an argument.
const NAME_CHARS: usize = 100;
/// The most fields of one object.
const FIELDS: usize = 32;
/// The most items of one list.
const ITEMS: usize = 64;
/// The most values of arguments that are parsed. A short text can hold enough values to fill the memory.
const PARSED: usize = 32 * 1024;
/// The most bytes in memory for the arguments of all calls, their paths and the names of shown files.
pub(super) const ROOM: usize = 2 * 1024 * 1024;
/// The bytes in memory of a value besides its text.
const VALUE: usize = 128;

/// The bounds of one run, and the counts of removed secrets and characters.
#[derive(Debug)]
pub(super) struct Bounds {
    secrets: Secrets,
    /// The unused bytes of [`ROOM`].
    room: usize,
    /// The number of secrets that were replaced.
    pub(super) redactions: usize,
    /// The number of invisible characters that were removed.
    pub(super) hidden: usize,
}

impl Bounds {
    pub(super) fn new(secrets: &Secrets) -> Bounds {
        Bounds { secrets: secrets.clone(), room: ROOM, redactions: 0, hidden: 0 }
    }

    /// Reserves room for a value with a text of this length. Returns `false` if there is not enough.
    pub(super) fn reserve(&mut self, bytes: usize) -> bool {
        let left = self.room.checked_sub(VALUE + bytes);
        self.room = left.unwrap_or(self.room);
        left.is_some()
    }

    /// Cleans and redacts a text, and cuts it to a number of characters.
    pub(super) fn text(&mut self, text: &str, chars: usize) -> String {
        let cleaned = Cleaned::new(text);
        self.hidden += cleaned.hidden;
        let text = self.secrets.redact_start(&cleaned.text, chars);
        self.redactions += text.count();
        text.into_text()
    }

    /// Cleans, redacts and cuts the name of a tool or the id of a call.
    pub(super) fn name(&self, name: &str) -> String {
        self.secrets.redact_start(&clean(name), NAME_CHARS).into_text()
    }

    /// Returns whether a text holds neither secrets nor invisible characters.
    pub(super) fn is_clean(&self, text: &str) -> bool {
        clean(text) == text && self.secrets.redact(text).count() == 0
    }

    /// Bounds the arguments of a call. Returns the path argument too, unredacted.
    pub(super) fn args(
        &mut self,
        args: Map<String, Value>,
    ) -> (Option<String>, Map<String, Value>) {
        let path = args.get("path").and_then(Value::as_str).map(clean);
        let path = path.map(|path| first_chars(&path, ARG_CHARS).to_owned());
        let path = path.filter(|path| self.reserve(path.len()));
        let mut args = self.fields(args);
        self.redactions += self.secrets.redact_fields(&mut args);
        (path, args)
    }

    fn fields(&mut self, fields: Map<String, Value>) -> Map<String, Value> {
        let mut kept = Map::new();
        for (name, value) in fields.into_iter().take(FIELDS) {
            let name = self.text(&name, NAME_CHARS);
            if self.reserve(name.len()) {
                kept.insert(name, self.value(value));
            }
        }
        kept
    }

    fn value(&mut self, value: Value) -> Value {
        match value {
            Value::String(text) => {
                let text = self.text(&text, ARG_CHARS);
                Value::String(if self.reserve(text.len()) { text } else { String::new() })
            }
            Value::Object(fields) => Value::Object(self.fields(fields)),
            Value::Array(items) => {
                let mut kept = Vec::new();
                for item in items.into_iter().take(ITEMS) {
                    if self.reserve(0) {
                        kept.push(self.value(item));
                    }
                }
                Value::Array(kept)
            }
            plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => plain,
        }
    }
}

/// Parses the arguments of a call. A text that is not a JSON object, or has too many values, becomes the field
/// `unreadable`.
pub(super) fn parse(json: &str) -> Map<String, Value> {
    if json.is_empty() {
        return Map::new();
    }
    let values = json.bytes().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count();
    let args = (values <= PARSED).then(|| serde_json::from_str(json).ok()).flatten();
    args.unwrap_or_else(|| Map::from_iter([("unreadable".to_owned(), Value::from(json))]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_kept_within_their_limits() {
        let check = |args: &str, expected: Value| {
            let (_, args) = Bounds::new(&Secrets::default()).args(parse(args));
            assert_eq!(Value::from(args), expected);
        };
        check(
            r#"{"a":[1,-2,0.5,null,true,{"b":"c"}]}"#,
            json!({"a": [1, -2, 0.5, null, true, {"b": "c"}]}),
        );
        check("", json!({}));
        check("[1]", json!({"unreadable": "[1]"}));
        check("null", json!({"unreadable": "null"}));
        check("{broken", json!({"unreadable": "{broken"}));
        let many: Map<String, Value> = (0..40).map(|n| (n.to_string(), n.into())).collect();
        let some: Map<String, Value> = many.clone().into_iter().take(FIELDS).collect();
        check(
            &json!({"f": many, "l": vec![7; 99]}).to_string(),
            json!({"f": some, "l": vec![7; ITEMS]}),
        );
        let long = "中".repeat(ARG_CHARS + 1);
        check(&json!({"t": long}).to_string(), json!({"t": "中".repeat(ARG_CHARS)}));
        // Nesting too deep for a recursive parser, and too many values.
        for json in ["[".repeat(10_000), format!("{{\"a\":[1{}]}}", ",1".repeat(PARSED))] {
            check(&json, json!({"unreadable": &json[..ARG_CHARS]}));
        }
    }

    #[test]
    fn the_arguments_of_a_run_stay_within_its_room() {
        let args = json!({"a": "xxxxx", "b": [1, 2, 3]}).to_string();
        let mut bounds = Bounds::new(&Secrets::default());
        bounds.room = 5 * VALUE + 7;
        assert_eq!(Value::from(bounds.args(parse(&args)).1), json!({"a": "xxxxx", "b": [1, 2]}));
        assert_eq!(Value::from(bounds.args(parse(&args)).1), json!({}));
        assert!(bounds.room < VALUE);
    }
}
