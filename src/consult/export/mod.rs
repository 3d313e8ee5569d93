//! A record as a document to keep: Markdown to commit beside the code, one HTML page to read, JSON
//! for programs. Whatever came from outside is escaped or fenced, so that it cannot break any of them.

mod account;
mod exchange;
mod html;
mod markdown;
mod marks;
mod phrases;
mod prose;

#[cfg(test)]
pub(crate) mod fixture;

use serde_json::json;

pub(crate) use self::account::{Account, Point};
pub(crate) use self::exchange::{Outcome, Said, Turn, actor};
pub(crate) use self::html::html;
pub(crate) use self::markdown::markdown;
pub(crate) use self::phrases::{date, failure, lines, subject, target, winner};
use super::record::Record;
use super::texts::each_text;
use crate::error::{Error, Kind, Result};
use crate::kimi::text::clean;

/// The record as JSON, as the ledger has it.
pub(crate) fn json(record: &Record) -> Result<String> {
    serde_json::to_string_pretty(record).map(|text| text + "\n").map_err(|error| at_fault(&error))
}

/// The record without anything that a reader could not see, or that a terminal would obey.
pub(crate) fn cleaned(record: &Record) -> Record {
    let mut value = json!(record);
    each_text(&mut value, &mut |text| *text = clean(text).into_owned());
    serde_json::from_value(value).unwrap_or_else(|_| record.clone())
}

fn at_fault(error: &dyn std::fmt::Display) -> Error {
    Error::new(
        Kind::Crashed,
        format!("the record could not be written: {error:#}"),
        "This is a fault of kimi-bridge; please report it.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_reads_back_as_the_same_record() {
        for record in fixture::all() {
            let text = json(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        }
    }

    #[test]
    fn what_nobody_can_see_is_gone_from_the_callers_words() {
        let record = cleaned(&fixture::argued());
        let text = format!("{record:?}");
        assert!(!text.contains("\\u{202e}") && !text.contains("\\u{1b}"), "{text}");
    }
}
