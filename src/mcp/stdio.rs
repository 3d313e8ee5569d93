//! Standard input and output. Where they are pipes, the thread that speaks the protocol reads and writes them
//! itself, and no other is woken for each message. It does so by way of descriptions of its own: that these
//! do not wait is no business of whoever else has the pipe open. Sockets and terminals cannot be opened anew.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

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
        let pipe = OpenOptions::new().open_receiver("/proc/self/fd/0");
        pipe.map_or_else(|_| Input::Other(stdin()), Input::Pipe)
    }
}

impl Output {
    pub(super) fn standard() -> Output {
        let pipe = OpenOptions::new().open_sender("/proc/self/fd/1");
        pipe.map_or_else(|_| Output::Other(stdout()), Output::Pipe)
    }
}

impl AsyncRead for Input {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Input::Pipe(pipe) => Pin::new(pipe).poll_read(context, buffer),
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
