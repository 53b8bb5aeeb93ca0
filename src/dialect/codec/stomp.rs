//! STOMP 1.2 (stomp.github.io): a command, headers and a body that ends with NUL.

use bytes::{Buf, Bytes, BytesMut};

use crate::dialect::wire::PIECE_BYTES;

/// The longest head, command and headers, that is waited for.
const HEAD_BYTES: usize = 64 << 10;
/// The longest body of unannounced length that is waited for.
const OPEN_BODY_BYTES: usize = 1 << 20;

/// A frame of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::dialect) struct StompFrame {
    pub(in crate::dialect) command: String,
    /// As they stand, the first of a name counts.
    pub(in crate::dialect) headers: Vec<(String, String)>,
    pub(in crate::dialect) body: Bytes,
}

impl StompFrame {
    /// The value of a header.
    pub(in crate::dialect) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// Appends a frame without its body and NUL.
pub(in crate::dialect) fn write_head(command: &str, headers: &[(&str, &str)], out: &mut BytesMut) {
    out.extend_from_slice(command.as_bytes());
    // For the sake of older servers these two know no escapes.
    let escapes = !matches!(command, "CONNECT" | "CONNECTED");
    for (name, value) in headers {
        out.extend_from_slice(b"\n");
        out.extend_from_slice(if escapes { escape(name) } else { (*name).to_owned() }.as_bytes());
        out.extend_from_slice(b":");
        out.extend_from_slice(if escapes { escape(value) } else { (*value).to_owned() }.as_bytes());
    }
    out.extend_from_slice(b"\n\n");
}

/// The next frame, where it is whole; it is taken off the stream, and so are line breaks before it, which are heart-beats.
pub(in crate::dialect) fn parse(stream: &mut BytesMut) -> Result<Option<StompFrame>, &'static str> {
    let beats = stream.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
    stream.advance(beats);
    let Some((head, body_at)) = head(stream)? else { return Ok(None) };
    let (command, headers) = parse_head(head)?;
    let announced = headers.iter().find(|(name, _)| name == "content-length");
    let body_bytes = match announced {
        Some((_, value)) => {
            let bytes: usize = value.trim().parse().map_err(|_| "a content-length that is no number")?;
            if bytes > PIECE_BYTES {
                return Err("a body that is too long");
            }
            match stream.get(body_at + bytes) {
                None => return Ok(None),
                Some(0) => bytes,
                Some(_) => return Err("a body longer than it says"),
            }
        }
        None => {
            let body = stream.get(body_at..).unwrap_or_default();
            match body.iter().position(|&byte| byte == 0) {
                None if body.len() > OPEN_BODY_BYTES => return Err("a body without an end"),
                None => return Ok(None),
                Some(at) => at,
            }
        }
    };
    stream.advance(body_at);
    let body = stream.split_to(body_bytes).freeze();
    stream.advance(1);
    Ok(Some(StompFrame { command, headers, body }))
}

/// The head, and where the body begins behind its empty line.
fn head(stream: &[u8]) -> Result<Option<(&str, usize)>, &'static str> {
    let reach = stream.get(..stream.len().min(HEAD_BYTES)).unwrap_or_default();
    let mut lines = reach.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let mut line_at = 0;
    let end = lines.find_map(|at| {
        let line = reach.get(line_at..at).unwrap_or_default();
        let empty = line.is_empty() || line == b"\r";
        let begins_at = std::mem::replace(&mut line_at, at + 1);
        empty.then_some((begins_at, at + 1))
    });
    let Some((end, body_at)) = end else {
        // A head is text: what holds a NUL never becomes one.
        let never = stream.len() >= HEAD_BYTES || reach.contains(&0);
        return if never { Err("a head without an end") } else { Ok(None) };
    };
    let head = std::str::from_utf8(&reach[..end]).map_err(|_| "a head that is not UTF-8")?;
    if head.contains('\0') { Err("a head without an end") } else { Ok(Some((head, body_at))) }
}

type Head = (String, Vec<(String, String)>);

