//! Roles, requests, prompts, answers and findings: what a consultation is. This room knows no
//! command-line argument of Kimi's and no protocol.

pub mod answer;
pub mod argument;
pub mod citation;
pub mod closing;
pub mod export;
pub mod injection;
pub mod objects;
pub mod opening;
pub mod prompt;
pub mod proof;
pub mod record;
pub mod request;
pub mod result;
pub mod role;
pub mod schema;
pub mod secrets;
pub mod thread;
mod violations;

pub use self::request::{Context, Request};
pub use self::result::ConsultResult;
pub use self::role::Role;

use std::fmt::Write as _;
use std::path::Path;

use self::answer::Reading;
use self::argument::{Argument, Opening};
use self::prompt::Asked;
use self::proof::Before;
use self::result::{Origin, Standing};
use self::role::RoleContext;
use crate::error::{Kind, Result};
use crate::kimi::{self, Program, Question, Reply, Watch, transcript};
use crate::redact::Secrets;
use crate::settings::Loaded;

/// One consultation, from what the caller sent to what it gets. `program` is the Kimi to ask, where
/// it is not the first one found. It reads and writes files in between: where somebody else is served by
/// the same thread, it belongs on another.
///
/// # Errors
/// The refusal of a request that does not fit, or why Kimi brought no answer.
pub async fn consult(
    request: Request,
    loaded: &Loaded,
    program: Option<Program>,
    watch: Watch<'_>,
) -> Result<ConsultResult> {
    let secrets = secrets::in_force(loaded)?;
    let opening = opening::begin(request, loaded, &secrets);
    let mut argument = match opening.map_err(|error| secrets.redact_error(error))? {
        Opening::Ask(argument) => argument,
        Opening::Done(result) => return Ok(*result),
    };
    // Not awaited: old transcripts are removed beside the run.
    let (transcripts, days) =
        (argument::transcripts(loaded.state_dir()), loaded.settings.transcript_days);
    drop(tokio::task::spawn_blocking(move || transcript::sweep(&transcripts, days)));
    let project = argument.context.work_dir.clone();
    let before = Before::take(project, loaded.state_dir(), watch.cancel).await;
    let answered = ask(&mut argument, loaded, program, watch).await;
    let changes = before.compare(watch.closing).await;
    match answered {
        Ok(mut result) => {
            result.provenance.workspace_changed = changes.workspace_changed();
            result.warnings.extend(changes.warnings());
            Ok(argument.close(result))
        }
        Err(mut error) => {
            // A run that failed may have changed the project as well.
            if changes.workspace_changed() == Some(true) {
                let _ = write!(error.hint, " Note: {}.", changes.warnings().join("; "));
            }
            Err(argument.fail(secrets.redact_error(error)))
        }
    }
}

/// Closes a thread with the caller's decision.
///
/// # Errors
/// [`Kind::Request`] when a field is missing, and what [`closing::decide`] refuses.
pub fn record_decision(request: &Request, loaded: &Loaded) -> Result<Standing> {
    let text = |name: &str| {
        let text = request
            .0
            .get(name)
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default()
            .trim()
            .to_owned();
        if text.is_empty() { Err(closing::missing(name)) } else { Ok(text) }
    };
    let secrets = secrets::in_force(loaded)?;
    let standing = match (text("thread_id"), text("decision"), text("rationale")) {
        (Ok(thread), Ok(decision), Ok(rationale)) => {
            closing::decide(&thread, &decision, &rationale, loaded, &secrets)
        }
        (thread, decision, rationale) => {
            let missing = [thread.err(), decision.err(), rationale.err()];
            Err(closing::undecided(missing.into_iter().flatten().collect()))
        }
    };
    standing.map_err(|error| secrets.redact_error(error))
}

const ASKED_AFRESH: &str = "Kimi's session could not be resumed: the round was asked afresh, with the history in the prompt";

const WENT_ON: &str = "Kimi went on in the session in which an earlier attempt was broken off: the evidence lists what \
                       it looked up since";

