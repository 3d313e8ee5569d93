//! Which files each host reads.

use std::path::{Path, PathBuf};

use super::{Host, Scope};
use crate::settings::Environment;

/// A file that a host may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: Host,
    pub(super) scope: Scope,
    pub(super) file: PathBuf,
    /// The folders that stand for the project.
    pub(super) folders: Vec<PathBuf>,
}

/// The folders that stand for the project: the current one, and the one that git counts from.
pub(super) fn project_folders(environment: &Environment) -> Vec<PathBuf> {
    let current = environment.project_dir();
    let root = current.ancestors().find(|folder| folder.join(".git").exists()).map(Path::to_owned);
    let root = root.filter(|root| *root != current);
    std::iter::once(current).chain(root).collect()
}

/// Every file that is looked for, in an order that a person can follow.
pub(super) fn all(environment: &Environment, folders: &[PathBuf]) -> Vec<Place> {
    let home = &environment.home;
    let moved = |variable: &str, usual: &str| {
        environment.var(variable).map_or_else(|| home.join(usual), PathBuf::from)
    };
    let config = environment.config_dir.parent().unwrap_or(home).to_owned();
    // Claude Code keeps this one beside its folder, or in it where the folder is moved.
    let claude = environment.var("CLAUDE_CONFIG_DIR").map_or_else(|| home.clone(), PathBuf::from);
    let of_user = [
        (Host::ClaudeCode, claude.join(".claude.json")),
        (Host::Codex, moved("CODEX_HOME", ".codex").join("config.toml")),
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
    let mut places: Vec<Place> = Vec::new();
    let mut add = |host, scope, file: PathBuf| {
        // A project in the home itself.
        if places.iter().all(|place| place.file != file) {
            places.push(Place { host, scope, file, folders: folders.to_vec() });
        }
    };
    for (host, file) in of_user {
        add(host, Scope::User, file);
    }
    for folder in folders {
        for (host, file) in of_project {
            add(host, Scope::Project, folder.join(file));
        }
    }
    places.sort_by_key(|place| place.host);
    places
}
