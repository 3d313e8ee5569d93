//! `kimi-bridge status`.

use std::fmt::Write as _;

use super::output;
use super::render::{BOLD, GOOD, WARN, styled};
use super::shutdown::ShutdownSignals;
use crate::cli;
use crate::error::Result;
use crate::kimi::Program;
use crate::kimi::status::{self, BridgeStatus, Used};
use crate::settings::Config;

pub(super) async fn run(
    args: &cli::StatusArgs,
    config: &Config,
    stop: &ShutdownSignals,
) -> Result<u8> {
    let status = status::status(config, stop.watch()).await;
    output::print(&if args.json { output::json(&status)? } else { text(&status) })?;
    Ok(0)
}

fn text(status: &BridgeStatus) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{} {value}", styled(BOLD, &format!("{name:<9}")));
    };
    line("bridge", &format!("kimi-bridge {}", status.bridge_version));
    line("mode", &format!("{}: {}", status.mode, status.mode_hint));
    if let Some(Used { program: Program { path, dialect, version, found, .. }, login_seen }) =
        &status.kimi
    {
        let what = styled(GOOD, &format!("{dialect} {version}"));
        line("kimi", &format!("{what} at {} (from {found})", path.display()));
        let login = if *login_seen {
            "seen; only a consultation shows that it works".to_owned()
        } else {
            styled(WARN, "none seen: run `kimi login`, or set an API key")
        };
        line("login", &login);
    }
    if let (Some(problem), Some(hint)) = (&status.problem, &status.hint) {
        line("kimi", &styled(WARN, problem));
        line("", hint);
    }
    for found in &status.found {
        // The problem was reported above.
        let is = match &status.problem {
            Some(problem) => found.is.replace(problem.as_str(), "see above"),
            None => found.is.clone(),
        };
        line("found", &format!("{} ({}): {is}", found.path.display(), found.found));
    }
    line("sandbox", &status.sandbox);
    let limit = |name: &str| &status.limits[name];
    line(
        "limits",
        &format!(
            "{} s a run, {} s to the first line, {} s of silence, {} characters a result",
            limit("timeout_seconds"),
            limit("first_line_seconds"),
            limit("silence_seconds"),
            limit("max_result_chars")
        ),
    );
    line("state", &status.state_dir.display().to_string());
    text
}
