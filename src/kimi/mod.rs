//! Runs both programs called `kimi`, and reads their output: a prompt goes in, a [`Reply`] comes out. This room
//! knows no role, no round and no finding.

mod address;
mod agent;
mod bound;
mod child;
pub(crate) mod confinement;
pub(crate) mod dialect;
pub mod event;
pub mod evidence;
pub(crate) mod examination;
mod failure;
pub(crate) mod folders;
pub(crate) mod guard;
pub(crate) mod home;
mod installation;
pub(crate) mod invocation;
pub mod lines;
pub(crate) mod login;
pub(crate) mod network;
pub(crate) mod node;
mod observe;
pub(crate) mod profile;
pub(crate) mod program;
mod queue;
mod record;
pub(crate) mod reply;
pub(crate) mod ripgrep;
mod run;
pub(crate) mod session;
mod start_failure;
pub(crate) mod status;
pub(crate) mod text;
mod token_file;
mod tokens;
pub(crate) mod transcript;
mod untrusted;
pub(crate) mod users;
mod version;

pub use self::dialect::Dialect;
pub(crate) use self::dialect::{Identity, Program};
pub use self::evidence::{Evidence, Seen};
pub(crate) use self::profile::Profile;
pub(crate) use self::reply::{Deadline, Progress, Reply, Watch};

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::json;

use self::confinement::Confinement;
use self::guard::GuardPolicy;
use self::home::{Home, HomeKey};
use self::invocation::{Invocation, RunPaths, Under, goes_by_file, invocation};
use self::reply::Limits;
use crate::error::{Error, Kind, Result};
use crate::redact::{Redacted, Secrets};
use crate::sandbox::Sandbox;
use crate::sandbox::rules::canonical;
use crate::sandbox::secret_files::Stop;
use crate::settings::Config;

/// One prompt for Kimi.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TurnRequest<'a> {
    /// The profile, which lists the allowed tools and selects the private home.
    pub(crate) profile: Profile,
    /// The system prompt.
    pub(crate) system_prompt: &'a str,
    /// The question.
    pub(crate) prompt: &'a Redacted,
    /// The secrets to remove from everything that the run returns or saves.
    pub(crate) secrets: &'a Secrets,
    /// The prompt to send if the question goes in a file; `{path}` is replaced by the path of the file.
    pub(crate) read_from_file: &'a str,
    /// The project, an existing folder.
    pub(crate) work_dir: &'a Path,
    /// The session to resume.
    pub(crate) resume: Option<&'a str>,
    pub(crate) deadline: Deadline,
    /// The file for everything that Kimi writes.
    pub(crate) transcript: Option<&'a Path>,
}

/// Takes a slot, prepares the folder of the run, runs Kimi, and returns its reply.
pub(crate) async fn ask(
    config: &Config,
    program: &Program,
    question: TurnRequest<'_>,
    watch: Watch<'_>,
) -> Result<Reply> {
    let _slot = queue::wait(&config.settings, question.deadline, watch).await?;
    let run_dir = folders::create_run_folder(config.state_dir())?;
    let stop = || watch.is_over();
    let prepared = prepare(config, program, run_dir.path(), question, &stop)?;
    let temporary = folders::open_temporary(run_dir.path())?;
    queue::expect_not_cancelled(watch)?;
    let Prepared { home, prompt, invocation, sandbox, closed, warnings } = prepared;
    let limits = Limits::from_settings(&config.settings, program.dialect, question.deadline);
    let began = SystemTime::now();
    let TurnRequest { secrets, transcript, .. } = question;
    let cancel = watch.cancel.child_token();
    let cancelling = Watch { cancel: &cancel, ..watch };
    let run = run::run(&invocation, program.dialect, &limits, secrets, transcript, cancelling);
    let run = bound::watch([&home.folder, &temporary], &cancel, Box::pin(run));
    let ((ran, is_over), not_renewed) = home.tokens.sync_during(Box::pin(run)).await;
    let with_session = |error| {
        let error = if is_over { bound::error(error) } else { error };
        let session = match question.resume {
            Some(session) => Some(session.to_owned()),
            // The run may have ended before Kimi named its session.
            None => session::find_by_prompt(&home.folder, program.dialect, &prompt, began),
        };
        with_session(error, program.dialect, session)
    };
    let ran = match ran {
        Err(error) if error.kind == Kind::Crashed && error.partial.is_none() => {
            let path = &program.path;
            Err(Box::pin(version::with_node(error, config, question.work_dir, path, watch)).await)
        }
        ran => ran,
    };
    let mut reply = ran.map_err(with_session)?;
    reply.failure = reply.failure.map(|failure| Box::new(with_session(*failure)));
    reply.sandbox = sandbox;
    reply.closed = closed;
    reply.warnings.extend(warnings);
    reply.warnings.extend(not_renewed);
    reply.warnings.extend(home.remove_if_too_large());
    if let Under::Sandbox(rules) = &invocation.under {
        let secret_files = question.secrets.files();
        reply.warnings.extend(confinement::appeared(rules, question.work_dir, secret_files, &stop));
    }
    Ok(reply)
}

