//! Roles, requests, prompts, answers and findings: what a consultation is. This room knows no
//! command-line argument of Kimi's and no protocol.

pub mod answer;
pub mod citation;
pub mod objects;
pub mod prompt;
pub mod record;
pub mod request;
pub mod result;
pub mod role;
pub mod schema;
pub mod thread;

pub use self::request::{Context, Request};
pub use self::result::ConsultResult;
pub use self::role::Role;

use self::result::Origin;
use crate::error::{Error, Kind, Result};
use crate::kimi::{self, Program, Question, Watch};
use crate::redact::Redactor;
use crate::settings::Loaded;

/// One consultation, from what the caller sent to what it gets. `program` is the Kimi to ask, where
/// it is not the first one found.
///
/// # Errors
/// The refusal of a request that does not fit, or why Kimi brought no answer.
pub async fn consult(
    request: Request,
    loaded: &Loaded,
    program: Option<Program>,
    watch: Watch<'_>,
) -> Result<ConsultResult> {
    let redactor = Redactor::built_in();
    let (context, secrets) = Context::check(request, loaded)?.without_secrets(redactor);
    let prompt = redactor.redact(&prompt::prompt(&context, loaded)?);
    let program = match program {
        Some(program) => program,
        None => kimi::program::find(loaded, watch).await?,
    };
    let question = Question {
        system_prompt: prompt::SYSTEM_PROMPT,
        prompt: &prompt,
        read_from_file: prompt::READ_FROM_FILE,
        work_dir: &context.work_dir,
        resume: None,
        timeout_seconds: context.timeout_seconds,
    };
    let reply = kimi::ask(loaded, &program, question, watch).await.map_err(|mut error| {
        result::shorten_error(&mut error, context.max_result_chars);
        error
    })?;
    let origin = Origin { context, program, redactions: secrets + prompt.count() };
    // Checking reads files; the thread that speaks the protocol does not wait for a disk.
    let checked = tokio::task::spawn_blocking(move || ConsultResult::new(reply, &origin)).await;
    checked.map_err(|error| {
        Error::new(
            Kind::Crashed,
            format!("the answer could not be checked: {error}"),
            "Please report it.",
        )
    })
}
