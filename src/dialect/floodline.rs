//! `floodline`: the wire of our mock server, and of the platform that it stands for.

use std::str::FromStr;

use bytes::BytesMut;

use super::{Answer, Content, Dialect, Frame, FrameKind, Identity, Session};
use crate::ledger::Lane;
use crate::message::{
    AnswerTemplate, MessageId, OwnAnswer, Priority, RequestTemplate, Response, WallTime, decode_response_text,
};
use crate::units::UnitError;

/// Which request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequestKind {
    /// `throughput_test`: the content's CRC-32 comes back.
    #[default]
    ThroughputTest,
    /// `user_message`: processed once for an id, the content comes back.
    UserMessage,
}

impl RequestKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::ThroughputTest, Self::UserMessage];

    /// The word on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ThroughputTest => "throughput_test",
            Self::UserMessage => "user_message",
        }
    }
}

impl FromStr for RequestKind {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| UnitError::Malformed {
            value: text.to_owned(),
            expected: "a request: throughput_test or user_message",
        })
    }
}

/// Our own wire.
#[derive(Debug, Clone)]
pub struct Floodline {
    content: Content,
    request: RequestKind,
    priority: Option<Priority>,
}

impl Floodline {
    /// The dialect for contents of `payload_bytes` bytes, all sent as one kind of request and with one priority, or with
    /// none, which the server takes for the normal one.
    #[must_use]
    pub fn new(seed: u64, payload_bytes: usize, request: RequestKind, priority: Option<Priority>) -> Self {
        Self { content: Content::new(seed, payload_bytes), request, priority }
    }

    fn lane(&self) -> Lane {
        match self.priority.unwrap_or_default() {
            Priority::High => Lane::High,
            Priority::Normal => Lane::Normal,
        }
    }
}

impl Dialect for Floodline {
    type Session = FloodlineSession;

    fn name(&self) -> &'static str {
        "floodline"
    }

    fn session(&self, identity: Identity) -> FloodlineSession {
        let request = match self.request {
            RequestKind::ThroughputTest => {
                RequestTemplate::throughput_test(&identity.client_id, self.priority)
            }
            RequestKind::UserMessage => RequestTemplate::user_message(&identity.client_id, self.priority),
        };
        let answer = AnswerTemplate::new(&identity.client_id);
        FloodlineSession { dialect: self.clone(), identity, request, answer }
    }
}

/// One connection's share of our wire.
#[derive(Debug)]
pub struct FloodlineSession {
    dialect: Floodline,
    identity: Identity,
    request: RequestTemplate,
    answer: AnswerTemplate,
}

impl FloodlineSession {
    /// The sequence in an id of ours.
    fn sequence(&self, message_id: &str) -> Option<u64> {
        MessageId::parse(message_id).filter(|id| id.client_id == self.identity.client_id).map(|id| id.n)
    }

    fn content(&self, sequence: u64) -> &str {
        self.dialect.content.of(self.identity.connection, sequence)
    }

    fn processed(
        &self,
        message_id: &str,
        echoed: Option<u64>,
        check: Check<'_>,
        depth: Option<u64>,
    ) -> Answer {
        let Some(sequence) = self.sequence(message_id) else {
            return Answer::Foreign;
        };
        if echoed.is_some_and(|echoed| echoed != sequence) {
            // An answer that contradicts itself names no message.
            return Answer::Corrupted;
        }
        self.own(sequence, check, depth)
    }

    /// An answer to a message of this connection.
    #[inline]
    fn own(&self, sequence: u64, check: Check<'_>, queue_depth: Option<u64>) -> Answer {
        let intact = match check {
            Check::Crc(crc) => self.dialect.content.checksum_of(self.identity.connection, sequence) == crc,
            Check::Content(content) => content == self.content(sequence),
            Check::None => true,
        };
        Answer::Processed { sequence, lane: Some(self.dialect.lane()), intact, queue_depth }
    }
}

/// What an answer says of the content that the server read.
enum Check<'a> {
    Crc(u32),
    Content(&'a str),
    None,
}

impl Session for FloodlineSession {
    fn frame_kind(&self) -> FrameKind {
        FrameKind::Text
    }

    fn encode(&mut self, sequence: u64, now: WallTime, out: &mut BytesMut) {
        let content = self.dialect.content.of(self.identity.connection, sequence);
        self.request.encode(out, sequence, content, now);
    }

