//! When each message is due: pure arithmetic from rate, arrival law and seed. No clock, no I/O.
//!
//! Load is open-loop: the schedule is fixed before the first message leaves, and nothing the server does moves it.
//! Instants are nanoseconds after the start of the phase.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::units::{Rate, UnitError};

/// The law by which messages arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrival {
    /// Equal gaps: message `n` of the phase is due at `n / rate`, and the connections take turns.
    #[default]
    Uniform,
    /// Exponential gaps, independent for each connection, as from many users who do not know of each other. The
    /// superposition of the connections is again a Poisson process of the full rate.
    Poisson,
}

impl FromStr for Arrival {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text {
            "uniform" => Ok(Self::Uniform),
            "poisson" => Ok(Self::Poisson),
            _ => Err(UnitError::Malformed {
                value: text.to_owned(),
                expected: "an arrival law: uniform or poisson",
            }),
        }
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uniform => "uniform",
            Self::Poisson => "poisson",
        })
    }
}

/// The schedule of a phase over all its connections, on however many workers and machines they live.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Messages per second over all connections.
    pub rate: Rate,
    /// The law of arrivals.
    pub arrival: Arrival,
    /// How many connections share the rate; at least 1.
    pub connections: u32,
    /// How long the load lasts; nothing is due at or after this.
    pub duration: Duration,
    /// Seed of the Poisson arrivals.
    pub seed: u64,
}

impl Schedule {
    /// The due instants of one connection (`0 ≤ connection < connections`), in order.
    ///
    /// A connection's instants depend on the schedule and its own index only, so workers and shards need not talk.
    #[must_use]
    pub fn due_times(&self, connection: u32) -> DueTimes {
        let law = match self.arrival {
            Arrival::Uniform => Law::Uniform {
                index: u64::from(connection),
                stride: u64::from(self.connections.max(1)),
                rate: self.rate.as_per_second(),
            },
            Arrival::Poisson => {
                let rate = self.rate.as_per_second() / f64::from(self.connections.max(1));
                let mut rng = Xoshiro256PlusPlus::seed_from_u64(mix(self.seed, u64::from(connection)));
                let first_ns = exponential_ns(&mut rng, rate);
                Law::Poisson { at_ns: first_ns, rate, rng }
            }
        };
        DueTimes { law, end_ns: u64::try_from(self.duration.as_nanos()).unwrap_or(u64::MAX) }
    }
}

/// The due instants of one connection: an iterator of nanoseconds after the start of the phase, which can be peeked.
///
/// It is cheap to clone, so a backlog never has to be stored: whoever lags keeps an iterator that lags.
#[derive(Debug, Clone)]
pub struct DueTimes {
    law: Law,
    end_ns: u64,
}

#[derive(Debug, Clone)]
enum Law {
    Uniform { index: u64, stride: u64, rate: f64 },
    Poisson { at_ns: f64, rate: f64, rng: Xoshiro256PlusPlus },
}

impl DueTimes {
    /// The next due instant, or `None` where the phase is over.
    #[must_use]
    pub fn peek(&self) -> Option<u64> {
        let due_ns = match &self.law {
            // Dividing first and rounding keeps exact multiples exact: message rate × s is due at s seconds sharp.
            Law::Uniform { index, rate, .. } => (*index as f64 / rate * 1e9).round(),
            Law::Poisson { at_ns, .. } => *at_ns,
        } as u64;
        (due_ns < self.end_ns).then_some(due_ns)
    }

    /// Ends the schedule earlier: nothing is due at or after `end_ns`.
    pub fn truncate(&mut self, end_ns: u64) {
        self.end_ns = self.end_ns.min(end_ns);
    }
}

impl Iterator for DueTimes {
    type Item = u64;
    fn next(&mut self) -> Option<u64> {
        let due_ns = self.peek()?;
        match &mut self.law {
            Law::Uniform { index, stride, .. } => *index += *stride,
            Law::Poisson { at_ns, rate, rng } => *at_ns += exponential_ns(rng, *rate),
        }
        Some(due_ns)
    }
}

/// The next due instants of many connections, in order: tells a worker whom to wake, and when.
#[derive(Debug, Default)]
pub struct Timeline {
    /// One entry a connection that still has something due: its next instant and its place in `due_times`.
    next: BinaryHeap<Reverse<(u64, usize)>>,
    due_times: Vec<DueTimes>,
}

impl Timeline {
    /// A timeline over the given connections; they are named by their position.
    #[must_use]
    pub fn new(due_times: Vec<DueTimes>) -> Self {
        let next = due_times
            .iter()
            .enumerate()
            .filter_map(|(place, times)| times.peek().map(|due_ns| Reverse((due_ns, place))))
            .collect();
        Self { next, due_times }
    }

    /// The earliest instant that has not been passed yet.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.next.peek().map(|Reverse((due_ns, _))| *due_ns)
    }

    /// Passes every instant up to and including `now_ns`, and calls `wake` once for each connection that had one.
    pub fn advance(&mut self, now_ns: u64, mut wake: impl FnMut(usize)) {
        while let Some(mut first) = self.next.peek_mut() {
            let Reverse((due_ns, place)) = *first;
            if due_ns > now_ns {
                break;
            }
            let times = &mut self.due_times[place];
            while times.peek().is_some_and(|due_ns| due_ns <= now_ns) {
                times.next();
            }
            match times.peek() {
                Some(due_ns) => *first = Reverse((due_ns, place)),
                None => {
                    PeekMut::pop(first);
                }
            }
            wake(place);
        }
    }

    /// Ends all schedules at `end_ns`.
    pub fn truncate(&mut self, end_ns: u64) {
        self.due_times.iter_mut().for_each(|times| times.truncate(end_ns));
        self.next.retain(|Reverse((due_ns, _))| *due_ns < end_ns);
    }
}

