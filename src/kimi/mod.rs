//! How to run both programs called `kimi`, and read what they say. This room knows no role, no
//! round and no finding: a prompt goes in, a [`Reply`] comes out.

pub mod agent;
pub mod confinement;
pub mod consultant;
pub mod dialect;
pub mod event;
pub mod evidence;
pub mod examination;
pub mod failure;
pub mod folders;
mod group;
pub mod hidden;
pub mod home;
pub mod installation;
pub mod invocation;
pub mod lines;
pub mod login;
pub mod network;
mod observe;
pub mod program;
mod record;
pub mod resting;
pub mod ripgrep;
pub mod run;
pub mod session;
pub mod status;
pub mod text;
pub mod transcript;
mod turn;
pub mod version;

pub use self::dialect::{Dialect, Identity};
pub use self::evidence::{Activity, Evidence, Seen};
pub use self::program::Program;
pub use self::run::{Progress, Reply, Watch};

use std::panic::resume_unwind;
use std::path::Path;
use std::thread::{self, ScopedJoinHandle};
use std::time::SystemTime;

use serde_json::json;
use tokio::sync::SemaphorePermit;

use self::confinement::Confinement;
use self::folders::RunFolder;
use self::group::Group;
use self::home::Home;
use self::invocation::{Delivery, Invocation, Places, Under, invocation};
use self::run::{Kept, Limits};
use self::transcript::Transcript;
use crate::error::{Error, Result};
use crate::redact::{Redacted, Secrets};
use crate::sandbox::Sandbox;
use crate::settings::Loaded;

/// One prompt for Kimi.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What Kimi is, in its own system prompt.
    pub system_prompt: &'a str,
    /// What it is asked.
    pub prompt: &'a Redacted,
    /// What must not come back with what Kimi says of its run.
    pub secrets: &'a Secrets,
    /// The words that tell Kimi to read the prompt from a file; `{path}` stands for its path.
    pub read_from_file: &'a str,
    /// The project, an existing folder.
    pub work_dir: &'a Path,
    /// The session to go on in.
    pub resume: Option<&'a str>,
    /// The call's own limit, seconds.
    pub timeout_seconds: Option<u64>,
    /// Where everything that Kimi writes is kept.
    pub transcript: Option<&'a Path>,
}

/// Kimi, of whom only the question is wanted: its place, its folder, its keeper and all that it reads.
#[must_use]
pub struct Ready<'a> {
    loaded: &'a Loaded,
    program: &'a Program,
    question: Question<'a>,
    prepared: Prepared,
    keeper: Option<Group>,
    run_dir: RunFolder,
    _place: Option<SemaphorePermit<'a>>,
}

/// What a run leaves to be put away, which is done where it is dropped at the latest.
#[derive(Debug)]
pub struct Remains {
    /// What is yet to be written.
    transcript: Option<Transcript>,
    /// What is yet to be emptied.
    folder: RunFolder,
}

impl Remains {
    /// Puts it away. A warning says what could not be kept.
    #[must_use]
    pub fn put_away(self) -> Option<String> {
        let failure = self.transcript.as_ref().map(Transcript::failure);
        drop(self.transcript);
        self.folder.rest();
        transcript::warning(&failure?)
    }
}

/// Prepares a run, once it has its turn. Kimi has not started then.
///
/// # Errors
/// Everything that can go wrong up to there.
pub async fn get_ready<'a>(
    loaded: &'a Loaded,
    program: &'a Program,
    question: Question<'a>,
    watch: Watch<'a>,
) -> Result<Ready<'a>> {
    let place = turn::wait(&loaded.settings, watch).await?;
    let run_dir = folders::for_one_run(loaded.state_dir())?;
    let prepare = || prepare(loaded, program, run_dir.path(), question);
    let grace = loaded.settings.grace();
    let (prepared, keeper) = if !confinement::is_kept(&loaded.settings) {
        (prepare(), Ok(None))
    } else if let Some(rested) = group::rested(grace) {
        (prepare(), Ok(Some(rested)))
    } else {
        beside(prepare, || group::keeper(run_dir.path(), grace))
    };
    match (prepared, keeper) {
        (Ok(prepared), Ok(keeper)) => {
            Ok(Ready { loaded, program, question, prepared, keeper, run_dir, _place: place })
        }
        (Err(error), Ok(keeper)) => {
            dismiss(keeper).await;
            Err(error)
        }
        (_, Err(error)) => Err(error),
    }
}