/// A run that is ready to start.
struct Prepared {
    home: Home,
    /// The prompt to send: the question, or the path of the file with the question.
    prompt: String,
    invocation: Invocation,
    sandbox: Sandbox,
    /// The closed files and folders of the project.
    closed: Vec<PathBuf>,
    warnings: Vec<String>,
}

/// Writes the files of a run into its folder and the private home.
fn prepare(
    config: &Config,
    program: &Program,
    run_dir: &Path,
    question: TurnRequest<'_>,
    stop: Stop<'_>,
) -> Result<Prepared> {
    let TurnRequest { profile, work_dir, system_prompt, .. } = question;
    let key = HomeKey { dialect: program.dialect, profile, project: work_dir };
    let home = home::prepare(config, key)?;
    let (project, secret_files) = (question.work_dir, question.secrets.files());
    let Confinement { sandbox, under, closed, ripgrep_config, mut warnings } =
        confinement::for_run(config, program, &home, run_dir, project, secret_files, stop)?;
    let agent_file = agent::write(program.dialect, profile, system_prompt, run_dir)?;
    let empty_folder = folders::empty(config.state_dir())?;
    let empty_mcp_config = run_dir.join("mcp.json");
    match program.dialect {
        Dialect::KimiCli => folders::write_new(&empty_mcp_config, br#"{"mcpServers":{}}"#)?,
        // The private home of kimi-code holds no MCP servers.
        Dialect::KimiCode => {}
    }
    let ripgrep_config = ripgrep::write_config(&ripgrep_config, run_dir)?;
    let text = question.prompt.as_str();
    let file = run_dir.join("request.md");
    let by_file = goes_by_file(program.dialect, text.len(), config.settings.private_prompts);
    let (prompt, file) = if by_file {
        folders::write_new(&file, text.as_bytes())?;
        let path = file.display().to_string();
        (question.read_from_file.replace("{path}", &path), Some(file))
    } else {
        (text.to_owned(), None)
    };
    let environment = &config.environment;
    let policy = GuardPolicy {
        project: canonical(project),
        home: environment.home.clone(),
        private_home: home.path.clone(),
        prompt: file,
        readable: config.settings.readable.clone(),
        private: confinement::private_folders(config, Some(project)),
        closed: closed.clone(),
        secret_files: secret_files.to_owned(),
        is_proxied: network::PROXIES.iter().any(|name| environment.var(name).is_some()),
    };
    policy.write(run_dir)?;
    let paths = RunPaths {
        work_dir: project,
        agent_file: &agent_file,
        empty_mcp_config: &empty_mcp_config,
        empty_folder: &empty_folder,
        home: &home.path,
        temporary: &folders::temporary(run_dir),
        run_dir,
        ripgrep_config: &ripgrep_config,
    };
    let mut environment =
        profile::profiles().environment(&program.path, &config.environment, &home.keys);
    warnings.extend(ripgrep::provide(&mut environment, &config.environment, program.dialect));
    let invocation = invocation(program, environment, paths, &prompt, question.resume, under);
    Ok(Prepared { home, prompt, invocation, sandbox, closed, warnings })
}

/// Adds the session that a later run can resume to an error.
fn with_session(mut error: Error, dialect: Dialect, session: Option<String>) -> Error {
    if let Some(session) = session {
        let partial =
            error.partial.get_or_insert_with(|| json!({"response": null, "evidence": []}));
        if partial["session_id"].is_null() {
            partial["session_id"] = json!(session);
        }
        partial["dialect"] = json!(dialect);
    }
    error
}
