//! The end of a round: with Kimi's answer, or with the error that prevented it.

use serde_json::{Value, json};

use super::{OpenRound, OptionOrder};
use crate::consult::fact;
use crate::consult::result::ConsultResult;
use crate::consult::standing::{broken_off, standing};
use crate::consult::thread::{Adjudication, RejectionReply, Stance, one_each};
use crate::error::{Error, Kind};
use crate::job::injection;
use crate::kimi::evidence::shown::Shown;
use crate::kimi::text::first_chars;
use crate::kimi::{self, Dialect};
use crate::ledger::now;

impl OpenRound<'_> {
    /// Records Kimi's answer in the thread and the ledger, and adds the state of the thread to the result.
    pub(crate) fn close(mut self, mut result: ConsultResult) -> ConsultResult {
        let disputed = self.thread.disputed();
        let reason = |finding: &str| {
            let rejection = disputed.iter().find(|one| one.finding == finding);
            rejection.map(|one| one.reasoning.as_str())
        };
        let (replies, strays): (Vec<RejectionReply>, Vec<RejectionReply>) =
            result.answer.replies.drain(..).partition(|reply| reason(&reply.finding).is_some());
        let (mut replies, others) = one_each(replies);
        for reply in &mut replies {
            let reason = reason(&reply.finding).unwrap_or_default();
            reply.capitulated =
                reply.stance == Stance::Withdraw && !fact::names_a_fact(&reply.because, reason);
        }
        result.answer.replies = replies;
        let unused = [
            ("Kimi replied to what was not rejected; it changes nothing", strays),
            (
                "Kimi replied more than once to a rejection; the reply that keeps more counts, not",
                others,
            ),
        ];
        for (what, replies) in unused {
            if !replies.is_empty() {
                self.warn(format!("{what}: {}", described(&replies)));
            }
        }
        let is_whole = result.parse_ok && !result.lacks_findings;
        if is_whole {
            // The thread keeps the stance; only the result marks a withdrawal without a fact.
            let said =
                |reply: &RejectionReply| RejectionReply { capitulated: false, ..reply.clone() };
            let replies: Vec<RejectionReply> = result.answer.replies.iter().map(said).collect();
            let is_silent =
                |one: &&Adjudication| replies.iter().all(|reply| reply.finding != one.finding);
            let silent = disputed.iter().filter(is_silent).map(|one| one.finding.as_str());
            let silent: Vec<&str> = silent.collect();
            if !silent.is_empty() {
                self.warn(format!(
                    "Kimi did not answer the rejection of {}: it counts as maintained",
                    silent.join(", ")
                ));
            }
            // The round is open, so the answer is accepted.
            let _ = self.thread.answer(result.answer.findings.len(), replies);
        }
        self.round.error = None;
        self.row.dialect = Some(result.provenance.dialect.name().to_owned());
        if result.provenance.session_id.is_some() {
            self.row.session_id.clone_from(&result.provenance.session_id);
        }
        self.round.closed_at = is_whole.then(now);
        result.warnings.append(&mut self.warnings);
        result.warnings.extend(injection::warnings(&json!(result)));
        if self.ledger.is_some() {
            result.thread = Some(standing(&self.row.id, &self.thread));
        }
        if let Err(error) = self.save(Some(&result)) {
            result.thread = None;
            result.warnings.push(format!("this thread is not remembered: {}", error.message));
        }
        // Later rounds read the lines from the ledger; the caller does not need them.
        result.evidence.iter_mut().for_each(|call| call.shown = Shown::new());
        result
    }

    /// Records the error, so that the round can be asked again. The error was redacted before.
    pub(crate) fn fail(mut self, mut error: Error) -> Error {
        injection::flag(&mut error);
        if let Some(session) = error.partial.as_mut().and_then(|all| all.get_mut("session_id"))
            && !session.as_str().is_some_and(kimi::session::is_id)
        {
            *session = Value::Null;
        }
        let nothing_ran = matches!(
            error.kind,
            Kind::KimiMissing | Kind::KimiRetired | Kind::NotLoggedIn | Kind::Spawn | Kind::Sandbox
        );
        // True if this call opened the thread.
        let opened_here = self.record.is_none();
        if opened_here && (nothing_ran || error.kind == Kind::Request) {
            // The thread holds nothing but the question, which the caller still has.
            if let Some(ledger) = &mut self.ledger {
                let _ = ledger.delete(&self.row.id);
            }
            return error;
        }
        self.round.error = Some(error.report());
        let session = self.can_continue(&error);
        if let Some(partial) = error.partial.as_mut().filter(|_| !session) {
            // Kimi can only continue a session that holds the question.
            partial["session_id"] = Value::Null;
            self.round.error = Some(error.report());
        }
        if self.ledger.is_some() && self.save(None).is_ok() && error.kind != Kind::Request {
            let id = &self.row.id;
            error.hint.push_str(&if session { continue_hint(id) } else { ask_again_hint(id) });
            if let Some(partial) = &mut error.partial {
                let mut thread = standing(id, &self.thread);
                if session {
                    thread.next = broken_off(id, thread.round);
                }
                partial["thread"] = json!(thread);
            }
        }
        let calls = error.partial.as_mut().and_then(|partial| partial["evidence"].as_array_mut());
        for call in calls.into_iter().flatten().filter_map(Value::as_object_mut) {
            call.shift_remove("shown");
        }
        error
    }

    /// Returns whether the next attempt can continue this one.
    fn can_continue(&self, error: &Error) -> bool {
        let dialect = error.partial.as_ref().map(|partial| partial["dialect"].clone());
        let dialect = dialect.and_then(|dialect| serde_json::from_value::<Dialect>(dialect).ok());
        dialect.is_some_and(|dialect| self.broken_off(dialect, OptionOrder::Given).is_some())
    }
}

/// The ignored replies as text: the first ten, each shortened.
fn described(replies: &[RejectionReply]) -> String {
    let said = |reply: &RejectionReply| {
        let finding = first_chars(&reply.finding, 20);
        format!("{finding} {}: {}", reply.stance.name(), first_chars(&reply.because, 300))
    };
    let few: Vec<String> = replies.iter().take(10).map(said).collect();
    match replies.len() - few.len() {
        0 => few.join("; "),
        more => format!("{} and {more} more", few.join("; ")),
    }
}

/// The part of a hint that says how to ask the round again.
pub(crate) fn ask_again_hint(id: &str) -> String {
    format!(" The thread {id} remembers the question: call with thread_id alone to ask it again.")
}

/// The part of a hint that says how to continue the session.
pub(crate) fn continue_hint(id: &str) -> String {
    format!(
        " The thread {id} remembers the question: call with thread_id alone to go on where Kimi stopped."
    )
}
