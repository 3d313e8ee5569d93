//! The MCP server over stdio, and the only room that knows rmcp. It decides nothing: requests, permissions and answers
//! are the matter of [`crate::consult`].

mod blocking;
mod lines;
mod prompts;
mod resources;
mod schemas;
mod server;
#[cfg(test)]
mod skills;
mod words;

use std::io;
use std::time::Duration;

use rmcp::ServiceExt as _;
use rmcp::service::ServerInitializeError;
use tokio::io::{AsyncRead, DuplexStream};
use tokio_util::sync::CancellationToken;

use self::server::Server;
use crate::error::{Error, Kind, Result};
use crate::settings::Config;

/// The time to write answers after the end of input or a signal, to a host that still reads. rmcp waits as long.
const CLOSING_TIME: Duration = Duration::from_secs(5);

/// Serves until the input ends or `closing` fires. Calls under way are then cancelled, and answered if they end at
/// once.
pub(crate) async fn serve(config: Config, closing: CancellationToken) -> Result<()> {
    let server = Server::new(config, closing.clone());
    let transport = (watched(tokio::io::stdin(), closing.clone()), tokio::io::stdout());
    let conversation = async {
        let running = match Box::pin(server.serve(transport)).await {
            Ok(running) => running,
            // The host left before it sent `initialize`.
            Err(_) if closing.is_cancelled() => return Ok(()),
            Err(error) if has_left(&error) => return Ok(()),
            Err(error) => return Err(broken(&error)),
        };
        running.waiting().await.map(drop).map_err(|error| broken(&error))
    };
    tokio::select! {
        ended = conversation => ended,
        // Until then, rmcp waits for every call under way and writes its answer.
        () = async {
            closing.cancelled().await;
            tokio::time::sleep(CLOSING_TIME).await;
        } => Ok(()),
    }
}

/// Wraps standard input. Its end fires `closing`, since rmcp lets handlers run for seconds after it and a host that
/// leaves does not wait that long. Conversely, `closing` ends the input, so that rmcp always ends the same way and
/// writes the remaining answers.
fn watched(
    input: impl AsyncRead + Send + Unpin + 'static,
    closing: CancellationToken,
) -> DuplexStream {
    let (reader, writer) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let copied = lines::copy(input, writer);
        closing.run_until_cancelled(copied).await;
        closing.cancel();
    });
    reader
}

/// Returns whether the reader of the server's output has left.
fn has_left(error: &ServerInitializeError) -> bool {
    let ServerInitializeError::TransportError { error, .. } = error else { return false };
    let io = error.error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn broken(error: &dyn std::fmt::Display) -> Error {
    let hint = "Restart the server; KIMI_BRIDGE_DEBUG=1 shows what it was doing.";
    Error::new(Kind::Crashed, format!("the connection to the host broke: {error}"), hint)
}
