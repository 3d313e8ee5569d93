//! Turns the record of a run into a reply, or into an error that keeps the output so far.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::RunRecord;
use crate::error::{Error, Kind, Result};
use crate::hidden::{self, Cleaned};
use crate::kimi::dialect::Dialect;
use crate::kimi::failure::{self, Exit, FailedRun};
use crate::kimi::invocation::{Invocation, Under};
use crate::kimi::reply::{End, Reply};
use crate::kimi::start_failure;
use crate::kimi::text::clean;
use crate::sandbox::Sandbox;

impl RunRecord {
    /// Returns the reply, if the model wrote a message and the call was not cancelled. The text may be only part of an
    /// answer if [`Reply::failure`] is set.
    pub(in crate::kimi) fn conclude(mut self, invocation: &Invocation, end: &End) -> Result<Reply> {
        self.take_rest();
        let stderr = self.stderr();
        if self.session.is_none() && self.dialect == Dialect::KimiCli {
            self.session = session_in(&stderr);
        }
        let is_cancelled = matches!(end, End::Limit(Kind::Cancelled, _));
        let (Some(words), false) = (&self.words, is_cancelled) else {
            return Err(self.error(invocation, &stderr, end));
        };
        let messages: Vec<Cleaned<'_>> =
            self.earlier.iter().chain([words]).map(|text| Cleaned::new(text)).collect();
        let hidden = messages.iter().map(|message| message.hidden).sum();
        let texts: Vec<&str> = messages.iter().map(|message| message.text.as_ref()).collect();
        let text = texts.join("\n\n");
        let has_succeeded = matches!(end, End::Exited(status) if status.success());
        let failure = (!has_succeeded).then(|| self.error(invocation, &stderr, end));
        let mut warnings = self.warnings;
        warnings.extend(failure.as_ref().map(|failure| abnormal_end_warning(end, failure)));
        // kimi-code drops a section of its settings that it cannot read, which may be one that restricts it.
        let ignored = stderr.lines().filter(|line| line.contains("Ignored invalid config section"));
        warnings.extend(ignored.map(|line| clean(line.trim()).into_owned()));
        if self.more_warnings > 0 {
            warnings.push(format!("{} more warnings about Kimi's stream", self.more_warnings));
        }
        warnings.extend(self.plain.warning());
        Ok(Reply {
            text,
            hidden,
            seen: self.trace.finish(),
            session_id: self.session,
            warnings,
            failure: failure.map(Box::new),
            sandbox: Sandbox::None,
            closed: Vec::new(),
            elapsed: self.started.elapsed(),
        })
    }

    fn error(&self, invocation: &Invocation, stderr: &str, end: &End) -> Error {
        let mut error = match end {
            End::Exited(status) => {
                let exit = status.code().map_or(Exit::Signal, Exit::Code);
                self.failure(invocation, stderr, exit)
            }
            End::Closed => self.failure(invocation, stderr, Exit::Closed),
            End::Limit(kind, message) => Error::from_kind(*kind, message),
        };
        if let (Some(skipped), Kind::EmptyAnswer) = (&self.too_long, error.kind) {
            let _ = write!(error.message, "; {skipped}");
        }
        if self.retrying && matches!(error.kind, Kind::TimedOut | Kind::Stalled) {
            let why = self.retry.as_ref().map(|retry| clean(&retry.message)).unwrap_or_default();
            let _ = write!(error.message, "; it was waiting to ask the service again: {why}");
        }
        let seen = self.trace.finish();
        if self.words.is_some() || !seen.evidence.is_empty() {
            let words = self.words.as_deref().map(Cleaned::new);
            let in_words = words.as_ref().map_or(0, |words| words.hidden);
            error.partial = Some(json!({
                "response": words.map(|words| words.text.into_owned()),
                "evidence": seen.evidence,
                "session_id": self.session,
                "warnings": Vec::from_iter(hidden::warning(in_words, seen.hidden)),
            }));
        }
        self.secrets.redact_error(error)
    }

    /// The error of a program that ended by itself.
    fn failure(&self, invocation: &Invocation, stderr: &str, exit: Exit) -> Error {
        let plain = self.plain.lines();
        let ending = FailedRun { exit, stderr, plain: &plain, retry: self.retry.as_ref() };
        let error = failure::classify(&invocation.program, &ending, &self.secrets);
        let has_started = self.words.is_some() || self.session.is_some();
        match &invocation.under {
            Under::Sandbox(rules)
                if !has_started && matches!(error.kind, Kind::Crashed | Kind::Spawn) =>
            {
                let words = format!("{stderr}\n{}", plain.join("\n"));
                let home = invocation.env.get("HOME").map_or(Path::new("/"), Path::new);
                let explained = start_failure::explain(&words, rules, home, &self.secrets);
                explained.map_or(error, |explained| explained.error)
            }
            Under::Sandbox(_) | Under::Keeper | Under::Nothing => error,
        }
    }
}

/// Returns the warning about a run that answered, but ended abnormally.
fn abnormal_end_warning(end: &End, failure: &Error) -> String {
    match end {
        End::Exited(status) if failure.kind == Kind::Crashed => {
            format!("Kimi ended abnormally after its answer ({status})")
        }
        End::Exited(_) => format!("Kimi ended abnormally after its answer: {}", failure.message),
        End::Limit(_, why) => {
            format!("Kimi had answered but did not end by itself: {why}")
        }
        End::Closed => {
            "Kimi had answered but did not end by itself: it had closed its standard output"
                .to_owned()
        }
    }
}

/// The session that kimi-cli names on standard error.
fn session_in(stderr: &str) -> Option<String> {
    let line = stderr
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("To resume this session: kimi -r "))?;
    Some(clean(line.trim()).into_owned())
}
