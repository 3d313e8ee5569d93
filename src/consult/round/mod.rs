//! A round of a thread, from the request that opens it to the result or the error that closes it.
//!
//! The rules are the thread's ([`super::thread`]), the memory is the ledger's. A ledger that fails
//! never fails a consultation: its error becomes a warning, and the thread is forgotten.

mod close;
mod open;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub(crate) use self::close::{asked_again_by, went_on_by};
pub(crate) use self::open::open;
use super::prompt::{Asked, Disputed};
use super::record::Record;
use super::request::Context;
use super::result::ConsultResult;
use super::thread::{Adjudication, Stance, Thread};
use crate::error::Result;
use crate::kimi::{Evidence, Program};
use crate::ledger::{Ledger, RoundRow, ThreadRow, now};
use crate::redact::Secrets;
use crate::settings::Loaded;

/// The folder of the transcripts in the state folder.
pub(crate) fn transcripts(state_dir: &Path) -> PathBuf {
    state_dir.join("transcripts")
}

/// What follows from a request.
#[derive(Debug)]
pub(crate) enum Next<'a> {
    Ask(Box<OpenRound<'a>>),
    /// The adjudications close the thread, or leave it to the caller: Kimi is not asked again.
    Settled(Box<ConsultResult>),
}

#[derive(Debug)]
pub(crate) struct OpenRound<'a> {
    /// The proposal, without secrets.
    pub context: Context,
    /// What is taken for a secret in this call.
    pub secrets: &'a Secrets,
    /// How many secrets were replaced in this request.
    pub redactions: usize,
    pub loaded: &'a Loaded,
    thread: Thread,
    row: ThreadRow,
    round: RoundRow,
    /// The rounds before; absent for a thread that this call opened.
    record: Option<Record>,
    /// Absent where nothing is remembered.
    ledger: Option<Ledger>,
    warnings: Vec<String>,
    /// Held until the call is over.
    _lock: Option<File>,
}

impl OpenRound<'_> {
    /// What to ask; with the `history` where Kimi does not remember it.
    pub(crate) fn asked(&self, history: Option<String>) -> Asked<'_> {
        let disputed = self.thread.disputed();
        Asked {
            context: &self.context,
            round: self.round.number,
            disputed: disputed.iter().map(|rejection| self.dispute(rejection)).collect(),
            remark: self.remark(),
            history,
        }
    }

    /// A rejection with what the finding says. A finding that Kimi refined is quoted in its new form.
    fn dispute(&self, rejection: &Adjudication) -> Disputed {
        let results = self.record.iter().flat_map(Record::results);
        let claim = results
            .clone()
            .flat_map(|result| &result.answer.findings)
            .find(|finding| finding.id == rejection.finding)
            .map(|finding| &finding.claim);
        let refined = results
            .flat_map(|result| &result.answer.replies)
            .rfind(|reply| reply.finding == rejection.finding && reply.stance == Stance::Refine);
        let claim = refined.map(|reply| &reply.because).or(claim);
        Disputed {
            finding: rejection.finding.clone(),
            claim: claim.cloned().unwrap_or_default(),
            reasoning: rejection.reasoning.clone(),
        }
    }

    /// What the caller added when it asked for this round.
    fn remark(&self) -> &str {
        self.thread.rounds.last().map_or("", |round| &round.remark)
    }

    /// The session to go on in, if this program is the one that remembers it.
    pub(crate) fn session(&self, program: &Program) -> Option<String> {
        let same = self.row.dialect.as_deref() == Some(program.dialect.name());
        self.row.session_id.clone().filter(|_| same && self.round.number > 1)
    }

    /// The session in which an earlier attempt at this very round was broken off, if this program is the
    /// one that remembers it. A caller who adds something has another question.
    pub(crate) fn broken_off(&self, program: &Program) -> Option<String> {
        let partial = self.earlier_attempt()?;
        let same = partial["dialect"] == program.dialect.name();
        let session =
            partial["session_id"].as_str().filter(|_| same && self.remark().is_empty())?;
        Some(session.to_owned())
    }

    /// What had arrived of an earlier attempt at this round.
    fn earlier_attempt(&self) -> Option<Value> {
        Some(self.round.error.as_ref()?["error"]["partial"].clone())
    }

    /// Where what Kimi writes in this round is kept; nowhere for a thread that is not remembered.
    pub(crate) fn transcript(&self) -> Option<PathBuf> {
        self.ledger.as_ref()?;
        let folder = transcripts(self.loaded.state_dir());
        Some(folder.join(format!("{}-{}.jsonl.gz", self.row.id, self.round.number)))
    }

    /// Whether Kimi once had a session for this thread.
    pub(crate) fn had_session(&self) -> bool {
        self.row.session_id.is_some()
    }

    /// Kimi's earlier answers in words, for a Kimi that does not remember them.
    pub(crate) fn history(&self) -> Option<String> {
        if self.round.number == 1 {
            return None;
        }
        let prior =
            self.context.prior_exchange.as_ref().and_then(|prior| prior.kimi_response.clone());
        Some(prior.unwrap_or_else(|| self.record.as_ref().map(said_before).unwrap_or_default()))
    }

    pub(crate) fn first_finding(&self) -> usize {
        self.thread.next_finding()
    }

    /// The files that Kimi read in earlier rounds.
    pub(crate) fn read_before(&self) -> BTreeSet<String> {
        let results = self.record.iter().flat_map(Record::results);
        let attempt = self.earlier_attempt().map(|mut partial| partial["evidence"].take());
        let attempt: Vec<Evidence> =
            attempt.and_then(|calls| serde_json::from_value(calls).ok()).unwrap_or_default();
        let calls = results.flat_map(|result| &result.evidence).chain(&attempt);
        let reads = calls.filter(|call| call.ok && call.tool == "ReadFile");
        reads.filter_map(|call| call.args.get("path")?.as_str().map(str::to_owned)).collect()
    }

    /// Adds something that the caller should know about this answer.
    pub(crate) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Saves the round as it is: open, so that it can be asked again after a crash, or with its result or
    /// error. Without a new result it keeps the one it has.
    fn save(&mut self, result: Option<&ConsultResult>) -> Result<()> {
        let has_words = |path: &PathBuf| path.metadata().is_ok_and(|there| there.len() > 0);
        let transcript = self.transcript().filter(has_words);
        self.round.transcript = transcript.map(|path| path.display().to_string());
        self.thread.state().name().clone_into(&mut self.row.state);
        self.row.challenge = json!(self.thread);
        self.row.updated_at = now();
        if let Some(json) = result.and_then(|result| serde_json::to_string(result).ok()) {
            self.round.result = Some(json);
        }
        self.ledger.as_ref().map_or(Ok(()), |ledger| ledger.save(&self.row, Some(&self.round)))
    }
}

/// What Kimi said in earlier rounds, for one that does not remember.
fn said_before(record: &Record) -> String {
    let results = record
        .rounds
        .iter()
        .filter_map(|round| round.result.as_ref().map(|result| (round, result)));
    let said = results.map(|(round, result)| {
        let said = json!({"response": result.answer.response, "findings": result.answer.findings, "replies": result.answer.replies});
        format!("Round {}:\n{said:#}", round.number)
    });
    said.collect::<Vec<_>>().join("\n\n")
}
