//! `kimi-bridge confine`: the small process between the bridge and Kimi.
//!
//! It enters the sandbox on behalf of the program, and no process outlives the call: it adopts orphans, so
//! every descendant stays findable whatever group or session it moved to; it notices the end of the bridge,
//! also by SIGKILL; and once the program exits, or has to, it ends every descendant with TERM, a grace period
//! and KILL. When the keeper itself is killed, the kernel kills the program, and the bridge adopts and kills the
//! rest. It has one thread.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The hidden command of the binary.
pub(crate) const COMMAND: &str = "confine";
/// The exit code of a keeper that failed itself. Its last words on standard error then begin with
/// [`SANDBOX_FAILED`] or [`START_FAILED`].
pub(crate) const FAILED: u8 = 125;
/// The sandbox could not be entered.
pub(crate) const SANDBOX_FAILED: &str = "kimi-bridge confine: the sandbox could not be entered: ";
/// The program could not be started.
pub(crate) const START_FAILED: &str = "kimi-bridge confine: could not start ";

/// The command that starts a keeper, on a system that has one. The keeper reads its [`super::Order`] from
/// standard input, and exits when the input ends before one. `program` only names it in a list of processes.
pub(crate) fn command(program: &Path, grace: Duration) -> Option<Command> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    // The running program itself, also when its file has been replaced in the meantime.
    let mut command = Command::new("/proc/self/exe");
    let parent = std::process::id().to_string();
    command
        .arg0("kimi-bridge")
        .arg(COMMAND)
        .args([parent, grace.as_millis().to_string()])
        .arg(program);
    command.env_clear().current_dir("/");
    Some(command)
}

/// Makes the bridge the parent of the processes whose keeper is killed.
pub(crate) fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    {
        super::descendants::note_foreign();
        // Without it, orphans outlive a killed keeper, and nothing else changes.
        let _ = nix::sys::prctl::set_child_subreaper(true);
    }
}

/// Kills the processes of programs whose keeper was killed. Returns whether there was any; it may have started more
/// meanwhile.
#[must_use]
pub(crate) fn kill_orphans() -> bool {
    #[cfg(target_os = "linux")]
    return super::descendants::kill_orphans();
    #[cfg(not(target_os = "linux"))]
    false
}

