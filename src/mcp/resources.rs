//! The threads as resources, so that a host can read them with its own tools.

use std::sync::LazyLock;

use rmcp::ErrorData;
use rmcp::model::{
    ListResourceTemplatesResult, ListResourcesResult, ReadResourceResult, Resource,
    ResourceContents, ResourceTemplate,
};
use serde::Deserialize;

use crate::consult::export;
use crate::consult::record::{self, Record, Summary};
use crate::error::{Error, Kind};
use crate::job::secrets;
use crate::kimi::text::{clean, first_chars};
use crate::ledger::Filter;
use crate::settings::Config;

const THREADS: &str = "kimi-bridge://threads";

/// The most threads in the resource of all threads.
const LATEST: usize = 50;
/// The most threads that are a resource of their own.
const LISTED: usize = 10;
/// The most characters of a thread's title.
const TITLE: usize = 80;

/// The resources, in the types of the protocol.
#[derive(Deserialize)]
struct Offer {
    resources: Vec<Resource>,
    templates: Vec<ResourceTemplate>,
}

#[expect(clippy::expect_used, reason = "the file is compiled in, and a test reads it")]
static OFFER: LazyLock<Offer> = LazyLock::new(|| {
    let file = include_str!("../../templates/mcp/resources.yaml");
    serde_yaml::from_str(file).expect("templates/mcp/resources.yaml is readable")
});

/// Lists the resources, with the latest threads of the host's project. It opens the ledger, which may block.
pub(super) fn list(config: &Config) -> ListResourcesResult {
    let mut resources = OFFER.resources.clone();
    // A ledger that cannot be read is reported by the call that needs it.
    let latest = latest(config, LISTED).unwrap_or_default();
    resources.extend(latest.into_iter().map(|thread| {
        let question = thread.message.split_whitespace().collect::<Vec<_>>().join(" ");
        let title = first_chars(&clean(&question), TITLE).to_owned();
        let about = format!("A thread with the {}: {}.", thread.role, thread.state);
        Resource::new(format!("{THREADS}/{}", thread.id), thread.id)
            .with_title(title)
            .with_description(about)
            .with_mime_type("text/markdown")
    }));
    ListResourcesResult::with_all_items(resources)
}

pub(super) fn templates() -> ListResourceTemplatesResult {
    ListResourceTemplatesResult::with_all_items(OFFER.templates.clone())
}

/// The resource that a URI names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResourceUri<'a> {
    Threads,
    Thread(&'a str),
    Transcript(&'a str, u8),
}

fn parse_uri(uri: &str) -> Option<ResourceUri<'_>> {
    let rest = uri.strip_prefix(THREADS)?;
    let parts: Vec<&str> = rest.split('/').collect();
    match parts.as_slice() {
        [""] => Some(ResourceUri::Threads),
        ["", id] if !id.is_empty() => Some(ResourceUri::Thread(id)),
        ["", id, "rounds", number, "transcript"] if !id.is_empty() => {
            Some(ResourceUri::Transcript(id, number.parse().ok()?))
        }
        _ => None,
    }
}

/// Reads a resource. It opens the ledger, which may block.
pub(super) fn read(uri: &str, config: &Config) -> Result<ReadResourceResult, ErrorData> {
    let (text, mime_type) = match parse_uri(uri) {
        Some(ResourceUri::Threads) => (threads(config), "application/json"),
        Some(ResourceUri::Thread(id)) => {
            (own(config, id).and_then(|record| export::markdown(&record)), "text/markdown")
        }
        Some(ResourceUri::Transcript(id, number)) => {
            let text = own(config, id).and_then(|_| record::transcript(config, id, number));
            (text, "text/plain")
        }
        None => {
            let message = format!(
                "there is no resource {uri}; there are {THREADS}, {THREADS}/{{id}} and \
                 {THREADS}/{{id}}/rounds/{{n}}/transcript"
            );
            return Err(ErrorData::resource_not_found(message, None));
        }
    };
    let text = text.map_err(|error| unread(&secrets::redact_error(error, &config.environment)))?;
    Ok(ReadResourceResult::new(vec![ResourceContents::text(text, uri).with_mime_type(mime_type)]))
}

/// The thread, if it belongs to the project of the host: a model must not read threads of other projects.
fn own(config: &Config, id: &str) -> Result<Record, Error> {
    let record = record::load(config, id)?;
    if record.project == record::project_of(config) { Ok(record) } else { Err(record::unknown(id)) }
}

fn threads(config: &Config) -> Result<String, Error> {
    Ok(serde_json::json!(latest(config, LATEST)?).to_string())
}

/// The latest threads of the host's project.
fn latest(config: &Config, limit: usize) -> Result<Vec<Summary>, Error> {
    let project = Some(record::project_of(config).display().to_string());
    record::list(config, &Filter { project, limit, ..Filter::default() })
}

/// The protocol error for an error. Hosts show a model only its message.
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
    fn a_uri_names_one_resource_or_none() {
        let check =
            |rest: &str, expected| assert_eq!(parse_uri(&format!("{THREADS}{rest}")), expected);
        check("", Some(ResourceUri::Threads));
        check("/ab12", Some(ResourceUri::Thread("ab12")));
        check("/ab12/rounds/2/transcript", Some(ResourceUri::Transcript("ab12", 2)));
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
        assert_eq!(parse_uri("file:///etc/passwd"), None);
    }

    #[test]
    fn the_lists_as_a_host_shows_them() {
        let unsaved = ListResourcesResult::with_all_items(OFFER.resources.clone());
        insta::assert_json_snapshot!((unsaved, templates()));
    }
}
