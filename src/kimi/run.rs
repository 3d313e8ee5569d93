//! Runs one [`Invocation`] to its end: spawn, feed, read, watch the clock, and end the remaining processes.
//!
//! If a run ends early, the error keeps the output that had arrived.

use std::path::Path;

use super::child::Child;
use super::dialect::Dialect;
use super::invocation::Invocation;
use super::observe::observe;
use super::record::RunRecord;
use super::reply::{End, Limits, Reply, Watch};
use crate::error::{Error, Result};
use crate::redact::Secrets;

/// Runs an invocation to its end, and reads its stream into a reply. Writes all output, without secrets, to the
/// transcript if there is one.
pub(super) async fn run(
    invocation: &Invocation,
    dialect: Dialect,
    limits: &Limits,
    secrets: &Secrets,
    transcript: Option<&Path>,
    watch: Watch<'_>,
) -> Result<Reply> {
    let mut record = RunRecord::new(dialect, limits.line_bytes, secrets);
    if let Some(path) = transcript {
        record.keep_in(path, limits.transcript_bytes);
    }
    (watch.progress)(&record.progress(limits));
    let mut child = Child::start(invocation, limits.grace).await?;
    let end = observe(&mut child, invocation, limits, watch, &mut record).await;
    child.end().await;
    record.finish(watch.cancel).await;
    record.conclude(invocation, &end)
}

/// The output of a program that writes plain text, such as `kimi --version`.
pub(super) struct Printed {
    /// The end of standard output, then the end of standard error.
    pub(super) text: String,
    /// Set if the exit code was not 0, or a signal ended the program.
    pub(super) has_failed: bool,
}

/// Runs a program to its end, and returns the plain text that it writes.
pub(super) async fn text(
    invocation: &Invocation,
    limits: &Limits,
    watch: Watch<'_>,
) -> Result<Printed> {
    let mut record = RunRecord::new(Dialect::KimiCode, limits.line_bytes, &Secrets::default());
    let mut child = Child::start(invocation, limits.grace).await?;
    let end = observe(&mut child, invocation, limits, watch, &mut record).await;
    child.end().await;
    match end {
        End::Exited(status) => {
            Ok(Printed { text: record.into_text(), has_failed: !status.success() })
        }
        End::Closed => Ok(Printed { text: record.into_text(), has_failed: false }),
        End::Limit(kind, why) => Err(Error::from_kind(kind, why)),
    }
}
