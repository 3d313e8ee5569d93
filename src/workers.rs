//! Threads that rest between two pieces of work, for what a call will soon wait for and does not do itself. To
//! wake one takes less than to start one; and a new one may come to its turn only when its parent waits, on a
//! machine that lets processors sleep as long as one can do the work.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

type Work = Box<dyn FnOnce() + Send>;

/// How long one rests before it ends.
const REST: Duration = Duration::from_secs(30);

/// Has this done by a thread that rests, or by a new one; nobody waits for it. Work that never ends, since a
/// disk does not answer, takes no other's place.
///
/// # Errors
/// What the system says when there is no thread to be had.
pub fn run(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    static ALL: Workers = Workers::new();
    ALL.run(Box::new(work))
}

/// Those that rest; who did so last is the next to work.
struct Workers(Mutex<Vec<Resting>>);

/// One that rests, told from the others by its thread.
struct Resting {
    thread: ThreadId,
    work: Sender<Work>,
}

impl Workers {
    const fn new() -> Workers {
        Workers(Mutex::new(Vec::new()))
    }

    fn resting(&self) -> MutexGuard<'_, Vec<Resting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&'static self, mut work: Work) -> io::Result<()> {
        loop {
            let Some(chosen) = self.resting().pop() else { return self.start(work) };
            match chosen.work.send(work) {
                Ok(()) => return Ok(()),
                Err(unsent) => work = unsent.0,
            }
        }
    }

    fn start(&'static self, work: Work) -> io::Result<()> {
        let worker = move || {
            let (sender, arriving) = channel();
            work();
            while let Some(work) = self.rest(&sender, &arriving, REST) {
                work();
            }
        };
        thread::Builder::new().name("worker".to_owned()).spawn(worker).map(drop)
    }

    /// Waits for more work; nothing when none comes in time.
    fn rest(&self, work: &Sender<Work>, arriving: &Receiver<Work>, rest: Duration) -> Option<Work> {
        let thread = thread::current().id();
        self.resting().push(Resting { thread, work: work.clone() });
        if let Ok(work) = arriving.recv_timeout(rest) {
            return Some(work);
        }
        let mut resting = self.resting();
        if let Some(at) = resting.iter().position(|one| one.thread == thread) {
            resting.remove(at);
            return None;
        }
        // Somebody has chosen it in the last moment.
        drop(resting);
        arriving.recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static ALL: Workers = Workers::new();

    fn who_works() -> ThreadId {
        let (tell, told) = channel();
        ALL.run(Box::new(move || tell.send(thread::current().id()).unwrap())).unwrap();
        told.recv().unwrap()
    }

    fn wait_for_resting(count: usize) {
        while ALL.resting().len() != count {
            thread::yield_now();
        }
    }

    #[test]
    fn who_has_worked_works_again_and_nobody_waits_for_who_still_does() {
        let first = who_works();
        wait_for_resting(1);
        let (end, ending) = channel::<()>();
        let (tell, told) = channel();
        let endless = move || {
            tell.send(thread::current().id()).unwrap();
            ending.recv().unwrap_err();
        };
        ALL.run(Box::new(endless)).unwrap();
        assert_eq!(told.recv().unwrap(), first);
        let second = who_works();
        assert_ne!(second, first);
        drop(end);
        wait_for_resting(2);
        // Work that panics takes nothing along but its thread.
        ALL.run(Box::new(|| panic!("on purpose"))).unwrap();
        assert!([first, second].contains(&who_works()));
        wait_for_resting(1);

        let (sender, arriving) = channel();
        assert!(ALL.rest(&sender, &arriving, Duration::from_millis(1)).is_none());
        assert_eq!(ALL.resting().len(), 1, "who ends is not chosen any more");
    }
}