/// An exponentially distributed gap by inversion: −ln(1 − u) / rate (Devroye 1986, ch. II.2).
fn exponential_ns(rng: &mut Xoshiro256PlusPlus, rate: f64) -> f64 {
    let uniform = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    -(1.0 - uniform).ln() / rate * 1e9
}

/// SplitMix64's finaliser over two words: neighbouring seeds and connections give unrelated streams.
#[must_use]
pub fn mix(seed: u64, stream: u64) -> u64 {
    let mut z = seed.wrapping_add(stream.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schedule(rate: f64, arrival: Arrival, connections: u32, duration_s: f64) -> Schedule {
        let duration = Duration::from_secs_f64(duration_s);
        Schedule { rate: Rate::per_second(rate).unwrap(), arrival, connections, duration, seed: 7 }
    }

    fn all_due(schedule: &Schedule) -> Vec<u64> {
        let mut all: Vec<u64> = (0..schedule.connections).flat_map(|c| schedule.due_times(c)).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn uniform_arrivals_are_exactly_n_over_rate() {
        let all = all_due(&schedule(10_000.0, Arrival::Uniform, 100, 10.0));
        assert_eq!(all.len(), 100_000);
        assert!(all.iter().enumerate().all(|(n, &due_ns)| due_ns == n as u64 * 100_000));
    }

    #[test]
    fn connections_take_turns() {
        let schedule = schedule(1_000.0, Arrival::Uniform, 3, 1.0);
        let second: Vec<u64> = schedule.due_times(1).take(3).collect();
        assert_eq!(second, [1_000_000, 4_000_000, 7_000_000]);
    }

    /// Kolmogorov–Smirnov against the exponential law, at a level of 1 in 1,000 (critical value 1.95 / √n).
    #[test]
    fn poisson_gaps_are_exponential() {
        for connections in [1, 10] {
            let rate = 50_000.0;
            let all = all_due(&schedule(rate, Arrival::Poisson, connections, 2.0));
            let mut gaps: Vec<f64> = all.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e9).collect();
            gaps.sort_unstable_by(f64::total_cmp);
            let n = gaps.len() as f64;
            let distance = gaps.iter().enumerate().fold(0.0_f64, |worst, (rank, gap)| {
                let law = 1.0 - (-rate * gap).exp();
                worst.max((law - rank as f64 / n).abs()).max((law - (rank + 1) as f64 / n).abs())
            });
            assert!(distance < 1.95 / n.sqrt(), "{distance} for {n} gaps");
            assert!((n / 2.0 / rate - 1.0).abs() < 0.02, "{n}");
        }
    }

    #[test]
    fn poisson_streams_differ_by_connection_and_seed_and_repeat() {
        let base = schedule(100.0, Arrival::Poisson, 4, 5.0);
        let other_seed = Schedule { seed: 8, ..base };
        assert!(base.due_times(0).eq(base.due_times(0)));
        assert!(!base.due_times(0).eq(base.due_times(1)));
        assert!(!base.due_times(0).eq(other_seed.due_times(0)));
    }

    proptest! {
        #[test]
        fn the_count_is_rate_times_duration(rate in 1_u32..20_000, tenths in 1_u32..30, connections in 1_u32..50) {
            let duration_s = f64::from(tenths) / 10.0;
            let all = all_due(&schedule(f64::from(rate), Arrival::Uniform, connections, duration_s));
            let expected = (rate * tenths).div_ceil(10) as usize;
            prop_assert_eq!(all.len(), expected);
        }

        #[test]
        fn a_timeline_wakes_whoever_is_due_and_nobody_else(
            poisson: bool, connections in 1_u32..20, steps in proptest::collection::vec(0_u64..30_000_000, 1..40)
        ) {
            let arrival = if poisson { Arrival::Poisson } else { Arrival::Uniform };
            let schedule = schedule(2_000.0, arrival, connections, 0.5);
            let mut timeline = Timeline::new((0..connections).map(|c| schedule.due_times(c)).collect());
            let mut rest: Vec<_> = (0..connections).map(|c| schedule.due_times(c).collect::<Vec<_>>()).collect();
            let mut now_ns = 0;
            for step in steps {
                now_ns += step;
                let mut woken = Vec::new();
                timeline.advance(now_ns, |place| woken.push(place));
                woken.sort_unstable();
                let mut expected = Vec::new();
                for (place, due) in rest.iter_mut().enumerate() {
                    let before = due.len();
                    due.retain(|&due_ns| due_ns > now_ns);
                    if due.len() < before { expected.push(place); }
                }
                prop_assert_eq!(&woken, &expected);
                prop_assert_eq!(timeline.next_due(), rest.iter().flatten().min().copied());
            }
            timeline.truncate(now_ns);
            prop_assert_eq!(timeline.next_due(), None);
        }
    }
}
