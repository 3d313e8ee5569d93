//! The rows of runs. A run holds a lock while it runs, so a row that says `running` without a held lock was interrupted,
//! for example by a crash.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension as _, params};

use super::rows::{RunRow, RunState};
use super::{Ledger, json, lock, parsed};
use crate::error::Result;

/// The folder of the transcripts in the state folder.
pub(crate) fn transcripts(state_dir: &Path) -> PathBuf {
    state_dir.join("transcripts")
}

impl Ledger {
    /// Writes the row of a run that begins, and returns the lock that the run holds.
    pub(crate) fn begin_run(&self, run: &RunRow) -> Result<Option<File>> {
        let lock = self.lock(&run.id)?;
        self.save_run(run)?;
        Ok(lock)
    }

    /// Writes the row of a run that ended, and removes the file of its lock.
    pub(crate) fn end_run(&self, run: &RunRow) -> Result<()> {
        let saved = self.save_run(run);
        // A missing file counts as unlocked.
        let _ = fs::remove_file(lock::path(&self.state_dir, &run.id));
        saved
    }

    fn save_run(&self, run: &RunRow) -> Result<()> {
        self.change(|change| {
            let sql = "INSERT INTO runs (id, row) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET row = ?2";
            change.execute(sql, params![run.id, json(run)?]).map(drop)
        })
    }

    /// The latest runs, the latest first.
    pub(crate) fn runs(&self, limit: usize) -> Result<Vec<RunRow>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let runs: Vec<RunRow> = self.read(|connection| {
            let sql = "SELECT row FROM runs ORDER BY number DESC LIMIT ?1";
            connection.prepare(sql)?.query_map([limit], parsed)?.collect()
        })?;
        runs.into_iter().map(|run| self.checked(run)).collect()
    }

    /// The runs of a thread, in their order.
    pub(crate) fn runs_of(&self, thread: &str) -> Result<Vec<RunRow>> {
        self.read(|connection| {
            let sql = "SELECT row FROM runs WHERE thread_id = ?1 ORDER BY number";
            connection.prepare(sql)?.query_map([thread], parsed)?.collect()
        })
    }

    /// Marks a run as interrupted if its row says `running` and no process holds its lock.
    fn checked(&self, run: RunRow) -> Result<RunRow> {
        if run.state != RunState::Running || lock::is_held(&self.state_dir, &run.id) {
            return Ok(run);
        }
        // The run may have ended since its row was read.
        let later: Option<RunRow> = self.read(|connection| {
            let sql = "SELECT row FROM runs WHERE id = ?1";
            connection.query_row(sql, [&run.id], parsed).optional()
        })?;
        let ended = later.filter(|later| later.state != RunState::Running);
        Ok(ended.unwrap_or(RunRow { state: RunState::Interrupted, ..run }))
    }

    /// The file for everything that Kimi writes in a run.
    pub(crate) fn transcript(&self, run: &str) -> PathBuf {
        transcripts(&self.state_dir).join(format!("{run}.jsonl.gz"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RoundRow, ThreadRow};
    use super::*;

    fn run(id: &str, thread: Option<&str>, state: RunState) -> RunRow {
        let round = thread.map(|_| 1);
        RunRow {
            id: id.into(),
            thread_id: thread.map(Into::into),
            round,
            state,
            ..RunRow::default()
        }
    }

    #[test]
    fn a_running_row_without_a_lock_is_interrupted() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let running = |id| run(id, None, RunState::Running);
        let lock = ledger.begin_run(&running("a")).unwrap();
        let crashed = ledger.begin_run(&running("b")).unwrap();
        let _ended = ledger.begin_run(&running("c")).unwrap();
        let answered = RunRow { ended_at: Some(2), ..run("c", None, RunState::Answered) };
        ledger.end_run(&answered).unwrap();
        drop(crashed);
        let other = Ledger::open(dir.path()).unwrap();
        let interrupted = run("b", None, RunState::Interrupted);
        for _ in 0..2 {
            let seen = [answered.clone(), interrupted.clone(), running("a")];
            assert_eq!(other.runs(9).unwrap(), seen);
        }
        drop(lock);
        assert_eq!(other.runs(3).unwrap()[2], run("a", None, RunState::Interrupted));
        assert_eq!(other.runs(1).unwrap(), [answered]);
        assert!(!lock::path(dir.path(), "c").exists());
    }

    #[test]
    fn a_deleted_thread_leaves_no_run_and_no_transcript() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        fs::create_dir(transcripts(dir.path())).unwrap();
        let files = || fs::read_dir(transcripts(dir.path())).unwrap().count();
        for id in ["a", "b"] {
            let thread = ThreadRow { id: id.into(), ..ThreadRow::default() };
            ledger.save(&thread, Some(&RoundRow { number: 1, ..RoundRow::default() })).unwrap();
        }
        for (id, thread) in [("1", Some("a")), ("2", Some("a")), ("3", Some("b")), ("4", None)] {
            ledger.begin_run(&run(id, thread, RunState::Running)).unwrap();
            fs::write(ledger.transcript(id), id).unwrap();
        }
        fs::write(ledger.transcript("2"), "").unwrap();
        let kept = |thread| ledger.thread(thread).unwrap().unwrap().1.remove(0).transcripts;
        assert_eq!(kept("a"), [ledger.transcript("1")]);
        ledger.delete("a").unwrap();
        let left: Vec<String> = ledger.runs(9).unwrap().into_iter().map(|run| run.id).collect();
        assert_eq!((left, files()), (vec!["4".to_owned(), "3".to_owned()], 2));
        assert_eq!(kept("b"), [ledger.transcript("3")]);
    }
}
