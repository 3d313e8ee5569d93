//! The changes of every host's file, planned from what the files hold.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::edit::{self, Place};
use super::entry::{self, Wanted};
use crate::documents;
use crate::hosts::{self, Host, Registration, Scope};
use crate::settings::{Environment, Loaded};

/// What to register, and where.
#[derive(Debug)]
pub(crate) struct SetupRequest {
    /// The hosts; empty for every one that is found.
    pub(crate) hosts: Vec<&'static Host>,
    pub(crate) scope: Scope,
    /// Lets the agent consult unasked.
    pub(crate) auto: bool,
    /// Takes the registration away instead.
    pub(crate) remove: bool,
}

/// What would change.
#[derive(Debug, Default)]
pub(crate) struct SetupPlan {
    pub(crate) edits: Vec<FileEdit>,
    /// The files that cannot be changed, and why.
    pub(crate) refused: Vec<(&'static Host, PathBuf, String)>,
    /// The hosts with the plugin, which brings the server along; a registration would hide it.
    pub(crate) with_plugin: Vec<&'static Host>,
    /// The hosts that were not named and not found.
    pub(crate) missing: Vec<&'static Host>,
}

/// The change of one host's file.
#[derive(Debug)]
pub(crate) struct FileEdit {
    pub(crate) host: &'static Host,
    pub(crate) file: PathBuf,
    /// `None`: there is no file.
    pub(crate) before: Option<String>,
    /// `None`: the file goes, because setup made it.
    pub(crate) after: Option<String>,
    pub(crate) backup: Backup,
    /// The arguments of the host's own command that makes the change; empty where the bridge writes the file.
    pub(crate) commands: Vec<Vec<String>>,
}

/// What happens to the copy of the file as it was before setup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backup {
    Write,
    /// There is one, from before the first change.
    Keep,
    /// The file is as its copy again.
    Remove,
}

impl FileEdit {
    pub(crate) fn changes(&self) -> bool {
        self.before != self.after
    }
}

/// Returns the file that keeps a host's file as it was before setup.
pub(super) fn backup_of(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".before-kimi-bridge");
    file.with_file_name(name)
}

/// Reads the files and plans their changes.
pub(crate) fn plan(request: &SetupRequest, loaded: &Loaded) -> SetupPlan {
    let environment = &loaded.environment;
    let mut plan = SetupPlan::default();
    for host in hosts::all() {
        let is_named = request.hosts.iter().any(|named| named.id == host.id);
        if !request.hosts.is_empty() && !is_named {
            continue;
        }
        if !is_named && !host.is_installed(environment) {
            plan.missing.push(host);
            continue;
        }
        let Some(file) = hosts::file(host, request.scope, environment) else { continue };
        match edit(host, &file, request, loaded) {
            Ok(Some(edit)) => plan.edits.push(edit),
            Ok(None) => plan.with_plugin.push(host),
            Err(why) => plan.refused.push((host, file, why)),
        }
    }
    plan
}

/// Plans the change of one file; `None` if the host has the plugin. Or returns what is in the way, in words that hold nothing of the file.
fn edit(
    host: &'static Host,
    file: &Path,
    request: &SetupRequest,
    loaded: &Loaded,
) -> Result<Option<FileEdit>, String> {
    let environment = &loaded.environment;
    if file.is_symlink() && !file.exists() {
        return Err("it is a link that leads nowhere".to_owned());
    }
    let before = read(file)?;
    let text = before.clone().unwrap_or_default();
    let value = documents::parse(&text, host.format)?;
    let ours = hosts::ours(host, &value, request.scope, environment);
    let place = |name: &str| Place {
        format: host.format,
        table: host.table(&value),
        name: name.to_owned(),
    };
    let backup = read(&backup_of(&target(file)))?;
    let mut edit = FileEdit {
        host,
        file: file.to_owned(),
        after: before.clone(),
        before,
        // One that is older than the entry tells how the file was before setup.
        backup: if request.remove || (backup.is_some() && !ours.is_empty()) {
            Backup::Keep
        } else {
            Backup::Write
        },
        commands: Vec::new(),
    };
    if request.remove {
        for one in ours {
            let place = place(&one.name);
            let left = edit.after.take().unwrap_or_default();
            let entry = &host.servers(&value)[&one.name];
            if edit::only_added(&left, backup.as_deref(), &place, entry) {
                (edit.after, edit.backup) = (backup, Backup::Remove);
                break;
            }
            edit.after = Some(edit::without_entry(&left, &place)?);
            edit.commands.push(claude_command(&["remove", &one.name, "-s", "user"]));
        }
    } else if request.scope == Scope::User
        && ours.is_empty()
        && hosts::has_plugin(host, &value, environment)
    {
        return Ok(None);
    } else {
        let known = ours.iter().find(|one| one.name == NAME).or(ours.first());
        let name = known.map_or(NAME, |one| one.name.as_str());
        let wanted = Wanted {
            program: program(request.scope, environment),
            auto: request.auto,
            longest_seconds: loaded.settings.timeout_seconds,
        };
        let old = &host.servers(&value)[name];
        let starts_this = known.is_some_and(|one| starts_this(one, environment));
        let entry = entry::merged(host, old, &wanted, known.is_some(), starts_this)
            .map_err(|why| format!("`{name}` in `{}` {why}", host.table(&value)))?;
        if entry != *old {
            edit.after = Some(edit::with_entry(&text, &place(name), &entry)?);
            // An entry that exists is changed in the file: its variables must be neither lost nor shown in a list of
            // processes.
            if known.is_none() {
                let entry = entry.to_string();
                edit.commands.push(claude_command(&["add-json", name, &entry, "-s", "user"]));
            }
        }
    }
    if host.by_project && request.scope == Scope::User {
        // Claude Code keeps backups of this file itself, and changes it too often for one of setup's to be restored.
        edit.backup = Backup::Keep;
    } else {
        edit.commands.clear();
    }
    Ok(Some(edit))
}

const NAME: &str = env!("CARGO_PKG_NAME");

/// Claude Code writes the user's file itself all the time, so its own command changes it.
fn claude_command(words: &[&str]) -> Vec<String> {
    std::iter::once("mcp").chain(words.iter().copied()).map(str::to_owned).collect()
}

/// The text of a file; `None` when there is no file.
pub(super) fn read(file: &Path) -> Result<Option<String>, String> {
    match documents::read(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// The file that a link leads to.
pub(super) fn target(file: &Path) -> PathBuf {
    file.canonicalize().unwrap_or_else(|_| file.to_owned())
}

/// The command of an entry. A file that a project shares names no folder of one machine, where PATH is enough; an editor
/// that was started from a desktop may have another PATH, so the user's own files name the whole path.
fn program(scope: Scope, environment: &Environment) -> String {
    let Some(this) = environment.program.as_deref().filter(|_| scope != Scope::Project) else {
        return NAME.to_owned();
    };
    let on_path = which::which_in(NAME, environment.var("PATH"), &environment.current_dir).ok();
    let same = on_path.filter(|found| target(found) == target(this));
    same.as_deref().unwrap_or(this).display().to_string()
}

/// Whether a registration starts this very program as a server.
fn starts_this(one: &Registration, environment: &Environment) -> bool {
    let Some(Ok(started)) = hosts::program(one, environment) else { return false };
    let is_this =
        environment.program.as_deref().is_some_and(|this| target(this) == target(&started));
    is_this && one.args.first().is_some_and(|first| first == "serve")
}
