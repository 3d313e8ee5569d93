//! The settings, from four layers in ascending order: the built-in `config/settings.yaml`, the user's `settings.yaml`,
//! `KIMI_BRIDGE_*`, and the command line. One error names the problems of all layers. Only this file reads the environment.

mod mode;

mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use self::mode::Mode;
use crate::error::{Error, Kind, Result, Violation};

pub(crate) use self::values::switch;
use self::values::{form, out_of_range};

/// The built-in layer, which lists all settings.
const BUILT_IN: &str = include_str!("../config/settings.yaml");

const PREFIX: &str = "KIMI_BRIDGE_";
/// The settings that are paths.
const PATHS: [&str; 3] = ["state_dir", "kimi_path", "readable"];

/// Every setting; `config/settings.yaml` describes each.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "a person sets each by its name")]
pub(crate) struct Settings {
    pub tool_enabled: bool,
    pub auto_enabled: bool,
    pub debug: bool,
    pub lang: Option<String>,
    pub kimi_path: Option<PathBuf>,
    pub state_dir: Option<PathBuf>,
    pub timeout_seconds: u64,
    pub first_line_seconds: u64,
    pub silence_seconds: u64,
    pub grace_seconds: u64,
    pub heartbeat_seconds: u64,
    pub max_line_bytes: usize,
    pub max_run_bytes: u64,
    pub repair: bool,
    pub judge_both_orders: bool,
    pub max_prompt_bytes: usize,
    pub max_transcript_bytes: u64,
    pub transcript_days: u64,
    pub session_days: u64,
    pub max_result_chars: usize,
    pub private_prompts: bool,
    pub sandbox: SandboxSetting,
    pub readable: Vec<PathBuf>,
    pub keeper: bool,
    pub max_parallel: usize,
}

/// The use of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SandboxSetting {
    /// If the kernel has one.
    Auto,
    /// Always; without one every question is refused.
    Required,
    /// Never.
    Off,
}

impl Settings {
    /// The mode by the two flags.
    fn mode(&self) -> Mode {
        match (self.tool_enabled, self.auto_enabled) {
            (false, _) => Mode::Disabled,
            (true, false) => Mode::Manual,
            (true, true) => Mode::Auto,
        }
    }
}

/// The process's environment, read once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    /// Every variable whose name is UTF-8; other bytes in a value are replaced.
    pub vars: Arc<[(String, String)]>,
    /// The user's home folder.
    pub home: PathBuf,
    /// The folder of the user's `settings.yaml`.
    pub config_dir: PathBuf,
    /// The default state folder.
    pub state_dir: PathBuf,
    /// The folder in which the process was started.
    pub current_dir: PathBuf,
    /// The file of this program, if it is known.
    pub program: Option<PathBuf>,
}

impl Environment {
    /// Reads the environment of this process.
    pub(crate) fn of_this_process() -> Result<Environment> {
        let unusable = |what: &str, why: &dyn std::fmt::Display| {
            let hint = "Start kimi-bridge from an existing folder, with HOME (and XDG_CONFIG_HOME and XDG_STATE_HOME, if they \
                        are set) naming paths in UTF-8.";
            Error::new(Kind::Settings, format!("{what}: {why}"), hint)
        };
        let dirs = etcetera::base_strategy::Xdg::new()
            .map_err(|error| unusable("no home folder", &error))?;
        let current_dir =
            std::env::current_dir().map_err(|error| unusable("no current folder", &error))?;
        let state = dirs.state_dir().unwrap_or_else(|| dirs.data_dir());
        for path in [dirs.home_dir(), &dirs.config_dir(), &state] {
            if path.to_str().is_none() {
                return Err(unusable(&path.display().to_string(), &"the path is not UTF-8"));
            }
        }
        Ok(Environment {
            vars: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
                })
                .collect(),
            home: dirs.home_dir().to_owned(),
            config_dir: dirs.config_dir().join("kimi-bridge"),
            state_dir: state.join("kimi-bridge"),
            current_dir,
            program: std::env::current_exe().ok(),
        })
    }

    /// The value of a variable that is set.
    pub(crate) fn var(&self, name: &str) -> Option<&str> {
        let (_, value) = self.vars.iter().find(|(known, _)| known == name)?;
        Some(value.as_str()).filter(|value| is_set(value))
    }

    /// Returns whether Claude Code started this process as a part of a plugin.
    pub(crate) fn is_in_a_plugin(&self) -> bool {
        self.var("CLAUDE_PLUGIN_ROOT").is_some()
    }

    /// The project of a request that names none: the folder that the host names, or else the current one.
    pub(crate) fn project_dir(&self) -> PathBuf {
        self.var("CLAUDE_PROJECT_DIR").map_or_else(|| self.current_dir.clone(), PathBuf::from)
    }
}

