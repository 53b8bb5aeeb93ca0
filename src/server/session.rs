//! What one connection says to each message: the protocol of `wire.md`, without I/O.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use super::answer::{self, Circumstances};
use super::engine::{Admission, Done, Engine, Job, Outbox};
use super::fault::Slips;
use super::hold::{Released, spaced};
use super::idempotency::{MAX_ID_BYTES, Recorded, Recording};
use super::worker::Worker;
use crate::clock::unix_now_ns;
use crate::message::{
    Backpressure, DecodeError, DuplicateRejected, ErrorResponse, GenericResponse, INVALID_JSON, Other,
    Priority, QueueFull, Request, SenderTemplate, WallTime, decode_request_text,
};
use crate::websocket::{Opcode, append};

/// What a sender is told whose message was not processed because its id could not be recorded.
const NOT_RECORDED: &str = "The message could not be recorded";

/// The protocol's state of one connection.
#[derive(Debug)]
pub(super) struct Session {
    worker: Rc<Worker>,
    /// Who sends, as far as that is known.
    sender: SenderTemplate,
    /// Where answers come from that take time; with the engine they come from.
    delayed: Option<(Arc<Engine>, Arc<Outbox>)>,
    /// An overflow episode lasts from a refusal to the next admission of a normal request.
    overflowing: bool,
    /// When `backpressure` is to be sent, where the episode's is not sent yet; a fault may put it off.
    signal_due: Option<WallTime>,
    /// What faults have begun and not ended.
    slipping: Slipping,
    /// Whose connection it is; empty where that is not known.
    whose: String,
}

/// The slips of a connection.
#[derive(Debug, Default)]
struct Slipping {
    /// Answers to be held until the next is sent.
    swaps: usize,
    /// The answer that is held.
    held: Option<BytesMut>,
    /// How often somebody else's answer is still to come.
    crossings: usize,
    /// The connection is to be cut.
    cut: bool,
    /// It has sent a request for work.
    sends: bool,
    /// Where answers come from that were held back; none where none is.
    released: Option<Rc<Released>>,
    /// Between the answers of a starved connection; and when the next may go, on the clock of the worker's hold.
    gap: Option<Duration>,
    next_ns: u64,
}

impl Session {
    /// For the connection of this number, which is theirs.
    pub(super) fn new(worker: Rc<Worker>, number: u64, whose: &str) -> Self {
        let delayed = worker.shared.engine.clone().map(|engine| (engine, Arc::default()));
        let slipping = Slipping {
            released: worker.hold.as_ref().map(|_| Rc::default()),
            gap: worker.shared.planted.starves_connection(number),
            ..Slipping::default()
        };
        let (sender, whose) = (SenderTemplate::default(), whose.to_owned());
        Self { worker, sender, delayed, overflowing: false, signal_due: None, slipping, whose }
    }

    pub(super) fn outbox(&self) -> Option<&Outbox> {
        self.delayed.as_ref().map(|(_, outbox)| &**outbox)
    }

    pub(super) fn released(&self) -> Option<&Released> {
        self.slipping.released.as_deref()
    }

    /// Whether a fault wants the connection cut.
    pub(super) fn is_cut(&self) -> bool {
        self.slipping.cut
    }

    /// Appends what is to be answered to `text` at once.
    pub(super) fn text(&mut self, text: &str, now: WallTime, out: &mut BytesMut) {
        if self.is_cut() {
            return;
        }
        self.worker.message_seen();
        let request = match self.sender.decode(text) {
            Ok(request) => request,
            Err(DecodeError::NotJson { .. }) => return self.error(INVALID_JSON, now, out),
            Err(error) => return self.error(&error.to_string(), now, out),
        };
        self.worker.counters.messages.add_one();
        match &request {
            Request::PerformanceStats => self.stats(out),
            Request::Purge => {
                self.worker.shared.purge();
                self.stats(out);
            }
            Request::Other(other) => generic(other, text, now, out),
            Request::UserMessage(message) if message.message_id.len() > MAX_ID_BYTES => {
                let bytes = message.message_id.len();
                let text = format!(
                    "field `message_id` has {bytes} bytes, but at most {MAX_ID_BYTES} are remembered"
                );
                self.error(&text, now, out);
            }
            _ => {
                self.worker.counters.received.add_one();
                if self.slips_on_request() {
                    return;
                }
                match self.delayed.clone() {
                    None => self.process(&request, now, out),
                    Some((engine, outbox)) => self.submit(&engine, outbox, text, &request, now, out),
                }
            }
        }
    }

