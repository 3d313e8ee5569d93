//! One call's part in a thread: what is asked now, in which session, and what is remembered of it.
//!
//! The rules are the thread's ([`super::thread`]), the memory is the ledger's. A ledger that fails
//! never fails a consultation: its error becomes a warning, and the thread is forgotten.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::assurance::assurances_in;
use super::prompt::{Asked, Disputed};
use super::record::Record;
use super::request::{Context, Continuation, PriorExchange, Request};
use super::result::{ConsultResult, Standing};
use super::thread::{Adjudication, Round, State, Step, Thread};
use crate::error::{Error, Kind, Result, Violation};
use crate::kimi::Program;
use crate::ledger::{Ledger, RoundRow, ThreadLock, ThreadRow, now};
use crate::redact::Redactor;
use crate::settings::Loaded;

/// What follows from a request.
#[derive(Debug)]
pub enum Opening {
    /// Kimi is asked.
    Ask(Box<Argument>),
    /// The adjudications close the thread, or leave it to the caller: Kimi is not asked again.
    Done(Box<ConsultResult>),
}

/// A round that is open.
#[derive(Debug)]
pub struct Argument {
    /// The proposal, without secrets.
    pub context: Context,
    /// How many secrets were replaced in this request.
    pub secrets: usize,
    thread: Thread,
    row: ThreadRow,
    round: RoundRow,
    record: Option<Record>,
    remark: String,
    disputed: Vec<Disputed>,
    ledger: Option<Ledger>,
    warnings: Vec<String>,
    #[expect(dead_code, reason = "held until the call is over, not read")]
    lock: Option<ThreadLock>,
}

impl Argument {
    /// Checks a request and opens its round.
    ///
    /// # Errors
    /// [`Kind::Request`] when it does not fit, [`Kind::Round`] when its thread stands elsewhere,
    /// [`Kind::Ledger`] when a thread is named and cannot be looked up.
    pub fn begin(request: Request, loaded: &Loaded) -> Result<Opening> {
        match Continuation::check(&request, loaded)? {
            Some(continuation) => go_on(continuation, loaded),
            None => start(Context::check(request, loaded)?, loaded),
        }
    }

    /// What to ask. `remembers` says whether Kimi's session can be resumed.
    #[must_use]
    pub fn asked<'a>(&'a self, history: Option<&'a str>) -> Asked<'a> {
        Asked {
            context: &self.context,
            round: self.round.number,
            disputed: &self.disputed,
            remark: &self.remark,
            history,
        }
    }

    /// The session to go on in, if this program is the one that remembers it.
    #[must_use]
    pub fn session(&self, program: &Program) -> Option<&str> {
        let same = self.row.dialect.as_deref() == Some(program.dialect.name());
        self.row.session_id.as_deref().filter(|_| same && self.round.number > 1)
    }

    /// Kimi's earlier answers in words, for a Kimi that does not remember them.
    #[must_use]
    pub fn history(&self) -> Option<String> {
        if self.round.number == 1 {
            return None;
        }
        let prior =
            self.context.prior_exchange.as_ref().and_then(|prior| prior.kimi_response.clone());
        Some(prior.unwrap_or_else(|| self.record.as_ref().map(said_before).unwrap_or_default()))
    }

    /// The number of the first new finding.
    #[must_use]
    pub fn first_finding(&self) -> usize {
        self.thread.next_finding()
    }

    /// The files that Kimi read in earlier rounds.
    #[must_use]
    pub fn read_before(&self) -> BTreeSet<String> {
        let results = self
            .record
            .iter()
            .flat_map(|record| &record.rounds)
            .filter_map(|round| round.result.as_ref());
        let calls = results
            .flat_map(|result| &result.evidence)
            .filter(|call| call.ok && call.tool == "ReadFile");
        calls.filter_map(|call| call.args.get("path")?.as_str().map(str::to_owned)).collect()
    }

