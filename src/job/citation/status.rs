//! The status of a citation, which is the bridge's own and never Kimi's word.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a citation holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The quote stands at those lines, and Kimi's tools showed them.
    Verified,
    /// It stands elsewhere in the file, where Kimi's tools showed it; the lines are corrected.
    Moved,
    /// It stands in the file, but no tool call of Kimi's showed those lines.
    NotInTrace,
    /// It is nowhere in the file, or too common to mean one place there.
    Mismatch,
    /// There is no such file, or it is closed to Kimi, or could not be read, or is larger than 16 MB, or there was no
    /// time for it: nothing is known of the quote.
    Missing,
    /// The file is not in the project.
    Outside,
}

impl Status {
    /// Whether a finding may rest on it.
    #[must_use]
    pub fn grounds(self) -> bool {
        match self {
            Status::Verified | Status::Moved => true,
            Status::NotInTrace | Status::Mismatch | Status::Missing | Status::Outside => false,
        }
    }
}
