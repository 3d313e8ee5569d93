//! What has arrived of a run so far, and what comes of it when the run is over: a reply, or an error
//! that keeps all of it.

use std::fmt::Write as _;

use serde_json::json;
use tokio::time::Instant;

use super::dialect::Dialect;
use super::event::{Event, Retry};
use super::evidence::{Activity, Trace};
use super::failure::{self, Ending};
use super::invocation::Invocation;
use super::lines::{Line, Lines};
use super::run::{End, Limits, Progress, Reply};
use super::text::clean;
use crate::error::{Error, Kind, Result};

/// The end of standard error that is kept, bytes.
const STDERR_KEPT: usize = 16 * 1024;
/// Lines of plain text that are kept, for the error that they may be.
const PLAIN_KEPT: usize = 200;
/// Warnings about lines that could not be used.
const WARNINGS_KEPT: usize = 10;

/// What has arrived so far.
pub(super) struct Record {
    dialect: Dialect,
    pub(super) started: Instant,
    lines: Lines,
    /// Bytes of standard output so far.
    pub(super) bytes: u64,
    trace: Trace,
    /// The last words of the model, and whether it called no tool with them: then its turn is over.
    words: Option<(String, bool)>,
    session: Option<String>,
    plain: Vec<String>,
    retry: Option<Retry>,
    retrying: bool,
    stderr: Vec<u8>,
    warnings: Vec<String>,
    odd: usize,
}

impl Record {
    pub(super) fn new(dialect: Dialect, line_bytes: usize) -> Record {
        Record {
            dialect,
            started: Instant::now(),
            lines: Lines::new(line_bytes),
            bytes: 0,
            trace: Trace::new(dialect),
            words: None,
            session: None,
            plain: Vec::new(),
            retry: None,
            retrying: false,
            stderr: Vec::new(),
            warnings: Vec::new(),
            odd: 0,
        }
    }

    pub(super) fn progress(&self) -> Progress {
        let activity = match &self.retry {
            Some(retry) if self.retrying => {
                let why = match retry.status {
                    Some(429) => "rate limited".to_owned(),
                    Some(status) => format!("the service answered {status}"),
                    None => "the service did not answer".to_owned(),
                };
                Activity::Retrying(why, retry.next_attempt, retry.max_attempts, retry.delay_ms)
            }
            _ if self.bytes == 0 => Activity::Starting,
            _ => self.trace.activity(),
        };
        Progress { activity, files: self.trace.files_read(), elapsed: self.started.elapsed() }
    }

    pub(super) fn silence(&self, limits: &Limits) -> String {
        if self.bytes == 0 {
            let limit = limits.first_line.as_secs();
            format!("Kimi wrote nothing within first_line_seconds ({limit} s)")
        } else {
            let limit = limits.silence.as_secs();
            format!("Kimi wrote nothing for silence_seconds ({limit} s)")
        }
    }

    /// Takes bytes of standard output; tells whether a line came of them.
    pub(super) fn take_bytes(&mut self, bytes: &[u8]) -> bool {
        self.bytes += bytes.len() as u64;
        let mut complete = Vec::new();
        self.lines.push(bytes, |line| complete.push(line));
        let any = !complete.is_empty();
        for line in complete {
            self.take_line(line);
        }
        any
    }

    pub(super) fn take_rest(&mut self) {
        if let Some(line) = self.lines.finish() {
            self.take_line(line);
        }
    }

    fn take_line(&mut self, line: Line) {
        let text = match line {
            Line::Whole(text) => text,
            Line::TooLong(bytes) => {
                return self.warn(format!(
                    "a line of {bytes} bytes was skipped: it is over max_line_bytes"
                ));
            }
        };
        let Some(event) = Event::read(&text) else { return };
        self.retrying = matches!(event, Event::Retrying(_));
        match event {
            Event::Version(_) => {}
            Event::Assistant { text, calls } => {
                if let Some(text) = text.filter(|text| !text.trim().is_empty()) {
                    self.words = Some((text, calls.is_empty()));
                } else if let Some((_, last)) = &mut self.words
                    && !calls.is_empty()
                {
                    *last = false;
                }
                for call in calls {
                    self.trace.call(call);
                }
            }
            Event::ToolResult { id, text } => self.trace.result(&id, &text),
            Event::Retrying(retry) => self.retry = Some(retry),
            Event::Session(id) => self.session = Some(clean(&id).into_owned()),
            Event::Plain(text) => {
                if self.plain.len() < PLAIN_KEPT {
                    self.plain.push(text);
                }
            }
            Event::Unknown(what) => {
                self.warn(format!("a line of Kimi's stream was skipped: unknown {what}"));
            }
        }
    }

