//! `kimi-bridge`: a coding agent puts its proposal before Kimi and gets it challenged from evidence
//! in the code.
//!
//! The rooms, and who may call whom (never upwards; a test reads the sources and says so):
//!
//! ```text
//! commands ─► mcp ───► consult ─► job ─► kimi ─► sandbox
//!        ├──► hook ───┤   └───────────► ledger   redact · settings · workspace · documents · hidden · error
//!        └──► doctor ─┘
//!                └──► hosts
//! ```
//!
//! - [`commands`]: the shell commands, and the only room that prints.
//! - [`mcp`]: the server, and the only room that knows rmcp. It decides nothing.
//! - [`hook`]: what the hooks of the Claude Code plugin show to the person and hold back. It changes nothing.
//! - [`doctor`]: what stands in the way of a consultation, judged from the facts of the rooms below.
//! - [`consult`]: roles, requests, prompts, answers and findings. No command-line argument.
//! - [`job`]: one question put to Kimi, and everything that the questions of all tools share: the project, secrets,
//!   citations, flags. No role.
//! - [`kimi`]: how to run both programs called `kimi`, and read their stream. No role.
//! - [`sandbox`]: what a program in Kimi's place may open, and who holds it to that. No Kimi.
//! - [`ledger`]: the SQLite file that remembers threads. Its own row types, no finding.
//! - [`hosts`]: where hosts register their servers. Starts nothing, and knows no Kimi.
//! - [`redact`]: what may leave the machine, and what of what came back may be told. [`settings`]:
//!   what a person can change, and the only reader of the environment. [`workspace`]: whether the
//!   project changed meanwhile. [`documents`]: other programs' files, read without repeating what they
//!   hold. [`hidden`]: characters that cannot be seen, taken out. [`error`]: the one error.
//!
//! A call passes through these types, one function an arrow; `consult::consult` is that line:
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
mod workspace;
