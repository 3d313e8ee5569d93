//! The private home: Kimi's data folder for the bridge's runs, apart from the user's own.
//!
//! Only what is needed to reach the model is carried over from the user's folder: models, providers,
//! services and the login. MCP servers, hooks, plugins and permission rules stay behind. Sessions
//! live here, so the folder is kept between runs.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::consultant::consultant;
use super::dialect::Dialect;
use super::{folders, ripgrep};
use crate::documents;
use crate::error::{Error, Kind, Result};
use crate::settings::{Environment, Loaded};

/// A private home that is ready for a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The folder.
    pub path: PathBuf,
    /// Variables in which the user's providers look for their keys.
    pub keys: Vec<String>,
}

/// Where the private home of a dialect is.
#[must_use]
pub fn path(state_dir: &Path, dialect: Dialect) -> PathBuf {
    state_dir.join("homes").join(dialect.name())
}

/// The user's own data folder of a dialect.
#[must_use]
pub fn of_user(environment: &Environment, dialect: Dialect) -> PathBuf {
    let moved = environment.var(dialect.home_variable()).map(PathBuf::from);
    moved.unwrap_or_else(|| environment.home.join(dialect.home_folder()))
}

/// The folders of the user's that a private home of this dialect leads to, as far as there are any: Kimi
/// renews the login in them.
#[must_use]
pub fn logins(environment: &Environment, dialect: Dialect) -> Vec<PathBuf> {
    let user = of_user(environment, dialect);
    let folders = consultant().linked.iter().map(|name| user.join(name));
    folders.filter(|folder| folder.is_dir()).collect()
}

/// Makes the private home anew from what the user's holds now.
///
/// # Errors
/// [`Kind::Settings`] when the user's `config.toml` cannot be read; [`Kind::Spawn`] when the folder
/// cannot be made.
pub fn prepare(loaded: &Loaded, dialect: Dialect) -> Result<Home> {
    let home = path(loaded.state_dir(), dialect);
    let user = of_user(&loaded.environment, dialect);
    folders::make_private(&home)?;
    for name in &consultant().removed {
        remove(&home.join(name)).map_err(|error| unusable(&home, &error))?;
    }
    let users = users_config(&user)?;
    let config =
        toml::to_string(&config(dialect, &users, &loaded.environment)).map_err(|error| {
            unreadable(&user.join("config.toml"), &format!("it cannot be carried over: {error}"))
        })?;
    let file = home.join("config.toml");
    if fs::read(&file).ok().as_deref() != Some(config.as_bytes()) {
        folders::write_private(&file, config.as_bytes())?;
    }
    for folder in &consultant().linked {
        link(&user.join(folder), &home.join(folder)).map_err(|error| cannot_link(&home, &error))?;
    }
    for name in &consultant().copied {
        // Where the user's has none, Kimi makes its own, and that one may stay.
        if let Ok(bytes) = fs::read(user.join(name)) {
            folders::write_private(&home.join(name), &bytes)?;
        }
    }
    // Without ripgrep on PATH both programs fetch their own into their data folder; the one that
    // stands in the user's already serves as well.
    if ripgrep::on_path(&loaded.environment).is_none() {
        link(&user.join("bin"), &home.join("bin")).map_err(|error| cannot_link(&home, &error))?;
    }
    Ok(Home { path: home, keys: key_variables(&users) })
}

/// The user's own `config.toml`; an empty one where there is none.
pub(super) fn users_config(user: &Path) -> Result<Table> {
    let file = user.join("config.toml");
    match fs::read_to_string(&file) {
        Ok(text) => documents::toml(&text).map_err(|why| unreadable(&file, &why)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Table::new()),
        Err(error) => Err(unreadable(&file, &error.to_string())),
    }
}

fn unreadable(file: &Path, why: &str) -> Error {
    Error::new(
        Kind::Settings,
        format!("Kimi's {} cannot be used: {why}", file.display()),
        "Mend the file, or run `kimi` once, which says what is wrong with it.",
    )
}

