//! `stomp`: publish and subscribe over STOMP 1.2 on WebSocket, as RabbitMQ's web-stomp speaks it. Each connection subscribes
//! to a destination of its own and sends to it; a message is answered when it comes back, byte for byte as it was sent.

use bytes::{Bytes, BytesMut};

use super::body::Body;
use super::codec::stomp::{StompFrame, parse, write_head};
use super::fan_out::{Ear, FanOut};
use super::settings::Credentials;
use super::wire::Wire;
use super::{Answer, Dialect, DialectError, FanOutCounts, Frame, FrameKind, Identity, Opening, Session};
use crate::config::StompConfig;
use crate::message::WallTime;

/// The id of the one subscription, and of the receipt that says that it is there.
const SUBSCRIPTION: &str = "0";

/// A STOMP broker.
#[derive(Debug, Clone)]
pub struct Stomp {
    body: Body,
    destination: String,
    host: String,
    credentials: Credentials,
    fan_out: FanOut,
}

impl Stomp {
    /// The dialect for messages of `payload_bytes` bytes, each of which goes to `subscribers` connections.
    ///
    /// # Errors
    /// Where the payload has no room for the id, or a setting makes no sense.
    pub fn new(
        seed: u64,
        payload_bytes: usize,
        settings: &StompConfig,
        credentials: Credentials,
        subscribers: u32,
    ) -> Result<Self, DialectError> {
        let StompConfig { destination, host } = settings.clone();
        for (name, value) in [("destination", &destination), ("host", &host)] {
            if value.is_empty() || value.contains(char::is_control) {
                return Err(DialectError::setting("stomp", name, value, "it must not be empty, on one line"));
            }
        }
        let (body, fan_out) = (Body::new("stomp", seed, payload_bytes)?, FanOut::new(subscribers));
        Ok(Self { body, destination, host, credentials, fan_out })
    }
}

impl Dialect for Stomp {
    type Session = StompSession;

    fn name(&self) -> &'static str {
        "stomp"
    }

    fn subprotocol(&self) -> Option<&'static str> {
        Some("v12.stomp")
    }

    fn fan_out(&self) -> Option<FanOutCounts> {
        self.fan_out.counts()
    }

    fn session(&self, identity: Identity) -> StompSession {
        let destination = format!("{}.{}", self.destination, self.fan_out.topic_of(&identity));
        let ear = self.fan_out.ear(&identity);
        let mut head = BytesMut::new();
        let length = self.body.len().to_string();
        let headers =
            [("destination", &*destination), ("content-type", "text/plain"), ("content-length", &length)];
        write_head("SEND", &headers, &mut head);
        StompSession {
            dialect: self.clone(),
            identity,
            ear,
            destination,
            head: head.freeze(),
            wire: Wire::default(),
        }
    }
}

/// One connection to a broker.
#[derive(Debug)]
pub struct StompSession {
    dialect: Stomp,
    identity: Identity,
    ear: Ear,
    destination: String,
    /// What stands before each body.
    head: Bytes,
    wire: Wire,
}

impl StompSession {
    fn frame(&mut self) -> Option<StompFrame> {
        match parse(&mut self.wire.incoming) {
            Ok(frame) => frame,
            Err(cause) => {
                self.wire.broken(format!("the server does not speak STOMP: {cause}"));
                None
            }
        }
    }

    fn next(&mut self) -> Option<Answer> {
        if let Some(frame) = self.frame() {
            return Some(match &*frame.command {
                "MESSAGE" if frame.header("subscription") == Some(SUBSCRIPTION) => {
                    let own = self.dialect.body.answer(&self.identity, &frame.body, true);
                    self.ear.hear(own, &self.identity, &frame.body)
                }
                "ERROR" => {
                    // A broker closes after it (STOMP 1.2, "ERROR").
                    self.wire.end(said(&frame));
                    Answer::Unattributed
                }
                _ => Answer::Unattributed,
            });
        }
        self.wire.take_broken().then_some(Answer::Corrupted)
    }

    fn connect(&mut self) {
        let StompSession { dialect: Stomp { host, credentials, .. }, wire, .. } = self;
        let mut headers = vec![("accept-version", "1.2"), ("host", &**host), ("heart-beat", "0,0")];
        if let Some(user) = &credentials.user {
            headers.push(("login", user));
            headers.push(("passcode", credentials.password.as_deref().unwrap_or_default()));
        }
        write_head("CONNECT", &headers, wire.owe());
        wire.owe().extend_from_slice(b"\0");
    }

    fn subscribe(&mut self) {
        let headers = [
            ("id", SUBSCRIPTION),
            ("destination", &*self.destination),
            ("ack", "auto"),
            ("receipt", SUBSCRIPTION),
        ];
        write_head("SUBSCRIBE", &headers, self.wire.owe());
        self.wire.owe().extend_from_slice(b"\0");
    }
}

