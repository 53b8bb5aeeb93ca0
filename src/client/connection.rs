//! One WebSocket, as long as it lives: a state machine over any byte stream, any clock and any dialect.
//!
//! It is driven when bytes came, when a message is due and when its socket has room again. Each time it reads all that
//! is there, then sends all that is due with one write. While the socket is full it keeps reading, and notes that the
//! messages coming due meanwhile were held up by the server and not by the generator.

use std::mem::{swap, take};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::account::{Account, Outgoing};
use super::dial::Socket;
use super::pulse::{Beat, Pulse};
use super::report::End;
use super::shared::Shared;
use super::transport::{Tapped, Transport};
use crate::clock::Clock;
use crate::dialect::{Frame, FrameKind, Session};
use crate::message::WallTime;
use crate::retry::PingPolicy;
use crate::websocket::{Event, Opcode, Reader, Sender, append, append_control};

/// Read before what it makes room for is sent, and others get their turn: little enough that the server has work again
/// while the rest of a large window is read.
const READ_BYTES: usize = 16 * 1024;
/// A batch ends at this many messages or bytes, whichever comes first: enough to make the system call's share small,
/// little enough that its last message is not held up by encoding the others.
const BATCH_MESSAGES: usize = 256;
const BATCH_BYTES: usize = 64 * 1024;
/// Batches sent before others get their turn.
const BATCHES_PER_TURN: usize = 4;
/// What an answer may weigh: the largest payload, echoed with every character escaped, fits.
pub(super) const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Why a dialect's own mistake ends a connection.
const NOT_UTF8: &str = "this dialect made text that is not UTF-8, which cannot be sent";

/// A message that was encoded and has not left for the kernel yet.
#[derive(Debug, Clone, Copy)]
struct Queued {
    outgoing: Outgoing,
    /// Where its first byte stands among all bytes of this stream.
    offset: u64,
}

/// Buffers that serve a worker's connections in turn, so that an idle connection needs none.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// What was read.
    input: Vec<u8>,
    /// What is to be written.
    out: BytesMut,
    /// The messages in it.
    batch: Vec<Queued>,
}

/// A WebSocket under load.
pub(super) struct Connection<S: Transport, C: Clock + Unpin> {
    stream: Tapped<S, C>,
    reader: Reader,
    /// What came with the handshake's answer.
    early: Vec<u8>,
    /// What the socket has not taken yet.
    out: BytesMut,
    /// What has been queued since the socket last took everything; `confirmed` of them have left.
    batch: Vec<Queued>,
    confirmed: usize,
    /// Whether the stream holds bytes that a flush must push on.
    flushing: bool,
    /// What the latest ping wants back: no more of several need be answered (RFC 6455, section 5.5.3).
    pong: Option<Box<[u8]>>,
    goodbye: Goodbye,
    pulse: Option<Box<Pulse>>,
    /// Whether the peer ever said something but goodbye.
    heard: bool,
}

/// How far a connection is with its close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goodbye {
    /// It is to be sent, with this code.
    Unsaid(Option<u16>),
    /// It is among what is to be written, or was.
    Said,
}

impl<S: Transport, C: Clock + Unpin> Connection<S, C> {
    /// Must be made where tokio's timers work.
    pub(super) fn new(socket: Socket<S, C>, ping: Option<PingPolicy>) -> Self {
        let Socket { stream, early } = socket;
        Self {
            stream,
            reader: Reader::new(Sender::Server, MAX_ANSWER_BYTES),
            early,
            out: BytesMut::new(),
            batch: Vec::new(),
            confirmed: 0,
            flushing: false,
            pong: None,
            goodbye: Goodbye::Unsaid(None),
            pulse: ping.map(|ping| Box::new(Pulse::new(ping))),
            heard: false,
        }
    }

    /// Whether the peer ever said something but goodbye.
    pub(super) fn heard(&self) -> bool {
        self.heard
    }

    /// Says goodbye, as far as the peer lets us. Behind messages that have not left there is none: it would push them out,
    /// after they were reported as unsent.
    pub(super) fn poll_close(&mut self, shared: &Shared<C>, cx: &mut Context<'_>) -> Poll<()> {
        if self.confirmed < self.batch.len() {
            return Poll::Ready(());
        }
        if let Goodbye::Unsaid(code) = self.goodbye {
            self.goodbye = Goodbye::Said;
            let mask = shared.masks.borrow_mut().next_key();
            let code = code.map(u16::to_be_bytes);
            append_control(
                &mut self.out,
                Opcode::Close,
                Some(mask),
                code.as_ref().map_or(&[], |code| &code[..]),
            );
        }
        // Where that fails, there is nobody to say it to.
        self.poll_out(cx).map(drop)
    }

