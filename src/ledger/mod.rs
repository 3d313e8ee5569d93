//! The ledger: one SQLite file in the state folder that remembers threads across restarts, for
//! several servers at once. It has its own row types, and knows neither roles nor findings: what it
//! keeps of them is JSON that it never looks into.

mod health;
mod lock;
mod pieces;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};
use serde::Serialize;

pub use self::health::{Health, StateFolder};
pub use self::lock::ThreadLock;
use crate::error::{Error, Kind, Result};

/// Every schema version, in order; version N is what the first N scripts make.
const MIGRATIONS: [&str; 4] = [
    include_str!("schema.sql"),
    include_str!("search.sql"),
    include_str!("found.sql"),
    include_str!("pieces.sql"),
];

/// How long another process may hold the file before a statement gives up.
const BUSY: Duration = Duration::from_secs(10);

/// An open ledger. Those of one process share a connection, and take turns at it: it writes for one at a
/// time anyway.
#[derive(Debug, Clone)]
pub struct Ledger {
    connection: Arc<Mutex<Connection>>,
    state_dir: PathBuf,
    /// The disk and the number of the file that is open.
    opened: Option<(u64, u64)>,
}

/// The ledger that this process opened last. It stays open between two calls: opening one, and closing
/// the last one, costs more than all that a call writes.
static OPEN: Mutex<Option<Ledger>> = Mutex::new(None);

fn open() -> MutexGuard<'static, Option<Ledger>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes the ledger, once nobody has it any more: what the log holds is copied into the file.
pub fn close() {
    let ledger = open().take();
    drop(ledger);
}

/// One thread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ThreadRow {
    /// A short random id.
    pub id: String,
    /// The role's name.
    pub role: String,
    /// The project's folder.
    pub project: String,
    /// The request of the first round, JSON.
    pub request: String,
    /// The state's name.
    pub state: String,
    /// The challenge loop, JSON.
    pub challenge: String,
    /// The dialect of the Kimi that remembers the conversation.
    pub dialect: Option<String>,
    /// Its session.
    pub session_id: Option<String>,
    /// The caller's decision, its reason, and when it was made.
    pub decision: Option<(String, String, i64)>,
    /// Seconds since 1970, UTC.
    pub opened_at: i64,
    /// Seconds since 1970, UTC.
    pub updated_at: i64,
}

/// One round, without its result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoundRow {
    /// From 1.
    pub number: u8,
    /// Seconds since 1970, UTC.
    pub opened_at: i64,
    /// Seconds since 1970, UTC; absent while Kimi has not answered.
    pub closed_at: Option<i64>,
    /// Why Kimi did not answer, JSON.
    pub error: Option<String>,
    /// The compressed file with everything that Kimi wrote.
    pub transcript: Option<String>,
}

/// A round, and its result, JSON, if it has one.
pub type RoundAndResult = (RoundRow, Option<String>);

