//! The output of commands.

use std::io::Write as _;

use super::render;
use crate::consult::ConsultResult;
use crate::error::{Error, Kind, Result};

/// The exit code for an answer of Kimi that could not be parsed.
const UNREADABLE: u8 = 4;

/// Prints a result, and returns the exit code.
pub(super) fn show(result: &ConsultResult, as_json: bool) -> Result<u8> {
    let text = if as_json { json(result)? } else { render::result(result, render::width())? };
    print(&text)?;
    Ok(if result.parse_ok { 0 } else { UNREADABLE })
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|error| {
        let message = format!("the result could not be written: {error}");
        Error::new(Kind::Crashed, message, "Please report it.")
    })
}

/// Writes to standard output. A closed pipe, as with `| head`, is no error.
pub(super) fn print(text: &str) -> Result<()> {
    let mut stdout = anstream::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let message = format!("standard output: {error}");
            Err(Error::new(Kind::Crashed, message, "Check where the output goes."))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
