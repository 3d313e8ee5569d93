//! The limits, the progress and the result of a run, and the caller's access to it. Nothing here runs a program.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dialect::Dialect;
use super::evidence::{Seen, shown};
use crate::error::{Error, Kind, Result};
use crate::sandbox::Sandbox;
use crate::settings::Settings;

/// The end of a call, by which all its work and waiting must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    started: Instant,
    limit: Duration,
}

impl Deadline {
    /// Returns the deadline of a call that begins now.
    pub(crate) fn after(limit: Duration) -> Deadline {
        Deadline { started: Instant::now(), limit }
    }

    pub(crate) fn end(self) -> Instant {
        self.started + self.limit
    }

    /// Fails once the time is up.
    pub(crate) fn expect_time(self) -> Result<()> {
        if Instant::now() < self.end() { Ok(()) } else { Err(self.error()) }
    }

    /// The error of a call whose time is up.
    pub(crate) fn error(self) -> Error {
        let limit = self.limit.as_secs();
        let message = format!("the call took longer than timeout_seconds ({limit} s)");
        Error::from_kind(Kind::TimedOut, message)
    }

    /// Returns the progress of the call. `files` is the number of files read so far.
    pub(super) fn progress(self, activity: String, files: usize) -> Progress {
        Progress { activity, files, elapsed: self.started.elapsed(), limit: self.limit }
    }
}

/// The limits of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The end of the call that the run belongs to.
    pub(crate) deadline: Deadline,
    /// The longest wait for the first line.
    pub(crate) first_line: Duration,
    /// The longest wait between two lines.
    pub(crate) silence: Duration,
    /// The time from TERM to KILL.
    pub(crate) grace: Duration,
    /// The time between two progress messages.
    pub(crate) heartbeat: Duration,
    /// Bytes of one line.
    pub(crate) line_bytes: usize,
    /// Bytes of the whole stream.
    pub(crate) run_bytes: u64,
    /// Bytes of the transcript.
    pub(crate) transcript_bytes: u64,
}

impl Limits {
    /// Returns the limits of a run.
    pub(crate) fn from_settings(
        settings: &Settings,
        dialect: Dialect,
        deadline: Deadline,
    ) -> Limits {
        let first_line = match dialect {
            Dialect::KimiCode => settings.first_line_seconds,
            // kimi-cli writes its first line after the first finished turn.
            Dialect::KimiCli => settings.first_line_seconds.max(settings.silence_seconds),
        };
        Limits {
            deadline,
            first_line: Duration::from_secs(first_line),
            silence: Duration::from_secs(settings.silence_seconds),
            grace: Duration::from_secs(settings.grace_seconds),
            heartbeat: Duration::from_secs(settings.heartbeat_seconds),
            line_bytes: settings.max_line_bytes,
            run_bytes: settings.max_run_bytes,
            transcript_bytes: settings.max_transcript_bytes,
        }
    }
}

/// The progress of a call, for display to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Kimi's current activity.
    pub(crate) activity: String,
    /// Files read so far.
    pub(crate) files: usize,
    /// The time since the start of the call.
    pub(crate) elapsed: Duration,
    /// The longest time that the call may take.
    pub(crate) limit: Duration,
}

impl Progress {
    /// The progress without the time, for a display that shows the time itself.
    pub(crate) fn without_time(&self) -> String {
        match self.files {
            0 => self.activity.clone(),
            1 => format!("{} · 1 file", self.activity),
            files => format!("{} · {files} files", self.activity),
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (elapsed, limit) = (self.elapsed.as_secs(), self.limit.as_secs());
        write!(f, "{} · {elapsed} of {limit} s", self.without_time())
    }
}

/// The caller's access to a run: receives its progress, and can end it.
#[derive(Clone, Copy)]
pub(crate) struct Watch<'a> {
    /// Called at every change and at least every `heartbeat_seconds`.
    pub(crate) progress: &'a (dyn Fn(&Progress) + Sync),
    /// Ends the run.
    pub(crate) cancel: &'a CancellationToken,
    /// Cancelled when the bridge is about to end, which shortens the grace period.
    pub(crate) closing: &'a CancellationToken,
    /// The free slots for runs.
    pub(crate) slots: &'a Semaphore,
}

impl Watch<'_> {
    /// Returns whether the caller has stopped waiting for the run.
    pub(crate) fn is_over(&self) -> bool {
        self.cancel.is_cancelled() || self.closing.is_cancelled()
    }
}

/// The result of a run that brought an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    /// Kimi's earlier messages that hold a JSON object, and the last message, without invisible characters.
    pub(crate) text: String,
    /// The number of invisible characters that were removed from `text`.
    pub(crate) hidden: usize,
    /// The record of Kimi's reading.
    pub(crate) seen: Seen,
    /// The session of the run, for a later round.
    pub(crate) session_id: Option<String>,
    /// Oddities of the stream or of the sandbox.
    pub(crate) warnings: Vec<String>,
    /// The failure that the run ended with. It is the result of the run unless `text` is a complete answer.
    pub(crate) failure: Option<Box<Error>>,
    /// The sandbox of the run.
    pub(crate) sandbox: Sandbox,
    /// Files and folders of the project that were closed, absolute and without links.
    pub(crate) closed: Vec<PathBuf>,
    /// The duration of the run.
    pub(crate) elapsed: Duration,
}

impl Reply {
    /// Replaces an unreadable answer with that of a later turn, and merges the rest of both replies.
    pub(crate) fn repaired(mut self, later: Reply) -> Reply {
        self.text = later.text;
        self.hidden = later.hidden;
        self.seen.evidence.extend(later.seen.evidence);
        shown::extend(&mut self.seen.shown, &later.seen.shown);
        self.seen.incomplete |= later.seen.incomplete;
        self.seen.not_kept += later.seen.not_kept;
        self.seen.hidden += later.seen.hidden;
        self.seen.redactions += later.seen.redactions;
        self.session_id = later.session_id.or(self.session_id);
        self.warnings
            .push("Kimi's first answer could not be read; it was asked once more".to_owned());
        self.warnings.extend(later.warnings);
        self.elapsed += later.elapsed;
        self
    }
}

/// The way in which a run ended.
#[derive(Debug)]
pub(super) enum End {
    /// The program ended by itself.
    Exited(ExitStatus),
    /// The bridge ended the program: the kind of error, and its message.
    Limit(Kind, String),
    /// The bridge ended the program, because the program had closed its standard output and kept running.
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_shown_with_and_without_the_time() {
        let progress = |files| Progress {
            activity: "thinking, after src/store.rs".to_owned(),
            files,
            elapsed: Duration::from_millis(10_900),
            limit: Duration::from_secs(900),
        };
        for (files, text) in [
            (0, "thinking, after src/store.rs"),
            (1, "thinking, after src/store.rs · 1 file"),
            (2, "thinking, after src/store.rs · 2 files"),
        ] {
            assert_eq!(progress(files).without_time(), text);
            assert_eq!(progress(files).to_string(), format!("{text} · 10 of 900 s"));
        }
    }
}
