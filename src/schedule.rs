//! When each message is due: pure arithmetic from rate, arrival law and seed. No clock, no I/O.
//!
//! Load is open-loop: the schedule is fixed before the first message leaves, and nothing the server does moves it.
//! Instants are nanoseconds after the start of the phase, which is that of its rise where it has one.
//!
//! With a ramp the rate rises in a straight line from 0 over that time, is held, and falls to 0 over as long again. Both
//! laws are laid out in *operational time*, in which the rate is always the full one, and its instants are then carried
//! over by the inverse of the rate's integral: uniform arrivals so that message `n` is due when that integral reaches
//! `n`, Poisson arrivals as an inhomogeneous process by time change (Çinlar 1975, *Introduction to Stochastic
//! Processes*, ch. 4.7; Devroye 1986, ch. VI.1.3). Without a ramp both times are the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fmt;
use std::ops::Range;
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
    /// Equal gaps at a constant rate: message `n` of the phase is due at `n / rate`, with a ramp when the integral of
    /// the rate reaches `n`, and the connections take turns.
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
    /// How long the rate is held.
    pub duration: Duration,
    /// How long the rate rises before, and falls after that: each time half as many messages as at the full rate.
    pub ramp: Duration,
    /// Seed of the Poisson arrivals.
    pub seed: u64,
}

impl Schedule {
    /// The instants between which the rate is held, the second excluded. Nothing is due later than a ramp after it.
    #[must_use]
    pub fn held_ns(&self) -> Range<u64> {
        let ramp_ns = nanos(self.ramp);
        ramp_ns..ramp_ns.saturating_add(nanos(self.duration))
    }

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
        let held = self.held_ns();
        let shape = Shape { ramp_ns: held.start as f64, held_ns: (held.end - held.start) as f64 };
        DueTimes { law, shape, end_ns: held.end.saturating_add(held.start) }
    }
}

/// The due instants of one connection: an iterator of nanoseconds after the start of the phase, which can be peeked.
///
/// It is cheap to clone, so a backlog never has to be stored: whoever lags keeps an iterator that lags.
#[derive(Debug, Clone)]
pub struct DueTimes {
    law: Law,
    shape: Shape,
    end_ns: u64,
}

/// Where a law stands in its operational time.
#[derive(Debug, Clone)]
enum Law {
    Uniform { index: u64, stride: u64, rate: f64 },
    Poisson { at_ns: f64, rate: f64, rng: Xoshiro256PlusPlus },
}

/// How the rate goes over time: up, held, down.
#[derive(Debug, Clone, Copy)]
struct Shape {
    ramp_ns: f64,
    held_ns: f64,
}

impl DueTimes {
    /// The next due instant, or `None` where the phase is over.
    #[must_use]
    pub fn peek(&self) -> Option<u64> {
        match &self.law {
            Law::Uniform { index, rate, .. } => self.uniform_ns(*index, *rate),
            Law::Poisson { at_ns, .. } => self.real_ns(*at_ns, at_ns.floor()),
        }
    }

    /// Passes the instants up to and including `until_ns`; how many they were.
    ///
    /// Uniform instants are passed all at once, whatever the rate: a generator that is far behind its schedule must not
    /// fall behind further by counting it. Poisson instants have to be drawn one by one, and no more than `draws` are.
    pub fn pass(&mut self, until_ns: u64, draws: u64) -> u64 {
        match self.law {
            Law::Uniform { index, stride, rate } => {
                let is_passed = |n: u64| {
                    let at = index.saturating_add(n.saturating_mul(stride));
                    self.uniform_ns(at, rate).is_some_and(|due_ns| due_ns <= until_ns)
                };
                let passed = first_without(is_passed);
                if let Law::Uniform { index, stride, .. } = &mut self.law {
                    *index += passed * *stride;
                }
                passed
            }
            Law::Poisson { .. } => {
                let mut passed = 0;
                while passed < draws && self.peek().is_some_and(|due_ns| due_ns <= until_ns) {
                    self.next();
                    passed += 1;
                }
                passed
            }
        }
    }

