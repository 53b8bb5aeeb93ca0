//! What the connections of one worker share. A worker is one thread, so cells do.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::connection::Scratch;
use super::in_flight::InFlight;
use super::outages::OutageLog;
use super::report::ConnectionReport;
use crate::clock::Clock;
use crate::record::Recorder;
use crate::result::{Moments, Unmatched};
use crate::secrets::Secrets;
use crate::websocket::Masks;
use crate::workload::Workload;

/// After the end of the load, answers count as achieved for so long (`achieved_rate`).
pub(super) const GRACE_NS: u64 = 500_000_000;

/// Where a load stands. Later phases compare greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Messages are due.
    Loading,
    /// Nothing comes due any more; what came due before is still sent.
    Finishing,
    /// Nothing is sent but by clients that were cut off; answers still count.
    Draining,
    /// Nothing counts any more.
    Closing,
}

/// State of a worker that its connections read and add to.
pub(super) struct Shared<C> {
    pub(super) clock: C,
    /// When the load begins, its ramp included; due instants count from here.
    pub(super) origin_ns: u64,
    /// When the held part of the load starts, which windows and reports call its start; the origin without a ramp.
    pub(super) start_ns: u64,
    /// How long that part lasts; moved up by an interruption. Messages due in it are timed, the others only counted.
    pub(super) held_ns: Cell<u64>,
    /// What the wall clock says when the run's clock says 0.
    pub(super) unix_origin_ns: u64,
    /// When the load ends, its ramp included; moved up by an interruption.
    pub(super) end_ns: Cell<u64>,
    pub(super) phase: Cell<Phase>,
    /// Messages due up to here may be sent; moved on by the worker's pacer.
    pub(super) tick_ns: Cell<u64>,
    /// Messages last sent up to here, and still unanswered, are lost.
    pub(super) expire_ns: Cell<u64>,
    /// How long a message is awaited after its last send.
    pub(super) answer_timeout_ns: u64,
    /// Answers up to here count as achieved.
    pub(super) cutoff_ns: Cell<u64>,
    /// Answers to timed messages received up to the cutoff.
    pub(super) achieved: Cell<u64>,
    /// All answers received.
    pub(super) answered: Cell<u64>,
    /// When the first refusal came, the first signal of backpressure, and the last answer or refusal.
    pub(super) first_refusal_ns: Cell<Option<u64>>,
    pub(super) first_backpressure_ns: Cell<Option<u64>>,
    pub(super) last_answer_ns: Cell<Option<u64>>,
    /// What is sent and unanswered over several loads, where somebody wants to know.
    pub(super) in_flight: Option<Arc<InFlight>>,
    pub(super) recorder: RefCell<Recorder>,
    /// Taken by the connection whose turn it is, and put back at the turn's end.
    pub(super) scratch: Cell<Scratch>,
    /// The keys by which all connections mask their frames.
    pub(super) masks: RefCell<Masks>,
    /// Cuts of connections that are opened again.
    pub(super) outages: RefCell<OutageLog>,
    /// The first messages that matched nothing that was asked.
    pub(super) unmatched: RefCell<Vec<Unmatched>>,
    /// What is hidden wherever the server's words are shown.
    pub(super) secrets: Secrets,
}

impl<C: Clock> Shared<C> {
    /// Of a load whose held part starts at `start_ns`, a ramp after the load itself.
    pub(super) fn new(
        clock: C,
        unix_origin_ns: u64,
        workload: &Workload,
        start_ns: u64,
        recorder: Recorder,
    ) -> Self {
        let (held_ns, ramp_ns) = (nanos(workload.duration), nanos(workload.ramp));
        let held_end_ns = start_ns + held_ns;
        Self {
            clock,
            origin_ns: start_ns - ramp_ns,
            start_ns,
            held_ns: Cell::new(held_ns),
            unix_origin_ns,
            end_ns: Cell::new(held_end_ns + ramp_ns),
            phase: Cell::new(Phase::Finishing),
            tick_ns: Cell::new(0),
            expire_ns: Cell::new(0),
            answer_timeout_ns: u64::try_from(workload.answer_timeout.as_nanos()).unwrap_or(u64::MAX),
            cutoff_ns: Cell::new(held_end_ns + GRACE_NS),
            achieved: Cell::new(0),
            first_refusal_ns: Cell::default(),
            first_backpressure_ns: Cell::default(),
            last_answer_ns: Cell::default(),
            in_flight: None,
            answered: Cell::new(0),
            recorder: RefCell::new(recorder),
            scratch: Cell::default(),
            masks: RefCell::new(Masks::from_system()),
            outages: RefCell::default(),
            unmatched: RefCell::default(),
            secrets: Secrets::default(),
        }
    }

