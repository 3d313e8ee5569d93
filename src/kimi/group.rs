//! The child process and everybody that it starts: begun, asked to end, and ended for certain.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{self, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use super::invocation::{Invocation, Under};
use super::{failure, resting};
use crate::error::{Error, Kind, Result};
use crate::sandbox::{keeper, order};
use crate::workers;

/// How long the end of a keeper is waited for that has been told to kill, and one that is to take an order.
const UNENDING: Duration = Duration::from_secs(5);

/// How long is waited for an end that was said too early.
const TOO_EARLY: Duration = Duration::from_millis(5);

/// The child, and what is known of those that it starts.
#[derive(Debug)]
pub(super) struct Group {
    child: Child,
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
    id: Option<Pid>,
    /// Whether the child is the keeper, which sees to all others.
    pub(super) kept: bool,
    /// Whether the child is a keeper that has no order yet.
    waits: bool,
    ended: bool,
}

/// The child itself.
#[derive(Debug)]
enum Child {
    /// Started for this run.
    Started(tokio::process::Child),
    /// Started before it, on a thread that has no runtime.
    Rested(Rested),
}

#[derive(Debug)]
struct Rested {
    /// Absent once somebody else waits for its end.
    child: Option<process::Child>,
    /// Can be read from when it has ended.
    exit: Receiver,
}

impl Rested {
    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.as_mut().map_or(Ok(None), process::Child::try_wait)
    }
}

impl Drop for Rested {
    /// Somebody must wait for it, or it stays as one that has ended.
    fn drop(&mut self) {
        if !matches!(self.ended(), Ok(Some(_)))
            && let Some(mut child) = self.child.take()
        {
            let _ = workers::run(move || _ = child.wait());
        }
    }
}

impl Child {
    async fn wait(&mut self) -> io::Result<ExitStatus> {
        match self {
            Child::Started(child) => child.wait().await,
            Child::Rested(rested) => loop {
                rested.exit.readable().await?;
                if let Some(status) = rested.ended()? {
                    return Ok(status);
                }
                // Which may be said too early.
                tokio::time::sleep(TOO_EARLY).await;
            },
        }
    }

    fn start_kill(&mut self) -> io::Result<()> {
        match self {
            Child::Started(child) => child.start_kill(),
            Child::Rested(rested) => rested.child.as_mut().map_or(Ok(()), process::Child::kill),
        }
    }
}

/// Takes the keeper that rests, if one does.
pub(super) fn rested(grace: Duration) -> Option<Group> {
    let mut child = resting::take(grace)?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { return None };
    let id = Pid::from_child(&child);
    let watched = || -> io::Result<_> {
        // No pipe, but what tokio watches in the same way.
        let exit = Receiver::from_owned_fd_unchecked(exit_of(id)?)?;
        let (stdin, stdout) = (ChildStdin::from_std(stdin)?, ChildStdout::from_std(stdout)?);
        Ok((exit, stdin, stdout, ChildStderr::from_std(stderr)?))
    };
    let (exit, stdin, stdout, stderr) = match watched() {
        Ok(watched) => watched,
        Err(error) => {
            tracing::debug!(%error, "a keeper that has rested cannot be watched: none will rest");
            resting::end(child);
            resting::close();
            return None;
        }
    };
    tracing::debug!(pid = child.id(), "a keeper has rested");
    Some(Group {
        child: Child::Rested(Rested { child: Some(child), exit }),
        stdin: Some(stdin),
        stdout: Some(stdout),
        stderr: Some(stderr),
        id: Some(id),
        kept: true,
        waits: true,
        ended: false,
    })
}

/// What becomes readable when a child has ended.
#[cfg(target_os = "linux")]
fn exit_of(child: Pid) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(child, rustix::process::PidfdFlags::empty())?)
}

#[cfg(not(target_os = "linux"))]
fn exit_of(_child: Pid) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Starts a keeper that waits for its order; nothing where there is none. `keeps` names what for. The
/// kernel ends it with the thread that calls this, which must therefore outlive the run.
///
/// # Errors
/// [`Kind::Spawn`].
pub(super) fn keeper(keeps: &Path, grace: Duration) -> Result<Option<Group>> {
    let Some(command) = keeper::command(keeps, grace) else { return Ok(None) };
    let program = Path::new("kimi-bridge");
    let mut keeper = started(command, program, true)?;
    keeper.waits = true;
    Ok(Some(keeper))
}

/// Starts it under whom the invocation says: under this keeper, where there is one.
///
/// # Errors
/// [`Kind::Spawn`] with the program.
pub(super) async fn begin(
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
        let order = order::to_bytes(rules, work_dir, program, args, env.iter());
        if let Some(mut waiting) = waiting.or_else(|| rested(grace)) {
            let has_rested = matches!(waiting.child, Child::Rested(_));
            if waiting.take(&order).await || !has_rested {
                return Ok(waiting);
            }
            // Somebody has ended it since.
            waiting.end().await;
        }
        if let Some(mut keeper) = keeper(program, grace)? {
            // Why one has ended that is new, its own words tell.
            let _ = keeper.take(&order).await;
            return Ok(keeper);
        }
    }
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(env).current_dir(work_dir);
    started(command, program, false)
}

/// The pipes of the child, and the group that it leads.
pub(super) fn prepare(command: &mut Command) -> &mut Command {
    let pipe = Stdio::piped;
    command.stdin(pipe()).stdout(pipe()).stderr(pipe()).process_group(0)
}

fn started(mut command: Command, program: &Path, kept: bool) -> Result<Group> {
    prepare(&mut command);
    let mut child = tokio::process::Command::from(command)
        // A keeper that is killed keeps nobody.
        .kill_on_drop(!kept)
        .spawn()
        .map_err(|error| {
            let message = format!("could not start {}: {error}", program.display());
            Error::new(Kind::Spawn, message, failure::hint(Kind::Spawn))
        })?;
    let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    tracing::debug!(program = %program.display(), pid = child.id(), kept, "started");
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let child = Child::Started(child);
    Ok(Group { child, stdin, stdout, stderr, id, kept, waits: false, ended: false })
}

impl Group {
    /// Gives a keeper its order; whether it could be written.
    pub(super) async fn take(&mut self, order: &[u8]) -> bool {
        self.waits = false;
        let Some(stdin) = &mut self.stdin else { return false };
        matches!(tokio::time::timeout(UNENDING, stdin.write_all(order)).await, Ok(Ok(())))
    }

    /// Waits for the child's own end.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

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
        drop(self.stdin.take());
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
