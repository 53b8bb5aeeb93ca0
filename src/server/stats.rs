//! The server's counters: one set a worker, added up when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count that one thread writes and any may read: no locked instruction on the way of a message.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// Only ever called by the thread that owns the set.
    pub(super) fn add_one(&self) {
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(super) fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one thread counts. On cache lines of its own, so that workers do not slow each other.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counters {
    /// Frames that hold a message, of any type.
    pub(super) messages: Count,
    /// Frames that cannot be read.
    pub(super) errors: Count,
    /// Requests for work: `admitted`, `refused` and repeats of an id.
    pub(super) received: Count,
    /// Requests taken into processing or its queue.
    pub(super) admitted: Count,
    /// Requests whose processing is done.
    pub(super) processed: Count,
    /// Requests answered `queue_full`.
    pub(super) refused: Count,
    /// Answers to processed requests and `duplicate_rejected`.
    pub(super) answered: Count,
}