/// Which threads are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
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
    /// Opens the ledger of a state folder, and makes or migrates it first where needed.
    ///
    /// # Errors
    /// [`Kind::Ledger`] when the file cannot be opened, is none, or is of a newer bridge.
    pub fn open(state_dir: &Path) -> Result<Ledger> {
        let file = file(state_dir);
        // One at a time: who makes the file closes it once, and with it would take another's locks.
        let mut open = open();
        let ledger = match open.as_ref().filter(|ledger| ledger.is_of(state_dir)) {
            Some(ledger) => ledger.clone(),
            None => Ledger::opened(state_dir, &file)?,
        };
        let migrated =
            migrate(&mut ledger.connection()).map_err(|error| unusable(&file, &error))?;
        if let Err(version) = migrated {
            return Err(Error::new(
                Kind::Ledger,
                format!("{} is of version {version}, newer than this bridge", file.display()),
                "Update kimi-bridge, or set `state_dir` to another folder.",
            ));
        }
        *open = Some(ledger.clone());
        Ok(ledger)
    }

    fn opened(state_dir: &Path, file: &Path) -> Result<Ledger> {
        let made = lock::make_private(state_dir).and_then(|()| make(file));
        made.map_err(|error| failed(&format!("{} cannot be made", state_dir.display()), &error))?;
        let opened = identity(file);
        let connection = Connection::open(file).map_err(|error| unusable(file, &error))?;
        // What is written survives a crash of any process at once, and a loss of power once the log has
        // been copied into the file; waiting for the disk at each step would cost more than the rest of
        // the bridge together. Of the file little is kept in memory, since the system keeps it anyway.
        let prepared = connection.busy_timeout(BUSY).and_then(|()| {
            connection.execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;
                 PRAGMA cache_size = -256;",
            )
        });
        prepared.map_err(|error| unusable(file, &error))?;
        let connection = Arc::new(Mutex::new(connection));
        Ok(Ledger { connection, state_dir: state_dir.to_owned(), opened })
    }

    /// Whether it is this folder's, and its file is still the one that stands there.
    fn is_of(&self, state_dir: &Path) -> bool {
        let is_there = self.opened.is_some() && self.opened == identity(&file(state_dir));
        self.state_dir == state_dir && is_there
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a thread for one call; `None` while another call, in any process, has it.
    ///
    /// # Errors
    /// [`Kind::Ledger`] when the lock file cannot be made.
    pub fn lock(&self, thread: &str) -> Result<Option<ThreadLock>> {
        ThreadLock::take(&self.state_dir, thread)
            .map_err(|error| failed("the thread cannot be locked", &error))
    }

    /// Writes a thread as it now is, and the round that was opened with it, all or nothing. The round's
    /// result, where it has one, stays.
    ///
    /// # Errors
    /// [`Kind::Ledger`].
    pub fn save(&self, thread: &ThreadRow, round: Option<&RoundRow>) -> Result<()> {
        self.change(|change| {
            put_thread(change, thread)?;
            round.map_or(Ok(()), |round| put_round(change, &thread.id, round, None))
        })
    }

    /// Writes a thread as it now is, and the round that was answered, with its result, all or nothing.
    ///
    /// # Errors
    /// [`Kind::Ledger`], also where the result cannot be made JSON.
    pub fn save_answered(
        &self,
        thread: &ThreadRow,
        round: &RoundRow,
        result: &impl Serialize,
    ) -> Result<()> {
        self.change(|change| {
            put_thread(change, thread)?;
            pieces::put_answered(change, &thread.id, round, result)
        })
    }

    /// One thread and its rounds.
    ///
    /// # Errors
    /// [`Kind::Ledger`].
    pub fn thread(&self, id: &str) -> Result<Option<(ThreadRow, Vec<RoundAndResult>)>> {
        self.read(|connection| {
            // Nobody writes other pieces of a result while it is read.
            let _unchanged = Transaction::new_unchecked(connection, TransactionBehavior::Deferred)?;
            let thread = connection
                .query_row(&format!("SELECT {THREAD} FROM threads WHERE id = ?1"), [id], thread_of)
                .optional()?;
            let Some(thread) = thread else { return Ok(None) };
            let mut query = connection.prepare(
                "SELECT number, opened_at, closed_at, error, transcript, result FROM rounds
                 WHERE thread_id = ?1 ORDER BY number",
            )?;
            let rounds = query.query_map([id], round_of)?;
            let mut rounds = rounds.collect::<rusqlite::Result<Vec<_>>>()?;
            for (round, result) in &mut rounds {
                if let Some(result) = result {
                    pieces::add_rest(connection, id, round.number, result)?;
                }
            }
            Ok(Some((thread, rounds)))
        })
    }

    /// The threads that a filter lets through, the latest first.
    ///
    /// # Errors
    /// [`Kind::Ledger`].
    pub fn threads(&self, filter: &Filter) -> Result<Vec<ThreadRow>> {
        let words = filter.words.as_deref().map(quoted);
        self.read(|connection| {
            if words.is_some() {
                find_words(connection)?;
            }
            let mut query = connection.prepare(&format!(
                "SELECT {THREAD} FROM threads
                 WHERE (?1 IS NULL OR project = ?1) AND (?2 IS NULL OR state = ?2)
                   AND (?3 IS NULL OR id IN (SELECT thread_id FROM words WHERE words MATCH ?3))
                 ORDER BY updated_at DESC, rowid DESC LIMIT ?4"
            ))?;
            let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
            query
                .query_map(params![filter.project, filter.state, words, limit], thread_of)?
                .collect()
        })
    }

    /// Forgets a thread; whether there was one.
    ///
    /// # Errors
    /// [`Kind::Ledger`].
    pub fn delete(&self, id: &str) -> Result<bool> {
        let rounds = self.thread(id)?.map(|(_, rounds)| rounds).unwrap_or_default();
        let mut deleted = 0;
        self.change(|change| {
            change.execute(
                "DELETE FROM words WHERE rowid = (SELECT number FROM searched WHERE thread_id = ?1)",
                [id],
            )?;
            deleted = change.execute("DELETE FROM threads WHERE id = ?1", [id])?;
            Ok(())
        })?;
        for transcript in rounds.into_iter().filter_map(|(round, _)| round.transcript) {
            // One that is gone already is what is wanted.
            let _ = fs::remove_file(transcript);
        }
        Ok(deleted > 0)
    }

    fn change(&self, run: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>) -> Result<()> {
        let changed = self
            .connection()
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .and_then(|change| {
                run(&change)?;
                change.commit()
            });
        changed.map_err(|error| failed("the ledger could not be written", &error))
    }

    fn read<T>(&self, run: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        run(&self.connection()).map_err(|error| failed("the ledger could not be read", &error))
    }
}

