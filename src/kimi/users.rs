//! The user's own Kimi: its data folder and its settings. It changes neither.

use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::dialect::Dialect;
use super::untrusted;
use crate::documents;
use crate::error::{Error, Kind, Result};
use crate::settings::Environment;

/// The size limit of a file with settings.
pub(super) const CONFIG_BYTES: u64 = 4 * 1024 * 1024;

/// The user's own data folder of a dialect.
pub(crate) fn data_folder(environment: &Environment, dialect: Dialect) -> PathBuf {
    let set = environment.var(dialect.home_variable()).map(PathBuf::from);
    set.unwrap_or_else(|| environment.home.join(dialect.home_folder()))
}

/// Reads the user's own `config.toml`; a missing file counts as empty.
pub(super) fn config(user: &Path) -> Result<Table> {
    let file = user.join("config.toml");
    let text = untrusted::read(&file, CONFIG_BYTES)
        .and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
    match text {
        Ok(text) => documents::toml(&text).map_err(|why| unreadable(&file, &why)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Table::new()),
        Err(error) => Err(unreadable(&file, &error.to_string())),
    }
}

pub(super) fn unreadable(file: &Path, why: &str) -> Error {
    Error::new(
        Kind::Settings,
        format!("Kimi's {} cannot be used: {why}", file.display()),
        "Fix the file, or run `kimi` once, which says what is wrong with it.",
    )
}

/// The variables of kimi-cli for the key and the address of a provider with the protocol of `OpenAI`.
pub(super) const OPENAI: [&str; 2] = ["OPENAI_API_KEY", "OPENAI_BASE_URL"];

/// Returns whether the provider of the default model has the protocol of `OpenAI`.
pub(super) fn uses_openai(users: &Table, dialect: Dialect) -> bool {
    let text = |value: &Value, field: &str| Some(value.get(field)?.as_str()?.to_owned());
    let kind = || {
        let model = users.get("models")?.get(users.get("default_model")?.as_str()?)?;
        text(users.get("providers")?.get(text(model, "provider")?)?, "type")
    };
    dialect == Dialect::KimiCli && kind().is_some_and(|kind| kind.starts_with("openai_"))
}
