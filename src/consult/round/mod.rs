//! A round of a thread, from the request that opens it to the result or the error that closes it.
//!
//! The rules are in [`super::thread`], the memory is the ledger. An error of the ledger never fails a consultation: it
//! becomes a warning, and the thread is not saved.

mod close;
mod open;
mod repeated;

use std::fs::File;

use serde_json::{Value, json};

pub(crate) use self::close::{ask_again_hint, continue_hint};
pub(crate) use self::open::open;
use super::prompt::{self, Asked, Disputed};
use super::record::Record;
use super::request::Context;
use super::result::ConsultResult;
use super::thread::{Adjudication, Thread};
use crate::error::{Kind, Result};
use crate::kimi::evidence::shown::{self, Shown};
use crate::kimi::home::HomeKey;
use crate::kimi::{self, Dialect, Evidence};
use crate::ledger::{Ledger, RoundRow, RunRow, ThreadRow, now};
use crate::redact::Secrets;
use crate::settings::Config;

/// The order of the options for a judge; other roles have only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OptionOrder {
    Given,
    Reversed,
}

/// The next step after a request.
#[derive(Debug)]
pub(crate) enum Next<'a> {
    Ask(Box<OpenRound<'a>>),
    /// The adjudications end the discussion or leave it to the caller: Kimi is not asked again.
    Settled(Box<ConsultResult>),
}

#[derive(Debug)]
pub(crate) struct OpenRound<'a> {
    /// The proposal, redacted.
    pub context: Context,
    /// The rules for secrets in this call.
    pub secrets: &'a Secrets,
    /// The number of secrets that were replaced in this request.
    pub redactions: usize,
    pub config: &'a Config,
    thread: Thread,
    row: ThreadRow,
    round: RoundRow,
    /// The rounds before; `None` for a thread that this call opened.
    record: Option<Record>,
    /// `None` if the thread is not saved.
    ledger: Option<Ledger>,
    warnings: Vec<String>,
    /// Held until the call ends.
    _lock: Option<File>,
}

