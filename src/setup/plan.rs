//! Plans the change of each host's file from its current text.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::edit::{self, Place};
use super::entry::{self, Wanted};
use crate::documents;
use crate::hosts::{self, Host, Registration, Scope};
use crate::settings::{Config, Environment};

/// The request of the user: the hosts and the scope to register this server in.
#[derive(Debug)]
pub(crate) struct SetupRequest {
    /// The hosts that the user named; empty for every installed one.
    pub(crate) hosts: Vec<&'static Host>,
    pub(crate) scope: Scope,
    /// True if the agent may consult Kimi without being asked.
    pub(crate) auto: bool,
    /// True if the registration is to be removed, not added.
    pub(crate) remove: bool,
}

/// The planned changes, and the hosts that get none.
#[derive(Debug, Default)]
pub(crate) struct SetupPlan {
    pub(crate) edits: Vec<FileEdit>,
    /// The files that cannot be changed, and why.
    pub(crate) refused: Vec<(&'static Host, PathBuf, String)>,
    /// The hosts with the plugin. It brings its own server, which a registration would hide.
    pub(crate) with_plugin: Vec<&'static Host>,
    /// The hosts that are not installed and that the user did not name.
    pub(crate) missing: Vec<&'static Host>,
}

/// The change of one host's file.
#[derive(Debug)]
pub(crate) struct FileEdit {
    pub(crate) host: &'static Host,
    pub(crate) file: PathBuf,
    /// The current text; `None` if there is no file.
    pub(crate) before: Option<String>,
    /// The new text; `None` removes the file, because setup created it.
    pub(crate) after: Option<String>,
    pub(crate) backup: Backup,
    /// The arguments of the host's own command that makes the change; empty where the bridge writes the file.
    pub(crate) commands: Vec<Vec<String>>,
}

/// The action on the backup, which is the file as it was before setup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backup {
    /// Writes the current text as the backup.
    Write,
    /// Leaves the backup as it is, or missing.
    Keep,
    /// Removes the backup, because the file is equal to it again.
    Remove,
}

impl FileEdit {
    pub(crate) fn changes(&self) -> bool {
        self.before != self.after
    }
}

/// Returns the path of the backup of a host's file.
pub(super) fn backup_of(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".before-kimi-bridge");
    file.with_file_name(name)
}

/// Reads the files and plans their changes.
pub(crate) fn plan(request: &SetupRequest, config: &Config) -> SetupPlan {
    let environment = &config.environment;
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
        match edit(host, &file, request, config) {
            Ok(Some(edit)) => plan.edits.push(edit),
            Ok(None) => plan.with_plugin.push(host),
            Err(why) => plan.refused.push((host, file, why)),
        }
    }
    plan
}

/// Plans the change of one file; `None` if the host has the plugin. Fails with the reason, which quotes no secret of
/// the file.
fn edit(
    host: &'static Host,
    file: &Path,
    request: &SetupRequest,
    config: &Config,
) -> Result<Option<FileEdit>, String> {
    let environment = &config.environment;
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
        // A backup that exists along with our entry is the file from before setup, so it is not overwritten.
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
            longest_seconds: config.settings.timeout_seconds,
        };
        let old = &host.servers(&value)[name];
        let starts_this = known.is_some_and(|one| starts_this(one, environment));
        let entry = entry::merged(host, old, &wanted, known.is_some(), starts_this)
            .map_err(|why| format!("`{name}` in `{}` {why}", host.table(&value)))?;
        if entry != *old {
            edit.after = Some(edit::with_entry(&text, &place(name), &entry)?);
            // An existing entry is changed in the file itself: as an argument of the command, its variables would show
            // in the process list.
            if known.is_none() {
                let entry = entry.to_string();
                edit.commands.push(claude_command(&["add-json", name, &entry, "-s", "user"]));
            }
        }
    }
    if host.by_project && request.scope == Scope::User {
        // Claude Code makes its own backups of this file, and changes it too often for a backup of setup's to be
        // useful.
        edit.backup = Backup::Keep;
    } else {
        edit.commands.clear();
    }
    Ok(Some(edit))
}

const NAME: &str = env!("CARGO_PKG_NAME");

/// Returns the arguments of Claude Code's own `mcp` command. Claude Code writes the user's file all the time, so setup
/// leaves that file to it.
fn claude_command(words: &[&str]) -> Vec<String> {
    std::iter::once("mcp").chain(words.iter().copied()).map(str::to_owned).collect()
}

/// Reads a text file; `None` if it does not exist.
pub(super) fn read(file: &Path) -> Result<Option<String>, String> {
    match documents::read(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Resolves links; a path that cannot be resolved is returned as it is.
pub(super) fn target(file: &Path) -> PathBuf {
    file.canonicalize().unwrap_or_else(|_| file.to_owned())
}

/// Returns the command of an entry. A project's file is shared between machines, so it gets the bare name. A user's
/// file gets the whole path, because an editor started from a desktop may have another PATH.
fn program(scope: Scope, environment: &Environment) -> String {
    let Some(this) = environment.program.as_deref().filter(|_| scope != Scope::Project) else {
        return NAME.to_owned();
    };
    let on_path = which::which_in(NAME, environment.var("PATH"), &environment.current_dir).ok();
    let same = on_path.filter(|found| target(found) == target(this));
    same.as_deref().unwrap_or(this).display().to_string()
}

/// Returns whether a registration starts this very program as a server.
fn starts_this(one: &Registration, environment: &Environment) -> bool {
    let Some(Ok(started)) = hosts::program(one, environment) else { return false };
    let is_this =
        environment.program.as_deref().is_some_and(|this| target(this) == target(&started));
    is_this && one.args.first().is_some_and(|first| first == "serve")
}
