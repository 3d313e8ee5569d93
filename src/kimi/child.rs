//! The child process of a run. It is started under the keeper or alone, and ended together with its descendants.

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

/// The time limit for a keeper to read its order, or to exit after it has killed all processes.
const KEEPER_PATIENCE: Duration = Duration::from_secs(5);

/// The time between two searches for orphans of a killed keeper. A killed orphan may leave orphans of its own.
const SEARCH_INTERVAL: Duration = Duration::from_millis(5);

/// A running child. Dropping it kills the child and its descendants.
#[derive(Debug)]
pub(super) struct Child {
    process: tokio::process::Child,
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
    /// The process group, which may outlive the process.
    group: Option<Pid>,
    /// True if the process is the keeper, which ends all others itself.
    pub(super) kept: bool,
    ended: bool,
}

impl Child {
    /// Starts an invocation, under the keeper if the invocation asks for it and the system supports it.
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
            send_order(stdin, &order, KEEPER_PATIENCE).await?;
        }
        Ok(keeper)
    }

    /// Waits for the process to exit. Its descendants may still run.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Sends TERM to the child and its descendants. The keeper counts the grace period itself.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM, Signal::TERM);
    }

    /// Kills the child and its descendants.
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

    /// Ends the remaining processes, after the program has exited or its time is over.
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
                // Reading the process table may block.
                while spawn_blocking(keeper::kill_orphans).await.unwrap_or_default() {
                    sleep(SEARCH_INTERVAL).await;
                }
            };
            let _ = timeout(KEEPER_PATIENCE, killed).await;
        }
        self.ended = true;
    }
}

impl Drop for Child {
    /// Kills the child if the future of its run was dropped.
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
        // A keeper must not be killed, since it has to end the other processes.
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

/// Returns the id of a process that was not waited for. Later, another process could have the same id.
fn pid(process: &tokio::process::Child) -> Option<Pid> {
    process.id().and_then(|id| Pid::from_raw(id.cast_signed()))
}

/// Sends the whole order to the keeper. After a part of it, the keeper would read the program's input as the rest.
async fn send_order(
    mut stdin: impl AsyncWrite + Unpin,
    order: &[u8],
    patience: Duration,
) -> Result<()> {
    // A keeper that fails before it reads its order reports that on standard error.
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
    Error::from_kind(Kind::Spawn, format!("could not start {}: {error}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_keeper_that_does_not_read_its_order_is_an_error() {
        let (stdin, keeper) = tokio::io::duplex(4);
        let error = send_order(stdin, b"an order", Duration::ZERO).await.unwrap_err();
        assert_eq!(error.kind, Kind::Spawn);
        drop(keeper);
        let (stdin, _) = tokio::io::duplex(4);
        assert!(send_order(stdin, b"an order", Duration::ZERO).await.is_ok());
    }
}