fn parse_head(head: &str) -> Result<Head, &'static str> {
    let mut lines = head.split_terminator('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let command = lines.next().unwrap_or_default().to_owned();
    if command.is_empty() || !command.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err("no command");
    }
    let escaped = !matches!(&*command, "CONNECT" | "CONNECTED");
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').ok_or("a header without a colon")?;
        if escaped {
            Ok((unescape(name)?, unescape(value)?))
        } else {
            Ok((name.to_owned(), value.to_owned()))
        }
    });
    let headers: Result<Vec<_>, &'static str> = headers.collect();
    Ok((command, headers?))
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\r', "\\r").replace('\n', "\\n").replace(':', "\\c")
}

fn unescape(text: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => match chars.next() {
                Some('\\') => '\\',
                Some('r') => '\r',
                Some('n') => '\n',
                Some('c') => ':',
                _ => return Err("an escape that there is not"),
            },
            other => other,
        };
        out.push(c);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = Vec<StompFrame>> {
        let header = ("[a-z\\\\:\n\r]{1,6}", "[a-z\\\\: \n\r]{0,6}");
        let body = prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let frame =
            ("[A-Z]{2,6}", prop::collection::vec(header, 0..4), body).prop_map(|(command, headers, body)| {
                let mut headers: Vec<(String, String)> = headers;
                headers.insert(0, ("content-length".to_owned(), body.len().to_string()));
                StompFrame { command, headers, body }
            });
        prop::collection::vec(frame, 0..6)
    }

    fn write(frame: &StompFrame, out: &mut BytesMut) {
        let headers: Vec<_> = frame.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        write_head(&frame.command, &headers, out);
        out.extend_from_slice(&frame.body);
        out.extend_from_slice(b"\0");
    }

    fn read(bytes: &[u8], piece: usize) -> (Vec<StompFrame>, bool) {
        let (mut stream, mut seen) = (BytesMut::new(), Vec::new());
        for piece in bytes.chunks(piece.max(1)) {
            stream.extend_from_slice(piece);
            loop {
                match parse(&mut stream) {
                    Ok(Some(frame)) => seen.push(frame),
                    Ok(None) => break,
                    Err(_) => return (seen, true),
                }
            }
        }
        (seen, false)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(frames in frames(), beats in 0usize..3, piece in 1usize..60) {
            let mut bytes = BytesMut::new();
            for frame in &frames {
                write(frame, &mut bytes);
                (0..beats).for_each(|_| bytes.extend_from_slice(b"\n"));
            }
            prop_assert_eq!(read(&bytes, piece), (frames, false));
        }

        #[test]
        fn nothing_breaks_whatever_comes(frames in frames(), noise in prop::collection::vec(any::<u8>(), 0..60), piece in 1usize..30) {
            let mut bytes = BytesMut::new();
            frames.iter().for_each(|frame| write(frame, &mut bytes));
            bytes.extend_from_slice(&noise);
            // What is broken may show sooner where there is less of it, and never costs a whole frame.
            let (seen, _) = read(&bytes, piece);
            prop_assert_eq!(&seen[..frames.len()], &frames[..]);
        }
    }

    #[test]
    fn frames_of_others_are_read() {
        let parse = |text: &str| parse(&mut BytesMut::from(text));
        let frame = parse("\r\n\nCONNECTED\r\nversion:1.2\r\nserver:x\\y:1\r\n\r\n\0\n").unwrap().unwrap();
        assert_eq!((&*frame.command, frame.header("server")), ("CONNECTED", Some("x\\y:1")));
        assert_eq!((frame.header("version"), frame.header("none")), (Some("1.2"), None));
        let frame = parse("ERROR\nmessage:no\\caccess\n\nwhy\0").unwrap().unwrap();
        assert_eq!((frame.header("message"), &*frame.body), (Some("no:access"), b"why" as &[u8]));
        for broken in ["A\nb\n\n\0", "a\n\n\0", "A\nb:\\x\n\n\0", "A\ncontent-length:1\n\nxy\0", "A\0"] {
            assert!(parse(broken).is_err(), "{broken:?}");
        }
        assert!(parse("A\ncontent-length:99999999\n\n").is_err());
        assert!(super::parse(&mut BytesMut::from(&vec![b'A'; HEAD_BYTES][..])).is_err());
        assert_eq!(parse("A\ncontent-length:1\n\nx").unwrap(), None);
    }
}
