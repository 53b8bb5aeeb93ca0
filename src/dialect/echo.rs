//! `echo`: any server that sends each message back unchanged. A message is its id, a space, and content up to the
//! payload's size; the answer is compared byte for byte.

use bytes::BytesMut;

use super::{Answer, Content, Dialect, DialectError, Frame, FrameKind, Identity, Session};
use crate::ledger::Lane;
use crate::message::{MessageId, WallTime};

/// Room for the longest id that a run makes: run, shard and connection, and a sequence of 20 digits.
const ID_BYTES: usize = 48;

/// The echo dialect.
#[derive(Debug, Clone)]
pub struct Echo {
    content: Content,
    payload_bytes: usize,
}

impl Echo {
    /// The dialect for messages of `payload_bytes` bytes.
    ///
    /// # Errors
    /// Where the payload has no room for the id.
    pub fn new(seed: u64, payload_bytes: usize) -> Result<Self, DialectError> {
        if payload_bytes < ID_BYTES {
            return Err(DialectError::PayloadTooSmall { bytes: payload_bytes, needed: ID_BYTES });
        }
        Ok(Self { content: Content::new(seed, payload_bytes), payload_bytes })
    }
}

impl Dialect for Echo {
    type Session = EchoSession;

    fn name(&self) -> &'static str {
        "echo"
    }

    fn session(&self, identity: Identity) -> EchoSession {
        EchoSession { dialect: self.clone(), identity }
    }
}

/// One connection's echo dialect.
#[derive(Debug)]
pub struct EchoSession {
    dialect: Echo,
    identity: Identity,
}

impl EchoSession {
    /// What follows the id and its space, which together take `head_bytes`.
    fn tail(&self, sequence: u64, head_bytes: usize) -> &str {
        let content = self.dialect.content.of(self.identity.connection, sequence);
        content.get(head_bytes..).unwrap_or_default()
    }
}

impl Session for EchoSession {
    fn frame_kind(&self) -> FrameKind {
        FrameKind::Text
    }

    fn encode(&mut self, sequence: u64, _now: WallTime, out: &mut BytesMut) {
        out.reserve(self.dialect.payload_bytes + ID_BYTES);
        let start = out.len();
        out.extend_from_slice(self.identity.client_id.as_bytes());
        out.extend_from_slice(b"-");
        out.extend_from_slice(itoa::Buffer::new().format(sequence).as_bytes());
        out.extend_from_slice(b" ");
        let head_bytes = out.len() - start;
        out.extend_from_slice(self.tail(sequence, head_bytes).as_bytes());
    }

    fn decode(&mut self, frame: Frame<'_>) -> Answer {
        let (text, same_kind) = match frame {
            Frame::Text(text) => (text, true),
            Frame::Binary(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => (text, false),
                Err(_) => return Answer::Corrupted,
            },
        };
        let Some((id, tail)) = text.split_once(' ') else {
            return Answer::Corrupted;
        };
        let Some(MessageId { client_id, n: sequence }) = MessageId::parse(id) else {
            return Answer::Corrupted;
        };
        if client_id != self.identity.client_id {
            return Answer::Foreign;
        }
        let intact = same_kind && tail == self.tail(sequence, id.len() + 1);
        Answer::Processed { sequence, lane: Some(Lane::Normal), intact, queue_depth: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> EchoSession {
        let identity = Identity { client_id: "run-0-7".into(), connection: 7 };
        Echo::new(5, 64).unwrap().session(identity)
    }

    fn message(sequence: u64) -> String {
        let mut out = BytesMut::new();
        session().encode(sequence, WallTime::from_unix_ns(0), &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn an_echo_is_recognised_byte_for_byte() {
        let text = message(12);
        assert_eq!(text.len(), 64);
        let answer =
            |intact| Answer::Processed { sequence: 12, lane: Some(Lane::Normal), intact, queue_depth: None };
        assert_eq!(session().decode(Frame::Text(&text)), answer(true));
        assert_eq!(session().decode(Frame::Binary(text.as_bytes())), answer(false));
        let last = text.len() - 1;
        assert_eq!(session().decode(Frame::Text(&text[..last])), answer(false));
    }

    #[test]
    fn what_is_no_echo_of_ours_is_named() {
        assert_eq!(session().decode(Frame::Text("run-0-8-12 x")), Answer::Foreign);
        assert_eq!(session().decode(Frame::Text("hello")), Answer::Corrupted);
        assert_eq!(session().decode(Frame::Text("hello world")), Answer::Corrupted);
        assert_eq!(session().decode(Frame::Binary(&[0xff, 0x20])), Answer::Corrupted);
    }

    #[test]
    fn a_payload_without_room_for_the_id_is_refused() {
        let error = Echo::new(1, 8).unwrap_err();
        assert_eq!(error, DialectError::PayloadTooSmall { bytes: 8, needed: ID_BYTES });
    }
}
