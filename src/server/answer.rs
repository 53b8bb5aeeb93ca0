//! What a processed request is answered.

use std::borrow::Cow;
use std::time::Duration;

use bytes::BytesMut;

use crate::clock::unix_now_ns;
use crate::message::{AiResponse, LatencyResponse, Request, ThroughputResponse, WallTime};

/// What an answer tells beside its request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances {
    /// The server's clock when the request was read.
    pub(super) received_at: WallTime,
    /// The server's clock now.
    pub(super) now: WallTime,
    /// How long the processing took.
    pub(super) processing: Duration,
    /// Requests that wait.
    pub(super) queue_depth: u64,
}

/// A request that is processed, as opposed to one that is answered at once: its id, and its answer.
pub(super) fn work_id<'a>(request: &'a Request<'_>) -> Option<&'a str> {
    match request {
        Request::ThroughputTest(test) => Some(&test.message_id),
        Request::UserMessage(message) => Some(&message.message_id),
        Request::LatencyProbe(probe) => Some(&probe.message_id),
        Request::PerformanceStats | Request::Purge | Request::Other(_) => None,
    }
}

/// Whether the answer to it tells of its content.
pub(super) fn tells_of_content(request: &Request<'_>) -> bool {
    matches!(request, Request::ThroughputTest(_) | Request::UserMessage(_))
}

/// Lets the answer name a message that was never sent: one of nobody.
pub(super) fn misname(request: &mut Request<'_>) {
    let id = match request {
        Request::ThroughputTest(test) => &mut test.message_id,
        Request::UserMessage(message) => &mut message.message_id,
        Request::LatencyProbe(probe) => &mut probe.message_id,
        Request::PerformanceStats | Request::Purge | Request::Other(_) => return,
    };
    *id = Cow::Owned(format!("nobody-{id}"));
}

/// Alters the first character of the content, or adds one where there is none.
pub(super) fn alter(request: &mut Request<'_>) {
    let content = match request {
        Request::ThroughputTest(test) => &mut test.content,
        Request::UserMessage(message) => message.content.get_or_insert_default(),
        Request::LatencyProbe(_) | Request::PerformanceStats | Request::Purge | Request::Other(_) => return,
    };
    let mut rest = content.chars();
    let other = if rest.next() == Some('x') { 'y' } else { 'x' };
    *content = Cow::Owned(std::iter::once(other).chain(rest).collect());
}

/// Appends the answer to a processed request; nothing, where the request is not one that is processed.
pub(super) fn encode(request: &Request<'_>, circumstances: Circumstances, out: &mut BytesMut) {
    let Circumstances { received_at, now, processing, queue_depth } = circumstances;
    match request {
        Request::ThroughputTest(test) => ThroughputResponse {
            message_id: Cow::Borrowed(&test.message_id),
            sequence_id: test.sequence_id,
            server_time: now,
            queue_depth,
            content_crc32: Some(crc32fast::hash(test.content.as_bytes())),
        }
        .encode(out),
        Request::UserMessage(message) => AiResponse {
            message_id: Cow::Borrowed(&message.message_id),
            sequence_id: message.sequence_id,
            content: Cow::Borrowed(message.content.as_deref().unwrap_or_default()),
            processing_time_s: processing.as_secs_f64(),
            server_timestamp: now,
            queue_depth,
            timestamp: now,
        }
        .encode(out),
        Request::LatencyProbe(probe) => LatencyResponse {
            message_id: Cow::Borrowed(&probe.message_id),
            client_send_time: probe.send_time,
            server_receive_time: received_at,
            // Not the time of the batch: a probe asks for the clock itself.
            server_send_time: WallTime::from_unix_ns(unix_now_ns()),
            queue_depth,
        }
        .encode(out),
        Request::PerformanceStats | Request::Purge | Request::Other(_) => {}
    }
}
