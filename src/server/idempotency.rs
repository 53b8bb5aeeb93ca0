//! Which messages have been processed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::message::WallTime;

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

    /// When the message was processed; `None` where it was not, or that is forgotten.
    pub(super) fn lookup(&self, id: &str) -> Option<WallTime> {
        self.known().at.get(id).copied()
    }

    /// Remembers that the message was processed at `at`.
    ///
    /// # Errors
    /// Where it was processed before, with the time of that.
    pub(super) fn record(&self, id: &str, at: WallTime) -> Result<(), WallTime> {
        let mut known = self.known();
        if let Some(&original) = known.at.get(id) {
            return Err(original);
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
        Ok(())
    }

    /// A panic elsewhere leaves the map usable: every change above is whole before the lock is given back.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> WallTime {
        WallTime::from_unix_ns(seconds * 1_000_000_000)
    }

    #[test]
    fn an_id_is_recorded_once() {
        let store = MemoryStore::new(10, Duration::from_secs(100));
        assert_eq!(store.lookup("a"), None);
        assert_eq!(store.record("a", at(1)), Ok(()));
        assert_eq!(store.record("a", at(2)), Err(at(1)));
        assert_eq!(store.lookup("a"), Some(at(1)));
    }

    #[test]
    fn the_oldest_are_forgotten_by_count_and_by_age() {
        let store = MemoryStore::new(2, Duration::from_secs(100));
        for (second, id) in [(1, "a"), (2, "b"), (3, "c")] {
            assert_eq!(store.record(id, at(second)), Ok(()));
        }
        assert_eq!((store.lookup("a"), store.lookup("b")), (None, Some(at(2))));
        assert_eq!(store.record("d", at(103)), Ok(()));
        assert_eq!(
            (store.lookup("b"), store.lookup("c"), store.lookup("d")),
            (None, Some(at(3)), Some(at(103)))
        );
    }
}
