//! The truth of latency: loads on a server that delays each answer by a known time, and what was reported of them.
//!
//! With a delay by law ([`ServerFault::Delay`](crate::server::ServerFault::Delay)) the true distribution is that of the
//! very ids that were sent, not only of the law. With a stall it follows from the schedule alone: what comes due while the
//! server stands still waits for the rest of it.
//!
//! Each message also takes its way there and back, late sends included: the floor, measured by the same load on a server
//! that does not delay. It is independent of the delays, so that the distribution expected of their sum is the convolution
//! of both. Beside a stall the floor is nothing, and is left out.

use std::time::Duration;

use thiserror::Error;

use crate::client::{Observer, Stop};
use crate::result::LoadTestResults;
use crate::result::truth::TruthRow;
use crate::run::{LoadPlan, Peer, RunError, ServerCommand, run_load};
use crate::server::DelayLaw;
use crate::units::{Rate, UnitError};
use crate::workload::{Offered, Workload};

/// What a percentile may be off by, whichever is more.
const TOLERANCE_SHARE: f64 = 0.01;
const TOLERANCE_US: f64 = 150.0;
/// Delays by law: this many messages a second on so many connections, long enough for ten messages above P99.9.
const LAW_RATE: f64 = 2_000.0;
const LAW_CONNECTIONS: u32 = 20;
const LAW_DURATION: Duration = Duration::from_secs(5);
const SEED: u64 = 1;
/// When a stall begins: the load has settled.
const STALL_AT: Duration = Duration::from_millis(100);
/// The server's stall ends by a timer of a millisecond's steps, one of which may be lost at either end.
const STALL_TIMER_US: f64 = 2_000.0;
/// Of the length of a stall that filled a socket, so much may pass until the window is open again: the kernel opens it in
/// steps (measured: 17 ms after a second).
const REOPENING_SHARE: f64 = 0.02;
/// The floor is taken at so many points, evenly over its ranks: enough for P99.9.
const FLOOR_POINTS: u32 = 1_000;
/// A message takes both sides together less than this, microseconds: what waited for a stall is worked off so fast.
const DRAIN_US_PER_MESSAGE: f64 = 4.0;

/// One load and its truth.
#[derive(Debug, Clone, PartialEq)]
pub struct TruthCase {
    /// What the server does.
    pub fault: Fault,
    /// Messages a second.
    pub rate: f64,
    /// Connections.
    pub connections: u32,
}

/// What the server does, so that the truth is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Nothing: the floor.
    None,
    /// It holds each answer for a time by this law, with a seed of its own.
    Delay(DelayLaw, &'static str),
    /// It stands still once for so long.
    Stall(Duration),
}

