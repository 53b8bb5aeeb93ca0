//! The time source: nanoseconds since an origin, from the real monotonic clock or driven by a test.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A monotonic clock that counts nanoseconds from an origin of its own.
///
/// All instants of a phase (due, sent, received) come from one clock, so they may be subtracted.
pub trait Clock: Clone + 'static {
    /// Nanoseconds since the clock's origin.
    fn now_ns(&self) -> u64;
}

/// The operating system's monotonic clock. Copies share the origin.
#[derive(Debug, Clone, Copy)]
pub struct MonotonicClock {
    origin: Instant,
}

impl MonotonicClock {
    /// A clock whose origin is now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// A clock with the given origin.
    #[must_use]
    pub fn with_origin(origin: Instant) -> Self {
        Self { origin }
    }

    /// The instant that the clock calls `ns`.
    #[must_use]
    pub fn instant_at(&self, ns: u64) -> Instant {
        self.origin + Duration::from_nanos(ns)
    }
}

impl Clock for MonotonicClock {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// tokio's clock, which a test can pause and advance.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    origin: tokio::time::Instant,
}

impl TokioClock {
    /// A clock whose origin is now; inside a paused runtime it moves only with the test.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: tokio::time::Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The CPU time of this thread so far; `None` where the system does not tell.
#[cfg(unix)]
pub(crate) fn thread_cpu() -> Option<Duration> {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok().map(Duration::from)
}

#[cfg(not(unix))]
pub(crate) fn thread_cpu() -> Option<Duration> {
    None
}

/// Nanoseconds since the Unix epoch: for information on the wire and in results, never to compute a latency.
#[must_use]
pub fn unix_now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
