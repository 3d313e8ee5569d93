//! Stops a command when a signal arrives.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::kimi::Watch;
use crate::settings::Settings;

/// The tokens that SIGINT, SIGTERM and SIGHUP cancel.
pub(super) struct ShutdownSignals {
    /// Cancelled by the first signal. The run stops, but still reports its result.
    pub(super) asked: CancellationToken,
    /// Cancelled by the second signal. The run ends at once.
    at_once: CancellationToken,
    /// One permit for each run that may be active at the same time.
    slots: Semaphore,
}

impl ShutdownSignals {
    pub(super) fn on_signals(
        settings: &Settings,
        interrupted: &CancellationToken,
    ) -> Result<ShutdownSignals> {
        // Installs a handler for SIGCHLD, which a parent may have set to be ignored: then no child could be waited for.
        // The handler remains after its listener is dropped.
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

    /// Returns a watch without progress messages.
    pub(super) fn watch(&self) -> Watch<'_> {
        let ShutdownSignals { asked: cancel, at_once: closing, slots } = self;
        Watch { progress: &|_| {}, cancel, closing, slots }
    }
}
