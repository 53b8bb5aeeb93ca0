//! `echo`: any server that sends each message back unchanged, text or binary. A message is its id, a space, and content up
//! to the payload's size; the answer is compared byte for byte.

use bytes::BytesMut;

use super::body::Body;
use super::{Answer, Dialect, DialectError, Frame, FrameKind, Identity, Session};
use crate::message::WallTime;

/// The echo dialect.
#[derive(Debug, Clone)]
pub struct Echo {
    body: Body,
    frames: FrameKind,
}

impl Echo {
    /// The dialect for messages of `payload_bytes` bytes, in text frames.
    ///
    /// # Errors
    /// Where the payload has no room for the id.
    pub fn new(seed: u64, payload_bytes: usize) -> Result<Self, DialectError> {
        Ok(Self { body: Body::new("echo", seed, payload_bytes)?, frames: FrameKind::Text })
    }

    /// Sends frames of this kind, which are then also expected back.
    #[must_use]
    pub fn frames(mut self, frames: FrameKind) -> Self {
        self.frames = frames;
        self
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

impl Session for EchoSession {
    fn frame_kind(&self) -> FrameKind {
        self.dialect.frames
    }

    fn encode(&mut self, sequence: u64, _now: WallTime, out: &mut BytesMut) {
        self.dialect.body.write(&self.identity, sequence, out);
    }

    fn decode(&mut self, frame: Frame<'_>) -> Answer {
        let (bytes, kind) = match frame {
            Frame::Text(text) => (text.as_bytes(), FrameKind::Text),
            Frame::Binary(bytes) => (bytes, FrameKind::Binary),
        };
        self.dialect.body.answer(&self.identity, bytes, kind == self.dialect.frames)
    }
}

#[cfg(test)]
mod tests {
    use super::super::body::ID_BYTES;
    use super::*;
    use crate::ledger::Lane;

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
    fn a_binary_echo_wants_binary_back() {
        let identity = Identity { client_id: "run-0-7".into(), connection: 7 };
        let mut session = Echo::new(5, 64).unwrap().frames(FrameKind::Binary).session(identity);
        assert_eq!(session.frame_kind(), FrameKind::Binary);
        let text = message(3);
        let answer =
            |intact| Answer::Processed { sequence: 3, lane: Some(Lane::Normal), intact, queue_depth: None };
        assert_eq!(session.decode(Frame::Binary(text.as_bytes())), answer(true));
        assert_eq!(session.decode(Frame::Text(&text)), answer(false));
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
        assert_eq!(error, DialectError::PayloadTooSmall { dialect: "echo", bytes: 8, needed: ID_BYTES });
    }
}
