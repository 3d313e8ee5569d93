//! The project of a request, and its files. A caller can be tricked into naming a folder with secrets, and Kimi may
//! read everything in the project.

use std::path::{Component, Path, PathBuf};
use std::result::Result;

use serde_json::Value;

use crate::error::Violation;
use crate::kimi::confinement::usable_secret_files;
use crate::kimi::{Dialect, users};
use crate::sandbox::SecretFiles;
use crate::sandbox::rules::canonical;
use crate::settings::Config;

/// System folders, which hold no project.
const SYSTEM: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];

/// The most files that a request may name.
const MOST_FILES: usize = 1_000;

/// The folder of the project, and the files worth reading first.
pub(crate) struct ProjectPlace {
    /// The canonical path of the folder.
    pub(crate) work_dir: PathBuf,
    /// Paths relative to the folder.
    pub(crate) files: Vec<PathBuf>,
}

impl ProjectPlace {
    /// Reads the place from the fields of a request.
    ///
    /// # Errors
    /// Every problem of the folder, or else of the files.
    pub(crate) fn read(fields: &Value, config: &Config) -> Result<ProjectPlace, Vec<Violation>> {
        let secret = &usable_secret_files(config);
        let work_dir = work_dir(fields["work_dir"].as_str(), config, secret);
        let work_dir = work_dir.map_err(|expected| vec![Violation::new("/work_dir", &expected)])?;
        let mut files = Vec::new();
        let mut violations = Vec::new();
        let named = fields["files"].as_array().map_or(0, Vec::len);
        if named > MOST_FILES {
            let expected = format!("expected at most {MOST_FILES} files, found {named}");
            return Err(vec![Violation::new("/files", expected)]);
        }
        for (at, file) in fields["files"].as_array().into_iter().flatten().enumerate() {
            let Some(file) = file.as_str() else { continue };
            match inside(&work_dir, Path::new(file), secret) {
                Ok(file) => files.push(file),
                Err(expected) => violations.push(Violation::new(format!("/files/{at}"), &expected)),
            }
        }
        if violations.is_empty() { Ok(ProjectPlace { work_dir, files }) } else { Err(violations) }
    }
}

/// Checks the project of an earlier call again, since its path may have been replaced, above all by a link, and another
/// host may not choose it.
pub(crate) fn expect_project(project: &Path, config: &Config) -> Result<(), String> {
    match project.metadata() {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err("it is no folder any more".to_owned()),
        Err(error) => return Err(error.to_string()),
    }
    let now = work_dir(project.to_str(), config, &usable_secret_files(config))?;
    if now == project { Ok(()) } else { Err(format!("that path leads to {} now", now.display())) }
}

/// The canonical path of the folder in the request, or else of the folder in which the host works.
fn work_dir(named: Option<&str>, config: &Config, secret: &SecretFiles) -> Result<PathBuf, String> {
    let environment = &config.environment;
    let project = environment.project_dir();
    let path = named.map_or_else(|| project.clone(), |named| project.join(named));
    let work_dir = match path.canonicalize() {
        Ok(path) if path.is_dir() => path,
        Ok(_) => return Err(format!("expected a folder, {} is none", path.display())),
        Err(error) => {
            return Err(format!("expected an existing folder, {}: {error}", path.display()));
        }
    };
    if canonical(&environment.home).starts_with(&work_dir) {
        return Err(format!(
            "expected the folder of one project; {} is the home folder or holds it",
            work_dir.display()
        ));
    }
    if work_dir.to_str().is_none() {
        return Err(format!(
            "expected a path in UTF-8, which Kimi and JSON need; rename {}",
            work_dir.display()
        ));
    }
    if work_dir.display().to_string().contains(char::is_control) {
        return Err("expected a path without control characters".to_owned());
    }
    // The host's folder was chosen by the user.
    let is_chosen = work_dir == canonical(&project)
        || config.settings.readable.iter().any(|open| work_dir.starts_with(canonical(open)));
    match private_place(&work_dir, config, secret).filter(|_| !is_chosen) {
        None => Ok(work_dir),
        Some((place, why)) => Err(format!(
            "expected the folder of a project; {} {why}. If Kimi may read it, the user adds `readable: [{}]` to \
             settings.yaml",
            work_dir.display(),
            place.display()
        )),
    }
}

