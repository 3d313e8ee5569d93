//! The ledger: one SQLite file in the state folder that remembers threads and runs across restarts, for
//! several servers at once. It has its own row types and stores them as JSON; it knows neither roles nor
//! findings.

mod file;
mod health;
mod lock;
mod rows;
mod runs;
mod search;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::file::failed;
pub(crate) use self::health::{Health, StateFolder};
pub(crate) use self::rows::{RoundRow, RunRow, RunState, ThreadRow};
pub(crate) use self::runs::transcripts;
use self::search::Words;
use crate::error::{Error, Kind, Result};

/// An open ledger, for one call.
#[derive(Debug)]
pub(crate) struct Ledger {
    connection: Connection,
    state_dir: PathBuf,
}

/// The criteria for threads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Only of this project's folder.
    pub project: Option<String>,
    /// Only in this state.
    pub state: Option<String>,
    /// Only those whose text holds all these words.
    pub words: Option<String>,
    /// At most so many, the latest first.
    pub limit: usize,
}

impl Ledger {
    /// Opens the ledger of a state folder, and creates it if there is none. A file of an older version is renamed and kept
    /// beside the new one.
    pub(crate) fn open(state_dir: &Path) -> Result<Ledger> {
        let connection = file::open(state_dir)?;
        Ok(Ledger { connection, state_dir: state_dir.to_owned() })
    }

    /// Opens the ledger of a state folder for reading. Nothing is created, changed or locked.
    pub(crate) fn open_read_only(state_dir: &Path) -> Result<Ledger> {
        let connection = file::open_read_only(state_dir)?;
        Ok(Ledger { connection, state_dir: state_dir.to_owned() })
    }

    /// Locks a thread for one call, until the file is dropped; `None` while another call in any process holds the lock.
    pub(crate) fn lock(&self, thread: &str) -> Result<Option<File>> {
        lock::try_take(&self.state_dir, thread)
            .map_err(|error| failed("the thread cannot be locked", &error))
    }

    /// Writes a thread, its searchable text, and one of its rounds if given, in one transaction.
    pub(crate) fn save(&self, thread: &ThreadRow, round: Option<&RoundRow>) -> Result<()> {
        self.change(|change| {
            let number: i64 = change.query_row(
                "INSERT INTO threads (id, row) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET row = ?2
                 RETURNING number",
                params![thread.id, json(thread)?],
                |row| row.get(0),
            )?;
            if let Some(round) = round {
                change.execute(
                    "INSERT OR REPLACE INTO rounds VALUES (?1, ?2, ?3, ?4)",
                    params![thread.id, round.number, json(round)?, round.result],
                )?;
            }
            search::save(change, number, thread)
        })
    }

    /// One thread and its rounds.
    pub(crate) fn thread(&self, id: &str) -> Result<Option<(ThreadRow, Vec<RoundRow>)>> {
        self.read(|connection| {
            // Both queries read the same snapshot.
            let snapshot = connection.unchecked_transaction()?;
            let sql = "SELECT row FROM threads WHERE id = ?1";
            let thread = snapshot.query_row(sql, [id], parsed).optional()?;
            let sql = "SELECT row, result FROM rounds WHERE thread_id = ?1 ORDER BY number";
            let mut query = snapshot.prepare(sql)?;
            let rounds = query
                .query_map([id], |row| Ok(RoundRow { result: row.get(1)?, ..parsed(row)? }))?;
            let mut rounds = rounds.collect::<rusqlite::Result<Vec<RoundRow>>>()?;
            let sql = "SELECT row FROM runs WHERE thread_id = ?1 ORDER BY number";
            let mut query = snapshot.prepare(sql)?;
            for run in query.query_map([id], parsed::<RunRow>)? {
                let run = run?;
                let round = rounds.iter_mut().find(|round| Some(round.number) == run.round);
                let file = self.transcript(&run.id);
                // A run without output leaves an empty file.
                if let Some(round) = round
                    && file.metadata().is_ok_and(|file| file.len() > 0)
                {
                    round.transcripts.push(file);
                }
            }
            Ok(thread.map(|thread| (thread, rounds)))
        })
    }

    /// The threads that match a filter, the latest first.
    pub(crate) fn threads(&self, filter: &Filter) -> Result<Vec<ThreadRow>> {
        let words = Words::parse(filter.words.as_deref().unwrap_or_default());
        self.read(|connection| {
            let mut query = connection.prepare(
                "SELECT row FROM threads
                 WHERE (?1 IS NULL OR project = ?1) AND (?2 IS NULL OR state = ?2)
                     AND (?3 = '' OR number IN (SELECT rowid FROM texts WHERE texts MATCH ?3))
                     AND NOT EXISTS (
                         SELECT 1 FROM json_each(?4) AS word
                         WHERE instr((SELECT text FROM texts WHERE rowid = number), word.value) = 0
                     )
                 ORDER BY updated_at DESC, number DESC LIMIT ?5",
            )?;
            let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
            let short = json(&words.short)?;
            let values = params![filter.project, filter.state, words.long, short, limit];
            query.query_map(values, parsed)?.collect()
        })
    }

