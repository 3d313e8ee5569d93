//! `kimi-bridge demo`: a consultation from end to end with nothing installed.
//!
//! A small sample project is unpacked into a temporary folder, and a stand-in that is part of this
//! binary is consulted about it as a real child process, along the very path that a Kimi takes.

use std::path::Path;

use super::Stop;
use super::render::{self, BOLD, DIM, paragraph, styled, width};
use super::sample;
use crate::cli::Demo;
use crate::consult::result::Finding;
use crate::consult::{ConsultResult, Request, Role, export, record_decision};
use crate::error::{Error, Kind, Result};
use crate::kimi::{Dialect, Program, program};
use crate::settings::Loaded;
use serde_json::{Value, json};

pub(super) async fn run(args: &Demo, loaded: Loaded, stop: &Stop) -> Result<u8> {
    let folder = tempfile::tempdir().map_err(|error| cannot(&error))?;
    let project = folder.path().join("tally");
    sample::unpack(&project).map_err(|error| cannot(&error))?;
    let state_dir = loaded.state_dir().to_owned();
    let installed = program::find(&loaded, stop.watch()).await;
    let (program, loaded, asked) = if args.with_kimi {
        let program = installed.clone()?;
        let asked = format!("{} {} is asked", program.dialect, program.version);
        (program, loaded, asked)
    } else {
        let asked =
            "A stand-in answers: a fixed list of checks that is part of kimi-bridge, no model"
                .to_owned();
        (stand_in(&loaded)?, apart(loaded, folder.path()), asked)
    };
    let mut fields = Role::Skeptic.example();
    fields["work_dir"] = json!(project);
    fields["files"] = json!(["src/store.rs"]);
    if !args.json {
        let proposal = fields["context"]["proposed_approach"].as_str().unwrap_or_default();
        let message = fields["message"].as_str().unwrap_or_default();
        super::print(&format!(
            "{} tally, a sample of three files\n{} {proposal}\n{} {message}\n{}\n\n",
            styled(BOLD, "Project "),
            styled(BOLD, "Proposal"),
            styled(BOLD, "Question"),
            styled(DIM, &format!("{asked}.")),
        ))?;
    }
    let fields = fields.as_object().cloned().unwrap_or_default();
    let first = super::consult_live(Request(fields), &loaded, Some(program.clone()), stop).await?;
    if args.json || args.with_kimi {
        let code = super::show(&first, args.json)?;
        if !args.json {
            super::print(&next_step(args, installed))?;
        }
        return Ok(code);
    }
    super::print(&round_of("Round 1: Kimi challenges", &first))?;
    let Some(thread) = &first.thread else {
        return Err(Error::new(
            Kind::Ledger,
            "the demo's thread is not remembered",
            "Check the temporary folder.",
        ));
    };
    let answers = adjudications(&first);
    super::print(&spoken(&adjudications_text(&answers)))?;
    let answers = json!({"thread_id": thread.id, "prior_exchange": {"adjudications": answers}});
    let answers = answers.as_object().cloned().unwrap_or_default();
    let second = super::consult_live(Request(answers), &loaded, Some(program), stop).await?;
    super::print(&round_of("Round 2: Kimi answers the rejection", &second))?;
    let decision = json!({"thread_id": thread.id, "decision": DECISION, "rationale": RATIONALE});
    let standing =
        record_decision(&Request(decision.as_object().cloned().unwrap_or_default()), &loaded)?;
    let records = keep(&state_dir, &loaded, &thread.id)?;
    super::print(&spoken(&format!(
        "{} {DECISION} {RATIONALE}\nThe thread is {}. The whole argument lies in\n  {records}",
        styled(BOLD, "Decision"),
        standing.state.name(),
    )))?;
    super::print(&next_step(args, installed))?;
    Ok(0)
}

const REJECTED: &str = "Asking for a key that was never added panics.";
const REASON: &str =
    "Nobody asks for another key: src/main.rs:6 adds the only one before src/main.rs:7 reads it.";
