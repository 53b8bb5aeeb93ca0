//! A byte stream that notes when bytes came and went.
//!
//! A latency must start no later than the write that sent a message and end no earlier than the read that brought its
//! answer. The stream itself is the only place that sees both, so it takes the time there: one clock reading a system
//! call, however many messages it carries.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::Clock;

/// What the connection runs over: any byte stream.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Transport for S {}

/// A stream with the times of its last read and write.
#[derive(Debug)]
pub(super) struct Tapped<S, C> {
    stream: S,
    clock: C,
    /// After the last read that brought bytes.
    read_ns: u64,
    /// Before the last write that took bytes.
    write_ns: u64,
    /// Bytes that the kernel took so far.
    written_bytes: u64,
}

impl<S, C: Clock> Tapped<S, C> {
    pub(super) fn new(stream: S, clock: C) -> Self {
        let now_ns = clock.now_ns();
        Self { stream, clock, read_ns: now_ns, write_ns: now_ns, written_bytes: 0 }
    }

    pub(super) fn read_ns(&self) -> u64 {
        self.read_ns
    }

    pub(super) fn write_ns(&self) -> u64 {
        self.write_ns
    }

    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }
}

impl<S: Transport, C: Clock + Unpin> AsyncRead for Tapped<S, C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.read_ns = this.clock.now_ns();
        }
        polled
    }
}

impl<S: Transport, C: Clock + Unpin> AsyncWrite for Tapped<S, C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let before_ns = this.clock.now_ns();
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(taken)) = polled
            && taken > 0
        {
            this.write_ns = before_ns;
            this.written_bytes += taken as u64;
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
