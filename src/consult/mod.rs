//! Consultations: roles, requests, prompts, answers and findings. This room knows neither Kimi's command line nor a
//! protocol.

pub mod answer;
mod asking;
mod coerce;
pub(crate) mod decision;
pub(crate) mod export;
mod fact;
mod judge;
mod prompt;
pub mod reading;
pub(crate) mod record;
pub(crate) mod request;
pub(crate) mod result;
pub(crate) mod role;
pub(crate) mod round;
pub(crate) mod schema;
mod secrets;
mod slips;
mod standing;
mod sweep;
pub(crate) mod thread;
mod violations;

pub(crate) use self::decision::record_decision;
use self::request::Context;
pub(crate) use self::request::Request;
pub(crate) use self::result::ConsultResult;
pub use self::role::Role;

use std::fmt::Write as _;

use self::asking::ask;
use self::coerce::coerce;
use self::round::Next;
use crate::error::Result;
use crate::job::{self, Job};
use crate::kimi::{Program, Watch};
use crate::settings::Config;

/// Runs one consultation, from the request to the result. `program` is the Kimi to ask; by default, the first one
/// found. It blocks on files and locks, so it needs its own thread.
pub(crate) async fn consult(
    request: Request,
    config: &Config,
    program: Option<Program>,
    watch: Watch<'_>,
) -> Result<ConsultResult> {
    let secrets = job::secrets::load(config)?;
    let (request, coerced) = coerce(request);
    let next = round::open(request, config, &secrets);
    let mut round = match next.map_err(|error| secrets.redact_error(error))? {
        Next::Ask(round) => round,
        Next::Settled(mut result) => {
            result.warnings.extend(coerced);
            return Ok(*result);
        }
    };
    for warning in coerced {
        round.warn(warning);
    }
    let Context { work_dir, timeout_seconds, .. } = &round.context;
    sweep::begin(config, work_dir);
    let call = Job::begin(config, &secrets, work_dir, *timeout_seconds, watch).await;
    let answered = ask(&mut round, &call, program).await;
    let changes = call.end().await;
    match answered {
        Ok(mut result) => {
            result.provenance.workspace_changed = changes.workspace_changed();
            result.warnings.extend(changes.warnings());
            Ok(round.close(result))
        }
        Err(mut error) => {
            // A failed run may have changed the project as well.
            if changes.workspace_changed() == Some(true) {
                let _ = write!(error.hint, " Note: {}.", changes.warnings().join("; "));
            }
            Err(round.fail(secrets.redact_error(error)))
        }
    }
}
