//! The private folders of a run: made 0700, inside the state folder.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, DirEntry, FileType, FlockOperation, Mode, OFlags};
use tempfile::TempDir;

use super::agent;
use crate::error::{Error, Kind, Result};

/// Makes a folder and its parents; what is made is readable by nobody else.
///
/// # Errors
/// [`Kind::Spawn`] with the path.
pub fn make(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| cannot("make", path, &error))
}

/// The same for a folder of the bridge's own: one that stands there already is closed to others too.
///
/// # Errors
/// [`Kind::Spawn`] with the path.
pub fn make_private(path: &Path) -> Result<()> {
    make(path)?;
    let closed = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    closed.map_err(|error| cannot("close", path, &error))
}

/// Writes a file that nobody else can read, all of it or not at all: another server may be reading
/// the one that stands there.
///
/// # Errors
/// [`Kind::Spawn`] with the path.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
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
///
/// # Errors
/// [`Kind::Spawn`] with the path.
pub fn write_anew(path: &Path, bytes: &[u8]) -> Result<()> {
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = made.and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| cannot("write", path, &error))
}

/// The same for a file that the run before may have left: one that is ours alone and holds just this stays
/// as it is.
///
/// # Errors
/// [`Kind::Spawn`] with the path.
pub fn write_unless_there(path: &Path, bytes: &[u8]) -> Result<()> {
    let ours = |there: &fs::Metadata| {
        let is_private = there.permissions().mode() & 0o7777 == 0o600 && there.nlink() == 1;
        there.is_file() && is_private && there.len() == bytes.len() as u64
    };
    match fs::symlink_metadata(path) {
        Ok(there) if ours(&there) && fs::read(path).is_ok_and(|read| read == bytes) => {
            return Ok(());
        }
        Ok(_) => fs::remove_file(path).map_err(|error| cannot("remove", path, &error))?,
        Err(_) => {}
    }
    write_anew(path, bytes)
}

/// The folder of one run, gone when the run is over.
#[derive(Debug)]
pub struct RunFolder {
    folder: TempDir,
    /// The folder, locked as long as the bridge lives; one whose lock is free was left behind by a bridge
    /// that was killed.
    lock: fs::File,
}

/// Empty folders between two runs: to make one, and to remove it again, takes longer than all that is
/// written into it.
static RESTING: Mutex<Vec<RunFolder>> = Mutex::new(Vec::new());
/// The most of them.
const MOST_RESTING: usize = 32;

fn resting() -> MutexGuard<'static, Vec<RunFolder>> {
    RESTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the folders that rest.
pub fn close() {
    let resting = std::mem::take(&mut *resting());
    drop(resting);
}

impl RunFolder {
    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Empties it for the next run of this process. One in which more was left than the bridge's own files
    /// goes, and so does one too many.
    pub fn rest(self) {
        let is_empty = self.clear().unwrap_or(false);
        let mut resting = resting();
        if is_empty && resting.len() < MOST_RESTING {
            resting.push(self);
        }
    }

    /// Removes the files but the agent's; whether nothing else is left than the empty folder for temporary
    /// files, as it was made. All of it by way of the open folder: what a program may have put into its place
    /// is not touched.
    fn clear(&self) -> io::Result<bool> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let temporary = rustix::fs::openat(&self.lock, TEMPORARY, flags, Mode::empty())?;
        let mode = Mode::from_raw_mode(rustix::fs::fstat(&temporary)?.st_mode);
        if mode != Mode::RWXU || entries(&temporary)?.next().is_some() {
            return Ok(false);
        }
        for entry in entries(&self.lock)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_any = |names: &[&str]| names.iter().any(|one| one.as_bytes() == name.to_bytes());
            let is_agent = is_any(&agent::NAMES) && entry.file_type() == FileType::RegularFile;
            if !is_agent && !is_any(&[TEMPORARY]) {
                rustix::fs::unlinkat(&self.lock, name, AtFlags::empty())?;
            }
        }
        Ok(true)
    }

    /// One that rests, if there is one of this folder, and it still stands there.
    fn rested(runs: &Path) -> Option<RunFolder> {
        let mut resting = resting();
        let at = resting.iter().rposition(|rested| rested.path().parent() == Some(runs))?;
        let rested = resting.swap_remove(at);
        drop(resting);
        let identity = |there: fs::Metadata| (there.dev(), there.ino());
        let standing = fs::symlink_metadata(rested.path()).map(identity).ok();
        (standing.is_some() && standing == rested.lock.metadata().map(identity).ok())
            .then_some(rested)
    }
}

