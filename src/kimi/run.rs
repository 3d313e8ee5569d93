//! Runs one [`Invocation`] to its end: spawn, feed, read, watch the clock, and leave nobody behind.
//!
//! This is the one place that starts Kimi. Whatever ends a run early, what had arrived is kept in
//! the error.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;

use super::dialect::Dialect;
use super::evidence::{Activity, Seen};
use super::failure;
use super::invocation::Invocation;
use super::record::Record;
use crate::error::{Error, Kind, Result};
use crate::settings::Settings;

/// How long the pipes may stay open after the program itself has ended: a process that it left
/// behind may hold them for ever.
const DRAIN: Duration = Duration::from_millis(500);
/// The grace period when the bridge is about to end: Claude Code kills a server 500 ms after it
/// closed its input, and kimi-code ends within 120 ms.
const HURRIED_GRACE: Duration = Duration::from_millis(250);
/// The limits of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The whole run.
    pub whole: Duration,
    /// Until the first line.
    pub first_line: Duration,
    /// Between two lines.
    pub silence: Duration,
    /// From TERM to KILL.
    pub grace: Duration,
    /// Between two progress messages.
    pub heartbeat: Duration,
    /// Bytes of one line.
    pub line_bytes: usize,
    /// Bytes of the whole stream.
    pub run_bytes: u64,
    /// Bytes of the transcript.
    pub transcript_bytes: u64,
}

impl Limits {
    /// The limits that the settings give; `timeout` is the call's own, where it has one.
    #[must_use]
    pub fn of(settings: &Settings, dialect: Dialect, timeout: Option<u64>) -> Limits {
        let first_line = match dialect {
            Dialect::KimiCode => settings.first_line_seconds,
            // It says nothing at its start: its first line is the first finished turn.
            Dialect::KimiCli => settings.first_line_seconds.max(settings.silence_seconds),
        };
        Limits {
            whole: Duration::from_secs(timeout.unwrap_or(settings.timeout_seconds)),
            first_line: Duration::from_secs(first_line),
            silence: Duration::from_secs(settings.silence_seconds),
            grace: settings.grace(),
            heartbeat: Duration::from_secs(settings.heartbeat_seconds),
            line_bytes: settings.max_line_bytes,
            run_bytes: settings.max_run_bytes,
            transcript_bytes: settings.max_transcript_bytes,
        }
    }
}

/// What Kimi does, for whoever waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What it does now.
    pub activity: Activity,
    /// Files read so far.
    pub files: usize,
    /// Since the start.
    pub elapsed: Duration,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} · ", self.activity)?;
        match self.files {
            0 => {}
            1 => f.write_str("1 file · ")?,
            files => write!(f, "{files} files · ")?,
        }
        write!(f, "{} s", self.elapsed.as_secs())
    }
}

/// Who waits for a run: is told of progress, and may end it.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Called at every change and at least every `heartbeat_seconds`.
    pub progress: &'a (dyn Fn(&Progress) + Sync),
    /// Ends the run.
    pub cancel: &'a CancellationToken,
    /// The bridge itself is about to end: nobody can wait out a grace period any more.
    pub closing: &'a CancellationToken,
}

/// What a run ended with.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Kimi's last words, cleaned of what cannot be seen.
    pub text: String,
    /// What it read and looked up.
    pub seen: Seen,
    /// Its session, for a later round.
    pub session_id: Option<String>,
    /// What was odd about the stream.
    pub warnings: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Reply {
    /// This reply with the words of a later turn that says the same in a form that can be read.
    #[must_use]
    pub fn mended(mut self, later: Reply) -> Reply {
        self.text = later.text;
        self.seen.evidence.extend(later.seen.evidence);
        self.seen.shown.extend(later.seen.shown);
        self.seen.incomplete |= later.seen.incomplete;
        self.seen.not_kept += later.seen.not_kept;
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
}

/// Runs it.
///
/// # Errors
/// What [`failure::classify`] makes of its end; [`Kind::Spawn`], [`Kind::TimedOut`],
/// [`Kind::Stalled`], [`Kind::TooMuchOutput`] or [`Kind::Cancelled`] otherwise.
pub async fn run(
    invocation: &Invocation,
    dialect: Dialect,
    limits: &Limits,
    transcript: Option<&Path>,
    watch: Watch<'_>,
) -> Result<Reply> {
    let mut record = Record::new(dialect, limits.line_bytes);
    if let Some(path) = transcript {
        record.keep_in(path, limits.transcript_bytes);
    }
    (watch.progress)(&record.progress());
    let mut group = spawn(invocation)?;
    let end = observe(&mut group, invocation, limits, watch, &mut record).await;
    group.end(limits.grace, watch.closing, &end).await;
    record.conclude(invocation, end)
}

/// Runs a program that speaks no stream, and returns what it printed: standard output, then standard
/// error, the end of each.
///
/// # Errors
/// [`Kind::Spawn`], or the limit that ended it.
pub(super) async fn text(
    invocation: &Invocation,
    limits: &Limits,
    watch: Watch<'_>,
) -> Result<String> {
    let mut record = Record::new(Dialect::KimiCode, limits.line_bytes);
    let mut group = spawn(invocation)?;
    let end = observe(&mut group, invocation, limits, watch, &mut record).await;
    group.end(limits.grace, watch.closing, &end).await;
    match end {
        End::Exited(_) => Ok(record.into_text()),
        End::Limit(kind, why) => Err(Error::new(kind, why, failure::hint(kind))),
    }
}

/// The child and its process group.
struct Group {
    child: Child,
    id: Option<Pid>,
    ended: bool,
}

fn spawn(invocation: &Invocation) -> Result<Group> {
    let child = Command::new(&invocation.program)
        .args(&invocation.args)
        .env_clear()
        .envs(&invocation.env)
        .current_dir(&invocation.work_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            let message = format!("could not start {}: {error}", invocation.program.display());
            Error::new(Kind::Spawn, message, failure::hint(Kind::Spawn))
        })?;
    let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    tracing::debug!(program = %invocation.program.display(), pid = child.id(), "started");
    Ok(Group { child, id, ended: false })
}

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            // An error means that nobody is left, which is what is wanted.
            let _ = kill_process_group(id, signal);
        }
    }

    /// Ends whatever is left of the group: TERM, the grace period, KILL.
    async fn end(&mut self, grace: Duration, closing: &CancellationToken, end: &End) {
        if let End::Limit(..) = end {
            self.signal(Signal::TERM);
            let hurry = async {
                closing.cancelled().await;
                tokio::time::sleep(HURRIED_GRACE).await;
            };
            tokio::select! {
                _ = self.child.wait() => {}
                () = tokio::time::sleep(grace) => {}
                () = hurry => {}
            }
        }
        self.signal(Signal::KILL);
        let _ = self.child.wait().await;
        self.ended = true;
    }
}

