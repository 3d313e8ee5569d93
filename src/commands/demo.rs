//! `kimi-bridge demo`: a consultation from end to end with nothing installed.
//!
//! A small sample project is unpacked into a temporary folder, and a stand-in that is part of this
//! binary is consulted about it as a real child process, along the very path that a Kimi takes.

use std::path::Path;

use super::Stop;
use super::render::{BOLD, DIM, paragraph, styled, width};
use crate::cli::Demo;
use crate::consult::{Request, Role};
use crate::error::{Error, Kind, Result};
use crate::kimi::{Dialect, Program, program};
use crate::settings::Loaded;
use serde_json::json;

const SAMPLE: [(&str, &str); 3] = [
    ("Cargo.toml", include_str!("../../demo/tally/Cargo.toml")),
    ("src/main.rs", include_str!("../../demo/tally/src/main.rs")),
    ("src/store.rs", include_str!("../../demo/tally/src/store.rs")),
];

pub(super) async fn run(args: &Demo, loaded: Loaded, stop: &Stop) -> Result<u8> {
    let folder = tempfile::tempdir().map_err(|error| cannot(&error))?;
    let project = folder.path().join("tally");
    unpack(&project).map_err(|error| cannot(&error))?;
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
    let result = super::consult_live(Request(fields), &loaded, Some(program), stop).await?;
    let code = super::show(&result, args.json)?;
    if !args.json {
        super::print(&next_step(args, installed))?;
    }
    Ok(code)
}

fn unpack(project: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(project.join("src"))?;
    SAMPLE.iter().try_for_each(|(name, text)| std::fs::write(project.join(name), text))
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
    loaded.environment.vars.remove(Dialect::KimiCode.home_variable());
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
