//! The one error of the bridge, grouped by who must act.
//!
//! An [`Error`] is for two readers: a person at a terminal and a model that called a tool. Both get every problem at
//! once and the next step. This file knows no answer and no thread; results from before a failure are plain JSON in
//! [`Error::partial`].

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value;

/// The result of every fallible function of the crate.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// The hint for a missing or retired Kimi.
const INSTALL_HINT: &str = "Install Kimi Code CLI (`npm install -g @moonshot-ai/kimi-code`, Node 24) and \
     log in (`kimi login`), or set KIMI_PATH to the program. `kimi-bridge doctor` shows what is found, and why it is not used.";

/// Builds [`Kind`] from a table. Columns: variant, name on the wire, exit code, retryable, meaning, hint.
macro_rules! kinds {
    ($($kind:ident: $name:literal, $code:literal, $retryable:literal, $meaning:literal, $hint:expr;)*) => {
        /// The kind of a failure, by who must act. The rows have the order of `--help`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind { $(#[doc = concat!("Named `", $name, "` on the wire.")] $kind,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Kind] = &[$(Kind::$kind),*];

            /// The name on the wire, such as `rate_limited`.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name,)* }
            }

            /// The exit code of the shell commands. 2 is also the code of a bad command line; 1 and 4 are for
            /// outcomes without an [`Error`].
            pub fn exit_code(self) -> u8 {
                match self { $(Kind::$kind => $code,)* }
            }

            /// Returns whether the same call may succeed later without any change.
            pub fn retryable(self) -> bool {
                match self { $(Kind::$kind => $retryable,)* }
            }

            /// The meaning in the list of exit codes.
            pub fn meaning(self) -> &'static str {
                match self { $(Kind::$kind => $meaning,)* }
            }

            /// The usual next step.
            pub fn hint(self) -> &'static str {
                match self { $(Kind::$kind => $hint,)* }
            }
        }
    };
}

kinds! {
    Request: "request", 2, false, "the request does not fit its role",
        "Fix the problems listed and call again.";
    Round: "round", 3, false, "the call does not fit the state of its thread",
        "Look the thread up and answer what is open.";
    Busy: "busy", 5, true, "another call works on the same thread",
        "Wait for that call to end, then call again.";
    KimiMissing: "kimi_missing", 10, false, "no kimi program found",
        INSTALL_HINT;
    KimiRetired: "kimi_retired", 11, false, "only the retired kimi-cli release found",
        INSTALL_HINT;
    NotLoggedIn: "not_logged_in", 12, false, "Kimi has no model or login",
        "Run `kimi login` in a terminal, or set a model in Kimi's config.toml; then ask again.";
    BadKey: "bad_key", 13, false, "the service refused the key or login",
        "Log in again (`kimi login`), or replace the API key; then ask again.";
    Quota: "quota", 14, false, "the account's quota is spent",
        "Wait until the quota renews, or raise it in the account's console.";
    Settings: "settings", 15, false, "a setting cannot be used",
        "Fix the problems listed; docs/settings.md describes every setting.";
    NotAdmitted: "not_admitted", 17, false, "the service admits listed coding agents only",
        "Update Kimi and log in (`kimi login`), or use a key of the Moonshot platform with the address \
         of that platform; the service's community guideline names the agents that it admits.";
    RateLimited: "rate_limited", 20, true, "the service asked to slow down",
        "Wait a minute and ask again; Kimi had tried several times already.";
    Unavailable: "unavailable", 21, true, "the service failed or could not be reached",
        "Check the network and the service's status, then ask again.";
    EmptyAnswer: "empty_answer", 22, true, "the service answered with nothing",
        "Ask again; if it happens every time, ask in smaller parts.";
    Declined: "declined", 23, false, "the service refuses this request",
        "The message gives the service's reason: ask about a smaller part, put the question in other words, or fix the \
         model's name or parameters in Kimi's config.toml.";
    TimedOut: "timed_out", 30, true, "the call took longer than timeout_seconds",
        "Raise `timeout_seconds`, or ask about a smaller part.";
    Stalled: "stalled", 31, true, "Kimi was silent for too long",
        "Ask again. If Kimi does work in a terminal, raise `silence_seconds` or `first_line_seconds`.";
    TooMuchOutput: "too_much_output", 32, false, "Kimi wrote more than max_run_bytes",
        "Ask about a smaller part, or raise `max_run_bytes`.";
    StepLimit: "step_limit", 35, false, "Kimi used up its steps before it answered",
        "Raise or remove `max_steps_per_turn` in Kimi's config.toml, or ask about a smaller part.";
    Crashed: "crashed", 33, true, "Kimi ended without an answer",
        "Ask again; if it happens every time, run `kimi` by hand to see why.";
    Cancelled: "cancelled", 34, false, "the call was cancelled",
        "Nothing is left running; ask again when you want the answer.";
    Spawn: "spawn", 40, false, "Kimi could not be started",
        "Check that the program can be started by hand; `kimi-bridge doctor` tries it inside and \
         outside the sandbox.";
    Ledger: "ledger", 41, false, "the ledger could not be read or written",
        "Free disk space or fix the file's permissions; `state_dir` moves the ledger elsewhere.";
    Sandbox: "sandbox", 42, false, "there is no sandbox, or Kimi could not start inside it",
        "Add the folder that Kimi needs to `readable` in settings.yaml (KIMI_BRIDGE_READABLE in the \
         environment); `kimi-bridge doctor` tries whether it starts, and `sandbox: off` goes without.";
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A problem in the caller's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// JSON pointer to the place, such as `/context/goals`; empty for the whole.
    pub pointer: String,
    /// The value that would fit there, or the reason why none does.
    pub expected: String,
    /// The pointer of the known field that was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub did_you_mean: Option<String>,
}

impl Violation {
    /// A violation without a similar known field.
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

/// A failure, with the next step for its reader.
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
    /// A complete request that would be accepted.
    pub example: Option<Value>,
    /// Results from before the failure: `response`, `evidence`, `session_id`.
    pub partial: Option<Value>,
}

impl Error {
    /// An error with the usual hint of its kind.
    pub fn from_kind(kind: Kind, message: impl Into<String>) -> Error {
        Error::new(kind, message, kind.hint())
    }

    /// An error with a hint of its own, without violations, example or partial result.
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

    /// Returns whether Kimi wrote anything or called a tool before the failure.
    pub fn has_arrived(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| {
            let calls = partial["evidence"].as_array();
            !partial["response"].is_null() || calls.is_some_and(|calls| !calls.is_empty())
        })
    }

    /// The structured form: `{"error": {"kind", "message", "hint", "retryable", "partial", …}}`.
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

    /// The same content as [`Error::report`], as text: some hosts show a model only the text of an error result.
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
            ..Error::new(Kind::Request, "the request does not fit", "Fix it.")
        };
        insta::assert_snapshot!(error.text(), @r#"
        request: the request does not fit
        - /context/goal: no such field (did you mean /context/goals?)
        hint: Fix it.
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
