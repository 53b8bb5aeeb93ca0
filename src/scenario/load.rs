//! The judge of one load: the counts, the achieved rate, the connections, and whatever limits the user set.
//!
//! Counting criteria are never inconclusive: no slow machine loses a message. A timing criterion that fails becomes
//! inconclusive where the generator or the machine may be the reason (`cases.md`: other processes took more than a tenth
//! of a core, or the send lateness's P99 is above a tenth of the limit).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::result::{CriterionOutcome, LoadTestResults, Verdict};
use crate::units::{self, UnitError, parse_duration};

/// The achieved rate must be at least this share of the offered one.
pub const ACHIEVED_SHARE: f64 = 0.99;
/// Answers count as achieved up to so long after the load, so this is the limit that lateness is held against.
const ACHIEVED_GRACE_US: f64 = 500_000.0;
/// Send lateness above this share of a limit may be what breaks the limit.
const LATENESS_SHARE: f64 = 0.1;
/// Foreign CPU above this many cores may be what breaks a limit.
const FOREIGN_CORES: f64 = 0.1;
/// A worker that uses this much of a core has nothing left to be on time with.
const BUSY_CORES: f64 = 0.95;

/// A limit on one percentile of the latency, such as `p99=500ms`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencyLimit {
    percentile: &'static str,
    at_most: Duration,
}

impl FromStr for LatencyLimit {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let malformed = || UnitError::Malformed {
            value: text.to_owned(),
            expected: "a limit such as p99=500ms (p50, p90, p95, p99, p999 or max)",
        };
        let (name, at_most) = text.split_once('=').ok_or_else(malformed)?;
        let names = ["p50", "p90", "p95", "p99", "p999", "max"];
        let percentile = names.into_iter().find(|known| *known == name).ok_or_else(malformed)?;
        let at_most = parse_duration(at_most)?;
        if at_most.is_zero() {
            return Err(malformed());
        }
        Ok(Self { percentile, at_most })
    }
}

impl fmt::Display for LatencyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.percentile, units::span(self.at_most))
    }
}

/// Judges a load and writes criteria, verdict and reasons into its results.
pub fn judge(results: &mut LoadTestResults, limits: &[LatencyLimit]) {
    let mut criteria = counting(results);
    criteria.push(connections(results));
    criteria.extend(achieved_rate(results));
    criteria.extend(limits.iter().map(|limit| latency(results, limit)));
    results.verdict = Verdict::of_all(criteria.iter().map(|criterion| criterion.verdict));
    results.reasons = criteria.iter().filter_map(reason).collect();
    results.criteria = criteria;
}

/// Why a criterion did not pass, in a line.
fn reason(criterion: &CriterionOutcome) -> Option<String> {
    let CriterionOutcome { name, limit, measured, verdict, evidence } = criterion;
    match verdict {
        Verdict::Pass | Verdict::Skipped => None,
        Verdict::Fail | Verdict::Inconclusive => {
            let mut text = format!("{name}: {measured} (limit: {limit})");
            if let Some(first) = evidence.first() {
                text = format!("{text}; {first}");
            }
            Some(text)
        }
    }
}

fn counting(results: &LoadTestResults) -> Vec<CriterionOutcome> {
    let messages = &results.messages;
    let counts = &messages.counts;
    let none = |name: &str, count: u64, evidence: Vec<String>| CriterionOutcome {
        name: name.to_owned(),
        limit: "0".to_owned(),
        measured: units::count(count),
        verdict: if count == 0 { Verdict::Pass } else { Verdict::Fail },
        evidence: if count == 0 { Vec::new() } else { evidence },
    };
    let missing = match &*messages.missing_ids {
        [] => Vec::new(),
        ids => vec![format!(
            "ids: {}{}",
            ids[..ids.len().min(3)].join(", "),
            if ids.len() > 3 { ", …" } else { "" }
        )],
    };
    let distance = vec![format!("by up to {} places", units::count(messages.reorder_distance_max))];
    vec![
        none("lost", counts.lost, missing),
        none("reordered", counts.reordered, distance),
        none("duplicates", counts.duplicates, Vec::new()),
        none("foreign", counts.foreign, Vec::new()),
        none("corrupted", counts.corrupted, Vec::new()),
    ]
}

