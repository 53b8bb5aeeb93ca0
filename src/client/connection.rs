//! One WebSocket, as long as it lives: a state machine over any byte stream, any clock and any dialect.
//!
//! It is driven when bytes came, when a message is due and when its socket has room again. Each time it reads all that
//! is there, then sends all that is due with one flush. While the socket is full it keeps reading, and notes that the
//! messages coming due meanwhile were held up by the server and not by the generator.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{Sink, Stream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::account::{Account, Outgoing};
use super::pulse::{Beat, Pulse};
use super::report::{End, violation};
use super::transport::{Tapped, Transport};
use crate::clock::Clock;
use crate::dialect::{Frame, FrameKind, Session};
use crate::message::WallTime;
use crate::retry::PingPolicy;

/// Messages read before what they make room for is sent, and others get their turn. Few enough that the server has work
/// again while the rest of a large window is read: at one connection with 256 unanswered, 64 do twice what 512 did.
const READS_PER_POLL: usize = 64;
/// A batch ends at this many messages or bytes, whichever comes first: enough to make the system call's share small,
/// little enough that its last message is not held up by encoding the others.
const BATCH_MESSAGES: usize = 256;
const BATCH_BYTES: usize = 64 * 1024;
/// Batches sent before others get their turn.
const BATCHES_PER_POLL: usize = 4;

/// A message that was handed to the WebSocket layer and has not left for the kernel yet.
#[derive(Debug, Clone, Copy)]
struct Queued {
    outgoing: Outgoing,
    /// Where its first byte stands among all bytes of this stream.
    offset: u64,
}

/// A WebSocket under load.
pub(super) struct Connection<S: Transport, C: Clock + Unpin> {
    ws: WebSocketStream<Tapped<S, C>>,
    pulse: Option<Pulse>,
    /// What has been queued since the socket last took everything; `confirmed` of them have left.
    batch: Vec<Queued>,
    confirmed: usize,
    /// Whether the WebSocket layer holds bytes that a flush must push on.
    flushing: bool,
    /// Bytes queued on this stream so far, comparable with what the tap saw leave.
    queued_bytes: u64,
    /// Whether the peer ever said something but goodbye.
    heard: bool,
}

impl<S: Transport, C: Clock + Unpin> Connection<S, C> {
    /// Must be made where tokio's timers work.
    pub(super) fn new(ws: WebSocketStream<Tapped<S, C>>, ping: Option<PingPolicy>) -> Self {
        let queued_bytes = ws.get_ref().written_bytes();
        Self {
            ws,
            pulse: ping.map(Pulse::new),
            batch: Vec::new(),
            confirmed: 0,
            flushing: false,
            queued_bytes,
            heard: false,
        }
    }

    /// Whether the peer ever said something but goodbye.
    pub(super) fn heard(&self) -> bool {
        self.heard
    }

