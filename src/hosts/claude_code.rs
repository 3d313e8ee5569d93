//! The registrations of Claude Code. Its one user file holds the servers for all projects and those for single
//! projects. The user can refuse the servers of a project's own file.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::host::{Host, lists};
use super::registration::{DisabledReason, Registration, Scope};
use crate::documents::{Format, read_or_null};
use crate::settings::Environment;

/// Reads the user's settings, which are another file than the one with the servers.
pub(super) fn settings(environment: &Environment) -> Value {
    read_or_null(&user_folder(environment).join("settings.json"), Format::Json)
}

pub(super) fn user_folder(environment: &Environment) -> PathBuf {
    let configured = environment.var("CLAUDE_CONFIG_DIR").map(PathBuf::from);
    configured.unwrap_or_else(|| environment.home.join(".claude"))
}

/// Returns the settings files in a folder of the project; the later one takes precedence.
pub(super) fn project_settings(folder: &Path) -> [PathBuf; 2] {
    ["settings.json", "settings.local.json"].map(|name| folder.join(".claude").join(name))
}

/// Returns the registrations in a user's or a project's file, with the reason for each that is off.
pub(super) fn registrations(
    host: &'static Host,
    file: &Value,
    scope: Scope,
    folders: &[PathBuf],
    environment: &Environment,
) -> Vec<Registration> {
    let mut found = host.registrations(host.servers(file), scope, file);
    let switch_off = |found: &mut Vec<Registration>, list: &Value, off| {
        for one in found.iter_mut().filter(|one| lists(list, &one.name)) {
            one.off = Some(off);
        }
    };
    if scope == Scope::Project {
        let project_files = folders.iter().flat_map(|folder| project_settings(folder));
        let files = project_files.chain([user_folder(environment).join("settings.json")]);
        let settings: Vec<Value> = files.map(|file| read_or_null(&file, Format::Json)).collect();
        let is_approved = |name: &str| {
            settings.iter().any(|settings| {
                settings["enableAllProjectMcpServers"] == true
                    || lists(&settings["enabledMcpjsonServers"], name)
            })
        };
        for one in found.iter_mut().filter(|one| !is_approved(&one.name)) {
            one.off = Some(DisabledReason::Unapproved);
        }
        for settings in &settings {
            switch_off(&mut found, &settings["disabledMcpjsonServers"], DisabledReason::Refused);
        }
        return found;
    }
    let projects = folders.iter().filter_map(|folder| file["projects"].get(folder.to_str()?));
    for project in projects.clone() {
        found.extend(host.registrations(&project["mcpServers"], Scope::Local, file));
    }
    for project in projects {
        switch_off(&mut found, &project["disabledMcpServers"], DisabledReason::ForThisProject);
    }
    found
}
