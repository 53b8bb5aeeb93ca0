//! One type for every dialect but our own. The client's machinery is compiled anew for each dialect that it is given, which
//! is worth it for the one that has to be fast; the others share one copy, at the price of an indirect call a message.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{Answer, Dialect, FanOutCounts, Frame, FrameKind, Identity, Opening, Session};
use crate::message::WallTime;
use crate::secrets::Secrets;

/// A dialect of whatever kind.
#[derive(Clone)]
pub struct AnyDialect {
    name: &'static str,
    subprotocol: Option<&'static str>,
    secrets: Secrets,
    fan_out: Arc<dyn Fn() -> Option<FanOutCounts> + Send + Sync>,
    make: Arc<dyn Fn(Identity) -> Box<dyn Session> + Send + Sync>,
}

impl AnyDialect {
    /// Hides which dialect it is.
    #[must_use]
    pub fn new<D: Dialect + Sync>(dialect: D) -> Self {
        let counted = dialect.clone();
        Self {
            name: dialect.name(),
            subprotocol: dialect.subprotocol(),
            secrets: dialect.secrets(),
            fan_out: Arc::new(move || counted.fan_out()),
            make: Arc::new(move |identity| Box::new(dialect.session(identity))),
        }
    }

    /// The same, with more that must not be shown.
    #[must_use]
    pub fn hiding(self, secrets: Secrets) -> Self {
        Self { secrets: self.secrets.and(secrets), ..self }
    }
}

impl fmt::Debug for AnyDialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyDialect").field(&self.name).finish()
    }
}

impl Dialect for AnyDialect {
    type Session = Box<dyn Session>;

    fn name(&self) -> &'static str {
        self.name
    }

    fn subprotocol(&self) -> Option<&'static str> {
        self.subprotocol
    }

    fn secrets(&self) -> Secrets {
        self.secrets.clone()
    }

    fn fan_out(&self) -> Option<FanOutCounts> {
        (self.fan_out)()
    }

    fn session(&self, identity: Identity) -> Box<dyn Session> {
        (self.make)(identity)
    }
}

impl Session for Box<dyn Session> {
    fn frame_kind(&self) -> FrameKind {
        (**self).frame_kind()
    }

    fn encode(&mut self, sequence: u64, now: WallTime, out: &mut BytesMut) {
        (**self).encode(sequence, now, out);
    }

    fn decode(&mut self, frame: Frame<'_>) -> Answer {
        (**self).decode(frame)
    }

    fn more(&mut self) -> Option<Answer> {
        (**self).more()
    }

    fn open(&mut self, frame: Option<Frame<'_>>) -> Opening {
        (**self).open(frame)
    }

    fn owed(&mut self) -> Option<Bytes> {
        (**self).owed()
    }

    fn ended(&mut self) -> Option<String> {
        (**self).ended()
    }
}
