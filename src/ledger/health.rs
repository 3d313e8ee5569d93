//! The state of the ledger and its folder, without creating either.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::{Ledger, file};
use crate::error::Result;

/// The contents of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    /// The version of the schema.
    pub version: i64,
    /// The number of threads.
    pub threads: i64,
    /// The renamed files of older versions, which this version does not read.
    pub older: Vec<PathBuf>,
}

impl Health {
    /// Opens the ledger of a state folder as a consultation would; `None` if there is none.
    pub(crate) fn read(state_dir: &Path) -> Result<Option<Health>> {
        if !file::path(state_dir).exists() {
            return Ok(None);
        }
        let ledger = Ledger::open(state_dir)?;
        let count = "SELECT count(*) FROM threads";
        let threads = ledger.read(|all| all.query_row(count, [], |row| row.get(0)))?;
        Ok(Some(Health { version: file::VERSION, threads, older: file::older(state_dir) }))
    }
}

/// The state folder of the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateFolder {
    /// The permissions, as `chmod` writes them; `None` if the folder does not exist.
    pub rights: Option<u32>,
    /// True if the folder can be written to or created.
    pub writable: bool,
    /// The free bytes of its disk; `None` if unknown.
    pub free: Option<u64>,
}

impl StateFolder {
    /// Examines a state folder.
    pub(crate) fn examine(state_dir: &Path) -> StateFolder {
        let rights = fs::metadata(state_dir).ok().map(|there| there.permissions().mode() & 0o7777);
        // For a folder that does not exist, its nearest parent decides.
        let nearest = state_dir.ancestors().find(|folder| folder.exists());
        let nearest = nearest.unwrap_or(Path::new("/"));
        let access = Access::WRITE_OK | Access::EXEC_OK;
        let writable = nearest.is_dir() && rustix::fs::access(nearest, access).is_ok();
        let disk = rustix::fs::statvfs(nearest).ok();
        StateFolder { rights, writable, free: disk.map(|disk| disk.f_bavail * disk.f_frsize) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::VERSION;
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_ledger_is_looked_at_and_none_is_made() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Health::read(dir.path()).unwrap(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        drop(Ledger::open(dir.path()).unwrap());
        let file = dir.path().join("ledger.sqlite");
        let older = dir.path().join("ledger-4.db");
        fs::write(&older, "").unwrap();
        assert_eq!(
            Health::read(dir.path()).unwrap(),
            Some(Health { version: VERSION, threads: 0, older: vec![older] })
        );
        fs::remove_file(dir.path().join("ledger.sqlite-wal")).unwrap();
        fs::write(file, "x".repeat(5000)).unwrap();
        assert_eq!(Health::read(dir.path()).unwrap_err().kind, Kind::Ledger);
    }

    #[test]
    fn a_folder_is_judged_by_its_rights_or_by_what_it_would_be_made_in() {
        let dir = tempfile::tempdir().unwrap();
        let rights = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let check = |path: &Path, expected: (Option<u32>, bool)| {
            let StateFolder { rights, writable, free } = StateFolder::examine(path);
            assert_eq!((rights, writable), expected);
            assert!(free.is_some_and(|bytes| bytes > 0));
        };
        let state = dir.path().join("deep/state");
        check(&state, (None, true));
        fs::create_dir_all(&state).unwrap();
        rights(&state, 0o750);
        check(&state, (Some(0o750), true));
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        check(&file.join("state"), (None, false));
    }
}
