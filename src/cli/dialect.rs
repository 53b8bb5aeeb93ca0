//! Flags that say what a dialect needs to be told; each sets the key of its name in the section `dialect`.

use std::num::NonZeroU32;

use clap::Args;
use floodline::config::{DialectConfig, EchoFrames};
use floodline::units::UnitError;

/// What a dialect needs to be told.
#[derive(Debug, Args)]
#[command(next_help_heading = "Dialects")]
pub struct DialectArgs {
    /// mqtt, nats, stomp: the user's name, where the server asks for one
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// mqtt, nats, stomp: environment variable that holds the password, or the token of nats without a user
    #[arg(long, value_name = "NAME")]
    password_env: Option<String>,
    /// mqtt, nats, stomp: how many connections subscribe to one topic and get each other's messages [default: 1]
    #[arg(long, value_name = "N")]
    fan_out: Option<NonZeroU32>,
    /// echo: frames to send, and to expect: text or binary [default: text]
    #[arg(long, value_parser = parse_frames, value_name = "KIND")]
    echo_frames: Option<EchoFrames>,
    /// json: the request, in which {id}, {sequence}, {payload} and {now} are replaced
    #[arg(long, value_name = "TEMPLATE")]
    json_request: Option<String>,
    /// json: where the answer holds the id, or the sequence where the request has no {id}
    #[arg(long, value_name = "POINTER")]
    json_id: Option<String>,
    /// json: where the answer holds the payload, to be compared
    #[arg(long, value_name = "POINTER")]
    json_content: Option<String>,
    /// json: an answer that holds this is a refusal; may be repeated
    #[arg(long, value_name = "POINTER[=VALUE]")]
    json_refusal: Vec<String>,
    /// json: a message that holds this is no answer; may be repeated
    #[arg(long, value_name = "POINTER[=VALUE]")]
    json_ignore: Vec<String>,
    /// json: answers may overtake each other
    #[arg(long)]
    json_unordered: bool,
    /// json: what is said first; {env:NAME} stands for that variable
    #[arg(long, value_name = "MESSAGE")]
    json_login: Option<String>,
    /// json: what the answer to a good login holds
    #[arg(long, value_name = "POINTER[=VALUE]")]
    json_login_ok: Option<String>,
    /// mqtt: quality of service, 0 or 1 [default: 0]
    #[arg(long, value_name = "QOS")]
    mqtt_qos: Option<u8>,
    /// mqtt: the topic under which each client has its own [default: floodline]
    #[arg(long, value_name = "TOPIC")]
    mqtt_topic: Option<String>,
    /// nats: the subject under which each client has its own [default: floodline]
    #[arg(long, value_name = "SUBJECT")]
    nats_subject: Option<String>,
    /// stomp: what each client's destination begins with [default: /topic/floodline]
    #[arg(long, value_name = "DESTINATION")]
    stomp_destination: Option<String>,
    /// stomp: the virtual host [default: /]
    #[arg(long, value_name = "HOST")]
    stomp_host: Option<String>,
    /// socketio: the event to send [default: message]
    #[arg(long, value_name = "NAME")]
    socketio_event: Option<String>,
    /// socketio: the namespace to join [default: /]
    #[arg(long, value_name = "NAMESPACE")]
    socketio_namespace: Option<String>,
}

impl DialectArgs {
    /// The configuration, with what the flags say in its place.
    pub fn over(&self, config: &DialectConfig) -> DialectConfig {
        let mut config = config.clone();
        config.user = self.user.clone().or(config.user);
        config.password_env = self.password_env.clone().or(config.password_env);
        config.fan_out = self.fan_out.map_or(config.fan_out, NonZeroU32::get);
        set(&mut config.echo.frames, self.echo_frames.as_ref());
        let json = &mut config.json;
        set(&mut json.request, self.json_request.as_ref());
        set(&mut json.id, self.json_id.as_ref());
        set(&mut json.content, self.json_content.as_ref());
        set(&mut json.refusal, Some(&self.json_refusal).filter(|rules| !rules.is_empty()));
        set(&mut json.ignore, Some(&self.json_ignore).filter(|rules| !rules.is_empty()));
        set(&mut json.ordered, self.json_unordered.then_some(&false));
        set(&mut json.login, self.json_login.as_ref());
        set(&mut json.login_ok, self.json_login_ok.as_ref());
        set(&mut config.mqtt.qos, self.mqtt_qos.as_ref());
        set(&mut config.mqtt.topic, self.mqtt_topic.as_ref());
        set(&mut config.nats.subject, self.nats_subject.as_ref());
        set(&mut config.stomp.destination, self.stomp_destination.as_ref());
        set(&mut config.stomp.host, self.stomp_host.as_ref());
        set(&mut config.socketio.event, self.socketio_event.as_ref());
        set(&mut config.socketio.namespace, self.socketio_namespace.as_ref());
        config
    }
}

fn set<T: Clone>(key: &mut T, flag: Option<&T>) {
    if let Some(value) = flag {
        key.clone_from(value);
    }
}

fn parse_frames(text: &str) -> Result<EchoFrames, UnitError> {
    match text {
        "text" => Ok(EchoFrames::Text),
        "binary" => Ok(EchoFrames::Binary),
        _ => {
            Err(UnitError::Malformed { value: text.to_owned(), expected: "a kind of frame: text or binary" })
        }
    }
}