    /// Appends an `error`, such as to a frame that cannot be read: the connection lives on.
    pub(super) fn error(&self, message: &str, now: WallTime, out: &mut BytesMut) {
        self.worker.counters.errors.add_one();
        let error = ErrorResponse { message: Cow::Borrowed(message), timestamp: now };
        append_text(out, |out| error.encode(out));
    }

    /// Appends the answers that were waited for.
    pub(super) fn delayed_answers(&mut self, out: &mut BytesMut) {
        let Some((engine, outbox)) = &self.delayed else { return };
        let done = outbox.take();
        if done.is_empty() {
            return;
        }
        let engine = Arc::clone(engine);
        let now = WallTime::from_unix_ns(unix_now_ns());
        for Done { text, received_at, recorded } in done {
            // It was read once when it was admitted.
            let Ok(request) = decode_request_text(&text) else { continue };
            if !recorded {
                self.error(NOT_RECORDED, now, out);
                continue;
            }
            let circumstances = Circumstances {
                received_at,
                now,
                processing: self.worker.shared.config.processing_delay,
                queue_depth: engine.depth(),
            };
            self.answer(&request, circumstances, out);
        }
    }

    /// Processing that takes no time.
    fn process(&mut self, request: &Request<'_>, now: WallTime, out: &mut BytesMut) {
        // A store whose recordings take time has an engine before it.
        if let Request::UserMessage(message) = request
            && let Recording::Done(Recorded::Again { original_unix_ns }) =
                self.worker.shared.store.record(&message.message_id, now.as_unix_ns())
        {
            let original = WallTime::from_unix_ns(original_unix_ns);
            return self.duplicate(&message.message_id, original, now, out);
        }
        self.worker.counters.admitted.add_one();
        self.worker.counters.processed.add_one();
        let circumstances =
            Circumstances { received_at: now, now, processing: Duration::ZERO, queue_depth: 0 };
        self.answer(request, circumstances, out);
    }

    fn submit(
        &mut self,
        engine: &Engine,
        outbox: Arc<Outbox>,
        text: &str,
        request: &Request<'_>,
        now: WallTime,
        out: &mut BytesMut,
    ) {
        let (priority, sequence_id, once_id) = match request {
            Request::ThroughputTest(test) => (test.priority, Some(test.sequence_id), None),
            Request::UserMessage(message) => {
                (message.priority, message.sequence_id, Some(message.message_id.as_ref().into()))
            }
            _ => (None, None, None),
        };
        let priority = priority.unwrap_or_default();
        let job = Job { text: text.into(), once_id, priority, received_at: now, outbox };
        let message_id = answer::work_id(request).unwrap_or_default();
        match engine.submit(job) {
            Admission::Admitted => {
                self.worker.counters.admitted.add_one();
                self.overflowing &= priority == Priority::High;
            }
            Admission::Repeated => {}
            Admission::Processed(original) => self.duplicate(message_id, original, now, out),
            Admission::Refused => self.refuse(engine, message_id, sequence_id, now, out),
        }
    }

    /// The one way by which answers to processed requests leave, and so the place of faults in them.
    fn answer(&mut self, request: &Request<'_>, circumstances: Circumstances, out: &mut BytesMut) {
        let planted = &self.worker.shared.planted;
        if planted.is_empty() {
            append_text(out, |out| answer::encode(request, circumstances, out));
            return self.worker.counters.answered.add_one();
        }
        let id = answer::work_id(request).unwrap_or_default();
        let slips = planted.slips_of_answer(id, answer::tells_of_content(request));
        self.answer_with_slips(slips, request, circumstances, out);
    }

    fn answer_with_slips(
        &mut self,
        slips: Slips,
        request: &Request<'_>,
        circumstances: Circumstances,
        out: &mut BytesMut,
    ) {
        if slips.lose {
            return;
        }
        let message_id = answer::work_id(request).unwrap_or_default();
        let mut request = Cow::Borrowed(request);
        if slips.misname {
            answer::misname(request.to_mut());
        }
        if slips.alter {
            answer::alter(request.to_mut());
        }
        let mut frames = BytesMut::new();
        for _ in 0..=usize::from(slips.repeat) {
            append_text(&mut frames, |out| answer::encode(&request, circumstances, out));
            self.worker.counters.answered.add_one();
        }
        if self.worker.shared.planted.crosses_answers() {
            self.slipping.crossings += usize::from(slips.cross);
            self.cross_talk(&mut frames);
        }
        self.slipping.swaps += usize::from(slips.swap);
        if let Some(held) = self.slipping.held.take() {
            frames.extend_from_slice(&held);
        } else if self.slipping.swaps > 0 {
            self.slipping.swaps -= 1;
            self.slipping.held = Some(frames);
            return;
        }
        self.send_or_hold(frames, message_id, circumstances, out);
    }

