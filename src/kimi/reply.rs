//! A run from the outside: its limits, its caller, its progress and its result.

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

/// The end of a call: all that is done for it, and every wait, ends by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    started: Instant,
    limit: Duration,
}

impl Deadline {
    /// The deadline of a call that begins now.
    pub(crate) fn after(limit: Duration) -> Deadline {
        Deadline { started: Instant::now(), limit }
    }

    /// The point in time.
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
        Error::of(Kind::TimedOut, message)
    }

    /// The progress of the call, `files` of which were read.
    pub(super) fn progress(self, activity: String, files: usize) -> Progress {
        Progress { activity, files, elapsed: self.started.elapsed(), limit: self.limit }
    }
}

/// The limits of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The end of the call that the run belongs to.
    pub(crate) deadline: Deadline,
    /// Until the first line.
    pub(crate) first_line: Duration,
    /// Between two lines.
    pub(crate) silence: Duration,
    /// From TERM to KILL.
    pub(crate) grace: Duration,
    /// Between two progress messages.
    pub(crate) heartbeat: Duration,
    /// Bytes of one line.
    pub(crate) line_bytes: usize,
    /// Bytes of the whole stream.
    pub(crate) run_bytes: u64,
    /// Bytes of the transcript.
    pub(crate) transcript_bytes: u64,
}

impl Limits {
    /// The limits that the settings give to a run of this call.
    pub(crate) fn of(settings: &Settings, dialect: Dialect, deadline: Deadline) -> Limits {
        let first_line = match dialect {
            Dialect::KimiCode => settings.first_line_seconds,
            // It says nothing at its start: its first line is the first finished turn.
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

/// The progress of a call, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Kimi's current activity.
    pub(crate) activity: String,
    /// Files read so far.
    pub(crate) files: usize,
    /// Since the start of the call.
    pub(crate) elapsed: Duration,
    /// The longest that the call may take.
    pub(crate) limit: Duration,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} · ", self.activity)?;
        match self.files {
            0 => {}
            1 => f.write_str("1 file · ")?,
            files => write!(f, "{files} files · ")?,
        }
        write!(f, "{} of {} s", self.elapsed.as_secs(), self.limit.as_secs())
    }
}

/// The caller of a run, who gets its progress and may end it.
#[derive(Clone, Copy)]
pub(crate) struct Watch<'a> {
    /// Called at every change and at least every `heartbeat_seconds`.
    pub(crate) progress: &'a (dyn Fn(&Progress) + Sync),
    /// Ends the run.
    pub(crate) cancel: &'a CancellationToken,
    /// The bridge itself is about to end: the grace period is short.
    pub(crate) closing: &'a CancellationToken,
    /// How many more runs may begin.
    pub(crate) places: &'a Semaphore,
}

impl Watch<'_> {
    /// Whether the caller has stopped waiting for the run.
    pub(crate) fn is_over(&self) -> bool {
        self.cancel.is_cancelled() || self.closing.is_cancelled()
    }
}

/// The result of a run that brought an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    /// Kimi's last words, without invisible characters; before them earlier messages that hold a JSON object.
    pub(crate) text: String,
    /// The number of invisible characters in them.
    pub(crate) hidden: usize,
    /// The record of Kimi's reading.
    pub(crate) seen: Seen,
    /// Its session, for a later round.
    pub(crate) session_id: Option<String>,
    /// Oddities of the stream or of the sandbox.
    pub(crate) warnings: Vec<String>,
    /// The failure that the run ended with: unless its words are a whole answer, it is what came of the run.
    pub(crate) failure: Option<Box<Error>>,
    /// The sandbox of the run.
    pub(crate) sandbox: Sandbox,
    /// Files and folders of the project that were closed, absolute and without links.
    pub(crate) closed: Vec<PathBuf>,
    /// From the start to the end.
    pub(crate) elapsed: Duration,
}

impl Reply {
    /// This reply with the words of a later turn, which says the same in a form that can be read.
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

/// Why the watching ended.
#[derive(Debug)]
pub(super) enum End {
    /// The program ended by itself.
    Exited(ExitStatus),
    /// The bridge ended it: the kind of error, and its message.
    Limit(Kind, String),
    /// The bridge ended it, since it had closed its standard output and lived on: nothing could follow.
    Closed,
}
