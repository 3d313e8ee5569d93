//! The bridge as a plugin. Claude Code and Codex write down which plugins are on beside their other settings, and keep the
//! files of each in a folder of their own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::claude_code;
use super::host::{HOSTS, Host};
use super::registration::{Off, Registration, Scope};
use crate::documents::{self, Format};
use crate::settings::Environment;

const NAME: &str = env!("CARGO_PKG_NAME");

/// The host, the file of the plugin that names its servers, and these.
type Plugin = (&'static Host, PathBuf, Vec<Registration>);

/// The servers of the plugin in the hosts that know plugins.
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
    let user = claude_code::user_folder(environment);
    let of_project = folders.iter().rev().flat_map(|folder| {
        ["settings.json", "settings.local.json"].map(|name| folder.join(".claude").join(name))
    });
    let files = std::iter::once(user.join("settings.json")).chain(of_project);
    let settings: Vec<Value> = files.map(|file| read(&file, Format::Json)).collect();
    let installed = read(&user.join("plugins/installed_plugins.json"), Format::Json);
    let plugins = installed["plugins"].as_object().into_iter().flatten();
    let ours = plugins.filter(|(plugin, _)| is_ours(plugin));
    let configs = ours.filter_map(|(plugin, installs)| {
        // The last file that says something wins.
        let last = |field: fn(&Value, &str) -> Value| {
            let mut said = settings.iter().map(|settings| field(settings, plugin));
            said.rfind(|value| !value.is_null()).unwrap_or_default()
        };
        let enabled = last(|settings, plugin| settings["enabledPlugins"][plugin].clone());
        let options = last(|settings, plugin| settings["pluginConfigs"][plugin]["options"].clone());
        let root = PathBuf::from(installs.as_array()?.last()?["installPath"].as_str()?);
        let file = root.join(".claude-plugin/plugin.json");
        let manifest = read(&file, Format::Json);
        let mut found = host.registrations(&manifest["mcpServers"], Scope::Plugin, &Value::Null);
        for one in &mut found {
            launched(one, &root, environment);
            for value in one.env.values_mut() {
                *value = filled(value, &options, &manifest["userConfig"]);
            }
            one.off = (enabled != true).then_some(Off::WithItsPlugin);
        }
        Some((host, file, found))
    });
    configs.collect()
}

/// The launcher of the plugin starts the program on PATH, in the usual folders, or the one that npm put into the plugin.
fn launched(one: &mut Registration, root: &Path, environment: &Environment) {
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

/// A value of the manifest with the person's option in it, or with the option's default.
fn filled(value: &str, options: &Value, known: &Value) -> String {
    let name = value.strip_prefix("${user_config.").and_then(|rest| rest.strip_suffix('}'));
    let Some(name) = name else { return value.to_owned() };
    let chosen = if options[name].is_null() { &known[name]["default"] } else { &options[name] };
    chosen.as_str().map_or_else(|| chosen.to_string(), str::to_owned)
}

fn in_codex(host: &'static Host, environment: &Environment) -> Vec<Plugin> {
    let user = environment.var("CODEX_HOME").map(PathBuf::from);
    let user = user.unwrap_or_else(|| environment.home.join(".codex"));
    let config = read(&user.join("config.toml"), Format::Toml);
    let plugins: BTreeMap<_, _> = config["plugins"].as_object().into_iter().flatten().collect();
    let ours = plugins.into_iter().filter(|(plugin, _)| is_ours(plugin));
    let configs = ours.filter_map(|(plugin, entry)| {
        let (_, marketplace) = plugin.split_once('@')?;
        let versions = user.join("plugins/cache").join(marketplace).join(NAME);
        let versions = fs::read_dir(versions).ok()?.flatten();
        let newest = versions.map(|version| version.path()).max()?;
        let file = newest.join(".codex-plugin/mcp.json");
        let servers = read(&file, Format::Json);
        let mut found = host.registrations(&servers["mcpServers"], Scope::Plugin, &Value::Null);
        for one in found.iter_mut().filter(|_| entry["enabled"] == false) {
            one.off = Some(Off::WithItsPlugin);
        }
        Some((host, file, found))
    });
    configs.collect()
}

/// Whether `NAME@MARKETPLACE` is this plugin.
fn is_ours(plugin: &str) -> bool {
    plugin.split('@').next() == Some(NAME)
}

/// The value of a file; null where there is none, or where it cannot be read: another check says so.
fn read(file: &Path, format: Format) -> Value {
    let text = documents::read(file).unwrap_or_default();
    documents::parse(&text, format).unwrap_or_default()
}
