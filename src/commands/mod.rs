//! The shell commands, and the only room that prints: answers to standard output, everything else
//! to standard error.

mod consult;
mod demo;
mod doctor;
mod flags;
mod guard;
mod render;
mod roles;
mod sample;
mod stand_in;
mod status;
mod threads;

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::Parser as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::{Cli, Command};
use crate::consult::{ConsultResult, Request, secrets};
use crate::error::{Error, Kind, Result};
use crate::kimi::guard::COMMAND as GUARD;
use crate::kimi::{Program, Progress, Watch};
use crate::mcp;
use crate::sandbox::{self, keeper};
use crate::settings::{self, Environment, Loaded, Settings};

/// The exit code of an answer that could not be read.
const UNREADABLE: u8 = 4;
/// The exit code of a command that Ctrl-C ended, as shells have it.
const INTERRUPTED: u8 = 130;

/// Reads the command line, does what it says, and returns the exit code.
#[must_use]
pub fn main() -> u8 {
    sandbox::close_inherited_descriptors();
    // Before anything else is read or started: the keeper must stay a process of one thread.
    let mut args = std::env::args_os().skip(1);
    let cli = match args.next() {
        Some(command) if command == keeper::COMMAND => return keeper::main(args),
        Some(command) if command == GUARD => return guard::main(args),
        Some(command) if command == stand_in::COMMAND => return stand_in::main(args),
        _ => Cli::try_parse(),
    };
    let as_json = std::env::args_os().any(|argument| argument == "--json");
    let interrupted = CancellationToken::new();
    match cli.map(|cli| run(cli, &interrupted)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            if as_json {
                print_report(&error);
            }
            // Nothing can be done about a standard error that is closed.
            let _ = write!(anstream::stderr(), "{}", render::error(&flags::at_the_shell(&error)));
            match error.kind {
                Kind::Cancelled if interrupted.is_cancelled() => INTERRUPTED,
                kind => kind.exit_code(),
            }
        }
        Err(usage) => {
            if as_json && usage.use_stderr() {
                let text = usage.to_string();
                let first = text.lines().next().unwrap_or_default();
                let message = first.strip_prefix("error: ").unwrap_or(first);
                let hint = "`kimi-bridge help` lists the commands and their arguments.";
                print_report(&Error::new(Kind::Request, message, hint));
            }
            let _ = usage.print();
            u8::try_from(usage.exit_code()).unwrap_or(Kind::Request.exit_code())
        }
    }
}

/// Prints an error as JSON to standard output, where a script expects the result.
fn print_report(error: &Error) {
    // Whoever reads standard error learns of the error all the same.
    let _ = json(&error.report()).and_then(|text| print(&text));
}

