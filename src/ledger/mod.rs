//! The sequence ledger of one connection: every message, and every answer, in exactly one class.
//!
//! It owns what is under way ([`Pending`]), because a class depends on it: whether an answer is the first, a second one,
//! one that came too late, or one to a message that was never sent. At the end `sent = answered + refused + lost`.

mod lost;
mod pending;
mod spare;

use serde::{Deserialize, Serialize};

pub use pending::{Flight, Pending};

use lost::{LostSet, Membership};
use spare::{Allowance, SpareAnswers};

/// How many ids of missing messages are kept for the report.
pub const MISSING_KEPT: usize = 100;

/// How many ids a connection keeps of each thing that is wrong with answers: enough to look some of them up.
pub const WRONG_KEPT: usize = 10;

/// How many separate runs of lost messages a connection remembers in order to know a late answer from a duplicate.
/// 16,384 intervals take about half a megabyte, which only a connection that loses so much ever pays.
const LOST_INTERVALS: usize = 16_384;

/// To how many messages that were sent again, and are over, a connection still allows further answers: some hundred
/// kilobytes, which only a connection that was cut with so much unanswered ever pays.
const SPARES_KEPT: usize = 16_384;

/// Counts of distinct messages, and of answers that fit none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Messages whose first byte went to the kernel.
    pub sent: u64,
    /// Messages that were processed and answered.
    pub answered: u64,
    /// Messages that the server refused.
    pub refused: u64,
    /// Messages without an answer within the answer time-out after their last send.
    pub lost: u64,
    /// Answers to messages that had been given up; they change no class.
    pub late: u64,
    /// Sends beyond a message's first.
    pub resent: u64,
    /// Second answers to one send: those to a message beyond as many as it was sent.
    pub duplicates: u64,
    /// Further answers to a message that was sent more than once, no more than it was sent; they change no class.
    #[serde(default)]
    pub repeated: u64,
    /// Answers whose sequence is smaller than one already seen in their lane (RFC 4737, section 3.4).
    pub reordered: u64,
    /// Answers to an id that this connection never sent.
    pub foreign: u64,
    /// Answers whose content or form is wrong.
    pub corrupted: u64,
    /// Answers without an id, or to an id so old that its class is forgotten.
    pub unattributed: u64,
}

impl Counts {
    /// Adds another connection's, worker's or shard's counts.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.refused += other.refused;
        self.lost += other.lost;
        self.late += other.late;
        self.resent += other.resent;
        self.duplicates += other.duplicates;
        self.repeated += other.repeated;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
        self.corrupted += other.corrupted;
        self.unattributed += other.unattributed;
    }
}

/// Answers keep their order only within a priority, so each priority is a lane of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Everything without a priority, or with the normal one.
    Normal,
    /// High priority.
    High,
}

/// What may be wrong with an answer to a message that can be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It came behind the answer to a later message.
    Reordered,
    /// It came once more than the message was sent.
    Duplicate,
    /// The message was never sent.
    Foreign,
    /// Its content is not the message's.
    Corrupted,
}

/// What an answer was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The first answer to a message under way.
    Answered(Flight),
    /// The first answer to a message under way, a refusal.
    Refused(Flight),
    /// An answer to a message that had been given up.
    Late,
    /// A further answer to a message that was sent so often.
    Repeated,
    /// An answer beyond as many as the message was sent.
    Duplicate,
    /// An answer to something never sent.
    Foreign,
    /// An answer to an id so old that it is no longer known whether it was lost, or how often it was sent.
    Unattributed,
}

