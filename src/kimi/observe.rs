//! Watches a run: reads what it says, and notices when it must end.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::ChildStdin;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::child::Child;
use super::invocation::Invocation;
use super::record::Record;
use super::reply::{End, Limits, Watch};
use crate::error::Kind;

/// How long the pipes may stay open after the program itself has ended: a process that it left
/// behind may hold them for ever.
const DRAIN: Duration = Duration::from_millis(500);
/// The grace period when the bridge is about to end: Claude Code kills a server 500 ms after it
/// closed its input, and kimi-code ends within 120 ms.
const HURRIED_GRACE: Duration = Duration::from_millis(250);
/// What the keeper gets beyond the grace period that it counts itself.
const KEEPERS_MOMENT: Duration = Duration::from_millis(500);

/// A run that is to end: why, and when patience does.
struct Ending {
    why: End,
    patience: Instant,
    /// Whether patience has ended.
    killed: bool,
}

impl Ending {
    /// Whether it could still be hurried.
    fn is_patient(&self) -> bool {
        !self.killed && self.patience > Instant::now() + HURRIED_GRACE
    }
}

/// Where a run stands.
struct Standing {
    /// When the first line, or the next, is overdue; the end of a program that can say no more.
    quiet: Instant,
    /// How the program ended, and until when its pipes are read.
    exited: Option<(ExitStatus, Instant)>,
    /// Why it is to end.
    ending: Option<Ending>,
    /// Which pipes are open: standard output, standard error.
    open: (bool, bool),
}

impl Standing {
    /// Whether the clock counts: it does not for a program that has ended or is about to.
    fn is_running(&self) -> bool {
        self.exited.is_none() && self.ending.is_none()
    }

    fn is_over(&self) -> bool {
        self.exited.is_some_and(|(_, drained_by)| {
            self.open == (false, false) || Instant::now() >= drained_by
        })
    }

    fn end(self, status: ExitStatus) -> End {
        self.ending.map_or(End::Exited(status), |ending| ending.why)
    }
}

/// Watches until the program has ended, by itself or because it had to. What it says while it is
/// ending still counts.
pub(super) async fn observe(
    child: &mut Child,
    invocation: &Invocation,
    limits: &Limits,
    watch: Watch<'_>,
    record: &mut Record,
) -> End {
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return End::Limit(Kind::Spawn, "the child has no pipes".to_owned());
    };
    let mut feeding = feed(child.stdin.take(), invocation.stdin.as_bytes());
    let mut fed = false;
    let (mut out, mut err) = (vec![0_u8; 64 * 1024], vec![0_u8; 8 * 1024]);
    let whole = record.started + limits.whole;
    let quiet = record.started + limits.first_line;
    let mut now = Standing { quiet, exited: None, ending: None, open: (true, true) };
    let mut heartbeat = interval_at(record.started + limits.heartbeat, limits.heartbeat);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if let (Some((status, _)), true) = (now.exited, now.is_over()) {
            return now.end(status);
        }
        let met = tokio::select! {
            () = watch.cancel.cancelled(), if now.ending.is_none() => {
                Some(End::Limit(Kind::Cancelled, "the call was cancelled".to_owned()))
            }
            () = sleep_until(whole), if now.is_running() => {
                let limit = limits.whole.as_secs();
                let why = format!("the run took longer than timeout_seconds ({limit} s)");
                Some(End::Limit(Kind::TimedOut, why))
            }
            () = sleep_until(now.quiet), if now.is_running() && !record.is_behind() => {
                Some(if now.open.0 {
                    End::Limit(Kind::Stalled, record.silence(limits))
                } else {
                    End::Closed
                })
            }
            // Kimi waits at a full pipe while the transcript is behind, so that memory stays bounded.
            () = record.catch_up(), if record.is_behind() => {
                // Kimi is not silent while it is not read.
                if now.open.0 {
                    now.quiet = Instant::now() + limits.silence;
                }
                None
            }
            read = stdout.read(&mut out), if now.open.0 && !(now.is_running() && record.is_behind()) => {
                let length = read.unwrap_or_default();
                take(&out[..length], &mut now, limits, watch, record)
            }
            read = stderr.read(&mut err), if now.open.1 => {
                let length = read.unwrap_or_default();
                now.open.1 = length > 0;
                record.take_stderr(&err[..length]);
                None
            }
            () = &mut feeding, if !fed => {
                fed = true;
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
            () = sleep_until(now.exited.map_or(whole, |(_, by)| by)), if now.exited.is_some() => None,
            () = watch.closing.cancelled(), if now.ending.as_ref().is_some_and(Ending::is_patient) => {
                if let Some(ending) = &mut now.ending {
                    ending.patience = ending.patience.min(Instant::now() + HURRIED_GRACE);
                }
                None
            }
            () = patience_of(now.ending.as_ref()) => {
                match now.ending.take() {
                    Some(over) if over.killed => return over.why,
                    Some(over) => {
                        child.kill();
                        let patience = Instant::now() + DRAIN;
                        now.ending = Some(Ending { killed: true, patience, ..over });
                    }
                    None => {}
                }
                None
            }
            _ = heartbeat.tick() => {
                (watch.progress)(&record.progress());
                None
            }
        };
        if let (Some(why), None) = (met, &now.ending) {
            child.terminate();
            // The keeper counts the grace period itself; it gets a moment to finish its work.
            let moment = if child.kept { KEEPERS_MOMENT } else { Duration::ZERO };
            let patience = Instant::now() + limits.grace + moment;
            now.ending = Some(Ending { why, patience, killed: false });
        }
    }
}

/// Takes what came on standard output, nothing when it was closed; tells of a limit that was met. A
/// program that has closed it may be about to end, or name a reason on standard error: it gets a moment.
fn take(
    bytes: &[u8],
    now: &mut Standing,
    limits: &Limits,
    watch: Watch<'_>,
    record: &mut Record,
) -> Option<End> {
    if bytes.is_empty() {
        now.open.0 = false;
        now.quiet = Instant::now() + limits.grace.max(DRAIN);
        record.take_rest();
        return None;
    }
    // What comes beyond the limit is read, so that nobody waits at a full pipe, and dropped.
    if record.bytes > limits.run_bytes {
        return None;
    }
    now.quiet = Instant::now() + limits.silence;
    if record.take_bytes(bytes) && now.ending.is_none() {
        (watch.progress)(&record.progress());
    }
    let limit = limits.run_bytes;
    (record.bytes > limit).then(|| {
        End::Limit(Kind::TooMuchOutput, format!("Kimi wrote more than max_run_bytes ({limit})"))
    })
}

/// Waits until patience ends; for ever while nothing is to end.
async fn patience_of(ending: Option<&Ending>) {
    match ending {
        Some(ending) => sleep_until(ending.patience).await,
        None => std::future::pending().await,
    }
}

/// Writes the prompt, and closes the pipe. A program that does not read it to the end has its reasons, which
/// its own words tell.
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
