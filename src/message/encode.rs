//! Encoders: each appends one message to a buffer.

use std::fmt::Write as _;

use bytes::BytesMut;

use super::known::append_integer;
use super::scan::plain_len;
use super::{
    AiResponse, Backpressure, DuplicateRejected, ErrorResponse, GenericResponse, LatencyResponse, MessageId,
    PerformanceStats, Priority, QueueFull, ThroughputResponse, WallTime,
};

/// More than any message takes beside its strings, so that the buffer grows at most once a message.
const FIXED_BYTES: usize = 256;

/// Appends a `throughput_test`. The sequence number is the id's `n`.
pub fn encode_throughput_test(
    out: &mut BytesMut,
    id: MessageId<'_>,
    content: &str,
    send_time: WallTime,
    priority: Option<Priority>,
) {
    let (head, time_key) = (r#"{"type":"throughput_test","message_id":""#, r#"","send_time":"#);
    request(out, head, id, content, (time_key, send_time), priority);
}

/// Appends a `user_message`. The sequence number is the id's `n`.
pub fn encode_user_message(
    out: &mut BytesMut,
    id: MessageId<'_>,
    content: &str,
    timestamp: WallTime,
    priority: Option<Priority>,
) {
    let (head, time_key) = (r#"{"type":"user_message","message_id":""#, r#"","timestamp":"#);
    request(out, head, id, content, (time_key, timestamp), priority);
}

/// A request with content: the two differ in their type and in what they call their time.
#[inline]
fn request(
    out: &mut BytesMut,
    head: &str,
    id: MessageId<'_>,
    content: &str,
    (time_key, time): (&str, WallTime),
    priority: Option<Priority>,
) {
    out.reserve(FIXED_BYTES + 2 * id.client_id.len() + content.len());
    raw(out, head);
    message_id(out, id);
    raw(out, r#"","sequence_id":"#);
    integer(out, id.n);
    raw(out, r#","content":""#);
    escaped(out, content);
    raw(out, r#"","client_id":""#);
    escaped(out, id.client_id);
    raw(out, time_key);
    time.encode(out);
    optional_priority(out, priority);
    raw(out, "}");
}

/// Appends a `latency_probe`.
pub fn encode_latency_probe(out: &mut BytesMut, id: MessageId<'_>, send_time: WallTime) {
    raw(out, r#"{"type":"latency_probe","message_id":""#);
    message_id(out, id);
    raw(out, r#"","send_time":"#);
    send_time.encode(out);
    raw(out, "}");
}

/// Appends a `get_performance_stats`.
pub fn encode_stats_request(out: &mut BytesMut) {
    raw(out, r#"{"type":"get_performance_stats"}"#);
}

/// Appends a `purge`.
pub fn encode_purge(out: &mut BytesMut) {
    raw(out, r#"{"type":"purge"}"#);
}

impl ThroughputResponse<'_> {
    /// Appends the message.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(FIXED_BYTES + self.message_id.len());
        raw(out, r#"{"type":"throughput_response","message_id":""#);
        escaped(out, &self.message_id);
        raw(out, r#"","sequence_id":"#);
        integer(out, self.sequence_id);
        raw(out, r#","server_time":"#);
        self.server_time.encode(out);
        raw(out, r#","queue_depth":"#);
        integer(out, self.queue_depth);
        if let Some(crc32) = self.content_crc32 {
            raw(out, r#","content_crc32":"#);
            integer(out, u64::from(crc32));
        }
        raw(out, "}");
    }
}

impl LatencyResponse<'_> {
    /// Appends the message.
    pub fn encode(&self, out: &mut BytesMut) {
        raw(out, r#"{"type":"latency_response","message_id":"#);
        string(out, &self.message_id);
        raw(out, r#","client_send_time":"#);
        self.client_send_time.encode(out);
        raw(out, r#","server_receive_time":"#);
        self.server_receive_time.encode(out);
        raw(out, r#","server_send_time":"#);
        self.server_send_time.encode(out);
        raw(out, r#","queue_depth":"#);
        integer(out, self.queue_depth);
        raw(out, "}");
    }
}

impl AiResponse<'_> {
    /// Appends the message.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(FIXED_BYTES + self.message_id.len() + self.content.len());
        raw(out, r#"{"type":"ai_response","message_id":"#);
        string(out, &self.message_id);
        raw(out, r#","sequence_id":"#);
        optional_integer(out, self.sequence_id);
        raw(out, r#","content":"#);
        string(out, &self.content);
        raw(out, r#","processing_time":"#);
        float(out, self.processing_time_s);
        raw(out, r#","server_timestamp":"#);
        self.server_timestamp.encode(out);
        raw(out, r#","queue_depth":"#);
        integer(out, self.queue_depth);
        raw(out, r#","timestamp":"#);
        self.timestamp.encode(out);
        raw(out, "}");
    }
}

impl DuplicateRejected<'_> {
    /// Appends the message.
    pub fn encode(&self, out: &mut BytesMut) {
        raw(out, r#"{"type":"duplicate_rejected","message_id":"#);
        string(out, &self.message_id);
        raw(out, r#","original_timestamp":"#);
        self.original_timestamp.encode(out);
        timestamp_and_end(out, self.timestamp);
    }
}

impl Backpressure<'_> {
    /// Appends the message.
    pub fn encode(&self, out: &mut BytesMut) {
        raw(out, r#"{"type":"backpressure","message":"#);
        string(out, &self.message);
        raw(out, r#","queue_depth":"#);
        integer(out, self.queue_depth);
        raw(out, r#","max_queue":"#);
        integer(out, self.max_queue);
        timestamp_and_end(out, self.timestamp);
    }
}

impl QueueFull<'_> {
    /// Appends the message.
    pub fn encode(&self, out: &mut BytesMut) {
        raw(out, r#"{"type":"queue_full","message_id":"#);
        string(out, &self.message_id);
        raw(out, r#","sequence_id":"#);
        optional_integer(out, self.sequence_id);
        raw(out, r#","queue_depth":"#);
        integer(out, self.queue_depth);
        raw(out, r#","max_queue":"#);
        integer(out, self.max_queue);
        raw(out, "}");
    }
}

impl PerformanceStats {
    /// Appends the message.
    pub fn encode(&self, out: &mut BytesMut) {
        raw(out, r#"{"type":"performance_stats","uptime":"#);
        float(out, self.uptime_s);
        for (name, value) in [
            (r#","message_count":"#, Some(self.message_count)),
            (r#","connection_count":"#, Some(self.connection_count)),
            (r#","queue_depth":"#, Some(self.queue_depth)),
            (r#","error_count":"#, Some(self.error_count)),
            (r#","received":"#, self.received),
            (r#","admitted":"#, self.admitted),
            (r#","processed":"#, self.processed),
            (r#","refused":"#, self.refused),
            (r#","answered":"#, self.answered),
            (r#","live_bytes":"#, self.live_bytes),
            (r#","resident_bytes":"#, self.resident_bytes),
        ] {
            raw(out, name);
            optional_integer(out, value);
        }
        for (name, value) in [
            (r#","memory_usage_mb":"#, self.memory_usage_mb),
            (r#","memory_growth_mb":"#, self.memory_growth_mb),
            (r#","messages_per_second":"#, Some(self.messages_per_second)),
        ] {
            raw(out, name);
            float(out, value.unwrap_or(f64::NAN));
        }
        timestamp_and_end(out, self.timestamp);
    }
}

impl GenericResponse<'_> {
    /// Appends the message; `echo` is the request's text, which must be JSON.
    pub fn encode(&self, out: &mut BytesMut, echo: &str) {
        raw(out, r#"{"type":"generic_response","message_id":"#);
        match &self.message_id {
            Some(message_id) => string(out, message_id),
            None => raw(out, "null"),
        }
        raw(out, r#","echo":"#);
        raw(out, echo);
        timestamp_and_end(out, self.timestamp);
    }
}

impl ErrorResponse<'_> {
    /// Appends the message.
    pub fn encode(&self, out: &mut BytesMut) {
        raw(out, r#"{"type":"error","message":"#);
        string(out, &self.message);
        timestamp_and_end(out, self.timestamp);
    }
}

fn raw(out: &mut BytesMut, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

#[inline]
fn integer(out: &mut BytesMut, number: u64) {
    // One digit is the commonest number: nothing waits in a queue.
    match number {
        0..=9 => out.extend_from_slice(&[b'0' + number as u8]),
        _ => append_integer(out, number),
    }
}

fn optional_integer(out: &mut BytesMut, number: Option<u64>) {
    match number {
        Some(number) => integer(out, number),
        None => raw(out, "null"),
    }
}

/// JSON has no number that is not finite: such a one is `null`.
fn float(out: &mut BytesMut, number: f64) {
    if number.is_finite() {
        // Writing to a `BytesMut` fails only beyond `usize::MAX` bytes.
        let _ = write!(out, "{number}");
    } else {
        raw(out, "null");
    }
}

/// What stands between the quotes of a message id.
fn message_id(out: &mut BytesMut, id: MessageId<'_>) {
    escaped(out, id.client_id);
    raw(out, "-");
    integer(out, id.n);
}

fn optional_priority(out: &mut BytesMut, priority: Option<Priority>) {
    match priority {
        Some(Priority::High) => raw(out, r#","priority":"high""#),
        Some(Priority::Normal) => raw(out, r#","priority":"normal""#),
        None => {}
    }
}

fn timestamp_and_end(out: &mut BytesMut, timestamp: WallTime) {
    raw(out, r#","timestamp":"#);
    timestamp.encode(out);
    raw(out, "}");
}

fn string(out: &mut BytesMut, text: &str) {
    raw(out, "\"");
    escaped(out, text);
    raw(out, "\"");
}

/// Appends what stands between the quotes: as it is up to the first byte that needs an escape, and again after it.
pub(super) fn escaped(out: &mut BytesMut, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let (plain, special) = rest.split_at(plain_len(rest));
        out.extend_from_slice(plain);
        let Some((&byte, after)) = special.split_first() else { return };
        match byte {
            b'"' => raw(out, r#"\""#),
            b'\\' => raw(out, r"\\"),
            b'\n' => raw(out, r"\n"),
            b'\r' => raw(out, r"\r"),
            b'\t' => raw(out, r"\t"),
            control => {
                let hex = |nibble: u8| b"0123456789abcdef"[usize::from(nibble & 0xf)];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(control >> 4), hex(control)]);
            }
        }
        rest = after;
    }
}
