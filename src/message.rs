//! The wire: JSON messages over WebSocket text frames, encoded and decoded in both directions.
//!
//! Encoders append to a [`bytes::BytesMut`] and allocate nothing of their own. Decoders borrow from the frame: a
//! scanner reads the exact shape that the encoders here write, `serde_json` reads everything else, and both give the
//! same result (a property test compares them).

mod decode;
mod encode;
mod known;
mod scan;
mod template;
mod time;

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;

pub use decode::{decode_request, decode_request_text, decode_response, decode_response_text};
pub use encode::{
    encode_latency_probe, encode_purge, encode_stats_request, encode_throughput_test, encode_user_message,
};
pub use scan::OwnAnswer;
pub use template::{AnswerTemplate, RequestTemplate, SenderTemplate};
pub use time::WallTime;

/// What the server says in its `error` answer to a frame that is not JSON.
pub const INVALID_JSON: &str = "Invalid JSON format";

/// The identity of a client's n-th message, written `{client_id}-{n}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId<'a> {
    /// Who sent it; may itself contain `-`.
    pub client_id: &'a str,
    /// The message's place in the client's sequence, from 0.
    pub n: u64,
}

impl<'a> MessageId<'a> {
    /// Splits `text` at its last `-`; `None` where what follows is not a number as [`fmt::Display`] writes it.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (client_id, digits) = text.rsplit_once('-')?;
        let canonical =
            digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        let n = if canonical { digits.parse().ok()? } else { return None };
        Some(Self { client_id, n })
    }
}

impl fmt::Display for MessageId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.client_id, self.n)
    }
}

/// Which of the server's two queues a message waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Priority {
    /// Served before every normal message, and admitted to the queue's reserve.
    High,
    /// The priority of a message that names none.
    #[default]
    Normal,
}

impl Priority {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
        }
    }
}

