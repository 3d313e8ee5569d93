//! The beginning of a round: a request opens a thread, continues one, or is refused.

use std::path::Path;

use serde_json::{Value, json};

use super::{Next, OpenRound, repeated};
use crate::consult::record::Record;
use crate::consult::request::{Context, Continuation, PriorExchange, Request};
use crate::consult::result::ConsultResult;
use crate::consult::role::Role;
use crate::consult::standing::{locked, round_error, standing, unreadable};
use crate::consult::thread::{Adjudication, Round, State, Step, Thread};
use crate::error::{Error, Result, Violation};
use crate::hidden;
use crate::job::place;
use crate::kimi::text::first_chars;
use crate::ledger::{Ledger, RoundRow, ThreadRow, now, random_id};
use crate::redact::Secrets;
use crate::settings::Config;

/// The most characters of a finding that a refusal repeats.
const CLAIM: usize = 200;

/// Checks a request and opens its round.
pub(crate) fn open<'a>(
    request: Request,
    config: &'a Config,
    secrets: &'a Secrets,
) -> Result<Next<'a>> {
    let initiated_by = request.0.get("initiated_by").cloned().unwrap_or_default();
    match Continuation::check(&request)? {
        Some(continuation) => continue_thread(continuation, config, secrets),
        None => start(Context::check(request, config)?, &initiated_by, config, secrets),
    }
}

/// Opens a thread with its first round, or with rounds that only the caller knows.
fn start<'a>(
    context: Context,
    initiated_by: &Value,
    config: &'a Config,
    secrets: &'a Secrets,
) -> Result<Next<'a>> {
    let words = json!([context.message, context.about, context.prior_exchange]);
    let (context, redactions) = context.without_secrets(secrets)?;
    let mut thread = Thread::open();
    if let Some(prior) = &context.prior_exchange {
        thread = known_to_caller(prior);
        match thread.adjudicate(&prior.adjudications).map_err(|why| refused(why, ""))? {
            Step::Ask(_) => {}
            Step::Settled | Step::Contested(_) => {
                return Err(round_error(
                    "there is nothing to ask Kimi: nothing is rejected, or it has had its say",
                    "Carry on with your decision.",
                ));
            }
        }
    }
    let mut warnings = Vec::from_iter(hidden::request_warning(&words));
    let ledger = Ledger::open(config.state_dir())
        .map_err(|error| warnings.push(format!("this thread is not remembered: {}", error.message)))
        .ok();
    let row = ThreadRow {
        id: random_id()?,
        role: context.about.role().name().to_owned(),
        project: context.work_dir.display().to_string(),
        request: saved_request(&context, initiated_by),
        opened_at: now(),
        ..ThreadRow::default()
    };
    let mut round = OpenRound {
        context,
        secrets,
        redactions,
        config,
        round: RoundRow { number: thread.round(), opened_at: row.opened_at, ..RoundRow::default() },
        thread,
        record: None,
        _lock: ledger.as_ref().and_then(|ledger| ledger.lock(&row.id).ok().flatten()),
        row,
        ledger,
        warnings,
    };
    if let Err(error) = round.set_mark() {
        return Err(round.fail(error));
    }
    // Saved before Kimi starts, so that a crash leaves a round that can be asked again.
    if let Err(error) = round.save(None) {
        round.ledger = None;
        round.warn(format!("this thread is not remembered: {}", error.message));
    }
    Ok(Next::Ask(Box::new(round)))
}

