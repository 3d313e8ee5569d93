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
const KEEPER_EXTRA: Duration = Duration::from_millis(500);

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
    overdue_at: Instant,
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

    /// Returns the next point in time at which something is overdue. `call_end` is the end of the call.
    fn alarm(&self, call_end: Instant, is_behind: bool) -> Instant {
        match (&self.exited, &self.ending) {
            (Some((_, drained_by)), _) => *drained_by,
            (None, Some(ending)) => ending.patience,
            (None, None) if is_behind => call_end,
            (None, None) => call_end.min(self.overdue_at),
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
    let call_end = limits.deadline.end();
    let overdue_at = record.started + limits.first_line;
    let mut state = Observation {
        overdue_at,
        exited: None,
        ending: None,
        stdout_open: true,
        stderr_open: true,
    };
    let mut heartbeat = interval_at(record.started + limits.heartbeat, limits.heartbeat);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if let Some((status, drained_by)) = state.exited
            && (!(state.stdout_open || state.stderr_open) || Instant::now() >= drained_by)
        {
            return state.ending.map_or(End::Exited(status), |ending| ending.why);
        }
        let is_behind = record.is_behind();
        let met = tokio::select! {
            () = watch.cancel.cancelled(), if state.ending.is_none() => {
                Some(End::Limit(Kind::Cancelled, "the call was cancelled".to_owned()))
            }
            () = sleep_until(state.alarm(call_end, is_behind)) => match state.ending.take() {
                // The pipes are drained.
                ending if state.exited.is_some() => {
                    state.ending = ending;
                    None
                }
                Some(Termination { why, killed: true, .. }) => return why,
                Some(Termination { why, .. }) => {
                    child.kill();
                    let patience = Instant::now() + DRAIN;
                    state.ending = Some(Termination { why, patience, killed: true });
                    None
                }
                None if Instant::now() >= call_end => {
                    Some(End::Limit(Kind::TimedOut, limits.deadline.error().message))
                }
                None if state.stdout_open => Some(End::Limit(Kind::Stalled, record.silence(limits))),
                None => Some(End::Closed),
            },
            // Memory stays bounded because Kimi blocks on a full pipe while the transcript is behind.
            () = record.catch_up(), if is_behind => {
                // Silence does not count while nothing is read.
                if state.stdout_open {
                    state.overdue_at = Instant::now() + limits.silence;
                }
                None
            }
            read = stdout.read(&mut out), if state.stdout_open && !(state.is_running() && is_behind) => {
                let length = read.unwrap_or_default();
                take(&out[..length], &mut state, limits, watch, record)
            }
            read = stderr.read(&mut err), if state.stderr_open => {
                let length = read.unwrap_or_default();
                state.stderr_open = length > 0;
                record.take_stderr(&err[..length]);
                None
            }
            status = child.wait(), if state.exited.is_none() => match status {
                Ok(status) => {
                    state.exited = Some((status, Instant::now() + DRAIN));
                    None
                }
                Err(error) => {
                    return End::Limit(Kind::Crashed, format!("Kimi could not be waited for: {error}"));
                }
            },
            () = watch.closing.cancelled(), if state.can_end_sooner() => {
                if let Some(ending) = &mut state.ending {
                    ending.patience = Instant::now() + HURRIED_GRACE;
                }
                None
            }
            _ = heartbeat.tick() => {
                (watch.progress)(&record.progress(limits));
                None
            }
        };
        if let (Some(why), None) = (met, &state.ending) {
            child.terminate();
            // The keeper counts the grace period itself, and needs a moment to finish.
            let extra = if child.kept { KEEPER_EXTRA } else { Duration::ZERO };
            let patience = Instant::now() + limits.grace + extra;
            state.ending = Some(Termination { why, patience, killed: false });
        }
    }
}

/// Records bytes of standard output, and returns the limit that they exceed. No bytes mean that the program closed
/// standard output; it then has a moment to end, or to write a reason to standard error.
fn take(
    bytes: &[u8],
    state: &mut Observation,
    limits: &Limits,
    watch: Watch<'_>,
    record: &mut RunRecord,
) -> Option<End> {
    if bytes.is_empty() {
        state.stdout_open = false;
        state.overdue_at = Instant::now() + limits.grace.max(DRAIN);
        record.take_rest();
        return None;
    }
    // Bytes beyond the limit are read and dropped, so that Kimi does not block on a full pipe.
    if record.bytes > limits.run_bytes {
        return None;
    }
    state.overdue_at = Instant::now() + limits.silence;
    if record.take_bytes(bytes) && state.ending.is_none() {
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
