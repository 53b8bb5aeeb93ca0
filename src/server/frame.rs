//! WebSocket framing (RFC 6455), the server's side: pure functions over bytes, no I/O.
//!
//! tungstenite does the handshake but not the framing: it keeps and zero-fills a read buffer a connection, and
//! takes and gives back a reference count for every message. Here one buffer serves all connections of a worker, a
//! message is unmasked and read where it lies, and an answer is encoded where it is sent from.

use bytes::BytesMut;

/// Why a connection is closed, as the peer is told (RFC 6455, section 7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseCode {
    /// The peer closed first, and gave no code of its own to repeat.
    Normal = 1000,
    /// The server shuts down.
    GoingAway = 1001,
    /// The peer broke the protocol.
    ProtocolError = 1002,
    /// A text that is not UTF-8.
    InvalidData = 1007,
    /// The token that let the peer in is good no more.
    PolicyViolation = 1008,
    /// A message over the limit.
    TooBig = 1009,
    /// The server has as many connections as it may have.
    TryAgainLater = 1013,
}

impl CloseCode {
    pub(super) fn number(self) -> u16 {
        self as u16
    }

    /// What the peer is told beside the number.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Normal => "",
            Self::GoingAway => "The server shuts down",
            Self::ProtocolError => "Protocol error",
            Self::InvalidData => "A text must be UTF-8",
            Self::PolicyViolation => "The token has expired",
            Self::TooBig => "The message is too long",
            Self::TryAgainLater => "Too many connections",
        }
    }
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The header of a client's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Whether the message ends with this frame.
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    pub(super) mask: [u8; 4],
    /// Where the payload starts.
    pub(super) header_bytes: usize,
    /// Where the frame ends.
    pub(super) frame_bytes: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` where it is not all there yet.
    ///
    /// # Errors
    /// With the code to close with: a reserved bit or opcode, no mask, a control frame that is long or in pieces, a
    /// length that would fit in fewer bytes or uses the top bit of eight, a payload over `max_payload_bytes`.
    pub(super) fn parse(bytes: &[u8], max_payload_bytes: usize) -> Result<Option<Self>, CloseCode> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(CloseCode::ProtocolError)?;
        let fin = first & 0x80 != 0;
        let (reserved, masked) = (first & 0x70 != 0, second & 0x80 != 0);
        let short = second & 0x7f;
        if reserved || !masked || opcode.is_control() && (!fin || short > 125) {
            return Err(CloseCode::ProtocolError);
        }
        let (length, rest, length_bytes, shorter_bytes) = match short {
            126 => match rest {
                &[a, b, ref rest @ ..] => (u64::from(u16::from_be_bytes([a, b])), rest, 2, 125),
                _ => return Ok(None),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest, 8, 0xffff),
                None => return Ok(None),
            },
            length => (u64::from(length), rest, 0, 0),
        };
        if length_bytes > 0 && length <= shorter_bytes || length > i64::MAX as u64 {
            return Err(CloseCode::ProtocolError);
        }
        let payload_bytes = usize::try_from(length)
            .ok()
            .filter(|&length| length <= max_payload_bytes)
            .ok_or(CloseCode::TooBig)?;
        let Some(&mask) = rest.first_chunk::<4>() else { return Ok(None) };
        let header_bytes = 2 + length_bytes + 4;
        Ok(Some(Self { fin, opcode, mask, header_bytes, frame_bytes: header_bytes + payload_bytes }))
    }
}

/// Takes the client's mask off a payload.
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Appends a text frame whose payload `encode` appends.
pub(super) fn append_text(out: &mut BytesMut, encode: impl FnOnce(&mut BytesMut)) {
    /// Room for the header of the commonest length, 126 bytes to 64 KiB; other headers move the payload.
    const HEADER: usize = 4;
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    encode(out);
    let payload_bytes = out.len() - start - HEADER;
    let (header, header_bytes) = text_header(payload_bytes);
    if header_bytes > HEADER {
        out.resize(out.len() + header_bytes - HEADER, 0);
    }
    if header_bytes != HEADER {
        out.copy_within(start + HEADER..start + HEADER + payload_bytes, start + header_bytes);
        out.truncate(start + header_bytes + payload_bytes);
    }
    if let Some(place) = out.get_mut(start..start + header_bytes) {
        place.copy_from_slice(header.get(..header_bytes).unwrap_or_default());
    }
}

/// Appends a control frame. A control frame carries at most 125 bytes: what is longer is cut.
pub(super) fn append_control(out: &mut BytesMut, opcode: Opcode, payload: &[u8]) {
    let payload = payload.get(..125).unwrap_or(payload);
    out.extend_from_slice(&[0x80 | opcode as u8, payload.len() as u8]);
    out.extend_from_slice(payload);
}

/// Appends a close frame.
pub(super) fn append_close(out: &mut BytesMut, code: u16, reason: &str) {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    append_control(out, Opcode::Close, &payload);
}

/// The code in a close frame; `None` where it has none.
///
/// # Errors
/// With the code to close with, where the payload is malformed.
pub(super) fn close_code(payload: &[u8]) -> Result<Option<u16>, CloseCode> {
    let &[high, low, ref reason @ ..] = payload else {
        return if payload.is_empty() { Ok(None) } else { Err(CloseCode::ProtocolError) };
    };
    let code = u16::from_be_bytes([high, low]);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(CloseCode::ProtocolError);
    }
    std::str::from_utf8(reason).map_err(|_| CloseCode::InvalidData)?;
    Ok(Some(code))
}

/// The header of an unmasked final text frame, and how much of the array it takes.
fn text_header(payload_bytes: usize) -> ([u8; 10], usize) {
    let mut header = [0; 10];
    header[0] = 0x80 | Opcode::Text as u8;
    match payload_bytes {
        0..=125 => {
            header[1] = payload_bytes as u8;
            (header, 2)
        }
        126..=0xffff => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
            (header, 4)
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
            (header, 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};

    use super::*;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    /// A client's frame, put together by the letter of RFC 6455, section 5.2.
    fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..=125 => frame.push(0x80 | length as u8),
            length @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().enumerate().map(|(place, byte)| byte ^ mask[place % 4]));
        frame
    }

    proptest! {
        #[test]
        fn a_client_frame_is_read_back(payload: Vec<u8>, mask: [u8; 4], more: Vec<u8>) {
            let mut bytes = masked(0x81, &payload, mask);
            let frame_bytes = bytes.len();
            bytes.extend(more);
            let header = Header::parse(&bytes, 1 << 20).unwrap().unwrap();
            prop_assert_eq!(header.frame_bytes, frame_bytes);
            unmask(&mut bytes[header.header_bytes..header.frame_bytes], header.mask);
            prop_assert_eq!(&bytes[header.header_bytes..header.frame_bytes], &payload);
            for cut in 0..header.header_bytes {
                prop_assert_eq!(Header::parse(&bytes[..cut], 1 << 20), Ok(None));
            }
        }

        #[test]
        fn no_bytes_can_break_the_parser(bytes: Vec<u8>) {
            if let Ok(Some(header)) = Header::parse(&bytes, 1 << 20) {
                prop_assert!(header.frame_bytes - header.header_bytes <= 1 << 20);
            }
            let _ = close_code(&bytes);
        }
    }

    #[test]
    fn tungstenite_reads_our_frames_of_every_length() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
            let text = "x".repeat(length);
            let mut out = BytesMut::from(&b""[..]);
            append_text(&mut out, |out| out.extend_from_slice(text.as_bytes()));
            append_control(&mut out, Opcode::Ping, b"ping");
            append_close(&mut out, CloseCode::GoingAway.number(), "bye");
            let mut socket =
                WebSocket::from_raw_socket(std::io::Cursor::new(out.to_vec()), Role::Client, None);
            assert_eq!(socket.read().unwrap(), Message::text(text));
            assert_eq!(socket.read().unwrap(), Message::Ping("ping".into()));
            let Ok(Message::Close(Some(close))) = socket.read() else { panic!("{length}") };
            assert_eq!((u16::from(close.code), close.reason.as_str()), (1001, "bye"));
        }
    }

    #[test]
    fn what_breaks_the_protocol_is_refused() {
        let protocol = Err(CloseCode::ProtocolError);
        assert_eq!(Header::parse(&[0x81, 0x05], 100), protocol, "unmasked");
        assert_eq!(Header::parse(&masked(0xc1, b"x", MASK), 100), protocol, "reserved bit");
        assert_eq!(Header::parse(&masked(0x83, b"x", MASK), 100), protocol, "reserved opcode");
        assert_eq!(Header::parse(&masked(0x09, b"x", MASK), 100), protocol, "ping in pieces");
        assert_eq!(Header::parse(&masked(0x89, &[0; 126], MASK), 1000), protocol, "long ping");
        assert_eq!(Header::parse(&masked(0x81, &[0; 101], MASK), 100), Err(CloseCode::TooBig));
        for (length, code) in [
            (i64::MAX as u64, CloseCode::TooBig),
            (u64::MAX, CloseCode::ProtocolError),
            (0xffff, CloseCode::ProtocolError),
        ] {
            let frame = [&[0x81, 0xff][..], &length.to_be_bytes()].concat();
            assert_eq!(Header::parse(&frame, 100), Err(code), "eight bytes for {length}");
        }
        assert_eq!(Header::parse(&[0x81, 0xfe, 0, 125], 1000), protocol, "two bytes for 125");
    }

    #[test]
    fn close_payloads_are_checked() {
        assert_eq!(close_code(b""), Ok(None));
        assert_eq!(close_code(b"\x03\xe8bye"), Ok(Some(1000)));
        for (payload, code) in [
            (b"\x03" as &[u8], CloseCode::ProtocolError),
            (b"\x03\xed", CloseCode::ProtocolError),
            (b"\x00\x00", CloseCode::ProtocolError),
            (b"\x03\xe8\xff", CloseCode::InvalidData),
        ] {
            assert_eq!(close_code(payload), Err(code), "{payload:?}");
        }
    }
}
