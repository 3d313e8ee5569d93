//! The checks of the hosts that start the bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::check::Check;
use super::settings;
use crate::error::Kind;
use crate::hosts::{self, DisabledReason, HostConfig, Limit, Registration, Scope, expand};
use crate::settings::{Config, Environment, Mode, load_what_fits};

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let environment = &config.environment;
    let mut checks = Vec::new();
    let mut unregistered = BTreeSet::new();
    let mut registered = BTreeSet::new();
    let configs = hosts::configs(environment);
    for host_config in &configs {
        let name = host_config.host.name.as_str();
        match &host_config.registrations {
            Err(why) => checks.push(Check::warning(
                name,
                format!("{} cannot be read: {why}", host_config.file.display()),
                format!("Fix the file: until then {name} knows none of the servers in it."),
            )),
            Ok(found) if found.is_empty() => {
                unregistered.insert(name);
            }
            Ok(found) => {
                registered.insert(name);
                for one in found {
                    checks.extend(registration_checks(host_config, one, environment));
                }
            }
        }
    }
    unregistered.retain(|name| !registered.contains(name));
    checks.extend(
        configs.iter().filter_map(|host_config| plugin_beside_manual(host_config, &configs)),
    );
    if registered.is_empty() {
        checks.push(
            Check::note("registered", "with no known host")
                .with_remedy("`kimi-bridge setup` registers it."),
        );
    } else if !unregistered.is_empty() {
        checks.push(Check::note(
            "elsewhere",
            format!("not registered in {}", Vec::from_iter(unregistered).join(", ")),
        ));
    }
    checks
}

/// Checks one registration. Returns its problems, or its mode if it has none.
fn registration_checks(
    host_config: &HostConfig,
    one: &Registration,
    environment: &Environment,
) -> Vec<Check> {
    let host = host_config.host.name.as_str();
    let alias = match one.name.as_str() {
        env!("CARGO_PKG_NAME") => String::new(),
        other => format!(", as `{other}`"),
    };
    let place = format!("{} ({}{alias})", host_config.file.display(), one.scope.name());
    if let Some(off) = one.off {
        let (why, remedy) = reason_and_remedy(off, &one.name);
        return vec![Check::note(host, format!("{place}: {why}")).with_remedy(remedy)];
    }
    let mut checks = match hosts::program(one, environment) {
        Some(Ok(program)) => program_checks(host, &place, one, &program, environment),
        Some(Err(named)) => vec![Check::problem(
            host,
            Kind::Settings,
            format!("{place}: there is no program `{named}` here"),
            match one.scope {
                Scope::Plugin => {
                    "The plugin starts the program on PATH: `npm install -g kimi-bridge` installs it."
                }
                Scope::User | Scope::Local | Scope::Project => {
                    "Name the program with its whole path; `command -v kimi-bridge` prints it."
                }
            },
        )],
        None => vec![Check::note(
            host,
            format!("{place}: its program is named by a variable that is not known here"),
        )],
    };
    let (mode, problems) = mode_and_checks(host_config, one, environment);
    checks.extend(problems.into_iter().map(|check| Check {
        name: host.to_owned(),
        says: format!("{place}: {}", check.says),
        ..check
    }));
    if checks.is_empty() {
        checks.push(Check::ok(host, format!("{place}: this program, {}", mode_name(mode))));
    }
    checks
}

/// Warns if a host has both the plugin's server and one that was registered by hand.
fn plugin_beside_manual(plugin: &HostConfig, configs: &[HostConfig]) -> Option<Check> {
    fn is_on(host_config: &HostConfig, is_wanted: impl Fn(Scope) -> bool) -> Option<&Registration> {
        let found = host_config.registrations.as_deref().unwrap_or_default();
        found.iter().find(|one| one.off.is_none() && is_wanted(one.scope))
    }
    is_on(plugin, |scope| scope == Scope::Plugin)?;
    let host = plugin.host.name.as_str();
    let same_host = configs.iter().filter(|host_config| host_config.host.name == host);
    let by_hand = |host_config: &HostConfig| {
        let one = is_on(host_config, |scope| scope != Scope::Plugin)?;
        Some((one.name.clone(), format!("{} ({})", host_config.file.display(), one.scope.name())))
    };
    let (name, place) = same_host.clone().find_map(by_hand)?;
    Some(Check::warning(
        host,
        format!(
            "the plugin's server and `{name}` in {place} are both on: the host offers every tool twice, or drops the \
             plugin's server and its option without a word"
        ),
        format!("Remove `{name}` there, and keep the plugin."),
    ))
}

fn reason_and_remedy(off: DisabledReason, name: &str) -> (String, String) {
    match off {
        DisabledReason::Unapproved => (
            "it waits for your approval, and Claude Code does not start it before".to_owned(),
            "Start `claude` in the project and choose to use it; the answer that is preselected refuses it.".to_owned(),
        ),
        DisabledReason::WithItsPlugin => {
            ("the plugin is off".to_owned(), "Switch it on in the host's /plugin to use it.".to_owned())
        }
        DisabledReason::InItsEntry => (
            "switched off there".to_owned(),
            "Set `enabled` of the entry to true to use it (or remove `disabled`).".to_owned(),
        ),
        DisabledReason::InAList(list) => (
            format!("switched off by `{list}` of the same file"),
            format!("Change `{list}` to use it."),
        ),
        DisabledReason::ForThisProject => (
            "switched off for this project".to_owned(),
            "Choose it in Claude Code's /mcp to use it.".to_owned(),
        ),
        DisabledReason::Refused => (
            "you refused it in Claude Code".to_owned(),
            format!(
                "Take `{name}` out of `disabledMcpjsonServers`, or run `claude mcp reset-project-choices`."
            ),
        ),
    }
}

