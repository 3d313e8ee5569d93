//! What evidence keeps of a call's texts: bounded, without secrets and without invisible characters.
//! Arguments need that most, since a refused call to write a file can carry all of the file.

use serde_json::{Map, Value};

use crate::hidden::Cleaned;
use crate::kimi::text::{clean, first_chars};
use crate::redact::Secrets;

/// Characters of one argument of a call.
pub(super) const ARG_CHARS: usize = 2_000;
/// Characters of the name of a tool, a call or an argument.
const NAME_CHARS: usize = 100;
/// Fields of one object.
const FIELDS: usize = 32;
/// Items of one list.
const ITEMS: usize = 64;
/// Values of arguments that are parsed: a short text can hold enough of them to fill the memory.
const PARSED: usize = 32 * 1024;
/// Bytes in memory of the arguments of all calls, their paths and the files that were shown.
pub(super) const ROOM: usize = 2 * 1024 * 1024;
/// Bytes in memory of a value besides its text.
const VALUE: usize = 128;

/// The bounds of one run, and the count of what was taken out.
#[derive(Debug)]
pub(super) struct Bounds {
    secrets: Secrets,
    /// Bytes that are left of [`ROOM`].
    room: usize,
    /// Secrets that were replaced.
    pub(super) redactions: usize,
    /// Invisible characters that were removed.
    pub(super) hidden: usize,
}

impl Bounds {
    pub(super) fn new(secrets: &Secrets) -> Bounds {
        Bounds { secrets: secrets.clone(), room: ROOM, redactions: 0, hidden: 0 }
    }

    /// Takes the room of a value with a text of so many bytes, if there is as much.
    pub(super) fn takes(&mut self, bytes: usize) -> bool {
        let left = self.room.checked_sub(VALUE + bytes);
        self.room = left.unwrap_or(self.room);
        left.is_some()
    }

    /// The beginning of a text, of up to so many characters.
    pub(super) fn text(&mut self, text: &str, chars: usize) -> String {
        let cleaned = Cleaned::of(text);
        self.hidden += cleaned.hidden;
        let text = self.secrets.redact_start(&cleaned.text, chars);
        self.redactions += text.count();
        text.into_text()
    }

    /// The name of a tool or the id of a call.
    pub(super) fn name(&self, name: &str) -> String {
        self.secrets.redact_start(&clean(name), NAME_CHARS).into_text()
    }

    /// Whether a text holds neither secrets nor characters that cannot be seen.
    pub(super) fn is_harmless(&self, text: &str) -> bool {
        clean(text) == text && self.secrets.redact(text).count() == 0
    }

    /// The arguments of a call, and the path among them, which is not redacted.
    pub(super) fn args(
        &mut self,
        args: Map<String, Value>,
    ) -> (Option<String>, Map<String, Value>) {
        let path = args.get("path").and_then(Value::as_str).map(clean);
        let path = path.map(|path| first_chars(&path, ARG_CHARS).to_owned());
        let path = path.filter(|path| self.takes(path.len()));
        let mut args = self.fields(args);
        self.redactions += self.secrets.redact_fields(&mut args);
        (path, args)
    }

    fn fields(&mut self, fields: Map<String, Value>) -> Map<String, Value> {
        let mut kept = Map::new();
        for (name, value) in fields.into_iter().take(FIELDS) {
            let name = self.text(&name, NAME_CHARS);
            if self.takes(name.len()) {
                kept.insert(name, self.value(value));
            }
        }
        kept
    }

    fn value(&mut self, value: Value) -> Value {
        match value {
            Value::String(text) => {
                let text = self.text(&text, ARG_CHARS);
                Value::String(if self.takes(text.len()) { text } else { String::new() })
            }
            Value::Object(fields) => Value::Object(self.fields(fields)),
            Value::Array(items) => {
                let mut kept = Vec::new();
                for item in items.into_iter().take(ITEMS) {
                    if self.takes(0) {
                        kept.push(self.value(item));
                    }
                }
                Value::Array(kept)
            }
            plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => plain,
        }
    }
}

/// The arguments of a call. A text that is no JSON object, or that holds too many values, stands under
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
    fn arguments_are_kept_as_far_as_there_is_room() {
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
        // Nested too deeply for a reader that calls itself, and too many values.
        for json in ["[".repeat(10_000), format!("{{\"a\":[1{}]}}", ",1".repeat(PARSED))] {
            check(&json, json!({"unreadable": &json[..ARG_CHARS]}));
        }
    }

    #[test]
    fn the_arguments_of_a_run_take_no_more_than_its_room() {
        let args = json!({"a": "xxxxx", "b": [1, 2, 3]}).to_string();
        let mut bounds = Bounds::new(&Secrets::default());
        bounds.room = 5 * VALUE + 7;
        assert_eq!(Value::from(bounds.args(parse(&args)).1), json!({"a": "xxxxx", "b": [1, 2]}));
        assert_eq!(Value::from(bounds.args(parse(&args)).1), json!({}));
        assert!(bounds.room < VALUE);
    }
}
