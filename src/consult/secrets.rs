//! What a consultation keeps to itself: the request on its way out, and the result on its way back.

use serde_json::json;

use super::answer::{Answer, Finding, Score, Verdict};
use super::citation::Citation;
use super::request::Context;
use super::result::ConsultResult;
use super::thread::Reply;
use crate::error::{Error, Kind, Result};
use crate::redact::Secrets;
use crate::settings::{Environment, Loaded};

/// What is taken for a secret in this call. The user's file is read anew, so that what is added to it
/// holds at once.
pub(crate) fn in_force(loaded: &Loaded) -> Result<Secrets> {
    Secrets::load(&loaded.environment.config_dir, &loaded.environment.vars)
}

/// An error from outside of a consultation, as it may be told.
pub(crate) fn redact_error(error: Error, environment: &Environment) -> Error {
    // What the user's file lacks is what the error may be about; then what is built in must do.
    let secrets = Secrets::load(&environment.config_dir, &environment.vars).unwrap_or_default();
    secrets.redact_error(error)
}

impl Context {
    /// The same without the secrets in the caller's words, and how many there were.
    pub(crate) fn without_secrets(mut self, secrets: &Secrets) -> Result<(Context, usize)> {
        let mut words =
            json!([self.message, self.about, self.prior_exchange, self.files, self.language]);
        let count = secrets.redact_all(&mut words);
        let taken_apart = |error: serde_json::Error| {
            Error::new(
                Kind::Settings,
                format!("without its secrets the request cannot be read any more: {error}"),
                "A pattern of your secrets.yaml matches too much; make it more precise.",
            )
        };
        self.about = self.about.role().read_context(words[1].take()).map_err(taken_apart)?;
        (self.message, self.prior_exchange, self.files, self.language) =
            serde_json::from_value(json!([words[0], words[2], words[3], words[4]]))
                .map_err(taken_apart)?;
        Ok((self, count))
    }
}

impl ConsultResult {
    /// The same without the secrets in Kimi's words; they are counted in its provenance.
    pub(crate) fn without_secrets(mut self, secrets: &Secrets) -> ConsultResult {
        let mut count = 0;
        self.each_text(&mut |text| {
            let redacted = secrets.redact(text);
            count += redacted.count();
            *text = redacted.into_text();
        });
        self.provenance.redactions += count as u64;
        self
    }

    /// Every text in it that came from outside, but for the evidence and the preview, which are
    /// redacted where they are cut. Whoever adds a field decides here whether it is one.
    fn each_text(&mut self, with: &mut impl FnMut(&mut String)) {
        let ConsultResult {
            parse_ok: _,
            answer,
            evidence: _,
            incomplete_trace: _,
            raw_response_preview: _,
            thread: _,
            provenance,
            warnings,
        } = self;
        let Answer {
            response,
            replies,
            verdict,
            findings,
            key_risks,
            assumptions,
            alternatives,
            survived,
            not_examined,
            confidence,
        } = answer;
        with(response);
        with(confidence);
        for list in [key_risks, assumptions, alternatives, survived, not_examined, warnings] {
            list.iter_mut().for_each(&mut *with);
        }
        for Reply { finding, stance: _, because, capitulated: _ } in replies {
            with(finding);
            with(because);
        }
        if let Some(Verdict { winner, scores, contested: _ }) = verdict {
            winner.iter_mut().for_each(&mut *with);
            for Score { option, criterion, score: _, reason } in scores {
                [option, criterion, reason].into_iter().for_each(&mut *with);
            }
        }
        for finding in findings {
            let Finding {
                id: _,
                severity: _,
                claim,
                failure_scenario,
                suggestion,
                citations,
                grounded: _,
            } = finding;
            with(claim);
            with(failure_scenario);
            with(suggestion);
            for Citation { path, line_start: _, line_end: _, quote, status: _ } in citations {
                with(path);
                with(quote);
            }
        }
        with(&mut provenance.version);
        provenance.session_id.iter_mut().for_each(with);
    }
}