    /// Adds something that the caller should know about this answer.
    pub fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Takes Kimi's answer into the thread and the ledger, and says where the argument stands.
    #[must_use]
    pub fn close(mut self, mut result: ConsultResult) -> ConsultResult {
        if result.parse_ok {
            let replies = result.replies.iter().map(super::result::Reply::rejoinder).collect();
            let disputed = self.thread.disputed();
            let silent = disputed
                .iter()
                .filter(|one| !result.replies.iter().any(|r| r.finding == one.finding));
            let silent: Vec<String> = silent.map(|one| one.finding.clone()).collect();
            if !silent.is_empty() {
                self.warn(format!(
                    "Kimi did not answer the rejection of {}: it counts as maintained",
                    silent.join(", ")
                ));
            }
            // The round is open, so the answer is taken.
            let _ = self.thread.answer(result.findings.len(), replies);
        }
        self.row.dialect = Some(result.provenance.dialect.name().to_owned());
        self.row.session_id.clone_from(&result.provenance.session_id);
        self.round.closed_at = result.parse_ok.then(now);
        result.warnings.append(&mut self.warnings);
        if self.ledger.is_some() {
            result.thread = Some(standing(&self.row.id, &self.thread));
        }
        self.round.result = stored(&result);
        if let Err(error) = self.save() {
            result.thread = None;
            result.warnings.push(format!("this thread is not remembered: {}", error.message));
        }
        result
    }

    /// Remembers why Kimi did not answer, so that the round can be asked again.
    pub fn fail(mut self, mut error: Error) -> Error {
        let nothing_ran = matches!(error.kind, Kind::KimiMissing | Kind::KimiRetired | Kind::Spawn);
        if nothing_ran && self.round.number == 1 {
            // Nothing came of it but a question that the caller still has.
            if let Some(ledger) = &mut self.ledger {
                let _ = ledger.delete(&self.row.id);
            }
            return error;
        }
        let mut report = error.report();
        Redactor::built_in().redact_all(&mut report);
        self.round.error = Some(report.to_string());
        if self.ledger.is_some() && self.save().is_ok() {
            let id = &self.row.id;
            let _ = write!(
                error.hint,
                " The thread {id} remembers the question: call with thread_id alone to ask it again."
            );
        }
        error
    }

    fn save(&mut self) -> Result<()> {
        self.thread.state().name().clone_into(&mut self.row.state);
        self.row.challenge = serde_json::to_string(&self.thread).unwrap_or_default();
        self.row.updated_at = now();
        let words = words(&self.row, self.record.as_ref(), &self.round);
        match &mut self.ledger {
            Some(ledger) => ledger.save(&self.row, Some(&self.round), &words),
            None => Ok(()),
        }
    }
}

/// Opens a thread with its first round, or with the rounds that only the caller remembers.
fn start(context: Context, loaded: &Loaded) -> Result<Opening> {
    let (context, secrets) = context.without_secrets(Redactor::built_in());
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
    let mut warnings = assured(&context);
    let ledger = Ledger::open(loaded.state_dir())
        .map_err(|error| warnings.push(format!("this thread is not remembered: {}", error.message)))
        .ok();
    let at = now();
    let row = ThreadRow {
        id: random_id()?,
        role: context.about.role().name().to_owned(),
        project: context.work_dir.display().to_string(),
        request: serde_json::to_string(&request_of(&context)).unwrap_or_default(),
        opened_at: at,
        ..ThreadRow::default()
    };
    let number = u8::try_from(thread.rounds.len()).unwrap_or(1);
    let round = RoundRow { number, opened_at: at, ..RoundRow::default() };
    let lock = ledger.as_ref().and_then(|ledger| ledger.lock(&row.id).ok().flatten());
    let mut argument = Argument {
        context,
        secrets,
        thread,
        row,
        round,
        record: None,
        remark: String::new(),
        disputed,
        ledger,
        warnings,
        lock,
    };
    // Before Kimi starts, so that a crash leaves a round that can be asked again.
    if let Err(error) = argument.save() {
        argument.ledger = None;
        argument.warn(format!("this thread is not remembered: {}", error.message));
    }
    Ok(Opening::Ask(Box::new(argument)))
}

/// What the caller is told of the assurances in its own words.
fn assured(context: &Context) -> Vec<String> {
    let found = assurances_in(&json!([context.message, context.about]).to_string());
    if found.is_empty() {
        return Vec::new();
    }
    let found: Vec<String> = found.into_iter().map(|words| format!("\"{words}\"")).collect();
    vec![format!("your request gives assurances, which are no evidence: {}", found.join(", "))]
}

