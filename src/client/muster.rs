//! Where loads of one process wait for each other, so that all start at one instant.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Stop;
use crate::clock::unix_now_ns;

/// From the last load that is ready to the start: time for the others to be woken.
const AFTER_THE_LAST: Duration = Duration::from_millis(100);
/// How often a load that waits looks whether the user has ended it all.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Loads that start together, as soon as the connections of all are open.
#[derive(Debug, Default)]
pub struct Muster {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Loads that are neither ready nor gone.
    absent: usize,
    /// The start, set by the last that was ready.
    start_unix_ns: u64,
}

/// The place of one load in a [`Muster`]. Dropped before the load is ready, it keeps the others waiting no longer.
#[derive(Debug)]
pub struct Place {
    muster: Arc<Muster>,
    filled: Mutex<bool>,
}

impl Muster {
    /// A place for each of so many loads; all are awaited.
    #[must_use]
    pub fn of(loads: usize) -> Vec<Arc<Place>> {
        let waiting = Mutex::new(Waiting { absent: loads, start_unix_ns: 0 });
        let muster = Arc::new(Self { waiting, ..Self::default() });
        let place = || Arc::new(Place { muster: Arc::clone(&muster), filled: Mutex::new(false) });
        (0..loads).map(|_| place()).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more is ready, or gone.
    fn one_less(&self) {
        let mut waiting = self.waiting();
        waiting.absent = waiting.absent.saturating_sub(1);
        waiting.start_unix_ns = unix_now_ns() + AFTER_THE_LAST.as_nanos() as u64;
        self.changed.notify_all();
    }
}

impl Place {
    /// This load's connections are open: waits until the others are ready or gone, or `stop` comes, and gives the common
    /// start in nanoseconds since the Unix epoch.
    pub(super) fn ready(&self, stop: &Stop) -> u64 {
        self.fill();
        let mut waiting = self.muster.waiting();
        while waiting.absent > 0 && !stop.is_stopped() {
            let woken = self.muster.changed.wait_timeout(waiting, LOOK_EVERY);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.start_unix_ns
    }

    fn fill(&self) {
        let mut filled = self.filled.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *filled, true) {
            self.muster.one_less();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.fill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_given_one_start_after_the_last_is_ready() {
        let stop = Stop::default();
        let mut places = Muster::of(3);
        let last = places.pop().unwrap();
        let (starts, last_unix_ns) = std::thread::scope(|scope| {
            let waiting: Vec<_> = places.iter().map(|place| scope.spawn(|| place.ready(&stop))).collect();
            let last_unix_ns = unix_now_ns();
            let start = last.ready(&stop);
            let others = waiting.into_iter().map(|waiting| waiting.join().unwrap());
            (others.chain([start]).collect::<Vec<_>>(), last_unix_ns)
        });
        assert_eq!(starts, [starts[0]; 3]);
        assert!(starts[0] >= last_unix_ns + AFTER_THE_LAST.as_nanos() as u64);
    }

    #[test]
    fn who_is_gone_or_whom_the_user_ended_is_not_awaited() {
        let mut places = Muster::of(3);
        let stop = Stop::default();
        drop(places.pop());
        let (first, second) = (places.remove(0), places.remove(0));
        let starts = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| first.ready(&stop));
            [second.ready(&stop), waiting.join().unwrap()]
        });
        assert_eq!(starts[0], starts[1]);
        // Once ready, its end is nothing new.
        drop(second);
        assert_eq!(first.ready(&stop), starts[0]);

        let ended = Stop::default();
        let places = Muster::of(2);
        ended.stop();
        places[0].ready(&ended);
    }
}
