//! The activity that a person sees while Kimi works.

use std::fmt;

use serde_json::Value;

use super::Evidence;
use crate::kimi::text::{clean, first_chars};

/// The activity of a run at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activity {
    /// Waiting until one of so many consultations under way ends.
    Waiting(usize),
    /// Started, and nothing heard yet.
    Starting,
    /// No tool is running.
    Thinking,
    /// Reading this file.
    Reading(String),
    /// Listing files by this pattern.
    Listing(String),
    /// Searching the project for this pattern.
    Searching(String),
    /// Searching the web.
    SearchingTheWeb(String),
    /// Fetching this address.
    Fetching(String),
    /// Waiting to ask the model again: why, next attempt, attempts, wait in milliseconds.
    Retrying(String, u64, u64, u64),
}

impl Activity {
    /// The activity of a run whose latest call is this one, unanswered.
    pub(super) fn of(call: &Evidence) -> Activity {
        let argument = |name: &str| {
            let value = call.args.get(name).and_then(Value::as_str).unwrap_or_default();
            first_chars(&clean(value), 80).replace('\n', " ")
        };
        match call.tool.as_str() {
            "ReadFile" => Activity::Reading(argument("path")),
            "Glob" => Activity::Listing(argument("pattern")),
            "Grep" => Activity::Searching(argument("pattern")),
            "SearchWeb" => Activity::SearchingTheWeb(argument("query")),
            "FetchURL" => Activity::Fetching(argument("url")),
            _ => Activity::Thinking,
        }
    }
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Activity::Waiting(1) => {
                f.write_str("waiting in turn: another consultation is under way")
            }
            Activity::Waiting(running) => {
                write!(f, "waiting in turn: {running} consultations are under way")
            }
            Activity::Starting => f.write_str("starting Kimi"),
            Activity::Thinking => f.write_str("thinking"),
            Activity::Reading(path) => write!(f, "reading {path}"),
            Activity::Listing(pattern) => write!(f, "listing {pattern}"),
            Activity::Searching(pattern) => write!(f, "searching for {pattern}"),
            Activity::SearchingTheWeb(query) => write!(f, "searching the web for {query}"),
            Activity::Fetching(url) => write!(f, "fetching {url}"),
            Activity::Retrying(why, next, max, delay_ms) => {
                let seconds = delay_ms.div_ceil(1000);
                write!(f, "{why}, attempt {next} of {max}, next in {seconds} s")
            }
        }
    }
}
