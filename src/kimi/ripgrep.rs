//! ripgrep, with which both programs search. One that is not on `PATH` is fetched by Kimi itself.

use std::path::{Path, PathBuf};

use super::dialect::Dialect;
use super::{folders, home};
use crate::error::Result;
use crate::settings::{Environment, Loaded};

/// Where a search finds ripgrep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ripgrep {
    /// On `PATH`.
    OnPath(PathBuf),
    /// In a data folder of Kimi's, which fetched it.
    Fetched(PathBuf),
    /// Nowhere yet.
    Missing,
}

/// The one on `PATH`.
#[must_use]
pub fn on_path(environment: &Environment) -> Option<PathBuf> {
    which::which_in("rg", environment.var("PATH"), &environment.current_dir).ok()
}

/// The file with this configuration, in the folder of a run; an empty one is nobody's.
///
/// # Errors
/// [`crate::error::Kind::Spawn`] when it cannot be written.
pub fn configured(config: &str, run_dir: &Path) -> Result<PathBuf> {
    if config.is_empty() {
        return Ok("/dev/null".into());
    }
    let file = run_dir.join("ripgrep");
    folders::write_anew(&file, config.as_bytes())?;
    Ok(file)
}

/// Looks where a run of this dialect would find it.
#[must_use]
pub fn look(loaded: &Loaded, dialect: Dialect) -> Ripgrep {
    if let Some(path) = on_path(&loaded.environment) {
        return Ripgrep::OnPath(path);
    }
    let homes =
        [home::of_user(&loaded.environment, dialect), home::path(loaded.state_dir(), dialect)];
    let fetched = homes.map(|home| home.join("bin/rg")).into_iter().find(|path| path.is_file());
    fetched.map_or(Ripgrep::Missing, Ripgrep::Fetched)
}