/// A case could not be run.
#[derive(Debug, Error)]
pub enum TruthError {
    /// Its load could not be offered.
    #[error(transparent)]
    Run(#[from] RunError),
    /// It was ended before it was over.
    #[error("stopped before all was measured")]
    Stopped,
    /// A rate that is none.
    #[error(transparent)]
    Rate(#[from] UnitError),
}

/// The floor, four laws, and stalls of three lengths at rates that the socket does and does not hold.
#[must_use]
pub fn cases() -> Vec<TruthCase> {
    const MS: Duration = Duration::from_millis(1);
    let law = |fault| TruthCase { fault, rate: LAW_RATE, connections: LAW_CONNECTIONS };
    let stall =
        |length_ms, rate, connections| TruthCase { fault: Fault::Stall(MS * length_ms), rate, connections };
    vec![
        law(Fault::None),
        law(Fault::Delay(DelayLaw::Constant(MS * 5), "constant:5ms")),
        law(Fault::Delay(DelayLaw::Uniform(MS, MS * 9), "uniform:1ms:9ms")),
        law(Fault::Delay(DelayLaw::Lognormal { median: MS * 5, sigma: 0.5 }, "lognormal:5ms:0.5")),
        law(Fault::Delay(
            DelayLaw::Bimodal { usual: MS, other: MS * 100, share: 0.001 },
            "bimodal:1ms:100ms:0.001",
        )),
        stall(100, 2_000.0, 100),
        stall(500, 2_000.0, 100),
        stall(1_000, 2_000.0, 100),
        stall(100, 20_000.0, 1),
        stall(500, 20_000.0, 1),
        stall(1_000, 20_000.0, 1),
        stall(500, 100_000.0, 1),
    ]
}

/// The latencies of a load on a server that does not delay, microseconds; where none was measured yet, nothing.
#[derive(Debug, Clone, Default)]
pub struct FloorSample(Vec<f64>);

/// Runs one case against a server of its own, and holds what was reported against the truth. A case without a fault gives
/// the `floor` of those that follow.
///
/// # Errors
/// Where the load cannot be offered, or was ended early.
pub fn run(
    case: &TruthCase,
    server: &ServerCommand,
    floor: &mut FloorSample,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Result<Vec<TruthRow>, TruthError> {
    let mut server = server.clone();
    server.args.extend(case.fault.flags());
    let workload = Workload {
        offered: Offered::Rate(Rate::per_second(case.rate)?),
        connections: case.connections,
        duration: case.duration(),
        payload_bytes: case.payload_bytes(),
        seed: SEED,
        ..Workload::default()
    };
    let results = run_load(&LoadPlan::new(workload, Peer::Own(server)), stop, observer)?;
    if results.interrupted {
        return Err(TruthError::Stopped);
    }
    if case.fault == Fault::None {
        *floor = FloorSample::of(&results);
    }
    Ok(case.rows(&results, floor))
}

impl FloorSample {
    fn of(results: &LoadTestResults) -> Self {
        let at = |point| (f64::from(point) + 0.5) / f64::from(FLOOR_POINTS);
        let latency = &results.histograms.latency;
        let values = (0..FLOOR_POINTS).filter_map(|point| latency.quantile(at(point), 0));
        Self(values.map(|ns| ns as f64 / 1e3).collect())
    }

    /// The distribution of the sum of a delay and a floor, ascending.
    fn convolved(&self, delays_us: Vec<f64>) -> Vec<f64> {
        if self.0.is_empty() {
            return delays_us;
        }
        let mut sums: Vec<f64> =
            delays_us.iter().flat_map(|delay| self.0.iter().map(move |floor| delay + floor)).collect();
        sums.sort_unstable_by(f64::total_cmp);
        sums
    }
}

impl Fault {
    fn flags(&self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::Delay(_, text) => vec![format!("--fault=delay={text},seed={SEED}")],
            Self::Stall(length) => {
                vec![format!("--fault=stall={}ms,at={}ms", length.as_millis(), STALL_AT.as_millis())]
            }
        }
    }
}

impl TruthCase {
    fn name(&self) -> String {
        let what = match self.fault {
            Fault::None => "no delay".to_owned(),
            Fault::Delay(_, text) => text.to_owned(),
            Fault::Stall(length) => format!("stall {} ms", length.as_millis()),
        };
        format!("{what}, {}/s on {}", self.rate, self.connections)
    }

    /// A stall is half of its load but for a tenth, so that the median and all above it are of the stall.
    fn duration(&self) -> Duration {
        match self.fault {
            Fault::None | Fault::Delay(..) => LAW_DURATION,
            Fault::Stall(length) => length.mul_f64(1.6).max(STALL_AT + length),
        }
    }

    /// On one connection so much that a stall fills the buffers of both sides, a few megabytes on loopback.
    fn payload_bytes(&self) -> usize {
        match self.fault {
            Fault::Stall(_) if self.connections == 1 => 1_024,
            _ => 64,
        }
    }

    fn rows(&self, results: &LoadTestResults, floor: &FloorSample) -> Vec<TruthRow> {
        let truth = self.truth_us(results);
        let truth = if matches!(self.fault, Fault::Delay(..)) { floor.convolved(truth) } else { truth };
        let measurement = results.latency_us.as_ref();
        let percentiles = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)];
        let row = |(percentile, quantile): (&'static str, f64)| {
            let expected_us = (!truth.is_empty()).then(|| nearest_rank(&truth, quantile));
            TruthRow {
                case: self.name(),
                percentile: percentile.to_owned(),
                expected_us,
                reported_us: measurement.and_then(|measured| measured.by_name(percentile)).flatten(),
                tolerance_us: self.tolerance_us(expected_us.unwrap_or(0.0)),
                foreign_cpu_cores: results.resources.foreign_cpu_cores,
            }
        };
        percentiles.into_iter().map(row).collect()
    }

    /// What came due late in a stall waits for its end, and then for what came due before it to be worked off.
    fn tolerance_us(&self, expected_us: f64) -> f64 {
        let exact_us = (TOLERANCE_SHARE * expected_us).max(TOLERANCE_US);
        match self.fault {
            Fault::None | Fault::Delay(..) => exact_us,
            Fault::Stall(length) => {
                let reopening_us = match self.connections {
                    1 => REOPENING_SHARE * length.as_secs_f64() * 1e6,
                    _ => 0.0,
                };
                let before_us = (length.as_secs_f64() * 1e6 - expected_us).max(0.0);
                exact_us + STALL_TIMER_US + reopening_us + before_us * 1e-6 * self.rate * DRAIN_US_PER_MESSAGE
            }
        }
    }

