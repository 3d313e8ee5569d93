//! `kimi-bridge demo`: a complete consultation that needs no Kimi.
//!
//! Unpacks a small sample project into a temporary folder, and runs a stand-in, which is part of this binary, as a
//! child process in place of Kimi. All other code is that of a real consultation.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::render::{self, BOLD, DIM, paragraph, styled, width};
use super::shutdown::ShutdownSignals;
use super::{output, sample, stand_in, status_line};
use crate::cli::Demo;
use crate::consult::answer::Finding;
use crate::consult::{ConsultResult, Role, export, record_decision};
use crate::error::{Error, Kind, Result};
use crate::kimi::{Dialect, Program, folders, program};
use crate::settings::Config;

pub(super) async fn run(args: &Demo, config: Config, stop: &ShutdownSignals) -> Result<u8> {
    let folder = tempfile::tempdir().map_err(|error| setup_error(&error))?;
    let project = folder.path().join("tally");
    sample::unpack(&project).map_err(|error| setup_error(&error))?;
    let state_dir = config.state_dir().to_owned();
    let installed = program::find(&config, &config.environment.current_dir, stop.watch()).await;
    let (program, mut config, asked) = if args.with_kimi {
        let program = installed.clone()?;
        let asked = format!("{} {} is asked.", program.dialect, program.version);
        (program, config, asked)
    } else {
        let asked =
            "A stand-in answers: two recorded answers that are part of kimi-bridge, no model.";
        (stand_in_program()?, with_own_folders(config, folder.path()), asked.to_owned())
    };
    // The temporary folder may be inside a folder that the sandbox hides.
    config.settings.readable.push(project.clone());
    let mut fields = Role::Skeptic.example();
    fields["work_dir"] = json!(project);
    fields["files"] = json!(["src/store.rs"]);
    if !args.json {
        output::print(&format!(
            "{} tally, a sample of three files\n{} {}\n{} {}\n{}\n\n",
            styled(BOLD, "Project "),
            styled(BOLD, "Proposal"),
            fields["context"]["proposed_approach"].as_str().unwrap_or_default(),
            styled(BOLD, "Question"),
            fields["message"].as_str().unwrap_or_default(),
            styled(DIM, &asked),
        ))?;
    }
    let first =
        status_line::consult(status_line::request(fields), &config, Some(program.clone()), stop)
            .await?;
    if args.json || args.with_kimi {
        let code = output::show(&first, args.json)?;
        if !args.json {
            output::print(&next_step(args, installed))?;
        }
        return Ok(code);
    }
    output::print(&round("Round 1: Kimi challenges", &first)?)?;
    let Some(thread) = &first.thread else {
        return Err(Error::new(
            Kind::Ledger,
            "the demo's thread is not remembered",
            "Check the temporary folder.",
        ));
    };
    let mut spoken = styled(BOLD, "The caller answers every finding");
    let mut adjudications = Vec::new();
    for Finding { id, claim, .. } in &first.answer.findings {
        // The demo's caller adopts all findings but one.
        if claim == REJECTED {
            adjudications.push(json!({"finding": id, "verdict": "REJECT", "reasoning": REASON}));
            let _ = write!(spoken, "\n{id} REJECT: {REASON}");
        } else {
            adjudications.push(json!({"finding": id, "verdict": "ADOPT"}));
            let _ = write!(spoken, "\n{id} ADOPT");
        }
    }
    output::print(&wrapped(&spoken))?;
    let answers = status_line::request(
        json!({"thread_id": thread.id, "prior_exchange": {"adjudications": adjudications}}),
    );
    let second = status_line::consult(answers, &config, Some(program), stop).await?;
    output::print(&round("Round 2: Kimi answers the rejection", &second)?)?;
    let decision = status_line::request(
        json!({"thread_id": thread.id, "decision": DECISION, "rationale": RATIONALE}),
    );
    let standing = record_decision(&decision, &config)?;
    let page = save(&state_dir, &config, &thread.id)?;
    output::print(&wrapped(&format!(
        "{} {DECISION} {RATIONALE}\nThe thread is {}. The whole argument is in\n  {} (open it in a browser, \
         or read thread.md beside it)",
        styled(BOLD, "Decision"),
        standing.state.name(),
        page.display(),
    )))?;
    output::print(&next_step(args, installed))?;
    Ok(0)
}

const REJECTED: &str = "Asking for a key that was never added panics.";
const REASON: &str =
    "Nobody asks for another key: src/main.rs:6 adds the only one before src/main.rs:7 reads it.";
const DECISION: &str =
    "Return write errors, stop at a torn line, and count in 64 bits before this ships.";
const RATIONALE: &str = "The adopted findings lose data; the rejected one was withdrawn on a fact.";

fn round(title: &str, result: &ConsultResult) -> Result<String> {
    // The next step would be shown with the thread, but the demo takes it itself.
    let result = ConsultResult { thread: None, ..result.clone() };
    Ok(format!("{}\n\n{}\n", styled(BOLD, title), render::result(&result, width())?))
}

fn wrapped(text: &str) -> String {
    format!("{}\n", paragraph(text, "", "   ", width()))
}

/// Saves the thread in the user's state folder, since the demo's own is temporary. Returns the path of the HTML page.
fn save(state_dir: &Path, config: &Config, id: &str) -> Result<PathBuf> {
    let record = crate::consult::record::load(config, id)?;
    let folder = state_dir.join("demo");
    let page = folder.join("thread.html");
    let (markdown, html) = (export::markdown(&record)?, export::html(&record)?);
    folders::make_private(state_dir)?;
    folders::make_private(&folder)?;
    fs::write(folder.join("thread.md"), markdown)
        .and_then(|()| fs::write(&page, html))
        .map_err(|error| setup_error(&error))?;
    Ok(page)
}

fn stand_in_program() -> Result<Program> {
    Ok(Program {
        path: std::env::current_exe().map_err(|error| setup_error(&error))?,
        leading_args: vec![stand_in::COMMAND.into()],
        dialect: Dialect::KimiCode,
        version: "stand-in".to_owned(),
        found: "the demo".to_owned(),
    })
}

/// Moves the state folder and the home to a temporary folder, so that the demo leaves the user's own ones alone.
fn with_own_folders(mut config: Config, folder: &Path) -> Config {
    config.settings.state_dir = Some(folder.join("state"));
    config.environment.home = folder.join("home");
    let kept = |(name, _): &&(String, String)| name != Dialect::KimiCode.home_variable();
    config.environment.vars = config.environment.vars.iter().filter(kept).cloned().collect();
    config
}

fn next_step(args: &Demo, installed: Result<Program>) -> String {
    let text = match installed {
        _ if args.with_kimi => {
            "That was your Kimi. `kimi-bridge setup` registers the bridge with your agents."
                .to_owned()
        }
        Ok(program) => format!(
            "That was the stand-in. {} {} is installed: `kimi-bridge demo --with-kimi` asks it the same.",
            program.dialect, program.version
        ),
        Err(error) => format!("That was the stand-in, since {}. {}", error.message, error.hint),
    };
    format!("\n{}", styled(DIM, &paragraph(&text, "", "", width())))
}

fn setup_error(error: &std::io::Error) -> Error {
    Error::new(
        Kind::Spawn,
        format!("the demo could not be set up: {error}"),
        "Check the temporary folder.",
    )
}
