//! The arguments of a tool call, bounded while they are read: a refused call to write a file can carry
//! all of it, and a line may be made of nothing but calls.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::json::{self, Raw};
use crate::kimi::lines::TEXT_BYTES;
use crate::kimi::text::first_bytes;

/// Fields of one object that are kept.
const FIELDS: usize = 32;
/// Items of one list that are kept.
const ITEMS: usize = 64;
/// What the arguments of one line may take, bytes in memory.
const ROOM: usize = 1024 * 1024;
/// What one value takes, bytes in memory, besides its text.
const VALUE: usize = 128;

/// What is left for arguments.
#[derive(Debug)]
pub(super) struct Room(usize);

impl Default for Room {
    fn default() -> Room {
        Room(ROOM)
    }
}

/// Reads the arguments of a call: an object, or one in a text. What is neither stands under
/// `unreadable`.
pub(super) fn of(args: Option<Raw<'_>>, room: &mut Room) -> Map<String, Value> {
    let Some(args) = args else { return Map::new() };
    let written = args.get();
    let text = json::text(args, usize::MAX);
    match read(text.as_deref().unwrap_or(written), room) {
        Some(Value::Object(args)) => args,
        Some(Value::Null) if text.is_none() => Map::new(),
        Some(other) if text.is_none() => unreadable(other),
        Some(_) | None => unreadable(Value::from(cut(text.as_deref().unwrap_or(written), room))),
    }
}

fn unreadable(args: Value) -> Map<String, Value> {
    Map::from_iter([("unreadable".to_owned(), args)])
}

fn read(json: &str, room: &mut Room) -> Option<Value> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let value = Bounded(room).deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(value)
}

fn cut(text: &str, room: &mut Room) -> String {
    let text = first_bytes(text, TEXT_BYTES.min(room.0));
    room.0 -= text.len();
    text.to_owned()
}

/// Reads a value as far as there is room.
struct Bounded<'r>(&'r mut Room);

impl Bounded<'_> {
    /// Whether there is room for one more value.
    fn takes(&mut self) -> bool {
        let left = self.0.0.checked_sub(VALUE);
        self.0.0 = left.unwrap_or(self.0.0);
        left.is_some()
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(cut(text, self.0)))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < ITEMS && self.takes() {
            match items.next_element_seed(Bounded(self.0))? {
                Some(item) => kept.push(item),
                None => return Ok(Value::Array(kept)),
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(kept))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while let Some(name) = fields.next_key_seed(Name(self.0))? {
            if (kept.len() < FIELDS && self.takes()) || kept.contains_key(&name) {
                let value = fields.next_value_seed(Bounded(self.0))?;
                kept.insert(name, value);
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Value::Object(kept))
    }
}

/// Reads the name of a field.
struct Name<'r>(&'r mut Room);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<String, E> {
        Ok(cut(name, self.0))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serde_json::value::RawValue;

    use super::*;

    fn read_args(args: &Value, room: &mut Room) -> Value {
        let raw = RawValue::from_string(args.to_string()).unwrap();
        Value::Object(of(Some(&raw), room))
    }

    #[test]
    fn arguments_are_kept_as_far_as_there_is_room() {
        let check = |args: Value, expected: Value| {
            assert_eq!(read_args(&args, &mut Room::default()), expected);
        };
        check(
            json!("{\"a\":[1,-2,0.5,null,true,{\"b\":\"c\"}]}"),
            json!({"a": [1, -2, 0.5, null, true, {"b": "c"}]}),
        );
        check(json!({"a": 1}), json!({"a": 1}));
        check(json!("[1]"), json!({"unreadable": "[1]"}));
        check(json!([1]), json!({"unreadable": [1]}));
        check(Value::Null, json!({}));
        check(json!("null"), json!({"unreadable": "null"}));
        let many: Map<String, Value> = (0..40).map(|n| (n.to_string(), n.into())).collect();
        let some: Map<String, Value> = many.clone().into_iter().take(FIELDS).collect();
        check(json!({"f": many, "l": vec![7; 99]}), json!({"f": some, "l": vec![7; ITEMS]}));
        let long = "中".repeat(TEXT_BYTES);
        check(json!({"t": long}), json!({"t": &long[..TEXT_BYTES / 3 * 3]}));
        // Nested too deeply for a reader that calls itself.
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        check(json!(deep), json!({"unreadable": deep}));
    }

    #[test]
    fn one_line_takes_no_more_than_its_room() {
        let text = "x".repeat(TEXT_BYTES);
        let args = json!({"a": text, "b": [1, 2, 3]});
        let mut room = Room(TEXT_BYTES + 3 * VALUE + 2);
        assert_eq!(read_args(&args, &mut room), json!({"a": text, "b": [1]}));
        assert_eq!(read_args(&args, &mut room), json!({}));
        assert!(room.0 < VALUE);
    }
}
