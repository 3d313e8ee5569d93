//! A user registered the bridge in a host, and asks the doctor whether that would work.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::report::{report, served, with_kimi, write};
use crate::support::test;
use crate::support::world::{World, write_program};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("registrations::every_host", every_host),
        test("registrations::a_program_that_would_not_serve", a_program_that_would_not_serve),
        test("registrations::an_environment_that_does_not_fit", an_environment_that_does_not_fit),
        test("registrations::what_the_user_refused", what_the_user_refused),
        test("registrations::a_plugin", a_plugin),
    ]
}

fn every_host() {
    let world = with_kimi("2.1.0");
    let (home, project) = (world.home(), world.project());
    let bridge = env!("CARGO_BIN_EXE_kimi-bridge");
    let toml = format!(
        "[mcp_servers.kimi-bridge]\ncommand = '{bridge}'\nargs = ['serve']\ntool_timeout_sec = 1000\nenv = {{ KIMI_BRIDGE_TOOL_ENABLED = '1' }}\n"
    );
    let entry = format!(
        r#""kimi-bridge": {{"command": "{bridge}", "args": ["serve"], "env": {{"KIMI_BRIDGE_TOOL_ENABLED": "${{ENABLED:-1}}", "KIMI_BRIDGE_AUTO_ENABLED": "1"}}}}"#
    );
    let opencode = format!(
        r#"{{"mcp": {{"kimi-bridge": {{"type": "local", "command": ["{bridge}", "serve"], "environment": {{"KIMI_BRIDGE_TOOL_ENABLED": "1"}}}}}}}}"#
    );
    approve(&world);
    write(&home.join(".claude.json"), &served(""));
    write(&project.join(".mcp.json"), &format!(r#"{{"mcpServers": {{{entry}}}}}"#));
    write(&home.join(".codex/config.toml"), &toml);
    write(&home.join(".cursor/mcp.json"), &served(""));
    write(&project.join(".vscode/mcp.json"), &format!("// mine\n{{\"servers\": {{{entry}}}}}"));
    write(&project.join(".gemini/settings.json"), &served(r#", "timeout": 1000000"#));
    write(&project.join("opencode.json"), &opencode);
    write(
        &home.join(".config/zed/settings.json"),
        &format!(
            r#"{{"context_servers": {{{}}}}}"#,
            entry.replace(r#""args""#, r#""timeout": 1000, "args""#)
        ),
    );
    let seen = report(&world);
    assert_eq!(seen.code, 0);
    let check = |host: &str, files: &[(&Path, &str, &str)]| {
        let expected: Vec<_> = files
            .iter()
            .map(|(file, scope, mode)| {
                let says = format!("{} ({scope}): this program, {mode} mode", file.display());
                ("ok".to_owned(), says, String::new())
            })
            .collect();
        assert_eq!(seen.checks("hosts", host), expected);
    };
    check(
        "Claude Code",
        &[
            (&home.join(".claude.json"), "user", "manual"),
            (&project.join(".mcp.json"), "project", "auto"),
        ],
    );
    check("Codex", &[(&home.join(".codex/config.toml"), "user", "manual")]);
    check("Cursor", &[(&home.join(".cursor/mcp.json"), "user", "manual")]);
    check("VS Code", &[(&project.join(".vscode/mcp.json"), "project", "auto")]);
    check("Gemini CLI", &[(&project.join(".gemini/settings.json"), "project", "manual")]);
    check("opencode", &[(&project.join("opencode.json"), "project", "manual")]);
    check("Zed", &[(&home.join(".config/zed/settings.json"), "user", "auto")]);
}

/// Lets Claude Code start the servers of the project's own file.
fn approve(world: &World) {
    let settings = world.project().join(".claude/settings.local.json");
    write(&settings, r#"{"enabledMcpjsonServers": ["kimi-bridge"]}"#);
}

/// Registers it in the sample project, and compares what is said of that.
#[track_caller]
fn check(world: &World, entry: &Value, code: i32, expected: &[(&str, &str, &str)]) {
    let file = world.project().join(".mcp.json");
    write(&file, &json!({"mcpServers": {"kimi-bridge": entry}}).to_string());
    let seen = report(world);
    seen.is_whole();
    let placed: Vec<_> = expected
        .iter()
        .map(|(status, says, remedy)| {
            let says = format!("{} (project): {says}", file.display());
            ((*status).to_owned(), says, (*remedy).to_owned())
        })
        .collect();
    assert_eq!((seen.code, seen.checks("hosts", "Claude Code")), (code, placed));
}

const BRIDGE: &str = env!("CARGO_BIN_EXE_kimi-bridge");

fn a_program_that_would_not_serve() {
    let world = with_kimi("2.1.0");
    approve(&world);
    let other = world.root().join("other/kimi-bridge");
    write_program(&other, "#!/bin/sh\n");
    let this = Path::new(BRIDGE).canonicalize().unwrap();
    let enabled = json!({"KIMI_BRIDGE_TOOL_ENABLED": "1"});
    check(
        &world,
        &json!({"command": "no-such-bridge", "args": ["serve"], "env": enabled}),
        15,
        &[(
            "problem",
            "there is no program `no-such-bridge` here",
            "Name the program with its whole path; `command -v kimi-bridge` prints it.",
        )],
    );
    check(
        &world,
        &json!({"command": other, "args": ["serve"], "env": enabled}),
        0,
        &[(
            "warning",
            &format!("it starts another kimi-bridge, {}", other.display()),
            &format!("Set the program to {}, or run `{} doctor`.", this.display(), other.display()),
        )],
    );
    check(
        &world,
        &json!({"command": BRIDGE, "env": enabled}),
        15,
        &[(
            "problem",
            "its arguments do not begin with `serve`, so it speaks no MCP",
            "Set the arguments to [\"serve\"].",
        )],
    );
    check(
        &world,
        &json!({"command": "sh", "args": ["-c", "exec kimi-bridge serve"], "env": enabled}),
        0,
        &[("note", "started through /usr/bin/sh, which was not checked", "")],
    );
}

fn an_environment_that_does_not_fit() {
    let world = with_kimi("2.1.0");
    approve(&world);
    let enable = "Set KIMI_BRIDGE_TOOL_ENABLED=1 in its env, and restart the host.";
    check(
        &world,
        &json!({"command": BRIDGE, "args": ["serve"]}),
        0,
        &[(
            "warning",
            "its env does not switch the tool on, so the agent is offered kimi_status alone",
            enable,
        )],
    );
    check(
        &world,
        &json!({"command": BRIDGE, "args": ["serve"], "env": {"KIMI_BRIDGE_TOOL_ENABLED": "0"}}),
        0,
        &[("note", "its env switches the tool off", enable)],
    );
    check(
        &world,
        &json!({"command": BRIDGE, "args": ["serve"], "timeout": 60000, "env": {
            "KIMI_BRIDGE_TOOL_ENABLED": "1", "KIMI_BRIDGE_TIMEOUT_SECONDS": "soon", "KIMI_BRIDGE_DEBGU": "1",
            "KIMI_BRIDGE_LANG": "${UNKNOWN}"}}),
        15,
        &[
            ("note", "KIMI_BRIDGE_LANG comes from a variable that is not known here", ""),
            (
                "problem",
                "its env sets KIMI_BRIDGE_TIMEOUT_SECONDS: timeout_seconds: expected a whole number",
                "Fix it there.",
            ),
            (
                "warning",
                "KIMI_BRIDGE_DEBGU is no setting of this version",
                "Did you mean KIMI_BRIDGE_DEBUG? Rename it, or remove it.",
            ),
            (
                "warning",
                "the host ends a call after 60 s, and a run may take 900 s (timeout_seconds)",
                "Set `\"timeout\": 1000000` (milliseconds) in its entry.",
            ),
        ],
    );
}

fn what_the_user_refused() {
    let world = with_kimi("2.1.0");
    write(
        &world.project().join(".claude/settings.local.json"),
        r#"{"disabledMcpjsonServers": ["kimi-bridge"]}"#,
    );
    check(
        &world,
        &json!({"command": BRIDGE, "args": ["serve"]}),
        0,
        &[(
            "note",
            "you refused it in Claude Code",
            "Take `kimi-bridge` out of `disabledMcpjsonServers`, or run `claude mcp reset-project-choices`.",
        )],
    );
}

/// Installs the plugin as Claude Code does, and compares what is said of it.
#[track_caller]
fn check_plugin(world: &World, settings: &str, code: i32, expected: &[(&str, &str, &str)]) {
    let folder = world.home().join(".claude/plugins");
    let root = folder.join("cache/kimi-bridge/kimi-bridge/0.1.0");
    let manifest = root.join(".claude-plugin/plugin.json");
    write(&manifest, include_str!("../plugin/.claude-plugin/plugin.json"));
    let installed = json!({"version": 2, "plugins": {"kimi-bridge@kimi-bridge": [{"scope": "user", "installPath": root}]}});
    write(&folder.join("installed_plugins.json"), &installed.to_string());
    write(&world.home().join(".claude/settings.json"), settings);
    let seen = report(world);
    seen.is_whole();
    let place = format!("{} (plugin)", manifest.display());
    let expected: Vec<_> = expected
        .iter()
        .map(|(status, says, remedy)| {
            ((*status).to_owned(), says.replace("PLUGIN", &place), (*remedy).to_owned())
        })
        .collect();
    assert_eq!((seen.code, seen.checks("hosts", "Claude Code")), (code, expected));
}

fn a_plugin() {
    let world = with_kimi("2.1.0");
    let on = r#"{"enabledPlugins": {"kimi-bridge@kimi-bridge": true},
        "pluginConfigs": {"kimi-bridge@kimi-bridge": {"options": {"auto": true}}}}"#;
    check_plugin(
        &world,
        on,
        15,
        &[(
            "problem",
            "PLUGIN: there is no program `kimi-bridge` here",
            "The plugin starts the program on PATH: `npm install -g kimi-bridge` installs it.",
        )],
    );
    let seen = |settings: &str, expected: &[(&str, &str, &str)]| {
        check_plugin(&world, settings, 0, expected);
    };
    let started = world.home().join("bin/kimi-bridge");
    write_program(&started, "#!/bin/sh\n");
    let other = format!("PLUGIN: it starts another kimi-bridge, {}", started.display());
    let ask = format!("Run `{} doctor`: the first program on PATH is used.", started.display());
    seen(on, &[("warning", &other, &ask)]);
    fs::remove_file(&started).unwrap();
    symlink(Path::new(BRIDGE).canonicalize().unwrap(), &started).unwrap();
    seen(on, &[("ok", "PLUGIN: this program, auto mode", "")]);
    let unset = r#"{"enabledPlugins": {"kimi-bridge@kimi-bridge": true}}"#;
    seen(unset, &[("ok", "PLUGIN: this program, manual mode", "")]);
    let off = r#"{"enabledPlugins": {"kimi-bridge@kimi-bridge": false}}"#;
    let remedy = "Switch it on in the host's /plugin to use it.";
    seen(off, &[("note", "PLUGIN: the plugin is off", remedy)]);

    // Registered by hand as well.
    write(&world.home().join(".claude.json"), &served(""));
    let by_hand = format!("{} (user)", world.home().join(".claude.json").display());
    let twice = format!(
        "the plugin's server and `kimi-bridge` in {by_hand} are both on: the host offers every tool twice, or drops the \
         plugin's server and its option without a word"
    );
    seen(
        on,
        &[
            ("ok", &format!("{by_hand}: this program, manual mode"), ""),
            ("ok", "PLUGIN: this program, auto mode", ""),
            ("warning", &twice, "Remove `kimi-bridge` there, and keep the plugin."),
        ],
    );
    // One that nobody has approved yet hides nothing.
    fs::remove_file(world.home().join(".claude.json")).unwrap();
    let file = world.project().join(".mcp.json");
    write(&file, &served(""));
    seen(
        on,
        &[
            (
                "note",
                &format!(
                    "{} (project): it waits for your approval, and Claude Code does not start it before",
                    file.display()
                ),
                "Start `claude` in the project and choose to use it; the answer that is preselected refuses it.",
            ),
            ("ok", "PLUGIN: this program, auto mode", ""),
        ],
    );
}
