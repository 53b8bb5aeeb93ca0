//! Socket.IO's packets (protocol 5) in those of Engine.IO (protocol 4), as they stand in text frames.

/// A packet from a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dialect) enum Packet<'a> {
    /// Engine.IO: the session is open.
    Open,
    /// Engine.IO: the session is closed.
    Close,
    /// Engine.IO: wants a pong, with this in it.
    Ping(&'a str),
    /// Engine.IO: nothing.
    Noop,
    /// Socket.IO: this namespace is joined, or not any more, or not at all; an event; the answer to one.
    Message(Message<'a>),
}

/// A packet of Socket.IO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dialect) struct Message<'a> {
    pub(in crate::dialect) kind: Kind,
    /// `/` where none is named.
    pub(in crate::dialect) namespace: &'a str,
    /// Which event it answers, or by which id it wants to be answered.
    pub(in crate::dialect) id: Option<u64>,
    /// The JSON, if any.
    pub(in crate::dialect) data: &'a str,
}

/// What a packet of Socket.IO is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dialect) enum Kind {
    Connect,
    Disconnect,
    Event,
    Ack,
    ConnectError,
}

/// The packet that a text is; none where it is none, or carries binary data beside it.
pub(in crate::dialect) fn parse(text: &str) -> Option<Packet<'_>> {
    let (kind, rest) = text.split_at_checked(1)?;
    Some(match kind {
        "0" => Packet::Open,
        "1" => Packet::Close,
        "2" => Packet::Ping(rest),
        "3" | "6" => Packet::Noop,
        "4" => Packet::Message(message(rest)?),
        _ => return None,
    })
}

fn message(text: &str) -> Option<Message<'_>> {
    let (kind, rest) = text.split_at_checked(1)?;
    let kind = match kind {
        "0" => Kind::Connect,
        "1" => Kind::Disconnect,
        "2" => Kind::Event,
        "3" => Kind::Ack,
        "4" => Kind::ConnectError,
        _ => return None,
    };
    let (namespace, rest) = match rest.starts_with('/') {
        false => ("/", rest),
        // A namespace without data has no comma behind it.
        true => rest.split_once(',').unwrap_or((rest, "")),
    };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (id, data) = rest.split_at_checked(digits)?;
    let id = if id.is_empty() { None } else { Some(id.parse().ok()?) };
    Some(Message { kind, namespace, id, data })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn packets_of_the_documentation_are_read() {
        let message =
            |kind, namespace, id, data| Some(Packet::Message(Message { kind, namespace, id, data }));
        for (text, expected) in [
            (r#"0{"sid":"x"}"#, Some(Packet::Open)),
            ("1", Some(Packet::Close)),
            ("2", Some(Packet::Ping(""))),
            ("2probe", Some(Packet::Ping("probe"))),
            ("3", Some(Packet::Noop)),
            ("6", Some(Packet::Noop)),
            (r#"40{"sid":"x"}"#, message(Kind::Connect, "/", None, r#"{"sid":"x"}"#)),
            (r#"40/admin,{"sid":"x"}"#, message(Kind::Connect, "/admin", None, r#"{"sid":"x"}"#)),
            ("41/admin,", message(Kind::Disconnect, "/admin", None, "")),
            ("41/admin", message(Kind::Disconnect, "/admin", None, "")),
            (r#"42["hey"]"#, message(Kind::Event, "/", None, r#"["hey"]"#)),
            (r#"42/a,12["hey"]"#, message(Kind::Event, "/a", Some(12), r#"["hey"]"#)),
            (r#"4312[]"#, message(Kind::Ack, "/", Some(12), "[]")),
            (r#"44{"message":"no"}"#, message(Kind::ConnectError, "/", None, r#"{"message":"no"}"#)),
            ("", None),
            ("4", None),
            ("9", None),
            ("451-[1]", None),
            ("é", None),
            ("4é", None),
            ("4399999999999999999999[]", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(namespace in "(/[a-z]{1,6})?", id in any::<Option<u64>>(), data in r#"(\[[a-z",é]{0,9}\])?"#) {
            let comma = if namespace.is_empty() { "" } else { "," };
            let text = format!("43{namespace}{comma}{}{data}", id.map(|id| id.to_string()).unwrap_or_default());
            let namespace = if namespace.is_empty() { "/" } else { &*namespace };
            let expected = Message { kind: Kind::Ack, namespace, id, data: &data };
            prop_assert_eq!(parse(&text), Some(Packet::Message(expected)));
        }

        #[test]
        fn nothing_breaks_whatever_comes(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
