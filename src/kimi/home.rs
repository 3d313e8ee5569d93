//! The private home: Kimi's data folder for the bridge's runs, separate from the user's own.
//!
//! It gets the user's models, providers, services and login, but no MCP servers, hooks, plugins or permission rules. It
//! keeps Kimi's sessions. Anything else that a run writes must not affect a later run, so the home is created again
//! before each run, with the known entries only.

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FileType;
use sha2::{Digest as _, Sha256};
use toml::{Table, Value};

use super::dialect::Dialect;
use super::profile::{EntryKind, Profile, profiles};
use super::tokens::{self, Tokens};
use super::untrusted::{self, Folder};
use super::users::{self, CONFIG_BYTES, OPENAI, unreadable, uses_openai};
use super::{bound, folders, guard, token_file};
use crate::error::{Error, Kind, Result};
use crate::sandbox::rules::canonical;
use crate::settings::{Config, Environment};

/// A private home that is ready for a run.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) path: PathBuf,
    /// The folder at `path`, open.
    pub(crate) folder: Folder,
    /// The variables with the keys of the user's providers.
    pub(crate) keys: Vec<String>,
    /// The copies of the user's login.
    pub(crate) tokens: Tokens,
    /// A shared lock for the time of the run, so that no other run replaces the home.
    lock: File,
    /// The parent folder and the trash.
    parent_and_trash: [Folder; 2],
}

impl Home {
    /// Removes a home that is too large, and returns a warning. If another run uses the home, that run removes it.
    pub(super) fn remove_if_too_large(&self) -> Option<String> {
        let [parent, trash] = &self.parent_and_trash;
        if !bound::is_over(&self.folder) || self.lock.try_lock().is_err() {
            return None;
        }
        parent.discard(self.path.file_name()?, trash).ok()?;
        trash.clear(folders::REMOVED_AT_ONCE);
        Some(format!(
            "Kimi's private home held more than {} and was removed with its sessions; a later round sends the whole prompt",
            bound::BOUND
        ))
    }
}

/// The folder of all private homes, in the state folder.
pub(super) const HOMES: &str = "homes";
/// The folder of all locks, where no run can open them. A run could lock its own home for ever.
const LOCKS: &str = "locks";
/// A home in preparation, next to its lock.
const NEW: &str = "new";
/// The hashes of the tokens, next to the lock.
const HASHES: &str = "tokens";
/// The most homes that are checked for their last use.
const PROJECTS: usize = 1_000;

/// The key of a private home. No run can read the sessions of another project, or of another kind of run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HomeKey<'a> {
    pub(crate) dialect: Dialect,
    pub(crate) profile: Profile,
    pub(crate) project: &'a Path,
}