    /// Deletes a thread, its runs and their transcripts. Returns whether the thread existed.
    pub(crate) fn delete(&self, id: &str) -> Result<bool> {
        let mut deleted = 0;
        let mut runs: Vec<String> = Vec::new();
        self.change(|change| {
            let of_thread = "(SELECT number FROM threads WHERE id = ?1)";
            change.execute(&format!("DELETE FROM texts WHERE rowid = {of_thread}"), [id])?;
            let mut query = change.prepare("DELETE FROM runs WHERE thread_id = ?1 RETURNING id")?;
            runs = query.query_map([id], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            deleted = change.execute("DELETE FROM threads WHERE id = ?1", [id])?;
            Ok(())
        })?;
        // The log holds the rows until it is copied into the file and emptied. If another process reads it now, the next
        // deletion empties it.
        let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        let files = |id: &String| [self.transcript(id), lock::path(&self.state_dir, id)];
        let files = runs.iter().flat_map(files);
        for file in files.chain([lock::path(&self.state_dir, id)]) {
            // It may be gone already.
            let _ = fs::remove_file(file);
        }
        Ok(deleted > 0)
    }

    fn read<T>(&self, run: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        run(&self.connection).map_err(|error| failed("the ledger could not be read", &error))
    }

    fn change(&self, run: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> Result<()> {
        let write = || {
            let change =
                Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
            run(&change)?;
            change.commit()
        };
        write().map_err(|error| failed("the ledger could not be written", &error))
    }
}

fn json(row: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(row)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// The row whose JSON is the first column.
fn parsed<T: DeserializeOwned>(row: &Row<'_>) -> rusqlite::Result<T> {
    let text = row.get_ref(0)?.as_str()?;
    serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, error.into()))
}

/// An id for a thread or a run.
pub(crate) fn random_id() -> Result<String> {
    let number = getrandom::u64().map_err(|error| {
        Error::new(Kind::Spawn, format!("the system gives no randomness: {error}"), "Try again.")
    })?;
    Ok(format!("{:010x}", number >> 24))
}

/// Seconds since 1970, UTC.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::Kind;

    fn thread(id: &str, state: &str, updated_at: i64) -> ThreadRow {
        ThreadRow {
            id: id.into(),
            role: "skeptic".into(),
            project: "/p".into(),
            state: state.into(),
            opened_at: 1,
            updated_at,
            ..ThreadRow::default()
        }
    }

    fn round(number: u8) -> RoundRow {
        RoundRow { number, opened_at: 5, ..RoundRow::default() }
    }

    fn answered(number: u8, result: &str) -> RoundRow {
        RoundRow { result: Some(result.into()), ..round(number) }
    }

