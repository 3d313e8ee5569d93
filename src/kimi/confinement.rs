//! The sandbox of a run, in Kimi's terms: its private home, its login, its program and the project. The kernel's
//! rules are made in [`crate::sandbox`].

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
use crate::settings::{Config, SandboxSetting, Settings};
use crate::workspace::mounts;

/// The most globs for ripgrep. Beyond that, file names replace paths.
const GLOBS: usize = 20_000;

/// The limits of a run, and the warnings about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Confinement {
    /// The kind of sandbox.
    pub(crate) sandbox: Sandbox,
    /// The keeper and the rules to start the run under.
    pub(crate) under: Under,
    /// The closed files and folders of the project, absolute and without links.
    pub(crate) closed: Vec<PathBuf>,
    /// A configuration for ripgrep that excludes closed paths, because one file that it cannot open makes a whole
    /// search fail.
    pub(crate) ripgrep_config: String,
    /// Warnings about a missing sandbox, and about folders that stayed closed although they are not secret.
    pub(crate) warnings: Vec<String>,
}

/// Chooses the sandbox by the setting and the kernel. Returns a warning if it is missing or incomplete.
pub(crate) fn decide(setting: SandboxSetting, kernel: Kernel) -> Result<(Sandbox, Option<String>)> {
    let missing = if cfg!(target_os = "linux") {
        "this kernel has no Landlock, or it is switched off"
    } else {
        "this system has none"
    };
    match setting {
        SandboxSetting::Off => Ok((Sandbox::None, Some(no_sandbox("it is switched off")))),
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
                 `sandbox: auto` to run without a sandbox if there is none.",
            ))
        }
        SandboxSetting::Auto if !kernel.files => Ok((Sandbox::None, Some(no_sandbox(missing)))),
        SandboxSetting::Auto if !kernel.is_enough() => Ok((
            Sandbox::Landlock,
            Some(
                "this kernel's Landlock is too old: it cannot keep files from being emptied"
                    .to_owned(),
            ),
        )),
        SandboxSetting::Auto | SandboxSetting::Required => Ok((Sandbox::Landlock, None)),
    }
}

fn no_sandbox(why: &str) -> String {
    format!(
        "Kimi ran without a sandbox ({why}). Its tool list, private home and environment still limited it, but only \
         Kimi's own rules kept it away from secret files."
    )
}

/// Returns the limits of a run in a project.
pub(crate) fn for_run(
    config: &Config,
    program: &Program,
    home: &Home,
    run_dir: &Path,
    project: &Path,
    secret_files: &[String],
    stop: Stop<'_>,
) -> Result<Confinement> {
    // The call may have waited in the queue since the folder was checked.
    if canonical(project) != project {
        let message = format!("{} was replaced by a link while the call waited", project.display());
        return Err(Error::new(
            Kind::Request,
            message,
            "Call again with the path of the intended folder.",
        ));
    }
    let secret = secret_files_with(secret_files)?;
    let paths = SandboxPaths {
        secret: &secret,
        project: Some(project),
        searched: Some(project),
        program: &program.path,
        home: Some(home),
        ripgrep: ripgrep::fetched(&config.environment, program.dialect),
        run_dir,
        stop,
    };
    confine(config, &paths)
}

/// Returns the limits of `--version`, which may write only to the temporary folder of the run. Secret files of
/// `project` stay closed.
pub(crate) fn for_version(
    config: &Config,
    program: &Path,
    run_dir: &Path,
    project: &Path,
    stop: Stop<'_>,
) -> Result<Confinement> {
    let secret = usable_secret_files(config);
    // A server that was started in the home, or in a folder above it, has no project.
    let searched = !canonical(&config.environment.home).starts_with(canonical(project));
    let paths = SandboxPaths {
        secret: &secret,
        project: None,
        searched: searched.then_some(project),
        program,
        home: None,
        ripgrep: None,
        run_dir,
        stop,
    };
    confine(config, &paths)
}

/// Returns the list of secret files, with the user's patterns if they are valid.
pub(crate) fn usable_secret_files(config: &Config) -> Cow<'static, SecretFiles> {
    let secrets = Secrets::load(&config.environment.config_dir, &[]).unwrap_or_default();
    SecretFiles::with(secrets.files()).unwrap_or(Cow::Borrowed(SecretFiles::built_in()))
}

fn secret_files_with(more: &[String]) -> Result<Cow<'static, SecretFiles>> {
    SecretFiles::with(more).map_err(|problems| Error {
        violations: problems.iter().map(|why| Violation::new("secrets.yaml, files", why)).collect(),
        ..Error::new(
            Kind::Settings,
            "the list of secret files cannot be used",
            "Fix the entries listed: each is a pattern as in a .gitignore.",
        )
    })
}

struct SandboxPaths<'a> {
    secret: &'a SecretFiles,
    /// The folder to open.
    project: Option<&'a Path>,
    /// The folder whose secret files stay closed.
    searched: Option<&'a Path>,
    program: &'a Path,
    home: Option<&'a Home>,
    /// The ripgrep of the user's own Kimi, if none is on `PATH`.
    ripgrep: Option<PathBuf>,
    run_dir: &'a Path,
    stop: Stop<'a>,
}

