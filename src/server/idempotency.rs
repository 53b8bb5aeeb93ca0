//! Which messages have been processed.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::message::WallTime;

/// A memory of the ids of processed messages.
///
/// The server looks among what is in work first and here after, so an id must be found here once its [`Recording`]
/// is done.
pub trait ProcessedIds: fmt::Debug + Send + Sync {
    /// When the message was processed; `None` where it was not, or that is forgotten. Never waits.
    fn lookup(&self, id: &str) -> Option<WallTime>;

    /// Remembers that the message was processed at `at`, unless that is known.
    fn record(&self, id: &str, at: WallTime) -> Recording;

    /// Whether a recording may take time: then every request goes through the server's engine, which holds answers
    /// back until the recordings before them are done.
    fn is_durable(&self) -> bool;
}

/// How far the recording of an id has come.
pub enum Recording {
    /// It is remembered.
    Done(Recorded),
    /// It is under way: the message may be answered when this is ready, and only where it is no error.
    Pending(Pin<Box<dyn Future<Output = Result<Recorded, RecordingFailed>> + Send>>),
}

/// What was known of an id when it was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// Nothing.
    First,
    /// It was processed before, at this time, which stays.
    Again(WallTime),
}

/// An id could not be recorded, so its message must not be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the id could not be recorded")]
pub struct RecordingFailed;

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(recorded) => f.debug_tuple("Done").field(recorded).finish(),
            Self::Pending(_) => f.write_str("Pending"),
        }
    }
}

/// Remembers the ids of processed messages: as many as it may, the oldest go first, and for a time.
#[derive(Debug)]
pub(super) struct MemoryStore {
    known: Mutex<Known>,
    max_ids: usize,
    max_age_ns: u64,
}

#[derive(Debug, Default)]
struct Known {
    /// When a message was processed.
    at: HashMap<Arc<str>, WallTime>,
    /// The same ids, oldest first.
    order: VecDeque<(WallTime, Arc<str>)>,
}

impl MemoryStore {
    pub(super) fn new(max_ids: usize, max_age: Duration) -> Self {
        let max_age_ns = u64::try_from(max_age.as_nanos()).unwrap_or(u64::MAX);
        Self { known: Mutex::default(), max_ids, max_age_ns }
    }

    /// A panic elsewhere leaves the map usable: every change above is whole before the lock is given back.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProcessedIds for MemoryStore {
    fn lookup(&self, id: &str) -> Option<WallTime> {
        self.known().at.get(id).copied()
    }

    fn record(&self, id: &str, at: WallTime) -> Recording {
        let mut known = self.known();
        if let Some(&original) = known.at.get(id) {
            return Recording::Done(Recorded::Again(original));
        }
        let id: Arc<str> = id.into();
        known.at.insert(Arc::clone(&id), at);
        known.order.push_back((at, id));
        while let Some((oldest, _)) = known.order.front() {
            let age_ns = at.as_unix_ns().saturating_sub(oldest.as_unix_ns());
            if known.order.len() <= self.max_ids && age_ns <= self.max_age_ns {
                break;
            }
            if let Some((_, id)) = known.order.pop_front() {
                known.at.remove(&id);
            }
        }
        Recording::Done(Recorded::First)
    }

    fn is_durable(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(store: &MemoryStore, id: &str, at: WallTime) -> Recorded {
        match store.record(id, at) {
            Recording::Done(recorded) => recorded,
            Recording::Pending(_) => panic!("memory is at once"),
        }
    }

    fn at(seconds: u64) -> WallTime {
        WallTime::from_unix_ns(seconds * 1_000_000_000)
    }

    #[test]
    fn an_id_is_recorded_once() {
        let store = MemoryStore::new(10, Duration::from_secs(100));
        assert_eq!(store.lookup("a"), None);
        assert_eq!(record(&store, "a", at(1)), Recorded::First);
        assert_eq!(record(&store, "a", at(2)), Recorded::Again(at(1)));
        assert_eq!(store.lookup("a"), Some(at(1)));
    }

    #[test]
    fn the_oldest_are_forgotten_by_count_and_by_age() {
        let store = MemoryStore::new(2, Duration::from_secs(100));
        for (second, id) in [(1, "a"), (2, "b"), (3, "c")] {
            assert_eq!(record(&store, id, at(second)), Recorded::First);
        }
        assert_eq!((store.lookup("a"), store.lookup("b")), (None, Some(at(2))));
        assert_eq!(record(&store, "d", at(103)), Recorded::First);
        assert_eq!(
            (store.lookup("b"), store.lookup("c"), store.lookup("d")),
            (None, Some(at(3)), Some(at(103)))
        );
    }
}
