//! A dialect that writes down what the client encodes and decodes: the other side of the ledger's story.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use floodline::dialect::{Answer, Dialect, Floodline, Frame, FrameKind, Identity, Session};
use floodline::message::WallTime;

/// What one client encoded and decoded, in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// Every sequence that was encoded, as often as it was.
    pub encoded: Vec<u64>,
    /// When each of these was, as the client's clock says.
    pub encoded_at: Vec<WallTime>,
    /// Every answer that was decoded.
    pub decoded: Vec<Answer>,
}

/// By connection.
pub type Transcripts = BTreeMap<u32, Transcript>;

#[derive(Clone)]
pub struct Witness {
    inner: Floodline,
    pub transcripts: Arc<Mutex<Transcripts>>,
}

impl Witness {
    pub fn new(inner: Floodline) -> Self {
        Self { inner, transcripts: Arc::default() }
    }
}

impl Dialect for Witness {
    type Session = WitnessSession;

    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn session(&self, identity: Identity) -> WitnessSession {
        let connection = identity.connection;
        WitnessSession {
            inner: self.inner.session(identity),
            connection,
            transcripts: Arc::clone(&self.transcripts),
        }
    }
}

pub struct WitnessSession {
    inner: <Floodline as Dialect>::Session,
    connection: u32,
    transcripts: Arc<Mutex<Transcripts>>,
}

impl WitnessSession {
    fn note(&self, note: impl FnOnce(&mut Transcript)) {
        note(self.transcripts.lock().unwrap().entry(self.connection).or_default());
    }
}

impl Session for WitnessSession {
    fn frame_kind(&self) -> FrameKind {
        self.inner.frame_kind()
    }

    fn encode(&mut self, sequence: u64, now: WallTime, out: &mut BytesMut) {
        self.note(|transcript| {
            transcript.encoded.push(sequence);
            transcript.encoded_at.push(now);
        });
        self.inner.encode(sequence, now, out);
    }

    fn decode(&mut self, frame: Frame<'_>) -> Answer {
        let answer = self.inner.decode(frame);
        self.note(|transcript| transcript.decoded.push(answer));
        answer
    }
}
