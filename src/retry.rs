//! How a client holds on to its server: when it connects again after a cut, and how it finds out about a silent peer.
//! Pure arithmetic; no clock, no I/O.

use std::str::FromStr;
use std::time::Duration;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::units::{UnitError, parse_duration};

/// When a client that lost its connection tries again: exponential backoff with a cap and full jitter, each delay
/// uniform between 0 and `min(cap, initial × factorⁿ)` (Brooker, "Exponential Backoff And Jitter", AWS Architecture
/// Blog, 2015).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The upper bound of the first delay; above 0.
    pub initial: Duration,
    /// By what the upper bound grows with each attempt; 1 keeps it.
    pub factor: u32,
    /// The upper bound never grows beyond this.
    pub cap: Duration,
    /// A client that is cut off for so long ends for good; `None` tries until the load is over.
    pub give_up_after: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(50),
            factor: 2,
            cap: Duration::from_secs(2),
            give_up_after: None,
        }
    }
}

impl RetryPolicy {
    /// The delays before the attempts, without end; the same seed gives the same delays.
    #[must_use]
    pub fn backoff(&self, seed: u64) -> Backoff {
        Backoff { policy: *self, bound: self.first_bound(), rng: Xoshiro256PlusPlus::seed_from_u64(seed) }
    }

    fn first_bound(&self) -> Duration {
        self.initial.min(self.cap)
    }
}

/// The delays of a [`RetryPolicy`].
#[derive(Debug, Clone)]
pub struct Backoff {
    policy: RetryPolicy,
    /// The upper bound of the next delay.
    bound: Duration,
    rng: Xoshiro256PlusPlus,
}

impl Backoff {
    /// Starts over with the first bound, because an attempt succeeded. The draws go on: clients that were cut together
    /// once and again do not come back in the same pattern.
    pub fn restart(&mut self) {
        self.bound = self.policy.first_bound();
    }
}

impl Iterator for Backoff {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        let share = (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let delay = self.bound.mul_f64(share);
        self.bound = self.bound.saturating_mul(self.policy.factor.max(1)).min(self.policy.cap);
        Some(delay)
    }
}

/// How a client finds out that its peer is gone although nobody closed the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingPolicy {
    /// A ping leaves so often; above 0.
    pub every: Duration,
    /// A peer of which not a single byte came for so long is dead; longer than `every`.
    pub dead_after: Duration,
}

impl Default for PingPolicy {
    fn default() -> Self {
        Self { every: Duration::from_secs(1), dead_after: Duration::from_secs(3) }
    }
}

impl FromStr for PingPolicy {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let malformed = || UnitError::Malformed {
            value: text.to_owned(),
            expected: "two durations EVERY,DEAD such as 1s,3s, the second longer",
        };
        let (every, dead_after) = text.split_once(',').ok_or_else(malformed)?;
        let policy = Self { every: parse_duration(every)?, dead_after: parse_duration(dead_after)? };
        if policy.every.is_zero() || policy.dead_after <= policy.every {
            Err(malformed())
        } else {
            Ok(policy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy() -> impl Strategy<Value = RetryPolicy> {
        (1_u64..10_000, 1_u32..5, 1_u64..100_000).prop_map(|(initial, factor, cap)| RetryPolicy {
            initial: Duration::from_millis(initial),
            factor,
            cap: Duration::from_millis(cap),
            give_up_after: None,
        })
    }

    /// Far more attempts than the bounds take to reach any cap, and than a doubling takes to overflow.
    const ATTEMPTS: usize = 100;

    proptest! {
        #[test]
        fn each_delay_is_within_its_bound_and_the_cap(policy in policy(), seed: u64) {
            for (attempt, delay) in policy.backoff(seed).take(ATTEMPTS).enumerate() {
                let uncapped_s = policy.initial.as_secs_f64() * f64::from(policy.factor).powi(attempt as i32);
                let bound_s = uncapped_s.min(policy.cap.as_secs_f64());
                prop_assert!(delay.as_secs_f64() <= bound_s * (1.0 + 1e-9), "{attempt}: {delay:?}");
            }
        }

        #[test]
        fn a_seed_gives_the_same_delays_and_another_gives_others(policy in policy(), seed: u64) {
            let delays = |seed| policy.backoff(seed).take(ATTEMPTS).collect::<Vec<_>>();
            prop_assert_eq!(delays(seed), delays(seed));
            prop_assert_ne!(delays(seed), delays(seed ^ 1));
        }

        #[test]
        fn a_restart_begins_with_the_first_bound(policy in policy(), seed: u64, attempts in 0_usize..20) {
            let mut backoff = policy.backoff(seed);
            backoff.by_ref().take(attempts).for_each(drop);
            backoff.restart();
            prop_assert!(backoff.next().unwrap() <= policy.initial.min(policy.cap));
        }
    }

    /// Full jitter is uniform: the mean of 10,000 draws is half of the bound within 5 standard errors (1/√12 of the
    /// bound ÷ 100).
    #[test]
    fn delays_fill_their_bound() {
        let cap = Duration::from_secs(1);
        let policy = RetryPolicy { initial: cap, cap, ..RetryPolicy::default() };
        let sum_s: f64 = policy.backoff(3).take(10_000).map(|delay| delay.as_secs_f64()).sum();
        assert!((sum_s / 10_000.0 - 0.5).abs() < 5.0 * 0.0029, "{sum_s}");
    }

    #[test]
    fn pings_are_two_durations_the_second_longer() {
        assert_eq!("1s,3s".parse(), Ok(PingPolicy::default()));
        for text in ["", "1s", "0,3s", "3s,3s", "1s,2", "a,b"] {
            assert!(text.parse::<PingPolicy>().is_err(), "{text}");
        }
    }
}
