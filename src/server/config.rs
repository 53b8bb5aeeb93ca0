//! The server's settings.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::fault::ServerFault;
use super::idempotency::{ProcessedIds, Retention};
use super::tls::ServerTls;
use super::tokens::KnownToken;

/// How the server listens, processes and limits. [`Default`] is an ephemeral port on loopback without a delay.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where [`spawn`](super::HighVolumeWebSocketServer::spawn) listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Threads that serve connections, which are dealt to them in turn.
    pub workers: usize,
    /// How long the processing of a request takes. Zero answers a request as soon as it is read, without a queue.
    pub processing_delay: Duration,
    /// How many requests are in work at once; `None` is no limit, and then nothing ever waits. Without a delay it
    /// means nothing.
    pub concurrency: Option<usize>,
    /// How many requests may wait; high-priority ones may fill a tenth more.
    pub queue_capacity: usize,
    /// Connections above this are closed with 1013.
    pub max_connections: usize,
    /// The bearer token that a handshake must bring, where there is one.
    pub token: Option<Secret>,
    /// More bearer tokens, each with whose it is; a handshake must bring one of them, or the one above.
    pub tokens: Vec<KnownToken>,
    /// Subprotocols that are spoken: of those that a handshake offers, the first one is chosen.
    pub subprotocols: Vec<String>,
    /// Where there is one, TLS alone is spoken.
    pub tls: Option<ServerTls>,
    /// What remembers the ids of processed messages; `None` is the server's own memory, bounded as follows.
    pub store: Option<Arc<dyn ProcessedIds>>,
    /// How many ids of processed messages the server's own memory holds, and for how long.
    pub retention: Retention,
    /// The largest message; a longer one closes its connection with 1009.
    pub max_message_bytes: usize,
    /// The most that is read from a connection at once. A worker has one such buffer for all its connections.
    pub read_buffer_bytes: usize,
    /// Bytes of each of a connection's two buffers in the kernel; `None` leaves them to the system, which lets them grow to
    /// megabytes.
    pub socket_buffer_bytes: Option<usize>,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long a shutdown waits for what was admitted to be answered.
    pub shutdown_grace: Duration,
    /// Where the figures of memory come from; without it they are null.
    pub memory: Option<MemoryProbe>,
    /// What the server is to do wrong.
    pub faults: Vec<ServerFault>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            workers: default_workers(),
            processing_delay: Duration::ZERO,
            concurrency: None,
            queue_capacity: 10_000,
            max_connections: 1_100,
            token: None,
            tokens: Vec::new(),
            subprotocols: Vec::new(),
            tls: None,
            store: None,
            retention: Retention::default(),
            max_message_bytes: 1 << 20,
            // As much as a full window of 32 requests on ten connections; more gains nothing.
            read_buffer_bytes: 64 << 10,
            socket_buffer_bytes: None,
            handshake_timeout: Duration::from_secs(10),
            shutdown_grace: Duration::from_secs(30),
            memory: None,
            faults: Vec::new(),
        }
    }
}

impl ServerConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first setting whose value makes no sense.
    pub fn validate(&self) -> Result<(), ServerConfigError> {
        const DAY: Duration = Duration::from_secs(86_400);
        within("workers", self.workers, 1, 1_024)?;
        within("queue_capacity", self.queue_capacity, 1, 100_000_000)?;
        within("max_connections", self.max_connections, 1, 10_000_000)?;
        within("idempotency_ids", self.retention.max_ids.get(), 1, 1_000_000_000)?;
        within("max_message_bytes", self.max_message_bytes, 1, 1 << 30)?;
        within("read_buffer_bytes", self.read_buffer_bytes, 1 << 10, 16 << 20)?;
        if let Some(bytes) = self.socket_buffer_bytes {
            within("socket_buffer_bytes", bytes, 1 << 10, 1 << 30)?;
        }
        if let Some(concurrency) = self.concurrency {
            within("concurrency", concurrency, 1, 100_000_000)?;
        }
        up_to("processing_delay", self.processing_delay, Duration::ZERO, DAY)?;
        up_to("handshake_timeout", self.handshake_timeout, Duration::from_millis(1), DAY)?;
        up_to("shutdown_grace", self.shutdown_grace, Duration::ZERO, DAY)?;
        if self.token.as_ref().is_some_and(|token| !token.is_sendable()) {
            return Err(ServerConfigError::Token);
        }
        self.tokens.iter().try_for_each(KnownToken::validate)?;
        self.faults.iter().try_for_each(ServerFault::validate)
    }
}

