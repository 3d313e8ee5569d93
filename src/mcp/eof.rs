//! Standard input, watched for its end: rmcp lets handlers run on for seconds after it, and a host
//! that is leaving does not wait that long. It ends as well when the server is told to stop, so that
//! rmcp knows one way to end, and writes out what has been answered.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A reader that fires a token when the bytes end, and ends when somebody else fires it.
pub(super) struct Watched<R> {
    inner: R,
    ended: CancellationToken,
    told: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<R> Watched<R> {
    pub(super) fn new(inner: R, ended: CancellationToken) -> Watched<R> {
        let told = Box::pin(ended.clone().cancelled_owned());
        Watched { inner, ended, told }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Watched<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.told.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        match &polled {
            Poll::Ready(Ok(())) if buffer.filled().len() == before && buffer.remaining() > 0 => {
                self.ended.cancel();
            }
            Poll::Ready(Err(_)) => self.ended.cancel(),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        polled
    }
}
