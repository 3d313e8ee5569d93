//! The status of the bridge: the Kimi that it would use, its login and the sandbox. It runs no consultation.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};

use super::confinement::decide;
use super::dialect::{Identity, Program};
use super::login;
use super::program::{self, Candidate};
use super::reply::Watch;
use crate::error::Error;
use crate::redact::Secrets;
use crate::sandbox::{Sandbox, kernel};
use crate::settings::{Config, SandboxSetting};

/// The status of the bridge. It contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct BridgeStatus {
    pub(crate) bridge_version: &'static str,
    pub(crate) mode: String,
    pub(crate) mode_hint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kimi: Option<Used>,
    /// The reason why a consultation would fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
    /// All programs that were found, in the order of preference.
    pub(crate) found: Vec<FoundProgram>,
    /// `landlock`, or the reason why there is no sandbox.
    pub(crate) sandbox: String,
    pub(crate) limits: Value,
    /// The folder of sessions and private homes.
    pub(crate) state_dir: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Used {
    #[serde(flatten)]
    pub(crate) program: Program,
    /// True if there is a login, a key or a provider. Only a run shows whether the service accepts it.
    pub(crate) login_seen: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FoundProgram {
    pub(crate) path: PathBuf,
    pub(crate) found: String,
    /// The name and version of the program, or its output.
    pub(crate) is: String,
}

/// Adds the violations of an error to its message, because the status contains only the message and the hint.
fn with_violations(error: &Error) -> Error {
    let violations: Vec<String> = error.violations.iter().map(ToString::to_string).collect();
    Error { message: format!("{}: {}", error.message, violations.join("; ")), ..error.clone() }
}

/// Describes the sandbox.
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

/// Finds all programs, the login and the sandbox.
pub(crate) async fn status(config: &Config, watch: Watch<'_>) -> BridgeStatus {
    let Config { settings, environment, .. } = config;
    let candidates = program::all(config, watch).await;
    let (kimi, error) = match program::choose(config, &candidates) {
        Ok(program) => {
            let login_seen =
                login::find(environment, program.dialect).problem(program.dialect).is_none();
            (Some(Used { program, login_seen }), None)
        }
        Err(error) => (None, Some(error)),
    };
    let secrets = Secrets::load(&environment.config_dir, &environment.vars);
    let error = error.or_else(|| secrets.err().map(|error| with_violations(&error)));
    let found =
        candidates.into_iter().map(|Candidate { path, found, identity, output, .. }| {
            let is = match &identity {
                Identity::Usable(..) => identity.to_string(),
                Identity::Retired(_) => format!("{identity}, retired"),
                Identity::Unknown => format!("{identity}: {output}"),
            };
            FoundProgram { path, found, is }
        });
    BridgeStatus {
        bridge_version: env!("CARGO_PKG_VERSION"),
        mode: json!(config.mode()).as_str().unwrap_or_default().to_owned(),
        mode_hint: config.mode_hint(),
        kimi,
        problem: error.as_ref().map(|error| error.message.clone()),
        hint: error.map(|error| error.hint),
        found: found.collect(),
        sandbox: sandbox(settings.sandbox),
        limits: json!({
            "timeout_seconds": settings.timeout_seconds,
            "first_line_seconds": settings.first_line_seconds,
            "silence_seconds": settings.silence_seconds,
            "max_result_chars": settings.max_result_chars,
        }),
        state_dir: config.state_dir().to_owned(),
    }
}
