//! The file of a token, as both programs write it.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// The folder of tokens, in a data folder of either program.
pub(super) const FOLDER: &str = "credentials";
/// The most bytes of a token's file.
pub(super) const TOKEN_BYTES: u64 = 64 * 1024;
/// The most tokens that are looked for.
pub(super) const TOKENS: usize = 1_000;

/// The fields that both programs write, as far as they are no secret.
#[derive(Deserialize)]
pub(super) struct Stored {
    #[serde(default, deserialize_with = "is_text")]
    pub(super) access_token: bool,
    #[serde(default, deserialize_with = "is_text")]
    pub(super) refresh_token: bool,
    /// Seconds since 1970; 0 where the service did not say.
    #[serde(default)]
    pub(super) expires_at: f64,
}

/// Reads whether there is a text, without keeping it.
fn is_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer);
    text.map(|text| !text.is_empty()).map_err(|_| D::Error::custom("not a text"))
}

/// Whether a file holds a token that was renewed: kimi-code also writes one without any text, to mark a refused one.
pub(super) fn is_usable_token(bytes: &[u8]) -> bool {
    let stored = serde_json::from_slice(bytes);
    stored.is_ok_and(|Stored { access_token, refresh_token, .. }| access_token && refresh_token)
}
