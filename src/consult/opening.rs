//! How a call enters a thread: it opens one, goes on with one, or is told why it cannot.

use serde_json::{Value, json};

use super::argument::{Argument, Opening};
use super::closing::{round_error, standing, unreadable};
use super::prompt::Disputed;
use super::record::Record;
use super::request::{Context, Continuation, PriorExchange, Request};
use super::result::ConsultResult;
use super::thread::{Adjudication, Round, Stance, State, Step, Thread};
use crate::error::{Error, Kind, Result, Violation};
use crate::ledger::{Ledger, RoundRow, ThreadRow, now};
use crate::redact::Secrets;
use crate::settings::Loaded;

/// Checks a request and opens its round.
///
/// # Errors
/// [`Kind::Request`] when it does not fit, [`Kind::Round`] when its thread stands elsewhere,
/// [`Kind::Ledger`] when a thread is named and cannot be looked up.
pub fn begin(request: Request, loaded: &Loaded, secrets: &Secrets) -> Result<Opening> {
    match Continuation::check(&request, loaded)? {
        Some(continuation) => go_on(continuation, loaded, secrets),
        None => start(Context::check(request, loaded)?, loaded, secrets),
    }
}

/// Opens a thread with its first round, or with the rounds that only the caller remembers.
fn start(context: Context, loaded: &Loaded, secrets: &Secrets) -> Result<Opening> {
    let (context, redactions) = context.without_secrets(secrets)?;
    let mut thread = Thread::open();
    let mut disputed = Vec::new();
    if let Some(prior) = &context.prior_exchange {
        thread = told(prior);
        match thread.adjudicate(&prior.adjudications).map_err(refused)? {
            Step::Ask(rejected) => {
                disputed = rejected.iter().map(|one| dispute(one, None)).collect();
            }
            Step::Settled | Step::Contested(_) => {
                return Err(Error::new(
                    Kind::Round,
                    "there is nothing to ask Kimi: nothing is rejected, or it has had its say",
                    "Carry on with your decision.",
                ));
            }
        }
    }
    let mut warnings = Vec::new();
    let ledger = Ledger::open(loaded.state_dir())
        .map_err(|error| warnings.push(format!("this thread is not remembered: {}", error.message)))
        .ok();
    let at = now();
    let row = ThreadRow {
        id: random_id()?,
        role: context.about.role().name().to_owned(),
        project: context.work_dir.display().to_string(),
        request: request_of(&context),
        opened_at: at,
        ..ThreadRow::default()
    };
    let number = u8::try_from(thread.rounds.len()).unwrap_or(1);
    let round = RoundRow { number, opened_at: at, ..RoundRow::default() };
    let lock = ledger.as_ref().and_then(|ledger| ledger.lock(&row.id).ok().flatten());
    let mut argument = Argument {
        context,
        secrets: secrets.clone(),
        redactions,
        thread,
        row,
        round,
        record: None,
        remark: String::new(),
        disputed,
        ledger,
        warnings,
        state_dir: loaded.state_dir().to_owned(),
        lock,
    };
    // Before Kimi starts, so that a crash leaves a round that can be asked again.
    if let Err(error) = argument.save(None) {
        argument.ledger = None;
        argument.warn(format!("this thread is not remembered: {}", error.message));
    }
    Ok(Opening::Ask(Box::new(argument)))
}

