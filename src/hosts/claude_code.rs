//! Claude Code's own ways: one file of the user's holds the servers of every project beside those for
//! all, and what a project brings along may be refused.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::places::Place;
use super::{Host, Off, Registration, Scope, servers};
use crate::documents::{self, Json};
use crate::settings::Environment;

/// What one of its two kinds of files registers.
pub(super) fn registrations(
    file: &Value,
    place: &Place,
    environment: &Environment,
) -> Vec<Registration> {
    let of = |table: Option<&Map<String, Value>>, scope| {
        servers::of(table, Host::ClaudeCode, scope, file)
    };
    let mut found = of(servers::table(Host::ClaudeCode, file), place.scope);
    match place.scope {
        Scope::User | Scope::Local => {
            let projects = place.folders.iter().filter_map(|folder| project(file, folder));
            let projects: Vec<&Value> = projects.collect();
            for of_project in &projects {
                found.extend(of(of_project["mcpServers"].as_object(), Scope::Local));
            }
            for one in &mut found {
                if projects.iter().any(|project| holds(&project["disabledMcpServers"], &one.name)) {
                    one.off = Some(Off::ForThisProject);
                }
            }
        }
        Scope::Project => {
            let refused = refused(place, environment);
            for one in &mut found {
                if refused.iter().any(|list| holds(list, &one.name)) {
                    one.off = Some(Off::Refused);
                }
            }
        }
    }
    found
}

/// What the user's file holds about a project.
fn project<'a>(file: &'a Value, folder: &Path) -> Option<&'a Value> {
    file["projects"].get(folder.to_str()?)
}

/// The lists of what was refused, of the project's settings and the user's.
fn refused(place: &Place, environment: &Environment) -> Vec<Value> {
    let user = environment.var("CLAUDE_CONFIG_DIR").map(PathBuf::from);
    let user = user.unwrap_or_else(|| environment.home.join(".claude"));
    let of_project = place.folders.iter().flat_map(|folder| {
        ["settings.json", "settings.local.json"].map(|name| folder.join(".claude").join(name))
    });
    let read = |file: PathBuf| {
        let text = fs::read_to_string(file).ok()?;
        let mut settings = documents::json(&text, Json::Strict).ok()?;
        Some(settings["disabledMcpjsonServers"].take())
    };
    of_project.chain([user.join("settings.json")]).filter_map(read).collect()
}

fn holds(list: &Value, name: &str) -> bool {
    list.as_array().is_some_and(|names| names.iter().any(|one| one.as_str() == Some(name)))
}
