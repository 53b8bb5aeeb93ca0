//! `mqtt`: publish and subscribe over MQTT 3.1.1 on WebSocket (OASIS MQTT 3.1.1, section 6). Each connection subscribes to a
//! topic of its own and publishes to it; a message is answered when it comes back, byte for byte as it was sent.
//!
//! The packets are `mqttbytes`': the codec of the client and broker `rumqtt`, by itself and without dependencies.

use bytes::{Bytes, BytesMut};
use mqttbytes::v4::{
    Connect, ConnectReturnCode, Packet, PubAck, Publish, Subscribe, SubscribeReasonCode, read,
};
use mqttbytes::{Error, QoS};

use super::body::Body;
use super::fan_out::{Ear, FanOut};
use super::settings::Credentials;
use super::wire::{PIECE_BYTES, Wire};
use super::{Answer, Dialect, DialectError, FanOutCounts, Frame, FrameKind, Identity, Opening, Session};
use crate::config::MqttConfig;
use crate::message::WallTime;

/// The one subscription's packet id.
const SUBSCRIBE_ID: u16 = 1;

/// An MQTT broker.
#[derive(Debug, Clone)]
pub struct Mqtt {
    body: Body,
    qos: QoS,
    topic: String,
    credentials: Credentials,
    fan_out: FanOut,
}

impl Mqtt {
    /// The dialect for messages of `payload_bytes` bytes, each of which goes to `subscribers` connections.
    ///
    /// # Errors
    /// Where the payload has no room for the id, or a setting makes no sense.
    pub fn new(
        seed: u64,
        payload_bytes: usize,
        settings: &MqttConfig,
        credentials: Credentials,
        subscribers: u32,
    ) -> Result<Self, DialectError> {
        let qos = match settings.qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            other => {
                return Err(DialectError::setting("mqtt", "qos", &other.to_string(), "the QoS is 0 or 1"));
            }
        };
        let topic = settings.topic.clone();
        if topic.is_empty() || topic.len() > 1_024 || topic.contains(['+', '#', '\0']) {
            let cause = "a topic to publish to has no wildcard, and up to 1,024 bytes";
            return Err(DialectError::setting("mqtt", "topic", &topic, cause));
        }
        let (body, fan_out) = (Body::new("mqtt", seed, payload_bytes)?, FanOut::new(subscribers));
        Ok(Self { body, qos, topic, credentials, fan_out })
    }
}

impl Dialect for Mqtt {
    type Session = MqttSession;

    fn name(&self) -> &'static str {
        "mqtt"
    }

    fn subprotocol(&self) -> Option<&'static str> {
        Some("mqtt")
    }

    fn fan_out(&self) -> Option<FanOutCounts> {
        self.fan_out.counts()
    }

    fn session(&self, identity: Identity) -> MqttSession {
        let topic = format!("{}/{}", self.topic, self.fan_out.topic_of(&identity));
        MqttSession {
            ear: self.fan_out.ear(&identity),
            publish: Publish::from_bytes(topic, self.qos, Bytes::new()),
            scratch: BytesMut::new(),
            dialect: self.clone(),
            identity,
            wire: Wire::default(),
        }
    }
}

/// One connection to a broker.
#[derive(Debug)]
pub struct MqttSession {
    dialect: Mqtt,
    identity: Identity,
    ear: Ear,
    /// The packet that is sent, with the payload of the last message in it.
    publish: Publish,
    scratch: BytesMut,
    wire: Wire,
}

impl MqttSession {
    /// The next packet, where it is whole.
    fn packet(&mut self) -> Option<Packet> {
        match read(&mut self.wire.incoming, PIECE_BYTES) {
            Ok(packet) => Some(packet),
            Err(Error::InsufficientBytes(_)) => None,
            Err(error) => {
                self.wire.broken(format!("the server sent no MQTT: {error:?}"));
                None
            }
        }
    }

    /// What the packets that have come mean, up to the first that means something.
    fn next(&mut self) -> Option<Answer> {
        while let Some(packet) = self.packet() {
            match packet {
                Packet::Publish(publish) => return Some(self.published(&publish)),
                Packet::PubAck(_) | Packet::SubAck(_) | Packet::PingResp => {}
                Packet::Disconnect => self.wire.end("the server sent DISCONNECT".to_owned()),
                _ => return Some(Answer::Unattributed),
            }
        }
        self.wire.take_broken().then_some(Answer::Corrupted)
    }

