//! Turns the bytes of one connection into messages: puts frames and fragments together.

use super::frame::{CloseCode, Header, Opcode, close_code, unmask};

/// Something whole that the peer sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    Text(&'a str),
    Binary,
    Ping(&'a [u8]),
    Pong,
    /// With the peer's code, where it gave one.
    Close(Option<u16>),
}

/// The state of one connection's input between reads. It holds memory only while a frame or message is incomplete.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The start of a frame whose rest has not come.
    partial: Vec<u8>,
    /// The pieces so far of a message that comes in several frames.
    fragments: Option<(Opcode, Vec<u8>)>,
    /// The peer has sent its close frame, behind which nothing counts.
    closed: bool,
}

impl Reader {
    /// Hands every event that `bytes` completes to `handle`. Nothing behind a close frame is read.
    ///
    /// # Errors
    /// With the code to close with, where the peer broke the protocol.
    pub(super) fn feed(
        &mut self,
        bytes: &mut [u8],
        max_message_bytes: usize,
        mut handle: impl FnMut(Event<'_>),
    ) -> Result<(), CloseCode> {
        if self.closed {
            return Ok(());
        }
        if self.partial.is_empty() {
            let used = self.frames(bytes, max_message_bytes, &mut handle)?;
            self.partial.extend_from_slice(bytes.get(used..).unwrap_or_default());
            return Ok(());
        }
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(bytes);
        let used = self.frames(&mut partial, max_message_bytes, &mut handle)?;
        if used < partial.len() {
            partial.drain(..used);
            self.partial = partial;
        }
        Ok(())
    }

    /// Reads whole frames; says how many bytes they took.
    fn frames(
        &mut self,
        bytes: &mut [u8],
        max_message_bytes: usize,
        handle: &mut impl FnMut(Event<'_>),
    ) -> Result<usize, CloseCode> {
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..) {
            let Some(header) = Header::parse(rest, max_message_bytes)? else { break };
            let Some(payload) = rest.get_mut(header.header_bytes..header.frame_bytes) else { break };
            unmask(payload, header.mask);
            at += header.frame_bytes;
            self.frame(header, payload, max_message_bytes, handle)?;
            if header.opcode == Opcode::Close {
                self.closed = true;
                return Ok(bytes.len());
            }
        }
        Ok(at)
    }

    fn frame(
        &mut self,
        header: Header,
        payload: &[u8],
        max_message_bytes: usize,
        handle: &mut impl FnMut(Event<'_>),
    ) -> Result<(), CloseCode> {
        match header.opcode {
            Opcode::Text | Opcode::Binary if self.fragments.is_some() => {
                return Err(CloseCode::ProtocolError);
            }
            Opcode::Text if header.fin => handle(Event::Text(text(payload)?)),
            Opcode::Binary if header.fin => handle(Event::Binary),
            Opcode::Text | Opcode::Binary => self.fragments = Some((header.opcode, payload.to_vec())),
            Opcode::Continuation => {
                let (opcode, mut message) = self.fragments.take().ok_or(CloseCode::ProtocolError)?;
                if message.len() + payload.len() > max_message_bytes {
                    return Err(CloseCode::TooBig);
                }
                message.extend_from_slice(payload);
                match (header.fin, opcode) {
                    (false, _) => self.fragments = Some((opcode, message)),
                    (true, Opcode::Text) => handle(Event::Text(text(&message)?)),
                    (true, _) => handle(Event::Binary),
                }
            }
            Opcode::Ping => handle(Event::Ping(payload)),
            Opcode::Pong => handle(Event::Pong),
            Opcode::Close => handle(Event::Close(close_code(payload)?)),
        }
        Ok(())
    }
}

fn text(payload: &[u8]) -> Result<&str, CloseCode> {
    std::str::from_utf8(payload).map_err(|_| CloseCode::InvalidData)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 64;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first, 0x80 | payload.len() as u8, 9, 8, 7, 6];
        frame.extend(payload.iter().zip([9, 8, 7, 6].iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// What a reader says to bytes that come in the given pieces.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, Result<(), CloseCode>) {
        let mut reader = Reader::default();
        let mut events = Vec::new();
        for piece in pieces {
            let fed = reader.feed(&mut piece.to_vec(), MAX, |event| events.push(format!("{event:?}")));
            if fed.is_err() {
                return (events, fed);
            }
        }
        (events, Ok(()))
    }

    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![0x80..=0x82_u8, 0x00..=0x02_u8, 0x88..=0x8a_u8, any::<u8>()];
        prop::collection::vec((first, "[a-z]{0,40}"), 0..8).prop_map(|frames| {
            frames.iter().flat_map(|(first, payload)| masked(*first, payload.as_bytes())).collect()
        })
    }

    proptest! {
        /// However the network cuts the bytes, the events are the same.
        #[test]
        fn the_cuts_do_not_matter(bytes in frames(), size in 1..50_usize) {
            prop_assert_eq!(read(bytes.chunks(size)), read([bytes.as_slice()]));
        }

        #[test]
        fn no_bytes_can_break_the_reader(bytes: Vec<u8>, size in 1..50_usize) {
            let _ = read(bytes.chunks(size));
        }
    }

    #[test]
    fn pieces_make_one_message_with_a_ping_between() {
        let bytes =
            [masked(0x01, b"he"), masked(0x89, b"p"), masked(0x00, b"l"), masked(0x80, b"lo")].concat();
        let events = vec![format!("{:?}", Event::Ping(b"p")), format!("{:?}", Event::Text("hello"))];
        assert_eq!(read([bytes.as_slice()]), (events, Ok(())));
    }

    #[test]
    fn a_character_may_be_cut_between_fragments_but_not_at_the_end() {
        let whole = [masked(0x01, b"\xc3"), masked(0x80, b"\xa9")].concat();
        assert_eq!(read([whole.as_slice()]), (vec![format!("{:?}", Event::Text("é"))], Ok(())));
        assert_eq!(read([masked(0x81, b"\xc3").as_slice()]), (vec![], Err(CloseCode::InvalidData)));
    }

    #[test]
    fn fragments_out_of_place_and_over_the_limit_are_refused() {
        let continued = masked(0x80, b"x");
        assert_eq!(read([continued.as_slice()]), (vec![], Err(CloseCode::ProtocolError)));
        let interrupted = [masked(0x01, b"x"), masked(0x81, b"y")].concat();
        assert_eq!(read([interrupted.as_slice()]), (vec![], Err(CloseCode::ProtocolError)));
        let long = [masked(0x01, &[b'x'; 40]), masked(0x80, &[b'x'; 40])].concat();
        assert_eq!(read([long.as_slice()]), (vec![], Err(CloseCode::TooBig)));
    }
}
