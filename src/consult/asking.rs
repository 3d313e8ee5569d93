//! Redacted ─► Reply ─► `ConsultResult`: the prompts of one round, put to Kimi and answered.

use std::path::Path;

use super::prompt::{self, Asked};
use super::reading::{self, Reading};
use super::request::Context;
use super::result::{ConsultResult, Origin};
use super::role::RoleContext;
use super::round::OpenRound;
use crate::error::{Kind, Result};
use crate::kimi::{self, Program, Question, Reply, Watch};
use crate::redact::Secrets;
use crate::settings::Loaded;

const ASKED_AFRESH: &str = "Kimi's session could not be resumed: the round was asked afresh, with the history in the prompt";

const WENT_ON: &str = "Kimi went on in the session in which an earlier attempt was broken off: the evidence lists what \
                       it looked up since";

/// Asks Kimi what the round is about, in Kimi's own session where that can be resumed.
pub(super) async fn ask(
    round: &mut OpenRound<'_>,
    program: Option<Program>,
    watch: Watch<'_>,
) -> Result<ConsultResult> {
    let (loaded, secrets) = (round.loaded, round.secrets);
    let program = if let Some(program) = program {
        program
    } else {
        let program = kimi::program::find(loaded, &round.context.work_dir, watch).await?;
        kimi::home::expect_login(&loaded.environment, program.dialect)?;
        program
    };
    let work_dir = round.context.work_dir.clone();
    let exists =
        |session: &String| kimi::session::exists(loaded, program.dialect, &work_dir, session);
    let broken_off = round.broken_off(&program).filter(exists);
    let goes_on = broken_off.is_some();
    if goes_on {
        round.warn(WENT_ON);
    }
    let session = broken_off.or_else(|| round.session(&program).filter(exists));
    let history = if session.is_some() { None } else { round.history() };
    if history.is_some() && round.had_session() {
        round.warn(ASKED_AFRESH);
    }
    let transcript = round.transcript();
    if let Some(half) = transcript.as_ref().filter(|_| !goes_on) {
        // An attempt that was killed leaves a file that cannot be appended to.
        let _ = std::fs::remove_file(half);
    }
    let context = round.context.clone();
    let turns = Turns {
        loaded,
        program: &program,
        watch,
        context: &context,
        secrets,
        transcript: transcript.as_deref(),
    };
    let asked = round.asked(history);
    let question = if goes_on { prompt::GO_ON.to_owned() } else { prompt::prompt(&asked, loaded)? };
    let first = turns.answer(question, session.as_deref());
    let (answered, other) = match reversed(&asked, loaded) {
        // The same judge in another order, in a session of its own, at the same time.
        Some(context) => {
            let question = prompt::prompt(&Asked { context: &context, ..asked }, loaded)?;
            let again = Turns { transcript: None, ..turns }.answer(question, None);
            let (answered, other) = tokio::join!(first, again);
            (answered, Some(other))
        }
        None => (first.await, None),
    };
    let Answered { reply, reading } = match answered {
        // A session that Kimi cannot load is as good as none.
        Err(error) if session.is_some() && error.kind == Kind::Crashed && !error.has_arrived() => {
            round.warn(ASKED_AFRESH);
            let asked = round.asked(round.history());
            turns.answer(prompt::prompt(&asked, loaded)?, None).await?
        }
        answered => answered?,
    };
    let origin = Origin {
        redactions: round.redactions,
        secrets: secrets.clone(),
        first_finding: round.first_finding(),
        read_before: round.read_before(),
        context: context.clone(),
        program: program.clone(),
    };
    let mut result = ConsultResult::new(reply, reading, &origin);
    match other {
        Some(Ok(other)) => result.held_against(other.reading, secrets),
        Some(Err(error)) => result.warnings.push(format!(
            "the options were judged in one order only, since the other run failed: {}",
            secrets.redact(&error.message).as_str()
        )),
        None => {}
    }
    Ok(result)
}

/// The same request with the options reversed, for a judge that is to be asked in both orders.
fn reversed(asked: &Asked<'_>, loaded: &Loaded) -> Option<Context> {
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
struct Answered {
    reply: Reply,
    reading: Reading,
}

impl Turns<'_> {
    /// Asks, and once more in the same session when the answer cannot be read.
    async fn answer(self, prompt: String, session: Option<&str>) -> Result<Answered> {
        let turn = self.turn(&prompt, session).await?;
        let again = turn.reply.session_id.clone().or(session.map(str::to_owned));
        let (Err(why), Some(again), true) =
            (&turn.reading.answer, again, self.loaded.settings.repair)
        else {
            return Ok(turn);
        };
        let why: Vec<String> = why.iter().map(|violation| format!("- {violation}")).collect();
        match self.turn(&prompt::repair(&why.join("\n")), Some(&again)).await {
            Ok(repaired) if repaired.reading.answer.is_ok() => {
                Ok(Answered { reply: turn.reply.repaired(repaired.reply), ..repaired })
            }
            // What came first is worth more than nothing.
            Ok(_) | Err(_) => Ok(turn),
        }
    }

    /// One turn, read.
    async fn turn(self, prompt: &str, session: Option<&str>) -> Result<Answered> {
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
        let reading = reading::read(&reply.text, self.context.about.role());
        Ok(Answered { reply, reading })
    }
}