/// Does one thing on a thread of its own while the other is done here, since starting a process takes as
/// long as preparing one. A keeper must be started here: it dies with the thread that started it.
fn beside<A: Send, B>(there: impl Fn() -> A + Sync, here: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let other = thread::Builder::new().name("prepare".to_owned()).spawn_scoped(scope, &there);
        let here = here();
        let there = match other.map(ScopedJoinHandle::join) {
            Ok(Ok(done)) => done,
            Ok(Err(panic)) => resume_unwind(panic),
            // Without a thread it is done afterwards.
            Err(_) => there(),
        };
        (there, here)
    })
}

/// Ends a keeper that gets no order.
async fn dismiss(keeper: Option<Group>) {
    if let Some(keeper) = keeper {
        keeper.dismiss().await;
    }
}

impl Ready<'_> {
    /// Asks Kimi, and waits for its reply.
    ///
    /// # Errors
    /// Everything that can go wrong from there to the end of the run.
    pub async fn ask(self, watch: Watch<'_>) -> Result<(Reply, Remains)> {
        let Ready { loaded, program, question, prepared, keeper, run_dir, _place } = self;
        if let Err(error) = turn::expect_wanted(watch) {
            dismiss(keeper).await;
            return Err(error);
        }
        let Prepared { home, prompt, invocation, sandbox, warnings } = prepared;
        let limits = Limits::of(&loaded.settings, program.dialect, question.timeout_seconds);
        let began = SystemTime::now();
        let kept = Kept { secrets: question.secrets, transcript: question.transcript };
        let ran = run::run(&invocation, keeper, program.dialect, &limits, kept, watch).await;
        let (mut reply, transcript) = match ran {
            Ok(ran) => ran,
            Err(error) => {
                let session = match question.resume {
                    Some(session) => Some(session.to_owned()),
                    // One that was broken off before it could name it.
                    None => session::begun_with(&home.path, program.dialect, &prompt, began),
                };
                return Err(with_session(error, program.dialect, session));
            }
        };
        reply.sandbox = sandbox;
        reply.warnings.extend(warnings);
        if let Under::Sandbox(rules) = &invocation.under {
            let secret_files = question.secrets.files();
            reply.warnings.extend(confinement::appeared(rules, question.work_dir, secret_files));
        }
        Ok((reply, Remains { transcript, folder: run_dir }))
    }
}

/// A run that can begin.
struct Prepared {
    home: Home,
    /// What Kimi is told, on whichever way.
    prompt: String,
    invocation: Invocation,
    /// What the kernel enforces, and what the caller must know of it.
    sandbox: Sandbox,
    warnings: Vec<String>,
}

/// Writes what a run needs into its folder and the private home.
fn prepare(
    loaded: &Loaded,
    program: &Program,
    run_dir: &Path,
    question: Question<'_>,
) -> Result<Prepared> {
    let home = home::prepare(loaded, program.dialect)?;
    let (project, secret_files) = (question.work_dir, question.secrets.files());
    let Confinement { sandbox, under, ripgrep_config, warnings } =
        confinement::of_consultation(loaded, program, &home, run_dir, project, secret_files)?;
    let agent_file = agent::write(program.dialect, question.system_prompt, run_dir)?;
    let empty_folder = folders::empty(loaded.state_dir())?;
    let empty_mcp_config = run_dir.join("mcp.json");
    match program.dialect {
        Dialect::KimiCli => folders::write_anew(&empty_mcp_config, br#"{"mcpServers":{}}"#)?,
        // It finds none in the private home.
        Dialect::KimiCode => {}
    }
    let ripgrep_config = ripgrep::configured(&ripgrep_config, run_dir)?;
    let text = question.prompt.as_str();
    let delivery = Delivery::of(program.dialect, text.len(), loaded.settings.private_prompts);
    let prompt = match delivery {
        Delivery::Stdin | Delivery::Argument => text.to_owned(),
        Delivery::File => {
            let file = run_dir.join("request.md");
            folders::write_anew(&file, text.as_bytes())?;
            question.read_from_file.replace("{path}", &file.display().to_string())
        }
    };
    let places = Places {
        work_dir: project,
        agent_file: &agent_file,
        empty_mcp_config: &empty_mcp_config,
        empty_folder: &empty_folder,
        home: &home.path,
        temporary: &folders::temporary(run_dir),
        ripgrep_config: &ripgrep_config,
    };
    let environment = consultant::consultant().environment(&loaded.environment, &home.keys);
    let invocation = invocation(program, environment, places, &prompt, question.resume, under);
    Ok(Prepared { home, prompt, invocation, sandbox, warnings })
}

/// The error with the session that a later run can go on in.
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
