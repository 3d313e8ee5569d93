//! The checks of the settings.

use super::check::Check;
use crate::error::Kind;
use crate::settings::{Config, Mode, nearest_variable};

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let mut checks: Vec<Check> = config
        .misfits
        .iter()
        .map(|misfit| {
            let remedy = "Fix it: until then every other command refuses to start, and a server offers kimi_status alone. docs/settings.md describes every setting.";
            Check::problem("setting", Kind::Settings, misfit.to_string(), remedy)
        })
        .collect();
    let folder = &config.environment.config_dir;
    let file = folder.join("settings.yaml");
    checks.push(if file.exists() {
        Check::ok("file", file.display().to_string())
    } else {
        Check::ok("file", format!("{} does not exist, and is optional", file.display()))
    });
    checks.extend(config.changed().iter().map(|changed| Check::note("changed", changed)));
    checks.extend(config.unknown.iter().map(|name| unknown(name)));
    let patterns = folder.join("secrets.yaml");
    if patterns.exists() {
        let says = format!("your own patterns lie in {}", patterns.display());
        checks.push(Check::note("secrets", says));
    }
    checks.push(mode(config));
    checks
}

/// Returns the check of a variable whose name is like a setting's but unknown.
pub(super) fn unknown(name: &str) -> Check {
    let remedy = match nearest_variable(name) {
        Some(near) => format!("Did you mean {near}? Rename it, or remove it."),
        None => "Remove it, or update kimi-bridge if a newer version knows it.".to_owned(),
    };
    Check::warning("unknown", format!("{name} is no setting of this version"), remedy)
}

fn mode(config: &Config) -> Check {
    if config.settings.auto_enabled && !config.settings.tool_enabled {
        return Check::warning(
            "mode",
            "disabled: auto_enabled alone does nothing",
            "Set tool_enabled as well (KIMI_BRIDGE_TOOL_ENABLED=1).",
        );
    }
    match config.mode() {
        Mode::Disabled => Check::note(
            "mode",
            "disabled in this shell, which matters only to `serve`; hosts set their own, see below",
        ),
        Mode::Manual => Check::ok("mode", format!("manual. {}", config.mode_hint())),
        Mode::Auto => Check::ok("mode", format!("auto. {}", config.mode_hint())),
    }
}
