//! NATS: lines that end with CR LF, and after some of them a payload of the length that they announce.

use bytes::{Buf, Bytes, BytesMut};
use serde_json::Value;

use crate::dialect::wire::PIECE_BYTES;

/// The longest line that is waited for: a greeting lists the servers of a whole cluster.
const LINE_BYTES: usize = 1 << 20;

/// What a server says.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::dialect) enum Op {
    /// Its greeting.
    Info(Value),
    /// A message to a subscription.
    Message { subject: String, payload: Bytes },
    /// Wants a pong.
    Ping,
    /// The answer to ours.
    Pong,
    /// All is well.
    Ok,
    /// Something is not, in its words.
    Error(String),
}

/// The next of them, where it is whole; it is taken off the stream.
pub(in crate::dialect) fn parse(stream: &mut BytesMut) -> Result<Option<Op>, &'static str> {
    let Some(end) = stream.iter().take(LINE_BYTES).position(|&byte| byte == b'\n') else {
        return if stream.len() < LINE_BYTES { Ok(None) } else { Err("a line without an end") };
    };
    let line = stream.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or("a line ends without CR")?;
    let line = std::str::from_utf8(line).map_err(|_| "a line that is not UTF-8")?;
    let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let op = match &*verb.to_ascii_uppercase() {
        "MSG" => return message(stream, end + 1),
        "INFO" => Op::Info(serde_json::from_str(rest).map_err(|_| "an INFO that is not JSON")?),
        "PING" => Op::Ping,
        "PONG" => Op::Pong,
        "+OK" => Op::Ok,
        "-ERR" => Op::Error(rest.trim().to_owned()),
        _ => return Err("an unknown operation"),
    };
    stream.advance(end + 1);
    Ok(Some(op))
}

/// A message whose line takes `head` bytes: `MSG subject sid [reply-to] bytes`.
fn message(stream: &mut BytesMut, head: usize) -> Result<Option<Op>, &'static str> {
    const MALFORMED: &str = "a MSG that makes no sense";
    let line = stream.get(..head).and_then(|line| std::str::from_utf8(line).ok()).ok_or(MALFORMED)?;
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (subject, bytes) = match &*words {
        [_, subject, _, bytes] | [_, subject, _, _, bytes] => (*subject, *bytes),
        _ => return Err(MALFORMED),
    };
    let bytes: usize = bytes.parse().map_err(|_| MALFORMED)?;
    if bytes > PIECE_BYTES {
        return Err("a MSG that is too long");
    }
    let subject = subject.to_owned();
    if stream.len() < head + bytes + 2 {
        return Ok(None);
    }
    stream.advance(head);
    let payload = stream.split_to(bytes).freeze();
    let ends = stream.split_to(2);
    if &*ends == b"\r\n" {
        Ok(Some(Op::Message { subject, payload }))
    } else {
        Err("a MSG longer than it says")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(op: &Op) -> Vec<u8> {
        match op {
            Op::Info(info) => format!("INFO {info}\r\n").into_bytes(),
            Op::Message { subject, payload } => {
                [format!("MSG {subject} 1 {}\r\n", payload.len()).as_bytes(), payload, b"\r\n"].concat()
            }
            Op::Ping => b"PING\r\n".to_vec(),
            Op::Pong => b"pong\r\n".to_vec(),
            Op::Ok => b"+OK\r\n".to_vec(),
            Op::Error(said) => format!("-ERR {said}\r\n").into_bytes(),
        }
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let payload = prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let op = prop_oneof![
            (any::<u32>()).prop_map(|n| Op::Info(serde_json::json!({"max_payload": n}))),
            ("[a-z.]{1,9}", payload).prop_map(|(subject, payload)| Op::Message { subject, payload }),
            Just(Op::Ping),
            Just(Op::Pong),
            Just(Op::Ok),
            "'[a-z ]{1,9}'".prop_map(Op::Error),
        ];
        prop::collection::vec(op, 0..12)
    }

    /// All that a stream says when it comes in pieces, and whether it broke.
    fn read(bytes: &[u8], piece: usize) -> (Vec<Op>, bool) {
        let (mut stream, mut seen) = (BytesMut::new(), Vec::new());
        for piece in bytes.chunks(piece.max(1)) {
            stream.extend_from_slice(piece);
            loop {
                match parse(&mut stream) {
                    Ok(Some(op)) => seen.push(op),
                    Ok(None) => break,
                    Err(_) => return (seen, true),
                }
            }
        }
        (seen, false)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(ops in ops(), piece in 1usize..60) {
            let bytes: Vec<u8> = ops.iter().flat_map(write).collect();
            prop_assert_eq!(read(&bytes, piece), (ops, false));
        }

        #[test]
        fn whatever_comes_is_read_alike_however_it_is_cut(ops in ops(), noise in prop::collection::vec(any::<u8>(), 0..60), piece in 1usize..30) {
            let mut bytes: Vec<u8> = ops.iter().flat_map(write).collect();
            bytes.extend(noise);
            prop_assert_eq!(read(&bytes, piece), read(&bytes, usize::MAX));
        }
    }

    #[test]
    fn limits_hold() {
        assert!(parse(&mut BytesMut::from(&vec![b'x'; LINE_BYTES][..])).is_err());
        assert!(parse(&mut BytesMut::from("MSG a 1 99999999999999999999\r\n")).is_err());
        assert!(parse(&mut BytesMut::from("MSG a 1 999999999\r\n")).is_err());
        assert!(parse(&mut BytesMut::from("MSG a\r\n")).is_err());
        assert!(parse(&mut BytesMut::from("PING\n")).is_err());
        assert!(parse(&mut BytesMut::from("MSG a 1 1\r\nxyz")).is_err());
    }
}
