//! Frames: their headers, their masks, and how they are written.

use bytes::BytesMut;

use super::violation::Violation;

/// Who sends a frame: a client masks all it sends, a server nothing (RFC 6455, section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// Masks.
    Client,
    /// Does not.
    Server,
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// More of a message.
    Continuation = 0,
    /// A text, or the start of one.
    Text = 1,
    /// A binary message, or the start of one.
    Binary = 2,
    /// The last frame of a peer.
    Close = 8,
    /// Wants a pong.
    Ping = 9,
    /// Answers a ping.
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Result<Self, Violation> {
        Ok(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            reserved => return Err(Violation::ReservedOpcode(reserved)),
        })
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whether the message ends with this frame.
    pub fin: bool,
    /// What the frame carries.
    pub opcode: Opcode,
    /// The key of a client's frame; of a server's, zero.
    pub mask: [u8; 4],
    /// Where the payload starts.
    pub header_bytes: usize,
    /// Where the frame ends.
    pub frame_bytes: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`, which `sender` sent; `None` where it is not all there yet.
    ///
    /// # Errors
    /// Where a reserved bit or opcode is used, a mask is missing or out of place, a control frame is long or in pieces,
    /// a length would fit in fewer bytes or uses the top bit of eight, or a payload is over `max_payload_bytes`.
    #[inline]
    pub fn parse(bytes: &[u8], sender: Sender, max_payload_bytes: usize) -> Result<Option<Self>, Violation> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        let opcode = Opcode::from_bits(first & 0x0f)?;
        let fin = first & 0x80 != 0;
        let masked = second & 0x80 != 0;
        let short = second & 0x7f;
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBit);
        }
        match (masked, sender) {
            (true, Sender::Server) => return Err(Violation::Masked),
            (false, Sender::Client) => return Err(Violation::Unmasked),
            _ => {}
        }
        if opcode.is_control() {
            if !fin {
                return Err(Violation::FragmentedControl);
            }
            if short > 125 {
                return Err(Violation::LongControl);
            }
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
            return Err(Violation::LengthForm);
        }
        let payload_bytes = usize::try_from(length)
            .ok()
            .filter(|&length| length <= max_payload_bytes)
            .ok_or(Violation::TooBig { bytes: length, limit: max_payload_bytes })?;
        let (mask, mask_bytes) = match (masked, rest.first_chunk::<4>()) {
            (false, _) => ([0; 4], 0),
            (true, Some(&mask)) => (mask, 4),
            (true, None) => return Ok(None),
        };
        let header_bytes = 2 + length_bytes + mask_bytes;
        Ok(Some(Self { fin, opcode, mask, header_bytes, frame_bytes: header_bytes + payload_bytes }))
    }
}

/// Puts a client's mask on a payload, or takes it off: both are the same.
#[inline]
pub fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
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

/// Appends a whole message in one frame, whose payload `encode` appends; masked, where there is a key.
#[inline]
pub fn append(out: &mut BytesMut, opcode: Opcode, mask: Option<[u8; 4]>, encode: impl FnOnce(&mut BytesMut)) {
    /// Room for the length of the commonest payload, 126 bytes to 64 KiB; other headers move the payload.
    const COMMON: usize = 4;
    let mask_bytes = if mask.is_some() { 4 } else { 0 };
    let start = out.len();
    let payload_at = start + COMMON + mask_bytes;
    out.extend_from_slice(&[0; COMMON + 4][..COMMON + mask_bytes]);
    encode(out);
    let payload_bytes = out.len() - payload_at;
    let (head, head_bytes) = head(opcode, mask.is_some(), payload_bytes);
    if head_bytes != COMMON {
        move_payload(out, payload_at, start + head_bytes + mask_bytes, payload_bytes);
    }
    let Some(frame) = out.get_mut(start..) else { return };
    if let Some(place) = frame.get_mut(..head_bytes) {
        place.copy_from_slice(head.get(..head_bytes).unwrap_or_default());
    }
    if let Some(key) = mask
        && let Some((place, payload)) = frame.get_mut(head_bytes..).and_then(<[u8]>::split_first_chunk_mut)
    {
        *place = key;
        apply_mask(payload, key);
    }
}

/// Moves the last `bytes` of `out` from one place to another, where they are again the last.
#[cold]
fn move_payload(out: &mut BytesMut, from: usize, to: usize, bytes: usize) {
    if to > from {
        out.resize(to + bytes, 0);
    }
    out.copy_within(from..from + bytes, to);
    out.truncate(to + bytes);
}

/// Appends a control frame; masked, where there is a key. It carries at most 125 bytes: what is longer is cut.
pub fn append_control(out: &mut BytesMut, opcode: Opcode, mask: Option<[u8; 4]>, payload: &[u8]) {
    let payload = payload.get(..125).unwrap_or(payload);
    append(out, opcode, mask, |out| out.extend_from_slice(payload));
}

/// Appends a close frame; masked, where there is a key.
pub fn append_close(out: &mut BytesMut, mask: Option<[u8; 4]>, code: u16, reason: &str) {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    append_control(out, Opcode::Close, mask, &payload);
}

/// The first bytes of the frame of a whole message, and how much of the array they take.
#[inline]
fn head(opcode: Opcode, masked: bool, payload_bytes: usize) -> ([u8; 10], usize) {
    let mask_bit = u8::from(masked) << 7;
    let mut head = [0; 10];
    head[0] = 0x80 | opcode as u8;
    match payload_bytes {
        0..=125 => {
            head[1] = mask_bit | payload_bytes as u8;
            (head, 2)
        }
        126..=0xffff => {
            head[1] = mask_bit | 126;
            head[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
            (head, 4)
        }
        _ => {
            head[1] = mask_bit | 127;
            head[2..].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
            (head, 10)
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
    const MAX: usize = 1 << 20;

    /// A frame, put together by the letter of RFC 6455, section 5.2.
    fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
        let bit = if mask.is_some() { 0x80 } else { 0 };
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..=125 => frame.push(bit | length as u8),
            length @ 126..=0xffff => {
                frame.push(bit | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(bit | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        let Some(mask) = mask else { return [frame, payload.to_vec()].concat() };
        frame.extend(mask);
        frame.extend(payload.iter().enumerate().map(|(place, byte)| byte ^ mask[place % 4]));
        frame
    }

    fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        frame(first, payload, Some(mask))
    }

    fn of_client(bytes: &[u8], max: usize) -> Result<Option<Header>, Violation> {
        Header::parse(bytes, Sender::Client, max)
    }

    proptest! {
        #[test]
        fn a_frame_is_read_back(payload: Vec<u8>, mask: Option<[u8; 4]>, more: Vec<u8>) {
            let sender = if mask.is_some() { Sender::Client } else { Sender::Server };
            let mut bytes = frame(0x81, &payload, mask);
            let frame_bytes = bytes.len();
            bytes.extend(more);
            let header = Header::parse(&bytes, sender, MAX).unwrap().unwrap();
            prop_assert_eq!(header.frame_bytes, frame_bytes);
            apply_mask(&mut bytes[header.header_bytes..header.frame_bytes], header.mask);
            prop_assert_eq!(&bytes[header.header_bytes..header.frame_bytes], &payload);
            for cut in 0..header.header_bytes {
                prop_assert_eq!(Header::parse(&bytes[..cut], sender, MAX), Ok(None));
            }
        }

        #[test]
        fn a_frame_is_written_by_the_letter(
            length in prop_oneof![0..300_usize, 65_530..65_540_usize], mask: Option<[u8; 4]>, before: Vec<u8>
        ) {
            let payload: Vec<u8> = (0..length).map(|place| place as u8).collect();
            let mut out = BytesMut::from(&*before);
            append(&mut out, Opcode::Binary, mask, |out| out.extend_from_slice(&payload));
            prop_assert_eq!(&out[..], [before, frame(0x82, &payload, mask)].concat());
        }

        #[test]
        fn no_bytes_can_break_the_parser(bytes: Vec<u8>) {
            for sender in [Sender::Client, Sender::Server] {
                if let Ok(Some(header)) = Header::parse(&bytes, sender, MAX) {
                    prop_assert!(header.frame_bytes - header.header_bytes <= MAX);
                }
            }
        }
    }

    #[test]
    fn tungstenite_reads_our_frames_of_every_length() {
        for (role, mask) in [(Role::Client, None), (Role::Server, Some(MASK))] {
            for length in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
                let text = "x".repeat(length);
                let mut out = BytesMut::from(&b""[..]);
                append(&mut out, Opcode::Text, mask, |out| out.extend_from_slice(text.as_bytes()));
                append_control(&mut out, Opcode::Ping, mask, b"ping");
                append_close(&mut out, mask, 1001, "bye");
                let mut socket = WebSocket::from_raw_socket(std::io::Cursor::new(out.to_vec()), role, None);
                assert_eq!(socket.read().unwrap(), Message::text(text));
                assert_eq!(socket.read().unwrap(), Message::Ping("ping".into()));
                let Ok(Message::Close(Some(close))) = socket.read() else { panic!("{length}") };
                assert_eq!((u16::from(close.code), close.reason.as_str()), (1001, "bye"));
            }
        }
    }

    #[test]
    fn what_breaks_the_protocol_is_refused() {
        assert_eq!(of_client(&[0x81, 0x05], 100), Err(Violation::Unmasked));
        assert_eq!(Header::parse(&masked(0x81, b"x", MASK), Sender::Server, 100), Err(Violation::Masked));
        assert_eq!(of_client(&masked(0xc1, b"x", MASK), 100), Err(Violation::ReservedBit));
        assert_eq!(of_client(&masked(0x83, b"x", MASK), 100), Err(Violation::ReservedOpcode(3)));
        assert_eq!(of_client(&masked(0x09, b"x", MASK), 100), Err(Violation::FragmentedControl));
        assert_eq!(of_client(&masked(0x89, &[0; 126], MASK), 1000), Err(Violation::LongControl));
        let too_big = |bytes| Err(Violation::TooBig { bytes, limit: 100 });
        assert_eq!(of_client(&masked(0x81, &[0; 101], MASK), 100), too_big(101));
        for (length, expected) in [
            (i64::MAX as u64, too_big(i64::MAX as u64)),
            (u64::MAX, Err(Violation::LengthForm)),
            (0xffff, Err(Violation::LengthForm)),
        ] {
            let frame = [&[0x81, 0xff][..], &length.to_be_bytes()].concat();
            assert_eq!(of_client(&frame, 100), expected, "eight bytes for {length}");
        }
        assert_eq!(of_client(&[0x81, 0xfe, 0, 125], 1000), Err(Violation::LengthForm), "two bytes for 125");
    }
}
