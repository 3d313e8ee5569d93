//! The warnings about a stream, bounded in number.

use crate::redact::Secrets;

/// Warnings that are kept.
const KEPT: usize = 10;
/// Characters of the name that a line of an unknown kind gives itself.
const UNKNOWN_CHARS: usize = 80;

#[derive(Debug, Default)]
pub(super) struct Warnings {
    pub(super) kept: Vec<String>,
    /// The number of the others.
    pub(super) more: usize,
    /// The kinds of lines that a warning names.
    unknown: Vec<String>,
}

impl Warnings {
    /// Adds a warning, once.
    pub(super) fn add(&mut self, warning: String) {
        if self.kept.contains(&warning) {
            return;
        }
        if self.kept.len() < KEPT {
            self.kept.push(warning);
        } else {
            self.more += 1;
        }
    }

    /// Adds a warning about a line of an unknown kind, once for each kind.
    pub(super) fn add_unknown(&mut self, kind: String, secrets: &Secrets) {
        if self.unknown.contains(&kind) {
            return;
        }
        if self.kept.len() == KEPT {
            self.more += 1;
            return;
        }
        let shown = secrets.redact_start(&kind, UNKNOWN_CHARS).into_text();
        self.unknown.push(kind);
        self.add(format!("a line of Kimi's stream was skipped: unknown {shown}"));
    }
}