    fn published(&mut self, publish: &Publish) -> Answer {
        if publish.qos == QoS::AtLeastOnce {
            write(PubAck::new(publish.pkid).write(self.wire.owe()));
        }
        if publish.topic != self.publish.topic {
            return Answer::Unattributed;
        }
        let own = self.dialect.body.answer(&self.identity, &publish.payload, true);
        self.ear.hear(own, &self.identity, &publish.payload)
    }

    fn connect(&mut self) {
        let mut connect = Connect::new(&*self.identity.client_id);
        // It is we who decide how long silence may last.
        connect.keep_alive = 0;
        if let Some(user) = &self.dialect.credentials.user {
            connect.set_login(user.clone(), self.dialect.credentials.password.clone().unwrap_or_default());
        }
        write(connect.write(self.wire.owe()));
    }

    /// What a packet says to the opening.
    fn opened(&mut self, packet: &Packet) -> Opening {
        match packet {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => {
                let mut subscribe = Subscribe::new(&*self.publish.topic, self.dialect.qos);
                subscribe.pkid = SUBSCRIBE_ID;
                write(subscribe.write(self.wire.owe()));
                Opening::Waiting
            }
            Packet::ConnAck(ack) => Opening::Refused(format!("CONNACK {}: {:?}", ack.code as u8, ack.code)),
            Packet::SubAck(ack) => match ack.return_codes.first() {
                Some(SubscribeReasonCode::Success(_)) => Opening::Ready,
                _ => Opening::Refused("SUBACK: failure".to_owned()),
            },
            other => Opening::Refused(format!("{other:?}")),
        }
    }
}

/// What we write is never too long, and has an id where it needs one: the only ways in which writing can fail.
fn write(written: Result<usize, Error>) {
    debug_assert!(written.is_ok(), "{written:?}");
}

impl Session for MqttSession {
    fn frame_kind(&self) -> FrameKind {
        FrameKind::Binary
    }

