//! What the dialects need to be told.

use serde::{Deserialize, Serialize};

use super::section::section;
use super::text;

section! {
    /// The dialects, where there is a choice.
    DialectConfig {
        /// The user's name, for a server that asks for one: `mqtt`, `nats`, `stomp`.
        #[serde(with = "text::optional")]
        user: Option<String> = None,
        /// The environment variable that holds the password; for `nats` without a user, the token.
        #[serde(with = "text::optional")]
        password_env: Option<String> = None,
        /// How many connections subscribe to one topic, and get each message that one of them sends: `mqtt`, `nats`, `stomp`.
        #[serde(with = "text::count")]
        fan_out: u32 = 1,
        /// An echo server.
        echo: EchoConfig = EchoConfig::default(),
        /// A JSON service.
        json: JsonConfig = JsonConfig::default(),
        /// An MQTT broker.
        mqtt: MqttConfig = MqttConfig::default(),
        /// A NATS server.
        nats: NatsConfig = NatsConfig::default(),
        /// A STOMP broker.
        stomp: StompConfig = StompConfig::default(),
        /// A Socket.IO server.
        socketio: SocketioConfig = SocketioConfig::default(),
    }
}

section! {
    /// The dialect `mqtt`.
    MqttConfig {
        /// The quality of service, 0 or 1, of publishing and of subscribing.
        qos: u8 = 0,
        /// The topic under which each client has its own.
        topic: String = "floodline".to_owned(),
    }
}

section! {
    /// The dialect `nats`.
    NatsConfig {
        /// The subject under which each client has its own.
        subject: String = "floodline".to_owned(),
    }
}

section! {
    /// The dialect `stomp`.
    StompConfig {
        /// The destination that each client's own begins with.
        destination: String = "/topic/floodline".to_owned(),
        /// The virtual host.
        host: String = "/".to_owned(),
    }
}

section! {
    /// The dialect `socketio`.
    SocketioConfig {
        /// The event that is sent.
        event: String = "message".to_owned(),
        /// The namespace that is joined.
        namespace: String = "/".to_owned(),
    }
}

section! {
    /// The dialect `echo`.
    EchoConfig {
        /// How messages travel.
        frames: EchoFrames = EchoFrames::Text,
    }
}

/// The kind of frame that an echo server is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EchoFrames {
    /// Text.
    #[default]
    Text,
    /// Binary.
    Binary,
}

section! {
    /// The dialect `json`. A rule is a JSON pointer that must lead to something other than null and false, or a pointer, `=`
    /// and the value that must stand there: `/error`, `/type=news`, `/code=503`.
    JsonConfig {
        /// The request, in which `{id}`, `{sequence}`, `{payload}` and `{now}` are replaced.
        request: String = String::new(),
        /// Where the answer holds the id, or the sequence where the request has no `{id}`: a JSON pointer.
        id: String = String::new(),
        /// Where the answer holds the payload, unchanged: a JSON pointer, empty where it does not.
        content: String = String::new(),
        /// An answer that matches one of these rules is a refusal.
        refusal: Vec<String> = Vec::new(),
        /// A message that matches one of these rules is no answer: what the server pushes.
        ignore: Vec<String> = Vec::new(),
        /// Whether the answers of a connection come in the order of its requests.
        ordered: bool = true,
        /// What is said first, empty for nothing; `{env:NAME}` stands for that variable.
        login: String = String::new(),
        /// The rule that the answer to a good login matches.
        login_ok: String = String::new(),
    }
}
