//! `kimi-bridge serve`.

use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::mcp;
use crate::settings::Loaded;

pub(super) async fn run(loaded: Loaded, stop: CancellationToken) -> Result<u8> {
    Box::pin(mcp::serve(loaded, stop)).await?;
    Ok(0)
}
