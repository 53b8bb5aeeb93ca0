//! Frames as they stand on the wire, written and read by the letter of section 5.2 and by nothing of ours.

use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;

pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;
/// The first, a middle and the last fragment of a text.
pub const FIRST: u8 = 0x01;
pub const MIDDLE: u8 = 0x00;
pub const LAST: u8 = 0x80;

/// The mask of the RFC's own example (section 5.7).
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// In how many bytes a length is written.
#[derive(Debug, Clone, Copy)]
pub enum Length {
    Seven,
    Sixteen,
    SixtyFour,
}

impl Length {
    /// The shortest that `bytes` fits.
    fn minimal(bytes: usize) -> Self {
        match bytes {
            0..=125 => Self::Seven,
            126..=0xffff => Self::Sixteen,
            _ => Self::SixtyFour,
        }
    }
}

/// The start of a frame that announces `bytes` of payload, without the mask.
pub fn head(first: u8, masked: bool, length: Length, bytes: u64) -> Vec<u8> {
    let mask_bit = u8::from(masked) << 7;
    let mut head = vec![first];
    match length {
        Length::Seven => head.push(mask_bit | bytes as u8),
        Length::Sixteen => {
            head.push(mask_bit | 126);
            head.extend((bytes as u16).to_be_bytes());
        }
        Length::SixtyFour => {
            head.push(mask_bit | 127);
            head.extend(bytes.to_be_bytes());
        }
    }
    head
}

/// A client's frame with a length of a given form and a mask of one's own.
pub fn masked_as(first: u8, length: Length, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = head(first, true, length, payload.len() as u64);
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A client's frame.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    masked_as(first, Length::minimal(payload.len()), MASK, payload)
}

/// A server's frame.
pub fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
    let head = head(first, false, Length::minimal(payload.len()), payload.len() as u64);
    [&head, payload].concat()
}

/// A text with a byte in each fragment, and empty ones at the ends, in frames that `frame` makes.
pub fn byte_by_byte(frame: fn(u8, &[u8]) -> Vec<u8>, text: &[u8]) -> Vec<u8> {
    let middle = text.iter().flat_map(|&byte| frame(MIDDLE, &[byte])).collect();
    [frame(FIRST, b""), middle, frame(LAST, b"")].concat()
}

/// The payload of a close frame.
pub fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

/// A frame that was read, unmasked.
#[derive(PartialEq, Eq, Clone)]
pub struct Seen {
    pub first: u8,
    pub mask: Option<[u8; 4]>,
    pub payload: Vec<u8>,
}

impl Seen {
    /// The code of a close frame, where it has one.
    pub fn close_code(&self) -> Option<u16> {
        let code = self.payload.first_chunk::<2>().filter(|_| self.first == CLOSE)?;
        Some(u16::from_be_bytes(*code))
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = String::from_utf8_lossy(&self.payload[..self.payload.len().min(80)]);
        write!(f, "{:#04x} of {} bytes: {shown:?}", self.first, self.payload.len())
    }
}

/// Reads one frame; `None` where the stream ends instead, in order or not. Fails the test where its length is not in
/// the shortest form, and where it ends in the middle.
pub fn read_frame(stream: &mut impl Read) -> Option<Seen> {
    let mut start = [0; 2];
    if let Err(error) = stream.read_exact(&mut start) {
        assert!(
            !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
            "{error}"
        );
        return None;
    }
    let [first, second] = start;
    let bytes = match second & 0x7f {
        126 => {
            let bytes = usize::from(u16::from_be_bytes(read_array(stream)));
            assert!(bytes > 125, "{bytes} in 16 bits");
            bytes
        }
        127 => {
            let bytes = u64::from_be_bytes(read_array(stream));
            assert!((65_536..1 << 30).contains(&bytes), "{bytes} in 64 bits");
            bytes as usize
        }
        bytes => usize::from(bytes),
    };
    let mask = (second & 0x80 != 0).then(|| read_array::<4>(stream));
    let mut payload = vec![0; bytes];
    stream.read_exact(&mut payload).unwrap();
    for (byte, mask) in payload.iter_mut().zip(mask.unwrap_or_default().iter().cycle()) {
        *byte ^= mask;
    }
    Some(Seen { first, mask, payload })
}

fn read_array<const N: usize>(stream: &mut impl Read) -> [u8; N] {
    let mut array = [0; N];
    stream.read_exact(&mut array).unwrap();
    array
}

/// Reads the head of a request or a response, and nothing behind it; what there is where the stream ends first.
pub fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

/// Sends it, where the peer still takes it: one that has seen enough may be gone.
pub fn send(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}
