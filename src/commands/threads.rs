//! `kimi-bridge threads`: the arguments that the ledger remembers.

use std::fmt::Write as _;

use serde_json::{Map, json};

use super::render::{BOLD, DIM, paragraph, styled, width};
use crate::cli::{Format, Threads, ThreadsCommand};
use crate::consult::record::Record;
use crate::consult::{Request, export, record_decision};
use crate::error::{Error, Kind, Result};
use crate::kimi::text::first_chars;
use crate::ledger::{Filter, Ledger, now};
use crate::settings::Loaded;

pub(super) fn run(args: &Threads, loaded: &Loaded) -> Result<u8> {
    let mut ledger = Ledger::open(loaded.state_dir())?;
    let text = match &args.command {
        None => list(args, loaded, &ledger)?,
        Some(ThreadsCommand::Show { id }) => {
            super::thread_text::thread(&record(&ledger, id)?, width())
        }
        Some(ThreadsCommand::Export { id, format }) => {
            let record = record(&ledger, id)?;
            match format {
                Format::Md => export::markdown(&record)?,
                Format::Html => export::html(&record)?,
                Format::Json => export::json(&record)?,
            }
        }
        Some(ThreadsCommand::Decide { id, decision, rationale }) => {
            let mut fields = Map::new();
            for (name, value) in
                [("thread_id", id), ("decision", decision), ("rationale", rationale)]
            {
                fields.insert(name.to_owned(), json!(value));
            }
            let standing = record_decision(&Request(fields), loaded)?;
            format!("{} is {}. {}\n", standing.id, standing.state.name(), standing.next)
        }
        Some(ThreadsCommand::Delete { id }) => {
            if !ledger.delete(id)? {
                return Err(unknown(id));
            }
            format!("{id} is forgotten.\n")
        }
    };
    super::print(&text)?;
    Ok(0)
}

fn record(ledger: &Ledger, id: &str) -> Result<Record> {
    let (row, rounds) = ledger.thread(id)?.ok_or_else(|| unknown(id))?;
    Record::of(&row, &rounds)
}

fn unknown(id: &str) -> Error {
    Error::new(Kind::Round, format!("there is no thread {id}"), "`kimi-bridge threads` lists them.")
}

fn list(args: &Threads, loaded: &Loaded, ledger: &Ledger) -> Result<String> {
    let project = args.project.as_ref().map(|dir| {
        let dir = loaded.environment.current_dir.join(dir);
        dir.canonicalize().unwrap_or(dir).display().to_string()
    });
    let filter = Filter {
        project,
        state: args.state.clone(),
        words: args.search.clone(),
        limit: args.limit,
    };
    let rows = ledger.threads(&filter)?;
    if args.json {
        let listed = rows.iter().map(|row| {
            let request: serde_json::Value = serde_json::from_str(&row.request).unwrap_or_default();
            json!({"id": row.id, "role": row.role, "project": row.project, "state": row.state,
                "message": request["message"], "opened_at": row.opened_at, "updated_at": row.updated_at})
        });
        return super::json(&listed.collect::<Vec<_>>());
    }
    if rows.is_empty() {
        return Ok("No threads.\n".to_owned());
    }
    let mut text = String::new();
    for row in rows {
        let request: serde_json::Value = serde_json::from_str(&row.request).unwrap_or_default();
        let message = request["message"].as_str().unwrap_or_default().replace('\n', " ");
        let head = format!(
            "{}  {:<9} {}  {}",
            styled(BOLD, &row.id),
            row.role,
            row.state,
            age(now() - row.updated_at)
        );
        let _ = writeln!(text, "{head}");
        text.push_str(&paragraph(
            first_chars(&message, 200),
            "            ",
            "            ",
            width(),
        ));
        let _ = writeln!(text, "            {}", styled(DIM, &row.project));
    }
    Ok(text)
}

/// How long ago, in the largest unit that says something.
fn age(seconds: i64) -> String {
    match seconds {
        ..60 => "just now".to_owned(),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..86_400 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
