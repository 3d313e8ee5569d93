//! Reads the registrations of this server in the files of the hosts that `config/hosts.yaml` lists. This room starts no
//! program, judges no registration, and knows nothing of Kimi.

mod claude_code;
mod host;
mod plugins;
mod registration;
mod variables;

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;

use self::host::HOSTS;
pub(crate) use self::host::{Host, Limit, value_at};
pub(crate) use self::registration::{DisabledReason, Registration, Scope};
pub(crate) use self::variables::expand;
use crate::documents;
use crate::settings::Environment;

/// A file of a host that exists and may hold servers.
#[derive(Debug)]
pub(crate) struct HostConfig {
    pub(crate) host: &'static Host,
    pub(crate) file: PathBuf,
    /// The registrations of this server, or the reason why the file cannot be read, which never quotes the file.
    pub(crate) registrations: Result<Vec<Registration>, String>,
}

/// Reads every file of every host for this user and this project.
pub(crate) fn configs(environment: &Environment) -> Vec<HostConfig> {
    let folders = project_folders(environment);
    let files = HOSTS.iter().flat_map(|host| {
        host.files(environment, &folders).into_iter().map(move |(scope, file)| (host, scope, file))
    });
    let mut known = HashSet::new();
    let configs = files.filter_map(|(host, scope, file)| {
        // If the project is the home folder, its files are the user's files and were listed already.
        if !known.insert(file.clone()) {
            return None;
        }
        let registrations = read(host, &file)?.map(|value| {
            let mut found = if host.by_project {
                claude_code::registrations(host, &value, scope, &folders, environment)
            } else {
                host.registrations(host.servers(&value), scope, &value)
            };
            found.retain(|one| is_this_server(one, environment));
            found
        });
        Some(HostConfig { host, file, registrations })
    });
    let mut configs: Vec<HostConfig> = configs.collect();
    let plugins = plugins::look(environment, &folders).into_iter();
    configs.extend(plugins.map(|(host, file, found)| HostConfig {
        host,
        file,
        registrations: Ok(found),
    }));
    configs
}

/// Returns every known host.
pub(crate) fn all() -> &'static [Host] {
    &HOSTS
}

/// Returns the file where a host keeps the servers of this scope: the first one that exists, or else the first. `None`
/// if the host has no file of this scope.
pub(crate) fn file(host: &Host, scope: Scope, environment: &Environment) -> Option<PathBuf> {
    let project: Vec<_> = project_folders(environment).pop().into_iter().collect();
    let files = host.files(environment, &project);
    let mut files: Vec<_> = files
        .into_iter()
        .filter(|(file_scope, _)| *file_scope == scope)
        .map(|(_, file)| file)
        .collect();
    let at = files.iter().position(|file| file.exists()).unwrap_or(0);
    (at < files.len()).then(|| files.swap_remove(at))
}

/// Returns the registrations of this server in a file's table of servers.
pub(crate) fn ours(
    host: &'static Host,
    file: &Value,
    scope: Scope,
    environment: &Environment,
) -> Vec<Registration> {
    let mut found = host.registrations(host.servers(file), scope, file);
    found.retain(|one| is_this_server(one, environment));
    found
}

/// Returns whether the plugin of this server is enabled in a host, which then needs no registration. `file` is the
/// parsed user's file.
pub(crate) fn has_plugin(host: &Host, file: &Value, environment: &Environment) -> bool {
    let enabled = if host.by_project {
        &claude_code::settings(environment)["enabledPlugins"]
    } else {
        &file["plugins"]
    };
    let is_on = |on: &Value| *on == true || on["enabled"] == true;
    enabled.as_object().into_iter().flatten().any(|(name, on)| plugins::is_ours(name) && is_on(on))
}

/// Returns the program that a host would start, or its name if it does not exist; `None` if a variable is unknown.
pub(crate) fn program(
    one: &Registration,
    environment: &Environment,
) -> Option<Result<PathBuf, String>> {
    let named = expand(&one.program, environment)?;
    let path = match one.env.get("PATH") {
        Some(path) => Some(expand(path, environment)?),
        None => environment.var("PATH").map(str::to_owned),
    };
    let found = which::which_in(&named, path, environment.project_dir());
    Some(found.map_err(|_| named))
}

/// Returns the folders of the project: the current folder, then the root of its git repository if that is another one.
fn project_folders(environment: &Environment) -> Vec<PathBuf> {
    let current = environment.project_dir();
    let root = current.ancestors().find(|folder| folder.join(".git").exists()).map(Path::to_owned);
    let root = root.filter(|root| *root != current);
    std::iter::once(current).chain(root).collect()
}

