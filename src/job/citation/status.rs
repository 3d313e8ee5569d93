//! The status of a citation, which the bridge determines, never Kimi.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The result of checking a citation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The quote is at those lines, and Kimi's tools showed them.
    Verified,
    /// The quote is elsewhere in the file, where Kimi's tools showed it; the lines are corrected.
    Moved,
    /// The quote is in the file, but no tool call of Kimi's showed those lines.
    NotInTrace,
    /// The quote is not in the file, or too common to mean one place.
    Mismatch,
    /// The file does not exist, is closed to Kimi, could not be read, is larger than 16 MB, or there was no time for
    /// it: nothing is known of the quote.
    Missing,
    /// The file is not in the project.
    Outside,
}

impl Status {
    /// Returns whether a finding may rest on it.
    #[must_use]
    pub fn grounds(self) -> bool {
        match self {
            Status::Verified | Status::Moved => true,
            Status::NotInTrace | Status::Mismatch | Status::Missing | Status::Outside => false,
        }
    }
}
