//! JSON of which only parts are wanted: a value is looked up where it stands in its text, and nothing
//! is made of the rest.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::kimi::lines::{lossy, whole_characters};

/// A value as it is written.
pub(super) type Raw<'a> = &'a RawValue;

/// These fields of a JSON object, as far as there are such; the last counts where there are several.
/// `None` for what is no object.
pub(super) fn fields<'a, const N: usize>(
    object: &'a str,
    names: [&str; N],
) -> Option<[Option<Raw<'a>>; N]> {
    if !object.trim_ascii_start().starts_with('{') {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_str(object);
    let fields = deserializer.deserialize_map(Fields(names)).ok()?;
    deserializer.end().ok()?;
    Some(fields)
}

/// Gives each item of a JSON array to `take`; what is none has none.
pub(super) fn items<'a>(array: Option<Raw<'a>>, take: impl FnMut(Raw<'a>)) {
    if let Some(array) = array.map(RawValue::get).filter(|array| array.starts_with('[')) {
        // It was found to be JSON when it was found.
        let _ = serde_json::Deserializer::from_str(array).deserialize_seq(Items(take));
    }
}

/// A text, or its beginning that is written in so many bytes; `None` for what is no text. Halves of
/// characters, which JSON can hold, are replaced.
pub(super) fn text(value: Raw<'_>, limit: usize) -> Option<String> {
    let written = value.get();
    let inner = written.strip_prefix('"')?.strip_suffix('"')?;
    if inner.len() <= limit {
        return decoded(written);
    }
    let kept = whole_characters(&inner.as_bytes()[..limit]);
    decoded(&format!("\"{}\"", &inner[..kept]))
}

/// A JSON text as it is read.
pub(in crate::kimi) fn decoded(written: &str) -> Option<String> {
    serde_json::Deserializer::from_str(written).deserialize_bytes(Text).ok()
}

struct Text;

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
        Ok(lossy(bytes).into_owned())
    }
}

struct Fields<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for Fields<'_, N> {
    type Value = [Option<Raw<'de>>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [None; N];
        while let Some(wanted) = map.next_key_seed(Position(&self.0))? {
            match wanted {
                Some(at) => values[at] = Some(map.next_value()?),
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(values)
    }
}

/// The place of a name in a list of them.
struct Position<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Position<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        // As bytes, since a name may hold half of a character too.
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Position<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| known.as_bytes() == name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| *known == name))
    }
}

struct Items<F>(F);

impl<'de, F: FnMut(Raw<'de>)> Visitor<'de> for Items<F> {
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
