//! `kimi-bridge`: a coding agent puts its proposal to Kimi and gets it challenged with evidence from the code.
//!
//! The rooms, and the calls between them. A room calls only the rooms below it; a test reads the sources to check this.
//!
//! ```text
//! commands ─► mcp ───► consult ─► job ─► kimi ─► sandbox
//!        ├──► hook ───┤   └───────────► ledger   redact · settings · workspace · documents · hidden · error
//!        ├──► doctor ─┤
//!        │       └────│───► hosts
//!        └──► setup ──┴───────┘
//! ```
//!
//! - [`commands`]: the shell commands, and the only room that prints.
//! - [`mcp`]: the server, and the only room that knows rmcp. It decides nothing.
//! - [`hook`]: the answers to the hooks of the Claude Code plugin. It changes nothing.
//! - [`doctor`]: the checks of an installation, judged from the facts of the rooms below.
//! - [`setup`]: registers this server in the files of hosts, and removes it from them.
//! - [`consult`]: roles, requests, prompts, answers and findings. It knows no command line.
//! - [`job`]: one prompt put to Kimi, and everything that the tools share: the project, secrets, citations, flags. It
//!   knows no role.
//! - [`kimi`]: both programs called `kimi`, and the reading of their stream. It knows no role.
//! - [`sandbox`]: the limits of Kimi's process, and the keeper that enforces them. It does not know Kimi.
//! - [`ledger`]: the SQLite file that remembers threads and runs. It has its own row types, and knows no finding.
//! - [`hosts`]: the registrations of this server with hosts. It starts nothing, and does not know Kimi.
//! - [`redact`]: the removal of secrets from texts.
//! - [`settings`]: everything that the user can configure, and the only reader of the environment.
//! - [`workspace`]: the changes of the project during a run.
//! - [`documents`]: parsers for the files of other programs, whose errors quote nothing.
//! - [`hidden`]: the removal of invisible characters.
//! - [`error`]: the one error.
//!
//! A call passes through these types, with one function for each arrow; `consult::consult` is that line:
//!
//! ```text
//! Request ─► Context ─► Redacted ─► Invocation ─► Event… ─► Reply ─► Answer ─► ConsultResult
//! ```

mod cli;
pub mod commands;
pub mod consult;
mod doctor;
mod documents;
mod error;
pub mod hidden;
mod hook;
mod hosts;
pub mod job;
pub mod kimi;
mod ledger;
mod mcp;
pub mod redact;
mod sandbox;
mod settings;
mod setup;
mod workspace;