/// Continues a thread: records the caller's answers, and opens the next round if there is one.
fn continue_thread<'a>(
    continuation: Continuation,
    config: &'a Config,
    secrets: &'a Secrets,
) -> Result<Next<'a>> {
    let id = &continuation.thread_id;
    let (ledger, lock) = locked(id, config, "another call")?;
    let Some((row, rounds)) = ledger.thread(id)? else {
        return Err(round_error(
            format!("there is no thread {id}"),
            "`kimi-bridge threads` lists them; without thread_id a new one is opened.",
        ));
    };
    let mut thread = Thread::from_row(&row)?;
    let record = Record::from_rows(&row, &rounds)?;
    let mut context = saved_context(&row)?;
    if row.request["initiated_by"] == "agent" {
        // The thread may have begun in auto mode, which can be switched off since.
        continuation.expect_allowed(config)?;
    }
    let repeated = repeated::warning(&continuation, &context, secrets, config);
    let remark = secrets.redact(continuation.message.as_deref().unwrap_or_default());
    // A repeated question of the first round is no remark.
    let has_remark = !["", context.message.trim()].contains(&remark.as_str().trim());
    let mut prior = json!(continuation.prior_exchange);
    let redactions = remark.count() + secrets.redact_all(&mut prior);
    let prior: Option<PriorExchange> = serde_json::from_value(prior).ok().flatten();
    let step = next_step(&mut thread, prior.as_ref(), &record)?;
    let asks = matches!(step, Step::Ask(_));
    if asks {
        expect_project(id, &context.work_dir, config)?;
    }
    context.language = continuation.language.or(context.language);
    context.timeout_seconds = continuation.timeout_seconds.or(context.timeout_seconds);
    // A round that is asked again without a new remark keeps its remark.
    if let Some(last) = thread.rounds.last_mut().filter(|_| asks && has_remark) {
        last.remark = remark.into_text();
    }
    let number = thread.round();
    let again = rounds.into_iter().find(|round| round.number == number);
    let mut round =
        again.unwrap_or_else(|| RoundRow { number, opened_at: now(), ..RoundRow::default() });
    if asks {
        // The result of an earlier attempt is kept until it is replaced.
        round.opened_at = now();
        round.closed_at = None;
    }
    let mut round = OpenRound {
        context,
        secrets,
        redactions,
        config,
        thread,
        row,
        round,
        record: Some(record),
        ledger: Some(ledger),
        warnings: Vec::from_iter(repeated),
        _lock: Some(lock),
    };
    if asks {
        // A prompt that is too long is refused before the answers are saved, so that shorter ones can follow.
        round.set_mark()?;
    }
    if let Err(error) = round.save(None) {
        round.warn(format!("this step is not remembered: {}", error.message));
    }
    Ok(if asks {
        Next::Ask(Box::new(round))
    } else {
        Next::Settled(Box::new(without_kimi(round)?))
    })
}

/// Applies the caller's answers, and returns the next step.
fn next_step(thread: &mut Thread, prior: Option<&PriorExchange>, record: &Record) -> Result<Step> {
    let state = thread.state();
    let answered = thread.round();
    let id = &record.id;
    let open = thread.open_findings().join(", ");
    let claims = claims(thread, record);
    match (state, prior) {
        (State::Unfinished, None) => Ok(Step::Ask(thread.disputed())),
        (State::Unfinished, Some(prior)) => thread.repeat(&prior.adjudications).map_err(|violations| Error {
            violations,
            ..round_error(
                format!("round {answered} of the thread {id} is unfinished: Kimi has not answered it"),
                "Call with thread_id alone to ask it again, or repeat the call that failed.",
            )
        }),
        (State::AwaitingAdjudication, None) => Err(round_error(
            format!("the thread {id} awaits your answer to {open}"),
            &format!(
                "Call with prior_exchange.adjudications: ADOPT or REJECT for each of them, a reason for every \
                 REJECT.{claims}"
            ),
        )),
        (State::AwaitingAdjudication, Some(prior)) => match prior.round {
            Some(round) if round != answered => Err(round_error(
                format!(
                    "round {round} is not the one to answer: the thread {id} is at round {answered}"
                ),
                &format!("Answer the open findings of the last round, and leave `round` out.{claims}"),
            )),
            _ => thread.adjudicate(&prior.adjudications).map_err(|why| refused(why, &claims)),
        },
        (State::Settled | State::Contested | State::Decided | State::GivenUp, _) => Err(round_error(
            format!("the thread {id} is {}: there is nothing more to ask Kimi", state.name()),
            match state {
                State::Decided | State::GivenUp => "Open a new thread with a changed proposal.",
                _ => "Record your decision with record_decision, or open a new thread with a changed proposal.",
            },
        )),
    }
}

/// The claims of the open findings, for a caller that does not remember them.
fn claims(thread: &Thread, record: &Record) -> String {
    let open = thread.open_findings().into_iter();
    let said =
        open.filter_map(|id| Some(format!("{id}: {}", first_chars(record.claim(id)?, CLAIM))));
    let said: Vec<String> = said.collect();
    if said.is_empty() { String::new() } else { format!(" Open are {}", said.join("; ")) }
}

/// Refuses a thread whose project was removed or replaced: Kimi could not start there or would read another folder, and
/// its session belongs to the old one.
fn expect_project(id: &str, project: &Path, config: &Config) -> Result<()> {
    place::expect_project(project, config).map_err(|why| {
        round_error(
            format!("the project of the thread {id} was {}: {why}", project.display()),
            "Move the project back and call again, or open a new thread where it is now. Your answers were not taken.",
        )
    })
}

