//! The private folders of a run in the state folder, with mode 0700. It does not know their contents.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::untrusted::Folder;

use crate::error::{Error, Kind, Result};

/// Creates a folder and its missing parents, closed to other users.
pub(crate) fn make(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| failed_to("make", path, &error))
}

/// Creates a folder of the bridge. An existing one is closed to other users too.
pub(crate) fn make_private(path: &Path) -> Result<()> {
    make(path)?;
    let closed = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    closed.map_err(|error| failed_to("close", path, &error))
}

/// Replaces a file atomically, since another server may be reading it. Other users cannot read it.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let written = tempfile::Builder::new()
        .make_in(folder, |name| {
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(name)
        })
        .and_then(|mut file| {
            file.as_file_mut().write_all(bytes)?;
            file.persist(path).map_err(|error| error.error)
        });
    written.map(drop).map_err(|error| failed_to("write", path, &error))
}

/// Writes a new file, closed to other users. Fails if it exists.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = made.and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| failed_to("write", path, &error))
}

/// The folder of one run, removed when dropped.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    /// An exclusive lock. If it is free, the bridge of this folder was killed.
    _lock: fs::File,
}

impl RunFolder {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // After an error, the next run removes the folder, since the lock is free then.
        let _ = discard_run(&self.path);
    }
}

/// The most entries that are removed at the start or the end of a run. Later runs remove the rest.
pub(super) const REMOVED_AT_ONCE: usize = 50_000;

/// The folder for entries to remove, which a run cannot reach.
const TRASH: &str = "trash";

pub(super) fn trash(state: &Folder) -> io::Result<Folder> {
    state.make(TRASH)
}

/// Removes the folder of a run.
fn discard_run(path: &Path) -> io::Result<()> {
    let (Some(runs), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let Some(state_dir) = runs.parent() else { return Ok(()) };
    let trash = trash(&Folder::trusted(state_dir)?)?;
    Folder::trusted(runs)?.discard(name, &trash)?;
    trash.clear(REMOVED_AT_ONCE);
    Ok(())
}

const TEMPORARY: &str = "tmp";

/// Returns the folder for temporary files in the folder of a run.
pub(crate) fn temporary(run_dir: &Path) -> PathBuf {
    run_dir.join(TEMPORARY)
}

/// Opens the folder for temporary files, before a run can remove its permissions.
pub(super) fn open_temporary(run_dir: &Path) -> Result<Folder> {
    let path = temporary(run_dir);
    Folder::trusted(&path).map_err(|error| failed_to("open", &path, &error))
}

/// Creates the folder of a run, and removes the folders of killed bridges.
pub(crate) fn create_run_folder(state_dir: &Path) -> Result<RunFolder> {
    let runs = runs_in(state_dir);
    make_private(&runs)?;
    // Without this lock, another bridge could remove the folder before it is locked.
    let guard = fs::File::open(&runs).map_err(|error| failed_to("open", &runs, &error))?;
    guard.lock().map_err(|error| failed_to("lock", &runs, &error))?;
    let made = tempfile::Builder::new()
        .prefix("run-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(&runs)
        .and_then(|folder| {
            // `left_behind` may hold the lock for a moment.
            let lock = fs::File::open(folder.path())?;
            lock.lock()?;
            fs::DirBuilder::new().mode(0o700).create(temporary(folder.path()))?;
            Ok(RunFolder { path: folder.keep(), _lock: lock })
        });
    let made = made.map_err(|error| failed_to("make", &runs, &error))?;
    // After an error, the next run tries again.
    for (folder, _lock) in abandoned(&runs) {
        let _ = discard_run(&folder);
    }
    Ok(made)
}

fn runs_in(state_dir: &Path) -> PathBuf {
    state_dir.join("runs")
}

/// Returns the number of folders that later runs will remove: those of killed bridges, and those in the trash.
pub(crate) fn left_behind(state_dir: &Path) -> usize {
    let trash = Folder::trusted(state_dir).and_then(|state| state.below(TRASH)?.entries(1_000));
    abandoned(&runs_in(state_dir)).count() + trash.map_or(0, |entries| entries.len())
}

/// Returns the folders of killed bridges, each with its lock.
fn abandoned(runs: &Path) -> impl Iterator<Item = (PathBuf, Folder)> {
    let folder = Folder::trusted(runs);
    let entries = fs::read_dir(runs).into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let run = folder.as_ref().ok()?.below(entry.file_name()).ok()?;
        rustix::fs::flock(&run, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some((entry.path(), run))
    })
}

/// Returns the path of the empty folder, which replaces the folders of skills.
pub(crate) fn empty_path(state_dir: &Path) -> PathBuf {
    state_dir.join("empty")
}

/// Creates the empty folder, or empties it.
pub(crate) fn empty(state_dir: &Path) -> Result<PathBuf> {
    let path = empty_path(state_dir);
    let is_folder = fs::symlink_metadata(&path).is_ok_and(|entry| entry.is_dir());
    let is_empty = fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none());
    if !is_folder || !is_empty {
        let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        make(&path)?;
    }
    Ok(path)
}

fn failed_to(action: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(
        Kind::Spawn,
        format!("could not {action} {}: {error}", path.display()),
        "Make the folder writable, or set `state_dir` to one that is.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frees the lock and keeps the folder.
    fn kill(run: RunFolder) {
        let path = run.path.clone();
        let aside = path.with_extension("aside");
        fs::rename(&path, &aside).unwrap();
        drop(run);
        fs::rename(&aside, &path).unwrap();
    }

    #[test]
    fn the_folder_of_a_killed_bridge_is_removed_and_that_of_a_run_stays() {
        let state = tempfile::tempdir().unwrap();
        let left = create_run_folder(state.path()).unwrap();
        let path = left.path().to_owned();
        fs::write(path.join("request.md"), "secret").unwrap();
        let running = create_run_folder(state.path()).unwrap();
        assert!(path.exists());
        assert_eq!(left_behind(state.path()), 0);
        kill(left);
        assert_eq!(left_behind(state.path()), 1);
        drop(create_run_folder(state.path()).unwrap());
        assert!(!path.exists() && running.path().exists());
    }

    #[test]
    fn the_empty_folder_is_emptied_before_each_run() {
        let state = tempfile::tempdir().unwrap();
        let check = || {
            let path = empty(state.path()).unwrap();
            assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
            path
        };
        let path = check();
        fs::create_dir(path.join("skill")).unwrap();
        fs::write(path.join("skill/SKILL.md"), "obey").unwrap();
        check();
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/etc", &path).unwrap();
        check();
        assert!(fs::metadata("/etc/passwd").is_ok());
    }

    #[test]
    fn folders_and_files_are_private_and_removed_after_a_run() {
        let state = tempfile::tempdir().unwrap();
        let run = create_run_folder(&state.path().join("deep/er")).unwrap();
        let file = run.path().join("f");
        write_new(&file, b"x").unwrap();
        assert!(write_new(&file, b"z").is_err());
        write_private(&file, b"y").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(run.path()), mode(&file)), (0o700, 0o600));
        let open = state.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        make_private(&open).unwrap();
        assert_eq!(mode(&open), 0o700);
        assert_eq!(fs::read(&file).unwrap(), b"y");
        let path = run.path().to_owned();
        drop(run);
        assert!(!path.exists());
    }
}
