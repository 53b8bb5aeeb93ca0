//! Times on the wire.

use bytes::BytesMut;

use super::template::TimeText;

/// A peer's wall clock in nanoseconds since the Unix epoch: for information, never to compute a latency.
///
/// On the wire it is a JSON number of seconds with 6 decimals. Until the year 2106 a time survives the way through
/// a double-precision number exactly to the microsecond, so it reads back as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct WallTime(u64);

impl WallTime {
    /// Seconds up to here (2^32) are exact to the microsecond as a double: the nearest double is at most 0.24 µs
    /// away, the multiplication by 10^6 rounds by at most 0.25 µs, and together that is less than half of one.
    pub(super) const EXACT_BELOW_S: u64 = 1 << 32;

    /// The time `unix_ns` nanoseconds after the epoch.
    #[must_use]
    pub fn from_unix_ns(unix_ns: u64) -> Self {
        Self(unix_ns)
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub fn as_unix_ns(self) -> u64 {
        self.0
    }

    /// The time that a JSON number of seconds names, to the microsecond. What lies before the epoch is the epoch,
    /// what lies beyond the year 2554 is the last time there is.
    pub(super) fn from_seconds(seconds: f64) -> Self {
        // A float cast saturates.
        Self(((seconds * 1e6).round() as u64).saturating_mul(1_000))
    }

    /// Appends the time as seconds with 6 decimals; what is below the microsecond is cut off.
    pub(crate) fn encode(self, out: &mut BytesMut) {
        TimeText::of(self.0 / 1_000).append_to(out);
    }
}