const DECISION: &str =
    "Return write errors, stop at a torn line, and count in 64 bits before this ships.";
const RATIONALE: &str = "The adopted findings lose data; the rejected one was withdrawn on a fact.";

/// What the demo's caller answers: it adopts all but one finding.
fn adjudications(first: &ConsultResult) -> Vec<Value> {
    let answer = |finding: &Finding| {
        if finding.claim == REJECTED {
            json!({"finding": finding.id, "verdict": "REJECT", "reasoning": REASON})
        } else {
            json!({"finding": finding.id, "verdict": "ADOPT"})
        }
    };
    first.findings.iter().map(answer).collect()
}

/// The same in words.
fn adjudications_text(answers: &[Value]) -> String {
    let said = |answer: &Value, field: &str| answer[field].as_str().unwrap_or_default().to_owned();
    let lines = answers.iter().map(|answer| {
        let head = format!("{} {}", said(answer, "finding"), said(answer, "verdict"));
        if answer["reasoning"].is_null() {
            head
        } else {
            format!("{head}: {}", said(answer, "reasoning"))
        }
    });
    let lines: Vec<String> = lines.collect();
    format!("{}\n{}", styled(BOLD, "The caller answers every finding"), lines.join("\n"))
}

fn round_of(title: &str, result: &ConsultResult) -> String {
    // What to type next is the demo's own affair.
    let result = ConsultResult { thread: None, ..result.clone() };
    format!("{}\n\n{}\n", styled(BOLD, title), render::result(&result, width()))
}

fn spoken(text: &str) -> String {
    format!("{}\n", paragraph(text, "", "   ", width()))
}

/// Writes the record where it can be looked at after the demo's own state is gone.
fn keep(state_dir: &Path, loaded: &Loaded, id: &str) -> Result<String> {
    let record = crate::consult::record::load(loaded, id)?;
    let folder = state_dir.join("demo");
    let write = |name: &str, text: String| {
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join(name), text))
            .map_err(|e| cannot(&e))
    };
    write("thread.md", export::markdown(&record)?)?;
    write("thread.html", export::html(&record)?)?;
    Ok(format!(
        "{} (open it in a browser, or read thread.md beside it)",
        folder.join("thread.html").display()
    ))
}

fn stand_in(loaded: &Loaded) -> Result<Program> {
    let path = std::env::current_exe().map_err(|error| cannot(&error))?;
    tracing::debug!(mode = ?loaded.settings.mode(), "the stand-in is {}", path.display());
    Ok(Program {
        path,
        leading_args: vec!["stand-in".into()],
        dialect: Dialect::KimiCode,
        version: "stand-in".to_owned(),
        found: "the demo".to_owned(),
    })
}

/// The same settings, with state and home in a folder that goes away.
fn apart(mut loaded: Loaded, folder: &Path) -> Loaded {
    loaded.settings.state_dir = Some(folder.join("state"));
    loaded.environment.home = folder.join("home");
    let told = |(name, _): &&(String, String)| name != Dialect::KimiCode.home_variable();
    loaded.environment.vars = loaded.environment.vars.iter().filter(told).cloned().collect();
    loaded
}

fn next_step(args: &Demo, installed: Result<Program>) -> String {
    let text = match installed {
        _ if args.with_kimi => "That was your Kimi. Register the bridge with Claude Code: \
             claude mcp add kimi-bridge -e KIMI_BRIDGE_TOOL_ENABLED=1 -- kimi-bridge serve"
            .to_owned(),
        Ok(program) => format!(
            "That was the stand-in. {} {} is installed: `kimi-bridge demo --with-kimi` asks it the same.",
            program.dialect, program.version
        ),
        Err(error) => format!("That was the stand-in, since {}. {}", error.message, error.hint),
    };
    format!("\n{}", styled(DIM, &paragraph(&text, "", "", width())))
}

fn cannot(error: &std::io::Error) -> Error {
    Error::new(
        Kind::Spawn,
        format!("the demo could not be set up: {error}"),
        "Check the temporary folder.",
    )
}