/// Asks Kimi what the argument is about now, in Kimi's own session where that can be resumed.
async fn ask(
    argument: &mut Argument,
    loaded: &Loaded,
    program: Option<Program>,
    watch: Watch<'_>,
) -> Result<ConsultResult> {
    let program = if let Some(program) = program {
        program
    } else {
        let program = kimi::program::find(loaded, watch).await?;
        kimi::home::expect_login(&loaded.environment, program.dialect)?;
        program
    };
    let exists = |session: &String| kimi::session::exists(loaded, program.dialect, session);
    let broken_off = argument.broken_off(&program).filter(exists);
    let remembered = argument.session(&program).map(str::to_owned).filter(exists);
    let goes_on = broken_off.is_some();
    if goes_on {
        argument.warn(WENT_ON);
    }
    let session = broken_off.or(remembered);
    let history = if session.is_some() { None } else { argument.history() };
    if history.is_some() && argument.had_session() {
        argument.warn(ASKED_AFRESH);
    }
    let context = argument.context.clone();
    let secrets = argument.secrets.clone();
    let asked = argument.asked(history.as_deref());
    let transcript = argument.transcript();
    if let Some(half) = transcript.as_ref().filter(|_| !goes_on) {
        // What an attempt left that was killed half-way cannot be gone on with.
        let _ = std::fs::remove_file(half);
    }
    let turns = Turns {
        loaded,
        program: &program,
        watch,
        context: &context,
        secrets: &secrets,
        transcript: transcript.as_deref(),
    };
    let question = if goes_on { prompt::GO_ON.to_owned() } else { prompt::prompt(asked, loaded)? };
    let first = turns.answer(question, session.as_deref());
    let reversed = both_orders(asked, loaded);
    let (turn, other) = match &reversed {
        // The same judge in another order, in a session of its own, at the same time.
        Some(context) => {
            let aside = Turns { transcript: None, ..turns };
            let again = aside.answer(prompt::prompt(Asked { context, ..asked }, loaded)?, None);
            let (turn, other) = tokio::join!(first, again);
            (turn, Some(other))
        }
        None => (first.await, None),
    };
    let turn = match turn {
        // A session that Kimi cannot load is as good as none.
        Err(error) if session.is_some() && error.kind == Kind::Crashed && !error.has_arrived() => {
            argument.warn(ASKED_AFRESH);
            let history = argument.history();
            turns.answer(prompt::prompt(argument.asked(history.as_deref()), loaded)?, None).await?
        }
        turn => turn?,
    };
    let Turn { reply, reading } = turn;
    let origin = Origin {
        redactions: argument.redactions,
        secrets: secrets.clone(),
        first_finding: argument.first_finding(),
        read_before: argument.read_before(),
        context,
        program: program.clone(),
    };
    let mut result = ConsultResult::new(reply, reading, &origin);
    match other {
        Some(Ok(turn)) => result.held_against(turn.reading, &secrets),
        Some(Err(error)) => result.warnings.push(format!(
            "the options were judged in one order only, since the other run failed: {}",
            secrets.redact(&error.message).as_str()
        )),
        None => {}
    }
    Ok(result)
}

/// The same request with the options reversed, for a judge that is to be asked in both orders.
fn both_orders(asked: Asked<'_>, loaded: &Loaded) -> Option<Context> {
    let RoleContext::Judge(judge) = &asked.context.about else { return None };
    if !loaded.settings.judge_both_orders || asked.round > 1 {
        return None;
    }
    let mut judge = judge.clone();
    judge.options.reverse();
    Some(Context { about: RoleContext::Judge(judge), ..asked.context.clone() })
}

/// How a prompt becomes a reply that can be read, as far as Kimi can be brought to it.
#[derive(Clone, Copy)]
struct Turns<'a> {
    loaded: &'a Loaded,
    program: &'a Program,
    watch: Watch<'a>,
    context: &'a Context,
    secrets: &'a Secrets,
    /// Where what Kimi writes is kept.
    transcript: Option<&'a Path>,
}

/// A turn that is over.
struct Turn {
    reply: Reply,
    reading: Reading,
}

impl Turns<'_> {
    /// Asks, and once more in the same session when the answer cannot be read.
    async fn answer(self, prompt: String, session: Option<&str>) -> Result<Turn> {
        let turn = self.turn(&prompt, session).await?;
        let again = turn.reply.session_id.clone().or(session.map(str::to_owned));
        let (Err(why), Some(again), true) =
            (&turn.reading.answer, again, self.loaded.settings.repair)
        else {
            return Ok(turn);
        };
        let why: Vec<String> = why.iter().map(|violation| format!("- {violation}")).collect();
        match self.turn(&prompt::repair(&why.join("\n")), Some(&again)).await {
            Ok(mended) if mended.reading.answer.is_ok() => {
                Ok(Turn { reply: turn.reply.mended(mended.reply), ..mended })
            }
            // What came first is worth more than nothing.
            Ok(_) | Err(_) => Ok(turn),
        }
    }

    /// One turn, read.
    async fn turn(self, prompt: &str, session: Option<&str>) -> Result<Turn> {
        let prompt = self.secrets.redact(prompt);
        let question = Question {
            system_prompt: prompt::SYSTEM_PROMPT,
            prompt: &prompt,
            secrets: self.secrets,
            read_from_file: prompt::READ_FROM_FILE,
            work_dir: &self.context.work_dir,
            resume: session,
            timeout_seconds: self.context.timeout_seconds,
            transcript: self.transcript,
        };
        let reply = kimi::ask(self.loaded, self.program, question, self.watch).await?;
        let reading = answer::read(&reply.text, self.context.about.role());
        Ok(Turn { reply, reading })
    }
}
