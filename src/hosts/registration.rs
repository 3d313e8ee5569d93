//! The registration of this server with a host.

use std::collections::BTreeMap;
use std::time::Duration;

/// For whom a server is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The user, in every project.
    User,
    /// The user, in this project.
    Local,
    /// Everybody who works on this project.
    Project,
    /// Those who have the plugin.
    Plugin,
}

impl Scope {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scope::User => "user",
            Scope::Local => "local",
            Scope::Project => "project",
            Scope::Plugin => "plugin",
        }
    }
}

/// How a host starts this server.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) name: String,
    pub(crate) scope: Scope,
    /// The program, as the file names it.
    pub(crate) program: String,
    pub(crate) args: Vec<String>,
    /// Its additional environment.
    pub(crate) env: BTreeMap<String, String>,
    /// The host's limit of a call; `None` if that is long enough.
    pub(crate) patience: Option<Duration>,
    /// Why the host does not start it, and how a person changes that.
    pub(crate) off: Option<Off>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Off {
    /// The entry itself says so.
    InItsEntry,
    /// Another list of the same file says so.
    InAList(&'static str),
    /// The user switched it off for this project, in Claude Code's `/mcp`.
    ForThisProject,
    /// The user refused a server of the project's own file.
    Refused,
    /// The user has not been asked about a server of the project's own file yet.
    Unapproved,
    /// The plugin that holds it is off.
    WithItsPlugin,
}