/// Goes on with a thread: takes the caller's answers, and opens the next round if there is one.
fn go_on(continuation: Continuation, loaded: &Loaded, secrets: &Secrets) -> Result<Opening> {
    let id = &continuation.thread_id;
    let ledger = Ledger::open(loaded.state_dir())?;
    let Some(lock) = ledger.lock(id)? else {
        return Err(round_error(
            format!("the thread {id} is busy: another call is working on it"),
            "Wait for that call to end, then call again.",
        ));
    };
    let Some((row, rounds)) = ledger.thread(id)? else {
        return Err(round_error(
            format!("there is no thread {id}"),
            "`kimi-bridge threads` lists them; without thread_id a new one is opened.",
        ));
    };
    let mut thread: Thread =
        serde_json::from_value(row.challenge.clone()).map_err(|error| unreadable(id, &error))?;
    let record = Record::of(&row, &rounds)?;
    let mut context = context_of(&row)?;
    if let Some(role) = continuation.role.filter(|&role| role != context.about.role()) {
        return Err(round_error(
            format!("the thread {id} is one of the role {}, not {role}", context.about.role()),
            "Leave `role` out.",
        ));
    }
    let remark = secrets.redact(&continuation.message.unwrap_or_default());
    let mut prior = json!(continuation.prior_exchange);
    let redactions = remark.count() + secrets.redact_all(&mut prior);
    let prior: Option<PriorExchange> = serde_json::from_value(prior).ok().flatten();
    let step = next_step(&mut thread, prior.as_ref(), &record)?;
    context.language = continuation.language.or(context.language);
    context.timeout_seconds = continuation.timeout_seconds.or(context.timeout_seconds);
    context.max_result_chars =
        continuation.max_result_chars.unwrap_or(loaded.settings.max_result_chars);
    // A round that is asked again is asked with what was added to it then.
    let mut remark = remark.into_text();
    if let (Step::Ask(_), Some(last)) = (&step, thread.rounds.last_mut()) {
        if remark.is_empty() {
            remark.clone_from(&last.remark);
        }
        last.remark.clone_from(&remark);
    }
    let number = u8::try_from(thread.rounds.len()).unwrap_or(1);
    let disputed = thread.disputed().iter().map(|one| dispute(one, Some(&record))).collect();
    let again = rounds.into_iter().find(|round| round.number == number);
    let opened = RoundRow { number, opened_at: now(), ..RoundRow::default() };
    let mut argument = Argument {
        context,
        secrets: secrets.clone(),
        redactions,
        thread,
        row,
        // A round that settles nothing new keeps what it has.
        round: match step {
            // What an earlier attempt brought is kept until a better one comes.
            Step::Ask(_) => {
                RoundRow { opened_at: now(), closed_at: None, ..again.unwrap_or(opened) }
            }
            Step::Settled | Step::Contested(_) => again.unwrap_or(opened),
        },
        record: Some(record),
        remark,
        disputed,
        ledger: Some(ledger),
        warnings: Vec::new(),
        state_dir: loaded.state_dir().to_owned(),
        lock: Some(lock),
    };
    if let Step::Ask(_) = step {
        // Refused before anything is taken, so that a shorter reason can follow.
        super::prompt::prompt(argument.asked(None), loaded)?;
    }
    if let Err(error) = argument.save(None) {
        argument.warn(format!("this step is not remembered: {}", error.message));
    }
    Ok(match step {
        Step::Ask(_) => Opening::Ask(Box::new(argument)),
        Step::Settled | Step::Contested(_) => Opening::Done(Box::new(without_kimi(argument))),
    })
}

/// What the caller's answers, or their absence, lead to.
fn next_step(thread: &mut Thread, prior: Option<&PriorExchange>, record: &Record) -> Result<Step> {
    let state = thread.state();
    let answered = u8::try_from(thread.rounds.len()).unwrap_or(1);
    let id = &record.id;
    let open = thread.open_findings().join(", ");
    match (state, prior) {
        (State::Unfinished, None) => Ok(Step::Ask(thread.disputed())),
        (State::Unfinished, Some(_)) => Err(round_error(
            format!("round {answered} of the thread {id} is unfinished: Kimi has not answered it"),
            "Call with thread_id alone to ask it again.",
        )),
        (State::AwaitingAdjudication, None) => Err(round_error(
            format!("the thread {id} awaits your answer to {open}"),
            "Call with prior_exchange.adjudications: ADOPT or REJECT for each of them, a reason for every REJECT.",
        )),
        (State::AwaitingAdjudication, Some(prior)) => match prior.round {
            Some(round) if round != answered => Err(round_error(
                format!(
                    "round {round} is not the one to answer: the thread {id} is at round {answered}"
                ),
                "Answer the open findings of the last round, and leave `round` out.",
            )),
            _ => thread.adjudicate(&prior.adjudications).map_err(refused),
        },
        (State::Settled | State::Contested | State::Decided, _) => Err(round_error(
            format!("the thread {id} is {}: there is nothing more to ask Kimi", state.name()),
            "Record your decision with record_decision, or open a new thread with a changed proposal.",
        )),
    }
}

