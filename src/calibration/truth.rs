//! The truth of latency: loads on a server that delays each answer by a known time, and what was reported of them.
//!
//! With a delay by law ([`ServerFault::Delay`](crate::server::ServerFault::Delay)) the true distribution is that of the
//! very ids that were sent, not only of the law. With a stall it follows from the schedule: what comes due while the server
//! stands still waits for its end, and then for all that is worked off before it, a message after the other (D. V. Lindley,
//! "The theory of queues with a single server", 1952): on one connection what came due before it, on several what waits on
//! those that the server reads first, since it takes all that a socket holds.
//!
//! Two figures are measured apart from what is judged. Each message takes its way there and back, late sends included: the
//! floor, that of the same load on a server that does not delay, right before and right after. It is independent of the delays,
//! so that the distribution expected of their sum is the convolution of both; beside a stall it is nothing, and is left out.
//! Where the two floors give percentiles further apart than what is allowed, the machine itself decides that percentile, and
//! it is unsure. And the time that both sides take for a message of a backlog is that of the same load ended with its stall: how
//! long after that the last answer came, for each message that had to wait. A closed loop does not tell it: there nobody has
//! stood still, no buffer was full, and the connections take their turns in another rhythm. It is taken five times, and the fastest
//! is expected: whatever comes between makes it longer, and where a load has ended, both sides may have to share a core. Where
//! it and the median give percentiles further apart than what is allowed, that is the machine's too.
//!
//! Both sides poll the clock instead of sleeping: how late this machine's timers are is no matter of whether a latency is
//! measured right. Nothing keeps them on cores of their own; where the scheduler puts both on one, that is part of what is seen.

use std::time::Duration;

use thiserror::Error;

use crate::client::{Access, Observer, Stop};
use crate::pacer::PacerKind;
use crate::result::LoadTestResults;
use crate::result::truth::TruthRow;
use crate::run::{LoadPlan, Peer, RunError, ServerCommand, run_load};
use crate::server::DelayLaw;
use crate::units::{Rate, UnitError};
use crate::workload::{Offered, Workload};

/// What a percentile may be off by, whichever is more.
const TOLERANCE_SHARE: f64 = 0.01;
const TOLERANCE_US: f64 = 150.0;
/// Delays by law: this many messages a second on so many connections, long enough for forty messages above P99.9, so that
/// one hiccup of the machine does not decide it.
const LAW_RATE: f64 = 2_000.0;
const LAW_CONNECTIONS: u32 = 20;
const LAW_DURATION: Duration = Duration::from_secs(20);
/// Two of them are as long as the load that they stand beside.
const FLOOR_DURATION: Duration = Duration::from_secs(10);
const SEED: u64 = 1;
/// Little, so that a backlog is worked off fast.
const PAYLOAD_BYTES: usize = 64;
/// When a stall begins: the load has settled, and the shortest stall still is most of its load.
const STALL_AT: Duration = Duration::from_millis(60);
/// Where there is one connection, its buffers: about a thousand messages fill them, and the sender is blocked while the server
/// stands still. Below the 64 KiB of a packet on loopback it is TCP's own timers that are measured.
const SMALL_BUFFERS: usize = 64 << 10;
/// The floor is taken at so many points, evenly over its ranks: enough for P99.9.
const FLOOR_POINTS: u32 = 1_000;
/// How often it is measured how fast a backlog is worked off.
const BACKLOGS: usize = 5;

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
    /// The socket held all that came due in the stall, so that this shows nothing of a sender that has to wait.
    #[error("the sender was never blocked, although its socket's buffers are small")]
    NeverBlocked,
    /// What waited for the end of a stall was not worked off.
    #[error("of {due} messages that came due up to the end of a stall, only {answered} were answered")]
    NotWorkedOff {
        /// So many came due.
        due: u64,
        /// And so many were answered.
        answered: u64,
    },
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
        stall(100, 100_000.0, 1),
        stall(500, 100_000.0, 1),
        stall(1_000, 100_000.0, 1),
    ]
}