/// The ledger of one connection.
#[derive(Debug)]
pub struct Ledger {
    pending: Pending,
    lost: LostSet,
    spare: SpareAnswers,
    counts: Counts,
    /// The highest sequence answered so far, a lane.
    highest: [Option<u64>; 2],
    /// The largest distance by which an answer came behind one of a higher sequence.
    reorder_distance_max: u64,
    /// The first sequences that were lost, at most [`MISSING_KEPT`].
    missing: Vec<u64>,
    /// The first messages whose answers were wrong, at most [`WRONG_KEPT`] of each kind.
    wrong: Vec<(Wrong, u64)>,
    /// How many messages under way have been sent.
    in_flight: usize,
    /// Up to when expiry has looked at everything under way.
    expired_until_ns: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            pending: Pending::default(),
            lost: LostSet::with_capacity(LOST_INTERVALS),
            spare: SpareAnswers::with_capacity(SPARES_KEPT),
            counts: Counts::default(),
            highest: [None; 2],
            reorder_distance_max: 0,
            missing: Vec::new(),
            wrong: Vec::new(),
            in_flight: 0,
            expired_until_ns: 0,
        }
    }
}

impl Ledger {
    /// Hands out the next sequence to a message due at `due_ns` (`None` in a closed loop).
    pub fn issue(&mut self, due_ns: Option<u64>) -> u64 {
        self.pending.issue(due_ns)
    }

