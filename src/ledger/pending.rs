//! What is under way: the due and sent instants of every message that has no answer yet, found by sequence.
//!
//! Sequences are handed out in order, so a ring finds them without hashing. A message that stays unanswered while the
//! ring moves on is a hole; once holes would make the ring grow, they move to a side map. So the ring is as large as
//! what is really under way, however much is lost and however long the run.

use std::collections::BTreeMap;

/// The instants of one message, in nanoseconds of the run's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flight {
    /// When the schedule wanted it sent; `None` in a closed loop.
    pub due_ns: Option<u64>,
    /// When its first byte last went to the kernel; `None` while it waits in a buffer.
    pub sent_ns: Option<u64>,
    /// How often it was sent again.
    pub resends: u32,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    due_ns: u64,
    sent_ns: u64,
    resends: u32,
    occupied: bool,
}

/// Stands for "none" in a slot, where an `Option` would double its size. No run lasts 584 years.
const NONE: u64 = u64::MAX;
const EMPTY: Slot = Slot { due_ns: NONE, sent_ns: NONE, resends: 0, occupied: false };
/// A quiet connection should cost next to nothing: 8 slots are 192 bytes.
const INITIAL_SLOTS: usize = 8;

/// The messages under way of one connection.
#[derive(Debug, Default)]
pub struct Pending {
    /// Power-of-two ring; the slot of sequence `s` is `s % len`.
    ring: Vec<Slot>,
    /// The lowest sequence whose slot is in the ring.
    base: u64,
    /// The next sequence to be handed out; `base..next` is in the ring.
    next: u64,
    /// How many slots of the ring are occupied.
    in_ring: usize,
    /// Holes that the ring left behind.
    holes: BTreeMap<u64, Flight>,
}

impl Pending {
    /// Hands out the next sequence, for a message due at `due_ns`.
    pub fn issue(&mut self, due_ns: Option<u64>) -> u64 {
        if (self.next - self.base) as usize == self.ring.len() {
            self.make_room();
        }
        let sequence = self.next;
        self.next += 1;
        self.in_ring += 1;
        let at = self.index(sequence);
        self.ring[at] = Slot { due_ns: due_ns.unwrap_or(NONE), sent_ns: NONE, resends: 0, occupied: true };
        sequence
    }

    /// The next sequence that [`Pending::issue`] will hand out.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// How many messages are under way, those that wait in a buffer included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.in_ring + self.holes.len()
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes that a message went to the kernel at `sent_ns`. Whether it had been sent before, or `None` where it is
    /// not under way any more.
    pub fn sent(&mut self, sequence: u64, sent_ns: u64) -> Option<bool> {
        if let Some(at) = self.occupied(sequence) {
            let slot = &mut self.ring[at];
            let again = slot.sent_ns != NONE;
            slot.sent_ns = sent_ns;
            slot.resends += u32::from(again);
            return Some(again);
        }
        let flight = self.holes.get_mut(&sequence)?;
        let again = flight.sent_ns.replace(sent_ns).is_some();
        flight.resends += u32::from(again);
        Some(again)
    }

    /// The flight of a message that is under way.
    #[must_use]
    pub fn flight(&self, sequence: u64) -> Option<Flight> {
        match self.occupied(sequence) {
            Some(at) => Some(self.ring[at].flight()),
            None => self.holes.get(&sequence).copied(),
        }
    }

    /// Takes a message out: it got its answer, or was given up.
    pub fn take(&mut self, sequence: u64) -> Option<Flight> {
        let Some(at) = self.occupied(sequence) else {
            return self.holes.remove(&sequence);
        };
        let flight = self.ring[at].flight();
        self.ring[at].occupied = false;
        self.in_ring -= 1;
        Some(flight)
    }

    /// Takes a message out that has been sent: it got its answer.
    #[inline]
    pub fn take_sent(&mut self, sequence: u64) -> Option<Flight> {
        let Some(at) = self.occupied(sequence) else {
            self.holes.get(&sequence)?.sent_ns?;
            return self.holes.remove(&sequence);
        };
        let slot = &mut self.ring[at];
        if slot.sent_ns == NONE {
            return None;
        }
        slot.occupied = false;
        self.in_ring -= 1;
        Some(slot.flight())
    }

    /// The lowest sequence under way.
    pub fn oldest(&mut self) -> Option<u64> {
        self.skip_free();
        match self.holes.first_key_value() {
            Some((&sequence, _)) => Some(sequence),
            None => (self.base < self.next).then_some(self.base),
        }
    }

