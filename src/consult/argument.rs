//! One call's part in a thread: what is asked now, in which session, and what is remembered of it.
//!
//! The rules are the thread's ([`super::thread`]), the memory is the ledger's. A ledger that fails
//! never fails a consultation: its error becomes a warning, and the thread is forgotten.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::closing::{broken_off, standing};
use super::injection;
use super::prompt::{Asked, Disputed};
use super::record::Record;
use super::request::Context;
use super::result::{ConsultResult, is_session, shorten_error};
use super::thread::Thread;
use crate::error::{Error, Kind, Result};
use crate::kimi::text::first_chars;
use crate::kimi::{Evidence, Program};
use crate::ledger::{Ledger, RoundRow, ThreadRow, now};
use crate::redact::Secrets;

/// The folder of the transcripts in the state folder.
#[must_use]
pub fn transcripts(state_dir: &Path) -> PathBuf {
    state_dir.join("transcripts")
}

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
    /// What is taken for a secret in this call.
    pub secrets: Secrets,
    /// How many secrets were replaced in this request.
    pub redactions: usize,
    pub(super) thread: Thread,
    pub(super) row: ThreadRow,
    pub(super) round: RoundRow,
    pub(super) record: Option<Record>,
    pub(super) remark: String,
    pub(super) disputed: Vec<Disputed>,
    pub(super) ledger: Option<Ledger>,
    pub(super) warnings: Vec<String>,
    pub(super) state_dir: PathBuf,
    #[expect(dead_code, reason = "held until the call is over, not read")]
    pub(super) lock: Option<File>,
}

impl Argument {
    /// What to ask; with the `history` where Kimi does not remember it.
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

    /// The session in which an earlier attempt at this very round was broken off, if this program is the
    /// one that remembers it. A caller who adds something has another question.
    #[must_use]
    pub fn broken_off(&self, program: &Program) -> Option<String> {
        let partial = self.earlier_attempt()?;
        let same = partial["dialect"] == program.dialect.name();
        let session = partial["session_id"].as_str().filter(|_| same && self.remark.is_empty())?;
        Some(session.to_owned())
    }

    /// What had arrived of an earlier attempt at this round.
    fn earlier_attempt(&self) -> Option<Value> {
        Some(self.round.error.as_ref()?["error"]["partial"].clone())
    }

    /// Where what Kimi writes in this round is kept; nowhere for a thread that is not remembered.
    #[must_use]
    pub fn transcript(&self) -> Option<PathBuf> {
        self.ledger.as_ref()?;
        let folder = transcripts(&self.state_dir);
        Some(folder.join(format!("{}-{}.jsonl.gz", self.row.id, self.round.number)))
    }

    /// Whether Kimi once had a session for this thread.
    #[must_use]
    pub fn had_session(&self) -> bool {
        self.row.session_id.is_some()
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
        let results = self.record.iter().flat_map(Record::results);
        let attempt = self.earlier_attempt().map(|mut partial| partial["evidence"].take());
        let attempt: Vec<Evidence> =
            attempt.and_then(|calls| serde_json::from_value(calls).ok()).unwrap_or_default();
        let calls = results.flat_map(|result| &result.evidence).chain(&attempt);
        let reads = calls.filter(|call| call.ok && call.tool == "ReadFile");
        reads.filter_map(|call| call.args.get("path")?.as_str().map(str::to_owned)).collect()
    }

    /// Adds something that the caller should know about this answer.
    pub fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Takes Kimi's answer into the thread and the ledger, and says where the argument stands.
    #[must_use]
    pub fn close(mut self, mut result: ConsultResult) -> ConsultResult {
        let disputed = self.thread.disputed();
        let known = |finding: &str| disputed.iter().any(|one| one.finding == finding);
        let strays: Vec<String> = result
            .replies
            .iter()
            .map(|reply| reply.finding.clone())
            .filter(|id| !known(id))
            .collect();
        if !strays.is_empty() {
            result.replies.retain(|reply| known(&reply.finding));
            self.warn(format!(
                "Kimi replied to what was not rejected; that was passed over: {}",
                a_few(&strays)
            ));
        }
        if result.parse_ok {
            let replies = result.replies.iter().map(super::result::Reply::rejoinder).collect();
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
        if result.provenance.session_id.is_some() {
            self.row.session_id.clone_from(&result.provenance.session_id);
        }
        self.round.closed_at = result.parse_ok.then(now);
        result.warnings.append(&mut self.warnings);
        result.warnings.extend(injection::warnings(&json!(result)));
        if self.ledger.is_some() {
            result.thread = Some(standing(&self.row.id, &self.thread));
        }
        if let Err(error) = self.save(Some(&result)) {
            result.thread = None;
            result.warnings.push(format!("this thread is not remembered: {}", error.message));
        }
        result.within(self.context.max_result_chars)
    }

    /// Remembers why Kimi did not answer, so that the round can be asked again. The error holds no
    /// secret any more.
    pub fn fail(mut self, mut error: Error) -> Error {
        injection::flag(&mut error);
        if let Some(session) = error.partial.as_mut().and_then(|all| all.get_mut("session_id"))
            && !session.as_str().is_some_and(is_session)
        {
            *session = Value::Null;
        }
        let limit = self.context.max_result_chars;
        let nothing_ran = matches!(
            error.kind,
            Kind::KimiMissing | Kind::KimiRetired | Kind::NotLoggedIn | Kind::Spawn | Kind::Sandbox
        );
        // Only a thread that this very call opened.
        let opened_here = self.record.is_none();
        if opened_here && (nothing_ran || error.kind == Kind::Request) {
            // Nothing came of it but a question that the caller still has.
            if let Some(ledger) = &mut self.ledger {
                let _ = ledger.delete(&self.row.id);
            }
            shorten_error(&mut error, limit);
            return error;
        }
        self.round.error = Some(error.report());
        if self.ledger.is_some() && self.save(None).is_ok() && error.kind != Kind::Request {
            let id = &self.row.id;
            let session =
                error.partial.as_ref().is_some_and(|partial| partial["session_id"].is_string());
            error.hint.push_str(&if session { went_on_by(id) } else { asked_again_by(id) });
            if let Some(partial) = &mut error.partial {
                let mut thread = standing(id, &self.thread);
                if session {
                    thread.next = broken_off(id, thread.round);
                }
                partial["thread"] = json!(thread);
            }
        }
        shorten_error(&mut error, limit);
        error
    }

    /// Saves the round as it is: open, so that it can be asked again after a crash, or with its result or
    /// error. Without a new result it keeps the one it has.
    pub(super) fn save(&mut self, result: Option<&ConsultResult>) -> Result<()> {
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

/// The first of some names that Kimi gave, none longer than a name is.
fn a_few(names: &[String]) -> String {
    let few: Vec<&str> = names.iter().take(10).map(|name| first_chars(name, 20)).collect();
    match names.len() - few.len() {
        0 => few.join(", "),
        more => format!("{} and {more} more", few.join(", ")),
    }
}

/// What a failed call's hint says of its thread.
#[must_use]
pub fn asked_again_by(id: &str) -> String {
    format!(" The thread {id} remembers the question: call with thread_id alone to ask it again.")
}

/// The same where Kimi's session remembers how far it came.
#[must_use]
pub fn went_on_by(id: &str) -> String {
    format!(
        " The thread {id} remembers the question: call with thread_id alone to go on where Kimi stopped."
    )
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
