//! `kimi-bridge threads`: the threads in the ledger.

use std::fmt::Write as _;

use serde_json::json;

use super::render::{self, BOLD, DIM, WARN, paragraph, styled, width};
use super::{output, status_line};
use crate::cli::{ExportFormat, Threads, ThreadsCommand};
use crate::consult::thread::State;
use crate::consult::{decision, export, record, record_decision};
use crate::error::{Error, Kind, Result};
use crate::kimi::text::{clean, first_chars};
use crate::ledger::{Filter, now};
use crate::settings::Config;

pub(super) fn run(args: &Threads, config: &Config) -> Result<u8> {
    let text = match &args.command {
        None => list(args, config)?,
        Some(ThreadsCommand::Show { id }) => render::thread(&record::load(config, id)?, width())?,
        Some(ThreadsCommand::Export { id, format }) => {
            let record = record::load(config, id)?;
            match format {
                ExportFormat::Md => export::markdown(&record)?,
                ExportFormat::Html => export::html(&record)?,
                ExportFormat::Json => output::json(&record)?,
            }
        }
        Some(ThreadsCommand::Decide { id, decision, rationale }) => {
            let fields = json!({"thread_id": id, "decision": decision, "rationale": rationale});
            let standing = record_decision(&status_line::request(fields), config)?;
            format!("{} is {}. {}\n", standing.id, standing.state.name(), standing.next)
        }
        Some(ThreadsCommand::Delete { id }) => {
            let left = decision::forget(id, config)?;
            let mut text =
                format!("{id} is deleted, with Kimi's transcripts and sessions of it.\n");
            for what in left {
                let _ = writeln!(text, "This could not be removed: {what}");
            }
            text
        }
    };
    output::print(&text)?;
    Ok(0)
}

fn list(args: &Threads, config: &Config) -> Result<String> {
    let project = args.project.as_ref().map(|dir| {
        let dir = config.environment.current_dir.join(dir);
        dir.canonicalize().unwrap_or(dir).display().to_string()
    });
    let filter = Filter {
        project,
        state: args.state.clone(),
        words: args.search.clone(),
        limit: args.limit,
    };
    if let Some(state) = &args.state {
        expect_state(state)?;
    }
    let threads = record::list(config, &filter)?;
    if args.json {
        return output::json(&threads);
    }
    if threads.is_empty() {
        return Ok(format!("No threads{}.\n", described(&filter)));
    }
    let mut text = String::new();
    for thread in threads {
        let message = clean(&thread.message).replace('\n', " ");
        let head = format!(
            "{}  {:<9} {}  {}",
            styled(BOLD, &thread.id),
            thread.role,
            state(&thread),
            age(now() - thread.updated_at)
        );
        let _ = writeln!(text, "{head}");
        text.push_str(&paragraph(
            first_chars(&message, 200),
            "            ",
            "            ",
            width(),
        ));
        let _ = writeln!(text, "            {}", styled(DIM, &thread.project));
    }
    Ok(text)
}

/// Returns the state of a thread and the number of its open findings. A thread that was given up is amber.
fn state(thread: &record::Summary) -> String {
    let open = match thread.open {
        0 => String::new(),
        open => format!(" ({open} open)"),
    };
    match thread.state.as_str() {
        "given_up" => styled(WARN, &format!("given_up{open}")),
        state => format!("{state}{open}"),
    }
}

/// Refuses an unknown state.
fn expect_state(name: &str) -> Result<()> {
    let known = serde_json::from_value::<State>(json!(name));
    known.map(drop).map_err(|error| {
        let message = format!("there is no such state: {error}");
        Error::new(Kind::Request, message, "Name one of these with --state, or leave it out.")
    })
}

/// Describes a filter, to follow "No threads".
fn described(filter: &Filter) -> String {
    let project = filter.project.as_ref().map(|project| format!(" of the project {project}"));
    let state = filter.state.as_ref().map(|state| format!(" in the state {state}"));
    let words = filter.words.as_ref().map(|words| format!(" with the words {words:?}"));
    [project, state, words].into_iter().flatten().collect()
}

/// Formats a time that has passed, in the largest unit that fits.
pub(super) fn age(seconds: i64) -> String {
    match seconds {
        ..60 => "just now".to_owned(),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..86_400 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
