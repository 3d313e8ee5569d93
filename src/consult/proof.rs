//! Whether the project changed while Kimi ran: a look before, a look after, and the words for it.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::result::ConsultResult;
use crate::error::Error;
use crate::settings::Loaded;
use crate::workspace::{Changes, Snapshot};

/// How long a look may take before the consultation goes on without it: a project on a network that
/// does not answer keeps a system call waiting for ever.
const PATIENCE: Duration = Duration::from_secs(15);

/// Somebody who looks at the project, on a thread of its own: before Kimi starts, and again afterwards.
#[derive(Debug)]
pub struct Proof {
    /// Comes when the first look is over; nothing once it was waited for.
    looked: Mutex<Option<oneshot::Receiver<()>>>,
    /// Tells that the first look was not over in time, so that a second one says nothing.
    missed: AtomicBool,
    /// Tells that a look is to end.
    stop: Arc<AtomicBool>,
    /// Asks for the second look; closed, it tells that none is wanted.
    again: mpsc::Sender<()>,
    changes: oneshot::Receiver<Changes>,
}

impl Drop for Proof {
    /// Nobody wants to know any more what the project holds.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Proof {
    /// Begins to look at the project.
    #[must_use]
    pub fn begin(project: &Path, loaded: &Loaded) -> Proof {
        let (project, own) = (project.to_owned(), vec![loaded.state_dir().to_owned()]);
        let stop = Arc::new(AtomicBool::new(false));
        let (have_looked, looked) = oneshot::channel();
        let (again, wanted) = mpsc::channel();
        let (tell, changes) = oneshot::channel();
        let until = Arc::clone(&stop);
        let looking = move || {
            let stopped = || until.load(Ordering::Relaxed);
            let snapshot = Snapshot::take(&project, &own, &stopped);
            // Whoever stopped waiting for the first look wants no second one.
            if have_looked.send(()).is_ok() && wanted.recv().is_ok() {
                let _ = tell.send(snapshot.changes(&stopped));
            }
        };
        // Without a thread nothing is looked at, which the result says.
        let _ = thread::Builder::new().spawn(looking);
        let (looked, missed) = (Mutex::new(Some(looked)), AtomicBool::new(false));
        Proof { looked, missed, stop, again, changes }
    }

    /// Waits until the first look is over: Kimi must not start before. Nobody waits for a call that was
    /// cancelled.
    pub async fn looked(&self, cancel: &CancellationToken) {
        let mut looked = self.looked.lock().await;
        let Some(looked) = looked.take() else { return };
        let in_time = tokio::select! {
            looked = timeout(PATIENCE, looked) => matches!(looked, Ok(Ok(()))),
            () = cancel.cancelled() => false,
        };
        self.missed.store(!in_time, Ordering::Relaxed);
    }

    /// Begins to look again: Kimi has ended.
    pub fn look_again(&self) {
        let _ = self.again.send(());
    }

    /// What changed in between. A bridge that is about to end does not wait for it.
    async fn changes(&mut self, closing: &CancellationToken) -> Option<Changes> {
        self.look_again();
        if self.missed.load(Ordering::Relaxed) {
            return None;
        }
        tokio::select! {
            changes = timeout(PATIENCE, &mut self.changes) => changes.ok()?.ok(),
            () = closing.cancelled() => None,
        }
    }

    /// Says in a result what was seen.
    #[must_use]
    pub async fn told(
        &mut self,
        mut result: ConsultResult,
        closing: &CancellationToken,
    ) -> ConsultResult {
        match self.changes(closing).await {
            Some(changes) => {
                result.provenance.workspace_changed = changes.workspace_changed();
                result.warnings.extend(changes.warnings());
            }
            None => result.warnings.push(
                "whether the project changed is not known: it could not be looked at in time"
                    .to_owned(),
            ),
        }
        result
    }

    /// Says it in an error, where something did change: a run that failed may have done harm as well. One
    /// that never began has not.
    #[must_use]
    pub async fn told_in_error(&mut self, mut error: Error, closing: &CancellationToken) -> Error {
        if self.looked.get_mut().is_some() {
            return error;
        }
        if let Some(changes) = self.changes(closing).await
            && changes.workspace_changed() == Some(true)
        {
            let _ = write!(error.hint, " Note: {}.", changes.warnings().join("; "));
        }
        error
    }
}
