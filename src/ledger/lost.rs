//! Which messages were given up, so that an answer that comes after all is known as late and not as a duplicate.

use std::collections::BTreeMap;

/// A set of sequences as intervals, bounded: beyond the bound the lowest interval is forgotten.
#[derive(Debug)]
pub(super) struct LostSet {
    /// First to last sequence of each interval, none touching another.
    intervals: BTreeMap<u64, u64>,
    capacity: usize,
    /// Below this sequence it is no longer known what was lost.
    known_from: u64,
}

/// What the set knows of a sequence.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Membership {
    Lost,
    NotLost,
    Forgotten,
}

impl LostSet {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { intervals: BTreeMap::new(), capacity: capacity.max(1), known_from: 0 }
    }

    pub(super) fn insert(&mut self, sequence: u64) {
        let before = self.intervals.range(..=sequence).next_back().map(|(&first, &last)| (first, last));
        if before.is_some_and(|(_, last)| last >= sequence) {
            return;
        }
        let last = match self.intervals.remove(&(sequence + 1)) {
            Some(last) => last,
            None => sequence,
        };
        match before {
            Some((first, until)) if until + 1 == sequence => self.intervals.insert(first, last),
            _ => self.intervals.insert(sequence, last),
        };
        if self.intervals.len() > self.capacity
            && let Some((_, last)) = self.intervals.pop_first()
        {
            self.known_from = self.known_from.max(last + 1);
        }
    }

    pub(super) fn remove(&mut self, sequence: u64) -> Membership {
        let Some((&first, &last)) = self.intervals.range(..=sequence).next_back() else {
            return self.absent(sequence);
        };
        if last < sequence {
            return self.absent(sequence);
        }
        self.intervals.remove(&first);
        if first < sequence {
            self.intervals.insert(first, sequence - 1);
        }
        if sequence < last {
            self.intervals.insert(sequence + 1, last);
        }
        Membership::Lost
    }

    fn absent(&self, sequence: u64) -> Membership {
        if sequence < self.known_from { Membership::Forgotten } else { Membership::NotLost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn forgets_the_lowest_beyond_its_bound_and_says_so() {
        let mut lost = LostSet::with_capacity(2);
        for sequence in [10, 20, 30] {
            lost.insert(sequence);
        }
        assert_eq!(lost.remove(10), Membership::Forgotten);
        assert_eq!(lost.remove(5), Membership::Forgotten);
        assert_eq!(lost.remove(11), Membership::NotLost);
        assert_eq!(lost.remove(20), Membership::Lost);
        assert_eq!(lost.remove(20), Membership::NotLost);
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(steps in proptest::collection::vec((any::<bool>(), 0_u64..40), 1..200)) {
            let mut lost = LostSet::with_capacity(1_000);
            let mut model = BTreeSet::new();
            for (insert, sequence) in steps {
                if insert {
                    lost.insert(sequence);
                    model.insert(sequence);
                } else {
                    let expected = if model.remove(&sequence) { Membership::Lost } else { Membership::NotLost };
                    prop_assert_eq!(lost.remove(sequence), expected);
                }
                let runs = model.iter().filter(|&&s| s == 0 || !model.contains(&(s - 1))).count();
                prop_assert_eq!(lost.intervals.len(), runs);
            }
        }
    }
}