    /// Says goodbye, as far as the peer lets us. Behind messages that have not left there is none: it would push them out,
    /// after they were reported as unsent.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.confirmed < self.batch.len() {
            return Poll::Ready(());
        }
        Pin::new(&mut self.ws).poll_close(cx).map(drop)
    }

    /// Reads and sends what there is, until nothing more can be done now; the reason where it is lost.
    pub(super) fn exchange<D: Session>(
        &mut self,
        account: &mut Account<C, D>,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        let exchanged = self.try_exchange(account, cx);
        if exchanged.is_err() {
            // Whatever failed may have pushed on what was queued before it did.
            self.confirm(account, self.ws.get_ref().written_bytes());
        }
        exchanged
    }

    fn try_exchange<D: Session>(
        &mut self,
        account: &mut Account<C, D>,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        let received = self.receive(account, cx);
        // Also what came just before the end ends an outage.
        account.settle(self.ws.get_ref().read_ns());
        received?;
        self.feel_pulse(account, cx)?;
        self.transmit(account, cx)
    }

    fn receive<D: Session>(&mut self, account: &mut Account<C, D>, cx: &mut Context<'_>) -> Result<(), End> {
        for _ in 0..READS_PER_POLL {
            match Pin::new(&mut self.ws).poll_next(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Ok(message))) => self.message(account, message)?,
                Poll::Ready(Some(Err(error))) => {
                    if let Some(code) = violation(&error) {
                        account.corrupted();
                        // Who fails a connection says why, if it can (RFC 6455, section 7.1.7). It is sent on closing.
                        let frame = CloseFrame { code, reason: Utf8Bytes::default() };
                        let _ = Pin::new(&mut self.ws).start_send(Message::Close(Some(frame)));
                    }
                    return Err(End::of(&error));
                }
                Poll::Ready(None) => return Err(End::dropped("the server closed the connection")),
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn message<D: Session>(&mut self, account: &mut Account<C, D>, message: Message) -> Result<(), End> {
        if self.confirmed < self.batch.len() {
            // Reading may have pushed on what was queued, for the sake of a pong: it has left before its answer came.
            self.confirm(account, self.ws.get_ref().written_bytes());
        }
        let received_ns = self.ws.get_ref().read_ns();
        match message {
            Message::Text(text) => self.received(account, Frame::Text(&text), received_ns)?,
            Message::Binary(bytes) => self.received(account, Frame::Binary(&bytes), received_ns)?,
            // The WebSocket layer has queued the pong.
            Message::Ping(_) => self.flushing = true,
            Message::Pong(_) | Message::Frame(_) => {}
            Message::Close(frame) => {
                // By the code alone: the text beside it is whatever the peer likes.
                let refused = frame.as_ref().is_some_and(|frame| frame.code == CloseCode::Again);
                let reason = frame.map_or_else(
                    || "closed by the server without a code".to_owned(),
                    |frame| format!("closed by the server: {} {}", u16::from(frame.code), frame.reason),
                );
                return Err(End { refused, reason: reason.trim_end().to_owned() });
            }
        }
        self.heard = true;
        Ok(())
    }

    #[inline]
    fn received<D: Session>(
        &mut self,
        account: &mut Account<C, D>,
        frame: Frame<'_>,
        received_ns: u64,
    ) -> Result<(), End> {
        account.receive(frame, received_ns);
        account.session.ended().map_or(Ok(()), |reason| Err(End::dropped(reason)))
    }

    /// Pings the peer when it is time; an error where it has been silent for too long.
    fn feel_pulse<D: Session>(&mut self, account: &Account<C, D>, cx: &mut Context<'_>) -> Result<(), End> {
        let Some(pulse) = &mut self.pulse else { return Ok(()) };
        let read_ns = self.ws.get_ref().read_ns();
        let clock = &account.shared.clock;
        let silent_for = || Duration::from_nanos(clock.now_ns().saturating_sub(read_ns));
        while let Poll::Ready(beat) = pulse.poll(cx, silent_for) {
            match beat {
                Beat::Ping => {
                    self.flushing = true;
                    self.queued_bytes += masked_frame_bytes(0);
                    let ping = Message::Ping(Bytes::new());
                    Pin::new(&mut self.ws).start_send(ping).map_err(|error| End::of(&error))?;
                }
                Beat::Dead => return Err(End::silent(pulse.dead_after())),
            }
        }
        Ok(())
    }

    fn transmit<D: Session>(&mut self, account: &mut Account<C, D>, cx: &mut Context<'_>) -> Result<(), End> {
        if self.flushing && self.flush(account, cx)?.is_pending() {
            account.note_blocked();
            return Ok(());
        }
        if self.reply(account)? && self.flush(account, cx)?.is_pending() {
            account.note_blocked();
            return Ok(());
        }
        for _ in 0..BATCHES_PER_POLL {
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

    /// Queues what the dialect owes the peer; whether there was any.
    #[inline]
    fn reply<D: Session>(&mut self, account: &mut Account<C, D>) -> Result<bool, End> {
        let mut owed = false;
        while let Some(payload) = account.session.owed() {
            owed = true;
            self.queued_bytes += masked_frame_bytes(payload.len());
            self.flushing = true;
            let message = to_message(account.session.frame_kind(), payload)?;
            Pin::new(&mut self.ws).start_send(message).map_err(|error| End::of(&error))?;
        }
        Ok(owed)
    }

    /// Queues what is due, up to a batch.
    fn fill<D: Session>(&mut self, account: &mut Account<C, D>) -> Result<(), End> {
        let shared = std::rc::Rc::clone(&account.shared);
        let mut encoded = shared.encode.borrow_mut();
        let mut wall = None;
        let batch_start = self.queued_bytes;
        while self.batch.len() < BATCH_MESSAGES && self.queued_bytes - batch_start < BATCH_BYTES as u64 {
            let Some(outgoing) = account.next_message() else {
                break;
            };
            let wall =
                *wall.get_or_insert_with(|| WallTime::from_unix_ns(shared.unix_ns(shared.clock.now_ns())));
            account.session.encode(outgoing.sequence, wall, &mut encoded);
            let payload = encoded.split().freeze();
            self.batch.push(Queued { outgoing, offset: self.queued_bytes });
            self.queued_bytes += masked_frame_bytes(payload.len());
            self.flushing = true;
            let message = to_message(account.session.frame_kind(), payload)?;
            Pin::new(&mut self.ws).start_send(message).map_err(|error| End::of(&error))?;
        }
        Ok(())
    }

    fn flush<D: Session>(
        &mut self,
        account: &mut Account<C, D>,
        cx: &mut Context<'_>,
    ) -> Result<Poll<()>, End> {
        let polled = Pin::new(&mut self.ws).poll_flush(cx);
        match polled {
            Poll::Ready(Ok(())) => {
                self.confirm(account, u64::MAX);
                self.batch.clear();
                self.confirmed = 0;
                self.flushing = false;
                // Control frames of the WebSocket layer's own are among the bytes too: start level again.
                self.queued_bytes = self.ws.get_ref().written_bytes();
                account.unblocked(self.ws.get_ref().write_ns());
                Ok(Poll::Ready(()))
            }
            Poll::Pending => {
                self.confirm(account, self.ws.get_ref().written_bytes());
                Ok(Poll::Pending)
            }
            Poll::Ready(Err(error)) => {
                self.confirm(account, self.ws.get_ref().written_bytes());
                Err(End::of(&error))
            }
        }
    }

    /// Every queued message whose first byte stands before `written` has left.
    fn confirm<D: Session>(&mut self, account: &mut Account<C, D>, written: u64) {
        let leaving = self.batch[self.confirmed..].iter().take_while(|queued| queued.offset < written);
        let confirmed = &mut self.confirmed;
        let leaving = leaving.map(|queued| queued.outgoing).inspect(|_| *confirmed += 1);
        account.sent(leaving, self.ws.get_ref().write_ns());
    }
}

pub(super) fn to_message(kind: FrameKind, payload: Bytes) -> Result<Message, End> {
    match kind {
        FrameKind::Binary => Ok(Message::Binary(payload)),
        FrameKind::Text => {
            let text = Utf8Bytes::try_from(payload).map_err(|_| {
                End::dropped("this dialect made text that is not UTF-8, which cannot be sent")
            })?;
            Ok(Message::Text(text))
        }
    }
}

/// Bytes of a client's frame around a payload (RFC 6455, section 5.2): 2 to 10 of header, 4 of mask.
fn masked_frame_bytes(payload_bytes: usize) -> u64 {
    let header = match payload_bytes {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    (header + 4 + payload_bytes) as u64
}
