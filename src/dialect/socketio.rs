//! `socketio`: Socket.IO v4 over WebSocket. Each message is an event that asks for an acknowledgement, and is answered by it.
//! Where the acknowledgement brings a text back that begins with the message's id, it is compared byte for byte.

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use super::body::Body;
use super::codec::engine::{Kind, Message, Packet, parse};
use super::{Answer, Dialect, DialectError, Frame, FrameKind, Identity, Opening, Session, spoken};
use crate::config::SocketioConfig;
use crate::ledger::Lane;
use crate::message::WallTime;

/// A Socket.IO server.
#[derive(Debug, Clone)]
pub struct Socketio {
    body: Body,
    namespace: String,
    /// `["event","`, as it stands in a packet.
    head: String,
}

impl Socketio {
    /// The dialect for messages of `payload_bytes` bytes.
    ///
    /// # Errors
    /// Where the payload has no room for the id, or a setting makes no sense.
    pub fn new(seed: u64, payload_bytes: usize, settings: &SocketioConfig) -> Result<Self, DialectError> {
        let SocketioConfig { event, namespace } = settings.clone();
        if event.is_empty() {
            return Err(DialectError::setting("socketio", "event", &event, "an event has a name"));
        }
        if !namespace.starts_with('/') || namespace.contains([',', '?']) {
            let cause = "a namespace begins with / and holds neither a comma nor a question mark";
            return Err(DialectError::setting("socketio", "namespace", &namespace, cause));
        }
        let head = format!("[{},\"", Value::from(event));
        Ok(Self { body: Body::new("socketio", seed, payload_bytes)?, namespace, head })
    }

    /// The namespace as it stands in a packet, where it is not the usual one.
    fn prefix(&self) -> String {
        if self.namespace == "/" { String::new() } else { format!("{},", self.namespace) }
    }
}

impl Dialect for Socketio {
    type Session = SocketioSession;

    fn name(&self) -> &'static str {
        "socketio"
    }

    fn session(&self, identity: Identity) -> SocketioSession {
        let prefix = self.prefix();
        SocketioSession {
            event: format!("42{prefix}"),
            connect: format!("40{prefix}"),
            dialect: self.clone(),
            identity,
            owed: None,
            ended: None,
        }
    }
}

/// One connection to a Socket.IO server.
#[derive(Debug)]
pub struct SocketioSession {
    dialect: Socketio,
    identity: Identity,
    /// What stands before the id of an event.
    event: String,
    connect: String,
    /// A server that is owed several pongs gets the last (as RFC 6455, section 5.5.3, has it for its own).
    owed: Option<Bytes>,
    ended: Option<String>,
}

impl SocketioSession {
    fn message(&mut self, message: Message<'_>) -> Answer {
        if message.namespace != self.dialect.namespace {
            return Answer::Unattributed;
        }
        match (message.kind, message.id) {
            (Kind::Ack, Some(sequence)) => self.acknowledged(sequence, message.data),
            (Kind::Disconnect, _) => {
                self.ended = Some("the server disconnected the namespace".to_owned());
                Answer::Ignored
            }
            _ => Answer::Unattributed,
        }
    }

    fn acknowledged(&self, sequence: u64, data: &str) -> Answer {
        let Ok(Value::Array(arguments)) = serde_json::from_str(data) else {
            return Answer::Corrupted;
        };
        let processed =
            |intact| Answer::Processed { sequence, lane: Some(Lane::Normal), intact, queue_depth: None };
        let Some(text) = arguments.first().and_then(Value::as_str) else {
            return processed(true);
        };
        match self.dialect.body.answer(&self.identity, text.as_bytes(), true) {
            Answer::Processed { sequence: echoed, intact, .. } => processed(intact && echoed == sequence),
            // Another client's message in our acknowledgement.
            Answer::Foreign => processed(false),
            // A text of the server's own.
            _ => processed(true),
        }
    }

    fn ping(&mut self, payload: &str) {
        self.owed = Some(format!("3{payload}").into());
    }
}

impl Session for SocketioSession {
    fn frame_kind(&self) -> FrameKind {
        FrameKind::Text
    }

    fn encode(&mut self, sequence: u64, _now: WallTime, out: &mut BytesMut) {
        out.extend_from_slice(self.event.as_bytes());
        out.extend_from_slice(itoa::Buffer::new().format(sequence).as_bytes());
        out.extend_from_slice(self.dialect.head.as_bytes());
        self.dialect.body.write(&self.identity, sequence, out);
        out.extend_from_slice(b"\"]");
    }

