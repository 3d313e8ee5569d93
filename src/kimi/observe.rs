//! Watches a run: reads its output, and ends it when it exceeds a limit or the caller cancels.

use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::ChildStdin;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::child::Child;
use super::invocation::Invocation;
use super::record::RunRecord;
use super::reply::{End, Limits, Watch};
use crate::error::Kind;

/// The longest wait for the pipes to close after the program has ended. A process that it left behind may hold
/// them open forever.
const DRAIN: Duration = Duration::from_millis(500);
/// The grace period when the bridge is about to end: Claude Code kills a server 500 ms after it
/// closed its input, and kimi-code ends within 120 ms.
const HURRIED_GRACE: Duration = Duration::from_millis(250);
/// The extra time for the keeper, which counts the grace period itself.
const KEEPERS_MOMENT: Duration = Duration::from_millis(500);

/// A run that is being ended.
struct Termination {
    why: End,
    /// The end of the grace period; after it, the end of the wait for a process that was killed.
    patience: Instant,
    killed: bool,
}

/// The state of a run.
struct Observation {
    /// The point in time when the next line is overdue or, once standard output is closed, the end of the program.
    quiet: Instant,
    /// The exit status of the program, and the end of the wait for its pipes.
    exited: Option<(ExitStatus, Instant)>,
    ending: Option<Termination>,
    stdout_open: bool,
    stderr_open: bool,
}

impl Observation {
    /// Returns whether limits apply: the program has not ended and is not being ended.
    fn is_running(&self) -> bool {
        self.exited.is_none() && self.ending.is_none()
    }

    /// Returns whether the grace period can still be cut short.
    fn can_end_sooner(&self) -> bool {
        let hurried = Instant::now() + HURRIED_GRACE;
        self.ending.as_ref().is_some_and(|ending| !ending.killed && ending.patience > hurried)
    }

    /// Returns the next point in time at which something is overdue. `whole` is the end of the call.
    fn alarm(&self, whole: Instant, is_behind: bool) -> Instant {
        match (&self.exited, &self.ending) {
            (Some((_, drained_by)), _) => *drained_by,
            (None, Some(ending)) => ending.patience,
            (None, None) if is_behind => whole,
            (None, None) => whole.min(self.quiet),
        }
    }
}

/// Reads the output of a program until it has ended, by itself or at a limit.
pub(super) async fn observe(
    child: &mut Child,
    invocation: &Invocation,
    limits: &Limits,
    watch: Watch<'_>,
    record: &mut RunRecord,
) -> End {
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return End::Limit(Kind::Spawn, "the child has no pipes".to_owned());
    };
    if let Some(stdin) = child.stdin.take() {
        tokio::spawn(feed(stdin, invocation.stdin.clone()));
    }
    let (mut out, mut err) = (vec![0_u8; 64 * 1024], vec![0_u8; 8 * 1024]);
    let whole = limits.deadline.end();
    let quiet = record.started + limits.first_line;
    let mut now =
        Observation { quiet, exited: None, ending: None, stdout_open: true, stderr_open: true };
    let mut heartbeat = interval_at(record.started + limits.heartbeat, limits.heartbeat);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if let Some((status, drained_by)) = now.exited
            && (!(now.stdout_open || now.stderr_open) || Instant::now() >= drained_by)
        {
            return now.ending.map_or(End::Exited(status), |ending| ending.why);
        }
        let is_behind = record.is_behind();
        let met = tokio::select! {
            () = watch.cancel.cancelled(), if now.ending.is_none() => {
                Some(End::Limit(Kind::Cancelled, "the call was cancelled".to_owned()))
            }
            () = sleep_until(now.alarm(whole, is_behind)) => match now.ending.take() {
                // The pipes are drained.
                ending if now.exited.is_some() => {
                    now.ending = ending;
                    None
                }
                Some(Termination { why, killed: true, .. }) => return why,
                Some(Termination { why, .. }) => {
                    child.kill();
                    let patience = Instant::now() + DRAIN;
                    now.ending = Some(Termination { why, patience, killed: true });
                    None
                }
                None if Instant::now() >= whole => {
                    Some(End::Limit(Kind::TimedOut, limits.deadline.error().message))
                }
                None if now.stdout_open => Some(End::Limit(Kind::Stalled, record.silence(limits))),
                None => Some(End::Closed),
            },
            // Memory stays bounded because Kimi blocks on a full pipe while the transcript is behind.
            () = record.catch_up(), if is_behind => {
                // Silence does not count while nothing is read.
                if now.stdout_open {
                    now.quiet = Instant::now() + limits.silence;
                }
                None
            }
            read = stdout.read(&mut out), if now.stdout_open && !(now.is_running() && is_behind) => {
                let length = read.unwrap_or_default();
                take(&out[..length], &mut now, limits, watch, record)
            }
            read = stderr.read(&mut err), if now.stderr_open => {
                let length = read.unwrap_or_default();
                now.stderr_open = length > 0;
                record.take_stderr(&err[..length]);
                None
            }
            status = child.wait(), if now.exited.is_none() => match status {
                Ok(status) => {
                    now.exited = Some((status, Instant::now() + DRAIN));
                    None
                }
                Err(error) => {
                    return End::Limit(Kind::Crashed, format!("Kimi could not be waited for: {error}"));
                }
            },
            () = watch.closing.cancelled(), if now.can_end_sooner() => {
                if let Some(ending) = &mut now.ending {
                    ending.patience = Instant::now() + HURRIED_GRACE;
                }
                None
            }
            _ = heartbeat.tick() => {
                (watch.progress)(&record.progress(limits));
                None
            }
        };
        if let (Some(why), None) = (met, &now.ending) {
            child.terminate();
            // The keeper counts the grace period itself, and needs a moment to finish.
            let moment = if child.kept { KEEPERS_MOMENT } else { Duration::ZERO };
            let patience = Instant::now() + limits.grace + moment;
            now.ending = Some(Termination { why, patience, killed: false });
        }
    }
}

/// Records bytes of standard output, and returns the limit that they exceed. No bytes mean that the program closed
/// standard output; it then has a moment to end, or to write a reason to standard error.
fn take(
    bytes: &[u8],
    now: &mut Observation,
    limits: &Limits,
    watch: Watch<'_>,
    record: &mut RunRecord,
) -> Option<End> {
    if bytes.is_empty() {
        now.stdout_open = false;
        now.quiet = Instant::now() + limits.grace.max(DRAIN);
        record.take_rest();
        return None;
    }
    // Bytes beyond the limit are read and dropped, so that Kimi does not block on a full pipe.
    if record.bytes > limits.run_bytes {
        return None;
    }
    now.quiet = Instant::now() + limits.silence;
    if record.take_bytes(bytes) && now.ending.is_none() {
        (watch.progress)(&record.progress(limits));
    }
    let limit = limits.run_bytes;
    (record.bytes > limit).then(|| {
        End::Limit(Kind::TooMuchOutput, format!("Kimi wrote more than max_run_bytes ({limit})"))
    })
}

/// Writes the prompt, and closes the pipe. Ignores a failed write, since the program reports why it stopped reading.
async fn feed(mut stdin: ChildStdin, prompt: String) {
    let _ = stdin.write_all(prompt.as_bytes()).await;
    let _ = stdin.shutdown().await;
}
