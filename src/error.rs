//! The one error of the bridge, grouped by who must act.
//!
//! An [`Error`] is written for two readers: a person at a terminal and a model that called a tool.
//! Both get what went wrong, every problem at once, and the next step. It knows nothing of answers
//! or threads: what had arrived before a failure travels as plain JSON in [`Error::partial`].

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// What every fallible function of the crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by who has to do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The caller's request does not fit.
    Request,
    /// No `kimi` program was found.
    KimiMissing,
    /// The only `kimi` found is the retired release.
    KimiRetired,
    /// Kimi has no model or login.
    NotLoggedIn,
    /// The service refused the key or login.
    BadKey,
    /// The account's quota is spent.
    Quota,
    /// The bridge's or Kimi's own settings cannot be used.
    Settings,
    /// The service asked to slow down, and Kimi gave up.
    RateLimited,
    /// The service failed or could not be reached.
    Unavailable,
    /// The service answered with nothing.
    EmptyAnswer,
    /// The whole run took longer than `timeout_seconds`.
    TimedOut,
    /// Kimi wrote nothing for longer than `first_line_seconds` or `silence_seconds`.
    Stalled,
    /// Kimi wrote more than `max_run_bytes`.
    TooMuchOutput,
    /// Kimi ended without an answer, for a reason it did not name.
    Crashed,
    /// The caller, the host or a signal ended the call.
    Cancelled,
    /// Kimi could not be started, or a private folder not be made.
    Spawn,
    /// The sandbox is required and there is none, or Kimi could not start inside it.
    Sandbox,
    /// Kimi used up its own limit of steps.
    StepLimit,
    /// The ledger could not be read or written.
    Ledger,
    /// The call does not fit where its thread stands.
    Round,
}

impl Kind {
    /// Every kind, in the order in which `--help` lists them.
    pub const ALL: [Kind; 20] = [
        Kind::Request,
        Kind::Round,
        Kind::KimiMissing,
        Kind::KimiRetired,
        Kind::NotLoggedIn,
        Kind::BadKey,
        Kind::Quota,
        Kind::Settings,
        Kind::RateLimited,
        Kind::Unavailable,
        Kind::EmptyAnswer,
        Kind::TimedOut,
        Kind::Stalled,
        Kind::TooMuchOutput,
        Kind::StepLimit,
        Kind::Crashed,
        Kind::Cancelled,
        Kind::Spawn,
        Kind::Ledger,
        Kind::Sandbox,
    ];

    /// The name on the wire, such as `rate_limited`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Request => "request",
            Kind::KimiMissing => "kimi_missing",
            Kind::KimiRetired => "kimi_retired",
            Kind::NotLoggedIn => "not_logged_in",
            Kind::BadKey => "bad_key",
            Kind::Quota => "quota",
            Kind::Settings => "settings",
            Kind::RateLimited => "rate_limited",
            Kind::Unavailable => "unavailable",
            Kind::EmptyAnswer => "empty_answer",
            Kind::TimedOut => "timed_out",
            Kind::Stalled => "stalled",
            Kind::TooMuchOutput => "too_much_output",
            Kind::Crashed => "crashed",
            Kind::Cancelled => "cancelled",
            Kind::Spawn => "spawn",
            Kind::Sandbox => "sandbox",
            Kind::Ledger => "ledger",
            Kind::StepLimit => "step_limit",
            Kind::Round => "round",
        }
    }

    /// The exit code of the shell commands. 2 is also what a bad command line gives; 1 and 4 are
    /// left for what is not an [`Error`].
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Request => 2,
            Kind::KimiMissing => 10,
            Kind::KimiRetired => 11,
            Kind::NotLoggedIn => 12,
            Kind::BadKey => 13,
            Kind::Quota => 14,
            Kind::Settings => 15,
            Kind::RateLimited => 20,
            Kind::Unavailable => 21,
            Kind::EmptyAnswer => 22,
            Kind::TimedOut => 30,
            Kind::Stalled => 31,
            Kind::TooMuchOutput => 32,
            Kind::Crashed => 33,
            Kind::Cancelled => 34,
            Kind::Spawn => 40,
            Kind::Sandbox => 42,
            Kind::Ledger => 41,
            Kind::StepLimit => 35,
            Kind::Round => 3,
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn retryable(self) -> bool {
        match self {
            Kind::RateLimited
            | Kind::Unavailable
            | Kind::EmptyAnswer
            | Kind::TimedOut
            | Kind::Stalled
            | Kind::Crashed => true,
            Kind::Request
            | Kind::KimiMissing
            | Kind::KimiRetired
            | Kind::NotLoggedIn
            | Kind::BadKey
            | Kind::Quota
            | Kind::Settings
            | Kind::TooMuchOutput
            | Kind::StepLimit
            | Kind::Cancelled
            | Kind::Spawn
            | Kind::Sandbox
            | Kind::Ledger
            | Kind::Round => false,
        }
    }

    /// What it means, for the list of exit codes.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Kind::Request => "the request does not fit its role",
            Kind::KimiMissing => "no kimi program found",
            Kind::KimiRetired => "only the retired kimi-cli release found",
            Kind::NotLoggedIn => "Kimi has no model or login",
            Kind::BadKey => "the service refused the key or login",
            Kind::Quota => "the account's quota is spent",
            Kind::Settings => "a setting cannot be used",
            Kind::RateLimited => "the service asked to slow down",
            Kind::Unavailable => "the service failed or could not be reached",
            Kind::EmptyAnswer => "the service answered with nothing",
            Kind::TimedOut => "the run took longer than timeout_seconds",
            Kind::Stalled => "Kimi was silent for too long",
            Kind::TooMuchOutput => "Kimi wrote more than max_run_bytes",
            Kind::Crashed => "Kimi ended without an answer",
            Kind::Cancelled => "the call was cancelled",
            Kind::Spawn => "Kimi could not be started",
            Kind::Sandbox => "there is no sandbox, or Kimi could not start inside it",
            Kind::Ledger => "the ledger could not be read or written",
            Kind::StepLimit => "Kimi used up its steps before it answered",
            Kind::Round => "the call does not fit where its thread stands",
        }
    }
}