impl Drop for Group {
    /// For a future that is dropped half-way: the group goes with it.
    fn drop(&mut self) {
        if !self.ended {
            self.signal(Signal::KILL);
        }
    }
}

async fn observe(
    group: &mut Group,
    invocation: &Invocation,
    limits: &Limits,
    watch: Watch<'_>,
    record: &mut Record,
) -> End {
    let child = &mut group.child;
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return End::Limit(Kind::Spawn, "the child has no pipes".to_owned());
    };
    let mut feeding = feed(child.stdin.take(), invocation.stdin.as_bytes());
    let mut fed = false;
    let (mut out, mut err) = (vec![0_u8; 64 * 1024], vec![0_u8; 8 * 1024]);
    let (mut out_open, mut err_open) = (true, true);
    let whole = record.started + limits.whole;
    let mut quiet = record.started + limits.first_line;
    let mut exited: Option<(ExitStatus, Instant)> = None;
    let mut heartbeat = interval_at(record.started + limits.heartbeat, limits.heartbeat);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if let Some((status, drained_by)) = exited
            && (!(out_open || err_open) || Instant::now() >= drained_by)
        {
            return End::Exited(status);
        }
        tokio::select! {
            () = watch.cancel.cancelled() => {
                return End::Limit(Kind::Cancelled, "the call was cancelled".to_owned());
            }
            () = sleep_until(whole) => {
                let limit = limits.whole.as_secs();
                return End::Limit(Kind::TimedOut, format!("the run took longer than timeout_seconds ({limit} s)"));
            }
            () = sleep_until(quiet), if exited.is_none() => {
                return End::Limit(Kind::Stalled, record.silence(limits));
            }
            read = stdout.read(&mut out), if out_open => match read {
                Ok(0) | Err(_) => {
                    out_open = false;
                    record.take_rest();
                }
                Ok(length) => {
                    quiet = Instant::now() + limits.silence;
                    if record.take_bytes(&out[..length]) {
                        (watch.progress)(&record.progress());
                    }
                    if record.bytes > limits.run_bytes {
                        let limit = limits.run_bytes;
                        return End::Limit(Kind::TooMuchOutput, format!("Kimi wrote more than max_run_bytes ({limit})"));
                    }
                }
            },
            read = stderr.read(&mut err), if err_open => match read {
                Ok(0) | Err(_) => err_open = false,
                Ok(length) => record.take_stderr(&err[..length]),
            },
            () = &mut feeding, if !fed => fed = true,
            status = child.wait(), if exited.is_none() => match status {
                Ok(status) => exited = Some((status, Instant::now() + DRAIN)),
                Err(error) => return End::Limit(Kind::Crashed, format!("Kimi could not be waited for: {error}")),
            },
            () = sleep_until(exited.map_or(whole, |(_, by)| by)), if exited.is_some() => {}
            _ = heartbeat.tick() => (watch.progress)(&record.progress()),
        }
    }
}

/// Writes the prompt and closes the pipe. A program that does not read it to the end has its
/// reasons, which its own words tell.
fn feed<'a>(
    stdin: Option<ChildStdin>,
    text: &'a [u8],
) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
    Box::pin(async move {
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(text).await;
            let _ = stdin.shutdown().await;
        }
    })
}
