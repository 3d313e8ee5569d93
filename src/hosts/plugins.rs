//! Finds the bridge as a plugin of Claude Code or Codex. Both hosts record in their settings which plugins are enabled,
//! and keep each plugin's files in a folder of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::claude_code::{project_settings, user_folder};
use super::host::{HOSTS, Host};
use super::registration::{DisabledReason, Registration, Scope};
use crate::documents::{Format, read_or_null};
use crate::settings::Environment;

const NAME: &str = env!("CARGO_PKG_NAME");

/// The host, the plugin's file of servers, and the registrations in it.
type Plugin = (&'static Host, PathBuf, Vec<Registration>);

/// Finds the plugin's registrations in the hosts that have plugins.
pub(super) fn look(environment: &Environment, folders: &[PathBuf]) -> Vec<Plugin> {
    let mut found = Vec::new();
    for host in HOSTS.iter() {
        match host.name.as_str() {
            "Claude Code" => found.extend(in_claude_code(host, environment, folders)),
            "Codex" => found.extend(in_codex(host, environment)),
            _ => {}
        }
    }
    found
}

fn in_claude_code(
    host: &'static Host,
    environment: &Environment,
    folders: &[PathBuf],
) -> Vec<Plugin> {
    let user = user_folder(environment);
    let project_files = folders.iter().rev().flat_map(|folder| project_settings(folder));
    let files = std::iter::once(user.join("settings.json")).chain(project_files);
    let settings: Vec<Value> = files.map(|file| read_or_null(&file, Format::Json)).collect();
    let installed = read_or_null(&user.join("plugins/installed_plugins.json"), Format::Json);
    let plugins = installed["plugins"].as_object().into_iter().flatten();
    let ours = plugins.filter(|(plugin, _)| is_ours(plugin));
    let configs = ours.filter_map(|(plugin, installs)| {
        // The last file that has a value wins.
        let last = |field: fn(&Value, &str) -> Value| {
            let mut values = settings.iter().map(|settings| field(settings, plugin));
            values.rfind(|value| !value.is_null()).unwrap_or_default()
        };
        let enabled = last(|settings, plugin| settings["enabledPlugins"][plugin].clone());
        let options = last(|settings, plugin| settings["pluginConfigs"][plugin]["options"].clone());
        let root = PathBuf::from(installs.as_array()?.last()?["installPath"].as_str()?);
        let file = root.join(".claude-plugin/plugin.json");
        let manifest = read_or_null(&file, Format::Json);
        let mut found = host.registrations(&manifest["mcpServers"], Scope::Plugin, &Value::Null);
        for one in &mut found {
            resolve_launcher(one, &root, environment);
            for value in one.env.values_mut() {
                *value = with_option(value, &options, &manifest["userConfig"]);
            }
            one.off = (enabled != true).then_some(DisabledReason::WithItsPlugin);
        }
        Some((host, file, found))
    });
    configs.collect()
}

/// Replaces the plugin's launcher by the program that it starts: the first on PATH, in the usual folders, or among the
/// plugin's own npm modules.
fn resolve_launcher(one: &mut Registration, root: &Path, environment: &Environment) {
    NAME.clone_into(&mut one.name);
    if one.program.starts_with("${CLAUDE_PLUGIN_ROOT}/") {
        NAME.clone_into(&mut one.program);
        let path = environment.var("PATH").unwrap_or_default().to_owned();
        let others = [
            environment.home.join(".cargo/bin"),
            environment.home.join(".local/bin"),
            root.join("node_modules/.bin"),
        ];
        let path = others.iter().fold(path, |path, folder| format!("{path}:{}", folder.display()));
        one.env.insert("PATH".to_owned(), path);
    }
}

/// Returns a value of the manifest. A reference to an option is replaced by the user's choice, or by the option's
/// default.
fn with_option(value: &str, options: &Value, known: &Value) -> String {
    let name = value.strip_prefix("${user_config.").and_then(|rest| rest.strip_suffix('}'));
    let Some(name) = name else { return value.to_owned() };
    let chosen = if options[name].is_null() { &known[name]["default"] } else { &options[name] };
    chosen.as_str().map_or_else(|| chosen.to_string(), str::to_owned)
}

fn in_codex(host: &'static Host, environment: &Environment) -> Vec<Plugin> {
    let user = environment.var("CODEX_HOME").map(PathBuf::from);
    let user = user.unwrap_or_else(|| environment.home.join(".codex"));
    let config = read_or_null(&user.join("config.toml"), Format::Toml);
    let plugins: BTreeMap<_, _> = config["plugins"].as_object().into_iter().flatten().collect();
    let ours = plugins.into_iter().filter(|(plugin, _)| is_ours(plugin));
    let configs = ours.filter_map(|(plugin, entry)| {
        let (_, marketplace) = plugin.split_once('@')?;
        let versions = user.join("plugins/cache").join(marketplace).join(NAME);
        let versions = fs::read_dir(versions).ok()?.flatten();
        let newest = versions.map(|version| version.path()).max()?;
        let file = newest.join(".codex-plugin/mcp.json");
        let servers = read_or_null(&file, Format::Json);
        let mut found = host.registrations(&servers["mcpServers"], Scope::Plugin, &Value::Null);
        for one in found.iter_mut().filter(|_| entry["enabled"] == false) {
            one.off = Some(DisabledReason::WithItsPlugin);
        }
        Some((host, file, found))
    });
    configs.collect()
}

/// Returns whether `NAME@MARKETPLACE` is this plugin.
pub(super) fn is_ours(plugin: &str) -> bool {
    plugin.split('@').next() == Some(NAME)
}