/// What an open folder holds.
fn entries(folder: impl AsFd) -> io::Result<impl Iterator<Item = rustix::io::Result<DirEntry>>> {
    let all = Dir::read_from(folder)?;
    let is_itself = |entry: &DirEntry| matches!(entry.file_name().to_bytes(), b"." | b"..");
    Ok(all.filter(move |entry| !entry.as_ref().is_ok_and(is_itself)))
}

const TEMPORARY: &str = "tmp";

/// The folder for a run's temporary files, in the folder of the run.
#[must_use]
pub fn temporary(run_dir: &Path) -> PathBuf {
    run_dir.join(TEMPORARY)
}

/// The folder of one run: one that rests, or a new one. With a new one those are removed that were left
/// behind.
///
/// # Errors
/// [`Kind::Spawn`] with the path.
pub fn for_one_run(state_dir: &Path) -> Result<RunFolder> {
    let runs = runs_in(state_dir);
    if let Some(rested) = RunFolder::rested(&runs) {
        return Ok(rested);
    }
    make_private(&runs)?;
    // Another bridge's sweep must not come between a folder and its lock.
    let guard = fs::File::open(&runs).map_err(|error| cannot("open", &runs, &error))?;
    rustix::fs::flock(&guard, FlockOperation::LockExclusive)
        .map_err(|error| cannot("lock", &runs, &error.into()))?;
    let made = tempfile::Builder::new()
        .prefix("run-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(&runs)
        .and_then(|folder| {
            // Whoever counts what was left behind has it for a moment.
            let lock = locked(folder.path())?;
            fs::DirBuilder::new().mode(0o700).create(temporary(folder.path()))?;
            Ok(RunFolder { folder, lock })
        });
    let made = made.map_err(|error| cannot("make", &runs, &error))?;
    sweep(&runs);
    Ok(made)
}

/// Removes the folders that were left behind by bridges that were killed, for a process whose own folders
/// rest between its runs.
pub fn sweep_runs(state_dir: &Path) {
    let runs = runs_in(state_dir);
    // Nobody's folder stands there without its lock then.
    if let Ok(_guard) = locked(&runs) {
        sweep(&runs);
    }
}

fn runs_in(state_dir: &Path) -> PathBuf {
    state_dir.join("runs")
}

/// A folder, locked as long as this is open. Somebody else's lock is waited for.
fn locked(folder: &Path) -> io::Result<fs::File> {
    let lock = fs::File::open(folder)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    Ok(lock)
}

/// Removes what nobody holds. What cannot be removed now is left for the next run.
fn sweep(runs: &Path) {
    for (folder, _lock) in held_by_nobody(runs) {
        let _ = fs::remove_dir_all(&folder);
    }
}

/// How many folders of runs were left behind by a bridge that was killed. A later run removes them.
#[must_use]
pub fn left_behind(state_dir: &Path) -> usize {
    held_by_nobody(&runs_in(state_dir)).count()
}

/// The folders whose lock is free, each with the lock, now taken.
fn held_by_nobody(runs: &Path) -> impl Iterator<Item = (PathBuf, fs::File)> {
    let folders = fs::read_dir(runs).into_iter().flatten().flatten().map(|entry| entry.path());
    folders.filter_map(|folder| {
        let lock = fs::File::open(&folder).ok()?;
        let taken = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive);
        taken.is_ok().then_some((folder, lock))
    })
}

/// Where the folder is that stays empty.
#[must_use]
pub fn empty_in(state_dir: &Path) -> PathBuf {
    state_dir.join("empty")
}

