//! A host of `config/hosts.yaml`, and the registrations in its table of servers. Skips servers that the host reaches by
//! URL instead of starting a program.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::registration::{DisabledReason, Registration, Scope};
use crate::documents::Format;
use crate::settings::Environment;

#[expect(clippy::expect_used, reason = "the file is compiled in, and tests read it")]
pub(super) static HOSTS: LazyLock<Vec<Host>> = LazyLock::new(|| {
    let file = include_str!("../../config/hosts.yaml");
    serde_yaml::from_str(file).expect("config/hosts.yaml is readable")
});

/// A program that starts MCP servers. `config/hosts.yaml` explains each field.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) programs: Vec<String>,
    folder: String,
    on_mac: Option<String>,
    moved_by: Option<String>,
    user: Vec<String>,
    project: Vec<String>,
    pub(crate) format: Format,
    servers: Vec<String>,
    pub(crate) entry: Map<String, Value>,
    #[serde(default)]
    off_if: BTreeMap<String, bool>,
    excluded: Option<String>,
    allowed: Option<String>,
    pub(crate) limit: Option<Limit>,
    #[serde(default)]
    pub(crate) inherits: bool,
    #[serde(default)]
    pub(crate) by_project: bool,
}

/// The host's time limit for a call.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    pub(crate) field: String,
    units: u32,
    pub(crate) usual: Option<f64>,
    pub(crate) remedy: String,
}

impl Limit {
    /// The time beyond a run's limit: for parsing an answer, and for a second turn if it cannot be parsed.
    const MARGIN_SECONDS: u64 = 100;

    /// Returns the limit, in the host's units, that is long enough for a run of this many seconds.
    pub(crate) fn enough(&self, longest_seconds: u64) -> u64 {
        (longest_seconds + Self::MARGIN_SECONDS) * u64::from(self.units)
    }
}

impl Host {
    /// Returns every file that may hold servers, the user's files first.
    pub(super) fn files(
        &self,
        environment: &Environment,
        projects: &[PathBuf],
    ) -> Vec<(Scope, PathBuf)> {
        let folder = self.user_folder(environment);
        let user_files = self.user.iter().map(|file| (Scope::User, folder.join(file)));
        let project_files = projects.iter().flat_map(|project| {
            self.project.iter().map(|file| (Scope::Project, project.join(file)))
        });
        user_files.chain(project_files).collect()
    }

    fn user_folder(&self, environment: &Environment) -> PathBuf {
        let moved = self.moved_by.as_deref().and_then(|variable| environment.var(variable));
        let home = &environment.home;
        let on_mac = self.on_mac.as_ref().filter(|_| cfg!(target_os = "macos"));
        let folder = on_mac.unwrap_or(&self.folder);
        match (moved, folder.strip_prefix("~/.config/")) {
            (Some(moved), _) => moved.into(),
            (None, Some(below)) => environment.config_dir.parent().unwrap_or(home).join(below),
            (None, None) => home.join(folder.trim_start_matches(['~', '/'])),
        }
    }

    /// Returns whether the host seems to be installed: one of its commands is on PATH, or its folder or one of its
    /// files exists.
    pub(crate) fn is_installed(&self, environment: &Environment) -> bool {
        let folder = self.user_folder(environment);
        self.program(environment).is_some()
            || self.user.iter().any(|file| folder.join(file).exists())
            || (folder != environment.home && folder.is_dir())
    }

    /// Finds the host's own command on PATH.
    pub(crate) fn program(&self, environment: &Environment) -> Option<PathBuf> {
        let path = environment.var("PATH");
        let found = |name: &String| which::which_in(name, path, &environment.current_dir).ok();
        self.programs.iter().find_map(found)
    }

    /// Returns the keys of the table of servers in a file, joined by dots. If the file has no table, returns the keys
    /// for a new one.
    pub(crate) fn table(&self, file: &Value) -> &str {
        let mut tables = self.servers.iter().filter(|keys| !value_at(file, keys).is_null());
        tables.next().or(self.servers.last()).map_or("", String::as_str)
    }

    /// Returns the table of servers in a file.
    pub(crate) fn servers<'a>(&self, file: &'a Value) -> &'a Value {
        value_at(file, self.table(file))
    }

    /// Returns the servers of a table that are started as a program.
    pub(super) fn registrations(
        &'static self,
        table: &Value,
        scope: Scope,
        file: &Value,
    ) -> Vec<Registration> {
        let read = |(name, entry): (&String, &Value)| {
            let (program, args, env) = command(entry)?;
            let (call_limit, off) = (self.call_limit(entry), self.off(name, entry, file));
            Some(Registration { name: name.clone(), scope, program, args, env, call_limit, off })
        };
        table.as_object().into_iter().flatten().filter_map(read).collect()
    }

    fn call_limit(&self, entry: &Value) -> Option<Duration> {
        let limit = self.limit.as_ref()?;
        let units = entry[&limit.field].as_f64().or(limit.usual)?;
        Duration::try_from_secs_f64(units / f64::from(limit.units)).ok()
    }

    fn off(&'static self, name: &str, entry: &Value, file: &Value) -> Option<DisabledReason> {
        let [excluded, allowed] = [&self.excluded, &self.allowed].map(Option::as_deref);
        let is_in = |keys: &&str| lists(value_at(file, keys), name);
        let is_missing_in = |keys: &&str| value_at(file, keys).is_array() && !is_in(keys);
        if self.off_if.iter().any(|(key, value)| entry[key] == *value) {
            return Some(DisabledReason::InItsEntry);
        }
        excluded.filter(is_in).or(allowed.filter(is_missing_in)).map(DisabledReason::InAList)
    }
}

/// Returns the value at a path of keys joined by dots; null if it does not exist.
pub(crate) fn value_at<'a>(file: &'a Value, keys: &str) -> &'a Value {
    keys.split('.').fold(file, |value, key| &value[key])
}

pub(super) fn lists(list: &Value, name: &str) -> bool {
    list.as_array().is_some_and(|names| names.iter().any(|one| one == name))
}

/// Returns the program, its arguments and its environment. The command of an entry is a text, a list or a table.
fn command(entry: &Value) -> Option<(String, Vec<String>, BTreeMap<String, String>)> {
    let command = &entry["command"];
    let holder = if command.is_object() { command } else { entry };
    let program = if command.is_object() { &command["path"] } else { command };
    let mut words = match program {
        Value::Array(words) => texts(words),
        program => vec![program.as_str()?.to_owned()],
    };
    words.extend(texts(holder["args"].as_array().map(Vec::as_slice).unwrap_or_default()));
    let variables =
        [&holder["env"], &holder["environment"]].into_iter().filter_map(Value::as_object);
    let env = variables.flatten().map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (name.clone(), value)
    });
    let program = if words.is_empty() { return None } else { words.remove(0) };
    Some((program, words, env.collect()))
}

fn texts(words: &[Value]) -> Vec<String> {
    words.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
