//! What a run may open, in Kimi's terms: its private home, its login, its program, the project.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::dialect::Dialect;
use super::dialect::Program;
use super::home::Home;
use super::invocation::Under;
use super::users;
use super::{folders, installation, network, ripgrep};
use crate::error::{Error, Kind, Result, Violation};
use crate::redact::Secrets;
use crate::sandbox::rules::{Appeared, canonical};
use crate::sandbox::secret_files::{SecretPaths, Stop};
use crate::sandbox::{Kernel, Rules, SYSTEM_FOLDERS, Sandbox, SandboxRequest, SecretFiles, kernel};
use crate::settings::{Loaded, SandboxSetting, Settings};
use crate::workspace::mounts;

/// The most globs for ripgrep. Beyond that, names stand for paths.
const GLOBS: usize = 20_000;

/// How a run is held, and what the caller must know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Confinement {
    /// What the kernel enforces.
    pub(crate) sandbox: Sandbox,
    /// What the helper is told.
    pub(crate) under: Under,
    /// Files and folders of the project that are closed, absolute and without links.
    pub(crate) closed: Vec<PathBuf>,
    /// A configuration for ripgrep that leaves out what is closed: ripgrep calls a whole search failed
    /// that met a file which it may not open.
    pub(crate) ripgrep_config: String,
    /// What is closed without being secret, or not closed at all.
    pub(crate) warnings: Vec<String>,
}

/// Whether there is a sandbox, by the setting and the kernel.
pub(crate) fn decide(setting: SandboxSetting, kernel: Kernel) -> Result<(Sandbox, Option<String>)> {
    let missing = if cfg!(target_os = "linux") {
        "this kernel has no Landlock, or it is switched off"
    } else {
        "there is none for this system"
    };
    match setting {
        SandboxSetting::Off => Ok((Sandbox::None, Some(unheld("it is switched off")))),
        SandboxSetting::Required if !kernel.is_enough() => {
            let why = if kernel.files {
                "this kernel's Landlock cannot keep files from being emptied"
            } else {
                missing
            };
            Err(Error::new(
                Kind::Sandbox,
                format!("the sandbox is required, and {why}"),
                "Use Linux 6.2 or later with Landlock enabled (`lsm=` of the kernel's command line names it), or set \
                 `sandbox: auto` to go without where there is none.",
            ))
        }
        SandboxSetting::Auto if !kernel.files => Ok((Sandbox::None, Some(unheld(missing)))),
        SandboxSetting::Auto if !kernel.is_enough() => Ok((
            Sandbox::Landlock,
            Some(
                "this kernel's Landlock is an early one: it cannot keep files from being emptied"
                    .to_owned(),
            ),
        )),
        SandboxSetting::Auto | SandboxSetting::Required => Ok((Sandbox::Landlock, None)),
    }
}

fn unheld(why: &str) -> String {
    format!(
        "no sandbox held Kimi ({why}): only its tool list, its private home and its environment did, and secret files \
         of the project were open to it as far as it heeds the names itself"
    )
}

/// What a consultation may open.
pub(crate) fn of_consultation(
    loaded: &Loaded,
    program: &Program,
    home: &Home,
    run_dir: &Path,
    project: &Path,
    secret_files: &[String],
    stop: Stop<'_>,
) -> Result<Confinement> {
    // A call may have waited since the folder was checked.
    if canonical(project) != project {
        let message = format!("{} was replaced by a link while the call waited", project.display());
        return Err(Error::new(
            Kind::Request,
            message,
            "Call again with the folder that is meant.",
        ));
    }
    let secret = secret_files_with(secret_files)?;
    let places = SandboxPaths {
        secret: &secret,
        project: Some(project),
        searched: Some(project),
        program: &program.path,
        home: Some(home),
        ripgrep: ripgrep::of_user(&loaded.environment, program.dialect),
        run_dir,
        stop,
    };
    confine(loaded, &places)
}

/// The rules for a program that is asked for its version only: it may write to the run's temporary folder. Secret
/// files of `project` stay closed.
pub(crate) fn of_identification(
    loaded: &Loaded,
    program: &Path,
    run_dir: &Path,
    project: &Path,
    stop: Stop<'_>,
) -> Result<Confinement> {
    let secret = secret_files_that_can_be_used(loaded);
    // A server that was started in the home, or in a folder above it, has no project.
    let searched = !canonical(&loaded.environment.home).starts_with(canonical(project));
    let places = SandboxPaths {
        secret: &secret,
        project: None,
        searched: searched.then_some(project),
        program,
        home: None,
        ripgrep: None,
        run_dir,
        stop,
    };
    confine(loaded, &places)
}

/// The secret files, with those that the user adds.
/// The list of secret files with the user's lines; without them where they cannot be used.
pub(crate) fn secret_files_that_can_be_used(loaded: &Loaded) -> Cow<'static, SecretFiles> {
    let secrets = Secrets::load(&loaded.environment.config_dir, &[]).unwrap_or_default();
    SecretFiles::with(secrets.files()).unwrap_or(Cow::Borrowed(SecretFiles::built_in()))
}

