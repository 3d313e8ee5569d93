//! The private folders of a run: made 0700, inside the state folder.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::{Error, Kind, Result};

/// Makes a folder and its parents, readable by nobody else.
///
/// # Errors
/// [`Kind::Spawn`] with the path.
pub fn make_private(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| cannot("make", path, &error))
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

/// The folder of one run, gone when the run is over.
///
/// # Errors
/// [`Kind::Spawn`] with the path.
pub fn for_one_run(state_dir: &Path) -> Result<TempDir> {
    let runs = state_dir.join("runs");
    make_private(&runs)?;
    tempfile::Builder::new()
        .prefix("run-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(&runs)
        .map_err(|error| cannot("make", &runs, &error))
}

/// An existing, empty folder below the given one.
///
/// # Errors
/// [`Kind::Spawn`] with the path.
pub fn empty(below: &Path, name: &str) -> Result<PathBuf> {
    let path = below.join(name);
    make_private(&path)?;
    Ok(path)
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::new(
        Kind::Spawn,
        format!("could not {what} {}: {error}", path.display()),
        "Make the folder writable, or set `state_dir` to one that is.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_files_are_private_and_runs_leave_nothing() {
        let state = tempfile::tempdir().unwrap();
        let run = for_one_run(&state.path().join("deep/er")).unwrap();
        let file = run.path().join("f");
        write_private(&file, b"x").unwrap();
        write_private(&file, b"y").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(run.path()), mode(&file)), (0o700, 0o600));
        assert_eq!(fs::read(&file).unwrap(), b"y");
        let path = run.path().to_owned();
        drop(run);
        assert!(!path.exists());
    }
}
