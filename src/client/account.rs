//! The account of one client: what it has to send, what became of it, and how long that took. It outlives the
//! WebSockets that its messages travel over.

use std::fmt::Write as _;
use std::ops::Range;
use std::rc::Rc;

use super::outages::Outages;
use super::report::{Blocked, ConnectionReport, End, Untimed};
use super::shared::{Phase, Shared, Slot};
use crate::clock::Clock;
use crate::dialect::{Answer, Frame, Session};
use crate::ledger::{Class, Flight, Ledger};
use crate::record::CoarseHistogram;
use crate::result::{UNMATCHED_KEPT, Unmatched, UnmatchedKind};
use crate::schedule::DueTimes;
use crate::secrets::Secrets;

/// So many messages that came due behind a full socket are noted at once. More, and the next note finds them later than
/// they were: a generator that cannot even count what it should send is late.
const ATTEMPTS_PER_NOTE: usize = 16_384;
/// So much is kept of a message that matches none: enough to tell what it is, in a few lines of a terminal.
const VERBATIM_BYTES: usize = 200;

/// How a client decides what to send.
#[derive(Debug)]
pub(super) enum Pace {
    /// What the schedule says, whatever comes back.
    Open(DueTimes),
    /// As long as fewer than this many messages are unanswered.
    Closed { window: usize },
}

/// What an account is made of.
pub(super) struct Parts<D> {
    pub(super) index: u32,
    pub(super) client_id: String,
    pub(super) session: D,
    pub(super) pace: Pace,
    pub(super) slot: Rc<Slot>,
}

/// A message to be sent, for the first time or again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing {
    pub(super) sequence: u64,
    pub(super) due_ns: Option<u64>,
}

/// The account of one client.
pub(super) struct Account<C, D> {
    pub(super) shared: Rc<Shared<C>>,
    pub(super) session: D,
    slot: Rc<Slot>,
    pace: Pace,
    index: u32,
    client_id: String,
    ledger: Ledger,
    coarse: CoarseHistogram,
    /// Answers that came in time to count as achieved.
    achieved: u64,
    /// The send lateness of every sequence below this has been recorded.
    attempted: u64,
    /// Runs ahead of the schedule while sending is blocked: the instants from `attempted` on, behind the backlog.
    attempts: Option<DueTimes>,
    blocked: Blocked,
    backpressure_signals: u64,
    /// What has been sent, and answered, of what was due in a ramp.
    untimed: Untimed,
    /// What of the time before the last cut is still to be sent: whatever in this range has no class.
    resume: Range<u64>,
    /// Since a cut, until nothing is overdue: what came due meanwhile may leave even after the load's grace.
    catching_up: bool,
    outages: Outages,
    end: Option<End>,
}

impl<C: Clock, D: Session> Account<C, D> {
    pub(super) fn new(shared: Rc<Shared<C>>, parts: Parts<D>) -> Self {
        let Parts { index, client_id, session, pace, slot } = parts;
        Self {
            shared,
            session,
            slot,
            pace,
            index,
            client_id,
            ledger: Ledger::default(),
            coarse: CoarseHistogram::default(),
            achieved: 0,
            attempted: 0,
            attempts: None,
            blocked: Blocked::default(),
            backpressure_signals: 0,
            untimed: Untimed::default(),
            resume: 0..0,
            catching_up: false,
            outages: Outages::default(),
            end: None,
        }
    }

    pub(super) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Whether nothing counts any more.
    pub(super) fn is_closed(&self) -> bool {
        self.shared.phase.get() >= Phase::Closing || self.slot.reported()
    }

    /// Whether an answer or a refusal ever came.
    pub(super) fn was_served(&self) -> bool {
        self.ledger.counts().answered + self.ledger.counts().refused > 0
    }

    /// Ends the schedule where the load ends, which an interruption moves up.
    pub(super) fn truncate(&mut self) {
        if let Pace::Open(due_times) = &mut self.pace {
            let end_ns = self.shared.end_ns.get() - self.shared.origin_ns;
            due_times.truncate(end_ns);
            if let Some(attempts) = &mut self.attempts {
                attempts.truncate(end_ns);
            }
        }
    }

    /// Classifies what came, and records how long it took.
    pub(super) fn receive(&mut self, frame: Frame<'_>, received_ns: u64) {
        let mut next = Some(self.session.decode(frame));
        while let Some(answer) = next {
            self.classify(answer, frame, received_ns);
            next = self.session.more();
        }
    }

