//! How many more answers a message may get that was sent more than once, so that they are known from duplicates.

use std::collections::BTreeMap;

/// Answers that are still allowed for, bounded: beyond the bound the lowest message is forgotten.
#[derive(Debug)]
pub(super) struct SpareAnswers {
    /// By sequence; never 0.
    allowed: BTreeMap<u64, u32>,
    capacity: usize,
    /// Below this sequence it is no longer known what is allowed.
    known_from: u64,
}

/// Whether one more answer to a message is allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Allowance {
    /// It was, and is used up now.
    Used,
    None,
    Forgotten,
}

impl SpareAnswers {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { allowed: BTreeMap::new(), capacity: capacity.max(1), known_from: 0 }
    }

    /// Allows so many more answers to a message.
    pub(super) fn allow(&mut self, sequence: u64, answers: u32) {
        if answers == 0 {
            return;
        }
        let allowed = self.allowed.entry(sequence).or_default();
        *allowed = allowed.saturating_add(answers);
        if self.allowed.len() > self.capacity
            && let Some((sequence, _)) = self.allowed.pop_first()
        {
            self.known_from = self.known_from.max(sequence + 1);
        }
    }

    pub(super) fn take(&mut self, sequence: u64) -> Allowance {
        match self.allowed.get_mut(&sequence) {
            Some(allowed) => {
                *allowed -= 1;
                if *allowed == 0 {
                    self.allowed.remove(&sequence);
                }
                Allowance::Used
            }
            None if sequence < self.known_from => Allowance::Forgotten,
            None => Allowance::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_lowest_beyond_its_bound_and_says_so() {
        let mut spare = SpareAnswers::with_capacity(2);
        for (sequence, answers) in [(10, 1), (20, 2), (30, 1), (40, 0)] {
            spare.allow(sequence, answers);
        }
        assert_eq!((spare.take(10), spare.take(5)), (Allowance::Forgotten, Allowance::Forgotten));
        assert_eq!(
            (spare.take(20), spare.take(20), spare.take(20)),
            (Allowance::Used, Allowance::Used, Allowance::None)
        );
        assert_eq!((spare.take(40), spare.take(30)), (Allowance::None, Allowance::Used));
    }
}