fn secret_files_with(more: &[String]) -> Result<Cow<'static, SecretFiles>> {
    SecretFiles::with(more).map_err(|problems| Error {
        violations: problems.iter().map(|why| Violation::new("secrets.yaml, files", why)).collect(),
        ..Error::new(
            Kind::Settings,
            "the list of secret files cannot be used",
            "Fix the entries listed: each is a line as in a .gitignore.",
        )
    })
}

struct SandboxPaths<'a> {
    secret: &'a SecretFiles,
    /// The folder that is opened.
    project: Option<&'a Path>,
    /// The folder whose secret files are closed.
    searched: Option<&'a Path>,
    program: &'a Path,
    home: Option<&'a Home>,
    /// The ripgrep of the user's own Kimi, where none is on `PATH`.
    ripgrep: Option<PathBuf>,
    run_dir: &'a Path,
    stop: Stop<'a>,
}

fn confine(loaded: &Loaded, places: &SandboxPaths<'_>) -> Result<Confinement> {
    let Settings { sandbox, keeper, .. } = &loaded.settings;
    let (sandbox, warning) = decide(*sandbox, kernel())?;
    let mut warnings: Vec<String> = warning.into_iter().collect();
    let project = places.project.map(canonical);
    let (under, closed, ripgrep_config) = match sandbox {
        Sandbox::None => {
            let found =
                project.as_deref().map(|project| places.secret.search(project, places.stop));
            let SecretPaths { secret, unseen } = found.unwrap_or_default();
            let under = if *keeper { Under::Keeper } else { Under::Nothing };
            let config = ripgrep_config(&secret, &unseen, project.as_deref());
            (under, [secret, unseen].concat(), config)
        }
        Sandbox::Landlock => {
            let rules = rules(loaded, places);
            warnings.extend(shut(&rules, project.as_deref()));
            let config = ripgrep_config(&rules.secret, &rules.shut, project.as_deref());
            let closed = [rules.secret.as_slice(), &rules.shut].concat();
            (Under::Sandbox(Box::new(rules)), closed, config)
        }
    };
    Ok(Confinement { sandbox, under, closed, ripgrep_config, warnings })
}

fn rules(loaded: &Loaded, places: &SandboxPaths<'_>) -> Rules {
    let environment = &loaded.environment;
    let ripgrep = ripgrep::on_path(environment);
    let programs = [Some(places.program), ripgrep.as_deref()];
    let mut run = installation::needed_by(programs.into_iter().flatten(), environment);
    run.extend_from_slice(&loaded.settings.readable);
    run.extend(places.ripgrep.clone());
    // The hook that refuses secret files.
    run.extend(environment.program.iter().cloned());
    let mut read = vec![places.run_dir.to_owned(), folders::empty_in(loaded.state_dir())];
    read.extend(network::certificates(environment).map(|(_, path)| path));
    let mut write = vec![folders::temporary(places.run_dir)];
    // It was opened without following a link, and no run can replace it.
    write.extend(places.home.map(|home| home.path.clone()));
    let closed = private_folders(loaded, places.project);
    let wanted = SandboxRequest {
        home: &environment.home,
        project: places.project,
        searched: places.searched,
        run: &run,
        read: &read,
        write: &write,
        closed: &closed,
        secret: places.secret,
    };
    Rules::of(&wanted, places.stop)
}

/// The folders that stay closed wherever they lie: the bridge's own, those of Kimi's login, and every other path under
/// which they, the home or what is mounted in it are mounted. The project and the system stay open under any path. No path
/// holds a link, and none must be looked at again: one on a network file system may never answer.
pub(super) fn private_folders(loaded: &Loaded, project: Option<&Path>) -> Vec<PathBuf> {
    let environment = &loaded.environment;
    let mut private = vec![loaded.state_dir().to_owned(), environment.config_dir.clone()];
    private.extend(Dialect::ALL.map(|dialect| users::data_folder(environment, dialect)));
    let mut private: Vec<PathBuf> = private.iter().map(|folder| canonical(folder)).collect();
    let mut mounted = private.clone();
    // A home that is `/` hides nothing.
    let home = Some(canonical(&environment.home)).filter(|home| home.parent().is_some());
    mounted.extend(home.iter().flat_map(|home| mounts::below(home)));
    mounted.extend(home.clone());
    // What lies in the home is closed with it.
    let is_inside = |alias: &PathBuf| home.as_ref().is_some_and(|home| alias.starts_with(home));
    let is_systems = |alias: &PathBuf| {
        let mut folders = SYSTEM_FOLDERS.iter().chain(&["/dev", "/proc", "/sys"]);
        folders.any(|folder| alias.starts_with(folder) || Path::new(folder).starts_with(alias))
    };
    let project = project.map(canonical);
    let is_projects = |alias: &PathBuf| project.as_ref().is_some_and(|it| alias.starts_with(it));
    let aliases = mounts::aliases(&mounted).into_iter();
    private.extend(
        aliases.filter(|alias| !is_inside(alias) && !is_systems(alias) && !is_projects(alias)),
    );
    private
}

