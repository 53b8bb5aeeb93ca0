//! Decoders: the scanner first, `serde_json` for whatever it does not know.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{
    AiResponse, Backpressure, DecodeError, DuplicateRejected, ErrorResponse, GenericResponse, LatencyProbe,
    LatencyResponse, Other, PerformanceStats, Priority, QueueFull, Request, Response, ThroughputResponse,
    ThroughputTest, UserMessage, WallTime, scan,
};

/// Reads what a client sent.
///
/// # Errors
/// Where the bytes are not JSON, or a field of a known type is missing or wrong.
pub fn decode_request(frame: &[u8]) -> Result<Request<'_>, DecodeError> {
    decode_request_text(text_of(frame)?)
}

/// Like [`decode_request`], for a text that is known to be UTF-8.
///
/// # Errors
/// As [`decode_request`].
pub fn decode_request_text(text: &str) -> Result<Request<'_>, DecodeError> {
    scan::request(text).map_or_else(|| parse_request(text), Ok)
}

/// Reads what a server sent.
///
/// # Errors
/// Where the bytes are not JSON, or a field of a known type is missing or wrong.
pub fn decode_response(frame: &[u8]) -> Result<Response<'_>, DecodeError> {
    decode_response_text(text_of(frame)?)
}

/// Like [`decode_response`], for a text that is known to be UTF-8.
///
/// # Errors
/// As [`decode_response`].
pub fn decode_response_text(text: &str) -> Result<Response<'_>, DecodeError> {
    scan::response(text).map_or_else(|| parse_response(text), Ok)
}

pub(super) fn parse_request(text: &str) -> Result<Request<'_>, DecodeError> {
    let fields = Fields::parse(text)?;
    let Value::Text(kind) = &fields.kind else { return Ok(Request::Other(fields.other())) };
    Ok(match kind.as_ref() {
        "throughput_test" => Request::ThroughputTest(ThroughputTest {
            sequence_id: required("sequence_id", fields.sequence_id.integer("sequence_id")?)?,
            send_time: required("send_time", fields.send_time.time("send_time")?)?,
            priority: fields.priority.priority("priority")?,
            message_id: required("message_id", fields.message_id.text("message_id")?)?,
            content: required("content", fields.content.text("content")?)?,
            client_id: required("client_id", fields.client_id.text("client_id")?)?,
        }),
        "user_message" => Request::UserMessage(UserMessage {
            sequence_id: fields.sequence_id.integer("sequence_id")?,
            priority: fields.priority.priority("priority")?,
            timestamp: fields.timestamp.time("timestamp")?,
            message_id: required("message_id", fields.message_id.text("message_id")?)?,
            client_id: fields.client_id.text("client_id")?,
            content: fields.content.text("content")?,
        }),
        "latency_probe" => Request::LatencyProbe(LatencyProbe {
            send_time: required("send_time", fields.send_time.time("send_time")?)?,
            message_id: required("message_id", fields.message_id.text("message_id")?)?,
        }),
        "get_performance_stats" => Request::PerformanceStats,
        "purge" => Request::Purge,
        _ => Request::Other(fields.other()),
    })
}

pub(super) fn parse_response(text: &str) -> Result<Response<'_>, DecodeError> {
    let fields = Fields::parse(text)?;
    let Value::Text(kind) = &fields.kind else { return Ok(Response::Other(fields.other())) };
    Ok(match kind.as_ref() {
        "throughput_response" => Response::Throughput(fields.throughput_response()?),
        "latency_response" => Response::Latency(fields.latency_response()?),
        "ai_response" => Response::Ai(fields.ai_response()?),
        "duplicate_rejected" => Response::DuplicateRejected(DuplicateRejected {
            original_timestamp: required(
                "original_timestamp",
                fields.original_timestamp.time("original_timestamp")?,
            )?,
            timestamp: fields.answered_at()?,
            message_id: required("message_id", fields.message_id.text("message_id")?)?,
        }),
        "backpressure" => Response::Backpressure(Backpressure {
            queue_depth: required("queue_depth", fields.queue_depth.integer("queue_depth")?)?,
            max_queue: required("max_queue", fields.max_queue.integer("max_queue")?)?,
            timestamp: fields.answered_at()?,
            message: required("message", fields.message.text("message")?)?,
        }),
        "queue_full" => Response::QueueFull(QueueFull {
            sequence_id: fields.sequence_id.integer("sequence_id")?,
            queue_depth: required("queue_depth", fields.queue_depth.integer("queue_depth")?)?,
            max_queue: required("max_queue", fields.max_queue.integer("max_queue")?)?,
            message_id: required("message_id", fields.message_id.text("message_id")?)?,
        }),
        "performance_stats" => Response::PerformanceStats(Box::new(fields.performance_stats()?)),
        "generic_response" => Response::Generic(GenericResponse {
            timestamp: fields.answered_at()?,
            message_id: fields.message_id.text("message_id")?,
        }),
        "error" => Response::Error(ErrorResponse {
            timestamp: fields.answered_at()?,
            message: required("message", fields.message.text("message")?)?,
        }),
        _ => Response::Other(fields.other()),
    })
}

