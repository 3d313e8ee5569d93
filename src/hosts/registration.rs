//! The registration of this server with a host.

use std::collections::BTreeMap;
use std::time::Duration;

/// The users and projects for which a registration is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// This user, in every project.
    User,
    /// This user, in this project only.
    Local,
    /// Everyone who works on this project.
    Project,
    /// Every user who has the plugin.
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
    /// The host's time limit for a call; `None` if it has none, or one that is always long enough.
    pub(crate) call_limit: Option<Duration>,
    /// The reason why the host does not start the server; `None` if it does.
    pub(crate) off: Option<DisabledReason>,
}

/// The reason why a host does not start a registered server. Each has its own remedy.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DisabledReason {
    /// The entry itself switches the server off.
    InItsEntry,
    /// A list in the same file, named here by its keys, switches the server off.
    InAList(&'static str),
    /// The user switched the server off for this project, in Claude Code's `/mcp`.
    ForThisProject,
    /// The user refused a server of the project's own file.
    Refused,
    /// The user has not been asked about a server of the project's own file yet.
    Unapproved,
    /// The plugin that brings the server is off.
    WithItsPlugin,
}