/// Goes on with a thread: takes the caller's answers, and opens the next round if there is one.
fn go_on(continuation: Continuation, loaded: &Loaded) -> Result<Opening> {
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
        serde_json::from_str(&row.challenge).map_err(|error| unreadable(id, &error))?;
    let record = Record::of(&row, &rounds)?;
    let mut context = context_of(&row)?;
    if let Some(role) = continuation.role.filter(|&role| role != context.about.role()) {
        return Err(round_error(
            format!("the thread {id} is one of the role {}, not {role}", context.about.role()),
            "Leave `role` out.",
        ));
    }
    let mut secrets = 0;
    let mut remark = json!(continuation.message.unwrap_or_default());
    secrets += Redactor::built_in().redact_all(&mut remark);
    let mut prior = json!(continuation.prior_exchange);
    secrets += Redactor::built_in().redact_all(&mut prior);
    let prior: Option<PriorExchange> = serde_json::from_value(prior).ok().flatten();
    let step = next_step(&mut thread, prior.as_ref(), &record)?;
    context.language = continuation.language.or(context.language);
    context.timeout_seconds = continuation.timeout_seconds.or(context.timeout_seconds);
    context.max_result_chars =
        continuation.max_result_chars.unwrap_or(loaded.settings.max_result_chars);
    let number = u8::try_from(thread.rounds.len()).unwrap_or(1);
    let disputed = thread.disputed().iter().map(|one| dispute(one, Some(&record))).collect();
    let again = rounds.into_iter().find(|round| round.number == number);
    let opened = RoundRow { number, opened_at: now(), ..RoundRow::default() };
    let mut argument = Argument {
        context,
        secrets,
        thread,
        row,
        // A round that settles nothing new keeps what it has.
        round: match step {
            Step::Ask(_) => opened,
            Step::Settled | Step::Contested(_) => again.unwrap_or(opened),
        },
        record: Some(record),
        remark: remark.as_str().unwrap_or_default().to_owned(),
        disputed,
        ledger: Some(ledger),
        warnings: Vec::new(),
        lock: Some(lock),
    };
    argument.save()?;
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
    let last = argument
        .record
        .as_ref()
        .and_then(|record| record.rounds.iter().rev().find_map(|r| r.result.clone()));
    let contested = argument.thread.contested();
    let all = argument
        .record
        .iter()
        .flat_map(|record| &record.rounds)
        .filter_map(|round| round.result.as_ref());
    let findings = all
        .flat_map(|result| &result.findings)
        .filter(|finding| contested.contains(&finding.id))
        .cloned();
    let findings: Vec<_> = findings.collect();
    let mut result = last.unwrap_or_else(ConsultResult::nothing);
    result.response = match standing.state {
        State::Contested => format!(
            "Contested: {} is rejected by you and maintained by Kimi. Both sides are below; you decide.",
            contested.join(", ")
        ),
        _ => "Settled: nothing is left open, and Kimi was not asked again.".to_owned(),
    };
    result.replies.retain(|reply| contested.contains(&reply.finding));
    result.findings = findings;
    result.evidence.clear();
    result.raw_response_preview.clear();
    result.warnings = argument.warnings;
    result.provenance.elapsed_ms = 0;
    result.provenance.redactions = argument.secrets as u64;
    result.thread = Some(standing);
    result
}

/// Where a thread stands, and what its caller must do now.
#[must_use]
pub fn standing(id: &str, thread: &Thread) -> Standing {
    let open: Vec<String> = thread.open_findings().into_iter().map(str::to_owned).collect();
    let round = u8::try_from(thread.rounds.len()).unwrap_or(1);
    let state = thread.state();
    let next = match state {
        State::Unfinished => format!(
            "Kimi's answer to round {round} is missing: call consult_kimi with thread_id \"{id}\" alone to ask again."
        ),
        State::AwaitingAdjudication => format!(
            "Answer {}: call consult_kimi with thread_id \"{id}\" and prior_exchange.adjudications, ADOPT or REJECT \
             for each, a reason for every REJECT.",
            open.join(", ")
        ),
        State::Settled => format!(
            "Nothing is open: carry on, and record what you do with record_decision (thread_id \"{id}\")."
        ),
        State::Contested => format!(
            "{} is rejected by you and maintained by Kimi: weigh both sides, decide, and call record_decision with \
             thread_id \"{id}\".",
            thread.contested().join(", ")
        ),
        State::Decided => "The thread is closed.".to_owned(),
    };
    let open = if state == State::AwaitingAdjudication { open } else { Vec::new() };
    Standing { id: id.to_owned(), round, state, next, open }
}