/// A frame could not be read as a message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The frame is not JSON (or not UTF-8).
    #[error("not JSON: {reason}")]
    NotJson {
        /// What the parser says, with the place.
        reason: String,
    },
    /// A field that messages of this type must have is absent or null.
    #[error("field `{field}` is missing")]
    MissingField {
        /// The field's name.
        field: &'static str,
    },
    /// A field has a value that it cannot have.
    #[error("field `{field}` is not {expected}")]
    WrongField {
        /// The field's name.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq)]
pub enum Request<'a> {
    /// `throughput_test`.
    ThroughputTest(ThroughputTest<'a>),
    /// `user_message`.
    UserMessage(UserMessage<'a>),
    /// `latency_probe`.
    LatencyProbe(LatencyProbe<'a>),
    /// `get_performance_stats`.
    PerformanceStats,
    /// `purge`.
    Purge,
    /// Any other JSON.
    Other(Other<'a>),
}

/// A numbered message, answered by a [`ThroughputResponse`].
#[derive(Debug, Clone, PartialEq)]
pub struct ThroughputTest<'a> {
    /// The message's identity.
    pub message_id: Cow<'a, str>,
    /// The place in the client's sequence, from 0.
    pub sequence_id: u64,
    /// The payload.
    pub content: Cow<'a, str>,
    /// Who sends.
    pub client_id: Cow<'a, str>,
    /// The client's clock when it sent.
    pub send_time: WallTime,
    /// `None` is [`Priority::Normal`].
    pub priority: Option<Priority>,
}

/// A message that is processed once per id, answered by an [`AiResponse`] or a [`DuplicateRejected`].
#[derive(Debug, Clone, PartialEq)]
pub struct UserMessage<'a> {
    /// The message's identity, and the key of its idempotency.
    pub message_id: Cow<'a, str>,
    /// The place in the client's sequence, from 0.
    pub sequence_id: Option<u64>,
    /// Who sends.
    pub client_id: Option<Cow<'a, str>>,
    /// The payload.
    pub content: Option<Cow<'a, str>>,
    /// `None` is [`Priority::Normal`].
    pub priority: Option<Priority>,
    /// The client's clock when it sent.
    pub timestamp: Option<WallTime>,
}

/// A message that asks for the server's clock, answered by a [`LatencyResponse`].
#[derive(Debug, Clone, PartialEq)]
pub struct LatencyProbe<'a> {
    /// The message's identity.
    pub message_id: Cow<'a, str>,
    /// The client's clock when it sent.
    pub send_time: WallTime,
}

/// JSON of a type that is not in the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Other<'a> {
    /// The `type`, where it is a string.
    pub kind: Option<Cow<'a, str>>,
    /// The `message_id`, where it is a string.
    pub message_id: Option<Cow<'a, str>>,
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq)]
pub enum Response<'a> {
    /// `throughput_response`.
    Throughput(ThroughputResponse<'a>),
    /// `latency_response`.
    Latency(LatencyResponse<'a>),
    /// `ai_response`.
    Ai(AiResponse<'a>),
    /// `duplicate_rejected`.
    DuplicateRejected(DuplicateRejected<'a>),
    /// `backpressure`.
    Backpressure(Backpressure<'a>),
    /// `queue_full`.
    QueueFull(QueueFull<'a>),
    /// `performance_stats`.
    PerformanceStats(Box<PerformanceStats>),
    /// `generic_response`, without its echo.
    Generic(GenericResponse<'a>),
    /// `error`.
    Error(ErrorResponse<'a>),
    /// Any other JSON.
    Other(Other<'a>),
}

/// The answer to a [`ThroughputTest`].
#[derive(Debug, Clone, PartialEq)]
pub struct ThroughputResponse<'a> {
    /// The request's.
    pub message_id: Cow<'a, str>,
    /// The request's.
    pub sequence_id: u64,
    /// The server's clock when it answered.
    pub server_time: WallTime,
    /// Messages waiting in the server's queue.
    pub queue_depth: u64,
    /// CRC-32 (IEEE) of the request's content as the server read it; a foreign server need not send it.
    pub content_crc32: Option<u32>,
}

/// The answer to a [`LatencyProbe`].
#[derive(Debug, Clone, PartialEq)]
pub struct LatencyResponse<'a> {
    /// The request's.
    pub message_id: Cow<'a, str>,
    /// The request's `send_time`.
    pub client_send_time: WallTime,
    /// The server's clock when it read the request.
    pub server_receive_time: WallTime,
    /// The server's clock when it answered.
    pub server_send_time: WallTime,
    /// Messages waiting in the server's queue.
    pub queue_depth: u64,
}

/// The answer to a [`UserMessage`] that was processed.
#[derive(Debug, Clone, PartialEq)]
pub struct AiResponse<'a> {
    /// The request's.
    pub message_id: Cow<'a, str>,
    /// The request's, where it had one.
    pub sequence_id: Option<u64>,
    /// Our server echoes the request's content.
    pub content: Cow<'a, str>,
    /// How long the processing took, without the wait in the queue.
    pub processing_time_s: f64,
    /// The server's clock when processing ended.
    pub server_timestamp: WallTime,
    /// Messages waiting in the server's queue.
    pub queue_depth: u64,
    /// The server's clock when it answered.
    pub timestamp: WallTime,
}

/// The answer to a [`UserMessage`] whose id was processed before.
#[derive(Debug, Clone, PartialEq)]
pub struct DuplicateRejected<'a> {
    /// The request's.
    pub message_id: Cow<'a, str>,
    /// The server's clock when the first of that id was processed.
    pub original_timestamp: WallTime,
    /// The server's clock when it answered.
    pub timestamp: WallTime,
}

/// The signal that the queue has reached its threshold; it answers no message.
#[derive(Debug, Clone, PartialEq)]
pub struct Backpressure<'a> {
    /// For people.
    pub message: Cow<'a, str>,
    /// Messages waiting in the server's queue.
    pub queue_depth: u64,
    /// The threshold.
    pub max_queue: u64,
    /// The server's clock when it signalled.
    pub timestamp: WallTime,
}

/// This request was refused and not processed.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueFull<'a> {
    /// The request's.
    pub message_id: Cow<'a, str>,
    /// The request's, where it had one.
    pub sequence_id: Option<u64>,
    /// Messages waiting in the server's queue.
    pub queue_depth: u64,
    /// The threshold.
    pub max_queue: u64,
}

/// The answer to `get_performance_stats` and `purge`. Fields that only our server sends are optional.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PerformanceStats {
    /// Seconds since the server started.
    pub uptime_s: f64,
    /// Frames received that hold a message, of any type.
    pub message_count: u64,
    /// Connections now open.
    pub connection_count: u64,
    /// Messages waiting in the queue.
    pub queue_depth: u64,
    /// Frames that could not be read.
    pub error_count: u64,
    /// Memory in use, in MB; `None` where the server cannot tell.
    pub memory_usage_mb: Option<f64>,
    /// Growth of the memory in use since the start, in MB.
    pub memory_growth_mb: Option<f64>,
    /// `message_count` over the uptime.
    pub messages_per_second: f64,
    /// The server's clock when it answered.
    pub timestamp: WallTime,
    /// Requests for work received: `admitted`, `refused` and repeats of an id.
    pub received: Option<u64>,
    /// Requests taken into processing or its queue.
    pub admitted: Option<u64>,
    /// Requests whose processing is done.
    pub processed: Option<u64>,
    /// Requests refused with `queue_full`.
    pub refused: Option<u64>,
    /// Answers to requests for work handed to a connection: of processed ones, and `duplicate_rejected`.
    pub answered: Option<u64>,
    /// Bytes that the process has allocated and not freed.
    pub live_bytes: Option<u64>,
    /// Bytes of physical memory that the process holds.
    pub resident_bytes: Option<u64>,
}

/// The answer to a request of a type that is not in the table.
#[derive(Debug, Clone, PartialEq)]
pub struct GenericResponse<'a> {
    /// The request's, where it had one.
    pub message_id: Option<Cow<'a, str>>,
    /// The server's clock when it answered.
    pub timestamp: WallTime,
}

/// The answer to a frame that could not be read.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorResponse<'a> {
    /// [`INVALID_JSON`] for a frame that is not JSON.
    pub message: Cow<'a, str>,
    /// The server's clock when it answered.
    pub timestamp: WallTime,
}

#[cfg(test)]
mod tests;
