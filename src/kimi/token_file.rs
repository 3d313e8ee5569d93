//! The file of a token, as both programs write it. No text of a token is kept.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// The folder of tokens, in the data folder of both programs.
pub(super) const FOLDER: &str = "credentials";
/// The most bytes of a token's file.
pub(super) const TOKEN_BYTES: u64 = 64 * 1024;
/// The most tokens that are listed.
pub(super) const TOKENS: usize = 1_000;

/// The fields that both programs write. Of a secret field, only its presence is read.
#[derive(Deserialize)]
pub(super) struct Stored {
    #[serde(default, deserialize_with = "is_text")]
    pub(super) access_token: bool,
    #[serde(default, deserialize_with = "is_text")]
    pub(super) refresh_token: bool,
    /// Seconds since 1970; 0 if the service sent no expiry.
    #[serde(default)]
    pub(super) expires_at: f64,
}

/// Returns whether a field is a text that is not empty.
fn is_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer);
    text.map(|text| !text.is_empty()).map_err(|_| D::Error::custom("not a text"))
}

/// Returns whether a file holds a usable token. kimi-code empties the fields of a refused one.
pub(super) fn is_usable_token(bytes: &[u8]) -> bool {
    let stored = serde_json::from_slice(bytes);
    stored.is_ok_and(|Stored { access_token, refresh_token, .. }| access_token && refresh_token)
}