    /// The true latency of every message due, ascending; empty where nothing is delayed.
    fn truth_us(&self, results: &LoadTestResults) -> Vec<f64> {
        let mut truth: Vec<f64> = match self.fault {
            Fault::None => Vec::new(),
            Fault::Delay(law, _) => results
                .per_connection
                .iter()
                .flat_map(|connection| {
                    let client_id =
                        format!("{}-{}-{}", results.run_id, results.shard.index, connection.connection);
                    (0..connection.due).map(move |n| law.of(SEED, &format!("{client_id}-{n}")))
                })
                .map(|delay| delay.as_secs_f64() * 1e6)
                .collect(),
            Fault::Stall(length) => {
                let end_us = (STALL_AT + length).as_secs_f64() * 1e6;
                let begin_us = STALL_AT.as_secs_f64() * 1e6;
                let due_us = (0..results.messages.due).map(|n| n as f64 / self.rate * 1e6);
                due_us
                    .map(|due_us| if due_us < begin_us { 0.0 } else { (end_us - due_us).max(0.0) })
                    .collect()
            }
        };
        truth.sort_unstable_by(f64::total_cmp);
        truth
    }
}

/// The value at the nearest rank, as results take it.
fn nearest_rank(ascending: &[f64], quantile: f64) -> f64 {
    let rank = (quantile * ascending.len() as f64 - 1e-9).ceil().max(1.0) as usize;
    ascending[rank.min(ascending.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Counts;
    use crate::result::{ConnectionSummary, example};

    fn results(due: u64) -> LoadTestResults {
        let mut results = example::clean();
        results.messages.due = due;
        results.per_connection = vec![ConnectionSummary {
            connection: 3,
            due,
            counts: Counts::default(),
            achieved: due,
            latency_p95_at_most_us: None,
        }];
        results
    }

    #[test]
    fn the_truth_of_a_stall_is_the_rest_of_it() {
        let case =
            TruthCase { fault: Fault::Stall(Duration::from_millis(100)), rate: 1_000.0, connections: 1 };
        // Due at 0 to 249 ms; the stall from 100 to 200 ms.
        let truth = case.truth_us(&results(250));
        assert_eq!((truth.len(), truth[0], truth[149], truth[249]), (250, 0.0, 0.0, 100_000.0));
        assert!(truth[150..].iter().zip(1..).all(|(us, n)| (us - f64::from(n) * 1e3).abs() < 1e-6));
    }

    #[test]
    fn the_truth_of_a_law_is_that_of_the_ids_that_were_sent() {
        let law = DelayLaw::Uniform(Duration::from_millis(1), Duration::from_millis(9));
        let case = TruthCase { fault: Fault::Delay(law, "uniform:1ms:9ms"), rate: 1.0, connections: 1 };
        let mut expected: Vec<f64> =
            (0..50).map(|n| law.of(SEED, &format!("0-0-3-{n}")).as_secs_f64() * 1e6).collect();
        expected.sort_unstable_by(f64::total_cmp);
        assert_eq!(case.truth_us(&results(50)), expected);
    }

    #[test]
    fn the_floor_adds_to_each_delay() {
        let floor = FloorSample(vec![1.0, 2.0]);
        assert_eq!(floor.convolved(vec![10.0, 20.0]), [11.0, 12.0, 21.0, 22.0]);
        assert_eq!(FloorSample::default().convolved(vec![10.0]), [10.0]);
        // The example's messages take a millisecond each.
        let of_example = FloorSample::of(&example::clean());
        assert_eq!(of_example.0.len(), FLOOR_POINTS as usize);
        assert!(of_example.0.iter().all(|us| (us / 1_000.0 - 1.0).abs() < 0.002));
    }

    #[test]
    fn ranks_are_those_of_the_results() {
        let values: Vec<f64> = (1..=1_000).map(f64::from).collect();
        let of = |quantile| nearest_rank(&values, quantile);
        assert_eq!((of(0.5), of(0.99), of(0.999), of(1.0)), (500.0, 990.0, 999.0, 1_000.0));
        assert_eq!(nearest_rank(&[7.0], 0.5), 7.0);
    }
}
