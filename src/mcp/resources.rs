//! The threads as resources, for a host that looks back with its own reading tool.

use rmcp::ErrorData;
use rmcp::model::{
    ListResourceTemplatesResult, ListResourcesResult, ReadResourceResult, Resource,
    ResourceContents, ResourceTemplate,
};

use crate::consult::{export, record, secrets};
use crate::error::{Error, Kind};
use crate::ledger::Filter;
use crate::settings::Loaded;

const THREADS: &str = "kimi-bridge://threads";
const THREAD: &str = "kimi-bridge://threads/{id}";
const TRANSCRIPT: &str = "kimi-bridge://threads/{id}/rounds/{n}/transcript";

const JSON: &str = "application/json";
const MARKDOWN: &str = "text/markdown";
const TEXT: &str = "text/plain";

/// How many threads are listed.
const LATEST: usize = 50;

pub(super) fn list() -> ListResourcesResult {
    ListResourcesResult::with_all_items(vec![
        Resource::new(THREADS, "threads")
            .with_title("Arguments with Kimi")
            .with_description(
                "The latest 50 threads: id, role, project, state, question, and when each was opened and \
                 last changed. A thread stays open until its state is `decided` or `given_up`.",
            )
            .with_mime_type(JSON),
    ])
}

pub(super) fn templates() -> ListResourceTemplatesResult {
    ListResourceTemplatesResult::with_all_items(vec![
        ResourceTemplate::new(THREAD, "thread")
            .with_title("One argument with Kimi")
            .with_description(
                "A whole thread: the proposal, every round's findings with their citations, your verdicts, \
                 Kimi's replies, and the decision.",
            )
            .with_mime_type(MARKDOWN),
        ResourceTemplate::new(TRANSCRIPT, "transcript")
            .with_title("What Kimi wrote in one round")
            .with_description(
                "Everything that Kimi wrote in round n, a JSON object a line, without secrets. Long: read the \
                 thread first.",
            )
            .with_mime_type(TEXT),
    ])
}

/// What a URI names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named<'a> {
    Threads,
    Thread(&'a str),
    Transcript(&'a str, u8),
}

fn named(uri: &str) -> Option<Named<'_>> {
    let rest = uri.strip_prefix(THREADS)?;
    let parts: Vec<&str> = rest.split('/').collect();
    match parts.as_slice() {
        [""] => Some(Named::Threads),
        ["", id] if !id.is_empty() => Some(Named::Thread(id)),
        ["", id, "rounds", number, "transcript"] if !id.is_empty() => {
            Some(Named::Transcript(id, number.parse().ok()?))
        }
        _ => None,
    }
}

/// Reads one. It opens the ledger, and may wait for it.
pub(super) fn read(uri: &str, loaded: &Loaded) -> Result<ReadResourceResult, ErrorData> {
    let Some(named) = named(uri) else {
        let message =
            format!("there is no resource {uri}; there are {THREADS}, {THREAD} and {TRANSCRIPT}");
        return Err(ErrorData::resource_not_found(message, None));
    };
    let (text, mime_type) = match named {
        Named::Threads => (threads(loaded), JSON),
        Named::Thread(id) => {
            (record::load(loaded, id).and_then(|record| export::markdown(&record)), MARKDOWN)
        }
        Named::Transcript(id, number) => (record::transcript(loaded, id, number), TEXT),
    };
    let text = text.map_err(|error| unread(&secrets::redact_error(error, &loaded.environment)))?;
    Ok(ReadResourceResult::new(vec![ResourceContents::text(text, uri).with_mime_type(mime_type)]))
}

fn threads(loaded: &Loaded) -> Result<String, Error> {
    let latest = record::list(loaded, &Filter { limit: LATEST, ..Filter::default() })?;
    Ok(serde_json::json!(latest).to_string())
}

/// Hosts show a model the message of a protocol error, and nothing else of it.
fn unread(error: &Error) -> ErrorData {
    let (text, report) = (error.text(), Some(error.report()));
    if error.kind == Kind::Round {
        ErrorData::resource_not_found(text, report)
    } else {
        ErrorData::internal_error(text, report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_one_thing_or_nothing() {
        let check = |rest: &str, expected| assert_eq!(named(&format!("{THREADS}{rest}")), expected);
        check("", Some(Named::Threads));
        check("/ab12", Some(Named::Thread("ab12")));
        check("/ab12/rounds/2/transcript", Some(Named::Transcript("ab12", 2)));
        for rest in [
            "/",
            "s",
            "/ab12/",
            "/ab12/rounds/2",
            "/ab12/rounds/x/transcript",
            "//rounds/1/transcript",
        ] {
            check(rest, None);
        }
        assert_eq!(named("file:///etc/passwd"), None);
    }

    #[test]
    fn the_lists_are_what_a_host_shows() {
        insta::assert_json_snapshot!((list(), templates()));
    }
}