/// Reads and parses a file; `None` when it does not exist.
fn read(host: &Host, file: &Path) -> Option<Result<Value, String>> {
    match documents::read(file) {
        Ok(text) => Some(documents::parse(&text, host.format)),
        // `NotADirectory` means that one of the folders in its path is a file.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            None
        }
        Err(error) => Some(Err(error.to_string())),
    }
}

/// Returns whether an entry is this server: it has this server's name, or its command holds a program of that name or
/// this very program.
fn is_this_server(one: &Registration, environment: &Environment) -> bool {
    const NAME: &str = env!("CARGO_PKG_NAME");
    let mut words = std::iter::once(&one.program).chain(&one.args).map(Path::new);
    one.name == NAME
        || words.any(|path| {
            path.file_name().is_some_and(|name| name == NAME)
                || environment.program.as_deref() == Some(path)
        })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Writes files into a home folder whose folder `p` is the project, and compares the registrations, one line each.
    #[track_caller]
    fn check(files: &[(&str, &str)], expected: &[&str]) {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        fs::create_dir_all(home.join("p/.git")).unwrap();
        fs::create_dir_all(home.join("p/sub")).unwrap();
        for (path, text) in files {
            let path = home.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text.replace("HOME", home.to_str().unwrap())).unwrap();
        }
        let environment = Environment {
            home: home.to_owned(),
            config_dir: home.join(".config/kimi-bridge"),
            current_dir: home.join("p/sub"),
            program: Some("/b/bridge".into()),
            ..Environment::default()
        };
        let found = configs(&environment);
        let lines: Vec<String> = found.iter().flat_map(|config| lines_of(config, home)).collect();
        assert_eq!(lines, expected);
    }

    fn lines_of(config: &HostConfig, home: &Path) -> Vec<String> {
        let file = config.file.strip_prefix(home).unwrap().display();
        let head = format!("{} {file}", config.host.name);
        match &config.registrations {
            Err(why) => vec![format!("{head}: {why}")],
            Ok(found) if found.is_empty() => vec![format!("{head}: nothing")],
            Ok(found) => found
                .iter()
                .map(|one| {
                    let Registration { name, scope, program, args, env, call_limit, off } = one;
                    let scope = scope.name();
                    let limit = call_limit.map(|limit| limit.as_secs());
                    let env = format!("{env:?}").replace(home.to_str().unwrap(), "HOME");
                    let off = off.map(|off| format!(" {off:?}")).unwrap_or_default();
                    format!("{head}: {scope} {name}: {program} {args:?} {env} {limit:?}{off}")
                })
                .collect(),
        }
    }

    const SERVER_ENTRY: &str = r#"{"command": "kimi-bridge", "args": ["serve"], "env": {"KIMI_BRIDGE_TOOL_ENABLED": "1"}}"#;

    #[test]
    fn claude_code_has_user_local_and_project_registrations() {
        let users = format!(
            r#"{{"numStartups": 3, "mcpServers": {{"kimi": {SERVER_ENTRY}, "other": {{"command": "npx"}}}}, "projects": {{
                "HOME/p": {{"mcpServers": {{"kimi-bridge": {{"type": "stdio", "command": "sh", "args": ["-c", "x"]}}}}}},
                "HOME/q": {{"mcpServers": {{"kimi-bridge": {SERVER_ENTRY}}}}}}}}}"#
        );
        let projects = r#"{"mcpServers": {"b": {"command": "/b/bridge", "timeout": 60000},
            "far": {"type": "http", "url": "https://kimi-bridge"}}}"#;
        check(
            &[(".claude.json", &users), ("p/.mcp.json", projects)],
            &[
                r#"Claude Code .claude.json: user kimi: kimi-bridge ["serve"] {"KIMI_BRIDGE_TOOL_ENABLED": "1"} None"#,
                r#"Claude Code .claude.json: local kimi-bridge: sh ["-c", "x"] {} None"#,
                "Claude Code p/.mcp.json: project b: /b/bridge [] {} Some(60) Unapproved",
            ],
        );
    }

    #[test]
    fn claude_code_does_not_start_servers_that_were_switched_off_or_refused() {
        let users = format!(
            r#"{{"mcpServers": {{"kimi-bridge": {SERVER_ENTRY}}}, "projects": {{"HOME/p": {{"disabledMcpServers": ["kimi-bridge"]}}}}}}"#
        );
        let projects = format!(r#"{{"mcpServers": {{"kimi-bridge": {SERVER_ENTRY}}}}}"#);
        let refused = r#"{"disabledMcpjsonServers": ["kimi-bridge"]}"#;
        check(
            &[
                (".claude.json", &users),
                ("p/.mcp.json", &projects),
                ("p/.claude/settings.local.json", refused),
            ],
            &[
                r#"Claude Code .claude.json: user kimi-bridge: kimi-bridge ["serve"] {"KIMI_BRIDGE_TOOL_ENABLED": "1"} None ForThisProject"#,
                r#"Claude Code p/.mcp.json: project kimi-bridge: kimi-bridge ["serve"] {"KIMI_BRIDGE_TOOL_ENABLED": "1"} None Refused"#,
            ],
        );
    }

    #[test]
    fn claude_code_starts_a_projects_server_only_once_it_is_approved() {
        let projects = format!(r#"{{"mcpServers": {{"kimi-bridge": {SERVER_ENTRY}}}}}"#);
        let check = |settings: &str, text: &str, off: &str| {
            check(
                &[("p/.mcp.json", &projects), (settings, text)],
                &[&format!(
                    r#"Claude Code p/.mcp.json: project kimi-bridge: kimi-bridge ["serve"] {{"KIMI_BRIDGE_TOOL_ENABLED": "1"}} None{off}"#
                )],
            );
        };
        let local = "p/.claude/settings.local.json";
        check(local, "{}", " Unapproved");
        check(local, r#"{"enabledMcpjsonServers": ["other"]}"#, " Unapproved");
        check(local, r#"{"enabledMcpjsonServers": ["kimi-bridge"]}"#, "");
        check(".claude/settings.json", r#"{"enableAllProjectMcpServers": true}"#, "");
        let both =
            r#"{"enableAllProjectMcpServers": true, "disabledMcpjsonServers": ["kimi-bridge"]}"#;
        check(local, both, " Refused");
    }

    #[test]
    fn a_plugin_is_found_with_its_option() {
        let manifest = include_str!("../../plugin/.claude-plugin/plugin.json");
        let installed = r#"{"version": 2, "plugins": {"kimi-bridge@kimi-bridge": [{"scope": "user",
            "installPath": "HOME/.claude/plugins/cache/kimi-bridge/kimi-bridge/0.1.0"}], "other@x": []}}"#;
        let check_plugin = |settings: &str, project: &str, expected: &[&str]| {
            check(
                &[
                    (".claude/plugins/installed_plugins.json", installed),
                    (
                        ".claude/plugins/cache/kimi-bridge/kimi-bridge/0.1.0/.claude-plugin/plugin.json",
                        manifest,
                    ),
                    (".claude/settings.json", settings),
                    ("p/.claude/settings.json", project),
                ],
                expected,
            );
        };
        let line = |auto: &str, off: &str| {
            let folder = ".claude/plugins/cache/kimi-bridge/kimi-bridge/0.1.0";
            format!(
                r#"Claude Code {folder}/.claude-plugin/plugin.json: plugin kimi-bridge: kimi-bridge ["serve"] {{"KIMI_BRIDGE_AUTO_ENABLED": "{auto}", "KIMI_BRIDGE_TOOL_ENABLED": "1", "PATH": ":HOME/.cargo/bin:HOME/.local/bin:HOME/{folder}/node_modules/.bin"}} None{off}"#
            )
        };
        let on = r#"{"enabledPlugins": {"kimi-bridge@kimi-bridge": true},
            "pluginConfigs": {"kimi-bridge@kimi-bridge": {"options": {"auto": true}}}}"#;
        check_plugin(on, "{}", &[&line("true", "")]);
        check_plugin(
            r#"{"enabledPlugins": {"kimi-bridge@kimi-bridge": true}}"#,
            "[]",
            &[&line("false", "")],
        );
        let off = r#"{"enabledPlugins": {"kimi-bridge@kimi-bridge": false}}"#;
        check_plugin(on, off, &[&line("true", " WithItsPlugin")]);
        check_plugin("{}", on, &[&line("true", "")]);
    }

    #[test]
    fn the_codex_plugin_is_found_in_its_cache_folder() {
        let servers = include_str!("../../plugin/.codex-plugin/mcp.json");
        let file = ".codex/plugins/cache/kimi-bridge/kimi-bridge/0.1.0/.codex-plugin/mcp.json";
        for (enabled, off) in [(true, ""), (false, " WithItsPlugin")] {
            let config = format!(
                "[plugins.\"kimi-bridge@kimi-bridge\"]\nenabled = {enabled}\n[plugins.x]\n"
            );
            let line = format!(
                r#"Codex {file}: plugin kimi-bridge: kimi-bridge ["serve"] {{"KIMI_BRIDGE_TOOL_ENABLED": "1"}} Some(1000){off}"#
            );
            check(
                &[(".codex/config.toml", &config), (file, servers)],
                &["Codex .codex/config.toml: nothing", &line],
            );
        }
    }

    #[test]
    fn codex_and_gemini_limit_a_call() {
        let codex =
            "model = 'm'\n[mcp_servers.kimi-bridge]\ncommand = 'kimi-bridge'\nargs = ['serve']\n";
        check(
            &[
                (".codex/config.toml", codex),
                (
                    "p/.codex/config.toml",
                    &format!(
                        "{codex}tool_timeout_sec = 1000\nenabled = false\n[mcp_servers.kimi-bridge.env]\nA = '1'\n"
                    ),
                ),
                (
                    ".gemini/settings.json",
                    r#"{"mcpServers": {"kimi-bridge": {"command": "kimi-bridge"}}, "mcp": {"allowed": ["x"]}}"#,
                ),
                (
                    "p/.gemini/settings.json",
                    r#"{"mcpServers": {"kimi-bridge": {"command": "kimi-bridge", "timeout": 1000000}},
                        "mcp": {"excluded": ["kimi-bridge"]}}"#,
                ),
            ],
            &[
                r#"Codex .codex/config.toml: user kimi-bridge: kimi-bridge ["serve"] {} Some(300)"#,
                r#"Codex p/.codex/config.toml: project kimi-bridge: kimi-bridge ["serve"] {"A": "1"} Some(1000) InItsEntry"#,
                r#"Gemini CLI .gemini/settings.json: user kimi-bridge: kimi-bridge [] {} Some(600) InAList("mcp.allowed")"#,
                r#"Gemini CLI p/.gemini/settings.json: project kimi-bridge: kimi-bridge [] {} Some(1000) InAList("mcp.excluded")"#,
            ],
        );
    }

    #[test]
    fn editors_write_comments_and_each_has_its_own_name_for_the_table() {
        check(
            &[
                (
                    ".cursor/mcp.json",
                    r#"/* mine */ {"mcpServers": {"k": {"command": "/x/kimi-bridge"},}}"#,
                ),
                (
                    "p/.vscode/mcp.json",
                    r#"{"servers": {"kimi-bridge": {"command": "${workspaceFolder}/k"}}}"#,
                ),
                (
                    ".config/opencode/opencode.json",
                    r#"{"mcp": {"kimi-bridge": {"type": "local", "command": ["kimi-bridge", "serve"],
                        "environment": {"N": 1}, "enabled": false}}}"#,
                ),
                (
                    "p/opencode.jsonc",
                    r#"{"mcp": {"servers": {"kimi-bridge": {"command": ["kimi-bridge", "serve"]}}}}"#,
                ),
                (
                    ".config/zed/settings.json",
                    r#"{"context_servers": {"kimi-bridge": {"command": {"path": "kimi-bridge", "args": ["serve"]}}}}"#,
                ),
            ],
            &[
                "Cursor .cursor/mcp.json: user k: /x/kimi-bridge [] {} None",
                "VS Code p/.vscode/mcp.json: project kimi-bridge: ${workspaceFolder}/k [] {} None",
                r#"opencode .config/opencode/opencode.json: user kimi-bridge: kimi-bridge ["serve"] {"N": "1"} None InItsEntry"#,
                r#"opencode p/opencode.jsonc: project kimi-bridge: kimi-bridge ["serve"] {} None"#,
                r#"Zed .config/zed/settings.json: user kimi-bridge: kimi-bridge ["serve"] {} Some(60)"#,
            ],
        );
    }

    #[test]
    fn a_broken_file_is_reported_and_the_others_are_still_read() {
        check(
            &[
                (".claude.json", "[]"),
                (
                    "p/.mcp.json",
                    r#"{"mcpServers": {"kimi-bridge": {"env": {"KEY": "sk-secret",}}}}"#,
                ),
                (".codex/config.toml", "[mcp_servers\n"),
                (".cursor/mcp.json", ""),
                ("p/.vscode", "a file"),
                ("p/.gemini/settings.json", r#"{"mcpServers": ["kimi-bridge"]}"#),
                (
                    "p/opencode.json",
                    r#"{"mcp": {"kimi-bridge": {"command": []}, "b": {"command": 1}}}"#,
                ),
            ],
            &[
                "Claude Code .claude.json: nothing",
                "Claude Code p/.mcp.json: Trailing commas are not allowed on line 1 column 59",
                "Codex .codex/config.toml: unclosed table, expected `]` on line 1",
                "Cursor .cursor/mcp.json: nothing",
                "Gemini CLI p/.gemini/settings.json: nothing",
                "opencode p/opencode.json: nothing",
            ],
        );
    }
}