impl<'a> HomeKey<'a> {
    /// The key of the runs that read a project.
    pub(crate) fn reader(dialect: Dialect, project: &'a Path) -> HomeKey<'a> {
        HomeKey { dialect, profile: Profile::reader(), project }
    }

    /// The path of the home in the folder of all homes.
    pub(super) fn relative(self) -> PathBuf {
        group(self.dialect, self.profile).join(folder_name(self.project))
    }
}

/// The path of the homes of one dialect and profile in the folder of all homes.
fn group(dialect: Dialect, profile: Profile) -> PathBuf {
    [dialect.name(), profile.name].iter().collect()
}

/// The folder name of a project's home: the last part of the project's path, for the reader, and a hash of the path.
fn folder_name(project: &Path) -> String {
    let project = canonical(project);
    let last = project.file_name().unwrap_or_default().to_string_lossy();
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let last: String = last.chars().map(allowed).take(40).collect();
    let hash = Sha256::digest(project.as_os_str().as_bytes());
    let hash: Vec<String> = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{last}-{}", hash.concat())
}

/// Opens a private home, if it exists.
pub(crate) fn open(state_dir: &Path, key: HomeKey<'_>) -> Option<Folder> {
    Folder::trusted(state_dir).ok()?.below(HOMES).ok()?.below(key.relative()).ok()
}

/// Prepares the private home from the user's current settings and login. If another run uses the home, nothing is
/// removed.
pub(crate) fn prepare(config: &Config, key: HomeKey<'_>) -> Result<Home> {
    let HomeKey { dialect, profile, .. } = key;
    let user = users::data_folder(&config.environment, dialect);
    let users = users::config(&user)?;
    let private = toml::to_string(&private_config(dialect, profile, &users, &config.environment))
        .map_err(|error| {
        unreadable(&user.join("config.toml"), &format!("it cannot be carried over: {error}"))
    })?;
    let path = config.state_dir().join(HOMES).join(key.relative());
    folders::make(config.state_dir())?;
    let names = tokens::names(&users, &config.environment, dialect, &user);
    // A later round needs its session, even if no transcript is kept.
    let days = config.settings.transcript_days.max(1);
    let unused = Duration::from_secs(days.saturating_mul(24 * 60 * 60));
    let locked = LockedHome::prepare(config.state_dir(), key, &names, unused);
    let prepared = locked.and_then(|locked| {
        let LockedHome { folder, lock, lock_folder, locks, parent_and_trash } = locked;
        folder.write("config.toml", private.as_bytes())?;
        for name in &profiles().copied {
            // Kimi creates a missing file itself.
            if let Ok(bytes) = untrusted::read(&user.join(name), CONFIG_BYTES) {
                folder.write(name, &bytes)?;
            }
        }
        // This file keeps Kimi from creating a folder `bin` and fetching a ripgrep into it.
        folder.write("bin", b"")?;
        let hashes = lock_folder.make(HASHES)?;
        let tokens = Tokens::copy(dialect, user, folder.below("")?, hashes, locks, names)?;
        Ok((folder, tokens, lock, parent_and_trash))
    });
    let (folder, tokens, lock, parent_and_trash) =
        prepared.map_err(|error| unusable(&path, &error))?;
    Ok(Home { path, folder, keys: key_variables(&users, dialect), tokens, lock, parent_and_trash })
}

/// A private home with a shared lock.
struct LockedHome {
    folder: Folder,
    lock: File,
    /// The folder that the lock is on. It also holds the bridge's files about this home.
    lock_folder: Folder,
    /// The folder of all locks of the dialect.
    locks: Folder,
    /// The parent folder and the trash.
    parent_and_trash: [Folder; 2],
}

impl LockedHome {
    /// Takes the lock, and cleans the home if no other run uses it.
    fn prepare(
        state_dir: &Path,
        key: HomeKey<'_>,
        names: &[OsString],
        unused: Duration,
    ) -> io::Result<LockedHome> {
        let (relative, group) = (key.relative(), group(key.dialect, key.profile));
        let state = Folder::trusted(state_dir)?;
        let (homes, locks, trash) =
            (state.make(HOMES)?, state.make(LOCKS)?, folders::trash(&state)?);
        // One home is prepared at a time, which takes milliseconds.
        let all = File::from(locks.as_fd().try_clone_to_owned()?);
        all.lock()?;
        let has_group = |profile| locks.below(self::group(key.dialect, profile)).is_ok();
        if !Profile::all().any(has_group) {
            // An older bridge had one home for each dialect, in which runs wrote.
            homes.discard(key.dialect.name(), &trash)?;
        }
        for dialect in Dialect::ALL {
            for profile in Profile::all() {
                sweep(&homes, &locks, &trash, &self::group(dialect, profile), unused)?;
            }
        }
        let lock_folder = locks.make(&relative)?;
        let lock = File::from(lock_folder.as_fd().try_clone_to_owned()?);
        match lock.try_lock() {
            Ok(()) => clean(&homes, &relative, &lock_folder, &trash, names)?,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        lock.lock_shared()?;
        Ok(LockedHome {
            folder: homes.make(&relative)?,
            lock,
            lock_folder,
            locks: locks.below(key.dialect.name())?,
            parent_and_trash: [homes.below(group)?, trash],
        })
    }
}

/// Removes the homes that no run has used for a time. The folder of a lock changes with each run.
fn sweep(
    homes: &Folder,
    locks: &Folder,
    trash: &Folder,
    group: &Path,
    unused: Duration,
) -> io::Result<()> {
    let (Ok(homes), Ok(locks)) = (homes.below(group), locks.below(group)) else {
        return Ok(());
    };
    for name in locks.entries(PROJECTS)? {
        if locks.age(Path::new(&name)) < unused {
            continue;
        }
        let lock = File::from(locks.below(&name)?.as_fd().try_clone_to_owned()?);
        if lock.try_lock().is_ok() {
            homes.discard(&name, trash)?;
            locks.discard(&name, trash)?;
        }
    }
    Ok(())
}

/// Replaces a private home by a new folder, and moves the known entries into it. Other entries are not even listed,
/// since a run may have left very many.
fn clean(
    homes: &Folder,
    relative: &Path,
    lock_folder: &Folder,
    trash: &Folder,
    names: &[OsString],
) -> io::Result<()> {
    let (Some(parent), Some(name)) = (relative.parent(), relative.file_name()) else {
        return Ok(());
    };
    let homes = homes.make(parent)?;
    let old = match homes.kind(name) {
        Some(FileType::Directory) => homes.below(name)?,
        Some(_) => return homes.discard(name, trash),
        None => return Ok(()),
    };
    // A run whose bridge was killed may have left too much.
    let is_over = bound::is_over(&old);
    lock_folder.discard(NEW, trash)?;
    let new = lock_folder.make(NEW)?;
    for (entry, kind) in &profiles().known {
        let kind = match kind {
            EntryKind::File => FileType::RegularFile,
            EntryKind::Folder => FileType::Directory,
        };
        let entry = OsStr::new(entry);
        if old.kind(entry) == Some(kind) && !is_over {
            old.move_to(entry, &new, entry)?;
        }
    }
    // If the bridge was killed, the home may hold a renewed token.
    let copies = new.make(token_file::FOLDER)?;
    for token in names {
        let renewed =
            old.below(token_file::FOLDER).and_then(|old| old.read(token, token_file::TOKEN_BYTES));
        if let Ok(renewed) = renewed {
            copies.write(token, &renewed)?;
        }
    }
    homes.discard(name, trash)?;
    lock_folder.move_to(OsStr::new(NEW), &homes, name)
}

fn unusable(home: &Path, error: &io::Error) -> Error {
    Error::new(
        Kind::Spawn,
        format!("could not prepare {}: {error}", home.display()),
        "Remove the folder, which the next run creates again, or set `state_dir` to a writable one.",
    )
}

/// The private `config.toml`: the user's models and providers, and restrictions that hold on resume too.
fn private_config(
    dialect: Dialect,
    profile: Profile,
    users: &Table,
    environment: &Environment,
) -> Table {
    let carried = users.iter().filter(|(name, _)| profiles().carried_over.contains(name));
    let mut private: Table = carried.map(|(name, value)| (name.clone(), value.clone())).collect();
    private.insert("telemetry".to_owned(), Value::Boolean(false));
    private.insert("hooks".to_owned(), hooks(dialect, profile, environment));
    match dialect {
        Dialect::KimiCode => {
            let tools = profile.tools().map(|tool| tool.in_agent_file(dialect));
            let enabled = tools.map(Value::from).collect();
            private.insert("builtin_product_skills".to_owned(), Value::Boolean(false));
            private.insert(
                "tools".to_owned(),
                Value::Table(Table::from_iter([("enabled".to_owned(), Value::Array(enabled))])),
            );
        }
        Dialect::KimiCli => {}
    }
    private
}

/// The hooks that both programs run before each tool call, on resume too. One refuses every tool that is not listed,
/// the other refuses closed paths, even without a sandbox. kimi-code parses deny rules but ignores them.
fn hooks(dialect: Dialect, profile: Profile, environment: &Environment) -> Value {
    let called: Vec<&str> = profile.tools().map(|tool| tool.when_called(dialect)).collect();
    let hook = |matcher: String, command: String| {
        let fields =
            [("event", "PreToolUse".to_owned()), ("matcher", matcher), ("command", command)];
        Value::Table(
            fields
                .map(|(name, value)| (name.to_owned(), Value::String(value)))
                .into_iter()
                .collect(),
        )
    };
    let mut hooks = vec![hook(
        format!("^(?!({})$)", called.join("|")),
        "echo 'this consultation is read-only' >&2; exit 2".to_owned(),
    )];
    // Both programs allow the call if the hook ends with another exit code.
    let command = match &environment.program {
        Some(program) => {
            format!("{} {} \"${}\" || exit 2", quoted(program), guard::COMMAND, guard::RUN_DIR)
        }
        None => "echo 'the path of kimi-bridge is unknown' >&2; exit 2".to_owned(),
    };
    hooks.push(hook(format!("^({})$", called.join("|")), command));
    Value::Array(hooks)
}

/// Quotes a word for the shell.
fn quoted(word: &Path) -> String {
    format!("'{}'", word.display().to_string().replace('\'', "'\\''"))
}

/// The variables with the keys of the user's providers.
fn key_variables(users: &Table, dialect: Dialect) -> Vec<String> {
    let providers = users.get("providers").and_then(Value::as_table).into_iter().flatten();
    let configured = providers.filter_map(|(_, provider)| provider.get("api_key_env")?.as_str());
    let openai = if uses_openai(users, dialect) { &OPENAI[..] } else { &[] };
    configured.chain(openai.iter().copied()).map(str::to_owned).collect()
}

/// Fails if no login, key or provider is configured. Kimi itself would fail only after seconds.
pub(crate) fn expect_login(environment: &Environment, dialect: Dialect) -> Result<()> {
    let login = super::login::find(environment, dialect);
    login.problem(dialect).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::settings::load;

    const USERS: &str = r#"
default_model = "k"
default_yolo = true
extra_skill_dirs = ["/evil"]
[providers.p]
type = "kimi"
base_url = "http://127.0.0.1/v1"
api_key = ""
api_key_env = "MY_KEY"
[models.k]
provider = "p"
model = "kimi-for-coding"
max_context_size = 262144
[mcp.client]
tool_call_timeout_ms = 1
[[hooks]]
event = "PreToolUse"
command = "touch /tmp/evil"
[tools]
enabled = ["Bash"]
[[permission.rules]]
decision = "allow"
pattern = "*"
"#;

    fn prepared(root: &Path, dialect: Dialect) -> Home {
        let environment = Environment {
            home: root.join("home"),
            config_dir: root.join("config"),
            state_dir: root.join("state"),
            current_dir: root.to_owned(),
            program: Some("/b/kimi-bridge".into()),
            ..Environment::default()
        };
        prepare(&load(environment, &[]).unwrap(), HomeKey::reader(dialect, &root.join("project")))
            .unwrap()
    }

    fn with_users(root: &Path, dialect: Dialect) {
        let user = root.join("home").join(dialect.home_folder());
        fs::create_dir_all(user.join("credentials")).unwrap();
        fs::create_dir_all(user.join("bin")).unwrap();
        fs::write(user.join("config.toml"), USERS).unwrap();
        fs::write(user.join("mcp.json"), "{}").unwrap();
        fs::write(user.join("device_id"), "d").unwrap();
        fs::write(user.join("credentials/kimi-code.json"), "token").unwrap();
        fs::write(user.join("credentials/other.json"), "token of another service").unwrap();
    }

    fn check(dialect: Dialect, restrictions: &str) {
        let root = tempfile::tempdir().unwrap();
        with_users(root.path(), dialect);
        let home = prepared(root.path(), dialect);
        assert_eq!(home.keys, ["MY_KEY"]);
        let openai = USERS.replace("type = \"kimi\"", "type = \"openai_legacy\"");
        let keys = key_variables(&openai.parse().unwrap(), dialect);
        let expected: &[&str] = match dialect {
            Dialect::KimiCode => &["MY_KEY"],
            Dialect::KimiCli => &["MY_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"],
        };
        assert_eq!(keys, expected);
        let private: Table =
            fs::read_to_string(home.path.join("config.toml")).unwrap().parse().unwrap();
        let users: Table = USERS.parse().unwrap();
        let mut expected: Table = restrictions.parse().unwrap();
        for carried in ["default_model", "providers", "models"] {
            expected.insert(carried.to_owned(), users[carried].clone());
        }
        assert_eq!(private, expected);
        let mut entries: Vec<_> =
            fs::read_dir(&home.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        entries.sort();
        assert_eq!(entries, ["bin", "config.toml", "credentials", "device_id"]);
        assert_eq!(names_in(&home.path.join("credentials")), ["kimi-code.json"]);
        assert!(fs::symlink_metadata(home.path.join("bin")).unwrap().is_file());
        assert_eq!(fs::read(home.path.join("credentials/kimi-code.json")).unwrap(), b"token");
    }

    #[test]
    fn kimi_code_gets_the_model_the_login_and_three_restrictions() {
        check(
            Dialect::KimiCode,
            r#"
telemetry = false
builtin_product_skills = false
tools.enabled = ["Read", "Glob", "Grep", "WebSearch", "FetchURL"]
[[hooks]]
event = "PreToolUse"
matcher = "^(?!(Read|Glob|Grep|WebSearch|FetchURL)$)"
command = "echo 'this consultation is read-only' >&2; exit 2"
[[hooks]]
event = "PreToolUse"
matcher = "^(Read|Glob|Grep|WebSearch|FetchURL)$"
command = "'/b/kimi-bridge' guard \"$KIMI_BRIDGE_RUN_DIR\" || exit 2"
"#,
        );
    }

    #[test]
    fn kimi_cli_gets_the_model_the_login_and_two_restrictions() {
        check(
            Dialect::KimiCli,
            r#"
telemetry = false
[[hooks]]
event = "PreToolUse"
matcher = "^(?!(ReadFile|Glob|Grep|SearchWeb|FetchURL)$)"
command = "echo 'this consultation is read-only' >&2; exit 2"
[[hooks]]
event = "PreToolUse"
matcher = "^(ReadFile|Glob|Grep|SearchWeb|FetchURL)$"
command = "'/b/kimi-bridge' guard \"$KIMI_BRIDGE_RUN_DIR\" || exit 2"
"#,
        );
    }

    fn names_in(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_known_entries_stay_unless_another_run_uses_the_home() {
        let root = tempfile::tempdir().unwrap();
        let users = root.path().join("users");
        fs::create_dir_all(&users).unwrap();
        fs::write(users.join("file"), "x").unwrap();
        let other = prepared(root.path(), Dialect::KimiCode);
        let home = other.path.clone();
        fs::write(home.join("mcp.json"), "{}").unwrap();
        fs::create_dir_all(home.join("plugins/evil")).unwrap();
        symlink(&users, home.join("skills")).unwrap();
        symlink(users.join("file"), home.join("device_id")).unwrap();
        fs::create_dir_all(home.join("sessions/p/s")).unwrap();
        prepared(root.path(), Dialect::KimiCode);
        assert!(home.join("mcp.json").exists(), "the home of a run is cleaned");
        drop(other);
        prepared(root.path(), Dialect::KimiCode);
        assert_eq!(names_in(&home), ["bin", "config.toml", "credentials", "sessions"]);
        assert!(home.join("sessions/p/s").exists());

        fs::remove_dir_all(home.join("sessions")).unwrap();
        symlink(&users, home.join("sessions")).unwrap();
        prepared(root.path(), Dialect::KimiCode);
        assert_eq!(names_in(&home), ["bin", "config.toml", "credentials"]);
        fs::remove_dir_all(&home).unwrap();
        symlink(&users, &home).unwrap();
        prepared(root.path(), Dialect::KimiCode);
        assert!(!fs::symlink_metadata(&home).unwrap().is_symlink());
        assert_eq!(fs::read(users.join("file")).unwrap(), b"x");
    }

    #[test]
    fn each_project_has_a_home_and_that_of_an_older_bridge_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let older = root.path().join("state/homes/kimi-code");
        fs::create_dir_all(older.join("sessions/p/s")).unwrap();
        symlink(root.path(), older.join("reader")).unwrap();
        let home = prepared(root.path(), Dialect::KimiCode);
        assert_eq!(names_in(&older), ["reader"]);
        assert_eq!(home.path.parent(), Some(older.join("reader").as_path()));
        assert!(!home.path.join("sessions").exists());
        let name = folder_name(Path::new("/a/my project"));
        assert!(name.starts_with("my_project-") && name.len() == 27, "{name}");
        assert_ne!(name, folder_name(Path::new("/b/my project")));
    }

    #[test]
    fn an_unused_home_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let used = prepared(root.path(), Dialect::KimiCode).path;
        let [homes, locks] = ["homes", "locks"]
            .map(|folder| root.path().join("state").join(folder).join("kimi-cli/reader"));
        for (name, days) in [("old", 91), ("new", 89), ("held", 91)] {
            fs::create_dir_all(homes.join(name).join("sessions")).unwrap();
            fs::create_dir_all(locks.join(name)).unwrap();
            let changed = std::time::SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
            File::open(locks.join(name)).unwrap().set_modified(changed).unwrap();
        }
        let held = File::open(locks.join("held")).unwrap();
        held.lock_shared().unwrap();
        prepared(root.path(), Dialect::KimiCode);
        assert_eq!(
            (names_in(&homes), names_in(&locks)),
            (["held", "new"].map(str::to_owned).into(), ["held", "new"].map(str::to_owned).into())
        );
        assert!(used.exists());
    }

    #[test]
    fn the_error_names_an_unusable_config() {
        let root = tempfile::tempdir().unwrap();
        let user = root.path().join("home/.kimi");
        fs::create_dir_all(&user).unwrap();
        fs::write(user.join("config.toml"), "= broken").unwrap();
        let error = users::config(&user).unwrap_err();
        assert_eq!(error.kind, Kind::Settings);
        assert_eq!(
            error.message,
            format!(
                "Kimi's {} cannot be used: unquoted keys cannot be empty, expected letters, numbers, `-`, `_` on line 1",
                user.join("config.toml").display()
            )
        );
    }
}
