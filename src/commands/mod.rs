//! The shell commands, and the only room that prints: answers to standard output, everything else
//! to standard error.

mod consult;
mod demo;
mod render;
mod roles;
mod serve;
mod stand_in;
mod status;

use std::io::Write as _;
use std::time::Duration;

use clap::Parser as _;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::{Cli, Command};
use crate::consult::{ConsultResult, Request};
use crate::error::{Error, Kind, Result};
use crate::kimi::{Program, Progress, Watch};
use crate::settings::{self, Environment, Loaded};

/// The exit code of an answer that could not be read.
const UNREADABLE: u8 = 4;

/// Reads the command line, does what it says, and returns the exit code.
#[must_use]
pub fn main() -> u8 {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            // Nothing can be done about a standard error that is closed.
            let _ = write!(anstream::stderr(), "{}", render::error(&error));
            error.kind.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<u8> {
    if let Command::StandIn(args) = &cli.command {
        return stand_in::run(args);
    }
    let debug = if cli.debug { vec![("debug", "true".to_owned())] } else { Vec::new() };
    let loaded = settings::load(Environment::of_this_process()?, &debug)?;
    log_to_stderr(&loaded);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
            Error::new(
                Kind::Spawn,
                format!("no runtime: {error}"),
                "Free memory or file handles and try again.",
            )
        })?;
    let code = runtime.block_on(async {
        let stop = stop_on_signals()?;
        match cli.command {
            Command::Serve => serve::run(loaded, stop).await,
            Command::Consult(args) => consult::run(args, &loaded, &stop).await,
            Command::Roles(args) => roles::run(&args),
            Command::Demo(args) => demo::run(&args, loaded, &stop).await,
            Command::Status(args) => status::run(&args, &loaded).await,
            Command::StandIn(_) => Ok(0),
        }
    });
    // A thread may still be reading a standard input that does not end; nobody waits for it.
    runtime.shutdown_background();
    code
}

fn log_to_stderr(loaded: &Loaded) {
    let level = if loaded.settings.debug { tracing::Level::DEBUG } else { tracing::Level::WARN };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).init();
    for name in &loaded.unknown {
        tracing::warn!("{name} is no setting of this version");
    }
}

/// A token that SIGINT, SIGTERM and SIGHUP fire.
fn stop_on_signals() -> Result<CancellationToken> {
    let stop = CancellationToken::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind).map_err(|error| {
            Error::new(Kind::Spawn, format!("signals cannot be watched: {error}"), "Try again.")
        })?;
        let stop = stop.clone();
        tokio::spawn(async move {
            signals.recv().await;
            stop.cancel();
        });
    }
    Ok(stop)
}

/// Consults with a live status line, where standard error is a terminal.
async fn consult_live(
    request: Request,
    loaded: &Loaded,
    program: Option<Program>,
    stop: &CancellationToken,
) -> Result<ConsultResult> {
    let line = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {wide_msg}") {
        line.set_style(style);
    }
    line.enable_steady_tick(Duration::from_millis(120));
    let progress = |progress: &Progress| line.set_message(progress.to_string());
    let never = CancellationToken::new();
    let watch = Watch { progress: &progress, cancel: stop, closing: &never };
    let result = crate::consult::consult(request, loaded, program, watch).await;
    line.finish_and_clear();
    result
}

/// Prints a result and returns the exit code that says whether it could be read.
fn show(result: &ConsultResult, as_json: bool) -> Result<u8> {
    let text = if as_json { json(result)? } else { render::result(result, render::width()) };
    print(&text)?;
    Ok(if result.parse_ok { 0 } else { UNREADABLE })
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|error| {
        Error::new(
            Kind::Crashed,
            format!("the result could not be written: {error}"),
            "Please report it.",
        )
    })
}

/// Writes to standard output. A reader that has left, such as `head`, is no error.
fn print(text: &str) -> Result<()> {
    let mut stdout = anstream::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::new(
            Kind::Crashed,
            format!("standard output: {error}"),
            "Check where the output goes.",
        )),
        Ok(()) | Err(_) => Ok(()),
    }
}
