//! Test projects. Repositories are written by hand, so that git need not be installed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::entry::Listing;
use super::look::Ground;
use super::look::{LIMITS, LookLimits};
use super::walk::first_look;
use super::{Changes, Snapshot};

/// The id of a commit.
pub(super) const COMMIT: &str = "8a4d1c0e7f2b3a5968778695a4b3c2d1e0f9a8b7";

/// A folder that is removed with the test.
pub(super) struct Project {
    _dir: TempDir,
    /// The canonical path.
    pub(super) root: PathBuf,
}

impl Project {
    pub(super) fn new() -> Project {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        Project { _dir: dir, root }
    }

    /// A project with these files.
    pub(super) fn with(files: &[(&str, &str)]) -> Project {
        let project = Project::new();
        for (path, text) in files {
            project.write(path, text);
        }
        project
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn folder(&self, path: &str) {
        fs::create_dir_all(self.at(path)).unwrap();
    }

    pub(super) fn remove(&self, path: &str) {
        fs::remove_file(self.at(path)).unwrap();
    }

    pub(super) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.at(from), self.at(to)).unwrap();
    }

    pub(super) fn link(&self, target: &str, path: &str) {
        symlink(target, self.at(path)).unwrap();
    }

    pub(super) fn pipe(&self, path: &str) {
        assert!(Command::new("mkfifo").arg(self.at(path)).status().unwrap().success());
    }

    /// Makes a folder a working tree with its own repository and a commit, as `git init` lays it out.
    pub(super) fn repository(&self, folder: &str) {
        let git = Path::new(folder).join(".git");
        let git = git.to_str().unwrap();
        self.write(&format!("{git}/HEAD"), "ref: refs/heads/main\n");
        self.write(&format!("{git}/config"), "[core]\n\tbare = false\n");
        self.write(&format!("{git}/refs/heads/main"), COMMIT);
        self.write(&format!("{git}/hooks/pre-commit.sample"), "#!/bin/sh\n");
        self.write(&format!("{git}/info/exclude"), "*.local\n");
        self.write(&format!("{git}/objects/8a/4d1c"), "x");
        self.write(&format!("{git}/logs/HEAD"), "x");
    }

    pub(super) fn look(&self) -> Snapshot {
        self.look_within(LIMITS)
    }

    /// Looks after the tick of the kernel's clock in which the last file was written.
    pub(super) fn look_within(&self, limits: LookLimits) -> Snapshot {
        let snapshot = first_look(Ground::new(&self.root, &[]), limits, &|| false);
        thread::sleep(Duration::from_millis(20));
        snapshot
    }

    /// The differences between a look before an edit and one after it, as text.
    pub(super) fn changes(&self, edit: impl FnOnce(&Project)) -> Vec<String> {
        let snapshot = self.look();
        edit(self);
        words(&snapshot)
    }

    /// The paths that a look compares, sorted.
    pub(super) fn compared(&self, snapshot: &Snapshot) -> Vec<String> {
        let paths = |folder: &Listing| -> Vec<String> {
            let path = |name| folder.path.join(name);
            let names = folder.entries.keys().map(path);
            names
                .map(|path| path.strip_prefix(&self.root).unwrap_or(&path).display().to_string())
                .collect()
        };
        let mut all: Vec<String> = snapshot.folders.iter().flat_map(paths).collect();
        all.sort();
        all
    }
}

/// Each change and each gap of a second look, as text.
pub(super) fn words(snapshot: &Snapshot) -> Vec<String> {
    let Changes { changed, incomplete } = snapshot.changes(&|| false);
    let gaps = incomplete.iter().map(ToString::to_string);
    changed.iter().map(ToString::to_string).chain(gaps).collect()
}