impl OpenRound<'_> {
    /// The question of this round; with the `history` for a session that does not hold it.
    pub(crate) fn asked<'a>(&'a self, context: &'a Context, history: Option<String>) -> Asked<'a> {
        let disputed = self.thread.disputed();
        Asked {
            context,
            round: self.round.number,
            disputed: disputed.iter().map(|rejection| self.dispute(rejection)).collect(),
            remark: self.remark(),
            history,
            mark: self.round.mark.as_deref().unwrap_or_default(),
        }
    }

    /// Gives the round its mark, and refuses a prompt that is too long.
    fn set_mark(&mut self) -> Result<()> {
        let earlier = self.round.mark.take();
        let mark = prompt::mark(&self.asked(&self.context, self.history()), earlier)?;
        self.round.mark = Some(mark);
        prompt::prompt(&self.asked(&self.context, None), self.config).map(drop)
    }

    /// A rejection with the claim of its finding, in its refined form.
    fn dispute(&self, rejection: &Adjudication) -> Disputed {
        let claim = self.record.as_ref().and_then(|record| record.claim(&rejection.finding));
        Disputed {
            finding: rejection.finding.clone(),
            claim: claim.unwrap_or_default().to_owned(),
            reasoning: rejection.reasoning.clone(),
        }
    }

    /// The caller's remark for this round.
    fn remark(&self) -> &str {
        self.thread.rounds.last().map_or("", |round| &round.remark)
    }

    /// The session of the earlier rounds, if it belongs to this dialect and still exists.
    pub(crate) fn session(&self, dialect: Dialect, order: OptionOrder) -> Option<String> {
        let same = self.row.dialect.as_deref() == Some(dialect.name()) && self.round.number > 1;
        let exists = |session: &&String| {
            let home = HomeKey::reader(dialect, &self.context.work_dir);
            kimi::session::exists(self.config, home, session)
        };
        self.session_in(order).filter(|_| same).filter(exists).cloned()
    }

    /// The session in which an earlier attempt at this question was interrupted. It must hold the whole, unchanged
    /// question.
    pub(crate) fn broken_off(&self, dialect: Dialect, order: OptionOrder) -> Option<String> {
        let partial = self.earlier_attempt().filter(|_| order == OptionOrder::Given)?;
        let session =
            partial["session_id"].as_str().filter(|_| partial["dialect"] == dialect.name())?;
        let was_asked = |history: Option<String>| {
            let question = prompt::prompt(&self.asked(&self.context, history), self.config);
            let home = HomeKey::reader(dialect, &self.context.work_dir);
            question.is_ok_and(|question| {
                let question = self.secrets.redact(&question);
                kimi::session::was_asked(self.config, home, session, question.as_str())
            })
        };
        // In rounds 2 and 3, a new session was asked with the history.
        let arrived =
            was_asked(None) || self.history().is_some_and(|history| was_asked(Some(history)));
        arrived.then(|| session.to_owned())
    }

    fn session_in(&self, order: OptionOrder) -> Option<&String> {
        match order {
            OptionOrder::Given => self.row.session_id.as_ref(),
            OptionOrder::Reversed => self.row.reversed_session_id.as_ref(),
        }
    }

    /// Sets the session of the judge that is asked in the other order.
    pub(crate) fn set_reversed_session(&mut self, session: Option<String>) {
        self.row.reversed_session_id =
            session.filter(|id| kimi::session::is_id(id)).or(self.row.reversed_session_id.take());
    }

    /// Returns whether the last attempt met a rate limit.
    pub(crate) fn was_limited(&self) -> bool {
        let error = self.round.error.as_ref();
        error.is_some_and(|error| error["error"]["kind"] == json!(Kind::RateLimited))
    }

    /// The partial result of an earlier attempt at this round.
    fn earlier_attempt(&self) -> Option<Value> {
        Some(self.round.error.as_ref()?["error"]["partial"].clone())
    }

    /// The round's part of a run's row; `None` if the thread is not saved.
    pub(crate) fn run_row(&self, order: OptionOrder) -> Option<RunRow> {
        self.ledger.as_ref()?;
        let role = &self.row.role;
        let request = match order {
            OptionOrder::Given => json!({"role": role}),
            OptionOrder::Reversed => json!({"role": role, "option_order": "reversed"}),
        };
        Some(RunRow {
            tool: "consult_kimi".to_owned(),
            thread_id: Some(self.row.id.clone()),
            round: Some(self.round.number),
            request,
            ..RunRow::default()
        })
    }

    /// Returns whether an earlier round of this thread had a session.
    pub(crate) fn had_session(&self, order: OptionOrder) -> bool {
        self.round.number > 1 && self.session_in(order).is_some()
    }

    /// Kimi's earlier answers as text, for a session that does not hold them.
    pub(crate) fn history(&self) -> Option<String> {
        if self.round.number == 1 {
            return None;
        }
        let prior =
            self.context.prior_exchange.as_ref().and_then(|prior| prior.kimi_response.clone());
        let later = self.record.as_ref().map(|record| answers_before(record, self.round.number));
        let said: Vec<String> =
            prior.into_iter().chain(later).filter(|said| !said.is_empty()).collect();
        Some(said.join("\n\n"))
    }

    pub(crate) fn first_finding(&self) -> usize {
        self.thread.next_finding()
    }

    /// The lines that Kimi's tools showed in earlier rounds and in an earlier attempt at this one.
    pub(crate) fn shown_before(&self) -> Shown {
        let results = self.record.iter().flat_map(Record::results);
        let attempt = self.earlier_attempt().map(|mut partial| partial["evidence"].take());
        let attempt: Vec<Evidence> =
            attempt.and_then(|calls| serde_json::from_value(calls).ok()).unwrap_or_default();
        let mut shown = Shown::new();
        for call in results.flat_map(|result| &result.evidence).chain(&attempt) {
            shown::extend(&mut shown, &call.shown);
        }
        shown
    }

    /// Adds a warning to the result.
    pub(crate) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Saves the round: open, so that it can be asked again after a crash, or with its result or error. Without a new
    /// result it keeps the old one.
    fn save(&mut self, result: Option<&ConsultResult>) -> Result<()> {
        self.thread.state().name().clone_into(&mut self.row.state);
        self.row.challenge = json!(self.thread);
        self.row.updated_at = now();
        if let Some(json) = result.and_then(|result| serde_json::to_string(result).ok()) {
            self.round.result = Some(json);
        }
        self.ledger.as_ref().map_or(Ok(()), |ledger| ledger.save(&self.row, Some(&self.round)))
    }
}

/// Kimi's answers before this round, as text.
fn answers_before(record: &Record, number: u8) -> String {
    let results = record
        .rounds
        .iter()
        .filter(|round| round.number < number)
        .filter_map(|round| round.result.as_ref().map(|result| (round, result)));
    let said = results.map(|(round, result)| {
        let said = json!({"response": result.answer.response, "findings": result.answer.findings, "replies": result.answer.replies});
        format!("Round {}:\n{said:#}", round.number)
    });
    said.collect::<Vec<_>>().join("\n\n")
}