/// Those whose name holds `text`, and what they need: the floor stands before delays.
///
/// # Errors
/// Where there is none: the names of all.
pub fn selected(text: &str) -> Result<Vec<TruthCase>, Vec<String>> {
    let all = cases();
    let named = |case: &TruthCase| case.name().contains(text);
    if !all.iter().any(named) {
        return Err(all.iter().map(TruthCase::name).collect());
    }
    let delays = all.iter().any(|case| named(case) && matches!(case.fault, Fault::Delay(..)));
    let needed = |case: &TruthCase| named(case) || (delays && case.fault == Fault::None);
    Ok(all.into_iter().filter(needed).collect())
}

/// What was measured on servers that do nothing wrong, for the truth of those that do.
#[derive(Debug, Clone, Default)]
pub struct Baseline {
    /// The latest.
    floor: Option<FloorSample>,
}

/// The latencies of a load on a server that does not delay, microseconds; where none was measured yet, nothing.
#[derive(Debug, Clone, Default)]
struct FloorSample(Vec<f64>);

/// Runs one case against a server of its own, and holds what was reported against the truth. What the truth needs beside
/// the schedule is measured beside it, and kept in `baseline` where others need it too.
///
/// # Errors
/// Where the load cannot be offered, or was ended early.
pub fn run(
    case: &TruthCase,
    server: &ServerCommand,
    baseline: &mut Baseline,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Result<Vec<TruthRow>, TruthError> {
    let mut measured = |workload, flags: Vec<String>| {
        let mut server = server.clone();
        server.args.push("--workers=1".to_owned());
        server.args.extend(case.socket_buffer_bytes().map(|bytes| format!("--socket-buffer={bytes}")));
        server.args.extend(flags);
        let access = Access { socket_buffer_bytes: case.socket_buffer_bytes(), ..Access::default() };
        let plan = LoadPlan { access, ..LoadPlan::new(workload, Peer::Own(server)) };
        let results = run_load(&plan, stop, observer)?;
        if results.interrupted { Err(TruthError::Stopped) } else { Ok(results) }
    };
    let floor_load = Workload { duration: FLOOR_DURATION, ..case.load()? };
    let delays = matches!(case.fault, Fault::Delay(..));
    if delays && baseline.floor.is_none() {
        baseline.floor = Some(FloorSample::of(&measured(floor_load.clone(), Vec::new())?));
    }
    if let Fault::Stall(length) = case.fault {
        let until_its_end = Workload { duration: STALL_AT + length, ..case.load()? };
        let backlogs_us = (0..BACKLOGS)
            .map(|_| case.backlog_us(length, &measured(until_its_end.clone(), case.fault.flags())?))
            .collect::<Result<Vec<_>, TruthError>>()?;
        let results = measured(case.load()?, case.fault.flags())?;
        if case.socket_buffer_bytes().is_some() && results.blocked_sends.messages == 0 {
            return Err(TruthError::NeverBlocked);
        }
        return Ok(case.rows(&results, &case.after(&results, backlogs_us)));
    }
    let results = measured(case.load()?, case.fault.flags())?;
    let after = match case.fault {
        Fault::Delay(..) => FloorSample::of(&measured(floor_load, Vec::new())?),
        Fault::None | Fault::Stall(_) => FloorSample::of(&results),
    };
    let before = baseline.floor.replace(after.clone()).filter(|_| delays);
    let floors: Vec<FloorSample> = before.into_iter().chain([after]).collect();
    Ok(case.rows(&results, &case.beside(&results, &floors)))
}

/// What is expected of the latencies of a load, microseconds, ascending; empty where nothing is.
#[derive(Debug, Clone, Default)]
struct Expected {
    ascending_us: Vec<f64>,
    /// The same by what the machine did at another time: what differs between these is the machine's.
    machine: Option<[Vec<f64>; 2]>,
}

impl Expected {
    fn at(&self, quantile: f64) -> Option<f64> {
        (!self.ascending_us.is_empty()).then(|| nearest_rank(&self.ascending_us, quantile))
    }

    fn machine_us(&self, quantile: f64) -> Option<f64> {
        let [one, other] = self.machine.as_ref().filter(|_| !self.ascending_us.is_empty())?;
        Some((nearest_rank(one, quantile) - nearest_rank(other, quantile)).abs())
    }
}

impl FloorSample {
    fn of(results: &LoadTestResults) -> Self {
        let at = |point| (f64::from(point) + 0.5) / f64::from(FLOOR_POINTS);
        let latency = &results.histograms.latency;
        let values = (0..FLOOR_POINTS).filter_map(|point| latency.quantile(at(point), 0));
        Self(values.map(|ns| ns as f64 / 1e3).collect())
    }

    /// All of them, as one.
    fn both(floors: &[Self]) -> Self {
        Self(floors.iter().flat_map(|floor| &floor.0).copied().collect())
    }

    /// The distribution of the sum of a delay and a floor, ascending.
    fn convolved(&self, delays_us: &[f64]) -> Vec<f64> {
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
            Fault::None => FLOOR_DURATION,
            Fault::Delay(..) => LAW_DURATION,
            Fault::Stall(length) => length.mul_f64(1.6).max(STALL_AT + length),
        }
    }

    fn socket_buffer_bytes(&self) -> Option<usize> {
        (self.connections == 1).then_some(SMALL_BUFFERS)
    }

    fn load(&self) -> Result<Workload, UnitError> {
        Ok(Workload {
            offered: Offered::Rate(Rate::per_second(self.rate)?),
            connections: self.connections,
            payload_bytes: PAYLOAD_BYTES,
            pacer: PacerKind::Spin,
            duration: self.duration(),
            seed: SEED,
            ..Workload::default()
        })
    }

    /// Microseconds a message of the backlog, of a load that ended with its stall: nothing else was to do any more.
    fn backlog_us(&self, stall: Duration, results: &LoadTestResults) -> Result<f64, TruthError> {
        let (due, answered) = (results.messages.due, results.messages.counts.answered);
        let last_answer_s = results.moments.last_answer_s.filter(|_| answered == due);
        let last_answer_s = last_answer_s.ok_or(TruthError::NotWorkedOff { due, answered })?;
        let worked_off_s = last_answer_s - (STALL_AT + stall).as_secs_f64();
        Ok(worked_off_s.max(0.0) * 1e6 / (self.rate * stall.as_secs_f64()))
    }

    /// What was reported against what is expected: five percentiles, and of a stall the worst of its upper half.
    fn rows(&self, results: &LoadTestResults, expected: &Expected) -> Vec<TruthRow> {
        let measurement = results.latency_us.as_ref();
        let percentiles = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)];
        let row = |(percentile, quantile): (&'static str, f64)| {
            let reported_us = measurement.and_then(|measured| measured.by_name(percentile)).flatten();
            self.row(results, expected, percentile.to_owned(), quantile, reported_us)
        };
        let stalled =
            matches!(self.fault, Fault::Stall(_)).then(|| self.furthest_off(results, expected)).flatten();
        percentiles.into_iter().map(row).chain(stalled).collect()
    }

    /// Of all whole percentiles from the median up, the one that is furthest off for what it may be.
    fn furthest_off(&self, results: &LoadTestResults, expected: &Expected) -> Option<TruthRow> {
        let censored = results.latency_us.as_ref().map_or(0, |measured| measured.censored);
        let at = |percentile: u8| {
            let quantile = f64::from(percentile) / 100.0;
            let reported_ns = results.histograms.latency.quantile(quantile, censored);
            let reported_us = reported_ns.map(|ns| ns as f64 / 1e3);
            self.row(results, expected, format!("worst p{percentile}"), quantile, reported_us)
        };
        let off = |row: &TruthRow| {
            row.difference_us().map_or(f64::INFINITY, |difference| difference.abs() / row.tolerance_us)
        };
        (50..=99).map(at).max_by(|a, b| off(a).total_cmp(&off(b)))
    }

    fn row(
        &self,
        results: &LoadTestResults,
        expected: &Expected,
        percentile: String,
        quantile: f64,
        reported_us: Option<f64>,
    ) -> TruthRow {
        let expected_us = expected.at(quantile);
        TruthRow {
            case: self.name(),
            percentile,
            expected_us,
            reported_us,
            tolerance_us: (TOLERANCE_SHARE * expected_us.unwrap_or_default()).max(TOLERANCE_US),
            foreign_cpu_cores: results.resources.foreign_cpu_cores,
            floors_differ_us: expected.machine_us(quantile),
        }
    }

    /// What is expected beside floors that were these.
    fn beside(&self, results: &LoadTestResults, floors: &[FloorSample]) -> Expected {
        let alone = self.truth_us(results, 0.0);
        let beside = |floor: &FloorSample| floor.convolved(&alone);
        let machine = match floors {
            [before, after] => Some([beside(before), beside(after)]),
            _ => None,
        };
        Expected { ascending_us: beside(&FloorSample::both(floors)), machine }
    }

    /// What is expected where a message of a backlog took so long, each time that this was measured.
    fn after(&self, results: &LoadTestResults, mut backlogs_us: Vec<f64>) -> Expected {
        backlogs_us.sort_unstable_by(f64::total_cmp);
        let of = |place: usize| {
            let backlog_us = backlogs_us.get(place).or(backlogs_us.last());
            self.truth_us(results, backlog_us.copied().unwrap_or_default())
        };
        let last = backlogs_us.len().saturating_sub(1);
        Expected { ascending_us: of(0), machine: Some([of(0), of(last / 2)]) }
    }

    /// The true latency of every message due, ascending, where one of a backlog takes `backlog_us`; empty where nothing is
    /// delayed.
    fn truth_us(&self, results: &LoadTestResults, backlog_us: f64) -> Vec<f64> {
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
                let stalled = STALL_AT.as_secs_f64() * 1e6..end_us;
                let due_us = |n: u64| n as f64 / self.rate * 1e6;
                let mut waiting: Vec<u64> =
                    (0..results.messages.due).filter(|&n| stalled.contains(&due_us(n))).collect();
                let first = waiting.first().copied().unwrap_or_default();
                let beyond = waiting.last().map_or(0, |last| last + 1);
                waiting.sort_by_key(|n| n % u64::from(self.connections.max(1)));
                let mut free_us = 0.0_f64;
                let wait = |n: u64| {
                    let served_us = if stalled.contains(&due_us(n)) { end_us } else { due_us(n) };
                    free_us = served_us.max(free_us) + backlog_us;
                    free_us - due_us(n)
                };
                (0..first).chain(waiting).chain(beyond..results.messages.due).map(wait).collect()
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
        // Due at 0 to 249 ms; the stall from 60 to 160 ms.
        let truth = case.truth_us(&results(250), 0.0);
        assert_eq!((truth.len(), truth[0], truth[149], truth[249]), (250, 0.0, 0.0, 100_000.0));
        assert!(truth[150..].iter().zip(1..).all(|(us, n)| (us - f64::from(n) * 1e3).abs() < 1e-6));
    }

    #[test]
    fn what_waited_for_a_stall_is_worked_off_one_by_one() {
        let case =
            TruthCase { fault: Fault::Stall(Duration::from_millis(100)), rate: 1_000.0, connections: 1 };
        // A quarter of a millisecond each: at 160 ms the 100 of the stall wait, and those due since come behind them.
        let mut by_hand: Vec<f64> = (0..60).map(|_| 250.0).collect();
        by_hand.extend((0..100).map(|k| 100_000.0 + f64::from(k + 1) * 250.0 - f64::from(k) * 1_000.0));
        // Each is due a millisecond after the one before and served a quarter after: 25 ms are caught up by 750 µs each.
        by_hand.extend((0..90).map(|k| (25_250.0 - f64::from(k) * 750.0).max(250.0)));
        by_hand.sort_unstable_by(f64::total_cmp);
        let truth = case.truth_us(&results(250), 250.0);
        assert_eq!(truth.len(), by_hand.len());
        assert!(truth.iter().zip(&by_hand).all(|(a, b)| (a - b).abs() < 1e-3), "{truth:?} {by_hand:?}");
    }

    #[test]
    fn several_connections_are_worked_off_one_after_the_other() {
        let case = TruthCase { fault: Fault::Stall(Duration::from_millis(4)), rate: 1_000.0, connections: 2 };
        // From 60 to 64 ms; those due at 60 and 62 are on the first connection, a message takes 100 µs, and one waits behind them.
        let truth = case.truth_us(&results(66), 100.0);
        let by_hand = [100.0; 61].into_iter().chain([500.0, 1_400.0, 2_200.0, 3_300.0, 4_100.0]);
        assert!(truth.iter().zip(by_hand).all(|(a, b)| (a - b).abs() < 1e-3), "{truth:?}");
        assert_eq!(truth.len(), 66);
    }

    #[test]
    fn what_the_machine_works_off_now_slower_and_now_faster_is_unsure() {
        let stall = Duration::from_millis(100);
        let case = TruthCase { fault: Fault::Stall(stall), rate: 1_000.0, connections: 1 };
        let results = results(160);
        let at = |backlogs_us: &[f64], quantile| {
            let expected = case.after(&results, backlogs_us.to_vec());
            (expected.at(quantile).unwrap(), expected.machine_us(quantile).unwrap())
        };
        // The 100 of the stall are the upper 62.5 %: at the median stands the one due 20 ms before its end, behind 79.
        let (expected, machine) = at(&[9.0, 1.0, 4.0, 90.0, 2.0], 0.5);
        assert!((expected - (20_000.0 + 81.0)).abs() < 1e-3, "{expected}");
        // The slowest of all says nothing.
        assert!((machine - 81.0 * (4.0 - 1.0)).abs() < 1e-3, "{machine}");
        assert_eq!(at(&[1.0], 0.5), (expected, 0.0));
        assert_eq!(Expected::default().machine_us(0.5), None);
    }

    #[test]
    fn a_backlog_takes_as_long_as_its_last_answer_says() {
        let stall = Duration::from_millis(100);
        let case = TruthCase { fault: Fault::Stall(stall), rate: 1_000.0, connections: 1 };
        // The stall ends at 160 ms, and 100 messages waited for it.
        let with = |answered, last_answer_s| {
            let mut results = results(160);
            results.messages.counts.answered = answered;
            results.moments.last_answer_s = last_answer_s;
            case.backlog_us(stall, &results)
        };
        assert!((with(160, Some(0.185)).unwrap() - 250.0).abs() < 1e-6);
        assert_eq!(with(160, Some(0.159)).unwrap(), 0.0);
        let told = with(159, Some(0.185)).unwrap_err().to_string();
        assert!(told.contains("160") && told.contains("159"), "{told}");
        assert!(with(160, None).is_err());
    }

    #[test]
    fn a_delay_brings_its_floor_and_a_stall_needs_none() {
        let names = |text| selected(text).map(|cases| cases.iter().map(TruthCase::name).collect::<Vec<_>>());
        assert_eq!(names("").unwrap().len(), cases().len());
        assert_eq!(names("uniform").unwrap(), ["no delay, 2000/s on 20", "uniform:1ms:9ms, 2000/s on 20"]);
        assert_eq!(names("500 ms, 100000/s").unwrap(), ["stall 500 ms, 100000/s on 1"]);
        assert_eq!(names("nothing").unwrap_err().len(), cases().len());
    }

    #[test]
    fn no_case_is_allowed_more_than_the_others() {
        for case in cases() {
            let results = results(5_000);
            let expected = case.after(&results, vec![4.0]);
            for row in case.rows(&results, &expected) {
                assert_eq!(row.tolerance_us, (0.01 * row.expected_us.unwrap_or(0.0)).max(150.0), "{row:?}");
            }
        }
    }

    #[test]
    fn the_truth_of_a_law_is_that_of_the_ids_that_were_sent() {
        let law = DelayLaw::Uniform(Duration::from_millis(1), Duration::from_millis(9));
        let case = TruthCase { fault: Fault::Delay(law, "uniform:1ms:9ms"), rate: 1.0, connections: 1 };
        let mut expected: Vec<f64> =
            (0..50).map(|n| law.of(SEED, &format!("0-0-3-{n}")).as_secs_f64() * 1e6).collect();
        expected.sort_unstable_by(f64::total_cmp);
        assert_eq!(case.truth_us(&results(50), 0.0), expected);
    }

    #[test]
    fn the_floor_adds_to_each_delay() {
        let floor = FloorSample(vec![1.0, 2.0]);
        assert_eq!(floor.convolved(&[10.0, 20.0]), [11.0, 12.0, 21.0, 22.0]);
        assert_eq!(
            FloorSample::both(&[floor, FloorSample(vec![4.0])]).convolved(&[10.0]),
            [11.0, 12.0, 14.0]
        );
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
