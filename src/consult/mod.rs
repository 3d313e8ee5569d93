//! Roles, requests, prompts, answers and findings: what a consultation is. This room knows no
//! command-line argument of Kimi's and no protocol.

pub mod answer;
mod asking;
pub mod citation;
pub mod decision;
pub mod export;
pub mod injection;
pub mod objects;
pub mod prompt;
pub mod proof;
pub mod reading;
pub mod record;
pub mod request;
pub mod result;
pub mod role;
pub mod round;
pub mod schema;
pub mod secrets;
pub mod standing;
mod texts;
pub mod thread;
mod violations;

pub use self::decision::record_decision;
pub use self::request::{Context, Request};
pub use self::result::ConsultResult;
pub use self::role::Role;

use std::fmt::Write as _;

use self::asking::ask;
use self::proof::Before;
use self::round::Next;
use crate::error::Result;
use crate::kimi::{Program, Watch, transcript};
use crate::settings::Loaded;

/// One consultation, from the request to the result. `program` is the Kimi to ask, unless it is the first
/// one found. Blocks on files and locks: a thread that serves others must not run it.
pub async fn consult(
    request: Request,
    loaded: &Loaded,
    program: Option<Program>,
    watch: Watch<'_>,
) -> Result<ConsultResult> {
    let secrets = secrets::in_force(loaded)?;
    let next = round::open(request, loaded, &secrets);
    let mut round = match next.map_err(|error| secrets.redact_error(error))? {
        Next::Ask(round) => round,
        Next::Settled(result) => return Ok(*result),
    };
    // Not awaited: old transcripts are removed beside the run.
    let (transcripts, days) =
        (round::transcripts(loaded.state_dir()), loaded.settings.transcript_days);
    drop(tokio::task::spawn_blocking(move || transcript::sweep(&transcripts, days)));
    let project = round.context.work_dir.clone();
    let before = Before::take(project, loaded.state_dir(), watch.cancel).await;
    let answered = ask(&mut round, program, watch).await;
    let changes = before.compare(watch.closing).await;
    match answered {
        Ok(mut result) => {
            result.provenance.workspace_changed = changes.workspace_changed();
            result.warnings.extend(changes.warnings());
            Ok(round.close(result))
        }
        Err(mut error) => {
            // A run that failed may have changed the project as well.
            if changes.workspace_changed() == Some(true) {
                let _ = write!(error.hint, " Note: {}.", changes.warnings().join("; "));
            }
            Err(round.fail(secrets.redact_error(error)))
        }
    }
}
