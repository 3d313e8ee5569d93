//! Runs `--version` of a program, and explains why it fails. It does not choose a program.

use std::path::Path;
use std::time::Duration;

use super::dialect::{Dialect, Identity};
use super::invocation::{Invocation, Under};
use super::node::{self, Node};
use super::profile::profiles;
use super::reply::{Deadline, Limits, Watch};
use super::run::{self, Printed};
use super::start_failure::{self, StartFailure};
use super::text::clean;
use super::{confinement, folders};
use crate::error::{Error, Kind};
use crate::redact::Secrets;
use crate::settings::Config;

/// The time limit of `kimi --version`; a Python on a cold disk needs seconds.
const VERSION_SECONDS: u64 = 30;
/// The size limit of the output.
const VERSION_BYTES: u64 = 64 * 1024;
/// The most characters of the output that an error quotes.
const OUTPUT_CHARS: usize = 300;

/// Returns the output of a program for an error to quote: short, on one line, without secrets.
pub(super) fn repeated(config: &Config, output: &str) -> String {
    let secrets = Secrets::load(&config.environment.config_dir, &config.environment.vars);
    // The consultation itself reports an unusable file of secrets.
    let secrets = secrets.unwrap_or_default();
    let output = secrets.redact_start(clean(output.trim()).trim(), OUTPUT_CHARS);
    output.as_str().replace('\n', " ")
}

/// Returns the output of `kimi --version`, which runs inside the sandbox.
pub(super) async fn ask_version(
    config: &Config,
    project: &Path,
    path: &Path,
    watch: Watch<'_>,
) -> Result<String, StartFailure> {
    let printed = print_version(config, project, path, path, watch).await;
    let (Printed { text, has_failed }, under) = printed.map_err(|why| unanswered(path, why))?;
    if Dialect::identify(&text) != Identity::Unknown {
        return Ok(text);
    }
    if has_failed && let Some(error) = Box::pin(node_problem(config, project, path, watch)).await {
        return Err(error.into());
    }
    if let Under::Sandbox(rules) = under
        && let Some(failure) =
            start_failure::explain(&text, &rules, &config.environment.home, &Secrets::default())
    {
        return Err(failure);
    }
    let output = if text.trim().is_empty() { "nothing printed" } else { text.trim() };
    if has_failed {
        let message = format!("{} does not start: {}", path.display(), repeated(config, output));
        return Err(Error::from_kind(Kind::Spawn, message).into());
    }
    Ok(output.to_owned())
}

/// Explains that a program was ended before it printed its version.
fn unanswered(path: &Path, why: StartFailure) -> StartFailure {
    match why.error.kind {
        Kind::TimedOut | Kind::Stalled | Kind::TooMuchOutput | Kind::Crashed => {
            let path = path.display();
            let message = format!("{path} does not answer `--version`: {}", why.error.message);
            Error::from_kind(Kind::Spawn, message).into()
        }
        _ => why,
    }
}

/// Returns the Node that a program runs on; `None` if it needs none.
pub(super) async fn find_node(
    config: &Config,
    project: &Path,
    program: &Path,
    watch: Watch<'_>,
) -> Option<Node> {
    if !node::is_script(program) {
        return None;
    }
    let Some(path) = node::on_path(program, &config.environment) else {
        return Some(Node::Missing);
    };
    let (printed, _) = print_version(config, project, program, &path, watch).await.ok()?;
    let version = repeated(config, &printed.text);
    Some(Node::Found(path, version))
}

/// Returns the Node on `PATH`, for a machine without Kimi. The state folder is a temporary one, so that nothing stays.
pub(super) async fn node_on_path(
    config: &Config,
    project: &Path,
    watch: Watch<'_>,
) -> Option<Node> {
    let path = config.environment.var("PATH");
    let Ok(node) = which::which_in("node", path, &config.environment.current_dir) else {
        return Some(Node::Missing);
    };
    let folder = tempfile::tempdir().ok()?;
    let mut config = config.clone();
    config.settings.state_dir = Some(folder.path().to_owned());
    let (printed, _) = print_version(&config, project, &node, &node, watch).await.ok()?;
    let version = repeated(&config, &printed.text);
    Some(Node::Found(node, version))
}

async fn node_problem(
    config: &Config,
    project: &Path,
    program: &Path,
    watch: Watch<'_>,
) -> Option<Error> {
    find_node(config, project, program, watch).await?.problem()
}

/// Adds a missing or too old Node to the error of a program that ended without output. The version of the program is
/// cached, but its Node may have changed since.
pub(super) async fn with_node(
    mut error: Error,
    config: &Config,
    project: &Path,
    program: &Path,
    watch: Watch<'_>,
) -> Error {
    if let Some(node) = node_problem(config, project, program, watch).await {
        error.message = format!("{}; {}", node.message, error.message);
        error.kind = node.kind;
        error.hint = node.hint;
    }
    error
}

/// Runs `--version` of a file that belongs to a program, in the sandbox of that program.
async fn print_version(
    config: &Config,
    project: &Path,
    program: &Path,
    file: &Path,
    watch: Watch<'_>,
) -> Result<(Printed, Under), StartFailure> {
    let run_dir = folders::create_run_folder(config.state_dir())?;
    let confinement =
        confinement::for_version(config, program, run_dir.path(), project, &|| watch.is_over())?;
    let mut env = profiles().environment(program, &config.environment, &[]);
    let temporary = folders::temporary(run_dir.path());
    // Kimi creates its data folder even for `--version`. A temporary one keeps later runs free of files from a program
    // that is no Kimi.
    for dialect in Dialect::ALL {
        let home = temporary.join(dialect.home_folder());
        folders::make(&home)?;
        env.insert(dialect.home_variable().to_owned(), home.display().to_string());
    }
    env.insert("TMPDIR".to_owned(), temporary.display().to_string());
    let invocation = Invocation {
        program: file.to_owned(),
        args: vec!["--version".into()],
        env,
        work_dir: config.environment.current_dir.clone(),
        stdin: String::new(),
        under: confinement.under,
    };
    let patience = Duration::from_secs(VERSION_SECONDS);
    let limits = Limits {
        first_line: patience,
        silence: patience,
        grace: Duration::from_millis(500),
        run_bytes: VERSION_BYTES,
        ..Limits::from_settings(&config.settings, Dialect::KimiCode, Deadline::after(patience))
    };
    let quietly = Watch { progress: &|_| {}, ..watch };
    let printed = run::text(&invocation, &limits, quietly).await?;
    Ok((printed, invocation.under))
}
