//! What a tiny real consultation showed. Whoever runs it hands over what came of it.

use std::time::Duration;

use super::{Check, Part, Section};
use crate::consult::ConsultResult;
use crate::error::{Kind, Result};
use crate::sandbox::Sandbox;

/// A consultation about a sample that nobody else touches.
#[derive(Debug)]
pub struct Trial {
    /// What came of it.
    pub result: Result<ConsultResult>,
    /// From the request to the result.
    pub took: Duration,
    /// Whether the sample is as it was.
    pub unchanged: bool,
}

/// What it means.
#[must_use]
pub fn section(trial: &Trial) -> Section {
    let checks = match &trial.result {
        Ok(result) => answered(trial, result),
        Err(error) => vec![Check::error("answer", error), workspace(trial)],
    };
    Section { part: Part::Consultation, checks }
}

fn answered(trial: &Trial, result: &ConsultResult) -> Vec<Check> {
    let seconds = trial.took.as_secs_f64();
    let files = result.evidence.len();
    let calls = if files == 1 { "1 tool call".to_owned() } else { format!("{files} tool calls") };
    let provenance = &result.provenance;
    let mut checks = vec![if result.parse_ok {
        Check::ok("answer", format!("came after {seconds:.1} s and {calls}, and could be read"))
    } else {
        Check::warning(
            "answer",
            format!("came after {seconds:.1} s and {calls}, and could not be read"),
            "Try once more; if it stays so, use the tested version of Kimi, or another model.",
        )
    }];
    checks.push(match &provenance.session_id {
        Some(session) => Check::ok("session", session),
        None => Check::warning(
            "session",
            "Kimi named none: later rounds are asked afresh, with the history in the prompt",
            "Use the tested version of Kimi.",
        ),
    });
    checks.push(match provenance.sandbox {
        Sandbox::Landlock => Check::ok("sandbox", "landlock held Kimi"),
        Sandbox::None => Check::note("sandbox", "none held Kimi"),
    });
    checks.push(workspace(trial));
    checks.extend(result.warnings.iter().map(|warning| Check::note("warning", warning)));
    checks
}

fn workspace(trial: &Trial) -> Check {
    if trial.unchanged {
        Check::ok("workspace", "every file of the sample is as it was")
    } else {
        Check::problem(
            "workspace",
            Kind::Sandbox,
            "a file of the sample changed while Kimi ran",
            "Do not let this Kimi near your projects; set `sandbox: required`, and report it.",
        )
    }
}
