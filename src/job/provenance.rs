//! The origin of an answer, for the result of every tool.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kimi::{Dialect, Program, Reply, session};
use crate::sandbox::Sandbox;

/// The program, version and session that produced an answer, and the time that it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Provenance {
    /// `kimi-code` or `kimi-cli`
    pub dialect: Dialect,
    /// The CLI's version
    pub version: String,
    /// Kimi's session
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// What the kernel enforced besides the tool list; `none` when nothing
    pub sandbox: Sandbox,
    /// Whether files of the project changed while Kimi ran, by whomever; absent when that is not known
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_changed: Option<bool>,
    /// How long Kimi took, milliseconds
    pub elapsed_ms: u64,
    /// Secrets replaced in what was sent, and in what came back
    pub redactions: u64,
}

impl Provenance {
    /// The provenance of a reply. `redactions` counts the secrets that were replaced in the request.
    pub(crate) fn new(reply: &Reply, program: &Program, redactions: usize) -> Provenance {
        Provenance {
            dialect: program.dialect,
            version: program.version.clone(),
            session_id: reply.session_id.clone().filter(|id| session::is_id(id)),
            sandbox: reply.sandbox,
            workspace_changed: None,
            elapsed_ms: u64::try_from(reply.elapsed.as_millis()).unwrap_or(u64::MAX),
            redactions: (redactions + reply.seen.redactions) as u64,
        }
    }
}
