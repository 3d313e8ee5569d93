//! Several consultations at once: so many run, the others wait in turn, and say so.

use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::evidence::Activity;
use super::failure;
use super::run::{Progress, Watch};
use crate::error::{Error, Kind, Result};
use crate::settings::Settings;

/// Waits for a place, first come, first served. The run may begin, and lasts as long as what is
/// returned.
///
/// # Errors
/// [`Kind::Cancelled`] when nobody waits for it any more.
pub(super) async fn wait<'a>(
    settings: &Settings,
    watch: Watch<'a>,
) -> Result<Option<SemaphorePermit<'a>>> {
    expect_wanted(watch)?;
    if let Ok(place) = watch.places.try_acquire() {
        return Ok(Some(place));
    }
    let started = Instant::now();
    let mut heartbeat = interval(settings.heartbeat());
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let waiting = watch.places.acquire();
    tokio::pin!(waiting);
    loop {
        tokio::select! {
            // Closed it is never; and if it were, nobody should wait for ever.
            place = &mut waiting => return Ok(place.ok()),
            () = watch.cancel.cancelled() => expect_wanted(watch)?,
            _ = heartbeat.tick() => (watch.progress)(&Progress {
                activity: Activity::Waiting(settings.max_parallel),
                files: 0,
                elapsed: started.elapsed(),
            }),
        }
    }
}

/// Refuses to go on with what nobody waits for any more.
///
/// # Errors
/// [`Kind::Cancelled`].
pub(super) fn expect_wanted(watch: Watch<'_>) -> Result<()> {
    if !watch.cancel.is_cancelled() {
        return Ok(());
    }
    let kind = Kind::Cancelled;
    Err(Error::new(kind, "the call was cancelled", failure::hint(kind)))
}