    fn decode(&mut self, frame: Frame<'_>) -> Answer {
        let Frame::Text(text) = frame else {
            return Answer::Corrupted;
        };
        match parse(text) {
            None => Answer::Corrupted,
            Some(Packet::Message(message)) => self.message(message),
            Some(Packet::Ping(payload)) => {
                self.ping(payload);
                Answer::Ignored
            }
            Some(Packet::Close) => {
                self.ended = Some("the server closed the Engine.IO session".to_owned());
                Answer::Ignored
            }
            Some(Packet::Noop) => Answer::Ignored,
            Some(Packet::Open) => Answer::Unattributed,
        }
    }

    fn open(&mut self, frame: Option<Frame<'_>>) -> Opening {
        let Some(frame) = frame else { return Opening::Waiting };
        let Frame::Text(text) = frame else { return Opening::Refused(spoken(frame)) };
        match parse(text) {
            Some(Packet::Open) => {
                self.owed = Some(self.connect.clone().into());
                Opening::Waiting
            }
            Some(Packet::Ping(payload)) => {
                self.ping(payload);
                Opening::Waiting
            }
            Some(Packet::Message(Message { kind: Kind::Connect, namespace, .. }))
                if namespace == self.dialect.namespace =>
            {
                Opening::Ready
            }
            Some(Packet::Noop | Packet::Message(Message { kind: Kind::Event, .. })) => Opening::Waiting,
            _ => Opening::Refused(spoken(frame)),
        }
    }

    fn owed(&mut self) -> Option<Bytes> {
        self.owed.take()
    }

    fn ended(&mut self) -> Option<String> {
        self.ended.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(namespace: &str) -> SocketioSession {
        let identity = Identity { client_id: "run-0-3".into(), connection: 3 };
        let settings = SocketioConfig { namespace: namespace.to_owned(), ..SocketioConfig::default() };
        Socketio::new(5, 64, &settings).unwrap().session(identity)
    }

    fn open(session: &mut SocketioSession, text: &str) -> Opening {
        session.open(Some(Frame::Text(text)))
    }

    #[test]
    fn a_connection_is_ready_once_its_namespace_is_joined() {
        for (namespace, connect) in [("/", "40"), ("/admin", "40/admin,")] {
            let mut session = session(namespace);
            assert_eq!((session.open(None), session.owed()), (Opening::Waiting, None));
            assert_eq!(open(&mut session, r#"0{"sid":"x","pingInterval":25000}"#), Opening::Waiting);
            assert_eq!(session.owed().unwrap(), connect);
            assert_eq!(open(&mut session, "2"), Opening::Waiting);
            assert_eq!(session.owed().unwrap(), "3");
            assert_eq!(open(&mut session, &format!(r#"{connect}{{"sid":"y"}}"#)), Opening::Ready);
        }
        let said = r#"44{"message":"not you"}"#;
        assert_eq!(open(&mut session("/"), said), Opening::Refused(said.to_owned()));
    }

    #[test]
    fn an_acknowledgement_is_the_answer() {
        let mut session = session("/");
        let mut sent = BytesMut::new();
        session.encode(5, WallTime::from_unix_ns(0), &mut sent);
        let sent = String::from_utf8(sent.to_vec()).unwrap();
        let echo = sent.strip_prefix(r#"425["message","#).unwrap();
        let processed =
            |intact| Answer::Processed { sequence: 5, lane: Some(Lane::Normal), intact, queue_depth: None };
        let mut of = |text: &str| session.decode(Frame::Text(text));
        assert_eq!(of(&format!("435[{echo}")), processed(true));
        assert_eq!(of("435[]"), processed(true));
        assert_eq!(of(r#"435["ok"]"#), processed(true));
        assert_eq!(of(r#"435["run-0-3-5 altered"]"#), processed(false));
        assert_eq!(of(r#"435["run-0-4-5 x"]"#), processed(false));
        assert_eq!(of("435["), Answer::Corrupted);
        assert_eq!(of(r#"42["news"]"#), Answer::Unattributed);
        assert_eq!(of("43/other,5[]"), Answer::Unattributed);
        assert_eq!(of("what?"), Answer::Corrupted);
        assert_eq!(of("2"), Answer::Ignored);
        assert_eq!(session.owed().unwrap(), "3");
        assert_eq!(session.decode(Frame::Text("41")), Answer::Ignored);
        assert!(session.ended().unwrap().contains("disconnected"));
        assert_eq!(session.decode(Frame::Text("1")), Answer::Ignored);
        assert!(session.ended().unwrap().contains("closed"));
    }

    #[test]
    fn settings_without_sense_are_refused_by_flag_key_and_value() {
        let error = |settings| Socketio::new(5, 64, &settings).unwrap_err().to_string();
        let event = error(SocketioConfig { event: String::new(), ..SocketioConfig::default() });
        assert!(event.contains("--socketio-event"), "{event}");
        let namespace = error(SocketioConfig { namespace: "x".into(), ..SocketioConfig::default() });
        assert!(namespace.contains("--socketio-namespace") && namespace.contains("`x`"), "{namespace}");
    }
}
