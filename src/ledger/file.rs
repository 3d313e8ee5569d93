//! The file of the ledger. It is created, opened, or renamed if an older version of the bridge wrote it.

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::lock;
use crate::error::{Error, Kind, Result};

/// The version of the schema. A change of `schema.sql` raises it.
pub(super) const VERSION: i64 = 7;

/// The time that a statement waits for another process that uses the file.
const BUSY: Duration = Duration::from_secs(10);

const NAME: &str = "ledger.sqlite";

/// The error of a ledger that cannot be used.
pub(super) fn failed(what: &str, error: &dyn Display) -> Error {
    Error::from_kind(Kind::Ledger, format!("{what}: {error}"))
}

/// The file of a state folder's ledger.
pub(super) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

/// Opens the file. A file of an older version is renamed first, and a missing one is created.
pub(super) fn open(state_dir: &Path) -> Result<Connection> {
    let file = path(state_dir);
    match opened(state_dir, &file) {
        Ok((connection, VERSION)) => Ok(connection),
        Ok((_, version)) => Err(Error::new(
            Kind::Ledger,
            format!("{} is of version {version}, newer than this bridge", file.display()),
            "Update kimi-bridge, or set `state_dir` to another folder.",
        )),
        Err(error) => Err(failed(&format!("{} cannot be used", file.display()), &error)),
    }
}

/// Opens the file for reading, without any change.
pub(super) fn open_read_only(state_dir: &Path) -> Result<Connection> {
    let file = path(state_dir);
    let unusable =
        |error: &dyn Display| failed(&format!("{} cannot be read", file.display()), error);
    let log = fs::metadata(state_dir.join(format!("{NAME}-wal")));
    let uri = uri(&file, log.is_ok_and(|log| log.len() > 0));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri, flags).map_err(|error| unusable(&error))?;
    let version = connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    match version {
        Ok(VERSION) => Ok(connection),
        Ok(version) => Err(unusable(&format!("it is of version {version}"))),
        Err(error) => Err(unusable(&error)),
    }
}

/// The URI of the file for SQLite. Without a log, SQLite would create one to read the file, unless it is told that the file
/// does not change.
fn uri(file: &Path, has_log: bool) -> String {
    let path = file.display().to_string();
    let path = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let how = if has_log { "mode=ro&readonly_shm=1" } else { "immutable=1" };
    format!("file:{path}?{how}")
}

/// The open file and its version, which is this one's or newer.
fn opened(
    state_dir: &Path,
    file: &Path,
) -> std::result::Result<(Connection, i64), Box<dyn std::error::Error>> {
    // No other process opens the file while this one renames it.
    let _alone = lock::opening(state_dir)?;
    let (mut connection, mut version) = connect(file)?;
    if (1..VERSION).contains(&version) {
        drop(connection);
        set_aside(state_dir, version)?;
        (connection, version) = connect(file)?;
    }
    if version == 0 {
        let schema = include_str!("schema.sql");
        let create = format!("BEGIN; {schema} PRAGMA user_version = {VERSION}; COMMIT;");
        connection.execute_batch(&create)?;
        version = VERSION;
    }
    Ok((connection, version))
}

/// A connection to the file, and the version of its schema; 0 where the file is new.
fn connect(file: &Path) -> std::result::Result<(Connection, i64), Box<dyn std::error::Error>> {
    // Only the user can read the file; SQLite gives its other files the same rights.
    if !file.exists() {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    }
    let connection = Connection::open(file)?;
    connection.busy_timeout(BUSY)?;
    // The log is copied into the file when it is long, since a copy at the end of each call would wait for the disk three
    // times.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // A crash of the bridge loses no saved row. A power cut may lose the last rows, but the file stays valid. Deleted rows
    // are overwritten.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;
         PRAGMA secure_delete = ON;",
    )?;
    let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok((connection, version))
}

