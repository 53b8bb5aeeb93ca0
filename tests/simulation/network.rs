//! What the client connects through: a simulated TCP stream that takes and gives as few bytes at a time as it likes, so
//! that cuts fall into the middle of frames.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use floodline::client::{Connect, ConnectError};
use floodline::schedule::mix;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use turmoil::net::TcpStream;

pub const SERVER: &str = "server";
pub const CLIENT: &str = "client";
pub const PORT: u16 = 9_000;

/// Opens simulated connections to the server.
#[derive(Clone)]
pub struct SimulatedConnect {
    seed: u64,
    chop: Option<u64>,
    opened: Arc<AtomicU64>,
}

impl SimulatedConnect {
    pub fn new(seed: u64, chop: Option<u64>) -> Self {
        Self { seed, chop, opened: Arc::default() }
    }
}

impl Connect for SimulatedConnect {
    type Stream = Chopped;

    async fn open(&self) -> Result<Chopped, ConnectError> {
        let address = format!("{SERVER}:{PORT}");
        let stream =
            TcpStream::connect((SERVER, PORT)).await.map_err(|cause| ConnectError::Tcp { address, cause })?;
        let place = self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Chopped::new(stream, self.chop, mix(self.seed, place)))
    }

    fn request(&self, _connection: u32) -> Result<Request, ConnectError> {
        let request = format!("ws://{SERVER}:{PORT}/ws").into_client_request();
        request.map_err(|error| ConnectError::NotWebSocket { cause: error.to_string() })
    }
}

/// A stream that reads and writes at most so many bytes at a time.
pub struct Chopped {
    stream: TcpStream,
    most: Option<u64>,
    rng: Xoshiro256PlusPlus,
}

/// As many bytes as one read may bring: less than the client's buffer holds.
const READ_BYTES: usize = 4_096;

impl Chopped {
    pub fn new(stream: TcpStream, most: Option<u64>, seed: u64) -> Self {
        Self { stream, most, rng: Xoshiro256PlusPlus::seed_from_u64(seed) }
    }

    fn bite(&mut self, bytes: usize) -> usize {
        match self.most {
            Some(most) => bytes.min(1 + (self.rng.next_u64() % most) as usize),
            None => bytes,
        }
    }
}

impl AsyncRead for Chopped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; READ_BYTES];
        let bite = self.bite(buf.remaining().min(READ_BYTES));
        let mut part = ReadBuf::new(&mut bytes[..bite]);
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        buf.put_slice(part.filled());
        polled
    }
}

impl AsyncWrite for Chopped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let bite = self.bite(buf.len());
        Pin::new(&mut self.stream).poll_write(cx, &buf[..bite])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