/// Returns whether a variable has a value. An empty one counts as unset, and so does a placeholder that the host did not
/// replace (`${user_config.auto}`).
fn is_set(value: &str) -> bool {
    !(value.is_empty() || value.starts_with("${") && value.ends_with('}'))
}

/// The settings in force, and the environment that they came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// The settings in force.
    pub settings: Settings,
    /// The environment of the process.
    pub environment: Environment,
    /// The layer of each setting that is not the built-in default.
    pub sources: BTreeMap<String, String>,
    /// `KIMI_BRIDGE_*` variables without a setting. They are not refused, since another version of the bridge may share
    /// the environment.
    pub unknown: Vec<String>,
    /// The values that were left out, each with its source.
    pub misfits: Vec<Violation>,
}

impl Config {
    /// The mode. An unusable value of any setting disables the tool, since it may have been a limit.
    pub(crate) fn mode(&self) -> Mode {
        if self.misfits.is_empty() { self.settings.mode() } else { Mode::Disabled }
    }

    /// The mode in words, and how to change it.
    pub(crate) fn mode_hint(&self) -> String {
        if self.misfits.is_empty() {
            return self.mode().hint(self.environment.is_in_a_plugin()).to_owned();
        }
        let misfits: Vec<String> = self.misfits.iter().map(ToString::to_string).collect();
        format!(
            "consult_kimi is off, because a setting cannot be used. {}. The user fixes or removes it at the place that \
             is named first, then restarts the server.",
            misfits.join("; ")
        )
    }

    /// The folder for private homes, sessions and caches.
    pub(crate) fn state_dir(&self) -> &Path {
        self.settings.state_dir.as_deref().unwrap_or(&self.environment.state_dir)
    }

    /// The settings that are not the built-in default, as `name = value, by layer`.
    pub(crate) fn changed(&self) -> Vec<String> {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Array(items) => {
                items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(":")
            }
            other => other.to_string(),
        };
        let defaults = Value::Object(built_in());
        let now = serde_json::json!(self.settings);
        let changed = self.sources.iter().filter(|(name, _)| now[name] != defaults[name]);
        changed
            .map(|(name, source)| format!("{name} = {}, by {source}", text(&now[name])))
            .collect()
    }
}

fn built_in() -> Map<String, Value> {
    serde_yaml::from_str(BUILT_IN).unwrap_or_default()
}

/// The variable that was probably meant by one that no setting knows.
pub(crate) fn nearest_variable(unknown: &str) -> Option<String> {
    let known = built_in();
    let names = known.keys().map(String::as_str);
    let near = nearest(&unknown.strip_prefix(PREFIX)?.to_lowercase(), names)?.to_uppercase();
    Some(format!("{PREFIX}{near}"))
}

