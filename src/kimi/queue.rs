//! The queue of runs: `max_parallel` run at once, and the others wait and report progress.

use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::reply::{Deadline, Watch};
use crate::error::{Error, Kind, Result};
use crate::settings::Settings;

/// Waits for a slot until the deadline, in the order of arrival. Dropping the permit frees the slot.
pub(super) async fn wait<'a>(
    settings: &Settings,
    deadline: Deadline,
    watch: Watch<'a>,
) -> Result<Option<SemaphorePermit<'a>>> {
    expect_not_cancelled(watch)?;
    deadline.expect_time()?;
    if let Ok(slot) = watch.slots.try_acquire() {
        return Ok(Some(slot));
    }
    let mut heartbeat = interval(Duration::from_secs(settings.heartbeat_seconds));
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let activity = match settings.max_parallel {
        1 => "waiting in turn: another consultation is under way".to_owned(),
        running => format!("waiting in turn: {running} consultations are under way"),
    };
    let waiting = watch.slots.acquire();
    tokio::pin!(waiting);
    loop {
        tokio::select! {
            // The semaphore is never closed.
            slot = &mut waiting => return Ok(slot.ok()),
            () = watch.cancel.cancelled() => expect_not_cancelled(watch)?,
            () = sleep_until(deadline.end()) => deadline.expect_time()?,
            _ = heartbeat.tick() => (watch.progress)(&deadline.progress(activity.clone(), 0)),
        }
    }
}

/// Fails if the caller has cancelled.
pub(super) fn expect_not_cancelled(watch: Watch<'_>) -> Result<()> {
    if !watch.cancel.is_cancelled() {
        return Ok(());
    }
    Err(Error::from_kind(Kind::Cancelled, "the call was cancelled"))
}
