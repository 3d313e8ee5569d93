//! Finds the `kimi` to use: tries candidates in a fixed order, and identifies each by its `--version`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::dialect::{Dialect, Identity, Program};
use super::failure::retired;
use super::reply::Watch;
use super::start_failure::StartFailure;
use super::version::{ask_version, repeated};
use super::{folders, queue, untrusted};
use crate::error::{Error, Kind, Result};
use crate::settings::{Config, Environment};

/// The size limit of the file that caches the versions of programs.
const CACHE_BYTES: u64 = 1024 * 1024;

/// A file that may be a Kimi.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) path: PathBuf,
    /// The source of the path: a setting, `PATH`, or a usual place.
    pub(crate) found: String,
    /// The program that the file is.
    pub(crate) identity: Identity,
    /// The output of `--version`, if the program is [`Identity::Unknown`].
    pub(crate) output: String,
    /// The reason why `--version` could not be run, such as a path that the sandbox closes.
    pub(crate) failure: Option<StartFailure>,
}

/// Finds the first usable Kimi, and runs no candidate with access to the secret files of the project. An error names
/// the unusable programs that were found.
pub(crate) async fn find(config: &Config, project: &Path, watch: Watch<'_>) -> Result<Program> {
    let mut seen = Vec::new();
    for (path, found) in candidate_paths(config) {
        seen.push(identify(config, project, path, found, watch).await);
        queue::expect_not_cancelled(watch)?;
        if let Ok(program) = choose(config, &seen) {
            return Ok(program);
        }
    }
    choose(config, &seen)
}

/// Returns the first usable candidate.
pub(crate) fn choose(config: &Config, seen: &[Candidate]) -> Result<Program> {
    let usable = seen.iter().find_map(|candidate| match &candidate.identity {
        Identity::Usable(dialect, version) => Some(Program {
            path: candidate.path.clone(),
            leading_args: Vec::new(),
            dialect: *dialect,
            version: version.clone(),
            found: candidate.found.clone(),
        }),
        Identity::Retired(_) | Identity::Unknown => None,
    });
    usable.ok_or_else(|| none_usable(config, seen))
}

/// Returns all candidates, in the order of preference.
pub(crate) async fn all(config: &Config, watch: Watch<'_>) -> Vec<Candidate> {
    let mut all = Vec::new();
    let project = config.environment.project_dir();
    for (path, found) in candidate_paths(config) {
        all.push(identify(config, &project, path, found, watch).await);
    }
    all
}

fn none_usable(config: &Config, seen: &[Candidate]) -> Error {
    if let Some(old) = seen.iter().find(|c| matches!(c.identity, Identity::Retired(_))) {
        return retired(&old.path);
    }
    // A closed path is reported before a broken program, since the user can open it.
    let failures = || seen.iter().filter_map(|candidate| candidate.failure.as_ref());
    let closed = failures().find(|why| why.error.kind == Kind::Sandbox);
    if let Some(why) = closed.or(failures().next()) {
        return why.error.clone();
    }
    let message = match (seen, &config.settings.kimi_path) {
        ([], Some(path)) => {
            format!("there is no program at {}, which `kimi_path` names", path.display())
        }
        ([], None) => "no `kimi` on PATH or in its usual places".to_owned(),
        (found, _) => {
            let outputs = found.iter().map(|Candidate { path, output, .. }| {
                format!("{} does not answer `--version` as a Kimi does: {output}", path.display())
            });
            outputs.collect::<Vec<_>>().join("; ")
        }
    };
    Error::from_kind(Kind::KimiMissing, message)
}

/// Returns the files to try, each once. If a setting names a program, it is the only one.
fn candidate_paths(config: &Config) -> Vec<(PathBuf, String)> {
    if let Some(named) = &config.settings.kimi_path {
        let found = on_path(&config.environment, named).into_iter().next();
        let source = config.sources.get("kimi_path").map_or("kimi_path", String::as_str);
        return found.map(|path| (path, source.to_owned())).into_iter().collect();
    }
    usual_places(&config.environment)
}

/// Returns the files that are ignored, since a setting names another program.
pub(crate) fn ignored(config: &Config) -> Vec<PathBuf> {
    let Some(named) = &config.settings.kimi_path else { return Vec::new() };
    let used = on_path(&config.environment, named).first().map(|path| real(path));
    let others = usual_places(&config.environment).into_iter().map(|(path, _)| path);
    others.filter(|path| Some(real(path)) != used).collect()
}

