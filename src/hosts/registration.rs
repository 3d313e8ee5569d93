//! The registration of this server with a host.

use std::collections::BTreeMap;
use std::time::Duration;

/// The users and projects that a registration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The user, in every project.
    User,
    /// The user, in this project.
    Local,
    /// Everyone who works on this project.
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

/// The command with which a host starts this server, and its limits.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) name: String,
    pub(crate) scope: Scope,
    /// The program, as the file names it.
    pub(crate) program: String,
    pub(crate) args: Vec<String>,
    /// The additional environment of the program.
    pub(crate) env: BTreeMap<String, String>,
    /// The host's time limit for a call; `None` if it is long enough.
    pub(crate) call_limit: Option<Duration>,
    /// The reason why the host does not start the server, which decides the remedy.
    pub(crate) off: Option<Off>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Off {
    /// The entry itself switches it off.
    InItsEntry,
    /// Another list of the same file switches it off.
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
