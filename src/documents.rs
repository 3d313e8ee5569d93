//! Readers and parsers for the files of other programs. Their errors never quote a file, since it may hold keys.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use jsonc_parser::ParseOptions;
use rustix::fs::OFlags;
use serde::Deserialize;
use serde_json::{Value, json};
use toml::Table;

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// Standard JSON.
    Json,
    /// JSON with comments and trailing commas, as editors write it.
    Jsonc,
    Toml,
}

/// The largest file that is read, bytes.
const LARGEST: u64 = 64 * 1024 * 1024;

/// Reads a text file. It never waits: a pipe or a device is refused.
///
/// # Errors
/// [`ErrorKind::NotFound`] for a missing file; for all other errors a message in words.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let refused = |why: &str| io::Error::other(why.to_owned());
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path);
    let file = file.map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => refused("it may not be read"),
        _ => error,
    })?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(refused("it is a folder"));
    }
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(refused("it is no ordinary file, or larger than 64 MB"));
    }
    let mut text = String::new();
    match file.take(LARGEST).read_to_string(&mut text) {
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            Err(refused("it is not UTF-8 text"))
        }
        read => read.map(|_| text),
    }
}

/// Reads and parses a file; null if it is missing or broken.
pub(crate) fn read_or_null(path: &Path, format: Format) -> Value {
    parse(&read(path).unwrap_or_default(), format).unwrap_or_default()
}

/// Parses a text, or returns the problem and its place. An empty text is an empty object, since a newly
/// installed program may have an empty file.
pub(crate) fn parse(text: &str, format: Format) -> Result<Value, String> {
    if format == Format::Toml {
        return toml(text).map(|table| json!(table));
    }
    let text = text.trim_start_matches('\u{feff}');
    let read = jsonc_parser::parse_to_serde_value::<Value>(text, &json_options(format));
    let value = read.map_err(|error| error.to_string())?;
    Ok(if value.is_null() { json!({}) } else { value })
}

/// Returns the JSON syntax of a format: exactly what the program that owns such a file accepts.
pub(crate) fn json_options(format: Format) -> ParseOptions {
    let lenient = format == Format::Jsonc;
    ParseOptions {
        allow_comments: lenient,
        allow_trailing_commas: lenient,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

/// Parses TOML, or returns the problem and its place.
pub(crate) fn toml(text: &str) -> Result<Table, String> {
    text.parse().map_err(|error: toml::de::Error| match error.span() {
        Some(span) => {
            let before = text.get(..span.start).unwrap_or_default();
            let line = 1 + before.matches('\n').count();
            format!("{} on line {line}", error.message().trim_end())
        }
        None => error.message().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_parsed_as_strictly_as_by_its_owner() {
        let check = |text: &str, style, expected: Result<Value, &str>| {
            assert_eq!(parse(text, style), expected.map_err(str::to_owned), "{text}");
        };
        let object = json!({"a": [1]});
        let (strict, lenient) = (Format::Json, Format::Jsonc);
        check(r#"{"a": [1]}"#, strict, Ok(object.clone()));
        check("{\"a\": [1,],} // b", lenient, Ok(object));
        check("", strict, Ok(json!({})));
        check(r#"{"a": [1],}"#, strict, Err("Trailing commas are not allowed on line 1 column 10"));
        check("{\n // b\n}", strict, Err("Comments are not allowed on line 2 column 2"));
        check("{'a': 1}", lenient, Err("Single-quoted strings are not allowed on line 1 column 2"));
    }

    #[test]
    fn the_error_of_a_broken_file_quotes_nothing_of_it() {
        for (text, expected) in [
            ("a = 1\nkey = \"sk-secret", "invalid basic string, expected `\"` on line 2"),
            ("key = sk-secret", "string values must be quoted, expected literal string on line 1"),
        ] {
            assert_eq!(toml(text), Err(expected.to_owned()));
        }
        for text in ["{\"key\": \"sk-secret}", "{\"key\": sk-secret}", "{\"a\" \"sk-secret\"}"] {
            let why = parse(text, Format::Jsonc).unwrap_err();
            assert!(why.contains("line 1") && !why.contains("secret"), "{why}");
        }
    }
}
