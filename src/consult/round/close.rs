//! The end of a round: with Kimi's answer, or with the reason why there is none.

use serde_json::{Value, json};

use super::OpenRound;
use crate::consult::injection;
use crate::consult::result::{ConsultResult, is_session, shorten_error};
use crate::consult::standing::{broken_off, standing};
use crate::consult::thread::Reply;
use crate::error::{Error, Kind};
use crate::kimi::text::first_chars;
use crate::ledger::now;

impl OpenRound<'_> {
    /// Takes Kimi's answer into the thread and the ledger, and says where the argument stands.
    pub(crate) fn close(mut self, mut result: ConsultResult) -> ConsultResult {
        let disputed = self.thread.disputed();
        let known = |finding: &str| disputed.iter().any(|one| one.finding == finding);
        let strays: Vec<String> = result
            .answer
            .replies
            .iter()
            .map(|reply| reply.finding.clone())
            .filter(|id| !known(id))
            .collect();
        if !strays.is_empty() {
            result.answer.replies.retain(|reply| known(&reply.finding));
            self.warn(format!(
                "Kimi replied to what was not rejected; that was passed over: {}",
                a_few(&strays)
            ));
        }
        if result.parse_ok {
            // The thread keeps what was said; the result says which withdrawals name no fact.
            let said = |reply: &Reply| Reply { capitulated: false, ..reply.clone() };
            let replies = result.answer.replies.iter().map(said).collect();
            let silent = disputed
                .iter()
                .filter(|one| !result.answer.replies.iter().any(|r| r.finding == one.finding));
            let silent: Vec<String> = silent.map(|one| one.finding.clone()).collect();
            if !silent.is_empty() {
                self.warn(format!(
                    "Kimi did not answer the rejection of {}: it counts as maintained",
                    silent.join(", ")
                ));
            }
            // The round is open, so the answer is taken.
            let _ = self.thread.answer(result.answer.findings.len(), replies);
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
    pub(crate) fn fail(mut self, mut error: Error) -> Error {
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
pub(crate) fn asked_again_by(id: &str) -> String {
    format!(" The thread {id} remembers the question: call with thread_id alone to ask it again.")
}

/// The same where Kimi's session remembers how far it came.
pub(crate) fn went_on_by(id: &str) -> String {
    format!(
        " The thread {id} remembers the question: call with thread_id alone to go on where Kimi stopped."
    )
}
