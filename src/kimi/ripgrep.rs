//! ripgrep, which both programs use for searches. Without one on `PATH`, Kimi fetches it into its data folder. The
//! bridge never runs a ripgrep from a private home.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::dialect::Dialect;
use super::{folders, users};
use crate::error::Result;
use crate::settings::{Config, Environment};

/// The ripgrep of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ripgrep {
    /// The ripgrep on `PATH`.
    OnPath(PathBuf),
    /// The ripgrep that the user's own Kimi fetched.
    Fetched(PathBuf),
    /// No ripgrep was found.
    Missing,
}

/// Returns the ripgrep on `PATH`.
pub(crate) fn on_path(environment: &Environment) -> Option<PathBuf> {
    which::which_in("rg", environment.var("PATH"), &environment.current_dir).ok()
}

/// Returns the ripgrep that the user's own Kimi fetched, if none is on `PATH`.
pub(crate) fn fetched(environment: &Environment, dialect: Dialect) -> Option<PathBuf> {
    let file = users::data_folder(environment, dialect).join("bin/rg");
    let metadata = fs::symlink_metadata(&file).ok()?;
    let is_program = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
    (is_program && on_path(environment).is_none()).then_some(file)
}

/// Finds the ripgrep of a run.
pub(crate) fn find(config: &Config, dialect: Dialect) -> Ripgrep {
    let environment = &config.environment;
    let on_path = on_path(environment).map(Ripgrep::OnPath);
    let found = on_path.or_else(|| fetched(environment, dialect).map(Ripgrep::Fetched));
    found.unwrap_or(Ripgrep::Missing)
}

/// Adds the folder of a fetched ripgrep to the child's `PATH`. Returns a warning if there is no ripgrep.
pub(crate) fn provide(
    child: &mut BTreeMap<String, String>,
    environment: &Environment,
    dialect: Dialect,
) -> Option<String> {
    if on_path(environment).is_some() {
        return None;
    }
    let file = fetched(environment, dialect);
    let Some(folder) = file.as_deref().and_then(Path::parent) else {
        return Some(format!(
            "Kimi could not {}, because ripgrep (`rg`) is not on PATH",
            tasks(dialect)
        ));
    };
    let path = child.entry("PATH".to_owned()).or_default();
    if !path.is_empty() {
        path.push(':');
    }
    path.push_str(&folder.display().to_string());
    None
}

/// The tasks for which a dialect needs ripgrep, by the sources of the tested versions and a run without ripgrep.
pub(crate) fn tasks(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::KimiCode => "search contents or find files by name",
        // The Glob of kimi-cli is written in Python.
        Dialect::KimiCli => "search contents",
    }
}

/// Writes a configuration into the folder of a run, and returns its path: `/dev/null` for an empty one.
pub(crate) fn write_config(config: &str, run_dir: &Path) -> Result<PathBuf> {
    if config.is_empty() {
        return Ok("/dev/null".into());
    }
    let file = run_dir.join("ripgrep");
    folders::write_new(&file, config.as_bytes())?;
    Ok(file)
}
