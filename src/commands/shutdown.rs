//! The end of a command by a signal.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::kimi::Watch;
use crate::settings::Settings;

/// The reaction to SIGINT, SIGTERM and SIGHUP.
pub(super) struct ShutdownSignals {
    /// Fired by the first signal: cancels the run, which still reports.
    pub(super) asked: CancellationToken,
    /// Fired by the second signal: ends the run at once.
    at_once: CancellationToken,
    /// A permit for each Kimi that may run at the same time.
    slots: Semaphore,
}

impl ShutdownSignals {
    pub(super) fn on_signals(
        settings: &Settings,
        interrupted: &CancellationToken,
    ) -> Result<ShutdownSignals> {
        // Replaces the inherited handler: where SIGCHLD is ignored, no child can be waited for. The handler stays when
        // its listener is dropped.
        let _ = signal(SignalKind::child());
        let (asked, at_once) = (CancellationToken::new(), CancellationToken::new());
        let stop = ShutdownSignals { asked, at_once, slots: Semaphore::new(settings.max_parallel) };
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let mut signals = signal(kind).map_err(|error| {
                Error::new(Kind::Spawn, format!("signals cannot be watched: {error}"), "Try again.")
            })?;
            let (asked, at_once) = (stop.asked.clone(), stop.at_once.clone());
            let interrupted = (kind == SignalKind::interrupt()).then(|| interrupted.clone());
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    if let Some(interrupted) = &interrupted {
                        interrupted.cancel();
                    }
                    if asked.is_cancelled() {
                        at_once.cancel();
                    }
                    asked.cancel();
                }
            });
        }
        Ok(stop)
    }

    /// A watch without progress messages.
    pub(super) fn watch(&self) -> Watch<'_> {
        let ShutdownSignals { asked: cancel, at_once: closing, slots } = self;
        Watch { progress: &|_| {}, cancel, closing, slots }
    }
}