/// A setting has a value that it cannot have.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ServerConfigError {
    /// A number or a duration is out of its range.
    #[error("`{setting}` is {value}, but must be {expected}")]
    OutOfRange {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// The token cannot stand in a header. Its value is not shown.
    #[error("`token` must be one or more visible ASCII characters")]
    Token,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Compares in a time that depends only on the length of `given`.
    pub(super) fn matches(&self, given: &[u8]) -> bool {
        let secret = self.0.as_bytes();
        let different = given
            .iter()
            .zip(secret.iter().cycle())
            .fold(secret.len() ^ given.len(), |different, (a, b)| different | usize::from(a ^ b));
        different == 0
    }

    pub(super) fn is_sendable(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_graphic())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where the server reads its memory and gives it back: what can do so depends on the process, not on the server.
#[derive(Debug, Clone, Copy)]
pub struct MemoryProbe {
    /// Bytes allocated and not freed.
    pub live_bytes: fn() -> Option<u64>,
    /// Bytes of physical memory in use.
    pub resident_bytes: fn() -> Option<u64>,
    /// Gives free memory back to the system.
    pub purge: fn(),
}

/// On a small machine one, so that the load has a core of its own; else half of the cores.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get).div_euclid(2).max(1)
}

fn within(setting: &'static str, value: usize, min: usize, max: usize) -> Result<(), ServerConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let expected = format!("{min} to {max}");
    Err(ServerConfigError::OutOfRange { setting, value: value.to_string(), expected })
}

pub(super) fn up_to(
    setting: &'static str,
    value: Duration,
    min: Duration,
    max: Duration,
) -> Result<(), ServerConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let expected = format!("{min:?} to {max:?}");
    Err(ServerConfigError::OutOfRange { setting, value: format!("{value:?}"), expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_nonsense_is_named() {
        let config = ServerConfig::default();
        assert_eq!(config.validate(), Ok(()));
        for (config, setting) in [
            (ServerConfig { workers: 0, ..config.clone() }, "workers"),
            (ServerConfig { queue_capacity: 0, ..config.clone() }, "queue_capacity"),
            (ServerConfig { concurrency: Some(0), ..config.clone() }, "concurrency"),
            (ServerConfig { max_connections: 0, ..config.clone() }, "max_connections"),
            (ServerConfig { read_buffer_bytes: 1, ..config.clone() }, "read_buffer_bytes"),
            (ServerConfig { socket_buffer_bytes: Some(1), ..config.clone() }, "socket_buffer_bytes"),
            (ServerConfig { handshake_timeout: Duration::ZERO, ..config.clone() }, "handshake_timeout"),
            (ServerConfig { processing_delay: Duration::MAX, ..config.clone() }, "processing_delay"),
            (ServerConfig { token: Some(Secret::new("a b")), ..config.clone() }, "token"),
            (
                ServerConfig {
                    faults: vec![ServerFault::DropAnswers { share: 1.5, seed: 0 }],
                    ..config.clone()
                },
                "share",
            ),
        ] {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(&format!("`{setting}`")), "{message}");
        }
    }

    #[test]
    fn a_secret_is_compared_and_never_printed() {
        let secret = Secret::new("tok-en");
        assert!(secret.matches(b"tok-en"));
        for wrong in [b"" as &[u8], b"tok-e", b"tok-em", b"tok-entok-en"] {
            assert!(!secret.matches(wrong));
        }
        let config = ServerConfig { token: Some(secret), ..ServerConfig::default() };
        assert!(!format!("{config:?}").contains("tok-en"));
    }
}
