//! One connection: a state machine over any byte stream, any clock and any dialect.
//!
//! It is polled when bytes came, when a message is due and when its socket has room again. Each time it reads all that
//! is there, then sends all that is due with one flush. While the socket is full it keeps reading, and notes that the
//! messages coming due meanwhile were held up by the server and not by the generator.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::{Sink, Stream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::report::{Blocked, ConnectionReport, End, malformed};
use super::shared::{Phase, Shared, Slot};
use super::transport::{Tapped, Transport};
use crate::clock::Clock;
use crate::dialect::{Answer, Frame, FrameKind, Session};
use crate::ledger::{Class, Flight, Ledger};
use crate::message::WallTime;
use crate::record::CoarseHistogram;
use crate::schedule::DueTimes;

/// Messages read before what they make room for is sent, and others get their turn. Few enough that the server has work
/// again while the rest of a large window is read: at one connection with 256 unanswered, 64 do twice what 512 did.
const READS_PER_POLL: usize = 64;
/// A batch ends at this many messages or bytes, whichever comes first: enough to make the system call's share small,
/// little enough that its last message is not held up by encoding the others.
const BATCH_MESSAGES: usize = 256;
const BATCH_BYTES: usize = 64 * 1024;
/// Batches sent before others get their turn.
const BATCHES_PER_POLL: usize = 4;

/// How a connection decides what to send.
#[derive(Debug)]
pub(super) enum Pace {
    /// What the schedule says, whatever comes back.
    Open(DueTimes),
    /// As long as fewer than this many messages are unanswered.
    Closed { window: usize },
}

/// A message that was handed to the WebSocket layer and has not left for the kernel yet.
#[derive(Debug, Clone, Copy)]
struct Queued {
    sequence: u64,
    due_ns: Option<u64>,
    /// Where its first byte stands among all bytes of this stream.
    offset: u64,
}

/// A connection under load.
pub(super) struct Connection<S: Transport, C: Clock + Unpin, D> {
    ws: WebSocketStream<Tapped<S, C>>,
    shared: Rc<Shared<C>>,
    slot: Rc<Slot>,
    session: D,
    pace: Pace,
    index: u32,
    client_id: String,
    ledger: Ledger,
    coarse: CoarseHistogram,
    /// What has been queued since the socket last took everything; `confirmed` of them have left.
    batch: Vec<Queued>,
    confirmed: usize,
    /// Whether the WebSocket layer holds bytes that a flush must push on.
    flushing: bool,
    /// Bytes queued on this stream so far, comparable with what the tap saw leave.
    queued_bytes: u64,
    /// The send lateness of every sequence below this has been recorded.
    attempted: u64,
    /// Runs ahead of the schedule while it is blocked: the instants from `attempted` on, behind the backlog.
    attempts: Option<DueTimes>,
    blocked: Blocked,
    backpressure_signals: u64,
    end: Option<End>,
}

/// What a connection is made of.
pub(super) struct Parts<D> {
    pub(super) index: u32,
    pub(super) client_id: String,
    pub(super) session: D,
    pub(super) pace: Pace,
    pub(super) slot: Rc<Slot>,
}

impl<S: Transport, C: Clock + Unpin, D: Session> Connection<S, C, D> {
    pub(super) fn new(ws: WebSocketStream<Tapped<S, C>>, shared: Rc<Shared<C>>, parts: Parts<D>) -> Self {
        let queued_bytes = ws.get_ref().written_bytes();
        let Parts { index, client_id, session, pace, slot } = parts;
        Self {
            ws,
            shared,
            slot,
            session,
            pace,
            index,
            client_id,
            ledger: Ledger::default(),
            coarse: CoarseHistogram::default(),
            batch: Vec::new(),
            confirmed: 0,
            flushing: false,
            queued_bytes,
            attempted: 0,
            attempts: None,
            blocked: Blocked::default(),
            backpressure_signals: 0,
            end: None,
        }
    }

    /// Reads and sends what there is.
    fn exchange(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        self.receive(cx)?;
        if self.ledger.in_flight() > 0 {
            self.ledger.expire(self.shared.expire_ns.get());
        }
        self.transmit(cx)
    }