/// What the caller must know about folders that stayed closed.
fn shut(rules: &Rules, project: Option<&Path>) -> Option<String> {
    let named = named(&rules.shut, project?)?;
    Some(format!(
        "folders stayed closed to Kimi, since too many secret files lie in them or they could not be looked through: \
         {named}"
    ))
}

/// What the caller must know about files that came while Kimi ran.
pub(crate) fn appeared(
    rules: &Rules,
    project: &Path,
    secret_files: &[String],
    stop: Stop<'_>,
) -> Vec<String> {
    let Ok(secret) = SecretFiles::with(secret_files) else { return Vec::new() };
    let Appeared { open, closed, unseen } = rules.appeared(project, &secret, stop);
    let project = canonical(project);
    let open = named(&open, &project)
        .map(|paths| format!("secret files appeared while Kimi ran, and were open to it: {paths}"));
    let closed = named(&closed, &project).map(|paths| {
        format!("files appeared beside a secret one while Kimi ran, and were closed to it: {paths}")
    });
    let unseen = named(&unseen, &project)
        .map(|paths| format!("secret files that appeared were not looked for in {paths}"));
    open.into_iter().chain(closed).chain(unseen).collect()
}

/// The first few paths in words; nothing for none. The project is canonical.
fn named(paths: &[PathBuf], project: &Path) -> Option<String> {
    let relative = |path: &PathBuf| {
        let path = path.strip_prefix(project).unwrap_or(path).display().to_string();
        let path = if path.is_empty() { ".".to_owned() } else { path };
        super::text::clean(&path).replace(['\n', '\t'], " ")
    };
    let words = paths.iter().take(5).map(relative).collect::<Vec<_>>().join(", ");
    match paths.len() {
        0 => None,
        1..=5 => Some(words),
        more => Some(format!("{words} and {} more", more - 5)),
    }
}

fn ripgrep_config(secret: &[PathBuf], shut: &[PathBuf], project: Option<&Path>) -> String {
    let Some(project) = project else { return String::new() };
    let closed = secret.iter().chain(shut).filter_map(|path| path.strip_prefix(project).ok());
    let closed: Vec<&Path> = closed.filter(|path| !path.as_os_str().is_empty()).collect();
    let mut globs = BTreeSet::new();
    if closed.iter().map(|path| path.components().count()).sum::<usize>() > GLOBS {
        let names = closed.iter().filter_map(|path| path.file_name());
        globs.extend(names.map(|name| format!("--glob=!{}\n", escaped(name))));
    } else {
        for path in closed {
            // Globs count from the folder that is searched, which may be any on the way down.
            let mut rest = path.components();
            while !rest.as_path().as_os_str().is_empty() {
                globs.insert(format!("--glob=!/{}\n", escaped(rest.as_path().as_os_str())));
                rest.next();
            }
        }
    }
    globs.into_iter().collect()
}

/// A path as a glob. White space, which ripgrep takes away at the end of a line, and bytes that are no text match
/// anything.
fn escaped(path: &OsStr) -> String {
    let mut escaped = String::new();
    for c in path.to_string_lossy().chars() {
        if c.is_whitespace() || c == char::REPLACEMENT_CHARACTER {
            escaped.push('*');
            continue;
        }
        if "*?[]{}!\\".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[track_caller]
    fn check(secret: &[&[u8]], expected: &[&str]) {
        let project = Path::new("/p");
        let secret: Vec<PathBuf> =
            secret.iter().map(|path| project.join(OsStr::from_bytes(path))).collect();
        let config = ripgrep_config(&secret, &[], Some(project));
        assert_eq!(config.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_search_leaves_out_what_is_closed_from_wherever_it_begins() {
        check(&[b"a/b/.env"], &["--glob=!/.env", "--glob=!/a/b/.env", "--glob=!/b/.env"]);
        check(&[b"[x]*"], &["--glob=!/\\[x\\]\\*"]);
        check(&[b"a\nb/x .env "], &["--glob=!/a*b/x*.env*", "--glob=!/x*.env*"]);
        check(&[b"\xff/.env"], &["--glob=!/*/.env", "--glob=!/.env"]);
    }

    #[test]
    fn a_search_in_a_project_of_very_many_secrets_leaves_out_all_files_of_their_names() {
        let paths: Vec<_> = (0..GLOBS).map(|n| PathBuf::from(format!("/p/{n}/.env"))).collect();
        assert_eq!(ripgrep_config(&paths, &[], Some(Path::new("/p"))), "--glob=!.env\n");
    }
}