    fn decode(&mut self, frame: Frame<'_>) -> Answer {
        let Frame::Text(text) = frame else {
            return Answer::Corrupted;
        };
        if let Some(OwnAnswer { sequence, queue_depth, content_crc32 }) = self.answer.read(text) {
            return self.own(sequence, Check::Crc(content_crc32), Some(queue_depth));
        }
        let Ok(response) = decode_response_text(text) else {
            return Answer::Corrupted;
        };
        match response {
            Response::Throughput(answer) => {
                let check = answer.content_crc32.map_or(Check::None, Check::Crc);
                self.processed(&answer.message_id, Some(answer.sequence_id), check, Some(answer.queue_depth))
            }
            Response::Ai(answer) => {
                let check = Check::Content(&answer.content);
                self.processed(&answer.message_id, answer.sequence_id, check, Some(answer.queue_depth))
            }
            // To the sender a normal answer, but one that leaves at once, past those that are being processed.
            Response::DuplicateRejected(answer) => match self.sequence(&answer.message_id) {
                Some(sequence) => Answer::Processed { sequence, lane: None, intact: true, queue_depth: None },
                None => Answer::Foreign,
            },
            Response::QueueFull(answer) => match self.sequence(&answer.message_id) {
                Some(sequence) if answer.sequence_id.is_none_or(|echoed| echoed == sequence) => {
                    Answer::Refused { sequence, queue_depth: Some(answer.queue_depth) }
                }
                Some(_) => Answer::Corrupted,
                None => Answer::Foreign,
            },
            Response::Backpressure(signal) => Answer::Backpressure { queue_depth: signal.queue_depth },
            Response::PerformanceStats(_) => Answer::Ignored,
            Response::Latency(_) | Response::Generic(_) | Response::Error(_) | Response::Other(_) => {
                Answer::Unattributed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Request, decode_request_text};

    fn session(request: RequestKind) -> FloodlineSession {
        let identity = Identity { client_id: "run-0-3".into(), connection: 3 };
        Floodline::new(11, 32, request, None).session(identity)
    }

    fn decode(text: &str) -> Answer {
        session(RequestKind::ThroughputTest).decode(Frame::Text(text))
    }

    #[test]
    fn a_request_carries_its_identity_and_the_content_that_is_checked() {
        let mut out = BytesMut::new();
        session(RequestKind::ThroughputTest).encode(5, WallTime::from_unix_ns(1_000_000_000), &mut out);
        let text = std::str::from_utf8(&out).unwrap();
        let Request::ThroughputTest(request) = decode_request_text(text).unwrap() else {
            panic!("{text}");
        };
        assert_eq!((&*request.message_id, request.sequence_id), ("run-0-3-5", 5));
        let crc = crc32fast::hash(request.content.as_bytes());
        let answer = |crc: u32| {
            decode(&format!(
                r#"{{"type":"throughput_response","message_id":"run-0-3-5","sequence_id":5,"server_time":1.5,"queue_depth":2,"content_crc32":{crc}}}"#
            ))
        };
        let processed = |intact| Answer::Processed {
            sequence: 5,
            lane: Some(Lane::Normal),
            intact,
            queue_depth: Some(2),
        };
        assert_eq!(answer(crc), processed(true));
        assert_eq!(answer(crc ^ 1), processed(false));
    }

    #[test]
    fn a_foreign_server_need_not_send_a_checksum() {
        let text = r#"{"type":"throughput_response","message_id":"run-0-3-5","sequence_id":5,"server_time":1,"queue_depth":0}"#;
        assert!(matches!(decode(text), Answer::Processed { sequence: 5, intact: true, .. }));
    }

    #[test]
    fn a_priority_is_sent_and_is_the_lane_of_the_answers() {
        for (priority, word, lane) in [
            (Some(Priority::High), r#""priority":"high""#, Lane::High),
            (Some(Priority::Normal), r#""priority":"normal""#, Lane::Normal),
        ] {
            let identity = Identity { client_id: "run-0-3".into(), connection: 3 };
            let mut session = Floodline::new(11, 8, RequestKind::UserMessage, priority).session(identity);
            let mut out = BytesMut::new();
            session.encode(5, WallTime::from_unix_ns(0), &mut out);
            assert!(std::str::from_utf8(&out).unwrap().contains(word), "{out:?}");
            let text = r#"{"type":"throughput_response","message_id":"run-0-3-5","sequence_id":5,"server_time":1,"queue_depth":0}"#;
            let expected =
                Answer::Processed { sequence: 5, lane: Some(lane), intact: true, queue_depth: Some(0) };
            assert_eq!(session.decode(Frame::Text(text)), expected);
        }
    }

    #[test]
    fn a_rejected_duplicate_is_an_answer_outside_the_order() {
        let of = |id: &str| {
            decode(&format!(
                r#"{{"type":"duplicate_rejected","message_id":"{id}","original_timestamp":1,"timestamp":2}}"#
            ))
        };
        let expected = Answer::Processed { sequence: 5, lane: None, intact: true, queue_depth: None };
        assert_eq!((of("run-0-3-5"), of("run-0-4-5")), (expected, Answer::Foreign));
    }

    #[test]
    fn whatever_comes_is_named() {
        let of = |fields: &str| decode(&format!("{{{fields}}}"));
        let foreign = r#""type":"throughput_response","message_id":"run-0-4-5","sequence_id":5,"server_time":1,"queue_depth":0"#;
        assert_eq!(of(foreign), Answer::Foreign);
        let contradicts = r#""type":"throughput_response","message_id":"run-0-3-5","sequence_id":6,"server_time":1,"queue_depth":0"#;
        assert_eq!(of(contradicts), Answer::Corrupted);
        assert_eq!(of(r#""type":"throughput_response""#), Answer::Corrupted);
        assert_eq!(decode("not json"), Answer::Corrupted);
        assert_eq!(session(RequestKind::ThroughputTest).decode(Frame::Binary(b"{}")), Answer::Corrupted);
        let full =
            r#""type":"queue_full","message_id":"run-0-3-5","sequence_id":5,"queue_depth":9,"max_queue":9"#;
        assert_eq!(of(full), Answer::Refused { sequence: 5, queue_depth: Some(9) });
        assert_eq!(of(r#""type":"error","message":"x","timestamp":1"#), Answer::Unattributed);
        assert_eq!(of(r#""type":"news""#), Answer::Unattributed);
    }
}