fn text_of(frame: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(frame).map_err(|error| DecodeError::NotJson { reason: error.to_string() })
}

fn required<T>(field: &'static str, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::MissingField { field })
}

/// Every field of every message, as it came: which ones matter depends on the type, which may come last.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Value<'a>,
    #[serde(borrow)]
    message_id: Value<'a>,
    #[serde(borrow)]
    sequence_id: Value<'a>,
    #[serde(borrow)]
    content: Value<'a>,
    #[serde(borrow)]
    client_id: Value<'a>,
    #[serde(borrow)]
    send_time: Value<'a>,
    #[serde(borrow)]
    priority: Value<'a>,
    #[serde(borrow)]
    timestamp: Value<'a>,
    #[serde(borrow)]
    server_time: Value<'a>,
    #[serde(borrow)]
    queue_depth: Value<'a>,
    #[serde(borrow)]
    content_crc32: Value<'a>,
    #[serde(borrow)]
    client_send_time: Value<'a>,
    #[serde(borrow)]
    server_receive_time: Value<'a>,
    #[serde(borrow)]
    server_send_time: Value<'a>,
    #[serde(borrow)]
    processing_time: Value<'a>,
    #[serde(borrow)]
    server_timestamp: Value<'a>,
    #[serde(borrow)]
    original_timestamp: Value<'a>,
    #[serde(borrow)]
    message: Value<'a>,
    #[serde(borrow)]
    max_queue: Value<'a>,
    #[serde(borrow)]
    uptime: Value<'a>,
    #[serde(borrow)]
    message_count: Value<'a>,
    #[serde(borrow)]
    connection_count: Value<'a>,
    #[serde(borrow)]
    error_count: Value<'a>,
    #[serde(borrow)]
    memory_usage_mb: Value<'a>,
    #[serde(borrow)]
    memory_growth_mb: Value<'a>,
    #[serde(borrow)]
    messages_per_second: Value<'a>,
    #[serde(borrow)]
    received: Value<'a>,
    #[serde(borrow)]
    admitted: Value<'a>,
    #[serde(borrow)]
    processed: Value<'a>,
    #[serde(borrow)]
    refused: Value<'a>,
    #[serde(borrow)]
    answered: Value<'a>,
    #[serde(borrow)]
    live_bytes: Value<'a>,
    #[serde(borrow)]
    resident_bytes: Value<'a>,
}

impl<'a> Fields<'a> {
    fn parse(text: &'a str) -> Result<Self, DecodeError> {
        let not_json = |error: serde_json::Error| DecodeError::NotJson { reason: error.to_string() };
        // An array would be taken for the fields in order.
        if text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{') {
            serde_json::from_str(text).map_err(not_json)
        } else {
            serde_json::from_str::<IgnoredAny>(text).map(|_| Self::default()).map_err(not_json)
        }
    }

