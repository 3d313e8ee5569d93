//! Work that may wait for a disk, for Kimi or for another process: on a thread of its own, with a
//! runtime of its own, so that the thread which speaks the protocol waits for nobody.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tokio::runtime::Builder;
use tokio::task::spawn_blocking;

use crate::error::{Error, Kind, Result};

/// Does it there, and waits. Whoever stops waiting does not stop the work.
///
/// # Errors
/// [`Kind::Spawn`] when there is no runtime to be had, [`Kind::Crashed`] when the work panicked.
pub(super) async fn aside<W, F>(work: W) -> Result<F::Output>
where
    W: FnOnce() -> F + Send + 'static,
    F: Future,
    F::Output: Send + 'static,
{
    let done = spawn_blocking(|| {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let done = catch_unwind(AssertUnwindSafe(|| runtime.block_on(work())));
        // What it left running, such as a look at a disk that does not answer, is waited for by nobody.
        runtime.shutdown_background();
        done.map_err(|panic| resume_unwind(panic))
    });
    let unheard = |error: std::io::Error| {
        Error::new(
            Kind::Spawn,
            format!("no runtime: {error}"),
            "Free memory or file handles and try again.",
        )
    };
    match done.await {
        Ok(done) => done.map_err(unheard),
        Err(error) => Err(Error::new(
            Kind::Crashed,
            format!("the call was lost: {error}"),
            "This is a fault of kimi-bridge; please report it.",
        )),
    }
}