fn on_path(environment: &Environment, name: &Path) -> Vec<PathBuf> {
    let found = which::which_in_all(name, environment.var("PATH"), &environment.current_dir);
    found.map(Iterator::collect).unwrap_or_default()
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn usual_places(environment: &Environment) -> Vec<(PathBuf, String)> {
    let on_path = on_path(environment, Path::new("kimi")).into_iter();
    let mut places: Vec<_> = on_path.map(|path| (path, "PATH".to_owned())).collect();
    let folders =
        [".kimi-code/bin", ".local/bin", ".npm-global/bin", "/usr/local/bin", "/opt/homebrew/bin"];
    let files = folders.map(|folder| environment.home.join(folder).join("kimi"));
    let files = files.into_iter().filter(|file| file.is_file());
    places.extend(files.map(|file| (file, "a usual place".to_owned())));
    let mut known = BTreeSet::new();
    places.retain(|(path, _)| known.insert(real(path)));
    places
}

/// The cached versions: size, modification time and output of `--version` by file. kimi-cli takes a second to print
/// its version.
type VersionCache = BTreeMap<PathBuf, (u64, u128, String)>;

async fn identify(
    config: &Config,
    project: &Path,
    path: PathBuf,
    found: String,
    watch: Watch<'_>,
) -> Candidate {
    let cache = config.state_dir().join("programs.json");
    let read_cache = || -> VersionCache {
        let bytes = untrusted::read(&cache, CACHE_BYTES).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    };
    let real = real(&path);
    let stamp = std::fs::metadata(&real).ok().and_then(|metadata| {
        let changed = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some((metadata.len(), changed.as_nanos()))
    });
    if let Some((size, changed, output)) = read_cache().remove(&real)
        && stamp == Some((size, changed))
    {
        let identity = Dialect::identify(&output);
        return Candidate { path, found, identity, output, failure: None };
    }
    let (printed, failure) = match ask_version(config, project, &path, watch).await {
        Ok(printed) => (printed, None),
        Err(why) => (why.error.message.clone(), Some(why)),
    };
    let identity = Dialect::identify(&printed);
    let output = match identity {
        Identity::Unknown => repeated(config, &printed),
        Identity::Usable(..) | Identity::Retired(_) => printed.clone(),
    };
    if let (Some((size, changed)), false) = (stamp, identity == Identity::Unknown) {
        // The file is read again, since another server may have changed it.
        let mut programs = read_cache();
        programs.insert(real, (size, changed, printed));
        let bytes = serde_json::to_vec_pretty(&programs).unwrap_or_default();
        let written =
            folders::make(config.state_dir()).and_then(|()| folders::write_private(&cache, &bytes));
        if let Err(error) = written {
            tracing::warn!(%error, "the version of Kimi could not be cached");
        }
    }
    Candidate { path, found, identity, output, failure }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::settings::load;

    fn kimi_saying(dir: &Path, words: &str) -> PathBuf {
        let path = dir.join("kimi");
        let counter = dir.join("asked");
        let script = format!("#!/bin/sh\necho asked >> {}\necho '{words}'\n", counter.display());
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn config(root: &Path, path_dirs: &[&Path]) -> Config {
        let path: Vec<_> = path_dirs.iter().map(|dir| dir.display().to_string()).collect();
        let environment = Environment {
            vars: [("PATH".to_owned(), path.join(":"))].into(),
            home: root.join("home"),
            config_dir: root.join("config"),
            state_dir: root.join("state"),
            current_dir: root.to_owned(),
            program: None,
        };
        // The keeper is off because it is the current program, which is the test runner here.
        let overrides = [("sandbox", "off".to_owned()), ("keeper", "false".to_owned())];
        load(environment, &overrides).unwrap()
    }

    async fn find_quietly(config: &Config) -> Result<Program> {
        let never = CancellationToken::new();
        let slots = tokio::sync::Semaphore::new(1);
        let watch = Watch { progress: &|_| {}, cancel: &never, closing: &never, slots: &slots };
        find(config, &config.environment.current_dir, watch).await
    }

    #[tokio::test]
    async fn the_first_usable_kimi_is_chosen_and_its_version_is_cached() {
        let root = tempfile::tempdir().unwrap();
        let (old, new) = (root.path().join("old"), root.path().join("new"));
        kimi_saying(&old, "kimi, version 1.52.0\nkimi-cli is no longer maintained.");
        let path = kimi_saying(&new, "2.1.0");
        let config = config(root.path(), &[&old, &new]);
        let expected = Program {
            path,
            leading_args: vec![],
            dialect: Dialect::KimiCode,
            version: "2.1.0".into(),
            found: "PATH".into(),
        };
        assert_eq!(find_quietly(&config).await, Ok(expected.clone()));
        assert_eq!(find_quietly(&config).await, Ok(expected.clone()));
        assert_eq!(std::fs::read_to_string(new.join("asked")).unwrap(), "asked\n");

        // A changed file is run again.
        kimi_saying(&new, "2.10.0");
        assert_eq!(find_quietly(&config).await.unwrap().version, "2.10.0");
    }

    #[tokio::test]
    async fn the_error_says_if_kimi_is_missing_retired_broken_or_another_program() {
        let root = tempfile::tempdir().unwrap();
        let error = find_quietly(&config(root.path(), &[])).await.unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (Kind::KimiMissing, "no `kimi` on PATH or in its usual places")
        );

        let foreign = root.path().join("foreign");
        let path = kimi_saying(&foreign, "Kimi the game, level 3");
        let error = find_quietly(&config(root.path(), &[&foreign])).await.unwrap_err();
        assert_eq!(error.kind, Kind::KimiMissing);
        assert_eq!(
            error.message,
            format!(
                "{} does not answer `--version` as a Kimi does: Kimi the game, level 3",
                path.display()
            )
        );

        let usual = root.path().join("home/.local/bin");
        let path = kimi_saying(&usual, "kimi, version 1.52.0\nkimi-cli is no longer maintained.");
        assert_eq!(find_quietly(&config(root.path(), &[])).await.unwrap_err(), retired(&path));

        let mut named = config(root.path(), &[]);
        let path = kimi_saying(&root.path().join("broken"), "it broke'; exit 3; echo '");
        let error =
            find_quietly(&config(root.path(), &[path.parent().unwrap()])).await.unwrap_err();
        // Besides the broken program, the usual place holds the retired one.
        assert_eq!(error.kind, Kind::KimiRetired);
        std::fs::remove_dir_all(&usual).unwrap();
        let error =
            find_quietly(&config(root.path(), &[path.parent().unwrap()])).await.unwrap_err();
        let message = format!("{} does not start: it broke", path.display());
        assert_eq!((error.kind, error.message), (Kind::Spawn, message));

        named.settings.kimi_path = Some("/no/such/kimi".into());
        let error = find_quietly(&named).await.unwrap_err();
        assert_eq!(error.message, "there is no program at /no/such/kimi, which `kimi_path` names");
    }
}