    fn receive(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        for _ in 0..READS_PER_POLL {
            match Pin::new(&mut self.ws).poll_next(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Ok(message))) => self.message(message)?,
                Poll::Ready(Some(Err(error))) => {
                    if malformed(&error) {
                        self.ledger.corrupted();
                    }
                    return Err(End::of(&error));
                }
                Poll::Ready(None) => return Err(End::dropped("the server closed the connection")),
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn message(&mut self, message: Message) -> Result<(), End> {
        match message {
            Message::Text(text) => self.frame(Frame::Text(&text)),
            Message::Binary(bytes) => self.frame(Frame::Binary(&bytes)),
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
        Ok(())
    }

    fn frame(&mut self, frame: Frame<'_>) {
        let received_ns = self.ws.get_ref().read_ns();
        let answer = self.session.decode(frame);
        let queue_depth = match answer {
            Answer::Processed { sequence, lane, intact, queue_depth } => {
                let class = self.ledger.answered(sequence, lane);
                // What was never sent has no content to compare with.
                if !intact && class != Class::Foreign {
                    self.ledger.corrupted();
                }
                if let Class::Answered(flight) = class {
                    self.record_answer(flight, received_ns);
                }
                queue_depth
            }
            Answer::Refused { sequence, queue_depth } => {
                if let Class::Refused(flight) = self.ledger.refused(sequence) {
                    self.record_refusal(flight, received_ns);
                }
                queue_depth
            }
            Answer::Backpressure { queue_depth } => {
                self.backpressure_signals += 1;
                Some(queue_depth)
            }
            Answer::Foreign => return self.ledger.foreign(),
            Answer::Corrupted => return self.ledger.corrupted(),
            Answer::Unattributed => return self.ledger.unattributed(),
            Answer::Ignored => return,
        };
        if queue_depth.is_some_and(|depth| depth > 0) {
            let mut recorder = self.shared.recorder.borrow_mut();
            let window = recorder.window_at(received_ns);
            window.queue_depth_max = window.queue_depth_max.max(queue_depth);
        }
    }

    fn record_answer(&mut self, flight: Flight, received_ns: u64) {
        let mut recorder = self.shared.recorder.borrow_mut();
        let window = recorder.window_at(received_ns);
        window.answered += 1;
        let mut latency_ns = None;
        if let Some(sent_ns) = flight.sent_ns {
            let service_ns = received_ns.saturating_sub(sent_ns);
            window.service_latency.record(service_ns);
            latency_ns = Some(service_ns);
        }
        if let Some(due_ns) = flight.due_ns {
            let from_due_ns = received_ns.saturating_sub(due_ns);
            window.latency.record(from_due_ns);
            latency_ns = Some(from_due_ns);
        }
        if let Some(latency_ns) = latency_ns {
            self.coarse.record(latency_ns);
        }
        self.shared.answered(received_ns);
    }

    fn record_refusal(&mut self, flight: Flight, received_ns: u64) {
        let mut recorder = self.shared.recorder.borrow_mut();
        let window = recorder.window_at(received_ns);
        window.refused += 1;
        if let Some(sent_ns) = flight.sent_ns {
            window.refusal_latency.record(received_ns.saturating_sub(sent_ns));
        }
    }

    fn transmit(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if self.flushing && self.flush(cx)?.is_pending() {
            self.note_blocked();
            return Ok(());
        }
        for _ in 0..BATCHES_PER_POLL {
            self.fill()?;
            if self.batch.is_empty() {
                return Ok(());
            }
            if self.flush(cx)?.is_pending() {
                self.note_blocked();
                return Ok(());
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Queues what is due, up to a batch.
    fn fill(&mut self) -> Result<(), End> {
        let shared = Rc::clone(&self.shared);
        let mut encoded = shared.encode.borrow_mut();
        let mut wall = None;
        let batch_start = self.queued_bytes;
        while self.batch.len() < BATCH_MESSAGES && self.queued_bytes - batch_start < BATCH_BYTES as u64 {
            let Some((sequence, due_ns)) = self.next_message() else {
                break;
            };
            let wall =
                *wall.get_or_insert_with(|| WallTime::from_unix_ns(shared.unix_ns(shared.clock.now_ns())));
            self.session.encode(sequence, wall, &mut encoded);
            let payload = encoded.split().freeze();
            self.batch.push(Queued { sequence, due_ns, offset: self.queued_bytes });
            self.queued_bytes += masked_frame_bytes(payload.len());
            self.flushing = true;
            let message = to_message(self.session.frame_kind(), payload)?;
            Pin::new(&mut self.ws).start_send(message).map_err(|error| End::of(&error))?;
        }
        Ok(())
    }

    fn next_message(&mut self) -> Option<(u64, Option<u64>)> {
        match &mut self.pace {
            Pace::Open(due_times) => {
                if self.shared.phase.get() >= Phase::Draining {
                    return None;
                }
                let due_ns = self.shared.start_ns + due_times.peek()?;
                if due_ns > self.shared.tick_ns.get() {
                    return None;
                }
                due_times.next();
                Some((self.ledger.issue(Some(due_ns)), Some(due_ns)))
            }
            Pace::Closed { window } => {
                let under_way = self.ledger.in_flight() + self.batch.len();
                let open = self.shared.phase.get() == Phase::Loading && under_way < *window;
                open.then(|| (self.ledger.issue(None), None))
            }
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, End> {
        let polled = Pin::new(&mut self.ws).poll_flush(cx);
        match polled {
            Poll::Ready(Ok(())) => {
                self.confirm(u64::MAX);
                self.batch.clear();
                self.confirmed = 0;
                self.flushing = false;
                // Control frames of the WebSocket layer's own are among the bytes too: start level again.
                self.queued_bytes = self.ws.get_ref().written_bytes();
                if let Some(since_ns) = self.blocked.since_ns.take() {
                    self.blocked.total_ns += self.ws.get_ref().write_ns().saturating_sub(since_ns);
                }
                Ok(Poll::Ready(()))
            }
            Poll::Pending => {
                self.confirm(self.ws.get_ref().written_bytes());
                Ok(Poll::Pending)
            }
            Poll::Ready(Err(error)) => {
                self.confirm(self.ws.get_ref().written_bytes());
                Err(End::of(&error))
            }
        }
    }

    /// Every queued message whose first byte stands before `written` has left.
    fn confirm(&mut self, written: u64) {
        let sent_ns = self.ws.get_ref().write_ns();
        let mut recorder = self.shared.recorder.borrow_mut();
        let window = recorder.window_at(sent_ns);
        let leaving = self.batch[self.confirmed..].iter().take_while(|queued| queued.offset < written);
        for queued in leaving {
            self.confirmed += 1;
            self.ledger.sent(queued.sequence, sent_ns);
            window.sent += 1;
            let Some(due_ns) = queued.due_ns else { continue };
            let late_ns = sent_ns.saturating_sub(due_ns);
            if queued.sequence >= self.attempted {
                window.send_lateness.record(late_ns);
            } else {
                window.blocked += 1;
                self.blocked.messages += 1;
                self.blocked.max_ns = self.blocked.max_ns.max(late_ns);
            }
        }
    }

    /// The socket is full. Whatever is due now was attempted now: how late that is, is the generator's; how much longer
    /// it takes, is the server's.
    fn note_blocked(&mut self) {
        let now_ns = self.shared.clock.now_ns();
        self.blocked.since_ns.get_or_insert(now_ns);
        let Pace::Open(due_times) = &self.pace else {
            return;
        };
        let mut recorder = self.shared.recorder.borrow_mut();
        let window = recorder.window_at(now_ns);
        for queued in &self.batch[self.confirmed..] {
            if let Some(due_ns) = queued.due_ns
                && queued.sequence >= self.attempted
            {
                window.send_lateness.record(now_ns.saturating_sub(due_ns));
                self.attempted = queued.sequence + 1;
            }
        }
        // While part of an earlier backlog is still to be sent, whatever was attempted then must not count again.
        let next = self.ledger.next_sequence();
        if self.attempts.is_none() || self.attempted <= next {
            self.attempted = next;
            self.attempts = Some(due_times.clone());
        }
        let Some(attempts) = &mut self.attempts else { return };
        while let Some(due_ns) = attempts.peek().map(|due_ns| self.shared.start_ns + due_ns)
            && due_ns <= self.shared.tick_ns.get()
        {
            window.send_lateness.record(now_ns.saturating_sub(due_ns));
            self.attempted += 1;
            attempts.next();
        }
    }

    /// Whether something is due that has not been sent.
    fn has_backlog(&self) -> bool {
        match &self.pace {
            Pace::Open(due_times) => self.confirmed < self.batch.len() || due_times.peek().is_some(),
            Pace::Closed { .. } => false,
        }
    }

    fn publish(&self) {
        self.slot.in_flight.set(self.ledger.in_flight());
        self.slot.backlog.set(self.has_backlog());
    }

    /// Hands in the report: nothing that happens afterwards counts.
    fn report(&mut self) {
        self.ledger.abandon();
        let sent = self.ledger.counts().sent;
        self.end_blocked(sent);
        let due = match &mut self.pace {
            // Messages that were queued and never left have been taken from the schedule too.
            Pace::Open(due_times) => {
                sent + (self.batch.len() - self.confirmed) as u64 + due_times.count() as u64
            }
            Pace::Closed { .. } => sent,
        };
        let mut ledger = std::mem::take(&mut self.ledger);
        if ledger.counts().refused == 0 {
            // Signals of a server that never says which message they are about.
            (0..self.backpressure_signals).for_each(|_| ledger.unattributed());
        }
        let report = ConnectionReport {
            index: self.index,
            due,
            ledger,
            client_id: std::mem::take(&mut self.client_id),
            coarse: std::mem::take(&mut self.coarse),
            blocked: self.blocked,
            end: self.end.take(),
        };
        self.slot.report(report);
    }
}

impl<S: Transport, C: Clock + Unpin, D: Session> Connection<S, C, D> {
    /// What was attempted and still has not left, of `sent` that have, waited in vain: that is waiting too.
    fn end_blocked(&mut self, sent: u64) {
        let Some(since_ns) = self.blocked.since_ns.take() else { return };
        let now_ns = self.shared.clock.now_ns();
        self.blocked.total_ns += now_ns.saturating_sub(since_ns);
        self.blocked.messages += self.attempted.saturating_sub(sent);
        let Pace::Open(due_times) = &self.pace else { return };
        let first_due_ns = match self.batch.get(self.confirmed) {
            Some(queued) => queued.due_ns,
            None => due_times.peek().map(|due_ns| self.shared.start_ns + due_ns),
        };
        if let Some(due_ns) = first_due_ns {
            self.blocked.max_ns = self.blocked.max_ns.max(now_ns.saturating_sub(due_ns));
        }
    }
}

impl<S: Transport, C: Clock + Unpin, D: Session + Unpin> Future for Connection<S, C, D> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.slot.register(cx.waker());
        if let Pace::Open(due_times) = &mut this.pace {
            let end_ns = this.shared.end_ns.get() - this.shared.start_ns;
            due_times.truncate(end_ns);
            if let Some(attempts) = &mut this.attempts {
                attempts.truncate(end_ns);
            }
        }
        if this.shared.phase.get() < Phase::Closing && !this.slot.reported() {
            match this.exchange(cx) {
                Ok(()) => {
                    this.publish();
                    return Poll::Pending;
                }
                Err(end) => this.end = Some(end),
            }
        }
        if !this.slot.reported() {
            this.report();
        }
        // Where the peer has closed, this is the close frame that it is owed (RFC 6455, section 5.5.1).
        // A peer that does not close with us is not waited for: the worker drops the connection in the end.
        let _ = ready!(Pin::new(&mut this.ws).poll_close(cx));
        Poll::Ready(())
    }
}

fn to_message(kind: FrameKind, payload: Bytes) -> Result<Message, End> {
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
