//! Processed ids in memory, bounded by count and by age.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::{Recorded, Retention};

/// Processed ids and when each was processed, the oldest forgotten first.
///
/// Every operation takes constant time (amortised over the ids that age out). An id is stored once, in one
/// allocation that the map and the queue share. Time is passed in, so the store behaves the same in a simulation.
#[derive(Debug)]
pub struct MemoryStore {
    /// What is forgotten, and when; fixed for the store's life.
    retention: Retention,
    /// Nanoseconds since the Unix epoch at which each remembered id was processed. Keyed with the standard library's
    /// seeded hash, because ids come from a network and could be chosen to collide.
    processed_unix_ns: HashMap<Arc<str>, u64>,
    /// The same ids in the order of their recording, the oldest in front.
    order: VecDeque<Arc<str>>,
}

impl MemoryStore {
    /// A store that remembers nothing yet. It grows with use, never beyond what `retention` allows.
    #[must_use]
    pub fn new(retention: Retention) -> Self {
        Self { retention, processed_unix_ns: HashMap::new(), order: VecDeque::new() }
    }

    /// When `id` was processed, in nanoseconds since the Unix epoch; `None` where it was not, or is forgotten.
    #[must_use]
    pub fn lookup(&self, id: &str) -> Option<u64> {
        self.processed_unix_ns.get(id).copied()
    }

    /// Records that `id` was processed at `now_unix_ns`, nanoseconds since the Unix epoch.
    ///
    /// First forgets what is over age by then. An id still remembered keeps its time and its place. The order is that
    /// of the calls, whatever the times say: while a clock that was set back keeps the oldest id young, the younger
    /// ones stay too, up to the bound by count.
    pub fn record(&mut self, id: &str, now_unix_ns: u64) -> Recorded {
        self.forget_over_age(now_unix_ns);
        if let Some(original_unix_ns) = self.lookup(id) {
            return Recorded::Again { original_unix_ns };
        }
        if self.order.len() >= self.retention.max_ids.get() {
            self.forget_oldest();
        }
        self.restore(id, now_unix_ns);
        Recorded::First
    }

    /// The number of ids remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The remembered ids with the Unix time, in nanoseconds, at which each was processed, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.order
            .iter()
            .filter_map(|id| self.processed_unix_ns.get_key_value(id))
            .map(|(id, &at)| (&**id, at))
    }

    /// Appends an id that is not remembered, forgetting nothing: what was kept by another store of the same retention.
    pub(super) fn restore(&mut self, id: &str, processed_unix_ns: u64) {
        let id: Arc<str> = Arc::from(id);
        self.processed_unix_ns.insert(Arc::clone(&id), processed_unix_ns);
        self.order.push_back(id);
    }

    fn forget_over_age(&mut self, now_unix_ns: u64) {
        while let Some(oldest) = self.order.front()
            && let Some(&at) = self.processed_unix_ns.get(oldest)
            && self.retention.is_over_age(at, now_unix_ns)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.order.pop_front() {
            self.processed_unix_ns.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn retention(max_ids: usize, max_age_ns: u64) -> Retention {
        Retention { max_ids: NonZeroUsize::new(max_ids).unwrap(), max_age: Duration::from_nanos(max_age_ns) }
    }

    /// The same rules over a plain list.
    struct Model {
        max_ids: usize,
        max_age_ns: u64,
        remembered: Vec<(String, u64)>,
    }

    impl Model {
        fn record(&mut self, id: &str, now: u64) -> Recorded {
            let keep_from = self
                .remembered
                .iter()
                .position(|&(_, at)| now < at || now - at <= self.max_age_ns)
                .unwrap_or(self.remembered.len());
            self.remembered.drain(..keep_from);
            if let Some((_, at)) = self.remembered.iter().find(|(known, _)| known == id) {
                return Recorded::Again { original_unix_ns: *at };
            }
            self.remembered.push((id.to_owned(), now));
            let excess = self.remembered.len().saturating_sub(self.max_ids);
            self.remembered.drain(..excess);
            Recorded::First
        }
    }

    proptest! {
        #[test]
        fn it_remembers_what_a_plain_list_would(
            max_ids in 1_usize..12,
            max_age_ns in 0_u64..40,
            // A negative step is a clock set back.
            calls in prop::collection::vec((0_u8..20, -5_i64..12), 0..200),
        ) {
            let mut store = MemoryStore::new(retention(max_ids, max_age_ns));
            let mut model = Model { max_ids, max_age_ns, remembered: Vec::new() };
            let mut now = 1_000_u64;
            for (id, step) in calls {
                now = now.saturating_add_signed(step);
                let id = format!("c-{id}");
                prop_assert_eq!(store.record(&id, now), model.record(&id, now));
                let remembered: Vec<_> = store.iter().map(|(id, at)| (id.to_owned(), at)).collect();
                prop_assert_eq!(&remembered, &model.remembered);
                prop_assert_eq!(store.len(), model.remembered.len());
                prop_assert_eq!(store.is_empty(), model.remembered.is_empty());
                for n in 0..20 {
                    let id = format!("c-{n}");
                    let expected = model.remembered.iter().find(|(known, _)| *known == id).map(|&(_, at)| at);
                    prop_assert_eq!(store.lookup(&id), expected);
                }
            }
        }
    }

    #[test]
    fn an_id_is_forgotten_just_after_its_age() {
        let mut store = MemoryStore::new(retention(10, 100));
        assert_eq!(store.record("a", 1_000), Recorded::First);
        assert_eq!(store.record("b", 1_100), Recorded::First);
        assert_eq!(store.lookup("a"), Some(1_000));
        assert_eq!(store.record("a", 1_101), Recorded::First);
        assert_eq!(store.record("b", 1_101), Recorded::Again { original_unix_ns: 1_100 });
    }

    #[test]
    fn memory_stays_flat_under_endless_load() {
        let mut store = MemoryStore::new(retention(1_000, u64::MAX));
        for n in 0_u64..300_000 {
            store.record(&format!("c-{n}"), n);
        }
        assert_eq!(store.len(), 1_000);
        // The map may double once, to make room for the marks of removed ids, never again.
        let (map, order) = (store.processed_unix_ns.capacity(), store.order.capacity());
        assert!(map < 4_000 && order <= 2_000, "{map} {order}");
    }
}
