//! How a criterion is put together, and when one that fails is inconclusive instead.

use std::fmt::Display;
use std::time::Duration;

use crate::analysis::ThroughputAnalyzer;
use crate::config::Limits;
use crate::result::{CriterionOutcome, LoadTestResults, Verdict};
use crate::units;

/// Answers count as achieved up to so long after the load, so lateness is held against this.
pub(super) const ACHIEVED_GRACE: Duration = Duration::from_millis(500);
/// A worker that uses this much of a core has nothing left to be on time with.
const BUSY_CORES: f64 = 0.95;

/// A criterion that nothing may be counted of. Never inconclusive: no slow machine loses a message.
pub(super) fn none_of(
    name: &str,
    count: u64,
    evidence: impl IntoIterator<Item = String>,
) -> CriterionOutcome {
    counted(name, "0".to_owned(), units::count(count), count == 0, evidence)
}

/// A criterion over counts or ratios of counts, which holds or fails.
pub(super) fn counted(
    name: &str,
    limit: String,
    measured: String,
    holds: bool,
    evidence: impl IntoIterator<Item = String>,
) -> CriterionOutcome {
    CriterionOutcome {
        name: name.to_owned(),
        limit,
        measured,
        verdict: if holds { Verdict::Pass } else { Verdict::Fail },
        evidence: if holds { Vec::new() } else { evidence.into_iter().collect() },
    }
}

/// A criterion that this target cannot be judged by, and why.
pub(super) fn skipped(name: &str, limit: &str, why: &str) -> CriterionOutcome {
    CriterionOutcome {
        name: name.to_owned(),
        limit: limit.to_owned(),
        measured: "none".to_owned(),
        verdict: Verdict::Skipped,
        evidence: vec![why.to_owned()],
    }
}

/// A criterion that depends on time, so that the generator or the machine may be why it fails.
pub(super) struct Timed<'a> {
    pub(super) name: &'a str,
    pub(super) limit: String,
    pub(super) measured: String,
    pub(super) holds: bool,
    /// What the send lateness is held against: the limit itself, where it is a latency.
    pub(super) lateness_limit: Duration,
    pub(super) evidence: Vec<String>,
}

impl Timed<'_> {
    /// Its outcome, given the runs that it was measured in.
    pub(super) fn outcome(self, limits: &Limits, runs: &[&LoadTestResults]) -> CriterionOutcome {
        let Self { name, limit, measured, holds, lateness_limit, evidence } = self;
        let doubts: Vec<String> = if holds {
            Vec::new()
        } else {
            runs.iter().flat_map(|run| doubts(limits, run, lateness_limit)).collect()
        };
        let verdict = match (holds, doubts.is_empty()) {
            (true, _) => Verdict::Pass,
            (false, true) => Verdict::Fail,
            (false, false) => Verdict::Inconclusive,
        };
        let evidence = if holds { Vec::new() } else { doubts.into_iter().chain(evidence).collect() };
        CriterionOutcome { name: name.to_owned(), limit, measured, verdict, evidence }
    }
}

/// Why the generator or the machine, not the server, may have been the limit of a run (`cases.md`: other processes took
/// more than a tenth of a core, or the send lateness's P99 is above a tenth of the limit).
pub(super) fn doubts(limits: &Limits, run: &LoadTestResults, limit: Duration) -> Vec<String> {
    let mut doubts = Vec::new();
    if let Some(foreign) = run.resources.foreign_cpu_cores.filter(|&cores| cores > limits.foreign_cpu_cores) {
        doubts.push(format!("other processes took {foreign:.2} cores"));
    }
    let late_from_us = limits.lateness_ratio * limit.as_secs_f64() * 1e6;
    let late_us = run.send_lateness_us.as_ref().and_then(|lateness| lateness.p99);
    if let Some(late_us) = late_us.filter(|&late_us| late_us > late_from_us) {
        doubts.push(format!("the generator was late: send lateness P99 {}", units::latency_us(late_us)));
    }
    if let Some(cores) = run.resources.busiest_worker_cores.filter(|&cores| cores > BUSY_CORES) {
        doubts.push(format!("the generator's busiest worker used {cores:.2} of a core"));
    }
    doubts
}

/// Slope and R² of a straight line through `points`, which must have a slope of 1 ± `tolerance` and fit to `r_squared`.
pub(super) fn straight_line(
    limits: &Limits,
    points: &[(f64, f64)],
    runs: &[&LoadTestResults],
    (tolerance, least_r_squared): (f64, f64),
    range: &str,
) -> [CriterionOutcome; 2] {
    let line = ThroughputAnalyzer::calculate_linear_fit(points);
    let timed = |name, limit, value: Option<f64>, holds: &dyn Fn(f64) -> bool| {
        let timed = Timed {
            name,
            limit,
            measured: shown(value, |value| format!("{value:.4}")),
            holds: value.is_some_and(holds),
            lateness_limit: ACHIEVED_GRACE,
            evidence: line.as_ref().err().map(ToString::to_string).into_iter().collect(),
        };
        timed.outcome(limits, runs)
    };
    let slope = line.as_ref().ok().map(|line| line.slope);
    let r_squared = line.as_ref().ok().and_then(|line| line.r_squared);
    [
        timed("slope", format!("1 ± {tolerance}{range}"), slope, &|slope| (slope - 1.0).abs() <= tolerance),
        timed("r_squared", format!("at least {least_r_squared}{range}"), r_squared, &|r| {
            r >= least_r_squared
        }),
    ]
}

/// A value that may be missing, for people.
pub(super) fn shown<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "none".to_owned(), show)
}

/// `under 200 ms`.
pub(super) fn under(limit: impl Display) -> String {
    format!("under {limit}")
}