/// The private folder that contains a canonical path, and the reason why it is private.
fn private_place(
    path: &Path,
    config: &Config,
    secret: &SecretFiles,
) -> Option<(PathBuf, &'static str)> {
    let environment = &config.environment;
    let own = [config.state_dir(), &environment.config_dir].map(canonical);
    if let Some(own) = own.into_iter().find(|own| path.starts_with(own)) {
        return Some((own, "belongs to kimi-bridge"));
    }
    let logins = Dialect::ALL.map(|dialect| canonical(&users::data_folder(environment, dialect)));
    if let Some(login) = logins.into_iter().find(|login| path.starts_with(login)) {
        return Some((login, "holds Kimi's login"));
    }
    if let Some(system) = SYSTEM.into_iter().find(|system| path.starts_with(system)) {
        return Some((system.into(), "belongs to the system"));
    }
    let home = canonical(&environment.home);
    if let Ok(Some(Component::Normal(first))) =
        path.strip_prefix(&home).map(|below| below.components().next())
        && first.as_encoded_bytes().starts_with(b".")
    {
        return Some((home.join(first), "lies in a hidden folder of the home"));
    }
    // From the outside in, so that the outermost folder is named.
    let mut folders: Vec<&Path> = path.ancestors().collect();
    folders.reverse();
    let is_secret =
        |folder: &&Path| secret.is_named(folder.strip_prefix("/").unwrap_or(folder), true);
    let place = folders.into_iter().find(is_secret)?;
    Some((place.to_owned(), "lies in a folder that holds secrets by its name"))
}