    /// Appends what somebody else was answered, where that is due, and lets others overhear these `frames`.
    fn cross_talk(&mut self, frames: &mut BytesMut) {
        let mut overheard =
            self.worker.shared.overheard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let own = frames.clone();
        if self.slipping.crossings > 0
            && let Some((_, other)) = overheard.iter().find(|(identity, _)| **identity != self.whose)
        {
            self.slipping.crossings -= 1;
            frames.extend_from_slice(other);
        }
        overheard.insert(self.whose.clone(), own);
    }

    /// Appends the answer to the message of this id, or leaves it to the worker's hold, where it is to go later.
    fn send_or_hold(
        &mut self,
        frames: BytesMut,
        message_id: &str,
        circumstances: Circumstances,
        out: &mut BytesMut,
    ) {
        let (Some(hold), Some(released)) = (&self.worker.hold, &self.slipping.released) else {
            return out.extend_from_slice(&frames);
        };
        // By the wall clock, which is read for every answer anyway: over these microseconds, or the processing delay,
        // it runs like the other.
        let since_read = unix_now_ns().saturating_sub(circumstances.received_at.as_unix_ns());
        let now_ns = hold.now_ns();
        let planted = &self.worker.shared.planted;
        let held_for = planted.holds_answer_for(message_id, Duration::from_nanos(since_read));
        let mut due_ns = now_ns.saturating_add(u64::try_from(held_for.as_nanos()).unwrap_or(u64::MAX));
        if let Some(gap) = self.slipping.gap {
            due_ns = spaced(&mut self.slipping.next_ns, due_ns, gap);
        }
        if due_ns <= now_ns {
            out.extend_from_slice(&frames);
        } else {
            hold.hold(frames, due_ns, released);
        }
    }

    /// Whether nothing is to be done with the next request, by a fault.
    fn slips_on_request(&mut self) -> bool {
        let planted = &self.worker.shared.planted;
        if planted.is_empty() {
            return false;
        }
        if !std::mem::replace(&mut self.slipping.sends, true) {
            planted.sender_came();
        }
        let slips = planted.slips_of_request();
        self.slipping.cut |= slips.cut;
        slips.cut || slips.ignore
    }

    fn duplicate(&self, message_id: &str, original: WallTime, now: WallTime, out: &mut BytesMut) {
        let duplicate = DuplicateRejected {
            message_id: Cow::Borrowed(message_id),
            original_timestamp: original,
            timestamp: now,
        };
        append_text(out, |out| duplicate.encode(out));
        self.worker.counters.answered.add_one();
    }

    fn refuse(
        &mut self,
        engine: &Engine,
        message_id: &str,
        sequence_id: Option<u64>,
        now: WallTime,
        out: &mut BytesMut,
    ) {
        let queue_depth = engine.depth();
        let max_queue = self.worker.shared.config.queue_capacity as u64;
        let full = QueueFull { message_id: Cow::Borrowed(message_id), sequence_id, queue_depth, max_queue };
        let planted = &self.worker.shared.planted;
        if !planted.refuses_silently() {
            append_text(out, |out| full.encode(out));
        }
        self.worker.counters.refused.add_one();
        if !std::mem::replace(&mut self.overflowing, true) {
            self.signal_due = planted.backpressure_after().map(|after| later(now, after));
        }
        if self.signal_due.take_if(|due| *due <= now).is_some() {
            let message = Cow::Borrowed("The queue is full: slow down");
            let signal = Backpressure { message, queue_depth, max_queue, timestamp: now };
            append_text(out, |out| signal.encode(out));
        }
    }

    fn stats(&self, out: &mut BytesMut) {
        let stats = self.worker.shared.stats();
        append_text(out, |out| stats.encode(out));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(outbox) = self.outbox() {
            outbox.close();
        }
        if self.slipping.sends {
            self.worker.shared.planted.sender_left();
        }
    }
}

fn later(at: WallTime, by: Duration) -> WallTime {
    WallTime::from_unix_ns(at.as_unix_ns().saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
}

fn generic(other: &Other<'_>, text: &str, now: WallTime, out: &mut BytesMut) {
    let response =
        GenericResponse { message_id: other.message_id.as_deref().map(Cow::Borrowed), timestamp: now };
    append_text(out, |out| response.encode(out, text));
}

/// Appends a text frame whose payload `encode` appends.
#[inline]
fn append_text(out: &mut BytesMut, encode: impl FnOnce(&mut BytesMut)) {
    append(out, Opcode::Text, None, encode);
}