/// Closes a thread with the caller's decision.
///
/// # Errors
/// [`Kind::Round`] when there is no such thread, it is busy or decided; [`Kind::Ledger`].
pub fn decide(id: &str, decision: &str, rationale: &str, loaded: &Loaded) -> Result<Standing> {
    let mut ledger = Ledger::open(loaded.state_dir())?;
    let Some(_lock) = ledger.lock(id)? else {
        return Err(round_error(
            format!("the thread {id} is busy"),
            "Wait for the other call to end.",
        ));
    };
    let Some((mut row, rounds)) = ledger.thread(id)? else {
        return Err(round_error(
            format!("there is no thread {id}"),
            "`kimi-bridge threads` lists them.",
        ));
    };
    let mut thread: Thread =
        serde_json::from_str(&row.challenge).map_err(|error| unreadable(id, &error))?;
    thread.decide().map_err(|violations| {
        let why =
            violations.first().map(|violation| violation.expected.clone()).unwrap_or_default();
        round_error(why, "A decided thread stays as it is; open a new one.")
    })?;
    let redactor = Redactor::built_in();
    let text = |text: &str| redactor.redact(text).as_str().to_owned();
    row.decision = Some((text(decision), text(rationale), now()));
    row.state = thread.state().name().to_owned();
    row.challenge = serde_json::to_string(&thread).unwrap_or_default();
    row.updated_at = now();
    let record = Record::of(&row, &rounds)?;
    let words = words(&row, Some(&record), &RoundRow::default());
    ledger.save(&row, None, &words)?;
    Ok(standing(id, &thread))
}

/// What a decision lacks.
#[must_use]
pub fn missing(field: &str) -> Violation {
    Violation {
        pointer: format!("/{field}"),
        expected: "required: a text that is not blank".to_owned(),
        did_you_mean: None,
    }
}

/// The refusal of a decision that lacks something.
#[must_use]
pub fn undecided(violations: Vec<Violation>) -> Error {
    Error {
        violations,
        ..Error::new(
            Kind::Request,
            "the decision is not complete",
            "Name the thread, what will be done, and why.",
        )
    }
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
    let results = record
        .into_iter()
        .flat_map(|record| &record.rounds)
        .filter_map(|round| round.result.as_ref());
    let claim =
        results.flat_map(|result| &result.findings).find(|finding| finding.id == one.finding);
    Disputed {
        finding: one.finding.clone(),
        claim: claim.map(|finding| finding.claim.clone()).unwrap_or_default(),
        reasoning: one.reasoning.clone(),
    }
}

/// What Kimi said in earlier rounds, for one that does not remember.
fn said_before(record: &Record) -> String {
    let results = record
        .rounds
        .iter()
        .filter_map(|round| round.result.as_ref().map(|result| (round, result)));
    let said = results.map(|(round, result)| {
        let said = json!({"response": result.response, "findings": result.findings, "replies": result.replies});
        format!("Round {}:\n{said:#}", round.number)
    });
    said.collect::<Vec<_>>().join("\n\n")
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
    })
}

fn context_of(row: &ThreadRow) -> Result<Context> {
    let request: Value =
        serde_json::from_str(&row.request).map_err(|error| unreadable(&row.id, &error))?;
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
        prior_exchange: None,
    })
}

/// A result as it is kept: without secrets that Kimi read.
fn stored(result: &ConsultResult) -> Option<String> {
    let mut value = serde_json::to_value(result).ok()?;
    Redactor::built_in().redact_all(&mut value);
    Some(value.to_string())
}

/// All that a thread says, for the search.
fn words(row: &ThreadRow, record: Option<&Record>, round: &RoundRow) -> String {
    let mut all = vec![json!(row.request), json!(round.result.as_deref().unwrap_or_default())];
    all.extend(record.map(|record| json!(record)));
    all.extend(row.decision.as_ref().map(|(decision, rationale, _)| json!([decision, rationale])));
    all.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
}

fn random_id() -> Result<String> {
    let mut bytes = [0_u8; 5];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::new(Kind::Spawn, format!("the system gives no randomness: {error}"), "Try again.")
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
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

fn round_error(message: String, hint: &str) -> Error {
    Error::new(Kind::Round, message, hint)
}

fn unreadable(id: &str, error: &serde_json::Error) -> Error {
    Error::new(
        Kind::Ledger,
        format!("what is remembered of the thread {id} cannot be read: {error}"),
        "Delete it with `kimi-bridge threads delete`, and open a new one.",
    )
}