/// The file of a state folder's ledger.
fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("ledger.sqlite")
}

/// Makes the file before SQLite does, since its other files take the rights of this one. One that stands
/// there is not opened: closing it again would take the locks of every connection of this process.
fn make(file: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Which file this is, whatever its name: its disk and its number there.
fn identity(file: &Path) -> Option<(u64, u64)> {
    fs::metadata(file).ok().map(|there| (there.dev(), there.ino()))
}

/// Seconds since 1970, UTC.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Brings the schema up to date; the version found, where it is newer than any known.
fn migrate(connection: &mut Connection) -> rusqlite::Result<std::result::Result<(), usize>> {
    // Most openings find the file as it should be, and wait for nobody.
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if usize::try_from(found) == Ok(MIGRATIONS.len()) {
        return Ok(Ok(()));
    }
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = change.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let version = usize::try_from(version).unwrap_or(usize::MAX);
    if version > MIGRATIONS.len() {
        return Ok(Err(version));
    }
    for script in &MIGRATIONS[version..] {
        change.execute_batch(script)?;
    }
    change.execute_batch(&format!("PRAGMA user_version = {}", MIGRATIONS.len()))?;
    change.commit()?;
    Ok(Ok(()))
}

const THREAD: &str = "id, role, project, request, state, loop, dialect, session_id, decision, rationale, \
     decided_at, opened_at, updated_at";

fn put_thread(change: &Transaction<'_>, thread: &ThreadRow) -> rusqlite::Result<()> {
    let decision = thread.decision.clone();
    let (decision, rationale, decided_at) =
        decision.map_or((None, None, None), |(what, why, at)| (Some(what), Some(why), Some(at)));
    let mut put = change.prepare_cached(
        &format!(
            "INSERT INTO threads ({THREAD}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT (id) DO UPDATE SET state = ?5, loop = ?6, dialect = ?7, session_id = ?8,
                 decision = ?9, rationale = ?10, decided_at = ?11, updated_at = ?13, found = 0"
        ),
    )?;
    put.execute(params![
        thread.id,
        thread.role,
        thread.project,
        thread.request,
        thread.state,
        thread.challenge,
        thread.dialect,
        thread.session_id,
        decision,
        rationale,
        decided_at,
        thread.opened_at,
        thread.updated_at
    ])?;
    Ok(())
}

/// Writes a round, and the first piece of its result where there is another one than before.
fn put_round(
    change: &Transaction<'_>,
    thread: &str,
    round: &RoundRow,
    result: Option<&str>,
) -> rusqlite::Result<()> {
    let mut put = change.prepare_cached(
        "INSERT INTO rounds (thread_id, number, opened_at, closed_at, result, error, transcript)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (thread_id, number) DO UPDATE SET opened_at = ?3, closed_at = ?4,
             result = ifnull(?5, result), error = ?6, transcript = ?7",
    )?;
    put.execute(params![
        thread,
        round.number,
        round.opened_at,
        round.closed_at,
        result,
        round.error,
        round.transcript
    ])?;
    Ok(())
}

/// Takes up the words of the threads that changed since the last search: so nobody waits for that who
/// only saves.
fn find_words(connection: &Connection) -> rusqlite::Result<()> {
    let any = "SELECT EXISTS (SELECT 1 FROM threads WHERE NOT found)";
    while connection.query_row(any, [], |row| row.get::<_, bool>(0))? {
        // Some at a time, so that whoever saves meanwhile does not wait for all.
        let change = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        change.execute_batch(include_str!("find.sql"))?;
        change.commit()?;
    }
    Ok(())
}

fn thread_of(row: &Row<'_>) -> rusqlite::Result<ThreadRow> {
    let decision: Option<String> = row.get(8)?;
    let rationale: Option<String> = row.get(9)?;
    let decided_at: Option<i64> = row.get(10)?;
    Ok(ThreadRow {
        id: row.get(0)?,
        role: row.get(1)?,
        project: row.get(2)?,
        request: row.get(3)?,
        state: row.get(4)?,
        challenge: row.get(5)?,
        dialect: row.get(6)?,
        session_id: row.get(7)?,
        decision: decision
            .map(|what| (what, rationale.unwrap_or_default(), decided_at.unwrap_or_default())),
        opened_at: row.get(11)?,
        updated_at: row.get(12)?,
    })
}

/// A round, and the first piece of its result.
fn round_of(row: &Row<'_>) -> rusqlite::Result<RoundAndResult> {
    let round = RoundRow {
        number: row.get(0)?,
        opened_at: row.get(1)?,
        closed_at: row.get(2)?,
        error: row.get(3)?,
        transcript: row.get(4)?,
    };
    Ok((round, row.get(5)?))
}

/// Words as a person types them: all of them, with none of the search's own syntax.
fn quoted(words: &str) -> String {
    let words = words.split_whitespace().map(|word| format!("\"{}\"", word.replace('"', "\"\"")));
    words.collect::<Vec<_>>().join(" ")
}

fn unusable(file: &Path, error: &rusqlite::Error) -> Error {
    failed(&format!("{} cannot be used", file.display()), error)
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::new(
        Kind::Ledger,
        format!("{what}: {error}"),
        "Free disk space or mend the file's rights; `state_dir` moves the ledger elsewhere.",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn thread(id: &str, state: &str, updated_at: i64) -> ThreadRow {
        ThreadRow {
            id: id.into(),
            role: "skeptic".into(),
            project: "/p".into(),
            request: "{}".into(),
            state: state.into(),
            challenge: "{}".into(),
            opened_at: 1,
            updated_at,
            ..ThreadRow::default()
        }
    }

    fn round(number: u8) -> RoundRow {
        RoundRow { number, opened_at: 5, ..RoundRow::default() }
    }

    #[test]
    fn what_was_saved_is_there_for_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = thread("a", "unfinished", 1);
        let ledger = Ledger::open(dir.path()).unwrap();
        ledger.save(&first, Some(&round(1))).unwrap();
        drop(ledger);

        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.thread("a").unwrap(), Some((first.clone(), vec![(round(1), None)])));
        first.session_id = Some("s".into());
        first.decision = Some(("ship".into(), "it holds".into(), 9));
        first.state = "decided".into();
        let closed = RoundRow { closed_at: Some(6), ..round(1) };
        ledger.save_answered(&first, &closed, &json!({"findings": []})).unwrap();
        ledger.save(&first, Some(&round(2))).unwrap();
        let rounds = vec![(closed, Some(r#"{"findings":[]}"#.into())), (round(2), None)];
        assert_eq!(ledger.thread("a").unwrap(), Some((first, rounds)));
        assert_eq!(ledger.thread("b").unwrap(), None);
    }

    #[test]
    fn threads_are_found_by_project_state_and_words() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        for (id, state, at, words) in [
            ("a", "settled", 1, r"a torn\nwrite\tof C:\\nodes"),
            ("b", "decided", 3, "数据 丢失 torn"),
            ("c", "settled", 2, "other"),
        ] {
            let request = format!(r#"{{"message":"{words}"}}"#);
            ledger.save(&ThreadRow { request, ..thread(id, state, at) }, None).unwrap();
        }
        let answered = ThreadRow {
            decision: Some((r"ship C:\temp".into(), "it holds".into(), 9)),
            ..thread("d", "decided", 0)
        };
        let answer = |number, text: &str| {
            ledger.save_answered(&answered, &round(number), &json!({"response": text})).unwrap();
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
        check(words("torn OR \" NEAR( *"), &[]);
        check(words("write nodes"), &["a"]);
        for word in ["leaks", "drips", "ship", "temp", "holds", "response"] {
            check(words(word), &["d"]);
        }
        answer(2, "drops");
        let found = |text: &str| {
            let filter = Filter { words: Some(text.into()), limit: 9, ..Filter::default() };
            ledger.threads(&filter).unwrap().len()
        };
        assert_eq!((found("drips"), found("drops"), found("leaks")), (0, 1, 1));
        for n in 0..250 {
            ledger.save(&thread(&format!("many{n}"), "settled", n), None).unwrap();
        }
        assert_eq!(found("drops"), 1);
        let unfound = "SELECT count(*) FROM threads WHERE NOT found";
        let unfound = ledger.read(|connection| connection.query_row(unfound, [], |row| row.get(0)));
        assert_eq!(unfound, Ok(0_i64));
    }

    #[test]
    fn a_deleted_thread_is_gone_with_its_rounds_and_words() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let torn = Filter { words: Some("torn".into()), limit: 9, ..Filter::default() };
        let asked =
            ThreadRow { request: r#"{"message":"torn"}"#.into(), ..thread("a", "settled", 1) };
        ledger.save(&asked, Some(&round(1))).unwrap();
        assert_eq!(ledger.threads(&torn).unwrap().len(), 1);
        assert_eq!(ledger.delete("a"), Ok(true));
        assert_eq!(ledger.delete("a"), Ok(false));
        assert_eq!(ledger.threads(&torn).unwrap(), []);
        ledger.save(&thread("a", "settled", 1), None).unwrap();
        assert_eq!(ledger.thread("a").unwrap().unwrap().1, []);
        assert_eq!(ledger.threads(&torn).unwrap(), []);
    }

    #[test]
    fn an_older_file_is_brought_up_to_date_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let old = Connection::open(file(dir.path())).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.execute_batch(
            "PRAGMA user_version = 1;
             INSERT INTO threads (id, role, project, request, state, loop, opened_at, updated_at)
             VALUES ('a', 'skeptic', '/p', '{\"message\":\"whole\"}', 'settled', '{}', 1, 1),
                    ('b', 'skeptic', '/p', '{\"message\":\"torn\"}', 'settled', '{}', 1, 2);
             INSERT INTO rounds (thread_id, number, opened_at) VALUES ('a', 1, 5);
             INSERT INTO words (thread_id, text) VALUES ('b', 'torn'), ('a', 'whole');",
        )
        .unwrap();
        drop(old);
        let ledger = Ledger::open(dir.path()).unwrap();
        let whole =
            ThreadRow { request: r#"{"message":"whole"}"#.into(), ..thread("a", "settled", 1) };
        assert_eq!(ledger.thread("a").unwrap(), Some((whole, vec![(round(1), None)])));
        let found = |ledger: &Ledger, words: &str| {
            let filter = Filter { words: Some(words.into()), limit: 9, ..Filter::default() };
            let found = ledger.threads(&filter).unwrap().into_iter();
            found.map(|row| row.id).collect::<Vec<_>>()
        };
        assert_eq!(
            (found(&ledger, "torn"), found(&ledger, "whole")),
            (vec!["b".into()], vec!["a".into()])
        );
        let mended = json!({"response": "mended"});
        ledger.save_answered(&thread("b", "settled", 2), &round(1), &mended).unwrap();
        assert_eq!(found(&ledger, "mended"), ["b"]);
        assert_eq!(ledger.delete("b"), Ok(true));
        assert_eq!((found(&ledger, "mended"), found(&ledger, "whole")), (vec![], vec!["a".into()]));
    }

    #[test]
    fn one_that_is_open_is_of_its_folder_as_long_as_its_file_stands_there() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        ledger.save(&thread("a", "settled", 1), None).unwrap();
        assert!(ledger.is_of(dir.path()) && !ledger.is_of(other.path()));
        for name in ["ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"] {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        assert!(!ledger.is_of(dir.path()));
        let anew = Ledger::open(dir.path()).unwrap();
        assert!(anew.is_of(dir.path()) && anew.thread("a").unwrap().is_none());
        // Whoever still has the old one shares nothing with the new one.
        assert!(!Arc::ptr_eq(&ledger.connection, &anew.connection));
    }

    #[test]
    fn several_processes_write_at_once() {
        let dir = tempfile::tempdir().unwrap();
        drop(Ledger::open(dir.path()).unwrap());
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let dir = dir.path();
                scope.spawn(move || {
                    // A connection of its own, as another process has.
                    let ledger = Ledger::opened(dir, &file(dir)).unwrap();
                    for n in 0..10 {
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
    fn a_newer_or_broken_file_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        ledger.connection().execute_batch("PRAGMA user_version = 99").unwrap();
        let error = Ledger::open(dir.path()).unwrap_err();
        assert!(
            error.message.ends_with("is of version 99, newer than this bridge"),
            "{}",
            error.message
        );

        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("ledger.sqlite"), "x".repeat(5000)).unwrap();
        let error = Ledger::open(other.path()).unwrap_err();
        assert_eq!(error.kind, Kind::Ledger);
        assert!(error.message.contains("file is not a database"), "{}", error.message);
    }
}
