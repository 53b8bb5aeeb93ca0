//! A pace in bytes per second.

/// A token bucket: over any stretch of time no more than `bytes_per_s × time + burst` bytes pass.
/// It starts empty.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    bytes_per_s: u64,
    burst_bytes: u64,
    /// Bytes × 10⁹ that may pass, at `at_ns`: whole numbers, so that no pace is lost in rounding.
    credit: u128,
    at_ns: u64,
}

const NS_PER_S: u128 = 1_000_000_000;

impl Meter {
    /// A meter for `bytes_per_s`, which is above 0.
    pub(super) fn new(bytes_per_s: u64, now_ns: u64) -> Self {
        // 10 ms worth: well above the timer's 1 ms, well below what anybody would call a burst.
        Self { bytes_per_s, burst_bytes: (bytes_per_s / 100).max(1), credit: 0, at_ns: now_ns }
    }

    /// How many of `want` bytes may pass now; where that is none, the instant to ask again at.
    /// A full burst, or all that is wanted, is waited for: else a slow pace would be single bytes.
    pub(super) fn allowed(&mut self, want: usize, now_ns: u64) -> Result<usize, u64> {
        self.refill(now_ns);
        let want = (want as u64).min(self.burst_bytes);
        let price = u128::from(want) * NS_PER_S;
        if self.credit >= price {
            return Ok(want as usize);
        }
        let wait_ns = (price - self.credit).div_ceil(u128::from(self.bytes_per_s));
        Err(now_ns.saturating_add(u64::try_from(wait_ns).unwrap_or(u64::MAX)))
    }

    /// `bytes` of what was allowed have passed.
    pub(super) fn passed(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_sub(bytes as u128 * NS_PER_S);
    }

    fn refill(&mut self, now_ns: u64) {
        let earned = u128::from(now_ns.saturating_sub(self.at_ns)) * u128::from(self.bytes_per_s);
        self.credit = (self.credit + earned).min(u128::from(self.burst_bytes) * NS_PER_S);
        self.at_ns = self.at_ns.max(now_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A caller that always takes what it may, at whatever instants it asks, gets the pace: never more
        /// than the bucket's law, and something at the instant that it was told to ask again at.
        #[test]
        fn the_pace_is_kept(
            bytes_per_s in 1u64..1 << 40,
            asks in prop::collection::vec((1usize..1 << 20, 0u64..50_000_000), 1..200),
        ) {
            let mut meter = Meter::new(bytes_per_s, 0);
            let burst = u128::from(meter.burst_bytes);
            let (mut now_ns, mut passed) = (0u64, 0u128);
            for (want, gap_ns) in asks {
                now_ns += gap_ns;
                let granted = match meter.allowed(want, now_ns) {
                    Ok(granted) => granted,
                    Err(at_ns) => {
                        prop_assert!(at_ns > now_ns);
                        now_ns = at_ns;
                        meter.allowed(want, now_ns).expect("the instant told is late enough")
                    }
                };
                prop_assert!(granted >= 1 && granted <= want);
                meter.passed(granted);
                passed += granted as u128;
                prop_assert!(
                    passed * NS_PER_S <= u128::from(now_ns) * u128::from(bytes_per_s) + burst * NS_PER_S
                );
            }
        }

        #[test]
        fn a_greedy_reader_gets_all_of_it(bytes_per_s in 100u64..1 << 30, want in 1usize..1 << 16) {
            let mut meter = Meter::new(bytes_per_s, 0);
            let (mut now_ns, mut passed) = (0u64, 0u128);
            for _ in 0..500 {
                match meter.allowed(want, now_ns) {
                    Ok(granted) => {
                        meter.passed(granted);
                        passed += granted as u128;
                    }
                    Err(at_ns) => now_ns = at_ns,
                }
            }
            // Each wait rounds up to a whole nanosecond, in which credit is earned too: only the remainder
            // that was not yet wanted may be missing.
            let earned = u128::from(now_ns) * u128::from(bytes_per_s) / NS_PER_S;
            prop_assert!(earned - passed <= u128::from(meter.burst_bytes), "{} of {}", passed, earned);
        }
    }
}
