//! Which Kimi there is and whether it looks ready, without running a consultation.

use std::path::PathBuf;

use serde::Serialize;

use super::confinement::decide;
use super::dialect::{Dialect, Identity};
use super::run::Watch;
use super::{login, program};
use crate::error::Error;
use crate::redact::Secrets;
use crate::sandbox::{Sandbox, kernel};
use crate::settings::{Loaded, Mode, SandboxSetting};

/// What the bridge would do if it were asked now. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The bridge's own version
    pub bridge_version: String,
    /// `disabled`, `manual` or `auto`
    pub mode: String,
    /// How to change the mode
    pub mode_hint: String,
    /// The Kimi that is used
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kimi: Option<Used>,
    /// Why there is none, or why it would not be asked
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What to do about it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Every Kimi that was found, in the order of preference
    pub found: Vec<Found>,
    /// What would hold Kimi: `landlock`, or why nothing does
    pub sandbox: String,
    /// The limits in force
    pub limits: Limits,
    /// Where sessions and private homes are kept
    pub state_dir: PathBuf,
}

/// The Kimi that is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Used {
    /// The program
    pub path: PathBuf,
    /// `kimi-code` or `kimi-cli`
    pub dialect: Dialect,
    /// Its version
    pub version: String,
    /// Where it was found
    pub found: String,
    /// Whether a login, a key or a provider was seen; only a run shows that it works
    pub login_seen: bool,
}

/// A program that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The program
    pub path: PathBuf,
    /// Where it was found
    pub found: String,
    /// What it is
    pub is: String,
}

/// The limits in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Of a whole run
    pub timeout_seconds: u64,
    /// Until the first line
    pub first_line_seconds: u64,
    /// Between two lines
    pub silence_seconds: u64,
    /// Of a result
    pub max_result_chars: usize,
}

/// How the mode is changed.
#[must_use]
pub fn mode_hint(mode: Mode) -> &'static str {
    match mode {
        Mode::Disabled => {
            "consult_kimi is off. The user turns it on by setting KIMI_BRIDGE_TOOL_ENABLED=1 in the \
             server's environment (and KIMI_BRIDGE_AUTO_ENABLED=1 to let the agent consult unasked), \
             then restarts the server."
        }
        Mode::Manual => {
            "Only when the user asks. KIMI_BRIDGE_AUTO_ENABLED=1 lets the agent consult unasked."
        }
        Mode::Auto => "The agent may consult unasked. KIMI_BRIDGE_AUTO_ENABLED=0 stops that.",
    }
}

/// An error with its violations in its message, for a reader that sees no more of it.
fn listed(error: &Error) -> Error {
    let violations: Vec<String> = error.violations.iter().map(ToString::to_string).collect();
    Error { message: format!("{}: {}", error.message, violations.join("; ")), ..error.clone() }
}

/// What would hold Kimi, in words.
fn sandbox(setting: SandboxSetting) -> String {
    match (decide(setting, kernel()), setting) {
        (Ok((Sandbox::Landlock, _)), _) => "landlock".to_owned(),
        (Ok((Sandbox::None, _)), SandboxSetting::Off) => "none: it is switched off".to_owned(),
        (Ok((Sandbox::None, _)), SandboxSetting::Auto | SandboxSetting::Required) => {
            "none: this system has no Landlock, or it is switched off".to_owned()
        }
        (Err(error), _) => format!("none: {}", error.message),
    }
}

/// Looks around.
pub async fn status(loaded: &Loaded, watch: Watch<'_>) -> Status {
    let settings = &loaded.settings;
    let mode = settings.mode();
    let candidates = program::all(loaded, watch).await;
    let (kimi, error) = match program::choose(loaded, &candidates) {
        Ok(program) => {
            let login_seen = login::look(&loaded.environment, program.dialect).is_seen();
            let program::Program { path, dialect, version, found, leading_args: _ } = program;
            (Some(Used { path, dialect, version, found, login_seen }), None)
        }
        Err(error) => (None, Some(error)),
    };
    let environment = &loaded.environment;
    let secrets = Secrets::load(&environment.config_dir, &environment.vars);
    let error = error.or_else(|| secrets.err().map(|error| listed(&error)));
    let found = candidates.into_iter().map(|candidate| Found {
        is: match candidate.identity {
            Identity::Usable(dialect, version) => format!("{dialect} {version}"),
            Identity::Retired(version) => format!("kimi-cli {version}, retired"),
            Identity::Unknown => format!("no Kimi: {}", candidate.said),
        },
        path: candidate.path,
        found: candidate.found,
    });
    Status {
        bridge_version: env!("CARGO_PKG_VERSION").to_owned(),
        mode: serde_json::json!(mode).as_str().unwrap_or_default().to_owned(),
        mode_hint: mode_hint(mode).to_owned(),
        kimi,
        problem: error.as_ref().map(|error| error.message.clone()),
        hint: error.map(|error| error.hint),
        found: found.collect(),
        sandbox: sandbox(settings.sandbox),
        limits: Limits {
            timeout_seconds: settings.timeout_seconds,
            first_line_seconds: settings.first_line_seconds,
            silence_seconds: settings.silence_seconds,
            max_result_chars: settings.max_result_chars,
        },
        state_dir: loaded.state_dir().to_owned(),
    }
}