    fn encode(&mut self, sequence: u64, _now: WallTime, out: &mut BytesMut) {
        self.dialect.body.write(&self.identity, sequence, &mut self.scratch);
        self.publish.payload = self.scratch.split().freeze();
        // From 1 to 65,535: 0 is no packet id.
        self.publish.pkid = (sequence % u64::from(u16::MAX)) as u16 + 1;
        write(self.publish.write(out));
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
        while let Some(packet) = self.packet() {
            match self.opened(&packet) {
                Opening::Waiting => {}
                decided => return decided,
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
    use mqttbytes::v4::{ConnAck, SubAck};
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::Lane;

    fn session(qos: u8) -> MqttSession {
        let identity = Identity { client_id: "run-0-3".into(), connection: 3 };
        let settings = MqttConfig { qos, ..MqttConfig::default() };
        Mqtt::new(5, 64, &settings, Credentials::default(), 1).unwrap().session(identity)
    }

    fn packets(packets: impl FnOnce(&mut BytesMut)) -> BytesMut {
        let mut out = BytesMut::new();
        packets(&mut out);
        out
    }

    fn processed(sequence: u64) -> Answer {
        Answer::Processed { sequence, lane: Some(Lane::Normal), intact: true, queue_depth: None }
    }

    /// All answers that bytes bring, fed in pieces of `piece` bytes.
    fn answers(session: &mut MqttSession, bytes: &[u8], piece: usize) -> Vec<Answer> {
        let mut seen = Vec::new();
        for piece in bytes.chunks(piece.max(1)) {
            seen.push(session.decode(Frame::Binary(piece)));
            seen.extend(std::iter::from_fn(|| session.more()));
        }
        seen.retain(|answer| *answer != Answer::Ignored);
        seen
    }

    #[test]
    fn a_connection_is_ready_once_it_is_subscribed() {
        let mut session = session(1);
        assert_eq!(session.open(None), Opening::Waiting);
        let mut sent = BytesMut::from(&*session.owed().unwrap());
        let Packet::Connect(connect) = read(&mut sent, 1 << 20).unwrap() else { panic!() };
        assert_eq!((&*connect.client_id, connect.keep_alive, connect.clean_session), ("run-0-3", 0, true));
        let accepted = packets(|out| write(ConnAck::new(ConnectReturnCode::Success, false).write(out)));
        // In two pieces.
        assert_eq!(session.open(Some(Frame::Binary(&accepted[..1]))), Opening::Waiting);
        assert_eq!(session.owed(), None);
        assert_eq!(session.open(Some(Frame::Binary(&accepted[1..]))), Opening::Waiting);
        let mut sent = BytesMut::from(&*session.owed().unwrap());
        let Packet::Subscribe(subscribe) = read(&mut sent, 1 << 20).unwrap() else { panic!() };
        assert_eq!(subscribe.filters[0].path, "floodline/run-0-3");
        let code = SubscribeReasonCode::Success(QoS::AtLeastOnce);
        let subscribed = packets(|out| write(SubAck::new(1, vec![code]).write(out)));
        assert_eq!(session.open(Some(Frame::Binary(&subscribed))), Opening::Ready);
    }

    #[test]
    fn a_refusal_says_what_the_broker_said() {
        let refused = |bytes: &[u8]| {
            let mut session = session(0);
            session.open(None);
            match session.open(Some(Frame::Binary(bytes))) {
                Opening::Refused(said) => said,
                other => panic!("{other:?}"),
            }
        };
        let code = ConnectReturnCode::NotAuthorized;
        let ack = packets(|out| write(ConnAck::new(code, false).write(out)));
        assert_eq!(refused(&ack), "CONNACK 5: NotAuthorized");
        let ack = packets(|out| write(SubAck::new(1, vec![SubscribeReasonCode::Failure]).write(out)));
        assert_eq!(refused(&ack), "SUBACK: failure");
        assert!(refused(b"\x00\x00hello").contains("no MQTT"));
    }

    #[test]
    fn what_is_published_comes_back_and_is_acknowledged() {
        let mut session = session(1);
        let stream = packets(|out| {
            (0..3).for_each(|n| session.encode(n, WallTime::from_unix_ns(0), out));
            write(PubAck::new(1).write(out));
        });
        assert_eq!(answers(&mut session, &stream, 7), [processed(0), processed(1), processed(2)]);
        let owed = packets(|out| {
            for id in 1..=3 {
                write(PubAck::new(id).write(out));
            }
        });
        assert_eq!(session.owed().as_deref(), Some(&*owed));
        let stray = packets(|out| {
            write(Publish::new("floodline/other", QoS::AtMostOnce, "x").write(out).map(|_| 0));
            write(Publish::new("floodline/run-0-3", QoS::AtMostOnce, "run-0-4-1 x").write(out).map(|_| 0));
            write(Publish::new("floodline/run-0-3", QoS::AtMostOnce, "x").write(out).map(|_| 0));
        });
        let expected = [Answer::Unattributed, Answer::Foreign, Answer::Corrupted];
        assert_eq!(answers(&mut session, &stray, 1 << 20), expected);
        assert_eq!(answers(&mut session, b"\x00\x00\x00", 3), [Answer::Corrupted]);
        assert!(session.ended().unwrap().contains("no MQTT"));
        assert_eq!((answers(&mut session, &stray, 1 << 20), session.ended()), (vec![], None));
    }

    #[test]
    fn settings_without_sense_are_refused_by_flag_key_and_value() {
        let error =
            |settings| Mqtt::new(5, 64, &settings, Credentials::default(), 1).unwrap_err().to_string();
        let qos = error(MqttConfig { qos: 2, ..MqttConfig::default() });
        assert!(
            qos.contains("--mqtt-qos") && qos.contains("dialect.mqtt.qos") && qos.contains("`2`"),
            "{qos}"
        );
        let topic = error(MqttConfig { topic: "a/#".into(), ..MqttConfig::default() });
        assert!(topic.contains("--mqtt-topic") && topic.contains("`a/#`"), "{topic}");
    }

    proptest! {
        /// However a stream is cut, it means the same; and whatever it is, nothing breaks.
        #[test]
        fn any_split_means_the_same(piece in 1usize..200, count in 1u64..20, noise in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut stream = BytesMut::new();
            let mut writer = session(1);
            (0..count).for_each(|n| writer.encode(n, WallTime::from_unix_ns(0), &mut stream));
            let expected: Vec<_> = (0..count).map(processed).collect();
            let mut reader = session(1);
            prop_assert_eq!(answers(&mut reader, &stream, piece), expected);
            stream.extend_from_slice(&noise);
            let whole = answers(&mut session(1), &stream, usize::MAX);
            prop_assert_eq!(answers(&mut session(1), &stream, piece), whole);
            session(0).open(Some(Frame::Binary(&noise)));
        }
    }
}