/// The result of a call that ends the argument without asking Kimi again.
fn without_kimi(argument: Argument) -> ConsultResult {
    let standing = standing(&argument.row.id, &argument.thread);
    let last = argument.record.as_ref().and_then(|record| record.results().next_back().cloned());
    let contested = argument.thread.contested();
    let all = argument.record.iter().flat_map(Record::results);
    let findings = all
        .flat_map(|result| &result.findings)
        .filter(|finding| contested.contains(&finding.id))
        .cloned();
    let findings: Vec<_> = findings.collect();
    let mut result = last.unwrap_or_else(ConsultResult::nothing);
    result.response = match standing.state {
        State::Contested => format!("Contested; you decide. {}", sides(&argument, &contested)),
        _ => "Settled: nothing is left open, and Kimi was not asked again.".to_owned(),
    };
    result.replies.retain(|reply| contested.contains(&reply.finding));
    result.findings = findings;
    result.evidence.clear();
    result.raw_response_preview.clear();
    result.warnings = argument.warnings;
    result.provenance.elapsed_ms = 0;
    result.provenance.redactions = argument.redactions as u64;
    result.thread = Some(standing);
    result.within(argument.context.max_result_chars)
}

/// Both sides of what is contested.
fn sides(argument: &Argument, contested: &[String]) -> String {
    let answers: Vec<&Adjudication> =
        argument.thread.rounds.iter().rev().flat_map(|round| &round.adjudications).collect();
    let results = argument.record.iter().flat_map(|record| record.results().rev());
    let replies: Vec<_> = results.flat_map(|result| &result.replies).collect();
    let side = |finding: &String| {
        let yours = answers.iter().find(|answer| answer.finding == *finding);
        let yours = yours.map_or("", |answer| &answer.reasoning);
        let kimis = replies.iter().find(|reply| reply.finding == *finding);
        let kimis = kimis.map_or("it has not answered this rejection", |reply| &reply.because);
        format!("{finding}: you reject it ({yours}); Kimi maintains it ({kimis}).")
    };
    contested.iter().map(side).collect::<Vec<_>>().join(" ")
}

/// The rounds that only the caller remembers: all that it answers counts as found in the last one.
fn told(prior: &PriorExchange) -> Thread {
    let ids = prior.adjudications.iter().map(|one| one.finding.clone()).collect();
    let answered = Round { answered: true, findings: ids, ..Round::default() };
    let before = usize::from(prior.round.unwrap_or(1).clamp(1, 3)) - 1;
    let earlier = std::iter::repeat_n(Round { answered: true, ..Round::default() }, before);
    Thread { rounds: earlier.chain([answered]).collect(), decided: false }
}

fn dispute(one: &Adjudication, record: Option<&Record>) -> Disputed {
    let results = record.into_iter().flat_map(Record::results);
    let claim = results
        .clone()
        .flat_map(|result| &result.findings)
        .find(|finding| finding.id == one.finding);
    // A finding that Kimi refined stands in its new form.
    let refined = results
        .flat_map(|result| &result.replies)
        .rfind(|reply| reply.finding == one.finding && reply.stance == Stance::Refine)
        .map(|reply| reply.because.clone());
    Disputed {
        finding: one.finding.clone(),
        claim: refined.or(claim.map(|finding| finding.claim.clone())).unwrap_or_default(),
        reasoning: one.reasoning.clone(),
    }
}

/// The request of the first round, as far as a later one needs it.
fn request_of(context: &Context) -> Value {
    json!({
        "role": context.about.role(),
        "message": context.message,
        "context": context.about,
        "files": context.files,
        "language": context.language,
        "timeout_seconds": context.timeout_seconds,
        "prior_exchange": context.prior_exchange,
    })
}

fn context_of(row: &ThreadRow) -> Result<Context> {
    let request = &row.request;
    let role: super::role::Role = serde_json::from_value(request["role"].clone())
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
        max_result_chars: usize::MAX,
        prior_exchange: serde_json::from_value(request["prior_exchange"].clone())
            .unwrap_or_default(),
    })
}

fn random_id() -> Result<String> {
    let mut bytes = [0_u8; 5];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::new(Kind::Spawn, format!("the system gives no randomness: {error}"), "Try again.")
    })?;
    Ok(super::prompt::hex(&bytes))
}

fn refused(violations: Vec<Violation>) -> Error {
    Error {
        violations,
        ..round_error(
            "the adjudications do not fit".to_owned(),
            "Answer every open finding once, with a reason for every REJECT; nothing was taken.",
        )
    }
}
