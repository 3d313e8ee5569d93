//! What the program and its build script both know of a pattern. The build script reads those of
//! `config/secrets.yaml`, the program those of the user's file.

use serde::Deserialize;

/// Bytes in a row that keys are made of; ordinary words seldom have so many.
pub(super) const ROW: usize = 24;

/// One pattern of a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    /// What it becomes: `[redacted:kind]`.
    pub(super) kind: String,
    /// The regular expression.
    pub(super) pattern: String,
    /// Which matches count, if it says so.
    pub(super) only: Option<Only>,
}

/// Which matches count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Only {
    /// Every one.
    Any,
    /// One that is no placeholder.
    Meant,
    /// One that is no word either.
    NoWord,
    /// One that looks random, and is not part of something longer.
    Random,
}

/// Whether keys are made of such bytes: letters, digits, `_~.-`.
pub(super) fn in_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'~' | b'.' | b'-')
}