    /// The lowest sequence under way from `from` on, with its flight.
    #[must_use]
    pub fn first_from(&self, from: u64) -> Option<(u64, Flight)> {
        if let Some((&sequence, &flight)) = self.holes.range(from..).next() {
            // Holes are below the ring.
            return Some((sequence, flight));
        }
        let sequence =
            (from.max(self.base)..self.next).find(|&sequence| self.occupied(sequence).is_some())?;
        Some((sequence, self.ring[self.index(sequence)].flight()))
    }

    /// The sequences under way, in order.
    pub fn sequences(&self) -> impl Iterator<Item = u64> + '_ {
        let in_ring = (self.base..self.next).filter(|&sequence| self.occupied(sequence).is_some());
        self.holes.keys().copied().chain(in_ring)
    }

    fn index(&self, sequence: u64) -> usize {
        sequence as usize & (self.ring.len() - 1)
    }

    fn occupied(&self, sequence: u64) -> Option<usize> {
        if sequence < self.base || sequence >= self.next {
            return None;
        }
        let at = self.index(sequence);
        self.ring[at].occupied.then_some(at)
    }

    /// The ring is full of slots, though perhaps not of messages: drop answered slots from the front, move holes aside
    /// while messages fill less than half of it, and double it only where they really need the room.
    fn make_room(&mut self) {
        self.skip_free();
        let full = self.ring.len();
        while (self.next - self.base) as usize == full && full > 0 && self.in_ring * 2 <= full {
            let at = self.index(self.base);
            let flight = self.ring[at].flight();
            self.ring[at].occupied = false;
            self.in_ring -= 1;
            self.holes.insert(self.base, flight);
            self.skip_free();
        }
        if (self.next - self.base) as usize == full {
            self.grow();
        }
    }

    fn skip_free(&mut self) {
        while self.base < self.next && self.occupied(self.base).is_none() {
            self.base += 1;
        }
    }

    fn grow(&mut self) {
        let size = (self.ring.len() * 2).max(INITIAL_SLOTS);
        let mut grown = vec![EMPTY; size];
        for sequence in self.base..self.next {
            grown[sequence as usize & (size - 1)] = self.ring[self.index(sequence)];
        }
        self.ring = grown;
    }
}

impl Slot {
    fn flight(&self) -> Flight {
        let some = |ns: u64| (ns != NONE).then_some(ns);
        Flight { due_ns: some(self.due_ns), sent_ns: some(self.sent_ns), resends: self.resends }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn loss_does_not_grow_the_ring() {
        let mut pending = Pending::default();
        for n in 0..1_000_000_u64 {
            assert_eq!(pending.issue(Some(n)), n);
            // Every thousandth is never answered; the others after 16 more.
            if n >= 16 && (n - 16) % 1_000 != 0 {
                assert!(pending.take(n - 16).is_some());
            }
        }
        assert!(pending.ring.len() <= 64, "{} slots", pending.ring.len());
        assert_eq!(pending.len(), 1_000 + 16);
        assert_eq!(pending.flight(5_000).unwrap().due_ns, Some(5_000));
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in proptest::collection::vec((0_u8..5, any::<prop::sample::Index>()), 1..400)) {
            let mut pending = Pending::default();
            let mut model: BTreeMap<u64, Flight> = BTreeMap::new();
            for (time, (kind, pick)) in steps.into_iter().enumerate() {
                let time = time as u64;
                let target = pick.index(pending.next_sequence() as usize + 2) as u64;
                match kind {
                    0 | 1 => {
                        let due_ns = (kind == 0).then_some(time);
                        let sequence = pending.issue(due_ns);
                        model.insert(sequence, Flight { due_ns, sent_ns: None, resends: 0 });
                    }
                    2 => {
                        let expected = model.get_mut(&target).map(|flight| {
                            let again = flight.sent_ns.replace(time).is_some();
                            flight.resends += u32::from(again);
                            again
                        });
                        prop_assert_eq!(pending.sent(target, time), expected);
                    }
                    3 => {
                        let sent = model.get(&target).is_some_and(|flight| flight.sent_ns.is_some());
                        let expected = if sent { model.remove(&target) } else { None };
                        prop_assert_eq!(pending.take_sent(target), expected);
                    }
                    _ => prop_assert_eq!(pending.take(target), model.remove(&target)),
                }
                prop_assert_eq!((pending.len(), pending.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(pending.flight(target), model.get(&target).copied());
                prop_assert_eq!(pending.oldest(), model.keys().next().copied());
                let first = model.range(target..).next().map(|(&sequence, &flight)| (sequence, flight));
                prop_assert_eq!(pending.first_from(target), first);
            }
            prop_assert!(pending.sequences().eq(model.keys().copied()));
        }
    }
}
