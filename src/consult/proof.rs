//! Whether the project changed while Kimi ran: a look before, a look after, and the words for it.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::result::ConsultResult;
use crate::error::Error;
use crate::settings::Loaded;
use crate::workspace::{Changes, Limits, Snapshot};

/// How long a look may take before the consultation goes on without it: a project on a network that
/// does not answer keeps a system call waiting for ever.
const PATIENCE: Duration = Duration::from_secs(15);

/// A look that was taken, and the contents that are being remembered beside the run.
pub(super) struct Proof {
    remembering: Option<JoinHandle<Snapshot>>,
    stop: Arc<AtomicBool>,
}

impl Proof {
    /// Looks at the project before Kimi starts.
    pub(super) async fn begin(project: &Path, loaded: &Loaded) -> Proof {
        let (project, own) = (project.to_owned(), vec![loaded.state_dir().to_owned()]);
        let looking = spawn_blocking(move || Snapshot::take(&project, &own, &Limits::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let remembering = match timeout(PATIENCE, looking).await {
            Ok(Ok(mut snapshot)) => Some(spawn_blocking(move || {
                snapshot.remember_contents(|| until.load(Ordering::Relaxed));
                snapshot
            })),
            Ok(Err(_)) | Err(_) => None,
        };
        Proof { remembering, stop }
    }

    /// Looks again.
    async fn end(self) -> Option<Changes> {
        self.stop.store(true, Ordering::Relaxed);
        let looking = async {
            let snapshot = self.remembering?.await.ok()?;
            spawn_blocking(move || snapshot.changes()).await.ok()
        };
        timeout(PATIENCE, looking).await.ok().flatten()
    }

    /// Says in a result what was seen.
    pub(super) async fn told(self, mut result: ConsultResult) -> ConsultResult {
        match self.end().await {
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

    /// Says it in an error, where something did change: a run that failed may have done harm as well.
    pub(super) async fn told_in_error(self, mut error: Error) -> Error {
        if let Some(changes) = self.end().await
            && changes.workspace_changed() == Some(true)
        {
            let _ = write!(error.hint, " Note: {}.", changes.warnings().join("; "));
        }
        error
    }
}