    fn other(self) -> Other<'a> {
        Other {
            kind: self.kind.text("type").ok().flatten(),
            message_id: self.message_id.text("message_id").ok().flatten(),
        }
    }

    fn answered_at(&self) -> Result<WallTime, DecodeError> {
        required("timestamp", self.timestamp.time("timestamp")?)
    }

    fn throughput_response(self) -> Result<ThroughputResponse<'a>, DecodeError> {
        let content_crc32 = self.content_crc32.integer("content_crc32")?.map(u32::try_from).transpose();
        Ok(ThroughputResponse {
            sequence_id: required("sequence_id", self.sequence_id.integer("sequence_id")?)?,
            server_time: required("server_time", self.server_time.time("server_time")?)?,
            queue_depth: required("queue_depth", self.queue_depth.integer("queue_depth")?)?,
            content_crc32: content_crc32.map_err(|_| DecodeError::WrongField {
                field: "content_crc32",
                expected: "an integer below 2^32",
            })?,
            message_id: required("message_id", self.message_id.text("message_id")?)?,
        })
    }

    fn latency_response(self) -> Result<LatencyResponse<'a>, DecodeError> {
        Ok(LatencyResponse {
            client_send_time: required("client_send_time", self.client_send_time.time("client_send_time")?)?,
            server_receive_time: required(
                "server_receive_time",
                self.server_receive_time.time("server_receive_time")?,
            )?,
            server_send_time: required("server_send_time", self.server_send_time.time("server_send_time")?)?,
            queue_depth: required("queue_depth", self.queue_depth.integer("queue_depth")?)?,
            message_id: required("message_id", self.message_id.text("message_id")?)?,
        })
    }

    fn ai_response(self) -> Result<AiResponse<'a>, DecodeError> {
        Ok(AiResponse {
            sequence_id: self.sequence_id.integer("sequence_id")?,
            processing_time_s: required("processing_time", self.processing_time.number("processing_time")?)?,
            server_timestamp: required("server_timestamp", self.server_timestamp.time("server_timestamp")?)?,
            queue_depth: required("queue_depth", self.queue_depth.integer("queue_depth")?)?,
            timestamp: self.answered_at()?,
            message_id: required("message_id", self.message_id.text("message_id")?)?,
            content: required("content", self.content.text("content")?)?,
        })
    }

    fn performance_stats(self) -> Result<PerformanceStats, DecodeError> {
        let number = |field, value: &Value<'_>| required(field, value.number(field)?);
        let integer = |field, value: &Value<'_>| required(field, value.integer(field)?);
        Ok(PerformanceStats {
            uptime_s: number("uptime", &self.uptime)?,
            message_count: integer("message_count", &self.message_count)?,
            connection_count: integer("connection_count", &self.connection_count)?,
            queue_depth: integer("queue_depth", &self.queue_depth)?,
            error_count: integer("error_count", &self.error_count)?,
            memory_usage_mb: self.memory_usage_mb.number("memory_usage_mb")?,
            memory_growth_mb: self.memory_growth_mb.number("memory_growth_mb")?,
            messages_per_second: number("messages_per_second", &self.messages_per_second)?,
            timestamp: self.answered_at()?,
            received: self.received.integer("received")?,
            admitted: self.admitted.integer("admitted")?,
            processed: self.processed.integer("processed")?,
            refused: self.refused.integer("refused")?,
            answered: self.answered.integer("answered")?,
            live_bytes: self.live_bytes.integer("live_bytes")?,
            resident_bytes: self.resident_bytes.integer("resident_bytes")?,
        })
    }
}

/// One JSON value; what no message has (a list, an object, a boolean) is only known to be there.
#[derive(Debug, Default)]
enum Value<'a> {
    /// Absent or null, which means the same.
    #[default]
    Absent,
    Text(Cow<'a, str>),
    Integer(u64),
    Number(f64),
    Unusable,
}

impl<'a> Value<'a> {
    fn text(self, field: &'static str) -> Result<Option<Cow<'a, str>>, DecodeError> {
        match self {
            Self::Absent => Ok(None),
            Self::Text(text) => Ok(Some(text)),
            _ => Err(DecodeError::WrongField { field, expected: "a string" }),
        }
    }

    /// Some peers know only one kind of number: `5.0` is 5.
    fn integer(&self, field: &'static str) -> Result<Option<u64>, DecodeError> {
        /// Up to here (2^53) every integer is a double, so a double is the integer that was meant.
        const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;
        match *self {
            Self::Absent => Ok(None),
            Self::Integer(number) => Ok(Some(number)),
            Self::Number(number) if number.fract() == 0.0 && (0.0..EXACT_BELOW).contains(&number) => {
                Ok(Some(number as u64))
            }
            _ => Err(DecodeError::WrongField { field, expected: "an integer from 0" }),
        }
    }

    fn number(&self, field: &'static str) -> Result<Option<f64>, DecodeError> {
        match *self {
            Self::Absent => Ok(None),
            Self::Integer(number) => Ok(Some(number as f64)),
            Self::Number(number) => Ok(Some(number)),
            _ => Err(DecodeError::WrongField { field, expected: "a number" }),
        }
    }

    fn time(&self, field: &'static str) -> Result<Option<WallTime>, DecodeError> {
        Ok(self.number(field)?.map(WallTime::from_seconds))
    }

    fn priority(&self, field: &'static str) -> Result<Option<Priority>, DecodeError> {
        match self {
            Self::Absent => Ok(None),
            Self::Text(text) if text == "high" => Ok(Some(Priority::High)),
            Self::Text(text) if text == "normal" => Ok(Some(Priority::Normal)),
            _ => Err(DecodeError::WrongField { field, expected: "\"high\" or \"normal\"" }),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Value::Integer(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(u64::try_from(number).map_or(Value::Number(number as f64), Value::Integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Value::Unusable)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Absent)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Unusable)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Unusable)
    }
}
