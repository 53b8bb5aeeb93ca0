//! Which ids the server has processed, so that a resend is recognised and not processed again.
//!
//! Two stores of the same meaning: [`MemoryStore`] forgets everything with the process; [`DurableStore`] answers only
//! when the disk has it, and keeps an execution journal beside it from which a judge reads how often each id was
//! processed ([`read_journal`]). Both are bounded by a [`Retention`], so memory stays flat under endless load.
//! Both are [`ProcessedIds`], the one seam between the server and what it remembers.

mod database;
mod durable;
#[cfg(test)]
mod kill_tests;
mod memory;

use std::fmt;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use database::{JournalEntry, JournalError, OpenError, read_journal};
pub use durable::{DurableConfig, DurableStore, PendingWrite, RecordError};
pub use memory::MemoryStore;

/// How much an idempotency store remembers. Whichever bound is reached first forgets the oldest id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The most ids remembered at a time.
    pub max_ids: NonZeroUsize,
    /// An id older than this is forgotten, when the next one is recorded.
    pub max_age: Duration,
}

impl Retention {
    /// At 10,000 messages a second, 40 s: longer than the 30 s for which a client waits before it gives a message up,
    /// so nobody resends what was forgotten. Full, it measured 51 MiB with ids of 24 bytes.
    pub const DEFAULT_MAX_IDS: NonZeroUsize = NonZeroUsize::new(400_000).unwrap();

    /// Longer than any client keeps trying, outages included.
    pub const DEFAULT_MAX_AGE: Duration = Duration::from_secs(600);

    /// Whether an id processed at `processed_unix_ns` is too old at `now_unix_ns`. A clock that was set back makes
    /// nothing old.
    fn is_over_age(&self, processed_unix_ns: u64, now_unix_ns: u64) -> bool {
        u128::from(now_unix_ns.saturating_sub(processed_unix_ns)) > self.max_age.as_nanos()
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { max_ids: Self::DEFAULT_MAX_IDS, max_age: Self::DEFAULT_MAX_AGE }
    }
}

/// The longest id of a message that is to be processed once: ids are remembered by the hundred thousand, so memory is
/// flat only where each is bounded. Four times what a UUID with a long prefix takes.
pub const MAX_ID_BYTES: usize = 256;

/// A memory of the ids of processed messages; all times are in nanoseconds since the Unix epoch.
///
/// It knows what *was* processed; what is queued or in work is the server's to know. The server looks among what is in
/// work **first** and here after: in the other order an id could move from one to the other between the two looks and
/// be missed by both. So an id must be found here once its [`Recording`] is done.
pub trait ProcessedIds: fmt::Debug + Send + Sync {
    /// When the message was processed; `None` where it was not, or that is forgotten. Never waits.
    fn lookup(&self, id: &str) -> Option<u64>;

    /// Remembers that the message was processed at `now_unix_ns`, unless that is known.
    fn record(&self, id: &str, now_unix_ns: u64) -> Recording;

    /// Remembers the id as [`record`](Self::record) does, but not as an execution: a journal has nothing of it. It is
    /// there for servers that are to do wrong on purpose; one that processes records.
    fn remember(&self, id: &str, now_unix_ns: u64) -> Recording {
        self.record(id, now_unix_ns)
    }

    /// Whether a recording may take time: then every request goes through the server's engine, which holds answers
    /// back until the recordings before them are done.
    fn is_durable(&self) -> bool;
}

/// How far the recording of an id has come.
#[must_use = "an id may be answered only once its recording is done"]
pub enum Recording {
    /// It is remembered.
    Done(Recorded),
    /// It is under way: the message may be answered when this is ready, and only where it is no error.
    Pending(Pin<Box<dyn Future<Output = Result<Recorded, RecordError>> + Send>>),
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(recorded) => f.debug_tuple("Done").field(recorded).finish(),
            Self::Pending(_) => f.write_str("Pending"),
        }
    }
}

/// What the store knew of an id when it was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It was new, and is remembered from now on.
    First,
    /// It was remembered already and stays as it was: it has been processed twice.
    Again {
        /// When it was first processed, in nanoseconds since the Unix epoch.
        original_unix_ns: u64,
    },
}

impl ProcessedIds for Mutex<MemoryStore> {
    fn lookup(&self, id: &str) -> Option<u64> {
        lock(self).lookup(id)
    }

    fn record(&self, id: &str, now_unix_ns: u64) -> Recording {
        Recording::Done(lock(self).record(id, now_unix_ns))
    }

    fn is_durable(&self) -> bool {
        false
    }
}

impl ProcessedIds for DurableStore {
    fn lookup(&self, id: &str) -> Option<u64> {
        self.lookup(id)
    }

    fn record(&self, id: &str, now_unix_ns: u64) -> Recording {
        Recording::Pending(Box::pin(self.record(id, now_unix_ns)))
    }

    fn remember(&self, id: &str, now_unix_ns: u64) -> Recording {
        Recording::Pending(Box::pin(self.remember(id, now_unix_ns)))
    }

    fn is_durable(&self) -> bool {
        true
    }
}

/// Locks a store in memory. No code that runs under the lock leaves it half-changed, so a poisoned one is still good.
fn lock(store: &Mutex<MemoryStore>) -> MutexGuard<'_, MemoryStore> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn done(recording: Recording) -> Recorded {
        match recording {
            Recording::Done(recorded) => recorded,
            Recording::Pending(write) => write.await.unwrap(),
        }
    }

    #[tokio::test]
    async fn both_stores_answer_alike() {
        let dir = tempfile::tempdir().unwrap();
        let retention = Retention { max_ids: NonZeroUsize::new(2).unwrap(), max_age: Duration::from_secs(1) };
        let config = DurableConfig { retention, ..DurableConfig::default() };
        let durable = DurableStore::open(dir.path(), &config).unwrap();
        let stores: [(Box<dyn ProcessedIds>, bool); 2] =
            [(Box::new(Mutex::new(MemoryStore::new(retention))), false), (Box::new(durable), true)];
        for (store, is_durable) in stores {
            assert_eq!(store.is_durable(), is_durable);
            let record = |id, at| done(store.record(id, at));
            for (id, at) in [("a", 1), ("b", 2)] {
                assert_eq!(record(id, at).await, Recorded::First);
            }
            let again = record("a", 3).await;
            assert_eq!(again, Recorded::Again { original_unix_ns: 1 });
            assert_eq!(record("c", 4).await, Recorded::First);
            assert_eq!(["a", "b", "c"].map(|id| store.lookup(id)), [None, Some(2), Some(4)]);
            assert_eq!(record("d", 1_000_000_003).await, Recorded::First);
            assert_eq!(["b", "c", "d"].map(|id| store.lookup(id)), [None, Some(4), Some(1_000_000_003)]);
        }
    }

    #[test]
    fn the_age_bound_counts_every_nanosecond_of_the_longest_duration() {
        let retention = Retention { max_ids: NonZeroUsize::MIN, max_age: Duration::MAX };
        assert!(!retention.is_over_age(0, u64::MAX));
        let retention = Retention { max_age: Duration::ZERO, ..retention };
        assert!(!retention.is_over_age(5, 5) && retention.is_over_age(5, 6) && !retention.is_over_age(6, 5));
    }
}