/// The path relative to the project, if it exists in the project and is open to Kimi.
fn inside(work_dir: &Path, file: &Path, secret: &SecretFiles) -> Result<PathBuf, String> {
    let outside = || format!("expected a path inside the project {}", work_dir.display());
    let path = work_dir.join(file);
    if path.display().to_string().contains(char::is_control) {
        return Err("expected a path without control characters".to_owned());
    }
    let relative = match path.canonicalize() {
        Ok(real) => real.strip_prefix(work_dir).map(Path::to_owned).map_err(|_| outside())?,
        Err(_) if file.components().any(|part| part == Component::ParentDir) => {
            return Err(outside());
        }
        Err(error) => {
            return Err(format!("expected an existing path, {}: {error}", path.display()));
        }
    };
    if relative.to_str().is_none() {
        return Err(format!("expected a path in UTF-8, {} leads to another", path.display()));
    }
    if secret.is_secret(work_dir, &path) {
        return Err(format!(
            "expected a path that is open to Kimi; {} holds a secret by its name or content. If Kimi may read it, the \
             user adds `files: [\"!/{}\"]` to secrets.yaml",
            path.display(),
            relative.display()
        ));
    }
    Ok(relative)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::*;
    use crate::settings::{Environment, load};

    struct World {
        root: tempfile::TempDir,
        config: Config,
    }

    fn world(readable: &str) -> World {
        let root = tempfile::tempdir().unwrap();
        let path = |path: &str| root.path().join(path);
        for folder in [
            "home/project/src",
            "home/.ssh",
            "home/.config/gh/x",
            "home/.kimi/sessions",
            "home/work/.aws",
            "state/homes",
            "moved/login",
            "srv/app",
            "srv/.ssh",
        ] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        for (target, link) in [("../.ssh", "keys"), ("../../srv/.ssh", "other")] {
            symlink(target, path("home/project").join(link)).unwrap();
        }
        fs::write(path("home/project/.env"), "").unwrap();
        symlink(".env", path("home/project/note")).unwrap();
        let vars = [
            ("CLAUDE_PROJECT_DIR".to_owned(), path("home/project").display().to_string()),
            ("KIMI_CODE_HOME".to_owned(), path("moved").display().to_string()),
            (
                "KIMI_BRIDGE_READABLE".to_owned(),
                readable.replace("ROOT", path("").to_str().unwrap()),
            ),
        ];
        let environment = Environment {
            vars: vars.into(),
            home: path("home"),
            config_dir: path("config"),
            state_dir: path("state"),
            current_dir: path("home/project"),
            ..Environment::default()
        };
        World { config: load(environment, &[]).unwrap(), root }
    }

    impl World {
        fn work_dir(&self, named: &str) -> Result<PathBuf, String> {
            let root = self.root.path().canonicalize().unwrap();
            let found = work_dir(Some(named), &self.config, SecretFiles::built_in());
            let relative = found.map(|path| path.strip_prefix(&root).unwrap().to_owned());
            relative.map_err(|why| why.replace(root.to_str().unwrap(), "ROOT"))
        }

        #[track_caller]
        fn check_refused(&self, named: &str, place: &str, why: &str) {
            let error = self.work_dir(named).unwrap_err();
            assert!(error.contains(why), "{named}: {error}");
            assert!(error.contains(&format!("`readable: [ROOT/{place}]`")), "{named}: {error}");
        }
    }

    #[test]
    fn a_folder_with_secrets_is_no_project() {
        let world = world("");
        for (named, place, why) in [
            ("../.ssh", "home/.ssh", "lies in a hidden folder of the home"),
            ("keys", "home/.ssh", "lies in a hidden folder of the home"),
            ("../.config/gh/x", "home/.config", "lies in a hidden folder of the home"),
            ("../.kimi/sessions", "home/.kimi", "holds Kimi's login"),
            ("../../moved/login", "moved", "holds Kimi's login"),
            ("../../state/homes", "state", "belongs to kimi-bridge"),
            ("other", "srv/.ssh", "lies in a folder that holds secrets by its name"),
            ("../work/.aws", "home/work/.aws", "lies in a folder that holds secrets by its name"),
        ] {
            world.check_refused(named, place, why);
        }
        let error = world.work_dir("/proc/self/fd").unwrap_err();
        assert!(error.contains("belongs to the system"), "{error}");
        for (named, real) in [("src", "home/project/src"), ("../../srv/app", "srv/app")] {
            assert_eq!(world.work_dir(named), Ok(real.into()));
        }
    }

    #[test]
    fn the_user_may_allow_a_folder_with_secrets() {
        let allowed = world("ROOT/home/.config/gh");
        assert_eq!(allowed.work_dir("../.config/gh/x"), Ok("home/.config/gh/x".into()));
        allowed.check_refused("../.ssh", "home/.ssh", "lies in a hidden folder of the home");
        // The host's folder was chosen by the user.
        let mut chosen = world("");
        let gh = chosen.root.path().join("home/.config/gh");
        chosen.config.environment.vars = [].into();
        chosen.config.environment.current_dir = gh;
        let found = work_dir(None, &chosen.config, SecretFiles::built_in());
        assert!(found.unwrap().ends_with("home/.config/gh"));
        assert!(chosen.work_dir(".").is_ok());
    }

    #[test]
    fn a_secret_file_is_not_worth_reading_first() {
        let world = world("");
        let fields = json!({"files": ["src", ".env", "note", "keys"]});
        let violations = ProjectPlace::read(&fields, &world.config).err().unwrap();
        let project = world.root.path().canonicalize().unwrap().join("home/project");
        let expected = |at: usize, name: &str| {
            let why = format!(
                "expected a path that is open to Kimi; {} holds a secret by its name or content. If Kimi may read it, \
                 the user adds `files: [\"!/.env\"]` to secrets.yaml",
                project.join(name).display()
            );
            Violation::new(format!("/files/{at}"), &why)
        };
        let outside = format!("expected a path inside the project {}", project.display());
        let outside = Violation::new("/files/3", &outside);
        assert_eq!(violations, [expected(1, ".env"), expected(2, "note"), outside]);
    }
}