fn confine(config: &Config, paths: &SandboxPaths<'_>) -> Result<Confinement> {
    let Settings { sandbox, keeper, .. } = &config.settings;
    let (sandbox, warning) = decide(*sandbox, kernel())?;
    let mut warnings: Vec<String> = warning.into_iter().collect();
    let project = paths.project.map(canonical);
    let (under, closed, ripgrep_config) = match sandbox {
        Sandbox::None => {
            let found = project.as_deref().map(|project| paths.secret.search(project, paths.stop));
            let SecretPaths { secret, unseen } = found.unwrap_or_default();
            let under = if *keeper { Under::Keeper } else { Under::Nothing };
            let globs = ripgrep_config(&secret, &unseen, project.as_deref());
            (under, [secret, unseen].concat(), globs)
        }
        Sandbox::Landlock => {
            let rules = rules(config, paths);
            warnings.extend(closed_folders(&rules, project.as_deref()));
            let globs = ripgrep_config(&rules.secret, &rules.shut, project.as_deref());
            let closed = [rules.secret.as_slice(), &rules.shut].concat();
            (Under::Sandbox(Box::new(rules)), closed, globs)
        }
    };
    Ok(Confinement { sandbox, under, closed, ripgrep_config, warnings })
}

fn rules(config: &Config, paths: &SandboxPaths<'_>) -> Rules {
    let environment = &config.environment;
    let ripgrep = ripgrep::on_path(environment);
    let programs = [Some(paths.program), ripgrep.as_deref()];
    let mut run = installation::needed_by(programs.into_iter().flatten(), environment);
    run.extend_from_slice(&config.settings.readable);
    run.extend(paths.ripgrep.clone());
    // The binary of the bridge, which runs the hook.
    run.extend(environment.program.iter().cloned());
    let mut read = vec![paths.run_dir.to_owned(), folders::empty_path(config.state_dir())];
    read.extend(network::certificates(environment).map(|(_, path)| path));
    let mut write = vec![folders::temporary(paths.run_dir)];
    // The private home was opened without following a link, and no run can replace it.
    write.extend(paths.home.map(|home| home.path.clone()));
    let closed = private_folders(config, paths.project);
    let request = SandboxRequest {
        home: &environment.home,
        project: paths.project,
        searched: paths.searched,
        run: &run,
        read: &read,
        write: &write,
        closed: &closed,
        secret: paths.secret,
    };
    Rules::new(&request, paths.stop)
}

/// The folders that stay closed inside an open folder too, as paths without links: those of the bridge and of Kimi's
/// login, and other mounts of them and of the home. The project and the system stay open. Callers must not resolve
/// the paths again, because a network file system may never answer.
pub(super) fn private_folders(config: &Config, project: Option<&Path>) -> Vec<PathBuf> {
    let environment = &config.environment;
    let mut private = vec![config.state_dir().to_owned(), environment.config_dir.clone()];
    private.extend(Dialect::ALL.map(|dialect| users::data_folder(environment, dialect)));
    let mut private: Vec<PathBuf> = private.iter().map(|folder| canonical(folder)).collect();
    let mut mounted = private.clone();
    // A home that is `/` closes nothing.
    let home = Some(canonical(&environment.home)).filter(|home| home.parent().is_some());
    mounted.extend(home.iter().flat_map(|home| mounts::below(home)));
    mounted.extend(home.clone());
    // A path in the home is closed with the home.
    let is_inside = |alias: &PathBuf| home.as_ref().is_some_and(|home| alias.starts_with(home));
    let is_in_system = |alias: &PathBuf| {
        let mut folders = SYSTEM_FOLDERS.iter().chain(&["/dev", "/proc", "/sys"]);
        folders.any(|folder| alias.starts_with(folder) || Path::new(folder).starts_with(alias))
    };
    let project = project.map(canonical);
    let is_in_project = |alias: &PathBuf| project.as_ref().is_some_and(|it| alias.starts_with(it));
    let aliases = mounts::aliases(&mounted).into_iter();
    private.extend(
        aliases.filter(|alias| !is_inside(alias) && !is_in_system(alias) && !is_in_project(alias)),
    );
    private
}

/// The warning about folders that stayed closed.
fn closed_folders(rules: &Rules, project: Option<&Path>) -> Option<String> {
    let named = named(&rules.shut, project?)?;
    Some(format!(
        "folders stayed closed to Kimi, because they hold too many secret files or could not be searched for them: \
         {named}"
    ))
}

/// Returns warnings about files that were created while Kimi ran.
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
        .map(|paths| format!("secret files that appeared were not searched for in {paths}"));
    open.into_iter().chain(closed).chain(unseen).collect()
}

/// Lists the first few paths in words; `None` for an empty list. The project is canonical.
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
            // Globs are relative to the searched folder, which may be any parent of the path.
            let mut rest = path.components();
            while !rest.as_path().as_os_str().is_empty() {
                globs.insert(format!("--glob=!/{}\n", escaped(rest.as_path().as_os_str())));
                rest.next();
            }
        }
    }
    globs.into_iter().collect()
}

/// Escapes a path for a glob. `*` replaces white space, which ripgrep trims at the end of a line, and bytes that are
/// not UTF-8.
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
        let globs = ripgrep_config(&secret, &[], Some(project));
        assert_eq!(globs.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_search_excludes_closed_files_from_any_folder() {
        check(&[b"a/b/.env"], &["--glob=!/.env", "--glob=!/a/b/.env", "--glob=!/b/.env"]);
        check(&[b"[x]*"], &["--glob=!/\\[x\\]\\*"]);
        check(&[b"a\nb/x .env "], &["--glob=!/a*b/x*.env*", "--glob=!/x*.env*"]);
        check(&[b"\xff/.env"], &["--glob=!/*/.env", "--glob=!/.env"]);
    }

    #[test]
    fn a_search_in_a_project_of_very_many_secrets_excludes_their_file_names() {
        let paths: Vec<_> = (0..GLOBS).map(|n| PathBuf::from(format!("/p/{n}/.env"))).collect();
        assert_eq!(ripgrep_config(&paths, &[], Some(Path::new("/p"))), "--glob=!.env\n");
    }
}
