//! The MCP server over stdio, and the only room that knows rmcp. It decides nothing: what a request
//! means, who may ask and what an answer is are settled in [`crate::consult`].

mod input;
mod prompts;
mod resources;
mod server;
mod words;

use std::time::Duration;

use rmcp::ServiceExt as _;
use tokio_util::sync::CancellationToken;

use self::input::Watched;
use self::server::Server;
use crate::error::{Error, Kind, Result};
use crate::settings::Loaded;

/// How long runs that are being ended may still take once the connection is gone.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serves until the input ends or `closing` fires. Returns when no Kimi is left running.
///
/// # Errors
/// [`Kind::Crashed`] when the connection breaks in a way the protocol does not know.
pub async fn serve(loaded: Loaded, closing: CancellationToken) -> Result<()> {
    let server = Server::new(loaded, closing.clone());
    let runs = server.runs();
    let (stdin, stdout) = rmcp::transport::stdio();
    // Whatever waits for Kimi is told at once, not when rmcp gives up on its handlers.
    let transport = (Watched::new(stdin, closing.clone()), stdout);
    let conversation = async {
        let running = match Box::pin(server.serve(transport)).await {
            Ok(running) => running,
            // The host went away before it said hello.
            Err(_) if closing.is_cancelled() => return Ok(()),
            Err(error) => return Err(broken(&error)),
        };
        running.waiting().await.map(drop).map_err(|error| broken(&error))
    };
    let ended = tokio::select! {
        ended = conversation => ended,
        () = gone(&closing, &runs) => Ok(()),
    };
    closing.cancel();
    runs.close();
    let _ = tokio::time::timeout(LAST_WORDS, runs.wait()).await;
    ended
}

/// Ends once a signal has told the server to stop and nothing is left to be answered. At the end of
/// input rmcp itself is the faster one.
async fn gone(closing: &CancellationToken, runs: &tokio_util::task::TaskTracker) {
    closing.cancelled().await;
    runs.close();
    runs.wait().await;
    // Answers to what was cancelled, and to what came just before the end, are being written.
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn broken(error: &dyn std::fmt::Display) -> Error {
    Error::new(
        Kind::Crashed,
        format!("the connection to the host broke: {error}"),
        "Restart the server; KIMI_BRIDGE_DEBUG=1 shows what it was doing.",
    )
}
