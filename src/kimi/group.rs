//! The child process and everybody that it starts: begun, asked to end, and ended for certain.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};

use super::failure;
use super::invocation::{Invocation, Under};
use crate::error::{Error, Kind, Result};
use crate::sandbox::{keeper, order};

/// How long the end of a keeper is waited for that has been told to kill.
const UNENDING: Duration = Duration::from_secs(5);

/// The child, and what is known of those that it starts.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) child: Child,
    id: Option<Pid>,
    /// Whether the child is the keeper, which sees to all others.
    pub(super) kept: bool,
    /// Whether the child is a keeper that has no order yet.
    waits: bool,
    /// What the keeper is told, before anything else is written to its standard input.
    pub(super) order: Vec<u8>,
    ended: bool,
}

/// Starts a keeper that waits for its order; nothing where there is none. `keeps` names what for. The
/// kernel ends it with the thread that calls this, which must therefore outlive the run.
///
/// # Errors
/// [`Kind::Spawn`].
pub(super) fn keeper(keeps: &Path, grace: Duration) -> Result<Option<Group>> {
    let Some(command) = keeper::command(keeps, grace) else { return Ok(None) };
    let program = Path::new("kimi-bridge");
    let mut keeper = started(Command::from(command), program, true)?;
    keeper.waits = true;
    Ok(Some(keeper))
}

/// Starts it under whom the invocation says: under this keeper, where there is one.
///
/// # Errors
/// [`Kind::Spawn`] with the program.
pub(super) fn spawn(
    invocation: &Invocation,
    waiting: Option<Group>,
    grace: Duration,
) -> Result<Group> {
    let Invocation { program, args, env, work_dir, stdin: _, under } = invocation;
    let rules = match under {
        Under::Nothing => None,
        Under::Keeper => Some(None),
        Under::Sandbox(rules) => Some(Some(&**rules)),
    };
    if let Some(rules) = rules {
        let keeper = match waiting {
            Some(keeper) => Some(keeper),
            None => keeper(program, grace)?,
        };
        if let Some(mut keeper) = keeper {
            keeper.waits = false;
            keeper.order = order::to_bytes(rules, work_dir, program, args, env.iter());
            return Ok(keeper);
        }
    }
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(env).current_dir(work_dir);
    started(command, program, false)
}

fn started(mut command: Command, program: &Path, kept: bool) -> Result<Group> {
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        // A keeper that is killed keeps nobody.
        .kill_on_drop(!kept)
        .spawn()
        .map_err(|error| {
            let message = format!("could not start {}: {error}", program.display());
            Error::new(Kind::Spawn, message, failure::hint(Kind::Spawn))
        })?;
    let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    tracing::debug!(program = %program.display(), pid = child.id(), kept, "started");
    Ok(Group { child, id, kept, waits: false, order: Vec::new(), ended: false })
}

impl Group {
    /// Asks everybody to end; the keeper kills who has not when the grace period is over.
    pub(super) fn ask(&self) {
        self.signal(Signal::TERM, Signal::TERM);
    }

    /// Ends everybody now.
    pub(super) fn kill(&self) {
        self.signal(Signal::QUIT, Signal::KILL);
    }

    fn signal(&self, to_keeper: Signal, to_group: Signal) {
        // An error means that nobody is left, which is what is wanted.
        let _ = match self.id {
            Some(id) if self.kept => kill_process(id, to_keeper),
            Some(id) => kill_process_group(id, to_group),
            None => Ok(()),
        };
    }

    /// A keeper that nobody has an order for ends with its input.
    pub(super) async fn dismiss(mut self) {
        drop(self.child.stdin.take());
        self.end().await;
    }

    /// The program has ended, or has had its time: so does everybody else.
    pub(super) async fn end(&mut self) {
        if !self.kept {
            self.kill();
        }
        if tokio::time::timeout(UNENDING, self.child.wait()).await.is_err() {
            // A keeper that does not end although nobody is left to keep.
            let _ = self.child.start_kill();
            let _ = self.child.wait().await;
        }
        self.ended = true;
    }
}

impl Drop for Group {
    /// For a future that is dropped half-way: the group goes with it.
    fn drop(&mut self) {
        // A keeper that waits for its order ends with its input, which goes with it.
        if !self.ended && !self.waits {
            self.kill();
        }
    }
}
