//! Turns the bytes of one connection into messages: puts frames and fragments together.

use super::frame::{Header, Opcode, Sender, apply_mask};
use super::violation::Violation;

/// Something whole that the peer sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A ping, with what its pong must say.
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// The peer's goodbye, with its code, where it gave one, and its reason.
    Close(Option<u16>, &'a str),
}

/// The state of one connection's input between reads. It holds memory only while a frame or message is incomplete.
#[derive(Debug)]
pub struct Reader {
    /// Who sends what is read.
    sender: Sender,
    max_message_bytes: usize,
    /// The peer has sent its close frame, behind which nothing counts.
    closed: bool,
    /// The start of a frame whose rest has not come.
    partial: Vec<u8>,
    /// The pieces so far of a message that comes in several frames.
    fragments: Option<Box<Fragments>>,
}

#[derive(Debug)]
struct Fragments {
    opcode: Opcode,
    message: Vec<u8>,
    /// So much of a text is known to be UTF-8.
    checked_bytes: usize,
}

impl Reader {
    /// For what `sender` sends, in messages of at most `max_message_bytes`.
    #[must_use]
    pub fn new(sender: Sender, max_message_bytes: usize) -> Self {
        Self { sender, max_message_bytes, closed: false, partial: Vec::new(), fragments: None }
    }

    /// Hands every event that `bytes` completes to `handle`. Nothing behind a close frame is read.
    ///
    /// # Errors
    /// Where the peer broke the protocol; what came before that was handed over.
    #[inline]
    pub fn feed(&mut self, bytes: &mut [u8], mut handle: impl FnMut(Event<'_>)) -> Result<(), Violation> {
        let completed = if self.partial.is_empty() { 0 } else { self.complete(bytes, &mut handle)? };
        let mut at = completed;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty() && !self.closed) {
            let Some(header) = Header::parse(rest, self.sender, self.max_message_bytes)? else { break };
            let Some(payload) = rest.get_mut(header.header_bytes..header.frame_bytes) else { break };
            at += header.frame_bytes;
            self.frame(header, payload, &mut handle)?;
        }
        if !self.closed {
            self.partial.extend_from_slice(bytes.get(at..).unwrap_or_default());
        }
        Ok(())
    }

