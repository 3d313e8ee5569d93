//! Calls on the runtime's pool of blocking threads. They may wait for a disk, a lock or Kimi, and the protocol must
//! always be answered.

use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::error::{Error, Kind, Result};

/// Runs a call on a blocking thread and waits for it. Dropping the future does not stop the call.
pub(super) async fn on_own_thread<W, F>(call: W) -> Result<F::Output>
where
    W: FnOnce() -> F + Send + 'static,
    F: Future,
    F::Output: Send + 'static,
{
    let runtime = Handle::current();
    spawn_blocking(move || runtime.block_on(call())).await.map_err(|error| {
        let hint = "This is a fault of kimi-bridge; please report it.";
        Error::new(Kind::Crashed, format!("the call was lost: {error}"), hint)
    })
}
