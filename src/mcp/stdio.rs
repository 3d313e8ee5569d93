//! Standard input and output. Where they are pipes, the thread that speaks the protocol reads and writes them
//! itself, and no other is woken for each message. It does so by way of descriptions of its own: that these
//! do not wait is no business of whoever else has the pipe open. Sockets and terminals cannot be opened anew.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::{FileType, fstat};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, Stdin, Stdout, stdin, stdout};
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};

/// Standard input.
pub(super) enum Input {
    Pipe(Receiver),
    Other(Stdin),
}

/// Standard output.
pub(super) enum Output {
    Pipe(Sender),
    Other(Stdout),
}

impl Input {
    pub(super) fn standard() -> Input {
        let pipe =
            opened_anew(rustix::stdio::stdin(), |path| OpenOptions::new().open_receiver(path));
        pipe.map_or_else(|| Input::Other(stdin()), Input::Pipe)
    }
}

impl Output {
    pub(super) fn standard() -> Output {
        let pipe =
            opened_anew(rustix::stdio::stdout(), |path| OpenOptions::new().open_sender(path));
        pipe.map_or_else(|| Output::Other(stdout()), Output::Pipe)
    }
}

/// A pipe, by another description; nothing for what is none, which is not even opened.
fn opened_anew<T>(pipe: BorrowedFd<'_>, open: impl FnOnce(String) -> io::Result<T>) -> Option<T> {
    let mode = fstat(pipe).ok()?.st_mode;
    let is_pipe = FileType::from_raw_mode(mode) == FileType::Fifo;
    if is_pipe { open(format!("/proc/self/fd/{}", pipe.as_raw_fd())).ok() } else { None }
}

impl AsyncRead for Input {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // The usual way takes a pipe for empty that gave less than was asked for. One that hands over
            // packets may hold more.
            Input::Pipe(pipe) => loop {
                ready!(pipe.poll_read_ready(context))?;
                match pipe.try_read(buffer.initialize_unfilled()) {
                    Ok(length) => {
                        buffer.advance(length);
                        return Poll::Ready(Ok(()));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            },
            Input::Other(other) => Pin::new(other).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Output::Pipe(pipe) => Pin::new(pipe).poll_write(context, bytes),
            Output::Other(other) => Pin::new(other).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Output::Pipe(pipe) => Pin::new(pipe).poll_flush(context),
            Output::Other(other) => Pin::new(other).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Output::Pipe(pipe) => Pin::new(pipe).poll_shutdown(context),
            Output::Other(other) => Pin::new(other).poll_shutdown(context),
        }
    }
}
