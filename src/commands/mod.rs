//! The shell commands, and the only room that prints: results to standard output, everything else to standard error.

mod consult;
mod demo;
mod doctor;
mod flags;
mod guard;
mod hook;
mod output;
mod packaging;
mod render;
mod roles;
mod runs;
mod sample;
mod setup;
mod shutdown;
mod stand_in;
mod status;
mod status_line;
mod threads;

use std::io::{IsTerminal as _, Write as _};

use clap::Parser as _;
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::output::{json, print};
use self::shutdown::ShutdownSignals;
use crate::cli::{Cli, Command};
use crate::error::{Error, Kind, Result};
use crate::job::secrets;
use crate::kimi::guard::COMMAND as GUARD;
use crate::mcp;
use crate::sandbox::{self, keeper};
use crate::settings::{self, Config, Environment};

/// The exit code after Ctrl-C, by the convention of shells.
const INTERRUPTED: u8 = 130;

/// Runs the command line, and returns the exit code.
#[must_use]
pub fn main() -> u8 {
    sandbox::close_inherited_descriptors();
    // The keeper comes first, because it must stay a process with one thread.
    let mut args = std::env::args_os().skip(1);
    let cli = match args.next() {
        Some(command) if command == keeper::COMMAND => return keeper::main(args),
        Some(command) if command == GUARD => return guard::main(args),
        Some(command) if command == hook::COMMAND => return hook::main(args),
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
            // A closed standard error leaves no way to report anything.
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
    // The error is on standard error anyway.
    let _ = json(&error.report()).and_then(|text| print(&text));
}

/// Runs a command. `interrupted` fires when the user presses Ctrl-C.
fn run(cli: Cli, interrupted: &CancellationToken) -> Result<u8> {
    let debug = if cli.debug { vec![("debug", "true".to_owned())] } else { Vec::new() };
    let environment = Environment::of_this_process()?;
    let config = settings::load_what_fits(environment, &debug)?;
    log_to_stderr(&config);
    match cli.command {
        // The doctor uses the valid settings and reports the others. Completions and man pages need no settings: a
        // broken one must not disturb the start of a shell or the build of a package.
        Command::Doctor(_) | Command::Completions(_) | Command::Man(_) => {}
        // A host does not show why a server ended, so this server keeps running and reports the problem.
        Command::Serve if !config.misfits.is_empty() => tracing::error!("{}", config.mode_hint()),
        _ if !config.misfits.is_empty() => return Err(settings::unusable(config.misfits)),
        _ => {
            for name in &config.unknown {
                tracing::warn!("{name} is no setting of this version");
            }
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
    let environment = config.environment.clone();
    let code = runtime.block_on(async {
        let stop = ShutdownSignals::on_signals(&config.settings, interrupted)?;
        match cli.command {
            Command::Serve => Box::pin(mcp::serve(config, stop.asked)).await.map(|()| 0),
            Command::Setup(args) => Box::pin(setup::run(&args, &config, &stop)).await,
            Command::Consult(args) => consult::run(args, &config, &stop).await,
            Command::Roles(args) => roles::run(&args),
            Command::Demo(args) => Box::pin(demo::run(&args, config, &stop)).await,
            Command::Threads(args) => threads::run(&args, &config),
            Command::Runs(args) => runs::run(&args, &config),
            Command::Status(args) => status::run(&args, &config, &stop).await,
            Command::Doctor(args) => doctor::run(&args, &config, &stop).await,
            Command::Completions(args) => packaging::completions(&args),
            Command::Man(args) => packaging::man_pages(&args),
        }
    });
    // A thread may still be blocked on standard input.
    runtime.shutdown_background();
    code.map_err(|error| secrets::redact_error(error, &environment))
}

/// Logs the bridge's own messages only. Its libraries log whole requests before redaction, and a warning for every
/// refused request and every closed connection.
fn log_to_stderr(config: &Config) {
    let (own, others) = if config.settings.debug {
        (LevelFilter::DEBUG, LevelFilter::WARN)
    } else {
        (LevelFilter::WARN, LevelFilter::OFF)
    };
    let ours = Targets::new().with_target("kimi_bridge", own).with_default(others);
    let colours = std::io::stderr().is_terminal() && config.environment.var("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    tracing_subscriber::registry().with(lines).with(ours).init();
}