/// Runs a command. `interrupted` fires when the user presses Ctrl-C.
fn run(cli: Cli, interrupted: &CancellationToken) -> Result<u8> {
    let debug = if cli.debug { vec![("debug", "true".to_owned())] } else { Vec::new() };
    let environment = Environment::of_this_process()?;
    let (loaded, misfits) = settings::load_what_fits(environment, &debug)?;
    log_to_stderr(&loaded);
    // The doctor goes on with what can be used, and names the rest in its report.
    if !matches!(cli.command, Command::Doctor(_)) {
        if !misfits.is_empty() {
            return Err(settings::unusable(misfits));
        }
        for name in &loaded.unknown {
            tracing::warn!("{name} is no setting of this version");
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| {
            let hint = "Free memory or file handles and try again.";
            Error::new(Kind::Spawn, format!("no runtime: {error}"), hint)
        })?;
    let environment = loaded.environment.clone();
    let code = runtime.block_on(async {
        let stop = ShutdownSignals::on_signals(&loaded.settings, interrupted)?;
        match cli.command {
            Command::Serve => Box::pin(mcp::serve(loaded, stop.asked)).await.map(|()| 0),
            Command::Consult(args) => consult::run(args, &loaded, &stop).await,
            Command::Roles(args) => roles::run(&args),
            Command::Demo(args) => Box::pin(demo::run(&args, loaded, &stop)).await,
            Command::Threads(args) => threads::run(&args, &loaded),
            Command::Status(args) => status::run(&args, &loaded, &stop).await,
            Command::Doctor(args) => doctor::run(&args, &loaded, &misfits, &stop).await,
        }
    });
    // A thread may still be reading a standard input that does not end.
    runtime.shutdown_background();
    code.map_err(|error| secrets::redact_error(error, &environment))
}

/// The bridge's own words; those of its libraries repeat whole requests, before any redaction, and warn of every
/// refusal and every host that has left.
fn log_to_stderr(loaded: &Loaded) {
    let (own, others) = if loaded.settings.debug {
        (LevelFilter::DEBUG, LevelFilter::WARN)
    } else {
        (LevelFilter::WARN, LevelFilter::OFF)
    };
    let ours = Targets::new().with_target("kimi_bridge", own).with_default(others);
    let colours = std::io::stderr().is_terminal() && loaded.environment.var("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    tracing_subscriber::registry().with(lines).with(ours).init();
}

/// The reaction to SIGINT, SIGTERM and SIGHUP.
struct ShutdownSignals {
    /// Fired by the first signal: ends the run in good order.
    asked: CancellationToken,
    /// Fired by the second: ends the run at once.
    at_once: CancellationToken,
    /// How many Kimis may run at once.
    places: Semaphore,
}

impl ShutdownSignals {
    fn on_signals(settings: &Settings, interrupted: &CancellationToken) -> Result<ShutdownSignals> {
        // A handler in place of what the bridge was started with: where SIGCHLD is ignored, no program can be waited
        // for. It stays when its listener is dropped.
        let _ = signal(SignalKind::child());
        let (asked, at_once) = (CancellationToken::new(), CancellationToken::new());
        let stop =
            ShutdownSignals { asked, at_once, places: Semaphore::new(settings.max_parallel) };
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let mut signals = signal(kind).map_err(|error| {
                Error::new(Kind::Spawn, format!("signals cannot be watched: {error}"), "Try again.")
            })?;
            let (asked, at_once) = (stop.asked.clone(), stop.at_once.clone());
            let interrupted = (kind == SignalKind::interrupt()).then(|| interrupted.clone());
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    if let Some(interrupted) = &interrupted {
                        interrupted.cancel();
                    }
                    if asked.is_cancelled() {
                        at_once.cancel();
                    }
                    asked.cancel();
                }
            });
        }
        Ok(stop)
    }

    /// A caller without progress messages.
    fn watch(&self) -> Watch<'_> {
        let ShutdownSignals { asked: cancel, at_once: closing, places } = self;
        Watch { progress: &|_| {}, cancel, closing, places }
    }
}

/// Consults with a live status line, where standard error is a terminal.
async fn consult_live(
    request: Request,
    loaded: &Loaded,
    program: Option<Program>,
    stop: &ShutdownSignals,
) -> Result<ConsultResult> {
    let line = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {wide_msg}") {
        line.set_style(style);
    }
    line.enable_steady_tick(Duration::from_millis(120));
    let progress = |progress: &Progress| line.set_message(progress.to_string());
    let watch = Watch { progress: &progress, ..stop.watch() };
    let result = crate::consult::consult(request, loaded, program, watch).await;
    line.finish_and_clear();
    result
}

/// A request from the fields of a JSON object.
fn request(fields: Value) -> Request {
    Request(serde_json::from_value(fields).unwrap_or_default())
}

/// Prints a result and returns the exit code that says whether it could be read.
fn show(result: &ConsultResult, as_json: bool) -> Result<u8> {
    let text = if as_json { json(result)? } else { render::result(result, render::width())? };
    print(&text)?;
    Ok(if result.parse_ok { 0 } else { UNREADABLE })
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|error| {
        let message = format!("the result could not be written: {error}");
        Error::new(Kind::Crashed, message, "Please report it.")
    })
}

/// Writes to standard output. A reader that has left, such as `head`, is no error.
fn print(text: &str) -> Result<()> {
    let mut stdout = anstream::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let message = format!("standard output: {error}");
            Err(Error::new(Kind::Crashed, message, "Check where the output goes."))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
