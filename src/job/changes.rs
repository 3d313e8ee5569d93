//! The changes of the project during a run: a snapshot before the run, compared after it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::workspace::{Changes, Gap, Snapshot};

/// The time limit of a snapshot. A network disk that does not answer blocks a system call for ever; the call then
/// continues without a snapshot.
const LONGEST_LOOK: Duration = Duration::from_secs(15);

/// The state of the project before the run.
#[derive(Debug)]
pub(crate) struct ProjectSnapshot {
    /// `None` if the snapshot did not end in time.
    snapshot: Option<Snapshot>,
}

impl ProjectSnapshot {
    /// Takes a snapshot of the project without the state folder, to which the bridge itself writes.
    pub(crate) async fn take(
        project: PathBuf,
        state_dir: &Path,
        cancel: &CancellationToken,
    ) -> ProjectSnapshot {
        let own = [state_dir.to_owned()];
        let look = move |stopped: &dyn Fn() -> bool| Snapshot::take(&project, &own, stopped);
        ProjectSnapshot { snapshot: in_time(look, cancel).await }
    }

    /// Takes a second snapshot and returns the differences. It stops waiting once `closing` fires.
    pub(crate) async fn compare(self, closing: &CancellationToken) -> Changes {
        let changes = match self.snapshot {
            Some(before) => in_time(move |stopped| before.changes(stopped), closing).await,
            None => None,
        };
        changes.unwrap_or_else(|| Changes { incomplete: [Gap::Late].into(), ..Changes::default() })
    }
}

/// Takes a snapshot on a thread that may wait for a disk. When it is too late or cancelled, the snapshot stops at the next
/// entry; one that is blocked in a system call keeps its thread.
async fn in_time<T: Send + 'static>(
    look: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
    end: &CancellationToken,
) -> Option<T> {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let _stop_when_dropped = stop.drop_guard();
    let looking = spawn_blocking(move || look(&|| stopped.is_cancelled()));
    tokio::select! {
        looked = timeout(LONGEST_LOOK, looking) => looked.ok()?.ok(),
        () = end.cancelled() => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn a_cancelled_call_does_not_wait_for_a_look_and_stops_it() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let (ends, end) = mpsc::channel();
        let endless = move |stopped: &dyn Fn() -> bool| {
            while !stopped() {
                thread::sleep(Duration::from_millis(1));
            }
            ends.send(()).unwrap();
        };
        assert_eq!(in_time(endless, &cancel).await, None);
        end.recv().unwrap();
    }

    #[tokio::test]
    async fn a_project_that_was_not_looked_at_is_not_called_unchanged() {
        let changes = ProjectSnapshot { snapshot: None }.compare(&CancellationToken::new()).await;
        let gap = "not all of the project was compared: it could not be looked at in time";
        assert_eq!((changes.workspace_changed(), changes.warnings()), (None, vec![gap.to_owned()]));
    }
}