/// Reads all layers, and leaves out the values that do not fit. `overrides` are the command line's, by setting name.
pub(crate) fn load_what_fits(
    environment: Environment,
    overrides: &[(&str, String)],
) -> Result<Config> {
    let mut layers = Layers {
        home: environment.home.clone(),
        base: built_in(),
        sources: BTreeMap::new(),
        problems: Vec::new(),
    };
    let mut unknown = Vec::new();
    let file = environment.config_dir.join("settings.yaml");
    match std::fs::read_to_string(&file) {
        Ok(text) => layers.add_file(&file, &text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => layers.problem(&file.display().to_string(), error.to_string()),
    }
    if let Some(path) = environment.var("KIMI_PATH") {
        layers.add_text("kimi_path", path, "KIMI_PATH");
    }
    let ours = |(name, value): &&(String, String)| name.starts_with(PREFIX) && is_set(value);
    let mut ours: Vec<_> = environment.vars.iter().filter(ours).collect();
    ours.sort_unstable();
    for (name, value) in ours {
        let setting = name[PREFIX.len()..].to_lowercase();
        if layers.base.contains_key(&setting) {
            layers.add_text(&setting, value, name);
        } else {
            unknown.push(name.clone());
        }
    }
    for (setting, value) in overrides {
        layers.add_text(setting, value, "the command line");
    }
    let Layers { base, sources, problems: misfits, .. } = layers;
    let settings = serde_json::from_value(Value::Object(base))
        .map_err(|error| unusable(vec![Violation::new("settings", error.to_string())]))?;
    Ok(Config { settings, environment, sources, unknown, misfits })
}

/// The merge of the layers: the values so far, their sources, and the problems.
struct Layers {
    home: PathBuf,
    base: Map<String, Value>,
    sources: BTreeMap<String, String>,
    problems: Vec<Violation>,
}

impl Layers {
    fn problem(&mut self, place: &str, expected: impl Into<String>) {
        self.problems.push(Violation::new(place, expected));
    }

    fn add_file(&mut self, file: &Path, text: &str) {
        let place = file.display().to_string();
        let text = text.trim_start_matches('\u{feff}');
        let mapping = match serde_yaml::from_str::<Option<serde_yaml::Mapping>>(text) {
            Ok(mapping) => mapping.unwrap_or_default(),
            Err(error) => return self.problem(&place, format!("not a YAML mapping: {error}")),
        };
        for (key, value) in mapping {
            let key = key.as_str().map_or_else(|| format!("{key:?}"), str::to_owned);
            match serde_json::to_value(value) {
                Ok(value) => self.set(&key, value, &place),
                Err(error) => self.problem(&place, format!("{key}: {error}")),
            }
        }
    }

    /// A value that came as text takes the type of the built-in default.
    fn add_text(&mut self, setting: &str, text: &str, source: &str) {
        let value = match self.base.get(setting) {
            Some(Value::Array(_)) => {
                let items = text.split(':').filter(|item| !item.is_empty());
                Value::Array(items.map(Value::from).collect())
            }
            _ => Value::String(text.to_owned()),
        };
        self.set(setting, value, source);
    }

    fn set(&mut self, setting: &str, value: Value, source: &str) {
        if !self.base.contains_key(setting) {
            let known = self.base.keys().map(String::as_str);
            let did_you_mean = nearest(setting, known).map(str::to_owned);
            let problem = Violation::new(source, format!("there is no setting `{setting}`"));
            return self.problems.push(Violation { did_you_mean, ..problem });
        }
        let value = match (&self.base[setting], value) {
            (Value::Bool(_), value) => switch(&value).map_or(value, Value::Bool),
            (Value::Number(_), Value::String(text)) => {
                text.trim().parse::<u64>().map_or(Value::String(text), Value::from)
            }
            (_, value) => value,
        };
        let value = match value {
            paths if PATHS.contains(&setting) => self.expand(paths),
            // YAML reads a bare `off` as a truth value.
            Value::Bool(false) if setting == "sandbox" => "off".into(),
            value => value,
        };
        let mut tried = self.base.clone();
        tried.insert(setting.to_owned(), value);
        let fits = serde_json::from_value::<Settings>(Value::Object(tried.clone()));
        let problem = match fits {
            Ok(_) => out_of_range(setting, &tried[setting]),
            Err(_) => Some(form(setting, &self.base[setting]).to_owned()),
        };
        if let Some(problem) = problem {
            return self.problem(source, format!("{setting}: {problem}"));
        }
        self.base = tried;
        self.sources.insert(setting.to_owned(), source.to_owned());
    }

    /// Expands `~/` at the beginning of a path, or of each path of a list.
    fn expand(&self, value: Value) -> Value {
        match value {
            Value::String(path) => match path.strip_prefix("~/") {
                Some(rest) => self.home.join(rest).display().to_string().into(),
                None => path.into(),
            },
            Value::Array(paths) => paths.into_iter().map(|path| self.expand(path)).collect(),
            other => other,
        }
    }
}

/// The known name nearest to a misspelt one, if it is similar enough.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// The error for settings that do not fit.
pub(crate) fn unusable(violations: Vec<Violation>) -> Error {
    Error { violations, ..Error::from_kind(Kind::Settings, "the settings cannot be used") }
}

#[cfg(test)]
pub(crate) fn load(environment: Environment, overrides: &[(&str, String)]) -> Result<Config> {
    let config = load_what_fits(environment, overrides)?;
    if config.misfits.is_empty() { Ok(config) } else { Err(unusable(config.misfits)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(vars: &[(&str, &str)]) -> Environment {
        Environment {
            vars: vars.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            config_dir: "/nowhere".into(),
            ..Environment::default()
        }
    }

    #[test]
    fn no_file_of_config_names_a_key_twice() {
        let read = |text: &str| serde_yaml::from_str::<serde_yaml::Value>(text);
        assert!(read("a: {b: 1, b: 2}").is_err());
        for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config")).unwrap() {
            let path = file.unwrap().path();
            let found = read(&std::fs::read_to_string(&path).unwrap());
            assert!(found.is_ok(), "{}: {found:?}", path.display());
        }
    }

    #[test]
    fn the_built_in_file_holds_every_setting() {
        let config = load(environment(&[]), &[]).unwrap();
        let built_in: Map<String, Value> = serde_yaml::from_str(BUILT_IN).unwrap();
        let fields = serde_json::to_value(&config.settings).unwrap();
        let fields: Vec<_> = fields.as_object().unwrap().keys().cloned().collect();
        let keys: Vec<_> = built_in.keys().cloned().collect();
        assert_eq!(keys, fields);
        assert_eq!(config.mode(), Mode::Disabled);
    }

    #[test]
    fn each_layer_overrides_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("settings.yaml"),
            "timeout_seconds: 10\nsilence_seconds: 20\nlang: [de]\n",
        )
        .unwrap();
        let vars = [
            ("KIMI_BRIDGE_SILENCE_SECONDS", "30"),
            ("KIMI_BRIDGE_TOOL_ENABLED", "1"),
            ("KIMI_PATH", "/k"),
        ];
        let environment = Environment { config_dir: dir.path().into(), ..environment(&vars) };
        let error = load(environment.clone(), &[]).unwrap_err();
        assert_eq!(error.violations[0].expected, "lang: expected a text");

        std::fs::write(
            dir.path().join("settings.yaml"),
            "timeout_seconds: 10\nsilence_seconds: 20\n",
        )
        .unwrap();
        let config = load(environment, &[("timeout_seconds", "5".into())]).unwrap();
        let settings = &config.settings;
        assert_eq!((settings.timeout_seconds, settings.silence_seconds), (5, 30));
        assert_eq!(config.mode(), Mode::Manual);
        assert_eq!(settings.kimi_path, Some("/k".into()));
        assert_eq!(config.sources["timeout_seconds"], "the command line");
        assert_eq!(config.sources["silence_seconds"], "KIMI_BRIDGE_SILENCE_SECONDS");
    }

    #[test]
    fn paths_are_expanded_and_must_be_absolute() {
        let home =
            Environment { home: "/home/me".into(), ..environment(&[("KIMI_PATH", "~/bin/kimi")]) };
        let config = load(home.clone(), &[("state_dir", "~/kb".into())]).unwrap();
        assert_eq!(config.state_dir(), Path::new("/home/me/kb"));
        assert_eq!(config.settings.kimi_path, Some("/home/me/bin/kimi".into()));
        let error = load(home, &[("state_dir", "rel".into())]).unwrap_err();
        let expected = "state_dir: expected an absolute path, or one that begins with ~/";
        assert_eq!(error.violations[0].expected, expected);
    }

    #[test]
    fn a_placeholder_that_no_host_replaced_counts_as_unset() {
        let vars = [
            ("KIMI_BRIDGE_AUTO_ENABLED", "${user_config.auto}"),
            ("KIMI_BRIDGE_TIMEOUT_SECONDS", "${TIMEOUT:-}"),
            ("KIMI_BRIDGE_TYPO", "${TYPO}"),
            ("KIMI_BRIDGE_TOOL_ENABLED", "y"),
            ("KIMI_PATH", "${KIMI_PATH}"),
            ("CLAUDE_PROJECT_DIR", "${CLAUDE_PROJECT_DIR}"),
        ];
        let config = load(environment(&vars), &[]).unwrap();
        assert_eq!(config.mode(), Mode::Manual);
        assert_eq!(config.sources.keys().collect::<Vec<_>>(), ["tool_enabled"]);
        assert_eq!((config.settings.kimi_path.as_ref(), config.unknown.len()), (None, 0));
        assert_eq!(config.environment.project_dir(), config.environment.current_dir);
    }

    #[test]
    fn a_value_that_does_not_fit_switches_the_tool_off_and_says_so() {
        let vars = [("KIMI_BRIDGE_TOOL_ENABLED", "1"), ("KIMI_BRIDGE_TIMEOUT_SECONDS", "15m")];
        let config = load_what_fits(environment(&vars), &[]).unwrap();
        assert_eq!((config.mode(), config.settings.timeout_seconds), (Mode::Disabled, 900));
        assert_eq!(
            config.mode_hint(),
            "consult_kimi is off, because a setting cannot be used. KIMI_BRIDGE_TIMEOUT_SECONDS: timeout_seconds: \
             expected a whole number. The user fixes or removes it at the place that is named first, then restarts the \
             server."
        );
    }

    #[test]
    fn every_problem_of_every_layer_is_reported_at_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("settings.yaml"), "timeout_second: 10\ngrace_seconds: 99\n")
            .unwrap();
        let vars = [("KIMI_BRIDGE_TOOL_ENABLED", "maybe"), ("KIMI_BRIDGE_TIMEOUT_SECONDS", "soon")];
        let environment = Environment { config_dir: dir.path().into(), ..environment(&vars) };
        let error = load(environment, &[]).unwrap_err();
        let file = dir.path().join("settings.yaml").display().to_string();
        let named: Vec<_> = error.violations.iter().map(ToString::to_string).collect();
        assert_eq!(
            named,
            [
                format!(
                    "{file}: there is no setting `timeout_second` (did you mean timeout_seconds?)"
                ),
                format!("{file}: grace_seconds: expected 0 to 60"),
                "KIMI_BRIDGE_TIMEOUT_SECONDS: timeout_seconds: expected a whole number".to_owned(),
                "KIMI_BRIDGE_TOOL_ENABLED: tool_enabled: expected 1 or 0 (true or false, yes or no)"
                    .to_owned(),
            ]
        );
    }

    #[test]
    fn a_setting_is_written_in_a_file_as_in_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let check = |line: &str, expected: std::result::Result<(&str, Value), &str>| {
            // Some editors put a byte order mark before the text.
            std::fs::write(dir.path().join("settings.yaml"), format!("\u{feff}{line}\n")).unwrap();
            let environment = Environment { config_dir: dir.path().into(), ..environment(&[]) };
            let config = load(environment, &[])
                .map(|config| serde_json::to_value(&config.settings).unwrap());
            match expected {
                Ok((setting, value)) => assert_eq!(config.unwrap()[setting], value, "{line}"),
                Err(problem) => {
                    assert_eq!(config.unwrap_err().violations[0].expected, problem, "{line}");
                }
            }
        };
        for yes in ["1", "yes", "Yes", "y", "Y", "true", "on", "\"1\""] {
            check(&format!("tool_enabled: {yes}"), Ok(("tool_enabled", Value::Bool(true))));
        }
        for no in ["0", "no", "n", "false", "off", "'no'"] {
            check(&format!("repair: {no}"), Ok(("repair", Value::Bool(false))));
        }
        check("timeout_seconds: '60'", Ok(("timeout_seconds", 60.into())));
        check("sandbox: off", Ok(("sandbox", "off".into())));
        let switch = "tool_enabled: expected 1 or 0 (true or false, yes or no)";
        check("tool_enabled: 2", Err(switch));
        check("tool_enabled: maybe", Err(switch));
        let number = "timeout_seconds: expected a whole number";
        for odd in ["soon", "1.5", "-3", "[60]", "true"] {
            check(&format!("timeout_seconds: {odd}"), Err(number));
        }
        check("readable: 7", Err("readable: expected a list of paths"));
        check("sandbox: maybe", Err("sandbox: expected auto, required or off"));
        check("kimi_path: [a]", Err("kimi_path: expected a text"));
    }
}