    /// Reads and sends what there is, until nothing more can be done now; the reason where it is lost.
    pub(super) fn exchange<D: Session>(
        &mut self,
        account: &mut Account<C, D>,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        let mut scratch = account.shared.scratch.take();
        self.borrow(&mut scratch);
        let exchanged = self.try_exchange(account, &mut scratch.input, cx);
        if exchanged.is_err() {
            // Whatever failed may have come after some of it had left.
            self.confirm(account);
        }
        self.give_back(&mut scratch);
        account.shared.scratch.set(scratch);
        exchanged
    }

    /// Takes the worker's buffers where this connection has none in use.
    fn borrow(&mut self, scratch: &mut Scratch) {
        if self.out.is_empty() {
            swap(&mut self.out, &mut scratch.out);
        }
        if self.batch.is_empty() {
            swap(&mut self.batch, &mut scratch.batch);
        }
    }

    /// Gives them back, and what else is no longer in use.
    fn give_back(&mut self, scratch: &mut Scratch) {
        if self.out.is_empty() {
            scratch.out = take(&mut self.out);
        }
        if self.batch.is_empty() {
            scratch.batch = take(&mut self.batch);
        }
    }

    fn try_exchange<D: Session>(
        &mut self,
        account: &mut Account<C, D>,
        input: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        let received = self.receive(account, input, cx);
        // Also what came just before the end ends an outage.
        account.settle(self.stream.read_ns());
        received?;
        self.feel_pulse(account, cx)?;
        self.transmit(account, cx)
    }

