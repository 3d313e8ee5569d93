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
const KEEPS: &str = "(the next run)";

#[derive(Debug)]
struct Resting {
    /// How patient the keepers are.
    grace: Duration,
    /// Wakes the thread that starts them; absent before the first run.
    wake: Option<Sender<()>>,
    keeper: Option<Child>,
    /// Those that were given up, and may not have ended yet.
    given_up: Vec<Child>,
}

/// Absent where none may rest: a command of the shell has one run.
static RESTING: Mutex<Option<Resting>> = Mutex::new(None);

fn resting() -> MutexGuard<'static, Option<Resting>> {
    RESTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on a keeper of this patience rests between two runs. The first run starts its own.
pub fn begin(grace: Duration) {
    *resting() = Some(Resting { grace, wake: None, keeper: None, given_up: Vec::new() });
}

/// Ends the one that rests; none rests any more.
pub fn close() {
    if let Some(keeper) = resting().take().and_then(|resting| resting.keeper) {
        end(keeper);
    }
}

/// The one that rests, where it lives and is so patient.
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

/// Takes one that was told to end and that nobody waits for.
pub(super) fn give_up(keeper: Child) {
    if let Some(resting) = resting().as_mut() {
        resting.given_up.push(keeper);
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
    let grace = match resting().as_mut() {
        Some(resting) => {
            resting.given_up.retain_mut(|keeper| matches!(keeper.try_wait(), Ok(None)));
            if resting.keeper.is_some() {
                return;
            }
            resting.grace
        }
        None => return,
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
fn end(mut keeper: Child) {
    let _ = keeper.kill();
    let _ = keeper.wait();
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn one_that_nobody_takes_ends() {
        let mut patient = Command::new("cat");
        let keeper = patient.stdin(Stdio::piped()).spawn().unwrap();
        let grace = Duration::from_secs(1);
        begin(grace);
        assert!(take(grace).is_none());
        resting().as_mut().unwrap().keeper = Some(keeper);
        assert!(take(Duration::ZERO).is_none(), "that one would be of another patience");
        let (wake, woken) = channel();
        thread::spawn(move || tend(&woken, Duration::from_millis(1)));
        while resting().as_ref().unwrap().keeper.is_some() {
            thread::yield_now();
        }
        assert!(take(grace).is_none());
        drop(wake);
        close();
    }
}