    #[inline]
    fn classify(&mut self, answer: Answer, frame: Frame<'_>, received_ns: u64) {
        let queue_depth = match answer {
            Answer::Processed { sequence, lane, intact, queue_depth } => {
                let class = self.ledger.answered(sequence, lane);
                if class == Class::Foreign {
                    self.unmatched(UnmatchedKind::Foreign, frame, received_ns);
                } else if !intact {
                    // What was never sent has no content to compare with.
                    self.ledger.corrupted(Some(sequence));
                    self.unmatched(UnmatchedKind::Corrupted, frame, received_ns);
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
                Shared::<C>::note_first(&self.shared.first_backpressure_ns, received_ns);
                Some(queue_depth)
            }
            Answer::Foreign => {
                self.ledger.foreign();
                return self.unmatched(UnmatchedKind::Foreign, frame, received_ns);
            }
            Answer::Corrupted => {
                self.ledger.corrupted(None);
                return self.unmatched(UnmatchedKind::Corrupted, frame, received_ns);
            }
            Answer::Unattributed => {
                self.ledger.unattributed();
                return self.unmatched(UnmatchedKind::Unattributed, frame, received_ns);
            }
            Answer::Ignored => return,
        };
        if queue_depth.is_some_and(|depth| depth > 0) && received_ns >= self.shared.start_ns {
            let mut recorder = self.shared.recorder.borrow_mut();
            let window = recorder.window_at(received_ns);
            window.queue_depth_max = window.queue_depth_max.max(queue_depth);
        }
    }

    /// Keeps what was counted and matches no message, as it came but for secrets, while there is room.
    #[cold]
    fn unmatched(&self, kind: UnmatchedKind, frame: Frame<'_>, received_ns: u64) {
        let t_s = self.shared.since_start_s(received_ns);
        let mut kept = self.shared.unmatched.borrow_mut();
        if kept.len() < UNMATCHED_KEPT {
            kept.push(Unmatched {
                t_s,
                connection: self.index,
                kind,
                text: verbatim(frame, &self.shared.secrets),
            });
        }
    }

    /// Counts something that is no message.
    pub(super) fn corrupted(&mut self) {
        self.ledger.corrupted(None);
    }

    fn record_answer(&mut self, flight: Flight, received_ns: u64) {
        self.shared.settled(received_ns);
        let timed = self.shared.is_timed(flight.due_ns);
        self.achieved += u64::from(self.shared.answered(received_ns, timed));
        if !timed {
            self.untimed.answered += 1;
            return;
        }
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
    }

    fn record_refusal(&mut self, flight: Flight, received_ns: u64) {
        Shared::<C>::note_first(&self.shared.first_refusal_ns, received_ns);
        self.shared.settled(received_ns);
        if !self.shared.is_timed(flight.due_ns) {
            return;
        }
        let mut recorder = self.shared.recorder.borrow_mut();
        let window = recorder.window_at(received_ns);
        window.refused += 1;
        if let Some(sent_ns) = flight.sent_ns {
            window.refusal_latency.record(received_ns.saturating_sub(sent_ns));
        }
    }

    /// After everything that came until `received_ns`: which outages are over, and what has timed out.
    pub(super) fn settle(&mut self, received_ns: u64) {
        if !self.outages.is_over() {
            let at_s = self.shared.since_start_s(received_ns);
            self.outages.recover(at_s, &mut self.ledger, &mut self.shared.outages.borrow_mut());
        }
        if self.ledger.in_flight() > 0 {
            self.ledger.expire(self.shared.expire_ns.get());
        }
    }

    /// The next message that may be sent now: after a cut first everything from before it, in order.
    pub(super) fn next_message(&mut self) -> Option<Outgoing> {
        if !self.resume.is_empty()
            && let Some(outgoing) = self.next_resumed()
        {
            return Some(outgoing);
        }
        match &mut self.pace {
            Pace::Open(due_times) => {
                if !self.shared.may_send(self.catching_up) {
                    return None;
                }
                let due_ns = due_times.peek().map(|due_ns| self.shared.origin_ns + due_ns);
                let Some(due_ns) = due_ns.filter(|&due_ns| due_ns <= self.shared.tick_ns.get()) else {
                    self.catching_up = false;
                    return None;
                };
                due_times.next();
                Some(Outgoing { sequence: self.ledger.issue(Some(due_ns)), due_ns: Some(due_ns) })
            }
            Pace::Closed { window } => {
                let under_way = self.ledger.in_flight() + self.ledger.queued();
                let open = self.shared.phase.get() == Phase::Loading && under_way < *window;
                open.then(|| Outgoing { sequence: self.ledger.issue(None), due_ns: None })
            }
        }
    }

    fn next_resumed(&mut self) -> Option<Outgoing> {
        let next = self.ledger.unanswered_from(self.resume.start);
        let resumed =
            next.filter(|(sequence, _)| self.resume.contains(sequence) && self.shared.may_send(true));
        let Some((sequence, flight)) = resumed else {
            self.resume = 0..0;
            return None;
        };
        self.resume.start = sequence + 1;
        Some(Outgoing { sequence, due_ns: flight.due_ns })
    }

    /// These have left for the kernel at `sent_ns`.
    pub(super) fn sent(&mut self, messages: impl Iterator<Item = Outgoing>, sent_ns: u64) {
        let mut recorder = self.shared.recorder.borrow_mut();
        let window = recorder.window_at(sent_ns);
        let before = self.ledger.counts().sent;
        for Outgoing { sequence, due_ns } in messages {
            if !self.ledger.sent(sequence, sent_ns) {
                continue;
            }
            if !self.shared.is_timed(due_ns) {
                self.untimed.due += 1;
                continue;
            }
            window.sent += 1;
            let Some(due_ns) = due_ns else { continue };
            let late_ns = sent_ns.saturating_sub(due_ns);
            if sequence >= self.attempted {
                window.send_lateness.record(late_ns);
            } else {
                window.blocked += 1;
                self.blocked.messages += 1;
                self.blocked.max_ns = self.blocked.max_ns.max(late_ns);
            }
        }
        self.shared.sent(self.ledger.counts().sent - before, sent_ns);
    }

    /// Nothing can be sent: the socket is full, or there is none. Whatever is due now was attempted now: how late that
    /// is, is the generator's; how much longer it takes, is the server's or the network's.
    pub(super) fn note_blocked(&mut self) {
        let now_ns = self.shared.clock.now_ns();
        self.blocked.since_ns.get_or_insert(now_ns);
        let Pace::Open(due_times) = &self.pace else {
            return;
        };
        let mut recorder = self.shared.recorder.borrow_mut();
        let window = recorder.window_at(now_ns);
        let unsent = self.ledger.counts().sent;
        while let Some((sequence, flight)) = self.ledger.unanswered_from(self.attempted.max(unsent)) {
            if let Some(due_ns) = flight.due_ns.filter(|_| self.shared.is_timed(flight.due_ns)) {
                window.send_lateness.record(now_ns.saturating_sub(due_ns));
            }
            self.attempted = sequence + 1;
        }
        // While part of an earlier backlog is still to be sent, whatever was attempted then must not count again.
        let next = self.ledger.next_sequence();
        if self.attempts.is_none() || self.attempted <= next {
            self.attempted = next;
            self.attempts = Some(due_times.clone());
        }
        let Some(attempts) = &mut self.attempts else { return };
        let mut noted = 0;
        while noted < ATTEMPTS_PER_NOTE
            && let Some(due_ns) = attempts.peek().map(|due_ns| self.shared.origin_ns + due_ns)
            && due_ns <= self.shared.tick_ns.get()
        {
            noted += 1;
            if self.shared.is_timed(Some(due_ns)) {
                window.send_lateness.record(now_ns.saturating_sub(due_ns));
            }
            self.attempted += 1;
            attempts.next();
        }
    }

    /// Everything that could be sent has been, at `now_ns`.
    pub(super) fn unblocked(&mut self, now_ns: u64) {
        if let Some(since_ns) = self.blocked.since_ns.take() {
            self.blocked.total_ns += now_ns.saturating_sub(since_ns);
        }
    }

    /// The connection is lost, and is to be opened again.
    pub(super) fn lost(&mut self, end: &End) {
        let at_s = self.shared.since_start_s(self.shared.clock.now_ns());
        let mut log = self.shared.outages.borrow_mut();
        self.outages.lost(self.index, end, at_s, &self.ledger, &mut log);
        drop(log);
        self.catching_up = true;
        self.note_blocked();
    }

    /// The connection was opened again only to be refused.
    pub(super) fn refused_again(&mut self) {
        self.outages.refused_again(&mut self.shared.outages.borrow_mut());
        self.note_blocked();
    }

    /// The connection is open again, and spoken over by this session: everything from before is sent first.
    pub(super) fn reconnected(&mut self, session: D) {
        self.session = session;
        let now_ns = self.shared.clock.now_ns();
        self.unblocked(now_ns);
        self.resume = 0..self.ledger.next_sequence();
        self.outages.reconnected(self.shared.since_start_s(now_ns), &mut self.shared.outages.borrow_mut());
        self.settle(now_ns);
    }

    /// While there is no connection, time goes on.
    pub(super) fn wait(&mut self) {
        if self.ledger.in_flight() > 0 {
            self.ledger.expire(self.shared.expire_ns.get());
        }
        self.note_blocked();
    }

    pub(super) fn publish(&self) {
        self.slot.in_flight.set(self.ledger.in_flight());
        self.slot.backlog.set(self.has_backlog());
    }

    /// Whether something is, or will come, due that may still be sent.
    fn has_backlog(&self) -> bool {
        match &self.pace {
            Pace::Open(due_times) => {
                (self.ledger.queued() > 0 || due_times.peek().is_some())
                    && self.shared.may_send(self.catching_up)
            }
            Pace::Closed { .. } => false,
        }
    }

    /// Why it ended before the load did.
    pub(super) fn end(&mut self, end: End) {
        self.end = Some(end);
    }

    /// Hands in the report, once: nothing that happens afterwards counts.
    pub(super) fn report(&mut self) {
        if self.slot.reported() {
            return;
        }
        let (sent, mut untimed) = (self.ledger.counts().sent, self.untimed);
        self.end_blocked(sent);
        self.outages.count_resends(&self.ledger, &mut self.shared.outages.borrow_mut());
        let mut due = sent;
        for due_ns in self.queued(sent) {
            due += 1;
            untimed.due += u64::from(!self.shared.is_timed(Some(due_ns)));
        }
        let rest = match &self.pace {
            Pace::Open(due_times) => Some(due_times.clone()),
            Pace::Closed { .. } => None,
        };
        self.ledger.abandon();
        let mut ledger = std::mem::take(&mut self.ledger);
        if ledger.counts().refused == 0 {
            // Signals of a server that never says which message they are about.
            (0..self.backpressure_signals).for_each(|_| ledger.unattributed());
        }
        let report = ConnectionReport {
            index: self.index,
            due,
            rest,
            untimed,
            ledger,
            client_id: std::mem::take(&mut self.client_id),
            achieved: self.achieved,
            coarse: std::mem::take(&mut self.coarse),
            blocked: self.blocked,
            reconnects: self.outages.reconnects,
            end: self.end.take(),
        };
        self.slot.report(report);
    }

    /// When what never left was due, after the `sent` first messages: what was queued, and what the schedule still
    /// holds. In a closed loop nothing is due.
    fn unsent(&self, sent: u64) -> impl Iterator<Item = u64> {
        let scheduled = match &self.pace {
            Pace::Open(due_times) => Some(due_times.clone()),
            Pace::Closed { .. } => None,
        };
        let origin_ns = self.shared.origin_ns;
        let scheduled = scheduled.into_iter().flatten().map(move |due_ns| origin_ns + due_ns);
        self.queued(sent).chain(scheduled)
    }

    /// When what was taken from the schedule, and never left, was due.
    fn queued(&self, sent: u64) -> impl Iterator<Item = u64> {
        let queued = std::iter::successors(self.ledger.unanswered_from(sent), |(sequence, _)| {
            self.ledger.unanswered_from(sequence + 1)
        });
        queued.filter_map(|(_, flight)| flight.due_ns)
    }

    /// What was attempted and still has not left, of `sent` that have, waited in vain: that is waiting too.
    fn end_blocked(&mut self, sent: u64) {
        if self.blocked.since_ns.is_none() {
            return;
        }
        let now_ns = self.shared.clock.now_ns();
        self.unblocked(now_ns);
        let timed = |due_ns: &u64| self.shared.is_timed(Some(*due_ns));
        let attempted = usize::try_from(self.attempted.saturating_sub(sent)).unwrap_or(usize::MAX);
        let waiting = self.unsent(sent).take(attempted).filter(timed).count() as u64;
        let first_due_ns = self.unsent(sent).find(timed);
        self.blocked.messages += waiting;
        if let Some(due_ns) = first_due_ns {
            self.blocked.max_ns = self.blocked.max_ns.max(now_ns.saturating_sub(due_ns));
        }
    }
}

/// A frame as it came, but for secrets, and what is beyond [`VERBATIM_BYTES`] left out; bytes that are no text are escaped.
fn verbatim(frame: Frame<'_>, secrets: &Secrets) -> String {
    let hidden = |bytes| secrets.hide(bytes, VERBATIM_BYTES);
    let ((mut text, cut), bytes) = match frame {
        Frame::Text(text) => {
            let (shown, cut) = hidden(text.as_bytes());
            ((String::from_utf8_lossy(&shown).into_owned(), cut), text.len())
        }
        Frame::Binary(bytes) => {
            let (shown, cut) = hidden(bytes);
            ((shown.escape_ascii().to_string(), cut), bytes.len())
        }
    };
    if cut {
        let _ = write!(text, "… ({bytes} bytes)");
    }
    text
}