fn connections(results: &LoadTestResults) -> CriterionOutcome {
    let counts = &results.connections;
    let kept = counts.established.saturating_sub(counts.dropped);
    let reasons = counts.reasons.iter().map(|(reason, count)| format!("{count} × {reason}"));
    CriterionOutcome {
        name: "connections".to_owned(),
        limit: format!("{} established and kept", units::count(counts.requested)),
        measured: units::count(kept),
        verdict: if kept == counts.requested { Verdict::Pass } else { Verdict::Fail },
        evidence: reasons.collect(),
    }
}

fn achieved_rate(results: &LoadTestResults) -> Option<CriterionOutcome> {
    let offered = results.throughput.offered_rate?;
    let achieved = results.throughput.achieved_rate;
    let holds = achieved >= ACHIEVED_SHARE * offered;
    let mut evidence = Vec::new();
    let verdict =
        if holds { Verdict::Pass } else { timing_failure(results, ACHIEVED_GRACE_US, &mut evidence) };
    if !holds {
        evidence.extend(server_side(results));
    }
    Some(CriterionOutcome {
        name: "achieved_rate".to_owned(),
        limit: format!("at least {} of {}", units::percent(ACHIEVED_SHARE), units::per_second(offered)),
        measured: format!("{} ({})", units::per_second(achieved), units::percent(achieved / offered)),
        verdict,
        evidence,
    })
}

fn latency(results: &LoadTestResults, limit: &LatencyLimit) -> CriterionOutcome {
    // In a closed loop nothing is due: the latency from the send is the only one.
    let open_loop = results.workload.rate.is_some();
    let measurement = if open_loop { &results.latency_us } else { &results.service_latency_us };
    let measured_us = measurement.as_ref().and_then(|latency| latency.by_name(limit.percentile)).flatten();
    let limit_us = limit.at_most.as_secs_f64() * 1e6;
    let mut evidence = Vec::new();
    let verdict = match measured_us {
        Some(us) if us < limit_us => Verdict::Pass,
        Some(_) => timing_failure(results, limit_us, &mut evidence),
        // A percentile that falls among messages without an answer is no matter of timing.
        None => {
            let censored = measurement.as_ref().map_or(0, |latency| latency.censored);
            evidence
                .push(format!("{} messages without an answer rank above all others", units::count(censored)));
            Verdict::Fail
        }
    };
    CriterionOutcome {
        name: format!("latency_{}", limit.percentile),
        limit: format!("under {}", units::span(limit.at_most)),
        measured: measured_us.map_or_else(|| "none".to_owned(), units::latency_us),
        verdict,
        evidence,
    }
}

/// How a timing criterion ends that does not hold: inconclusive, with the reasons, where the generator or the machine may
/// have been the limit; else a failure of the server's.
fn timing_failure(results: &LoadTestResults, limit_us: f64, evidence: &mut Vec<String>) -> Verdict {
    let before = evidence.len();
    if let Some(foreign) = results.resources.foreign_cpu_cores.filter(|&cores| cores > FOREIGN_CORES) {
        evidence.push(format!("other processes took {foreign:.2} cores"));
    }
    let lateness_us = results.send_lateness_us.as_ref().and_then(|lateness| lateness.p99);
    if let Some(late_us) = lateness_us.filter(|&late_us| late_us > LATENESS_SHARE * limit_us) {
        evidence.push(format!("the generator was late: send lateness P99 {}", units::latency_us(late_us)));
    }
    if let Some(cores) = results.resources.busiest_worker_cores.filter(|&cores| cores > BUSY_CORES) {
        evidence.push(format!("the generator's busiest worker used {cores:.2} of a core"));
    }
    if evidence.len() > before { Verdict::Inconclusive } else { Verdict::Fail }
}

/// What speaks for the server being the limit.
fn server_side(results: &LoadTestResults) -> Vec<String> {
    let mut seen = Vec::new();
    let counts = &results.messages.counts;
    if results.blocked_sends.messages > 0 {
        seen.push(format!(
            "the server did not read: {} messages waited for a full socket, up to {}",
            units::count(results.blocked_sends.messages),
            units::latency_us(results.blocked_sends.max_us)
        ));
    }
    if counts.refused > 0 {
        seen.push(format!("the server refused {} messages", units::count(counts.refused)));
    }
    if results.messages.unsent > 0 {
        seen.push(format!("{} messages were never sent", units::count(results.messages.unsent)));
    }
    seen
}
