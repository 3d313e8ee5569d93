//! Standard input and output. Where they are pipes, the thread that speaks the protocol reads and writes them
//! itself, and no other is woken for each message. It does so by way of descriptions of its own: that these
//! do not wait is no business of whoever else has the pipe open. Sockets and terminals cannot be opened anew.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::{FileType, fstat};
use tokio::io::{AsyncRead, ReadBuf, Stdin, Stdout, stdin, stdout};
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};
use tokio_util::either::Either;

/// Standard input.
pub(super) fn input() -> Either<Drained, Stdin> {
    let pipe = opened_anew(rustix::stdio::stdin(), |path| OpenOptions::new().open_receiver(path));
    pipe.map_or_else(|| Either::Right(stdin()), |pipe| Either::Left(Drained(pipe)))
}

/// Standard output.
pub(super) fn output() -> Either<Sender, Stdout> {
    let pipe = opened_anew(rustix::stdio::stdout(), |path| OpenOptions::new().open_sender(path));
    pipe.map_or_else(|| Either::Right(stdout()), Either::Left)
}

/// A pipe, by another description; nothing for what is none, which is not even opened.
fn opened_anew<T>(pipe: BorrowedFd<'_>, open: impl FnOnce(String) -> io::Result<T>) -> Option<T> {
    let mode = fstat(pipe).ok()?.st_mode;
    let is_pipe = FileType::from_raw_mode(mode) == FileType::Fifo;
    if is_pipe { open(format!("/proc/self/fd/{}", pipe.as_raw_fd())).ok() } else { None }
}

/// A pipe that is read until it says that it is empty. The usual way takes one for empty that gave less than
/// was asked for, and one that hands over packets may hold more.
pub(super) struct Drained(Receiver);

impl AsyncRead for Drained {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(context))?;
            match self.0.try_read(buffer.initialize_unfilled()) {
                Ok(length) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}
