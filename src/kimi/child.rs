//! The child process of a run, started under the keeper or alone, and ended together with everything that
//! it started.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::invocation::{Invocation, Under};
use crate::error::{Error, Kind, Result};
use crate::sandbox::{Order, keeper};

/// How long a keeper may take to read its order, or to exit once it has killed everything.
const KEEPER_PATIENCE: Duration = Duration::from_secs(5);

/// The time between two looks for processes that a killed keeper left: the children of one that was killed follow it.
const AGAIN: Duration = Duration::from_millis(5);

/// A running child. Dropping it kills the child and everything that it started.
#[derive(Debug)]
pub(super) struct Child {
    process: tokio::process::Child,
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
    /// The group of its processes, some of which may outlive it.
    group: Option<Pid>,
    /// Whether the process is the keeper, which ends all others itself.
    pub(super) kept: bool,
    ended: bool,
}

impl Child {
    /// Starts an invocation: under the keeper where it asks for one and the system has one, else alone.
    pub(super) async fn start(invocation: &Invocation, grace: Duration) -> Result<Child> {
        let Invocation { program, args, env, work_dir, stdin: _, under } = invocation;
        let rules = match under {
            Under::Nothing => None,
            Under::Keeper => Some(None),
            Under::Sandbox(rules) => Some(Some(rules.for_order())),
        };
        let kept = rules.and_then(|rules| Some((rules, keeper::command(program, grace)?)));
        let Some((rules, command)) = kept else {
            let mut command = Command::new(program);
            command.args(args).env_clear().envs(env).current_dir(work_dir);
            return spawn(command, invocation, false);
        };
        let order = Order {
            rules,
            work_dir: work_dir.into(),
            program: program.into(),
            args: args.clone(),
            env: env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        };
        keeper::adopt_orphans();
        let mut keeper = spawn(command, invocation, true)?;
        if let Some(stdin) = &mut keeper.stdin {
            let order = order.to_bytes().map_err(|error| cannot_start(program, &error))?;
            give(stdin, &order, KEEPER_PATIENCE).await?;
        }
        Ok(keeper)
    }

    /// Waits for the process itself to exit.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Sends TERM to the child and everything that it started. The keeper counts the grace period itself.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM, Signal::TERM);
    }

    /// Kills the child and everything that it started.
    pub(super) fn kill(&self) {
        self.signal(Signal::QUIT, Signal::KILL);
    }

    fn signal(&self, to_keeper: Signal, to_group: Signal) {
        // An error means that no process is left to receive it.
        if !self.kept {
            let _ = self.group.map(|group| kill_process_group(group, to_group));
        } else if let Some(keeper) = pid(&self.process) {
            let _ = kill_process(keeper, to_keeper);
        }
    }

    /// Ends everything that is left once the program has exited or its time is over.
    pub(super) async fn end(&mut self) {
        if !self.kept {
            self.kill();
        }
        let status = timeout(KEEPER_PATIENCE, self.process.wait()).await;
        if status.is_err() {
            let _ = self.process.start_kill();
            let _ = self.process.wait().await;
        }
        // A keeper that exits by itself has ended every process of the run.
        let has_exited = matches!(status, Ok(Ok(status)) if status.code().is_some());
        if self.kept && !has_exited {
            let killed = async {
                // The table of processes is read where that holds up nothing else.
                while spawn_blocking(keeper::kill_orphans).await.unwrap_or_default() {
                    sleep(AGAIN).await;
                }
            };
            let _ = timeout(KEEPER_PATIENCE, killed).await;
        }
        self.ended = true;
    }
}

impl Drop for Child {
    /// Covers a future that is dropped half-way.
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
    }
}

fn spawn(mut command: Command, invocation: &Invocation, kept: bool) -> Result<Child> {
    let pipe = Stdio::piped;
    command.stdin(pipe()).stdout(pipe()).stderr(pipe());
    // The child leads a process group of its own.
    command.process_group(0);
    let program = &invocation.program;
    let mut process = tokio::process::Command::from(command)
        // A keeper that is killed outright could not end the others.
        .kill_on_drop(!kept)
        .spawn()
        .map_err(|error| if kept { no_keeper(&error) } else { cannot_start(program, &error) })?;
    tracing::debug!(program = %program.display(), pid = process.id(), kept, "started");
    Ok(Child {
        stdin: process.stdin.take(),
        stdout: process.stdout.take(),
        stderr: process.stderr.take(),
        group: pid(&process),
        process,
        kept,
        ended: false,
    })
}

/// The number of a process, as long as no other one can have it.
fn pid(process: &tokio::process::Child) -> Option<Pid> {
    process.id().and_then(|id| Pid::from_raw(id.cast_signed()))
}

/// Writes the order of a keeper. Half an order is none: the program's input would be read as the rest of it.
async fn give(mut stdin: impl AsyncWrite + Unpin, order: &[u8], patience: Duration) -> Result<()> {
    // A keeper that failed before it read its order says why on standard error.
    timeout(patience, stdin.write_all(order)).await.map(drop).map_err(|_| {
        let message = "the keeper did not read its order in time";
        Error::new(Kind::Spawn, message, "Free processors and memory; then ask again.")
    })
}

fn no_keeper(error: &io::Error) -> Error {
    let message = format!("could not start the keeper, /proc/self/exe: {error}");
    Error::new(Kind::Spawn, message, "Mount /proc, and free processes and memory; then ask again.")
}

fn cannot_start(program: &Path, error: &io::Error) -> Error {
    Error::of(Kind::Spawn, format!("could not start {}: {error}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_keeper_that_does_not_read_its_order_is_an_error() {
        let (stdin, keeper) = tokio::io::duplex(4);
        let error = give(stdin, b"an order", Duration::ZERO).await.unwrap_err();
        assert_eq!(error.kind, Kind::Spawn);
        drop(keeper);
        let (stdin, _) = tokio::io::duplex(4);
        assert!(give(stdin, b"an order", Duration::ZERO).await.is_ok(), "it says itself why");
    }
}
