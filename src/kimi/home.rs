//! The private home: Kimi's data folder for the bridge's runs, apart from the user's own.
//!
//! Only what is needed to reach the model is carried over from the user's folder: models, providers,
//! services and the login. MCP servers, hooks, plugins and permission rules stay behind. Sessions
//! live here, so they are kept between runs. A run may leave anything else here too, which decides nothing about a
//! later run: the home is made anew before each, with the known entries only.

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
use crate::settings::{Environment, Loaded};

/// A private home that is ready for a run.
#[derive(Debug)]
pub(crate) struct Home {
    /// The folder.
    pub(crate) path: PathBuf,
    /// The same folder, open.
    pub(crate) folder: Folder,
    /// Variables in which the user's providers look for their keys.
    pub(crate) keys: Vec<String>,
    /// The copies of the user's login.
    pub(crate) tokens: Tokens,
    /// A shared lock, held as long as the run lasts: no other run makes the home anew meanwhile.
    lock: File,
    /// The folder that holds it, and the one for what is removed.
    around: [Folder; 2],
}

impl Home {
    /// Removes a home that has become too large, unless another run uses it, which removes it then. Returns a warning.
    pub(super) fn empty_if_over(&self) -> Option<String> {
        let [parent, trash] = &self.around;
        if !bound::is_over(&self.folder) || self.lock.try_lock().is_err() {
            return None;
        }
        parent.discard(self.path.file_name()?, trash).ok()?;
        trash.clear(folders::REMOVED_AT_ONCE);
        Some(format!(
            "Kimi's private home held more than {} and was emptied, its session too: a later round sends the whole prompt",
            bound::BOUND
        ))
    }
}

/// The folder of all private homes, in the state folder.
pub(super) const HOMES: &str = "homes";
/// The folder of their locks, where no run can open them: one could lock its own home for ever.
const LOCKS: &str = "locks";
/// A home that is being made, beside its lock.
const NEW: &str = "new";
/// What was last the same in the user's login and in the copy of a run, beside the lock.
const HASHES: &str = "tokens";
/// The most homes that are looked at, to find those that are not used any more.
const PROJECTS: usize = 1_000;

/// The key of a private home: no run reads what Kimi remembers of another project, or of another kind of run.
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

    /// The home, in the folder of all homes.
    pub(super) fn relative(self) -> PathBuf {
        group(self.dialect, self.profile).join(name_of(self.project))
    }
}

/// The homes of one dialect and profile, in the folder of all homes.
fn group(dialect: Dialect, profile: Profile) -> PathBuf {
    [dialect.name(), profile.name].iter().collect()
}