/// Returns the problems of a registration whose program exists.
fn program_checks(
    host: &str,
    place: &str,
    one: &Registration,
    program: &Path,
    environment: &Environment,
) -> Vec<Check> {
    let resolved = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let is_bridge = |path: &Path| path.file_name() == Some(env!("CARGO_PKG_NAME").as_ref());
    let this = environment.program.as_deref().map(resolved);
    let is_this = this.as_ref().is_some_and(|this| *this == resolved(program));
    if !is_this && !is_bridge(program) {
        let says = format!("{place}: started through {}, which was not checked", program.display());
        return vec![Check::note(host, says)];
    }
    let mut checks = Vec::new();
    if one.args.first().map(String::as_str) != Some("serve") {
        checks.push(Check::problem(
            host,
            Kind::Settings,
            format!("{place}: its arguments do not begin with `serve`, so it speaks no MCP"),
            "Set the arguments to [\"serve\"].",
        ));
    }
    if let (false, Some(this)) = (is_this, this) {
        let (this, program) = (this.display(), program.display());
        checks.push(Check::warning(
            host,
            format!("{place}: it starts another kimi-bridge, {program}"),
            match one.scope {
                Scope::Plugin => {
                    format!("Run `{program} doctor`: the first program on PATH is used.")
                }
                Scope::User | Scope::Local | Scope::Project => {
                    format!("Set the program to {this}, or run `{program} doctor`.")
                }
            },
        ));
    }
    checks
}

/// Returns the mode in which the host would start the server, and the problems of the server's environment and time
/// limit.
fn mode_and_checks(
    host_config: &HostConfig,
    one: &Registration,
    environment: &Environment,
) -> (Mode, Vec<Check>) {
    let mut checks = Vec::new();
    let ours = |name: &str| name.starts_with("KIMI_");
    let inherited =
        environment.vars.iter().filter(|(name, _)| host_config.host.inherits && ours(name));
    let mut vars: BTreeMap<String, String> =
        inherited.map(|(name, value)| (name.clone(), value.clone())).collect();
    for (name, value) in one.env.iter().filter(|(name, _)| ours(name)) {
        if let Some(value) = expand(value, environment) {
            vars.insert(name.clone(), value);
        } else {
            let says = format!("{name} comes from a variable that is not known here");
            checks.push(Check::note("", says));
        }
    }
    let served = Environment { vars: vars.into_iter().collect(), ..environment.clone() };
    let Ok(served) = load_what_fits(served, &[]) else {
        return (Mode::Disabled, checks);
    };
    // Problems of the user's settings file are skipped here: the settings section lists them.
    let by_entry = served.misfits.iter().filter(|misfit| one.env.contains_key(&misfit.pointer));
    checks.extend(by_entry.map(|misfit| {
        Check::problem("", Kind::Settings, format!("its env sets {misfit}"), "Fix it there.")
    }));
    let unknown = served.unknown.iter().filter(|name| one.env.contains_key(*name));
    checks.extend(unknown.map(|name| settings::unknown(name)));
    let mode = served.mode();
    if mode == Mode::Disabled && served.misfits.is_empty() {
        checks.extend(tool_off(one, environment));
    }
    let longest = served.settings.timeout_seconds;
    if let (Some(limit), Some(call_limit)) = (&host_config.host.limit, one.call_limit)
        && call_limit.as_secs() < longest
    {
        checks.push(short_limit(limit, call_limit.as_secs(), longest));
    }
    (mode, checks)
}

/// Returns the check of a server whose tool is off; `None` if another check reports the reason.
fn tool_off(one: &Registration, environment: &Environment) -> Option<Check> {
    let remedy = "Set KIMI_BRIDGE_TOOL_ENABLED=1 in its env, and restart the host.";
    let Some(value) = one.env.get("KIMI_BRIDGE_TOOL_ENABLED") else {
        let says = "its env does not switch the tool on, so the agent is offered kimi_status alone";
        return Some(Check::warning("", says, remedy));
    };
    let says = "its env switches the tool off";
    (expand(value, environment)? == "0").then(|| Check::note("", says).with_remedy(remedy))
}

fn short_limit(limit: &Limit, call_limit: u64, longest: u64) -> Check {
    let enough = limit.enough(longest);
    let says = format!(
        "the host ends a call after {call_limit} s, and a run may take {longest} s (timeout_seconds)"
    );
    Check::warning("", says, limit.remedy.replace("{}", &enough.to_string()))
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Disabled => "disabled",
        Mode::Manual => "manual mode",
        Mode::Auto => "auto mode",
    }
}