/// Runs as the keeper, and returns the exit code. `args` are those of [`command`].
pub(crate) fn main(args: impl Iterator<Item = OsString>) -> u8 {
    #[cfg(target_os = "linux")]
    return linux::main(args);
    #[cfg(not(target_os = "linux"))]
    {
        drop(args);
        FAILED
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::OsString;
    use std::fmt::Display;
    use std::fs::File;
    use std::io::{self, Write as _};
    use std::os::fd::{AsFd as _, OwnedFd};
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use landlock::RulesetCreated;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::prctl;
    use nix::sys::signal::{SigSet, Signal, kill, raise};
    use nix::sys::signalfd::{SfdFlags, SignalFd};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::{Pid, getpid, getppid, setsid};
    use rustix::process::{PidfdFlags, Resource, Rlimit, getrlimit, setrlimit};
    use seccompiler::{BpfProgram, apply_filter};

    use super::super::descendants::descendants;
    use super::super::enter;
    use super::super::filter;
    use super::super::order::Order;
    use super::{FAILED, SANDBOX_FAILED, START_FAILED};

    /// The grace period of processes that the program left behind when it exited by itself.
    const LEFT_BEHIND: Duration = Duration::from_millis(250);
    /// Between two rounds of KILL: a process may have been forked in between.
    const AGAIN: Duration = Duration::from_millis(5);
    /// The largest file that a run may write, bytes.
    const LARGEST: u64 = 1_000_000_000;
    /// Between two looks at the parent where it has no descriptor.
    const PARENT_CHECK: Duration = Duration::from_millis(500);

    /// The arguments: the bridge's process, and the grace period.
    struct Args {
        parent: Pid,
        grace: Duration,
    }

    fn parse(mut args: impl Iterator<Item = OsString>) -> Option<Args> {
        let mut number = || args.next()?.to_str()?.parse::<u64>().ok();
        let (parent, grace) = (number()?, number()?);
        let parent = Pid::from_raw(i32::try_from(parent).ok()?);
        Some(Args { parent, grace: Duration::from_millis(grace) })
    }

    /// The bridge, watched by a descriptor of its process. Unlike `PR_SET_PDEATHSIG`, that does not depend on
    /// the thread of the bridge that started the keeper.
    struct Parent {
        id: Pid,
        /// Absent where the kernel (before Linux 5.3) or a container refuses one.
        descriptor: Option<OwnedFd>,
    }

    impl Parent {
        fn new(id: Pid) -> Parent {
            let pid = rustix::process::Pid::from_raw(id.as_raw());
            let open = |pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
            Parent { id, descriptor: pid.and_then(open) }
        }

        /// Returns whether this process may not signal the bridge.
        fn is_out_of_reach(&self) -> bool {
            kill(self.id, None) == Err(nix::Error::EPERM)
        }

        /// Returns whether the bridge has ended; its children then have another parent.
        fn has_ended(&self) -> bool {
            getppid() != self.id
        }
    }

    pub(super) fn main(args: impl Iterator<Item = OsString>) -> u8 {
        let Some(args) = parse(args) else {
            return failed("kimi-bridge confine: ", &"only kimi-bridge itself starts this");
        };
        let parent = Parent::new(args.parent);
        match read_order(&parent) {
            Ok(None) => 0,
            Ok(Some(order)) => match Keeper::start(parent, args.grace, order) {
                Ok(keeper) => keeper.keep(),
                Err((what, error)) => failed(what, &error),
            },
            Err((what, error)) => failed(what, &error),
        }
    }

    /// Waits for the order. `None` when the bridge ends before it gives one.
    fn read_order(parent: &Parent) -> Result<Option<Order>, Failure> {
        // Or a list of processes would call it `exe`.
        let _ = prctl::set_name(c"kimi-bridge");
        if parent.has_ended() {
            return Err((START_FAILED, Box::new("the bridge has ended")));
        }
        // Unbuffered, since the bytes behind the order are the program's.
        let input = rustix::stdio::stdin().try_clone_to_owned().map_err(cannot(START_FAILED))?;
        Order::read(File::from(input)).map_err(cannot(START_FAILED))
    }

    fn failed(what: &str, why: &dyn Display) -> u8 {
        let _ = writeln!(io::stderr(), "{what}{why}");
        FAILED
    }

    type Failure = (&'static str, Box<dyn Display>);

    fn cannot<E: Display + 'static>(what: &'static str) -> impl Fn(E) -> Failure {
        move |error| (what, Box::new(error))
    }

    /// The keeper at work.
    struct Keeper {
        parent: Parent,
        program: Pid,
        grace: Duration,
        signals: SignalFd,
        /// The program's exit, once it has exited.
        ended: Option<WaitStatus>,
        /// True if a signal to all processes reaches those of the run and no other.
        is_alone: bool,
        /// The end of the grace period, once all processes were sent TERM.
        kill_at: Option<Instant>,
    }

    /// Stops this process and its descendants from signalling others. Returns whether the kernel enforces it.
    fn is_alone_with_its_own(parent: &Parent) -> bool {
        enter::keep_signals_inside() && parent.is_out_of_reach()
    }

    impl Keeper {
        fn start(parent: Parent, grace: Duration, order: Order) -> Result<Keeper, Failure> {
            let Order { rules, work_dir, program, args, env } = order;
            prctl::set_child_subreaper(true).map_err(cannot(START_FAILED))?;
            let watched = SigSet::from_iter([
                Signal::SIGCHLD,
                Signal::SIGTERM,
                Signal::SIGINT,
                Signal::SIGHUP,
                Signal::SIGQUIT,
            ]);
            watched.thread_block().map_err(cannot(START_FAILED))?;
            let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
            let signals = SignalFd::with_flags(&watched, flags).map_err(cannot(START_FAILED))?;
            let ruleset = rules.map(|rules| enter::ruleset(&rules)).transpose();
            let ruleset = ruleset.map_err(cannot(SANDBOX_FAILED))?;
            let filters = ruleset.is_some().then(filter::programs).transpose();
            let filters = filters.map_err(cannot(SANDBOX_FAILED))?.unwrap_or_default();
            // The keeper is in a domain around the program's: it reaches the program, and not the other way round.
            let is_alone = ruleset.is_some() && is_alone_with_its_own(&parent);
            let mut command = Command::new(&program);
            command.args(args).env_clear().envs(env).current_dir(work_dir);
            before_exec(&mut command, ruleset, filters);
            let child = command.spawn().map_err(|error| -> Failure {
                (START_FAILED, Box::new(format!("{}: {error}", program.display())))
            })?;
            // Only the program holds the pipes from here on, so the bridge sees when it closes them.
            release_pipes().map_err(cannot(START_FAILED))?;
            let program = Pid::from_raw(child.id().cast_signed());
            Ok(Keeper { parent, program, grace, signals, ended: None, is_alone, kill_at: None })
        }

        /// Waits until no process is left, and exits as the program did.
        fn keep(mut self) -> u8 {
            while self.reap() {
                if self.ended.is_some() {
                    self.terminate(LEFT_BEHIND.min(self.grace));
                } else if self.parent.has_ended() {
                    self.terminate(self.grace);
                }
                if self.kill_at.is_some_and(|at| at <= Instant::now()) {
                    self.signal(Signal::SIGKILL);
                }
                self.wait();
                while let Ok(Some(signal)) = self.signals.read_signal() {
                    match Signal::try_from(signal.ssi_signo.cast_signed()) {
                        Ok(Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP) => {
                            self.terminate(self.grace);
                        }
                        Ok(Signal::SIGQUIT) => self.terminate(Duration::ZERO),
                        _ => {}
                    }
                }
            }
            match self.ended {
                Some(WaitStatus::Exited(_, code)) => u8::try_from(code & 0xff).unwrap_or(FAILED),
                Some(WaitStatus::Signaled(_, signal, _)) => end_by(signal),
                _ => FAILED,
            }
        }

        /// Collects exited children. Returns whether any process is left.
        fn reap(&mut self) -> bool {
            loop {
                match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::StillAlive) => return true,
                    Ok(status) if status.pid() == Some(self.program) => self.ended = Some(status),
                    Ok(_) | Err(nix::Error::EINTR) => {}
                    Err(_) => return false,
                }
            }
        }

        /// Sends TERM to all processes, once, and KILL after `patience`. A later, shorter patience counts.
        fn terminate(&mut self, patience: Duration) {
            let until = Instant::now() + patience;
            match self.kill_at {
                None => {
                    self.signal(Signal::SIGTERM);
                    self.kill_at = Some(until);
                }
                Some(at) => self.kill_at = Some(at.min(until)),
            }
        }

        fn signal(&self, signal: Signal) {
            if self.is_alone {
                // The kernel finds them all at once, however fast they are replaced and whatever /proc shows.
                let _ = kill(Pid::from_raw(-1), signal);
                return;
            }
            // An error means that the process has ended.
            for pid in descendants() {
                let _ = kill(pid, signal);
            }
            if self.ended.is_none() {
                // This works without /proc too.
                let _ = kill(Pid::from_raw(-self.program.as_raw()), signal);
            }
        }

        /// Sleeps until a signal arrives, the bridge ends, or the grace period is over.
        fn wait(&self) {
            let mut descriptors = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let timeout = match (self.kill_at, &self.parent.descriptor) {
                (Some(at), _) => at.saturating_duration_since(Instant::now()).max(AGAIN).try_into(),
                (None, Some(parent)) => {
                    descriptors.push(PollFd::new(parent.as_fd(), PollFlags::POLLIN));
                    Ok(PollTimeout::NONE)
                }
                (None, None) => PARENT_CHECK.try_into(),
            };
            let _ = poll(&mut descriptors, timeout.unwrap_or(PollTimeout::MAX));
        }
    }

    /// The preparation of the child between fork and exec.
    #[expect(unsafe_code, reason = "nothing else runs code between fork and exec")]
    fn before_exec(
        command: &mut Command,
        ruleset: Option<RulesetCreated>,
        filters: Vec<BpfProgram>,
    ) {
        let keeper = getpid();
        let mut ruleset = ruleset;
        let file_size = getrlimit(Resource::Fsize).maximum.unwrap_or(LARGEST).min(LARGEST);
        let most = getrlimit(Resource::Nofile);
        let descriptors = Rlimit { current: most.maximum.or(most.current), ..most };
        let limit = |most| Rlimit { current: Some(most), maximum: Some(most) };
        let prepare = move || {
            SigSet::all().thread_unblock()?;
            // A session of its own has no terminal, so `/dev/tty` leads nowhere. It is a process group too.
            setsid()?;
            // If the keeper is killed, the kernel kills the program.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // kimi-cli lets a call pass whose hook it cannot start for want of descriptors.
            setrlimit(Resource::Nofile, descriptors)?;
            // The system may hand a core file to another program.
            setrlimit(Resource::Core, limit(0))?;
            // A file without a name is not counted in any folder.
            setrlimit(Resource::Fsize, limit(file_size))?;
            if getppid() != keeper {
                return Err(io::Error::from_raw_os_error(nix::errno::Errno::ESRCH as i32));
            }
            ruleset.take().map_or(Ok(()), enter::enter)?;
            filters.iter().try_for_each(|filter| apply_filter(filter)).map_err(io::Error::other)
        };
        // SAFETY: the rule for this closure is that between fork and exec only functions may be called
        // that are safe in a signal handler, since a thread that did not survive the fork may have held
        // a lock, that of the allocator for one. This process has no other thread and never had one:
        // `main` comes here first. Besides, the closure makes system calls and nothing more.
        unsafe {
            command.pre_exec(prepare);
        }
    }

    fn release_pipes() -> io::Result<()> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        Ok(())
    }

    /// Ends this process by the same signal, so that the bridge sees what it would have seen.
    fn end_by(signal: Signal) -> u8 {
        // The keeper writes no core file into the project in the program's stead.
        let _ = prctl::set_dumpable(false);
        let _ = SigSet::all().thread_unblock();
        // Twice: the first SIGSEGV or SIGBUS only takes Rust's own handler away.
        let _ = raise(signal);
        let _ = raise(signal);
        // A signal that does not end a process by default.
        128_u8.wrapping_add(signal as u8)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_keeper_reaches_no_process_but_its_own() {
            let mut outside = Command::new("sleep").arg("100").spawn().unwrap();
            let other = Parent::new(Pid::from_raw(outside.id().cast_signed()));
            assert!(!other.is_out_of_reach(), "the control");
            // Only the thread enters the domain, with what it starts.
            let alone = std::thread::scope(|scope| {
                let entered = scope.spawn(|| {
                    let alone = is_alone_with_its_own(&other);
                    let mut own = Command::new("sleep").arg("100").spawn().unwrap();
                    let reached = kill(Pid::from_raw(own.id().cast_signed()), Signal::SIGKILL);
                    own.wait().unwrap();
                    (alone, reached)
                });
                entered.join().unwrap()
            });
            outside.kill().unwrap();
            outside.wait().unwrap();
            assert_eq!(alone, (crate::sandbox::kernel().scopes, Ok(())));
        }
    }
}