    pub(super) fn unix_ns(&self, now_ns: u64) -> u64 {
        self.unix_origin_ns + now_ns
    }

    /// Seconds since the start of the held part of the load; below 0 before it.
    pub(super) fn since_start_s(&self, now_ns: u64) -> f64 {
        (now_ns as f64 - self.start_ns as f64) / 1e9
    }

    /// Whether a message due at `due_ns` (`None` in a closed loop) is timed.
    #[inline]
    pub(super) fn is_timed(&self, due_ns: Option<u64>) -> bool {
        // What is due before the start wraps round to far beyond the end.
        due_ns.is_none_or(|due_ns| due_ns.wrapping_sub(self.start_ns) < self.held_ns.get())
    }

    /// The load ends at `end_ns`: nothing comes due at or after it.
    pub(super) fn end_early(&self, end_ns: u64) {
        self.end_ns.set(end_ns);
        let held_ns = self.held_ns.get().min(end_ns.saturating_sub(self.start_ns));
        self.held_ns.set(held_ns);
        self.cutoff_ns.set(self.start_ns + held_ns + GRACE_NS);
    }

    /// Whether what came due may still be sent: until the end of the load's grace, by clients that were cut off until
    /// whoever waits for an answer would have given up.
    pub(super) fn may_send(&self, cut_off: bool) -> bool {
        self.phase.get() < Phase::Draining
            || cut_off && self.tick_ns.get() < self.end_ns.get().saturating_add(self.answer_timeout_ns)
    }

    /// When what first happened, in seconds since the start of the load.
    pub(super) fn moments(&self) -> Moments {
        let since_start_s = |at_ns: &Cell<Option<u64>>| at_ns.get().map(|ns| self.since_start_s(ns));
        Moments {
            first_refusal_s: since_start_s(&self.first_refusal_ns),
            first_backpressure_s: since_start_s(&self.first_backpressure_ns),
            last_answer_s: since_start_s(&self.last_answer_ns),
        }
    }

    /// So many messages have left for the first time.
    #[inline]
    pub(super) fn sent(&self, messages: u64, sent_ns: u64) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.sent(messages, self.unix_ns(sent_ns));
        }
    }

    /// A message was answered or refused.
    #[inline]
    pub(super) fn settled(&self, received_ns: u64) {
        self.last_answer_ns.set(Some(received_ns));
        if let Some(in_flight) = &self.in_flight {
            in_flight.settled();
        }
    }

    /// Notes `now_ns` where nothing was noted before.
    pub(super) fn note_first(first_ns: &Cell<Option<u64>>, now_ns: u64) {
        first_ns.set(first_ns.get().or(Some(now_ns)));
    }

    /// Counts an answer; whether it came in time to count as achieved.
    #[inline]
    pub(super) fn answered(&self, received_ns: u64, timed: bool) -> bool {
        self.answered.set(self.answered.get() + 1);
        let in_time = timed && received_ns <= self.cutoff_ns.get();
        if in_time {
            self.achieved.set(self.achieved.get() + 1);
        }
        in_time
    }
}

/// Far enough below the clock's end that instants can be added up.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX / 8)
}

/// Where a connection and its worker meet.
#[derive(Default)]
pub(super) struct Slot {
    waker: RefCell<Option<Waker>>,
    /// Messages sent and unanswered.
    pub(super) in_flight: Cell<usize>,
    /// Whether something is, or will come, due that has not been sent and may still be.
    pub(super) backlog: Cell<bool>,
    /// On the heap, since a connection has none until it ends.
    report: RefCell<Option<Box<ConnectionReport>>>,
    reported: Cell<bool>,
}

impl Slot {
    /// Remembers whom to wake.
    pub(super) fn register(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn report(&self, report: ConnectionReport) {
        *self.report.borrow_mut() = Some(Box::new(report));
        self.reported.set(true);
        self.in_flight.set(0);
        self.backlog.set(false);
    }

    pub(super) fn reported(&self) -> bool {
        self.reported.get()
    }

    pub(super) fn take_report(&self) -> Option<ConnectionReport> {
        self.report.borrow_mut().take().map(|report| *report)
    }
}
