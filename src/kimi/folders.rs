//! The private folders of a run: made 0700, inside the state folder.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::untrusted::Folder;

use crate::error::{Error, Kind, Result};

/// Makes a folder and its parents; what is made is readable by nobody else.
pub(crate) fn make(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| cannot("make", path, &error))
}

/// The same for a folder of the bridge's own: one that stands there already is closed to others too.
pub(crate) fn make_private(path: &Path) -> Result<()> {
    make(path)?;
    let closed = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    closed.map_err(|error| cannot("close", path, &error))
}

/// Writes a file that nobody else can read, all of it or not at all: another server may be reading
/// the one that stands there.
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
    written.map(drop).map_err(|error| cannot("write", path, &error))
}

/// Writes a file of a run's own folder, which nobody reads before the run begins and which is not there
/// yet.
pub(crate) fn write_anew(path: &Path, bytes: &[u8]) -> Result<()> {
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = made.and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| cannot("write", path, &error))
}

/// The folder of one run, removed when dropped.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    /// An exclusive lock, held as long as the bridge lives: a folder whose lock is free was left behind by a
    /// bridge that was killed.
    _lock: fs::File,
}

impl RunFolder {
    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // An error leaves the folder for the next run, once the lock is free.
        let _ = discard_run(&self.path);
    }
}

/// The most entries that are removed at the end or the beginning of a run. The rest is left for the next.
pub(super) const REMOVED_AT_ONCE: usize = 50_000;

/// The folder for what is being removed. A run cannot reach it.
const TRASH: &str = "trash";

pub(super) fn trash(state: &Folder) -> io::Result<Folder> {
    state.make(TRASH)
}

/// Removes the folder of a run, whatever the run left in it.
fn discard_run(path: &Path) -> io::Result<()> {
    let (Some(runs), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let Some(state_dir) = runs.parent() else { return Ok(()) };
    let trash = trash(&Folder::trusted(state_dir)?)?;
    Folder::trusted(runs)?.discard(name, &trash)?;
    trash.clear(REMOVED_AT_ONCE);
    Ok(())
}

const TEMPORARY: &str = "tmp";

/// The folder for a run's temporary files, in the folder of the run.
pub(crate) fn temporary(run_dir: &Path) -> PathBuf {
    run_dir.join(TEMPORARY)
}

/// Opens it, before a run can take its own rights to it away.
pub(super) fn open_temporary(run_dir: &Path) -> Result<Folder> {
    let path = temporary(run_dir);
    Folder::trusted(&path).map_err(|error| cannot("open", &path, &error))
}

/// Makes the folder of one run, and removes those that killed bridges left behind.
pub(crate) fn for_one_run(state_dir: &Path) -> Result<RunFolder> {
    let runs = runs_in(state_dir);
    make_private(&runs)?;
    // Another bridge's sweep must not come between a folder and its lock.
    let guard = fs::File::open(&runs).map_err(|error| cannot("open", &runs, &error))?;
    guard.lock().map_err(|error| cannot("lock", &runs, &error))?;
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
    let made = made.map_err(|error| cannot("make", &runs, &error))?;
    // What cannot be removed now is left for the next run.
    for (folder, _lock) in abandoned(&runs) {
        let _ = discard_run(&folder);
    }
    Ok(made)
}

fn runs_in(state_dir: &Path) -> PathBuf {
    state_dir.join("runs")
}

/// The number of folders that earlier runs left: of bridges that were killed, and the rest of what was too much to
/// be removed at once. Later runs remove them.
pub(crate) fn left_behind(state_dir: &Path) -> usize {
    let trash = Folder::trusted(state_dir).and_then(|state| state.below(TRASH)?.entries(1_000));
    abandoned(&runs_in(state_dir)).count() + trash.map_or(0, |entries| entries.len())
}

/// The folders whose lock is free, each with the lock, now taken.
fn abandoned(runs: &Path) -> impl Iterator<Item = (PathBuf, Folder)> {
    let folder = Folder::trusted(runs);
    let entries = fs::read_dir(runs).into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let run = folder.as_ref().ok()?.below(entry.file_name()).ok()?;
        rustix::fs::flock(&run, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some((entry.path(), run))
    })
}

/// Where the folder is that stays empty.
pub(crate) fn empty_in(state_dir: &Path) -> PathBuf {
    state_dir.join("empty")
}

/// Makes the folder that stays empty, and empties it, should anybody have put something into it.
pub(crate) fn empty(state_dir: &Path) -> Result<PathBuf> {
    let path = empty_in(state_dir);
    let is_folder = fs::symlink_metadata(&path).is_ok_and(|there| there.is_dir());
    let is_empty = fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none());
    if !is_folder || !is_empty {
        let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        make(&path)?;
    }
    Ok(path)
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(
        Kind::Spawn,
        format!("could not {what} {}: {error}", path.display()),
        "Make the folder writable, or set `state_dir` to one that is.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its lock goes, its folder stays.
    fn killed(run: RunFolder) {
        let path = run.path.clone();
        let aside = path.with_extension("aside");
        fs::rename(&path, &aside).unwrap();
        drop(run);
        fs::rename(&aside, &path).unwrap();
    }

    #[test]
    fn what_a_killed_bridge_left_is_removed_and_what_runs_stays() {
        let state = tempfile::tempdir().unwrap();
        let left = for_one_run(state.path()).unwrap();
        let path = left.path().to_owned();
        fs::write(path.join("request.md"), "secret").unwrap();
        let running = for_one_run(state.path()).unwrap();
        assert!(path.exists());
        assert_eq!(left_behind(state.path()), 0);
        killed(left);
        assert_eq!(left_behind(state.path()), 1);
        drop(for_one_run(state.path()).unwrap());
        assert!(!path.exists() && running.path().exists());
    }

    #[test]
    fn the_empty_folder_is_empty_whatever_was_put_into_it() {
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
    fn folders_and_files_are_private_and_runs_leave_nothing() {
        let state = tempfile::tempdir().unwrap();
        let run = for_one_run(&state.path().join("deep/er")).unwrap();
        let file = run.path().join("f");
        write_anew(&file, b"x").unwrap();
        assert!(write_anew(&file, b"z").is_err());
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