/// One thing in the caller's input that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// JSON pointer to the place, such as `/context/goals`; empty for the whole.
    pub pointer: String,
    /// What would have fitted there.
    pub expected: String,
    /// The pointer of the known field that was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub did_you_mean: Option<String>,
}

impl Violation {
    /// A violation for which no other field seems to be meant.
    pub fn new(pointer: impl Into<String>, expected: impl Into<String>) -> Violation {
        Violation { pointer: pointer.into(), expected: expected.into(), did_you_mean: None }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.pointer.is_empty() { "/" } else { &self.pointer };
        write!(f, "{place}: {}", self.expected)?;
        if let Some(near) = &self.did_you_mean {
            write!(f, " (did you mean {near}?)")?;
        }
        Ok(())
    }
}

/// A failure, with all that its reader needs to go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Who must act, and the class on the wire.
    pub kind: Kind,
    /// A lower-case fragment that fits after "failed: ".
    pub message: String,
    /// The next step, a sentence.
    pub hint: String,
    /// Every problem of the caller's input; empty for other kinds.
    pub violations: Vec<Violation>,
    /// A request that would have been accepted, filled in.
    pub example: Option<Value>,
    /// What had arrived before the failure: `response`, `evidence`, `session_id`.
    pub partial: Option<Value>,
}

impl Error {
    /// An error without violations, example or partial result.
    pub fn new(kind: Kind, message: impl Into<String>, hint: impl Into<String>) -> Error {
        Error {
            kind,
            message: message.into(),
            hint: hint.into(),
            violations: Vec::new(),
            example: None,
            partial: None,
        }
    }

    /// Whether Kimi had said or looked up anything before the failure.
    #[must_use]
    pub fn has_arrived(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| {
            let calls = partial["evidence"].as_array();
            !partial["response"].is_null() || calls.is_some_and(|calls| !calls.is_empty())
        })
    }

    /// The structured form: `{"error": {"kind", "message", "hint", "retryable", "partial", …}}`.
    #[must_use]
    pub fn report(&self) -> Value {
        let mut error = serde_json::json!({
            "kind": self.kind,
            "message": self.message,
            "hint": self.hint,
            "retryable": self.kind.retryable(),
            "partial": self.partial,
        });
        if !self.violations.is_empty() {
            error["violations"] = serde_json::json!(self.violations);
        }
        if let Some(example) = &self.example {
            error["example"] = example.clone();
        }
        serde_json::json!({ "error": error })
    }

    /// The same as text, for a reader that sees no structure: some hosts show a model only the text
    /// of an error result, so nothing may be missing here.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = vec![format!("{}: {}", self.kind.name(), self.message)];
        lines.extend(self.violations.iter().map(|violation| format!("- {violation}")));
        lines.push(format!("hint: {}", self.hint));
        lines.push(format!("retryable: {}", self.kind.retryable()));
        if let Some(example) = &self.example {
            lines.push(format!("example of a request that fits:\n{example:#}"));
        }
        if let Some(partial) = &self.partial {
            lines.push(format!("what had arrived:\n{partial}"));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_name_and_exit_code() {
        let mut names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        let mut codes: Vec<_> = Kind::ALL.iter().map(|kind| kind.exit_code()).collect();
        names.sort_unstable();
        names.dedup();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!((names.len(), codes.len()), (Kind::ALL.len(), Kind::ALL.len()));
        for kind in Kind::ALL {
            assert_eq!(serde_json::json!(kind), serde_json::json!(kind.name()));
        }
    }

    #[test]
    fn the_text_of_an_error_holds_all_that_its_structure_holds() {
        let error = Error {
            violations: vec![Violation {
                pointer: "/context/goal".into(),
                expected: "no such field".into(),
                did_you_mean: Some("/context/goals".into()),
            }],
            example: Some(serde_json::json!({"role": "skeptic"})),
            partial: Some(serde_json::json!({"response": "so far"})),
            ..Error::new(Kind::Request, "the request does not fit", "Mend it.")
        };
        insta::assert_snapshot!(error.text(), @r#"
        request: the request does not fit
        - /context/goal: no such field (did you mean /context/goals?)
        hint: Mend it.
        retryable: false
        example of a request that fits:
        {
          "role": "skeptic"
        }
        what had arrived:
        {"response":"so far"}
        "#);
    }
}