/// Renames a file of an older version with its log. The log is first: after a crash in between, the next start finds the
/// file and renames it in the same way.
fn set_aside(state_dir: &Path, version: i64) -> io::Result<()> {
    let mut aside = format!("ledger-{version}.db");
    for n in 2.. {
        if !state_dir.join(&aside).exists() {
            break;
        }
        aside = format!("ledger-{version}-{n}.db");
    }
    for suffix in ["-wal", "-shm", ""] {
        let from = state_dir.join(format!("{NAME}{suffix}"));
        match fs::rename(from, state_dir.join(format!("{aside}{suffix}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    tracing::warn!(
        "the ledger was of the older version {version}: it is now {aside}, and a new one begins"
    );
    Ok(())
}

/// The files that [`set_aside`] has renamed.
pub(super) fn older(state_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state_dir).into_iter().flatten().flatten();
    let is_older = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("ledger-") && name.ends_with(".db")
    };
    let mut older: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_older).collect();
    older.sort();
    older
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::{Ledger, RoundRow, ThreadRow};
    use super::*;

    fn of_version(state_dir: &Path, version: i64, thread: &str) -> Connection {
        let connection = Connection::open(path(state_dir)).unwrap();
        let rows = format!(
            "PRAGMA journal_mode = WAL; CREATE TABLE threads (id TEXT);
             INSERT INTO threads VALUES ('{thread}'); PRAGMA user_version = {version};"
        );
        connection.execute_batch(&rows).unwrap();
        connection
    }

    fn thread_in(file: &Path) -> String {
        let connection = Connection::open(file).unwrap();
        connection.query_row("SELECT id FROM threads", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_file_of_an_older_version_is_kept_beside_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        drop(of_version(dir.path(), 4, "closed"));
        let ledger = Ledger::open(dir.path()).unwrap();
        let thread = ThreadRow { id: "a".into(), ..ThreadRow::default() };
        ledger.save(&thread, Some(&RoundRow { number: 1, ..RoundRow::default() })).unwrap();
        drop(ledger);
        assert!(Ledger::open(dir.path()).unwrap().thread("a").unwrap().is_some());
        assert_eq!(older(dir.path()), [dir.path().join("ledger-4.db")]);

        // A bridge of the older version still runs, and its rows stand in the log.
        for file in ["ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"] {
            let _ = fs::remove_file(dir.path().join(file));
        }
        let running = of_version(dir.path(), 4, "running");
        drop(Ledger::open(dir.path()).unwrap());
        running.execute("UPDATE threads SET id = 'written later'", []).unwrap();
        let [second, first] = older(dir.path()).try_into().unwrap();
        assert_eq!(second, dir.path().join("ledger-4-2.db"));
        assert_eq!(
            (thread_in(&first), thread_in(&second)),
            ("closed".into(), "written later".into())
        );
    }

    #[test]
    fn a_reader_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("100%?#");
        assert_eq!(Ledger::open_read_only(&state).unwrap_err().kind, Kind::Ledger);
        assert!(!state.exists());

        fs::create_dir(&state).unwrap();
        let thread = ThreadRow { id: "a".into(), ..ThreadRow::default() };
        Ledger::open(&state).unwrap().save(&thread, None).unwrap();
        let files = || {
            let files = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
            let mut files: Vec<_> = files
                .map(|file| {
                    (fs::metadata(&file).unwrap().modified().unwrap(), fs::read(&file).ok(), file)
                })
                .collect();
            files.sort();
            files
        };
        let check = || {
            let before = files();
            let read = Ledger::open_read_only(&state).unwrap().thread("a").unwrap();
            assert_eq!(read, Some((thread.clone(), Vec::new())));
            assert_eq!(files(), before);
        };
        // In the log, beside a writer, and in the file alone.
        check();
        let writer = Ledger::open(&state).unwrap();
        check();
        drop(writer);
        let connection = Connection::open(path(&state)).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(connection);
        fs::write(state.join(format!("{NAME}-wal")), "").unwrap();
        check();
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(state.join(format!("{NAME}{suffix}")));
        }
        check();
        fs::write(path(&state), "x".repeat(5000)).unwrap();
        assert_eq!(Ledger::open_read_only(&state).unwrap_err().kind, Kind::Ledger);
    }

    #[test]
    fn only_the_user_can_read_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let _ledger = Ledger::open(dir.path()).unwrap();
        let mut names = Vec::new();
        for entry in fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{entry:?}");
            names.push(entry.file_name());
        }
        names.sort();
        assert_eq!(names, ["ledger.sqlite", "ledger.sqlite-shm", "ledger.sqlite-wal", "locks"]);
    }

    #[test]
    fn a_newer_or_broken_file_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        drop(of_version(dir.path(), 99, "newer"));
        let error = Ledger::open(dir.path()).unwrap_err();
        let expected = "is of version 99, newer than this bridge";
        assert!(error.message.ends_with(expected), "{}", error.message);

        let other = tempfile::tempdir().unwrap();
        fs::write(path(other.path()), "x".repeat(5000)).unwrap();
        let error = Ledger::open(other.path()).unwrap_err();
        assert_eq!(error.kind, Kind::Ledger);
        assert!(error.message.contains("file is not a database"), "{}", error.message);
    }
}
