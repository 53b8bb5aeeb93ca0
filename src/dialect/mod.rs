//! Dialects: what to send, and how the answer to it is recognised. One file a dialect.
//!
//! A [`Dialect`] is shared by a whole run; each connection gets a [`Session`] of its own, which knows the connection's
//! ids and remembers what it must. Nothing that a peer sends is trusted: whatever it is, it becomes an [`Answer`].

mod any;
mod body;
mod codec;
mod content;
mod echo;
mod fan_out;
mod floodline;
mod json;
mod mqtt;
mod nats;
mod settings;
mod socketio;
mod stomp;
mod template;
mod wire;

use std::fmt;
use std::str::FromStr;

use bytes::{Bytes, BytesMut};
use thiserror::Error;

pub use any::AnyDialect;
pub use content::Content;
pub use echo::Echo;
pub use fan_out::FanOutCounts;
pub use floodline::{Floodline, RequestKind};
pub use json::Json;
pub use mqtt::Mqtt;
pub use nats::Nats;
pub use settings::{Credentials, DialectSettings};
pub use socketio::Socketio;
pub use stomp::Stomp;

use crate::ledger::Lane;
use crate::message::WallTime;
use crate::secrets::Secrets;
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

    /// The WebSocket subprotocol that its handshake asks for, where it has one.
    fn subprotocol(&self) -> Option<&'static str> {
        None
    }

    /// What became of the copies of messages that go to several connections, so far; none where each goes to one.
    fn fan_out(&self) -> Option<FanOutCounts> {
        None
    }

    /// What this dialect tells the peer and nobody else may see: it is hidden in whatever of the peer's words is shown.
    fn secrets(&self) -> Secrets {
        Secrets::default()
    }

    /// The session of a connection; a new one each time that the connection is opened.
    fn session(&self, identity: Identity) -> Self::Session;
}

/// How far an opening has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// Load may be offered.
    Ready,
    /// The peer has to say something first.
    Waiting,
    /// The peer will not have it: what it said, in full. It may have said a secret back: see [`Dialect::secrets`].
    Refused(String),
}

/// A dialect as one connection speaks it.
///
/// Only three methods are needed by a dialect whose frames are messages. The others serve those that open with messages of
/// their own, that owe the peer replies, or whose frames are pieces of a byte stream.
pub trait Session: 'static {
    /// How its messages travel.
    fn frame_kind(&self) -> FrameKind;

    /// Appends message `sequence` to `out`; the same bytes each time, but for the time.
    fn encode(&mut self, sequence: u64, now: WallTime, out: &mut BytesMut);

    /// Says what a frame from the peer means: the first of its answers, where it holds several.
    fn decode(&mut self, frame: Frame<'_>) -> Answer;

    /// The next answer in what has come so far; asked after each frame until there is none.
    #[inline]
    fn more(&mut self) -> Option<Answer> {
        None
    }

    /// Goes on with the opening: first with no frame, then with each that comes, until it is not waiting any more. What it
    /// says to the peer is [`owed`](Self::owed).
    fn open(&mut self, _frame: Option<Frame<'_>>) -> Opening {
        Opening::Ready
    }

    /// A frame that the peer is owed, of the same kind as the messages: part of the opening, a pong, an acknowledgement.
    /// Asked until there is none.
    #[inline]
    fn owed(&mut self) -> Option<Bytes> {
        None
    }

    /// Why nothing more can be said over this connection, where that is so: the peer said goodbye, or cannot be followed. It
    /// may hold the peer's words in full.
    #[inline]
    fn ended(&mut self) -> Option<String> {
        None
    }
}

/// A dialect's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DialectKind {
    /// Our wire.
    #[default]
    Floodline,
    /// Any echo server.
    Echo,
    /// Any request–answer service in JSON.
    Json,
    /// An MQTT broker.
    Mqtt,
    /// A NATS server.
    Nats,
    /// A STOMP broker.
    Stomp,
    /// A Socket.IO server.
    Socketio,
}

impl DialectKind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Floodline, Self::Echo, Self::Json, Self::Mqtt, Self::Nats, Self::Stomp, Self::Socketio];

    /// The name, as `--dialect` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Floodline => "floodline",
            Self::Echo => "echo",
            Self::Json => "json",
            Self::Mqtt => "mqtt",
            Self::Nats => "nats",
            Self::Stomp => "stomp",
            Self::Socketio => "socketio",
        }
    }

    /// What to ask a server of this kind for where a URL names nothing.
    #[must_use]
    pub fn default_path(self) -> Option<&'static str> {
        (self == Self::Socketio).then_some("/socket.io/?EIO=4&transport=websocket")
    }

    /// What it is, in a line.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::Floodline => {
                "JSON requests and answers with ids, content checked by CRC-32 (the mock server's wire)"
            }
            Self::Echo => {
                "any server that sends each message back, text or binary; the answer is compared byte for byte"
            }
            Self::Json => {
                "any request-answer service in JSON, described by --json-request, --json-id and others"
            }
            Self::Mqtt => {
                "MQTT 3.1.1: each client subscribes to a topic of its own, and publishes to it (QoS 0, 1)"
            }
            Self::Nats => "NATS: each client subscribes to a subject of its own, and publishes to it",
            Self::Stomp => {
                "STOMP 1.2, as RabbitMQ's web-stomp: each client sends to a destination of its own"
            }
            Self::Socketio => "Socket.IO v4: events, each answered by its acknowledgement",
        }
    }
}

impl FromStr for DialectKind {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| UnitError::Malformed {
            value: text.to_owned(),
            expected: "a dialect: floodline, echo, json, mqtt, nats, stomp or socketio",
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
    #[error("dialect {dialect} needs a payload of at least {needed} bytes for its message ids, not {bytes}")]
    PayloadTooSmall {
        /// Which dialect.
        dialect: &'static str,
        /// What was asked for.
        bytes: usize,
        /// The least that works.
        needed: usize,
    },
    /// A setting of a dialect makes no sense.
    #[error("{flag} (dialect.{key}) `{value}`: {cause}")]
    Setting {
        /// The flag that sets it.
        flag: String,
        /// Its key, without the section `dialect`.
        key: String,
        /// What it was set to.
        value: String,
        /// What is wrong with that.
        cause: &'static str,
    },
    /// A setting names an environment variable that is not there.
    #[error("{flag} (dialect.{key}): there is no environment variable {name}")]
    NoVariable {
        /// The flag that sets it.
        flag: &'static str,
        /// Its key, without the section `dialect`.
        key: &'static str,
        /// The variable.
        name: String,
    },
}

impl DialectError {
    /// The setting `name` of a dialect makes no sense.
    fn setting(dialect: &str, name: &str, value: &str, cause: &'static str) -> Self {
        Self::Setting {
            flag: format!("--{dialect}-{}", name.replace('_', "-")),
            key: format!("{dialect}.{name}"),
            value: value.to_owned(),
            cause,
        }
    }
}

/// What a peer said, as a text.
fn spoken(frame: Frame<'_>) -> String {
    match frame {
        Frame::Text(text) => text.to_owned(),
        Frame::Binary(bytes) => bytes.escape_ascii().to_string(),
    }
}
