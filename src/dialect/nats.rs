//! `nats`: publish and subscribe over NATS on WebSocket. Each connection subscribes to a subject of its own and publishes to
//! it; a message is answered when it comes back, byte for byte as it was sent.
//!
//! The protocol is lines, and payloads of announced length between them (NATS documentation, "Client Protocol"); a
//! WebSocket frame is any piece of that stream.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::body::Body;
use super::codec::nats::{Op, parse};
use super::fan_out::{Ear, FanOut};
use super::settings::Credentials;
use super::wire::Wire;
use super::{Answer, Dialect, DialectError, FanOutCounts, Frame, FrameKind, Identity, Opening, Session};
use crate::config::NatsConfig;
use crate::message::WallTime;

/// A NATS server.
#[derive(Debug, Clone)]
pub struct Nats {
    body: Body,
    subject: String,
    credentials: Credentials,
    fan_out: FanOut,
}

impl Nats {
    /// The dialect for messages of `payload_bytes` bytes, each of which goes to `subscribers` connections.
    ///
    /// # Errors
    /// Where the payload has no room for the id, or a setting makes no sense.
    pub fn new(
        seed: u64,
        payload_bytes: usize,
        settings: &NatsConfig,
        credentials: Credentials,
        subscribers: u32,
    ) -> Result<Self, DialectError> {
        let subject = settings.subject.clone();
        let sound = |token: &str| {
            !token.is_empty()
                && !token.contains(|c: char| c.is_whitespace() || c.is_control() || "*>".contains(c))
        };
        if !subject.split('.').all(sound) {
            let cause = "a subject to publish to is words with dots between them, without wildcards";
            return Err(DialectError::setting("nats", "subject", &subject, cause));
        }
        let (body, fan_out) = (Body::new("nats", seed, payload_bytes)?, FanOut::new(subscribers));
        Ok(Self { body, subject, credentials, fan_out })
    }
}

impl Dialect for Nats {
    type Session = NatsSession;

    fn name(&self) -> &'static str {
        "nats"
    }

    fn fan_out(&self) -> Option<FanOutCounts> {
        self.fan_out.counts()
    }

    fn session(&self, identity: Identity) -> NatsSession {
        let subject = format!("{}.{}", self.subject, self.fan_out.topic_of(&identity));
        let ear = self.fan_out.ear(&identity);
        let head = format!("PUB {subject} {}\r\n", self.body.len());
        NatsSession {
            dialect: self.clone(),
            identity,
            ear,
            subject,
            head,
            wire: Wire::default(),
            greeted: false,
        }
    }
}

/// One connection to a NATS server.
#[derive(Debug)]
pub struct NatsSession {
    dialect: Nats,
    identity: Identity,
    ear: Ear,
    subject: String,
    /// What stands before each payload.
    head: String,
    wire: Wire,
    greeted: bool,
}

impl NatsSession {
    fn op(&mut self) -> Option<Op> {
        match parse(&mut self.wire.incoming) {
            Ok(op) => op,
            Err(cause) => {
                self.wire.broken(format!("the server does not speak NATS: {cause}"));
                None
            }
        }
    }

    fn next(&mut self) -> Option<Answer> {
        while let Some(op) = self.op() {
            match op {
                Op::Message { subject, payload } if subject == self.subject => {
                    let own = self.dialect.body.answer(&self.identity, &payload, true);
                    return Some(self.ear.hear(own, &self.identity, &payload));
                }
                Op::Ping => self.wire.owe().extend_from_slice(b"PONG\r\n"),
                Op::Pong | Op::Ok | Op::Info(_) => {}
                Op::Message { .. } | Op::Error(_) => return Some(Answer::Unattributed),
            }
        }
        self.wire.take_broken().then_some(Answer::Corrupted)
    }

    /// The answer to the server's greeting: who we are, what we want to hear, and a ping by whose answer we know that it
    /// has been read.
    fn greet(&mut self, info: &Value) -> Opening {
        let most = info["max_payload"].as_u64().unwrap_or(u64::MAX);
        if self.dialect.body.len() as u64 > most {
            return Opening::Refused(format!("INFO max_payload {most}, below --payload-bytes"));
        }
        let Credentials { user, password } = &self.dialect.credentials;
        let mut connect = json!({
            "verbose": false, "pedantic": false, "tls_required": false, "echo": true, "protocol": 1,
            "lang": "rust", "version": env!("CARGO_PKG_VERSION"), "name": self.identity.client_id,
        });
        match (user, password) {
            (Some(user), password) => {
                connect["user"] = user.clone().into();
                connect["pass"] = password.clone().unwrap_or_default().into();
            }
            (None, Some(token)) => connect["auth_token"] = token.clone().into(),
            (None, None) => {}
        }
        let text = format!("CONNECT {connect}\r\nSUB {} 1\r\nPING\r\n", self.subject);
        self.wire.owe().extend_from_slice(text.as_bytes());
        self.greeted = true;
        Opening::Waiting
    }
}

impl Session for NatsSession {
    fn frame_kind(&self) -> FrameKind {
        FrameKind::Binary
    }

