//! A keeper that rests between two runs of a server, without an order. To start a keeper takes longer than
//! all else that is done before Kimi starts, so the next run's is started while this run's Kimi works.
//!
//! A keeper dies with the thread that started it: those that rest are started by one thread, which ends with
//! the process.

use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::group;
use crate::sandbox::keeper;

/// How long one rests: a server that nobody asks anything has no second process.
const REST: Duration = Duration::from_secs(300);
/// What a person sees in a list of processes.
const KEEPS: &str = "(any run)";

#[derive(Debug)]
struct Resting {
    /// How patient the keepers are.
    grace: Duration,
    /// Wakes the thread that starts them; absent before the first run.
    wake: Option<Sender<()>>,
    keeper: Option<Child>,
}

/// Absent where none may rest: a command of the shell has one run.
static RESTING: Mutex<Option<Resting>> = Mutex::new(None);

fn resting() -> MutexGuard<'static, Option<Resting>> {
    RESTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on a keeper of this patience rests between two runs. The first run starts its own.
pub fn begin(grace: Duration) {
    *resting() = Some(Resting { grace, wake: None, keeper: None });
}

/// Ends the one that rests; none rests any more.
pub fn close() {
    if let Some(keeper) = resting().take().and_then(|resting| resting.keeper) {
        end(keeper);
    }
}

/// The one that rests, where it lives and is so patient; a program is asked for its version with less patience.
pub(super) fn take(grace: Duration) -> Option<Child> {
    let mut resting = resting();
    let resting = resting.as_mut().filter(|resting| resting.grace == grace)?;
    let mut keeper = resting.keeper.take()?;
    matches!(keeper.try_wait(), Ok(None)).then_some(keeper)
}

/// Starts the next run's, on the thread that does so; nobody waits for it.
pub(super) fn renew() {
    if let Some(resting) = resting().as_mut() {
        if resting.wake.is_none() {
            let (wake, woken) = channel();
            let thread = thread::Builder::new().name("keepers".to_owned());
            // Without a thread each run starts its own.
            resting.wake = thread.spawn(move || tend(&woken, REST)).is_ok().then_some(wake);
        }
        if let Some(wake) = &resting.wake {
            let _ = wake.send(());
        }
    }
}

/// Starts one whenever it is woken, and ends one that has rested so long.
fn tend(woken: &Receiver<()>, rest: Duration) {
    loop {
        let rests = resting().as_ref().is_some_and(|resting| resting.keeper.is_some());
        let next = if rests {
            woken.recv_timeout(rest)
        } else {
            woken.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match next {
            Ok(()) => start(),
            Err(RecvTimeoutError::Timeout) => {
                let rested = resting().as_mut().and_then(|resting| resting.keeper.take());
                rested.into_iter().for_each(end);
            }
            // The process is about to end, and its keepers must not end before it.
            Err(RecvTimeoutError::Disconnected) => loop {
                thread::park();
            },
        }
    }
}

/// Starts one, where none rests.
fn start() {
    let grace = match resting().as_ref() {
        Some(Resting { grace, keeper: None, .. }) => *grace,
        Some(_) | None => return,
    };
    // Who wants one meanwhile starts its own.
    let started = keeper::command(Path::new(KEEPS), grace)
        .and_then(|mut command| group::prepare(&mut command).spawn().ok());
    let Some(keeper) = started else { return };
    match resting().as_mut() {
        Some(resting) => resting.keeper = Some(keeper),
        None => end(keeper),
    }
}

/// It has no order, and nobody to see to.
pub(super) fn end(mut keeper: Child) {
    let _ = keeper.kill();
    let _ = keeper.wait();
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::io::Read as _;
    use std::process::Command;

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    const GRACE: Duration = Duration::from_secs(1);

    /// A program in a keeper's place, and the number of its process.
    fn rests(script: &str) -> u32 {
        let mut keeper = Command::new("sh");
        let mut keeper = group::prepare(keeper.args(["-c", script])).spawn().unwrap();
        // It is ready when it has said so.
        keeper.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        resting().as_mut().unwrap().keeper.insert(keeper).id()
    }

    #[test]
    fn who_rests_is_taken_or_ends() {
        begin(GRACE);
        assert!(take(GRACE).is_none());
        rests("echo; exec cat");
        assert!(take(Duration::ZERO).is_none(), "that one would be of another patience");
        let (wake, woken) = channel();
        thread::spawn(move || tend(&woken, Duration::from_millis(1)));
        while resting().as_ref().unwrap().keeper.is_some() {
            thread::yield_now();
        }
        assert!(take(GRACE).is_none(), "nobody has taken it for a while");
        drop(wake);

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            rests("echo; read order; exit 7");
            let mut keeper = group::rested(GRACE).unwrap();
            assert!(keeper.take(b"order\n").await);
            assert_eq!(keeper.wait().await.unwrap().code(), Some(7));
            keeper.end().await;

            // One that is about to end takes no order, and another can be started.
            let process = rests("exec <&-; echo; exec sleep 1000");
            let mut keeper = group::rested(GRACE).unwrap();
            assert!(!keeper.take(b"order\n").await);
            drop(keeper);
            // It was sent QUIT, at which a keeper ends, and which other programs may have been told to ignore.
            let _ = kill_process(Pid::from_raw(process.cast_signed()).unwrap(), Signal::KILL);
            // Somebody must wait for it, or it stays as one that has ended.
            while Path::new(&format!("/proc/{process}")).exists() {
                thread::yield_now();
            }
        });
        close();
    }
}
