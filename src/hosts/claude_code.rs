//! Claude Code's own ways: one file of the user's holds the servers of every project beside those for
//! all, and servers of a project's own file can be refused.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::servers::{self, lists};
use super::{Host, Off, Registration, Scope};
use crate::documents::{self, Json};
use crate::settings::Environment;

/// The registrations in one of its two kinds of files.
pub(super) fn registrations(
    file: &Value,
    scope: Scope,
    folders: &[PathBuf],
    environment: &Environment,
) -> Vec<Registration> {
    let of = |table: Option<&Map<String, Value>>, scope| {
        servers::of(table, Host::ClaudeCode, scope, file)
    };
    let mut found = of(servers::table(Host::ClaudeCode, file), scope);
    let switch_off = |found: &mut Vec<Registration>, list: &Value, off| {
        for one in found.iter_mut().filter(|one| lists(list, &one.name)) {
            one.off = Some(off);
        }
    };
    match scope {
        Scope::User | Scope::Local => {
            let project = |folder: &PathBuf| file["projects"].get(folder.to_str()?);
            for project in folders.iter().filter_map(project) {
                found.extend(of(project["mcpServers"].as_object(), Scope::Local));
            }
            for project in folders.iter().filter_map(project) {
                switch_off(&mut found, &project["disabledMcpServers"], Off::ForThisProject);
            }
        }
        Scope::Project => {
            let user = environment.var("CLAUDE_CONFIG_DIR").map(PathBuf::from);
            let user = user.unwrap_or_else(|| environment.home.join(".claude"));
            let of_project = folders.iter().flat_map(|folder| {
                ["settings.json", "settings.local.json"]
                    .map(|name| folder.join(".claude").join(name))
            });
            for settings in of_project.chain([user.join("settings.json")]) {
                if let Some(refused) = refused(&settings) {
                    switch_off(&mut found, &refused, Off::Refused);
                }
            }
        }
    }
    found
}

/// The list of refused servers in a file of settings.
fn refused(settings: &Path) -> Option<Value> {
    let text = fs::read_to_string(settings).ok()?;
    let mut settings = documents::json(&text, Json::Strict).ok()?;
    Some(settings["disabledMcpjsonServers"].take())
}