    fn receive<D: Session>(
        &mut self,
        account: &mut Account<C, D>,
        input: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        if !self.early.is_empty() {
            let mut early = take(&mut self.early);
            self.hear(account, &mut early)?;
        }
        input.resize(READ_BYTES, 0);
        let mut read_bytes = 0;
        while read_bytes < READ_BYTES {
            let mut buffer = ReadBuf::new(input);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(End::lost(&error)),
                Poll::Ready(Ok(())) => {}
            }
            let bytes = buffer.filled_mut();
            if bytes.is_empty() {
                return Err(End::dropped("connection lost without a close frame"));
            }
            read_bytes += bytes.len();
            self.hear(account, bytes)?;
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn hear<D: Session>(&mut self, account: &mut Account<C, D>, bytes: &mut [u8]) -> Result<(), End> {
        let received_ns = self.stream.read_ns();
        let Self { reader, heard, pong, .. } = self;
        let mut closed = None;
        let fed = reader.feed(bytes, |event| {
            match event {
                Event::Text(text) => account.receive(Frame::Text(text), received_ns),
                Event::Binary(bytes) => account.receive(Frame::Binary(bytes), received_ns),
                Event::Ping(payload) => *pong = Some(payload.into()),
                Event::Pong => {}
                Event::Close(code, reason) => {
                    closed = Some((code, End::closed(code, &account.shared.secrets.excerpt(reason))));
                    return;
                }
            }
            *heard = true;
        });
        if let Err(violation) = fed {
            account.corrupted();
            // Who fails a connection says why, if it can (RFC 6455, section 7.1.7). It is sent on closing.
            self.goodbye = Goodbye::Unsaid(Some(violation.code().number()));
            return Err(End::violated(violation));
        }
        if let Some(reason) = account.session.ended() {
            return Err(End::dropped(account.shared.secrets.excerpt(&reason)));
        }
        match closed {
            Some((code, end)) => {
                self.goodbye = Goodbye::Unsaid(code);
                Err(end)
            }
            None => Ok(()),
        }
    }

    /// Pings the peer when it is time; an error where it has been silent for too long.
    fn feel_pulse<D: Session>(&mut self, account: &Account<C, D>, cx: &mut Context<'_>) -> Result<(), End> {
        let Some(pulse) = &mut self.pulse else { return Ok(()) };
        let read_ns = self.stream.read_ns();
        let shared = &account.shared;
        let silent_for = || Duration::from_nanos(shared.clock.now_ns().saturating_sub(read_ns));
        while let Poll::Ready(beat) = pulse.poll(cx, silent_for) {
            match beat {
                Beat::Ping => {
                    let mask = shared.masks.borrow_mut().next_key();
                    append_control(&mut self.out, Opcode::Ping, Some(mask), b"");
                }
                Beat::Dead => return Err(End::silent(pulse.dead_after())),
            }
        }
        Ok(())
    }

    fn transmit<D: Session>(&mut self, account: &mut Account<C, D>, cx: &mut Context<'_>) -> Result<(), End> {
        if let Some(payload) = self.pong.take() {
            let mask = account.shared.masks.borrow_mut().next_key();
            append_control(&mut self.out, Opcode::Pong, Some(mask), &payload);
        }
        self.reply(account)?;
        if self.is_flushing() && self.flush(account, cx)?.is_pending() {
            account.note_blocked();
            return Ok(());
        }
        for _ in 0..BATCHES_PER_TURN {
            self.fill(account)?;
            if self.batch.is_empty() {
                return Ok(());
            }
            if self.flush(account, cx)?.is_pending() {
                account.note_blocked();
                return Ok(());
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Encodes what the dialect owes the peer.
    #[inline]
    fn reply<D: Session>(&mut self, account: &mut Account<C, D>) -> Result<(), End> {
        while let Some(payload) = account.session.owed() {
            let kind = account.session.frame_kind();
            if kind == FrameKind::Text && std::str::from_utf8(&payload).is_err() {
                return Err(End::dropped(NOT_UTF8));
            }
            let mask = account.shared.masks.borrow_mut().next_key();
            append(&mut self.out, opcode_of(kind), Some(mask), |out| out.extend_from_slice(&payload));
        }
        Ok(())
    }

    /// Encodes what is due, up to a batch.
    fn fill<D: Session>(&mut self, account: &mut Account<C, D>) -> Result<(), End> {
        let shared = std::rc::Rc::clone(&account.shared);
        let mut masks = shared.masks.borrow_mut();
        let mut wall = None;
        let written_bytes = self.stream.written_bytes();
        while self.batch.len() < BATCH_MESSAGES && self.out.len() < BATCH_BYTES {
            let Some(outgoing) = account.next_message() else {
                break;
            };
            let wall =
                *wall.get_or_insert_with(|| WallTime::from_unix_ns(shared.unix_ns(shared.clock.now_ns())));
            let offset = written_bytes + self.out.len() as u64;
            self.batch.push(Queued { outgoing, offset });
            let session = &mut account.session;
            let mut sound = true;
            let kind = session.frame_kind();
            append(&mut self.out, opcode_of(kind), Some(masks.next_key()), |out| {
                let payload_at = out.len();
                session.encode(outgoing.sequence, wall, out);
                let payload = out.get(payload_at..).unwrap_or_default();
                // Nearly all is ASCII, and that is found out in half the time.
                sound =
                    kind == FrameKind::Binary || payload.is_ascii() || std::str::from_utf8(payload).is_ok();
            });
            if !sound {
                // Nothing of it leaves, nor of what was to leave with it.
                self.out.clear();
                return Err(End::dropped(NOT_UTF8));
            }
        }
        Ok(())
    }

    fn is_flushing(&self) -> bool {
        self.flushing || !self.out.is_empty()
    }

    fn flush<D: Session>(
        &mut self,
        account: &mut Account<C, D>,
        cx: &mut Context<'_>,
    ) -> Result<Poll<()>, End> {
        let polled = self.poll_out(cx);
        self.confirm(account);
        match polled {
            Poll::Ready(Ok(())) => {
                self.batch.clear();
                self.confirmed = 0;
                account.unblocked(self.stream.write_ns());
                Ok(Poll::Ready(()))
            }
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Err(error)) => Err(End::lost(&error)),
        }
    }

    /// Writes what there is, and flushes the stream.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.out.is_empty() {
            self.flushing = true;
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                written if written == self.out.len() => self.out.clear(),
                written => self.out.advance(written),
            }
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.flushing = false;
        Poll::Ready(Ok(()))
    }

    /// Every queued message whose first byte was written has left.
    fn confirm<D: Session>(&mut self, account: &mut Account<C, D>) {
        let written_bytes = self.stream.written_bytes();
        let leaving = self.batch.get(self.confirmed..).unwrap_or_default();
        let leaving = leaving.iter().take_while(|queued| queued.offset < written_bytes);
        let confirmed = &mut self.confirmed;
        let leaving = leaving.map(|queued| queued.outgoing).inspect(|_| *confirmed += 1);
        account.sent(leaving, self.stream.write_ns());
    }
}

/// How a message of that kind travels.
pub(super) fn opcode_of(kind: FrameKind) -> Opcode {
    match kind {
        FrameKind::Text => Opcode::Text,
        FrameKind::Binary => Opcode::Binary,
    }
}
