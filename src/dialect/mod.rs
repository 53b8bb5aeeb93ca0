//! Dialects: what to send, and how the answer to it is recognised. One file a dialect.
//!
//! A [`Dialect`] is shared by a whole run; each connection gets a [`Session`] of its own, which knows the connection's
//! ids and remembers what it must. Nothing that a peer sends is trusted: whatever it is, it becomes an [`Answer`].

mod content;
mod echo;
mod floodline;

use std::fmt;
use std::str::FromStr;

use bytes::BytesMut;
use thiserror::Error;

pub use content::Content;
pub use echo::Echo;
pub use floodline::{Floodline, RequestKind};

use crate::ledger::Lane;
use crate::message::WallTime;
use crate::units::UnitError;

/// How a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// A text frame; the payload is valid UTF-8.
    Text,
    /// A binary frame.
    Binary,
}

/// A message that came in, as the WebSocket layer gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

/// What a frame means to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The server processed message `sequence` of this connection.
    Processed {
        /// Which message.
        sequence: u64,
        /// The lane within which it keeps its order; `None` where it left at once, outside the order.
        lane: Option<Lane>,
        /// Whether the content came back as it was sent, as far as this dialect can tell.
        intact: bool,
        /// The depth of the server's queue, where it says so.
        queue_depth: Option<u64>,
    },
    /// The server refused message `sequence`.
    Refused {
        /// Which message.
        sequence: u64,
        /// The depth of the server's queue, where it says so.
        queue_depth: Option<u64>,
    },
    /// The server signals backpressure; this answers no message.
    Backpressure {
        /// The depth of the server's queue.
        queue_depth: u64,
    },
    /// An answer to an id that is not this connection's.
    Foreign,
    /// An answer that cannot be read; its message stays without one.
    Corrupted,
    /// An answer that names no message.
    Unattributed,
    /// Something that is no answer and need not be counted.
    Ignored,
}

/// Who a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `{run}-{shard}-{connection}`: new for every phase, kept across reconnects.
    pub client_id: String,
    /// The connection's index over all shards.
    pub connection: u32,
}

/// A dialect, ready to be spoken.
pub trait Dialect: Clone + Send + 'static {
    /// A connection's share of it.
    type Session: Session;

    /// Its name, as `--dialect` takes it.
    fn name(&self) -> &'static str;

    /// The session of a connection.
    fn session(&self, identity: Identity) -> Self::Session;
}

/// A dialect as one connection speaks it.
pub trait Session: 'static {
    /// How its messages travel.
    fn frame_kind(&self) -> FrameKind;

    /// Appends message `sequence` to `out`; the same bytes each time, but for the time.
    fn encode(&mut self, sequence: u64, now: WallTime, out: &mut BytesMut);

    /// Says what a frame from the peer means.
    fn decode(&mut self, frame: Frame<'_>) -> Answer;
}

/// A dialect's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DialectKind {
    /// Our wire.
    #[default]
    Floodline,
    /// Any echo server.
    Echo,
}

impl DialectKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Floodline, Self::Echo];

    /// The name, as `--dialect` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Floodline => "floodline",
            Self::Echo => "echo",
        }
    }

    /// What it is, in a line.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::Floodline => {
                "JSON requests and answers with ids, content checked by CRC-32 (the mock server's wire)"
            }
            Self::Echo => "any server that sends each message back; the answer is compared byte for byte",
        }
    }
}

impl FromStr for DialectKind {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| UnitError::Malformed {
            value: text.to_owned(),
            expected: "a dialect: floodline or echo",
        })
    }
}

impl fmt::Display for DialectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A dialect cannot be spoken with these settings.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DialectError {
    /// The payload has no room for what identifies a message.
    #[error("dialect echo needs a payload of at least {needed} bytes for its message ids, not {bytes}")]
    PayloadTooSmall {
        /// What was asked for.
        bytes: usize,
        /// The least that works.
        needed: usize,
    },
}
