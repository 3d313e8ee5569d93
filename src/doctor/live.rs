//! Checks the result of a small real consultation. The caller runs the consultation.

use std::time::Duration;

use super::check::{Check, Section};
use crate::consult::ConsultResult;
use crate::error::{Kind, Result};
use crate::sandbox::Sandbox;

/// A finished consultation about a sample project.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) result: Result<ConsultResult>,
    pub(crate) took: Duration,
    /// True if no file of the sample project changed.
    pub(crate) unchanged: bool,
}

pub(crate) fn section(trial: &Trial) -> Section {
    let checks = match &trial.result {
        Ok(result) => answer_checks(trial, result),
        Err(error) => vec![Check::error("answer", error), workspace(trial)],
    };
    Section { part: "consultation", checks }
}

fn answer_checks(trial: &Trial, result: &ConsultResult) -> Vec<Check> {
    let seconds = trial.took.as_secs_f64();
    let came = match result.evidence.len() {
        1 => format!("came after {seconds:.1} s and 1 tool call"),
        calls => format!("came after {seconds:.1} s and {calls} tool calls"),
    };
    let answer = if result.parse_ok {
        Check::ok("answer", format!("{came}, and could be read"))
    } else {
        let remedy =
            "Try again; if that does not help, use the tested version of Kimi, or another model.";
        Check::warning("answer", format!("{came}, and could not be read"), remedy)
    };
    let session = match &result.provenance.session_id {
        Some(session) => Check::ok("session", session),
        None => Check::warning(
            "session",
            "Kimi named none: later rounds use a new session, with the history in the prompt",
            "Use the tested version of Kimi.",
        ),
    };
    let sandbox = match result.provenance.sandbox {
        Sandbox::Landlock => Check::ok("sandbox", "Kimi ran inside Landlock"),
        Sandbox::None => Check::note("sandbox", "Kimi ran without one"),
    };
    let mut checks = vec![answer, session, sandbox, workspace(trial)];
    checks.extend(result.warnings.iter().map(|warning| Check::note("warning", warning)));
    checks
}

fn workspace(trial: &Trial) -> Check {
    if trial.unchanged {
        Check::ok("workspace", "no file of the sample changed")
    } else {
        Check::problem(
            "workspace",
            Kind::Sandbox,
            "a file of the sample changed while Kimi ran",
            "Do not let this Kimi near your projects; set `sandbox: required`, and report it.",
        )
    }
}
