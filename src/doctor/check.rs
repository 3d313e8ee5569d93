//! A check, which is one line of the report, and a section of checks. All texts of a check are redacted.

use serde::Serialize;

use crate::error::{Error, Kind};
use crate::kimi::text::clean;
use crate::redact::Secrets;

/// One line of the report: a finding and, if needed, its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// The subject, in a word or two.
    pub(crate) name: String,
    /// The effect on a consultation.
    pub(crate) status: CheckStatus,
    /// The finding.
    pub(crate) says: String,
    /// The next step, as a sentence. Every warning and every problem has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
    /// The kind of error with which a consultation would end; only a problem has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<Kind>,
}

/// The effect of a check on a consultation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CheckStatus {
    Ok,
    /// A consultation works, but the user should know this.
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

    /// Makes a problem from an error.
    pub(super) fn error(name: &str, error: &Error) -> Check {
        Check::problem(name, error.kind, &error.message, &error.hint)
    }

    pub(super) fn with_remedy(self, remedy: impl AsRef<str>) -> Check {
        Check { remedy: Some(redacted(remedy.as_ref())), ..self }
    }

    fn new(name: &str, status: CheckStatus, says: &str) -> Check {
        Check { name: name.to_owned(), status, says: redacted(says), remedy: None, kind: None }
    }
}

/// Removes secrets and invisible characters.
fn redacted(words: &str) -> String {
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
    fn a_check_holds_no_secret() {
        // The key is put together at run time, so that no secret scanner reports this file.
        let key = format!("sk-{}", "q8Zr2LmXv9WcYb4sT7uKp3Nd6Hf1Jg5Rw0Ex");
        let check = Check::warning("a", format!("\u{1b}[31m{key}"), format!("Remove {key}."));
        assert!(!format!("{check:?}").contains("q8Zr2L"), "{check:?}");
        assert!(!check.says.contains('\u{1b}'));
    }
}
