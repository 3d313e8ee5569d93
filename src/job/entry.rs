//! The entry of a run in the ledger, written before Kimi starts and again after it ended.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::kimi::{Reply, session};
use crate::ledger::{Ledger, RunRow, RunState, now, random_id};

/// The entry of a run that is under way.
#[derive(Debug)]
pub(super) struct RunEntry {
    ledger: Ledger,
    row: RunRow,
    /// The lock that shows other processes that the run is under way.
    _lock: Option<File>,
}

impl RunEntry {
    /// Gives the run its id, and writes its first row.
    pub(super) fn open(row: RunRow, state_dir: &Path) -> Result<RunEntry> {
        let ledger = Ledger::open(state_dir)?;
        let row = RunRow { id: random_id()?, started_at: now(), ..row };
        let lock = ledger.begin_run(&row)?;
        Ok(RunEntry { ledger, row, _lock: lock })
    }

    /// The file for everything that Kimi writes.
    pub(super) fn transcript(&self) -> PathBuf {
        self.ledger.transcript(&self.row.id)
    }

    /// Writes the end of the run.
    pub(super) fn close(mut self, ended: std::result::Result<&Reply, &Error>) -> Result<()> {
        let session_id = match ended {
            Ok(reply) => {
                self.row.state = RunState::Answered;
                reply.session_id.as_deref()
            }
            Err(error) => {
                self.row.state = RunState::Failed;
                self.row.error = Some(error.kind.name().to_owned());
                error.partial.as_ref().and_then(|partial| partial["session_id"].as_str())
            }
        };
        if let Some(id) = session_id.filter(|id| session::is_id(id)) {
            self.row.session_id = Some(id.to_owned());
        }
        self.row.ended_at = Some(now());
        self.ledger.end_run(&self.row)
    }
}
