//! The redaction of a consultation: the request on its way out, and the result on its way back.

use serde_json::json;

use super::answer::Answer;
use super::request::Context;
use super::result::ConsultResult;
use crate::error::{Error, Kind, Result};
use crate::job::texts::each_text_outside;
use crate::redact::Secrets;

/// The fields of an answer without text of Kimi's: ids and names from closed sets.
const BRIDGES_WORDS: [&str; 4] = ["id", "severity", "status", "stance"];

impl Context {
    /// Redacts the caller's texts, and returns the number of secrets.
    pub(crate) fn without_secrets(mut self, secrets: &Secrets) -> Result<(Context, usize)> {
        let mut words =
            json!([self.message, self.about, self.prior_exchange, self.files, self.language]);
        let count = secrets.redact_all(&mut words);
        let unreadable = |error: serde_json::Error| {
            Error::new(
                Kind::Settings,
                format!("without its secrets the request cannot be read any more: {error}"),
                "A pattern of your secrets.yaml matches too much; make it more precise.",
            )
        };
        self.about = self.about.role().read_context(words[1].take()).map_err(unreadable)?;
        (self.message, self.prior_exchange, self.files, self.language) =
            serde_json::from_value(json!([words[0], words[2], words[3], words[4]]))
                .map_err(unreadable)?;
        Ok((self, count))
    }
}

impl ConsultResult {
    /// Redacts Kimi's texts, and counts the secrets in the provenance. Evidence and preview are redacted where they are
    /// cut.
    pub(crate) fn without_secrets(mut self, secrets: &Secrets) -> ConsultResult {
        let mut count = 0;
        let mut redact = |text: &mut String| {
            let redacted = secrets.redact(text);
            count += redacted.count();
            *text = redacted.into_text();
        };
        let mut answer = json!(self.answer);
        each_text_outside(&BRIDGES_WORDS, &mut answer, &mut redact);
        self.warnings.iter_mut().for_each(&mut redact);
        redact(&mut self.provenance.version);
        self.provenance.session_id.iter_mut().for_each(redact);
        self.provenance.redactions += count as u64;
        self.answer = serde_json::from_value(answer).unwrap_or_else(|error| {
            self.warnings.push(format!(
                "without its secrets Kimi's answer cannot be read any more: {error}; make the patterns of your \
                 secrets.yaml more precise"
            ));
            Answer::default()
        });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consult::export::fixture;

    #[test]
    fn every_text_of_an_answer_is_redacted_and_the_answer_can_still_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let all = "values:\n  - { kind: all, pattern: '(?s).+' }\n";
        std::fs::write(folder.path().join("secrets.yaml"), all).unwrap();
        let secrets = Secrets::load(folder.path(), &[]).unwrap();
        for result in fixture::all().iter().flat_map(crate::consult::record::Record::results) {
            let redacted = result.clone().without_secrets(&secrets);
            let mut expected = json!(result.answer);
            each_text_outside(&BRIDGES_WORDS, &mut expected, &mut |text| {
                *text = secrets.redact(text).into_text();
            });
            assert_eq!(json!(redacted.answer), expected);
            let told = redacted.warnings.iter().chain(&redacted.provenance.session_id);
            assert!(
                told.chain([&redacted.provenance.version]).all(|text| text == "[redacted:all]")
            );
        }
    }
}
