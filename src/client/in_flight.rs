//! How many messages are sent and unanswered, over several loads at once, and when they were first as many as a mark.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts sent − answered − refused over all the loads that share it, and notes when the count first reached its mark:
/// the instant from which a queue that holds that many must be full, whatever the server says.
///
/// A message that timed out still counts, as the server may still hold it.
#[derive(Debug)]
pub struct InFlight {
    mark: u64,
    count: AtomicU64,
    /// 0 as long as the mark was not reached.
    reached_unix_ns: AtomicU64,
}

impl InFlight {
    /// Nothing is in flight; `mark` is to be noted.
    #[must_use]
    pub fn with_mark(mark: u64) -> Self {
        Self { mark, count: AtomicU64::new(0), reached_unix_ns: AtomicU64::new(0) }
    }

    /// When the mark was first reached, in nanoseconds since the Unix epoch.
    #[must_use]
    pub fn reached_unix_ns(&self) -> Option<u64> {
        Some(self.reached_unix_ns.load(Ordering::Acquire)).filter(|&ns| ns > 0)
    }

    /// So many more were sent, at `unix_ns`.
    pub(super) fn sent(&self, messages: u64, unix_ns: u64) {
        let before = self.count.fetch_add(messages, Ordering::AcqRel);
        if before < self.mark && before + messages >= self.mark {
            // The first to pass the mark; a later one finds it noted.
            let _ = self.reached_unix_ns.compare_exchange(0, unix_ns, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// One was answered or refused.
    pub(super) fn settled(&self) {
        // Only what was sent is settled, and once.
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_noted_when_it_is_first_reached() {
        let in_flight = InFlight::with_mark(3);
        in_flight.sent(2, 100);
        in_flight.settled();
        in_flight.sent(1, 200);
        assert_eq!(in_flight.reached_unix_ns(), None);
        in_flight.sent(5, 300);
        (0..6).for_each(|_| in_flight.settled());
        in_flight.sent(3, 400);
        assert_eq!(in_flight.reached_unix_ns(), Some(300));
    }
}