/// The result of a call that ends the discussion without asking Kimi again.
fn without_kimi(round: OpenRound<'_>) -> Result<ConsultResult> {
    let standing = standing(&round.row.id, &round.thread);
    let contested = round.thread.contested();
    let results = round.record.iter().flat_map(Record::results);
    let Some(mut result) = results.clone().next_back().cloned() else {
        return Err(round_error(
            format!("the thread {} holds no answer of Kimi's", standing.id),
            "Record your decision with record_decision.",
        ));
    };
    let findings = results.flat_map(|result| &result.answer.findings);
    let findings = findings.filter(|finding| contested.contains(&finding.id)).cloned().collect();
    result.answer.findings = findings;
    result.answer.response = match standing.state {
        State::Contested => format!("Contested; you decide. {}", sides(&round, &contested)),
        _ => "Settled: nothing is left open, and Kimi was not asked again.".to_owned(),
    };
    result.answer.replies.retain(|reply| contested.contains(&reply.finding));
    result.evidence.clear();
    result.raw_response_preview.clear();
    result.warnings = round.warnings;
    result.provenance.elapsed_ms = 0;
    result.provenance.redactions = round.redactions as u64;
    result.thread = Some(standing);
    Ok(result)
}

/// The reasons of both sides for each contested finding.
fn sides(round: &OpenRound<'_>, contested: &[String]) -> String {
    let answers: Vec<&Adjudication> =
        round.thread.rounds.iter().rev().flat_map(|one| &one.adjudications).collect();
    let results = round.record.iter().flat_map(|record| record.results().rev());
    let replies: Vec<_> = results.flat_map(|result| &result.answer.replies).collect();
    let side = |finding: &String| {
        let yours = answers.iter().find(|answer| answer.finding == *finding);
        let yours = yours.map_or("", |answer| &answer.reasoning);
        let kimis = replies.iter().find(|reply| reply.finding == *finding);
        let kimis = kimis.map_or("it has not answered this rejection", |reply| &reply.because);
        format!("{finding}: you reject it ({yours}); Kimi maintains it ({kimis}).")
    };
    contested.iter().map(side).collect::<Vec<_>>().join(" ")
}

/// Builds a thread from the rounds that only the caller knows: all answered findings belong to the last one.
fn known_to_caller(prior: &PriorExchange) -> Thread {
    let ids = prior.adjudications.iter().map(|one| one.finding.clone()).collect();
    let answered = Round { answered: true, findings: ids, ..Round::default() };
    let before = usize::from(prior.round.unwrap_or(1).clamp(1, 3)) - 1;
    let earlier = std::iter::repeat_n(Round { answered: true, ..Round::default() }, before);
    Thread { rounds: earlier.chain([answered]).collect(), decided: false }
}

/// The parts of the first request that later rounds need.
fn saved_request(context: &Context, initiated_by: &Value) -> Value {
    json!({
        "initiated_by": initiated_by,
        "role": context.about.role(),
        "message": context.message,
        "context": context.about,
        "files": context.files,
        "language": context.language,
        "timeout_seconds": context.timeout_seconds,
        "prior_exchange": context.prior_exchange,
    })
}

fn saved_context(row: &ThreadRow) -> Result<Context> {
    let request = &row.request;
    let role: Role = serde_json::from_value(request["role"].clone())
        .map_err(|error| unreadable(&row.id, &error))?;
    let about = role
        .read_context(request["context"].clone())
        .map_err(|error| unreadable(&row.id, &error))?;
    Ok(Context {
        about,
        message: request["message"].as_str().unwrap_or_default().to_owned(),
        work_dir: row.project.clone().into(),
        files: serde_json::from_value(request["files"].clone()).unwrap_or_default(),
        language: request["language"].as_str().map(str::to_owned),
        timeout_seconds: request["timeout_seconds"].as_u64(),
        prior_exchange: serde_json::from_value(request["prior_exchange"].clone())
            .unwrap_or_default(),
    })
}

fn refused(violations: Vec<Violation>, claims: &str) -> Error {
    let hint = "Answer every open finding once, with a reason for every REJECT; nothing was taken.";
    Error { violations, ..round_error("the adjudications do not fit", &format!("{hint}{claims}")) }
}
