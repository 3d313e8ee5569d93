//! Reads JSON leniently: a value of an unexpected type counts as missing, and the rest of the line is kept.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::kimi::text::{first_bytes, lossy};

/// A value, or `None` for a value of another type.
#[derive(Default)]
pub(super) struct Lenient<T>(pub(super) Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Lenient<T>, D::Error> {
        let value = <&RawValue>::deserialize(deserializer)?;
        Ok(Lenient(serde_json::from_str(value.get()).ok()))
    }
}

/// A JSON string. Half of a surrogate pair, which JSON can hold and a `String` cannot, is replaced.
#[derive(Default)]
pub(super) struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Text, E> {
                Ok(Text(lossy(bytes).into_owned()))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

/// The text of a JSON string; `None` for any other value.
pub(in crate::kimi) fn text(json: &str) -> Option<String> {
    serde_json::from_str(json).ok().map(|Text(text)| text)
}

/// Returns the text of a JSON string, or of its first `limit` bytes. Most of a stream is results of tools, whose
/// beginning is enough.
pub(super) fn beginning(json: &str, limit: usize) -> Option<String> {
    if json.len() <= limit {
        return text(json);
    }
    let cut = first_bytes(json, limit);
    // An escape sequence has up to six bytes, and must not be cut.
    let near_end = first_bytes(cut, limit.saturating_sub(6)).len();
    let end = cut[near_end..].find('\\').map_or(cut.len(), |at| near_end + at);
    text(&format!("{}\"", cut[..end].trim_end_matches('\\')))
}

/// The fields of a JSON object that `T` names; `None` for any other value.
pub(super) fn object<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
    // A derived `Deserialize` also accepts an array, and reads its items as the fields.
    let is_object = json.trim_ascii_start().starts_with('{');
    is_object.then(|| serde_json::from_str(json).ok())?
}

/// Passes each item of a JSON array to `take`, so that a long list takes no memory.
pub(super) fn items<'a>(array: &'a RawValue, take: impl FnMut(&'a RawValue)) {
    struct ItemVisitor<F>(F);

    impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for ItemVisitor<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
            while let Some(item) = items.next_element()? {
                (self.0)(item);
            }
            Ok(())
        }
    }

    let _ = serde_json::Deserializer::from_str(array.get()).deserialize_seq(ItemVisitor(take));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_escape_sequence_is_cut() {
        let json = r#""a\\\\\u00e9\n\"\\🚀\ud83d\ude80b""#;
        let whole = text(json).unwrap();
        for limit in 1..json.len() {
            let beginning = beginning(json, limit).unwrap();
            // Half of a surrogate pair is replaced.
            assert!(whole.starts_with(beginning.trim_end_matches('\u{fffd}')), "{limit}");
        }
        assert_eq!(beginning(json, json.len()), Some(whole));
    }
}