    /// Completes the frame of which a part has come; says how many bytes that took.
    fn complete(&mut self, bytes: &[u8], handle: &mut impl FnMut(Event<'_>)) -> Result<usize, Violation> {
        let mut taken = 0;
        loop {
            let header = Header::parse(&self.partial, self.sender, self.max_message_bytes)?;
            // A header is read byte by byte: it says how long the frame is, and nothing behind that is wanted here.
            let missing = header.map_or(1, |header| header.frame_bytes - self.partial.len());
            let rest = bytes.get(taken..).unwrap_or_default();
            let more = rest.get(..missing).unwrap_or(rest);
            self.partial.extend_from_slice(more);
            taken += more.len();
            match header {
                Some(header) if more.len() == missing => {
                    let mut partial = std::mem::take(&mut self.partial);
                    if let Some(payload) = partial.get_mut(header.header_bytes..header.frame_bytes) {
                        self.frame(header, payload, handle)?;
                    }
                    return Ok(taken);
                }
                _ if more.is_empty() => return Ok(taken),
                _ => {}
            }
        }
    }

    #[inline]
    fn frame(
        &mut self,
        header: Header,
        payload: &mut [u8],
        handle: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        if self.sender == Sender::Client {
            apply_mask(payload, header.mask);
        }
        match header.opcode {
            Opcode::Text if header.fin && self.fragments.is_none() => handle(Event::Text(text(payload)?)),
            Opcode::Binary if header.fin && self.fragments.is_none() => handle(Event::Binary(payload)),
            Opcode::Ping => handle(Event::Ping(payload)),
            Opcode::Pong => handle(Event::Pong),
            Opcode::Close => {
                let (code, reason) = close(payload)?;
                self.closed = true;
                handle(Event::Close(code, reason));
            }
            Opcode::Text | Opcode::Binary | Opcode::Continuation => self.fragment(header, payload, handle)?,
        }
        Ok(())
    }

    #[cold]
    fn fragment(
        &mut self,
        header: Header,
        payload: &[u8],
        handle: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        let mut fragments = match (header.opcode, self.fragments.take()) {
            (Opcode::Continuation, Some(fragments)) => fragments,
            (Opcode::Continuation, None) => return Err(Violation::NothingToContinue),
            (_, Some(_)) => return Err(Violation::Interrupted),
            (opcode, None) => Box::new(Fragments { opcode, message: Vec::new(), checked_bytes: 0 }),
        };
        let bytes = fragments.message.len() + payload.len();
        if bytes > self.max_message_bytes {
            return Err(Violation::TooBig { bytes: bytes as u64, limit: self.max_message_bytes });
        }
        fragments.message.extend_from_slice(payload);
        if fragments.opcode == Opcode::Text {
            fragments.check()?;
        }
        if !header.fin {
            self.fragments = Some(fragments);
            return Ok(());
        }
        match fragments.opcode {
            Opcode::Text => handle(Event::Text(text(&fragments.message)?)),
            _ => handle(Event::Binary(&fragments.message)),
        }
        Ok(())
    }
}

impl Fragments {
    /// Checks what has come; a character may be cut between two fragments.
    fn check(&mut self) -> Result<(), Violation> {
        let new = self.message.get(self.checked_bytes..).unwrap_or_default();
        match std::str::from_utf8(new) {
            Ok(_) => self.checked_bytes = self.message.len(),
            Err(error) if error.error_len().is_none() => self.checked_bytes += error.valid_up_to(),
            Err(_) => return Err(Violation::NotUtf8),
        }
        Ok(())
    }
}

#[inline]
fn text(payload: &[u8]) -> Result<&str, Violation> {
    std::str::from_utf8(payload).map_err(|_| Violation::NotUtf8)
}

/// What a close frame says.
fn close(payload: &[u8]) -> Result<(Option<u16>, &str), Violation> {
    let &[high, low, ref reason @ ..] = payload else {
        return if payload.is_empty() { Ok((None, "")) } else { Err(Violation::HalfCloseCode) };
    };
    let code = u16::from_be_bytes([high, low]);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::CloseCode(code));
    }
    Ok((Some(code), text(reason)?))
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
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, Result<(), Violation>) {
        read_from(Sender::Client, pieces)
    }

    fn read_from<'a>(
        sender: Sender,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Vec<String>, Result<(), Violation>) {
        let mut reader = Reader::new(sender, MAX);
        let mut events = Vec::new();
        for piece in pieces {
            let fed = reader.feed(&mut piece.to_vec(), |event| events.push(format!("{event:?}")));
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
            let _ = read_from(Sender::Server, bytes.chunks(size));
        }

        /// A mask is all that sets a client's frames apart from a server's.
        #[test]
        fn both_senders_are_understood_alike(
            frames in prop::collection::vec(("[a-z]{0,40}", any::<bool>()), 0..8), size in 1..50_usize
        ) {
            let first = |text: bool| if text { 0x81 } else { 0x82 };
            let of_client: Vec<u8> =
                frames.iter().flat_map(|(payload, text)| masked(first(*text), payload.as_bytes())).collect();
            let plain = |payload: &str, text| [&[first(text), payload.len() as u8], payload.as_bytes()].concat();
            let of_server: Vec<u8> = frames.iter().flat_map(|(payload, text)| plain(payload, *text)).collect();
            prop_assert_eq!(read_from(Sender::Server, of_server.chunks(size)), read(of_client.chunks(size)));
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
        assert_eq!(read([masked(0x81, b"\xc3").as_slice()]), (vec![], Err(Violation::NotUtf8)));
    }

    #[test]
    fn fragments_out_of_place_and_over_the_limit_are_refused() {
        let continued = masked(0x80, b"x");
        assert_eq!(read([continued.as_slice()]), (vec![], Err(Violation::NothingToContinue)));
        let interrupted = [masked(0x01, b"x"), masked(0x81, b"y")].concat();
        assert_eq!(read([interrupted.as_slice()]), (vec![], Err(Violation::Interrupted)));
        let long = [masked(0x01, &[b'x'; 40]), masked(0x80, &[b'x'; 40])].concat();
        let too_big = Violation::TooBig { bytes: 80, limit: MAX };
        assert_eq!(read([long.as_slice()]), (vec![], Err(too_big)));
    }

    #[test]
    fn fragments_of_a_text_are_checked_as_they_come() {
        let bytes = [masked(0x01, b"\xc3"), masked(0x00, b"\xa9\xf0"), masked(0x00, b"\xff")].concat();
        assert_eq!(read([bytes.as_slice()]), (vec![], Err(Violation::NotUtf8)));
    }

    #[test]
    fn close_payloads_are_checked() {
        assert_eq!(close(b""), Ok((None, "")));
        assert_eq!(close(b"\x03\xe8bye"), Ok((Some(1000), "bye")));
        for (payload, violation) in [
            (b"\x03" as &[u8], Violation::HalfCloseCode),
            (b"\x03\xed", Violation::CloseCode(1005)),
            (b"\x00\x00", Violation::CloseCode(0)),
            (b"\x03\xe8\xff", Violation::NotUtf8),
        ] {
            assert_eq!(close(payload), Err(violation), "{payload:?}");
        }
    }
}