    /// Ends the schedule earlier: nothing is due at or after `end_ns`.
    pub fn truncate(&mut self, end_ns: u64) {
        self.end_ns = self.end_ns.min(end_ns);
    }

    /// Dividing first and rounding keeps exact multiples exact: message rate × s is due at s seconds sharp.
    fn uniform_ns(&self, index: u64, rate: f64) -> Option<u64> {
        let exact_ns = index as f64 / rate * 1e9;
        self.real_ns(exact_ns, exact_ns.round())
    }

    fn real_ns(&self, exact_ns: f64, whole_ns: f64) -> Option<u64> {
        let due_ns =
            if self.shape.ramp_ns == 0.0 { whole_ns } else { self.shape.real_ns(exact_ns, whole_ns)? };
        let due_ns = due_ns as u64;
        (due_ns < self.end_ns).then_some(due_ns)
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

/// The first `n` from 0 for which `holds` is false, of those that it is true up to and false from: by doubling the step,
/// then halving it (Bentley and Yao 1976, "An almost optimal algorithm for unbounded searching").
fn first_without(holds: impl Fn(u64) -> bool) -> u64 {
    let mut step = 1;
    while holds(step - 1) {
        step *= 2;
    }
    // False at `step - 1`, true at half of it.
    let (mut low, mut high) = (step / 2, step - 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

impl Shape {
    /// When operational time reaches `exact_ns`, and `None` where it never does.
    ///
    /// Rising over R, the rate's integral is t² / 2R, so an instant s is at √(2Rs); falling, the same from the end. In
    /// between both times differ by R / 2. Which of the three it is, and the instant in between, go by `whole_ns`, the
    /// instant without its fraction, so that exact multiples stay exact.
    fn real_ns(&self, exact_ns: f64, whole_ns: f64) -> Option<f64> {
        let Self { ramp_ns, held_ns } = *self;
        let half_ns = ramp_ns / 2.0;
        let left_ns = held_ns + ramp_ns - whole_ns;
        if whole_ns < half_ns {
            Some((2.0 * ramp_ns * exact_ns).sqrt().round())
        } else if left_ns > half_ns {
            Some((whole_ns + half_ns).round())
        } else if left_ns > 0.0 {
            let left_ns = held_ns + ramp_ns - exact_ns;
            Some((held_ns + 2.0 * ramp_ns - (2.0 * ramp_ns * left_ns).sqrt()).round())
        } else {
            None
        }
    }
}

/// Drawing a Poisson instant takes some 10 ns: so many take a fraction of a millisecond, after which connections get their
/// turn. A generator that keeps up with its schedule never has as many to pass.
const PASSED_PER_ADVANCE: u64 = 16_384;

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

    /// Passes the instants up to and including `now_ns`, and calls `wake` once for each connection that had one. After
    /// `PASSED_PER_ADVANCE` of them the others are left to the next call.
    pub fn advance(&mut self, now_ns: u64, mut wake: impl FnMut(usize)) {
        let mut left = PASSED_PER_ADVANCE;
        while left > 0
            && let Some(mut first) = self.next.peek_mut()
        {
            let Reverse((due_ns, place)) = *first;
            if due_ns > now_ns {
                break;
            }
            let times = &mut self.due_times[place];
            left = left.saturating_sub(times.pass(now_ns, left));
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

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
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
        let ramp = Duration::ZERO;
        Schedule { rate: Rate::per_second(rate).unwrap(), arrival, connections, duration, ramp, seed: 7 }
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

    /// An hour of messages a nanosecond apart would take hours to count one by one.
    #[test]
    fn no_rate_takes_long_to_pass() {
        let an_hour = schedule(1e9, Arrival::Uniform, 1, 3_600.0);
        assert_eq!(an_hour.due_times(0).pass(u64::MAX, u64::MAX), 3_600_000_000_000);
        let mut timeline = Timeline::new(vec![an_hour.due_times(0)]);
        let mut woken = 0;
        timeline.advance(1_800_000_000_000, |_| woken += 1);
        assert_eq!((woken, timeline.next_due()), (1, Some(1_800_000_000_001)));
    }

    #[test]
    fn a_timeline_far_behind_passes_a_part_at_a_time_and_loses_nothing() {
        let schedule = schedule(1e6, Arrival::Poisson, 2, 0.1);
        let mut timeline = Timeline::new((0..2).map(|c| schedule.due_times(c)).collect());
        let mut calls = 0;
        while timeline.next_due().is_some() {
            let before = timeline.next_due();
            timeline.advance(1_000_000_000, |_| {});
            assert!(timeline.next_due().is_none_or(|due_ns| Some(due_ns) >= before));
            calls += 1;
        }
        let all = all_due(&schedule).len() as u64;
        assert!(
            (all / PASSED_PER_ADVANCE..=all / PASSED_PER_ADVANCE + 2).contains(&calls),
            "{calls} for {all}"
        );
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

    #[test]
    fn a_ramp_of_the_full_size_is_exact_where_it_meets_the_held_part() {
        let schedule =
            Schedule { ramp: Duration::from_secs(10), ..schedule(10_000.0, Arrival::Uniform, 100, 30.0) };
        let all = all_due(&schedule);
        assert_eq!(all.len(), 400_000);
        let (rise, rest) = all.split_at(50_000);
        let (held, fall) = rest.split_at(300_000);
        // 1 and 100 of 50,000 messages come in a fraction of the time that is the root of theirs.
        assert_eq!((rise[1], rise[500], rise[12_500]), (44_721_360, 1_000_000_000, 5_000_000_000));
        assert!(held.iter().zip(0..).all(|(&due_ns, n)| due_ns == 10_000_000_000 + n * 100_000_u64));
        // Falling is rising in reverse.
        let mirrored = fall.iter().rev().map(|due_ns| 50_000_000_000 - due_ns);
        assert!(mirrored.zip(&rise[1..]).all(|(a, &b)| a.abs_diff(b) <= 1));
        assert_eq!(fall[0], 40_000_000_000);
    }

    /// As without a ramp it always was: the plain formulas of both laws.
    #[test]
    fn without_a_ramp_nothing_is_bent() {
        let uniform = schedule(777.7, Arrival::Uniform, 3, 2.0);
        let plain = |n: u64| (n as f64 / 777.7 * 1e9).round() as u64;
        let expected = (0..).map(|n| plain(1 + 3 * n)).take_while(|&due_ns| due_ns < 2_000_000_000);
        assert!(uniform.due_times(1).eq(expected));

        let poisson = schedule(777.7, Arrival::Poisson, 3, 2.0);
        let (mut rng, mut at_ns) = (Xoshiro256PlusPlus::seed_from_u64(mix(7, 1)), 0.0);
        let plain = std::iter::repeat_with(|| {
            at_ns += exponential_ns(&mut rng, 777.7 / 3.0);
            at_ns as u64
        });
        assert!(poisson.due_times(1).eq(plain.take_while(|&due_ns| due_ns < 2_000_000_000)));
    }

    /// In cells of this length the oracle adds up the rate.
    const CELL_NS: u64 = 10_000;

    /// Counting: how far operational time has come by the end of each cell, by the rate at its middle, which is exact
    /// for a straight line.
    fn operational_ns(ramp_cells: u64, held_cells: u64) -> Vec<f64> {
        let cells = 2 * ramp_cells + held_cells;
        let share = |cell: u64| {
            let from_edge = (cell as f64 + 0.5).min((cells - cell) as f64 - 0.5);
            (from_edge / ramp_cells as f64).min(1.0)
        };
        let add = |sum: &mut f64, cell: u64| {
            *sum += share(cell) * CELL_NS as f64;
            Some(*sum)
        };
        (0..cells).scan(0.0, add).collect()
    }

    proptest! {
        /// Uniform: message `n` is due in the cell in which the integral of the rate reaches `n`, and there are as many
        /// as the whole integral holds. Poisson: the instants are those of the process at the full rate, carried over.
        #[test]
        fn a_ramp_bends_time_as_the_integral_of_the_rate_does(
            poisson: bool, rate in 1_u32..20_000, ramp_cells in 1_u64..20_000, held_cells in 1_u64..20_000,
            connections in 1_u32..5
        ) {
            let arrival = if poisson { Arrival::Poisson } else { Arrival::Uniform };
            let held = Duration::from_nanos(held_cells * CELL_NS);
            let ramp = Duration::from_nanos(ramp_cells * CELL_NS);
            let flat = Schedule { duration: held + ramp, ..schedule(f64::from(rate), arrival, connections, 1.0) };
            let reached_ns = operational_ns(ramp_cells, held_cells);
            let (flat, bent) = (all_due(&flat), all_due(&Schedule { duration: held, ramp, ..flat }));
            prop_assert_eq!(bent.len(), flat.len());
            for (&operational, &due_ns) in flat.iter().zip(&bent) {
                // Cells are crossed some nanoseconds early or late, by rounding.
                let cell = reached_ns.partition_point(|&reached| reached < operational as f64) as u64;
                let from_ns = (cell * CELL_NS).saturating_sub(CELL_NS);
                prop_assert!((from_ns..=(cell + 2) * CELL_NS).contains(&due_ns), "{operational}: {due_ns}");
            }
        }

        /// Each half of a ramp holds half of what the full rate would, and instants keep their order over the seams.
        #[test]
        fn a_ramp_adds_half_of_its_length_on_either_side(
            rate in 1_u32..20_000, ramp_ms in 1_u64..500, held_ms in 1_u64..500, connections in 1_u32..20
        ) {
            let ramp = Duration::from_millis(ramp_ms);
            let schedule = Schedule { ramp, ..schedule(f64::from(rate), Arrival::Uniform, connections, held_ms as f64 / 1e3) };
            for connection in 0..connections {
                prop_assert!(schedule.due_times(connection).is_sorted());
            }
            let all = all_due(&schedule);
            let held = schedule.held_ns();
            // In thousandths of a message, doubled: exact.
            let [rise, hold] = [u64::from(rate) * ramp_ms, 2 * u64::from(rate) * held_ms];
            let before = |twice_thousandths: u64| twice_thousandths.div_ceil(2_000) as usize;
            prop_assert_eq!(all.partition_point(|&due_ns| due_ns < held.start), before(rise));
            prop_assert_eq!(all.partition_point(|&due_ns| due_ns < held.end), before(rise + hold));
            prop_assert_eq!(all.len(), before(2 * rise + hold));
            prop_assert!(all.last().is_none_or(|&last| last < held.end + ramp_ms * 1_000_000));
        }

        /// Passing is iterating, only faster; whatever was passed before.
        #[test]
        fn passing_is_iterating(
            poisson: bool, rate in 1_u32..50_000, ramp_ms in 0_u64..300, held_ms in 1_u64..500, connections in 1_u32..5,
            steps in proptest::collection::vec(0_u64..400_000_000, 1..8)
        ) {
            let arrival = if poisson { Arrival::Poisson } else { Arrival::Uniform };
            let ramp = Duration::from_millis(ramp_ms);
            let schedule = Schedule { ramp, ..schedule(f64::from(rate), arrival, connections, held_ms as f64 / 1e3) };
            let (mut passing, mut iterating) = (schedule.due_times(0), schedule.due_times(0));
            let mut until_ns = 0;
            for step in steps {
                until_ns += step;
                let mut expected = 0;
                while iterating.peek().is_some_and(|due_ns| due_ns <= until_ns) {
                    iterating.next();
                    expected += 1;
                }
                prop_assert_eq!(passing.pass(until_ns, u64::MAX), expected);
                prop_assert_eq!(passing.peek(), iterating.peek());
            }
            prop_assert_eq!(passing.pass(u64::MAX, u64::MAX), iterating.count() as u64);
        }

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
