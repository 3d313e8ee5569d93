//! Context ─► `ConsultResult`: builds the prompts of one round, puts them to Kimi, and reads the answers.

use std::cell::Cell;

use super::judge::{self, in_one_order};
use super::prompt;
use super::reading::{self, Reading};
use super::request::Context;
use super::result::{ConsultResult, Origin};
use super::round::{OpenRound, OptionOrder};
use crate::error::{Error, Kind, Result};
use crate::job::{Answered, Brief, Job, ReadResult};
use crate::kimi::{Profile, Program};
use crate::ledger::RunRow;

const NEW_SESSION: &str = "Kimi's session could not be resumed: the round was asked in a new session, with the history in the prompt";

const SESSION_CONTINUED: &str = "Kimi went on in the session in which an earlier attempt was broken off: the evidence lists what \
                       it looked up since";

/// Asks Kimi the question of a round, in its own session if that can be resumed. A judge is asked in both orders at the
/// same time, each in its own session.
pub(super) async fn ask(
    round: &mut OpenRound<'_>,
    job: &Job<'_>,
    program: Option<Program>,
) -> Result<ConsultResult> {
    let program = match program {
        Some(program) => program,
        None => job.find_program().await?,
    };
    let origin = Origin {
        redactions: round.redactions,
        secrets: round.secrets.clone(),
        first_finding: round.first_finding(),
        shown_before: round.shown_before(),
        context: round.context.clone(),
        program: program.clone(),
    };
    let question = Question::new(round, &program, OptionOrder::Given, &origin.context)?;
    let first = question.ask(job, &program);
    let both = round.config.settings.judge_both_orders;
    let Some(context) = judge::reversed(&origin.context).filter(|_| both) else {
        let Answered { reply, reading } = first.await?;
        return Ok(ConsultResult::new(reply, reading, &origin, &|| job.is_over()));
    };
    let question = Question::new(round, &program, OptionOrder::Reversed, &context)?;
    let (first, other) = tokio::join!(first, question.ask(job, &program));
    if let Ok(Answered { reply, .. }) = &other {
        round.set_reversed_session(reply.session_id.clone());
    }
    let result = |Answered { reply, reading }, origin: &Origin| {
        ConsultResult::new(reply, reading, origin, &|| job.is_over())
    };
    let is_other = first.is_err();
    match (first, other) {
        (Ok(first), Ok(other)) => {
            let first = result(first, &origin);
            let first_finding = origin.first_finding + first.answer.findings.len();
            let other = result(other, &Origin { redactions: 0, first_finding, ..origin });
            Ok(judge::merged(first, other))
        }
        (Ok(answered), Err(error)) | (Err(error), Ok(answered)) => {
            let mut result = result(answered, &origin);
            if is_other {
                // The session of each order is saved separately.
                result.provenance.session_id = None;
            }
            let why = origin.secrets.redact(&error.message);
            result.warnings.push(in_one_order(&format!("the other run failed: {}", why.as_str())));
            Ok(result)
        }
        (Err(error), Err(_)) => Err(error),
    }
}

/// The prompt of a round in one order of the options, ready to be put to Kimi.
struct Question<'a> {
    context: &'a Context,
    prompt: String,
    /// The session to resume.
    session: Option<String>,
    /// The consultation's part of the run's row in the ledger.
    row: Option<RunRow>,
    /// The full prompt, for a new session; with the history it may be too long.
    full: Result<String>,
    /// True if the last attempt met a rate limit.
    was_limited: bool,
    warning: Option<&'static str>,
}

impl<'a> Question<'a> {
    fn new(
        round: &OpenRound<'_>,
        program: &Program,
        order: OptionOrder,
        context: &'a Context,
    ) -> Result<Question<'a>> {
        let was_limited = round.was_limited();
        let row = round.run_row(order);
        let full = prompt::prompt(&round.asked(context, round.history()), round.config);
        if let Some(session) = round.broken_off(program.dialect, order) {
            let (prompt, warning) = (prompt::GO_ON.to_owned(), Some(SESSION_CONTINUED));
            return Ok(Question {
                context,
                prompt,
                session: Some(session),
                row,
                full,
                was_limited,
                warning,
            });
        }
        let session = round.session(program.dialect, order);
        let (prompt, warning) = match &session {
            Some(_) => (prompt::prompt(&round.asked(context, None), round.config)?, None),
            None => (full.clone()?, round.had_session(order).then_some(NEW_SESSION)),
        };
        Ok(Question { context, prompt, session, row, full, was_limited, warning })
    }

    /// Asks Kimi, and again in a new session if the session is refused.
    async fn ask(self, job: &Job<'_>, program: &Program) -> Result<Answered<Reading>> {
        let about = &self.context.about;
        let named_before = Cell::new(0);
        let read = |text: &str| {
            let mut reading = judge::resolved(reading::read(text, about.role()), about);
            let before = named_before.replace(named_before.get().max(reading.findings));
            if reading.answer.is_ok() && reading.findings < before {
                let warning = format!(
                    "Kimi's first answer, which was not whole, named {before} findings; the second has {}",
                    reading.findings
                );
                reading.warnings.push(warning);
            }
            let lacks = reading.lacks().map(|why| {
                why.iter().map(|violation| format!("- {violation}")).collect::<Vec<_>>().join("\n")
            });
            let repair = lacks.map(|lacks| prompt::repair(&lacks));
            ReadResult { repair, is_readable: reading.answer.is_ok(), reading }
        };
        let resumes = self.session.is_some();
        let brief = Brief {
            program,
            profile: Profile::reader(),
            system_prompt: prompt::SYSTEM_PROMPT,
            read_from_file: prompt::READ_FROM_FILE,
            prompt: self.prompt,
            session: self.session,
            row: self.row,
            read: &read,
        };
        let (mut answered, warning) = match job.run(&brief).await {
            Err(error) if resumes && is_refusal(&error, self.was_limited) => {
                let brief = Brief { prompt: self.full?, session: None, ..brief };
                (job.run(&brief).await?, Some(NEW_SESSION))
            }
            answered => (answered?, self.warning),
        };
        answered.reply.warnings.extend(warning.map(str::to_owned));
        Ok(answered)
    }
}

/// Returns whether a failure may be due to the session. A request that the service refuses once in a session is refused
/// on every resume. A rate limit passes by itself, unless it occurs twice.
fn is_refusal(error: &Error, was_limited: bool) -> bool {
    let ended_by_bridge = matches!(
        error.kind,
        Kind::Cancelled | Kind::TimedOut | Kind::Stalled | Kind::TooMuchOutput
    );
    let not_started = matches!(
        error.kind,
        Kind::KimiMissing
            | Kind::KimiRetired
            | Kind::NotLoggedIn
            | Kind::Settings
            | Kind::Spawn
            | Kind::Sandbox
    );
    let may_pass = error.kind == Kind::RateLimited && !was_limited;
    !(error.has_arrived() || ended_by_bridge || not_started || may_pass)
}