/// Removes a file, a link or a folder, if there is one.
fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

fn unusable(home: &Path, error: &io::Error) -> Error {
    Error::new(
        Kind::Spawn,
        format!("could not clear {}: {error}", home.display()),
        "Remove the folder; it is made again.",
    )
}

fn cannot_link(home: &Path, error: &io::Error) -> Error {
    Error::new(
        Kind::Spawn,
        format!("could not link the login into {}: {error}", home.display()),
        "Make the folder writable, or set `state_dir` to one that is.",
    )
}

/// The private `config.toml`: what is carried over, and walls that hold on resume too.
fn config(dialect: Dialect, users: &Table, environment: &Environment) -> Table {
    let consultant = consultant();
    let carried = users.iter().filter(|(name, _)| consultant.carried_over.contains(name));
    let mut config: Table = carried.map(|(name, value)| (name.clone(), value.clone())).collect();
    config.insert("telemetry".to_owned(), Value::Boolean(false));
    config.insert("hooks".to_owned(), hooks(dialect, environment));
    match dialect {
        Dialect::KimiCode => {
            let enabled = tools(dialect).into_iter().map(Value::from).collect();
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
/// asks the deny rules that it parses. One refuses every tool but the reading ones, the other refuses
/// secret files, also where there is no sandbox.
fn hooks(dialect: Dialect, environment: &Environment) -> Value {
    let called: Vec<&str> =
        consultant().tools.iter().map(|tool| tool.when_called(dialect)).collect();
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
        let words = [program.as_path(), Path::new(GUARD), &environment.config_dir].map(quoted);
        hooks.push(hook(format!("^({})$", called.join("|")), words.join(" ")));
    }
    Value::Array(hooks)
}

/// The hidden command of the binary that tells whether a call of a tool names a secret file.
pub const GUARD: &str = "guard";

/// A word for the shell.
fn quoted(word: &Path) -> String {
    format!("'{}'", word.display().to_string().replace('\'', "'\\''"))
}

fn tools(dialect: Dialect) -> Vec<&'static str> {
    consultant().tools.iter().map(|tool| tool.in_agent_file(dialect)).collect()
}

/// The variables that `api_key_env` of the user's providers names.
fn key_variables(users: &Table) -> Vec<String> {
    let providers = users.get("providers").and_then(Value::as_table).into_iter().flatten();
    let named = providers.filter_map(|(_, provider)| provider.get("api_key_env")?.as_str());
    named.map(str::to_owned).collect()
}

/// Makes `link` lead to the folder `target`, or be absent when there is none.
fn link(target: &Path, link: &Path) -> io::Result<()> {
    let leads_there = fs::read_link(link).is_ok_and(|there| there == target);
    match fs::symlink_metadata(link) {
        Ok(_) if leads_there && target.is_dir() => return Ok(()),
        // Kimi made its own while the user's did not exist yet.
        Ok(old) if old.is_dir() && !target.is_dir() => return Ok(()),
        Ok(old) if old.is_dir() => fs::remove_dir_all(link)?,
        Ok(_) => fs::remove_file(link)?,
        Err(_) => {}
    }
    if !target.is_dir() {
        return Ok(());
    }
    match symlink(target, link) {
        // Another server made the same link in the meantime.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// Refuses at once what Kimi itself would refuse after seconds: nothing leads to any model. Where a
/// provider is configured, even one without a key, Kimi is asked.
///
/// # Errors
/// [`Kind::NotLoggedIn`]; [`Kind::Settings`] when Kimi's `config.toml` cannot be read.
pub fn expect_login(environment: &Environment, dialect: Dialect) -> Result<()> {
    let config = users_config(&of_user(environment, dialect))?;
    let configured =
        config.get("providers").and_then(Value::as_table).is_some_and(|p| !p.is_empty());
    let in_environment = ["KIMI_MODEL_", "KIMI_API_KEY", "KIMI_BASE_URL"];
    let told = environment.vars.iter().any(|(name, value)| {
        !value.is_empty() && in_environment.iter().any(|beginning| name.starts_with(beginning))
    });
    if configured || told || super::login::look(environment, dialect).is_seen() {
        return Ok(());
    }
    Err(Error::new(
        Kind::NotLoggedIn,
        format!("{dialect} has no login, no key and no provider"),
        Kind::NotLoggedIn.hint(),
    ))
}

#[cfg(test)]
mod tests {
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
        prepare(&load(environment, &[]).unwrap(), dialect).unwrap()
    }

    fn with_users(root: &Path, dialect: Dialect) {
        let user = root.join("home").join(dialect.home_folder());
        fs::create_dir_all(user.join("credentials")).unwrap();
        fs::create_dir_all(user.join("bin")).unwrap();
        fs::write(user.join("config.toml"), USERS).unwrap();
        fs::write(user.join("mcp.json"), "{}").unwrap();
        fs::write(user.join("device_id"), "d").unwrap();
        fs::write(user.join("credentials/kimi-code.json"), "token").unwrap();
    }

    fn check(dialect: Dialect, walls: &str) {
        let root = tempfile::tempdir().unwrap();
        with_users(root.path(), dialect);
        let home = prepared(root.path(), dialect);
        assert_eq!(home.keys, ["MY_KEY"]);
        let config: Table =
            fs::read_to_string(home.path.join("config.toml")).unwrap().parse().unwrap();
        let users: Table = USERS.parse().unwrap();
        let folder = root.path().join("config").display().to_string();
        let mut expected: Table = walls.replace("CONFIG", &folder).parse().unwrap();
        for carried in ["default_model", "providers", "models"] {
            expected.insert(carried.to_owned(), users[carried].clone());
        }
        assert_eq!(config, expected);
        let mut there: Vec<_> =
            fs::read_dir(&home.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        there.sort();
        assert_eq!(there, ["bin", "config.toml", "credentials", "device_id"]);
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
command = "'/b/kimi-bridge' 'guard' 'CONFIG'"
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
command = "'/b/kimi-bridge' 'guard' 'CONFIG'"
"#,
        );
    }

    #[test]
    fn a_login_that_comes_later_is_linked_and_one_that_moves_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let home = prepared(root.path(), Dialect::KimiCode);
        let link = home.path.join("credentials");
        assert!(!link.exists());
        with_users(root.path(), Dialect::KimiCode);
        prepared(root.path(), Dialect::KimiCode);
        assert!(link.join("kimi-code.json").exists());
        fs::remove_dir_all(root.path().join("home/.kimi-code")).unwrap();
        prepared(root.path(), Dialect::KimiCode);
        assert!(fs::symlink_metadata(&link).is_err(), "a link that leads nowhere stays");
    }

    #[test]
    fn what_could_run_is_removed_however_it_came_there() {
        let root = tempfile::tempdir().unwrap();
        let home = prepared(root.path(), Dialect::KimiCode).path;
        fs::write(home.join("mcp.json"), "{}").unwrap();
        fs::create_dir_all(home.join("plugins/evil")).unwrap();
        symlink("/tmp", home.join("skills")).unwrap();
        fs::create_dir(home.join("sessions")).unwrap();
        prepared(root.path(), Dialect::KimiCode);
        let mut there: Vec<_> =
            fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        there.sort();
        assert_eq!(there, ["config.toml", "sessions"]);
    }

    #[test]
    fn a_config_that_cannot_be_read_is_named() {
        let root = tempfile::tempdir().unwrap();
        let user = root.path().join("home/.kimi");
        fs::create_dir_all(&user).unwrap();
        fs::write(user.join("config.toml"), "= broken").unwrap();
        let error = users_config(&user).unwrap_err();
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