/// The same name for the same project: the last part of its path, for a person, and a hash of the whole path.
fn name_of(project: &Path) -> String {
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

/// Makes the private home anew from what the user's holds now. While another run uses it, nothing is removed.
pub(crate) fn prepare(loaded: &Loaded, key: HomeKey<'_>) -> Result<Home> {
    let HomeKey { dialect, profile, .. } = key;
    let user = users::data_folder(&loaded.environment, dialect);
    let users = users::config(&user)?;
    let config = toml::to_string(&config(dialect, profile, &users, &loaded.environment)).map_err(
        |error| {
            unreadable(&user.join("config.toml"), &format!("it cannot be carried over: {error}"))
        },
    )?;
    let path = loaded.state_dir().join(HOMES).join(key.relative());
    folders::make(loaded.state_dir())?;
    let names = tokens::names(&users, &loaded.environment, dialect, &user);
    // A later round needs its session, also where no transcript is kept.
    let days = loaded.settings.transcript_days.max(1);
    let unused = Duration::from_secs(days.saturating_mul(24 * 60 * 60));
    let made = Locked::make(loaded.state_dir(), key, &names, unused);
    let made = made.and_then(|made| {
        let Locked { folder, lock, beside, locks, around } = made;
        folder.write("config.toml", config.as_bytes())?;
        for name in &profiles().copied {
            // Where the user's has none, Kimi makes its own.
            if let Ok(bytes) = untrusted::read(&user.join(name), CONFIG_BYTES) {
                folder.write(name, &bytes)?;
            }
        }
        // A file in place of the folder into which Kimi would fetch a ripgrep, to run it.
        folder.write("bin", b"")?;
        let hashes = beside.make(HASHES)?;
        let tokens = Tokens::copy(dialect, user, folder.below("")?, hashes, locks, names)?;
        Ok((folder, tokens, lock, around))
    });
    let (folder, tokens, lock, around) = made.map_err(|error| unusable(&path, &error))?;
    Ok(Home { path, folder, keys: key_variables(&users, dialect), tokens, lock, around })
}

/// A private home with a shared lock.
struct Locked {
    folder: Folder,
    lock: File,
    /// The folder of the bridge's own files about this home.
    beside: Folder,
    /// The folder of all locks of the dialect.
    locks: Folder,
    /// As in [`Home`].
    around: [Folder; 2],
}

impl Locked {
    /// Takes the lock, and cleans the home if no other run uses it.
    fn make(
        state_dir: &Path,
        key: HomeKey<'_>,
        names: &[OsString],
        unused: Duration,
    ) -> io::Result<Locked> {
        let (relative, group) = (key.relative(), group(key.dialect, key.profile));
        let state = Folder::trusted(state_dir)?;
        let (homes, locks, trash) =
            (state.make(HOMES)?, state.make(LOCKS)?, folders::trash(&state)?);
        // One home is made at a time, which takes milliseconds.
        let all = File::from(locks.as_fd().try_clone_to_owned()?);
        all.lock()?;
        if locks.below(key.dialect.name()).is_err() {
            // Before there was a home for each project, each dialect had one, in which runs wrote.
            homes.discard(key.dialect.name(), &trash)?;
        }
        for dialect in Dialect::ALL {
            for profile in Profile::all() {
                sweep(&homes, &locks, &trash, &self::group(dialect, profile), unused)?;
            }
        }
        let beside = locks.make(&relative)?;
        let lock = File::from(beside.as_fd().try_clone_to_owned()?);
        match lock.try_lock() {
            Ok(()) => clean(&homes, &relative, &beside, &trash, names)?,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        lock.lock_shared()?;
        Ok(Locked {
            folder: homes.make(&relative)?,
            lock,
            beside,
            locks: locks.below(key.dialect.name())?,
            around: [homes.below(group)?, trash],
        })
    }
}

/// Removes the homes of projects that Kimi was not asked about for so long. Their locks' folders change with each run.
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

/// Puts a new folder in the place of a private home, and moves the known entries into it. However much a run left,
/// only these are looked at.
fn clean(
    homes: &Folder,
    relative: &Path,
    beside: &Folder,
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
    beside.discard(NEW, trash)?;
    let new = beside.make(NEW)?;
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
    // A token that was renewed in a run whose bridge was killed.
    let copies = new.make(token_file::FOLDER)?;
    for token in names {
        let renewed =
            old.below(token_file::FOLDER).and_then(|old| old.read(token, token_file::TOKEN_BYTES));
        if let Ok(renewed) = renewed {
            copies.write(token, &renewed)?;
        }
    }
    homes.discard(name, trash)?;
    beside.move_to(OsStr::new(NEW), &homes, name)
}

fn unusable(home: &Path, error: &io::Error) -> Error {
    Error::new(
        Kind::Spawn,
        format!("could not prepare {}: {error}", home.display()),
        "Remove the folder, which is made again, or set `state_dir` to one that is writable.",
    )
}

/// The private `config.toml`: what is carried over, and walls that hold on resume too.
fn config(dialect: Dialect, profile: Profile, users: &Table, environment: &Environment) -> Table {
    let carried = users.iter().filter(|(name, _)| profiles().carried_over.contains(name));
    let mut config: Table = carried.map(|(name, value)| (name.clone(), value.clone())).collect();
    config.insert("telemetry".to_owned(), Value::Boolean(false));
    config.insert("hooks".to_owned(), hooks(dialect, profile, environment));
    match dialect {
        Dialect::KimiCode => {
            let tools = profile.tools().map(|tool| tool.in_agent_file(dialect));
            let enabled = tools.map(Value::from).collect();
            config.insert("builtin_product_skills".to_owned(), Value::Boolean(false));
            config.insert(
                "tools".to_owned(),
                Value::Table(Table::from_iter([("enabled".to_owned(), Value::Array(enabled))])),
            );
        }
        Dialect::KimiCli => {}
    }
    config
}

/// What is run before each call of a tool: both programs ask hooks, also on resume, and kimi-code never
/// asks the deny rules that it parses. One refuses every tool but the reading ones, the other what these may
/// not read, also where there is no sandbox.
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
    if let Some(program) = &environment.program {
        // Both programs let a call pass whose hook ends in any other way.
        let command =
            format!("{} {} \"${}\" || exit 2", quoted(program), guard::COMMAND, guard::RUN_DIR);
        hooks.push(hook(format!("^({})$", called.join("|")), command));
    }
    Value::Array(hooks)
}

/// A word for the shell.
fn quoted(word: &Path) -> String {
    format!("'{}'", word.display().to_string().replace('\'', "'\\''"))
}

/// The variables that `api_key_env` of the user's providers names.
fn key_variables(users: &Table, dialect: Dialect) -> Vec<String> {
    let providers = users.get("providers").and_then(Value::as_table).into_iter().flatten();
    let named = providers.filter_map(|(_, provider)| provider.get("api_key_env")?.as_str());
    let openai = if uses_openai(users, dialect) { &OPENAI[..] } else { &[] };
    named.chain(openai.iter().copied()).map(str::to_owned).collect()
}

/// Refuses at once what Kimi itself would refuse after seconds: nothing leads to any model. Where a
/// provider is configured, even one without a key, Kimi is asked.
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

    fn check(dialect: Dialect, walls: &str) {
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
        let config: Table =
            fs::read_to_string(home.path.join("config.toml")).unwrap().parse().unwrap();
        let users: Table = USERS.parse().unwrap();
        let mut expected: Table = walls.parse().unwrap();
        for carried in ["default_model", "providers", "models"] {
            expected.insert(carried.to_owned(), users[carried].clone());
        }
        assert_eq!(config, expected);
        let mut there: Vec<_> =
            fs::read_dir(&home.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        there.sort();
        assert_eq!(there, ["bin", "config.toml", "credentials", "device_id"]);
        assert_eq!(names_in(&home.path.join("credentials")), ["kimi-code.json"]);
        assert!(fs::symlink_metadata(home.path.join("bin")).unwrap().is_file());
        assert_eq!(fs::read(home.path.join("credentials/kimi-code.json")).unwrap(), b"token");
    }

    #[test]
    fn kimi_code_gets_the_model_the_login_and_three_walls() {
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
    fn kimi_cli_gets_the_model_the_login_and_two_walls() {
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
    fn only_known_entries_of_their_kinds_stay_unless_another_run_uses_the_home() {
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
    fn each_project_has_a_home_and_what_an_older_bridge_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let older = root.path().join("state/homes/kimi-code");
        fs::create_dir_all(older.join("sessions/p/s")).unwrap();
        symlink(root.path(), older.join("reader")).unwrap();
        let home = prepared(root.path(), Dialect::KimiCode);
        assert_eq!(names_in(&older), ["reader"]);
        assert_eq!(home.path.parent(), Some(older.join("reader").as_path()));
        assert!(!home.path.join("sessions").exists());
        let name = name_of(Path::new("/a/my project"));
        assert!(name.starts_with("my_project-") && name.len() == 27, "{name}");
        assert_ne!(name, name_of(Path::new("/b/my project")));
    }

    #[test]
    fn a_home_that_was_not_used_for_long_is_removed() {
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
    fn a_config_that_cannot_be_read_is_named() {
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
