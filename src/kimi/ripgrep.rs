//! ripgrep, with which both programs search. One that is not on `PATH` is fetched by Kimi itself, into its data
//! folder; in a private home that copy is never run.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::dialect::Dialect;
use super::{folders, users};
use crate::error::Result;
use crate::settings::{Environment, Loaded};

/// The place where a search finds ripgrep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ripgrep {
    /// On `PATH`.
    OnPath(PathBuf),
    /// In the user's own data folder of Kimi, which fetched it.
    Fetched(PathBuf),
    /// Nowhere.
    Missing,
}

/// The ripgrep on `PATH`.
pub(crate) fn on_path(environment: &Environment) -> Option<PathBuf> {
    which::which_in("rg", environment.var("PATH"), &environment.current_dir).ok()
}

/// The ripgrep that the user's own Kimi fetched, where none is on `PATH`.
pub(crate) fn fetched(environment: &Environment, dialect: Dialect) -> Option<PathBuf> {
    let file = users::data_folder(environment, dialect).join("bin/rg");
    let metadata = fs::symlink_metadata(&file).ok()?;
    let is_program = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
    (is_program && on_path(environment).is_none()).then_some(file)
}

/// Looks where a run of this dialect would find it.
pub(crate) fn look(loaded: &Loaded, dialect: Dialect) -> Ripgrep {
    let environment = &loaded.environment;
    let on_path = on_path(environment).map(Ripgrep::OnPath);
    let found = on_path.or_else(|| fetched(environment, dialect).map(Ripgrep::Fetched));
    found.unwrap_or(Ripgrep::Missing)
}

/// Adds the folder of the user's own ripgrep to the child's `PATH`, where that one is used, and returns a warning where
/// there is none at all.
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
            "Kimi could not {}: that needs ripgrep (`rg`) on PATH",
            impossible_without(dialect)
        ));
    };
    let path = child.entry("PATH".to_owned()).or_default();
    if !path.is_empty() {
        path.push(':');
    }
    path.push_str(&folder.display().to_string());
    None
}

/// The work that a dialect cannot do without ripgrep (its sources and a run without one, versions as tested).
pub(crate) fn impossible_without(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::KimiCode => "search contents or find files by name",
        // Its Glob is Python's.
        Dialect::KimiCli => "search contents",
    }
}

/// The file with this configuration, in the folder of a run; an empty one is nobody's.
pub(crate) fn configured(config: &str, run_dir: &Path) -> Result<PathBuf> {
    if config.is_empty() {
        return Ok("/dev/null".into());
    }
    let file = run_dir.join("ripgrep");
    folders::write_anew(&file, config.as_bytes())?;
    Ok(file)
}