    fn encode(&mut self, sequence: u64, _now: WallTime, out: &mut BytesMut) {
        out.extend_from_slice(self.head.as_bytes());
        self.dialect.body.write(&self.identity, sequence, out);
        out.extend_from_slice(b"\r\n");
    }

    fn decode(&mut self, frame: Frame<'_>) -> Answer {
        self.wire.feed(frame);
        self.next().unwrap_or(Answer::Ignored)
    }

    fn more(&mut self) -> Option<Answer> {
        self.next()
    }

    fn open(&mut self, frame: Option<Frame<'_>>) -> Opening {
        if let Some(frame) = frame {
            self.wire.feed(frame);
        }
        while let Some(op) = self.op() {
            let opening = match op {
                Op::Info(info) if !self.greeted => self.greet(&info),
                Op::Pong if self.greeted => Opening::Ready,
                Op::Error(said) => Opening::Refused(format!("-ERR {said}")),
                Op::Ping => {
                    self.wire.owe().extend_from_slice(b"PONG\r\n");
                    Opening::Waiting
                }
                _ => Opening::Waiting,
            };
            if opening != Opening::Waiting {
                return opening;
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

    fn session(credentials: Credentials) -> NatsSession {
        let identity = Identity { client_id: "run-0-3".into(), connection: 3 };
        Nats::new(5, 64, &NatsConfig::default(), credentials, 1).unwrap().session(identity)
    }

    fn open(session: &mut NatsSession, text: &str) -> Opening {
        session.open(Some(Frame::Binary(text.as_bytes())))
    }

    #[test]
    fn a_connection_is_ready_once_its_ping_is_answered() {
        let mut session = session(Credentials { user: None, password: Some("s3cret".into()) });
        assert_eq!((session.open(None), session.owed()), (Opening::Waiting, None));
        assert_eq!(open(&mut session, "INFO {\"max_payload\":1"), Opening::Waiting);
        assert_eq!(open(&mut session, "024}\r\n"), Opening::Waiting);
        let said = String::from_utf8(session.owed().unwrap().to_vec()).unwrap();
        assert!(said.starts_with("CONNECT {") && said.contains("\"auth_token\":\"s3cret\""), "{said}");
        assert!(said.ends_with("}\r\nSUB floodline.run-0-3 1\r\nPING\r\n"), "{said}");
        assert_eq!(open(&mut session, "+OK\r\nPONG\r\n"), Opening::Ready);
    }

    #[test]
    fn a_refusal_says_what_the_server_said() {
        let mut session = session(Credentials::default());
        open(&mut session, "INFO {}\r\n");
        let refused = Opening::Refused("-ERR 'Authorization Violation'".to_owned());
        assert_eq!(open(&mut session, "-ERR 'Authorization Violation'\r\n"), refused);
        let mut session = self::session(Credentials::default());
        let refused = open(&mut session, "INFO {\"max_payload\":63}\r\n");
        assert_eq!(refused, Opening::Refused("INFO max_payload 63, below --payload-bytes".to_owned()));
        let mut session = self::session(Credentials::default());
        assert!(matches!(open(&mut session, "HTTP/1.1 200\r\n"), Opening::Refused(_)));
    }

    #[test]
    fn what_is_published_comes_back() {
        let mut session = session(Credentials::default());
        let mut sent = BytesMut::new();
        session.encode(5, WallTime::from_unix_ns(0), &mut sent);
        let sent = String::from_utf8(sent.to_vec()).unwrap();
        let body = sent.strip_prefix("PUB floodline.run-0-3 64\r\n").unwrap().strip_suffix("\r\n").unwrap();
        let stream = format!(
            "PING\r\nMSG floodline.run-0-3 1 64\r\n{body}\r\nMSG other 1 2\r\nhi\r\n-ERR 'slow'\r\nMSG floodline.run-0-3 1 1"
        );
        let processed =
            Answer::Processed { sequence: 5, lane: Some(Lane::Normal), intact: true, queue_depth: None };
        assert_eq!(session.decode(Frame::Binary(stream.as_bytes())), processed);
        let rest: Vec<_> = std::iter::from_fn(|| session.more()).collect();
        assert_eq!(rest, [Answer::Unattributed, Answer::Unattributed]);
        assert_eq!(session.owed().as_deref(), Some(b"PONG\r\n" as &[u8]));
        assert_eq!(session.decode(Frame::Binary(b"\r\nx\r\nwhat?\r\n")), Answer::Corrupted);
        assert_eq!(session.more(), Some(Answer::Corrupted));
        assert!(session.ended().unwrap().contains("does not speak NATS"));
    }

    #[test]
    fn a_subject_without_sense_is_refused_by_flag_key_and_value() {
        for subject in ["", "a..b", "a.*", "a b", ">"] {
            let settings = NatsConfig { subject: subject.to_owned() };
            let error = Nats::new(5, 64, &settings, Credentials::default(), 1).unwrap_err().to_string();
            assert!(error.contains("--nats-subject") && error.contains(&format!("`{subject}`")), "{error}");
        }
    }
}