/// Makes the folder that stays empty, and empties it, should anybody have put something into it.
///
/// # Errors
/// [`Kind::Spawn`] with the path.
pub fn empty(state_dir: &Path) -> Result<PathBuf> {
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
        drop(run.folder.keep());
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
        sweep_runs(state.path());
        assert!(!path.exists() && running.path().exists());
        let left = for_one_run(state.path()).unwrap();
        let path = left.path().to_owned();
        killed(left);
        drop(for_one_run(state.path()).unwrap());
        assert!(!path.exists() && running.path().exists());
    }

    #[test]
    fn a_folder_rests_between_two_runs_and_keeps_nothing_of_the_first() {
        let state = tempfile::tempdir().unwrap();
        close();
        let run = for_one_run(state.path()).unwrap();
        let path = run.path().to_owned();
        fs::write(path.join("request.md"), "secret").unwrap();
        let agent = path.join(agent::NAMES[0]);
        write_unless_there(&agent, b"agent").unwrap();
        let written = fs::metadata(&agent).unwrap().ino();
        run.rest();
        assert_eq!(left_behind(state.path()), 0);
        let again = for_one_run(state.path()).unwrap();
        let names: Vec<_> =
            fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(again.path(), path);
        assert!(names.len() == 2 && !names.contains(&"request.md".into()), "{names:?}");
        write_unless_there(&agent, b"agent").unwrap();
        assert_eq!(fs::metadata(&agent).unwrap().ino(), written);
        // What somebody may have touched is written again.
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o644)).unwrap();
        write_unless_there(&agent, b"agent").unwrap();
        fs::hard_link(&agent, path.join("linked")).unwrap();
        write_unless_there(&agent, b"other").unwrap();
        fs::remove_file(&agent).unwrap();
        std::os::unix::fs::symlink(path.join("linked"), &agent).unwrap();
        write_unless_there(&agent, b"other").unwrap();
        let there = fs::symlink_metadata(&agent).unwrap();
        assert!(there.is_file() && there.permissions().mode() & 0o777 == 0o600);
        assert_eq!(
            (fs::read(&agent).unwrap(), fs::read(path.join("linked")).unwrap()),
            (b"other".to_vec(), b"agent".to_vec())
        );
        assert_eq!(fs::read_dir(temporary(&path)).unwrap().count(), 0);
        // One for one run.
        let beside = for_one_run(state.path()).unwrap();
        assert_ne!(beside.path(), path);
        beside.rest();
        again.rest();
        assert_eq!(fs::read_dir(state.path().join("runs")).unwrap().count(), 2);
        // What a link leads to stays as it is, and what stands in the place of a file goes.
        let precious = state.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "x").unwrap();
        let linked = for_one_run(state.path()).unwrap();
        let elsewhere = linked.path().to_owned();
        fs::rename(temporary(&elsewhere), elsewhere.join("x")).unwrap();
        std::os::unix::fs::symlink(&precious, temporary(&elsewhere)).unwrap();
        linked.rest();
        assert!(precious.join("file").exists() && !elsewhere.exists());
        let leave = |what: &str| {
            let run = for_one_run(state.path()).unwrap();
            let path = run.path().to_owned();
            fs::create_dir(path.join(what)).unwrap();
            run.rest();
            assert!(!path.exists(), "{what}");
        };
        leave("tmp/deep");
        leave("deep");
        leave(agent::NAMES[1]);
        // Neither one that somebody has opened to others nor one that is another by now.
        let opened = for_one_run(state.path()).unwrap();
        let path = opened.path().to_owned();
        fs::set_permissions(temporary(&path), fs::Permissions::from_mode(0o777)).unwrap();
        opened.rest();
        assert!(!path.exists());
        close();
        assert_eq!(fs::read_dir(state.path().join("runs")).unwrap().count(), 0);
        let replaced = for_one_run(state.path()).unwrap();
        let path = replaced.path().to_owned();
        replaced.rest();
        fs::rename(&path, state.path().join("elsewhere")).unwrap();
        fs::create_dir(&path).unwrap();
        assert_ne!(for_one_run(state.path()).unwrap().path(), path);
        close();
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