/// What an ERROR says.
fn said(frame: &StompFrame) -> String {
    let body = String::from_utf8_lossy(&frame.body);
    let text = format!("{} {} {}", frame.command, frame.header("message").unwrap_or_default(), body.trim());
    text.trim().to_owned()
}

impl Session for StompSession {
    fn frame_kind(&self) -> FrameKind {
        FrameKind::Text
    }

    fn encode(&mut self, sequence: u64, _now: WallTime, out: &mut BytesMut) {
        out.extend_from_slice(&self.head);
        self.dialect.body.write(&self.identity, sequence, out);
        out.extend_from_slice(b"\0");
    }

    fn decode(&mut self, frame: Frame<'_>) -> Answer {
        self.wire.feed(frame);
        self.next().unwrap_or(Answer::Ignored)
    }

    fn more(&mut self) -> Option<Answer> {
        self.next()
    }

    fn open(&mut self, frame: Option<Frame<'_>>) -> Opening {
        let Some(frame) = frame else {
            self.connect();
            return Opening::Waiting;
        };
        self.wire.feed(frame);
        while let Some(frame) = self.frame() {
            match &*frame.command {
                "CONNECTED" => self.subscribe(),
                "RECEIPT" if frame.header("receipt-id") == Some(SUBSCRIPTION) => return Opening::Ready,
                _ => return Opening::Refused(said(&frame)),
            }
        }
        self.wire.ended().map_or(Opening::Waiting, |reason| Opening::Refused(reason.to_owned()))
    }

    fn owed(&mut self) -> Option<Bytes> {
        self.wire.take_owed()
    }

    fn ended(&mut self) -> Option<String> {
        self.wire.take_end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Lane;

    fn session() -> StompSession {
        let identity = Identity { client_id: "run-0-3".into(), connection: 3 };
        let credentials = Credentials { user: Some("guest".into()), password: Some("s3cret".into()) };
        Stomp::new(5, 64, &StompConfig::default(), credentials, 1).unwrap().session(identity)
    }

    #[test]
    fn a_connection_is_ready_once_its_subscription_has_its_receipt() {
        let mut session = session();
        assert_eq!(session.open(None), Opening::Waiting);
        let sent = session.owed().unwrap();
        let expected =
            "CONNECT\naccept-version:1.2\nhost:/\nheart-beat:0,0\nlogin:guest\npasscode:s3cret\n\n\0";
        assert_eq!(sent, expected);
        assert_eq!(session.open(Some(Frame::Text("CONNECTED\nversion:1.2\n"))), Opening::Waiting);
        assert_eq!(session.open(Some(Frame::Text("\n\0\n"))), Opening::Waiting);
        let expected = "SUBSCRIBE\nid:0\ndestination:/topic/floodline.run-0-3\nack:auto\nreceipt:0\n\n\0";
        assert_eq!(session.owed().unwrap(), expected);
        assert_eq!(session.open(Some(Frame::Text("RECEIPT\nreceipt-id:0\n\n\0"))), Opening::Ready);
        assert!(!format!("{session:?}").contains("s3cret"));
    }

    #[test]
    fn a_refusal_says_what_the_broker_said() {
        let mut session = session();
        session.open(None);
        let refused = session.open(Some(Frame::Text("ERROR\nmessage:Bad CONNECT\n\nAccess\nrefused\n\0")));
        assert_eq!(refused, Opening::Refused("ERROR Bad CONNECT Access\nrefused".to_owned()));
    }

    #[test]
    fn what_is_sent_comes_back() {
        let mut session = session();
        let mut sent = BytesMut::new();
        session.encode(5, WallTime::from_unix_ns(0), &mut sent);
        let sent = String::from_utf8(sent.to_vec()).unwrap();
        let (head, body) = sent.split_once("\n\n").unwrap();
        assert!(head.contains("destination:/topic/floodline.run-0-3\n") && head.ends_with(":64"), "{head}");
        let stream = format!("MESSAGE\nsubscription:0\n\n{body}MESSAGE\nsubscription:9\n\nx\0ERROR\n\nbye\0");
        let processed =
            Answer::Processed { sequence: 5, lane: Some(Lane::Normal), intact: true, queue_depth: None };
        assert_eq!(session.decode(Frame::Text(&stream)), processed);
        assert_eq!((session.more(), session.ended()), (Some(Answer::Unattributed), None));
        assert_eq!((session.more(), session.more()), (Some(Answer::Unattributed), None));
        assert_eq!(session.ended().as_deref(), Some("ERROR  bye"));
        let mut session = self::session();
        assert_eq!(session.decode(Frame::Text("no stomp\n\n\0")), Answer::Corrupted);
        assert!(session.ended().unwrap().contains("does not speak STOMP"));
    }
}
