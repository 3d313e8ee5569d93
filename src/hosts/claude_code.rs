//! Claude Code's own ways: one file of the user's holds the servers of every project beside those for
//! all, and servers of a project's own file can be refused.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::host::{Host, lists};
use super::registration::{Off, Registration, Scope};
use crate::documents::{self, Format};
use crate::settings::Environment;

/// The registrations in one of its two kinds of files.
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
        let user = environment.var("CLAUDE_CONFIG_DIR").map(PathBuf::from);
        let user = user.unwrap_or_else(|| environment.home.join(".claude"));
        let of_project = folders.iter().flat_map(|folder| {
            ["settings.json", "settings.local.json"].map(|name| folder.join(".claude").join(name))
        });
        let files = of_project.chain([user.join("settings.json")]);
        let settings: Vec<Value> = files
            .map(|file| {
                let text = fs::read_to_string(file).unwrap_or_default();
                documents::parse(&text, Format::Json).unwrap_or_default()
            })
            .collect();
        let is_approved = |name: &str| {
            settings.iter().any(|settings| {
                settings["enableAllProjectMcpServers"] == true
                    || lists(&settings["enabledMcpjsonServers"], name)
            })
        };
        for one in found.iter_mut().filter(|one| !is_approved(&one.name)) {
            one.off = Some(Off::Unapproved);
        }
        for settings in &settings {
            switch_off(&mut found, &settings["disabledMcpjsonServers"], Off::Refused);
        }
        return found;
    }
    let projects = folders.iter().filter_map(|folder| file["projects"].get(folder.to_str()?));
    for project in projects.clone() {
        found.extend(host.registrations(&project["mcpServers"], Scope::Local, file));
    }
    for project in projects {
        switch_off(&mut found, &project["disabledMcpServers"], Off::ForThisProject);
    }
    found
}