    fn warn(&mut self, warning: String) {
        self.odd += 1;
        if self.warnings.len() < WARNINGS_KEPT && !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    pub(super) fn take_stderr(&mut self, bytes: &[u8]) {
        self.stderr.extend_from_slice(bytes);
        let over = self.stderr.len().saturating_sub(STDERR_KEPT);
        self.stderr.drain(..over);
    }

    /// The reply, when the model's turn was over; otherwise the error, with what had arrived.
    pub(super) fn conclude(mut self, invocation: &Invocation, end: End) -> Result<Reply> {
        self.take_rest();
        let stderr = String::from_utf8_lossy(&self.stderr).into_owned();
        if self.session.is_none() && self.dialect == Dialect::KimiCli {
            self.session = session_in(&stderr);
        }
        let answered = match (&self.words, &end) {
            // Nobody waits for it any more.
            (_, End::Limit(Kind::Cancelled, _)) | (None, _) => false,
            (Some((_, turn_is_over)), End::Exited(status)) => *turn_is_over || status.success(),
            (Some((_, turn_is_over)), End::Limit(..)) => *turn_is_over,
        };
        if !answered {
            return Err(self.error(invocation, &stderr, end));
        }
        match end {
            End::Exited(status) if !status.success() => {
                self.warnings.push(format!("Kimi ended abnormally after its answer ({status})"));
            }
            End::Exited(_) => {}
            End::Limit(_, why) => {
                self.warnings.push(format!("Kimi had answered but did not end by itself: {why}"));
            }
        }
        // kimi-code goes on without a section of its settings that it cannot read; a wall may be one.
        let ignored = stderr.lines().filter(|line| line.contains("Ignored invalid config section"));
        self.warnings.extend(ignored.map(|line| clean(line.trim()).into_owned()));
        if !self.plain.is_empty() {
            self.odd += self.plain.len();
            let count = self.plain.len();
            self.warnings
                .push(format!("{count} lines of Kimi's stream were skipped: they are no JSON"));
        }
        if self.odd > self.warnings.len() + WARNINGS_KEPT {
            self.warnings.push(format!("{} lines of Kimi's stream were skipped in all", self.odd));
        }
        let (text, _) = self.words.unwrap_or_default();
        Ok(Reply {
            text: clean(&text).into_owned(),
            seen: self.trace.finish(),
            session_id: self.session,
            warnings: self.warnings,
            elapsed: self.started.elapsed(),
        })
    }

    fn error(self, invocation: &Invocation, stderr: &str, end: End) -> Error {
        let mut error = match end {
            End::Exited(status) => {
                let ending = Ending {
                    code: status.code(),
                    stderr,
                    plain: &self.plain,
                    retry: self.retry.as_ref(),
                };
                failure::classify(&invocation.program, &ending)
            }
            End::Limit(kind, message) => Error::new(kind, message, failure::hint(kind)),
        };
        if self.retrying && matches!(error.kind, Kind::TimedOut | Kind::Stalled) {
            let why = self.retry.map(|retry| retry.message).unwrap_or_default();
            let _ =
                write!(error.message, "; it was waiting to ask the service again: {}", clean(&why));
        }
        let seen = self.trace.finish();
        if self.words.is_some() || !seen.evidence.is_empty() {
            error.partial = Some(json!({
                "response": self.words.map(|(text, _)| clean(&text).into_owned()),
                "evidence": seen.evidence,
                "session_id": self.session,
            }));
        }
        error
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
