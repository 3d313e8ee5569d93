//! Which files each host reads.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::{Host, Scope};
use crate::settings::Environment;

/// The folders of the project: the current one, and the root of its git repository.
pub(super) fn project_folders(environment: &Environment) -> Vec<PathBuf> {
    let current = environment.project_dir();
    let root = current.ancestors().find(|folder| folder.join(".git").exists()).map(Path::to_owned);
    let root = root.filter(|root| *root != current);
    std::iter::once(current).chain(root).collect()
}

/// Every file that a host may have, in the order of the report.
pub(super) fn all(environment: &Environment, folders: &[PathBuf]) -> Vec<(Host, Scope, PathBuf)> {
    let home = &environment.home;
    let folder_in =
        |variable: &str, usual: PathBuf| environment.var(variable).map_or(usual, PathBuf::from);
    let config = environment.config_dir.parent().unwrap_or(home).to_owned();
    let of_user = [
        // Claude Code keeps this file beside its folder, or in the folder where that is moved.
        (Host::ClaudeCode, folder_in("CLAUDE_CONFIG_DIR", home.clone()).join(".claude.json")),
        (Host::Codex, folder_in("CODEX_HOME", home.join(".codex")).join("config.toml")),
        (Host::Cursor, home.join(".cursor/mcp.json")),
        (Host::VsCode, config.join("Code/User/mcp.json")),
        (Host::GeminiCli, home.join(".gemini/settings.json")),
        (Host::Opencode, config.join("opencode/opencode.json")),
        (Host::Opencode, config.join("opencode/opencode.jsonc")),
        (Host::Zed, config.join("zed/settings.json")),
    ];
    let of_project = [
        (Host::ClaudeCode, ".mcp.json"),
        (Host::Codex, ".codex/config.toml"),
        (Host::Cursor, ".cursor/mcp.json"),
        (Host::VsCode, ".vscode/mcp.json"),
        (Host::GeminiCli, ".gemini/settings.json"),
        (Host::Opencode, "opencode.json"),
        (Host::Opencode, "opencode.jsonc"),
        (Host::Zed, ".zed/settings.json"),
    ];
    let mut places = Vec::from(of_user.map(|(host, file)| (host, Scope::User, file)));
    for folder in folders {
        places.extend(of_project.map(|(host, file)| (host, Scope::Project, folder.join(file))));
    }
    // A project in the home itself.
    let mut known = HashSet::new();
    places.retain(|(_, _, file)| known.insert(file.clone()));
    places.sort_by_key(|(host, _, _)| *host);
    places
}