    #[test]
    fn the_next_process_finds_saved_threads() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = thread("a", "unfinished", 1);
        let ledger = Ledger::open(dir.path()).unwrap();
        ledger.save(&first, Some(&round(1))).unwrap();
        drop(ledger);

        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.thread("a").unwrap(), Some((first.clone(), vec![round(1)])));
        first.session_id = Some("s".into());
        first.decision = Some(("ship".into(), "it holds".into(), 9));
        first.state = "decided".into();
        let closed = RoundRow { closed_at: Some(6), ..answered(1, r#"{"findings":[]}"#) };
        ledger.save(&first, Some(&closed)).unwrap();
        ledger.save(&first, Some(&round(2))).unwrap();
        assert_eq!(ledger.thread("a").unwrap(), Some((first, vec![closed, round(2)])));
        assert_eq!(ledger.thread("b").unwrap(), None);
    }

    #[test]
    fn threads_are_found_by_project_state_and_words() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        for (id, state, at, words) in [
            ("a", "settled", 1, "a torn\nwrite\tof C:\\nodes"),
            ("b", "decided", 3, "数据 丢失 torn"),
            ("c", "settled", 2, "other"),
        ] {
            let request = json!({"message": words});
            ledger.save(&ThreadRow { request, ..thread(id, state, at) }, None).unwrap();
        }
        let decided = ThreadRow {
            decision: Some((r"ship C:\temp".into(), "it holds".into(), 9)),
            ..thread("d", "decided", 0)
        };
        let answer = |number, text: &str| {
            let result = json!({"response": text}).to_string();
            ledger.save(&decided, Some(&answered(number, &result))).unwrap();
        };
        answer(1, "leaks");
        answer(2, "drips");
        let check = |filter: Filter, expected: &[&str]| {
            let filter =
                Filter { limit: if filter.limit == 0 { 9 } else { filter.limit }, ..filter };
            let found: Vec<_> =
                ledger.threads(&filter).unwrap().into_iter().map(|row| row.id).collect();
            assert_eq!(found, expected, "{filter:?}");
        };
        let words = |words: &str| Filter { words: Some(words.into()), ..Filter::default() };
        check(Filter::default(), &["b", "c", "a", "d"]);
        check(Filter { limit: 1, ..Filter::default() }, &["b"]);
        check(Filter { state: Some("settled".into()), ..Filter::default() }, &["c", "a"]);
        check(Filter { project: Some("/q".into()), ..Filter::default() }, &[]);
        check(words("torn"), &["b", "a"]);
        check(words("WRITE torn"), &["a"]);
        check(words("数据"), &["b"]);
        check(words("据"), &["b"]);
        check(words("失 数"), &["b"]);
        check(words("ORN"), &["b", "a"]);
        check(words("数据 丢失"), &["b"]);
        check(words("据 丢"), &["b"]);
        check(words("ORN 据"), &["b"]);
        check(words("rite C: no"), &["a"]);
        check(words("_orn %"), &[]);
        check(words(" \n"), &["b", "c", "a", "d"]);
        for query in
            ["torn OR other", "torn NOT write", "\"torn", "text:torn", "torn*", "NEAR(torn)"]
        {
            check(words(query), &[]);
        }
        for name in ["message", "response"] {
            check(words(name), &[]);
        }
        check(words("write nodes"), &["a"]);
        for word in ["leaks", "drips", "ship", "temp", "holds"] {
            check(words(word), &["d"]);
        }
        answer(2, "drops");
        let found = |text: &str| {
            let filter = Filter { words: Some(text.into()), limit: 9, ..Filter::default() };
            ledger.threads(&filter).unwrap().len()
        };
        assert_eq!((found("drips"), found("drops"), found("leaks")), (0, 1, 1));
    }

    #[test]
    fn a_deleted_thread_leaves_no_round_and_no_text() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        // The index keeps three characters at a time.
        let torn = Filter { words: Some("qzx".into()), limit: 9, ..Filter::default() };
        let asked = ThreadRow { request: json!({"message": "qzx"}), ..thread("a", "settled", 1) };
        let kept = ThreadRow { request: json!({"message": "kept"}), ..thread("b", "settled", 1) };
        ledger.save(&kept, None).unwrap();
        ledger.save(&asked, Some(&round(1))).unwrap();
        assert_eq!(ledger.threads(&torn).unwrap().len(), 1);
        let is_in_a_file = || {
            let files = fs::read_dir(dir.path()).unwrap().flatten();
            files
                .map(|file| fs::read(file.path()).unwrap_or_default())
                .any(|bytes| bytes.windows(3).any(|window| window == b"qzx"))
        };
        assert!(is_in_a_file());
        assert_eq!(ledger.delete("a"), Ok(true));
        assert!(!is_in_a_file(), "the words are gone for good");
        assert_eq!(ledger.delete("a"), Ok(false));
        assert_eq!(ledger.threads(&torn).unwrap(), []);
        ledger.save(&thread("a", "settled", 1), None).unwrap();
        assert_eq!(ledger.thread("a").unwrap().unwrap().1, []);
        assert_eq!(ledger.threads(&torn).unwrap(), []);
    }

    #[test]
    fn several_processes_write_at_once() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let dir = dir.path();
                scope.spawn(move || {
                    for n in 0..10 {
                        let ledger = Ledger::open(dir).unwrap();
                        let thread = thread(&format!("{writer}-{n}"), "settled", n);
                        ledger.save(&thread, None).unwrap();
                    }
                });
            }
        });
        let all = Filter { limit: 100, ..Filter::default() };
        assert_eq!(Ledger::open(dir.path()).unwrap().threads(&all).unwrap().len(), 40);
    }

    #[test]
    fn a_long_result_is_searched_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let long = format!("torn {} last {} far", "数 ".repeat(130_000), "x ".repeat(2_000));
        ledger.save(&thread("a", "settled", 1), Some(&answered(1, &long))).unwrap();
        assert_eq!(ledger.thread("a").unwrap().unwrap().1, [answered(1, &long)]);
        let found = |word: &str| {
            let filter = Filter { words: Some(word.into()), limit: 9, ..Filter::default() };
            ledger.threads(&filter).unwrap().len()
        };
        assert_eq!((found("torn"), found("last"), found("far"), found("near")), (1, 1, 1, 0));
    }

    #[test]
    fn a_write_that_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let asked = thread("a", "unfinished", 1);
        ledger.save(&asked, Some(&answered(1, "\"short\""))).unwrap();
        let limit = |pages: u32| {
            ledger
                .connection
                .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
                .unwrap();
        };
        limit(60);
        let other = thread("a", "settled", 2);
        let long = answered(1, &"z".repeat(300_000));
        let error = ledger.save(&other, Some(&long)).unwrap_err();
        let expected = "the ledger could not be written: database or disk is full";
        assert_eq!((error.kind, error.message.as_str()), (Kind::Ledger, expected));
        assert_eq!(ledger.thread("a").unwrap(), Some((asked, vec![answered(1, "\"short\"")])));
        limit(1000);
        ledger.save(&other, Some(&long)).unwrap();
        assert_eq!(ledger.thread("a").unwrap(), Some((other, vec![long])));
    }
}