    /// The sequence that the next message will get.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.pending.next_sequence()
    }

    /// Notes that a message's first byte went to the kernel at `sent_ns`; whether for the first time. Messages leave for
    /// the first time in the order of their sequences.
    pub fn sent(&mut self, sequence: u64, sent_ns: u64) -> bool {
        match self.pending.sent(sequence, sent_ns) {
            Some(false) => {
                self.counts.sent += 1;
                self.in_flight += 1;
                return true;
            }
            Some(true) => self.counts.resent += 1,
            // Its answer came while it waited to leave again.
            None => {
                self.counts.resent += 1;
                self.spare.allow(sequence, 1);
            }
        }
        false
    }

    /// Classifies a processed answer; one without a lane left outside the order.
    pub fn answered(&mut self, sequence: u64, lane: Option<Lane>) -> Class {
        let class = self.classify(sequence);
        let Some(flight) = class else {
            return self.without_flight(sequence);
        };
        self.counts.answered += 1;
        if let Some(lane) = lane {
            let highest = &mut self.highest[lane as usize];
            match *highest {
                Some(seen) if sequence < seen => {
                    self.counts.reordered += 1;
                    self.reorder_distance_max = self.reorder_distance_max.max(seen - sequence);
                    self.note(Wrong::Reordered, sequence);
                }
                _ => *highest = Some(sequence),
            }
        }
        Class::Answered(flight)
    }

    /// Classifies a refusal. Refusals leave at once and have no order to keep.
    pub fn refused(&mut self, sequence: u64) -> Class {
        match self.classify(sequence) {
            Some(flight) => {
                self.counts.refused += 1;
                Class::Refused(flight)
            }
            None => self.without_flight(sequence),
        }
    }

    /// Counts an answer whose content or form is wrong, to this message where it says so.
    pub fn corrupted(&mut self, sequence: Option<u64>) {
        self.counts.corrupted += 1;
        if let Some(sequence) = sequence {
            self.note(Wrong::Corrupted, sequence);
        }
    }

    /// Counts an answer to an id that is not this connection's.
    pub fn foreign(&mut self) {
        self.counts.foreign += 1;
    }

    /// Counts an answer without an id.
    pub fn unattributed(&mut self) {
        self.counts.unattributed += 1;
    }

    /// Gives up every message last sent at or before `sent_until_ns`; how many there were.
    ///
    /// First sends happen in the order of sequences, so this stops at the first that is younger; only where something
    /// was sent again, which upsets that order, it looks at all. Nothing is sent at or before an instant that was given
    /// here before.
    pub fn expire(&mut self, sent_until_ns: u64) -> u64 {
        let mut given_up = 0;
        while let Some(sequence) = self.pending.oldest() {
            let sent_ns = self.pending.flight(sequence).and_then(|flight| flight.sent_ns);
            if sent_ns.is_none_or(|sent_ns| sent_ns > sent_until_ns) {
                break;
            }
            self.give_up(sequence);
            given_up += 1;
        }
        if self.counts.resent > 0 && sent_until_ns > self.expired_until_ns {
            self.expired_until_ns = sent_until_ns;
            let mut from = 0;
            while let Some((sequence, flight)) = self.pending.first_from(from) {
                if flight.sent_ns.is_some_and(|sent_ns| sent_ns <= sent_until_ns) {
                    self.give_up(sequence);
                    given_up += 1;
                }
                from = sequence + 1;
            }
        }
        given_up
    }

    /// Gives up everything under way, because no answer can come any more. What was never sent is not lost, it is
    /// unsent: it leaves the ledger uncounted.
    pub fn abandon(&mut self) {
        let under_way: Vec<u64> = self.pending.sequences().collect();
        for sequence in under_way {
            match self.pending.flight(sequence).and_then(|flight| flight.sent_ns) {
                Some(_) => self.give_up(sequence),
                None => drop(self.pending.take(sequence)),
            }
        }
    }

    /// The lowest sequence from `from` on that was issued and is in no final class, with its flight: step by step, what
    /// a reconnected client sends, again or for the first time.
    #[must_use]
    pub fn unanswered_from(&self, from: u64) -> Option<(u64, Flight)> {
        self.pending.first_from(from)
    }

    /// The lowest sequence that was issued and is in no final class.
    pub fn oldest_unanswered(&mut self) -> Option<u64> {
        self.pending.oldest()
    }

    /// How many messages have been issued and never sent.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.pending.len() - self.in_flight
    }

    /// How many messages have been sent and are not in any final class yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// By how many sequences the most displaced answer came late; 0 where none was.
    #[must_use]
    pub fn reorder_distance_max(&self) -> u64 {
        self.reorder_distance_max
    }

    /// The first lost sequences, at most [`MISSING_KEPT`], in the order in which they were given up.
    #[must_use]
    pub fn missing(&self) -> &[u64] {
        &self.missing
    }

    /// The first messages whose answers were wrong in this way, at most [`WRONG_KEPT`], in the order in which those came.
    pub fn wrong(&self, kind: Wrong) -> impl Iterator<Item = u64> {
        self.wrong.iter().filter(move |(of, _)| *of == kind).map(|&(_, sequence)| sequence)
    }

    #[cold]
    fn note(&mut self, kind: Wrong, sequence: u64) {
        if self.wrong(kind).count() < WRONG_KEPT {
            self.wrong.push((kind, sequence));
        }
    }

    /// Takes a message that has been sent out of what is under way.
    fn classify(&mut self, sequence: u64) -> Option<Flight> {
        // An answer to a message that still waits in our own buffer is a guess of the peer's: leave the message there.
        let flight = self.pending.take_sent(sequence)?;
        self.in_flight -= 1;
        self.spare.allow(sequence, flight.resends);
        Some(flight)
    }

    fn without_flight(&mut self, sequence: u64) -> Class {
        if sequence >= self.pending.next_sequence() || self.pending.flight(sequence).is_some() {
            self.counts.foreign += 1;
            self.note(Wrong::Foreign, sequence);
            return Class::Foreign;
        }
        match self.lost.remove(sequence) {
            Membership::Lost => {
                self.counts.late += 1;
                Class::Late
            }
            Membership::NotLost => match self.spare.take(sequence) {
                Allowance::Used => {
                    self.counts.repeated += 1;
                    Class::Repeated
                }
                Allowance::None => {
                    self.counts.duplicates += 1;
                    self.note(Wrong::Duplicate, sequence);
                    Class::Duplicate
                }
                Allowance::Forgotten => self.forgotten(),
            },
            Membership::Forgotten => self.forgotten(),
        }
    }

    fn forgotten(&mut self) -> Class {
        self.counts.unattributed += 1;
        Class::Unattributed
    }

    fn give_up(&mut self, sequence: u64) {
        let resends = self.pending.take(sequence).map_or(0, |flight| flight.resends);
        self.spare.allow(sequence, resends);
        self.in_flight -= 1;
        self.counts.lost += 1;
        self.lost.insert(sequence);
        if self.missing.len() < MISSING_KEPT {
            self.missing.push(sequence);
        }
    }
}

#[cfg(test)]
mod tests;
