//! How a load compares with an earlier one: the rate that it achieved, and its P95.

use std::time::Duration;

use super::criteria::{ACHIEVED_GRACE, Timed, counted, shown, under};
use crate::config::Limits;
use crate::result::{CriterionOutcome, LoadTestResults};
use crate::units;

/// The achieved rate is within `change_ratio` of that before, in either direction.
pub(super) fn rate_as_before(
    name: &str,
    limits: &Limits,
    before: &LoadTestResults,
    after: &LoadTestResults,
    change_ratio: f64,
) -> CriterionOutcome {
    let (was, is) = (before.throughput.achieved_rate, after.throughput.achieved_rate);
    let allowed = change_ratio * was;
    let timed = Timed {
        name,
        limit: format!("{} ± {}", units::per_second(was), units::percent(change_ratio)),
        measured: Some(units::per_second(is)),
        // Nothing achieved before is nothing to compare with.
        holds: was > 0.0 && (is - was).abs() <= allowed,
        lateness_limit: ACHIEVED_GRACE,
        evidence: Vec::new(),
    };
    timed.outcome(limits, &[before, after])
}

/// The achieved rate has fallen by less than `fall_ratio` from `expected` messages per second.
pub(super) fn rate_kept(
    name: &str,
    limits: &Limits,
    expected: f64,
    runs: [&LoadTestResults; 2],
    fall_ratio: f64,
) -> CriterionOutcome {
    let [_, during] = runs;
    let achieved = during.throughput.achieved_rate;
    let timed = Timed {
        name,
        limit: format!("less than {} under {}", units::percent(fall_ratio), units::per_second(expected)),
        measured: Some(units::per_second(achieved)),
        holds: expected > 0.0 && achieved > (1.0 - fall_ratio) * expected,
        lateness_limit: ACHIEVED_GRACE,
        evidence: Vec::new(),
    };
    timed.outcome(limits, &runs)
}

/// P95 is under `factor` times that before, or under `floor` where that is more.
pub(super) fn p95_as_before(
    name: &str,
    limits: &Limits,
    before: &LoadTestResults,
    after: &LoadTestResults,
    (factor, floor): (f64, Duration),
) -> CriterionOutcome {
    let p95_us = |run: &LoadTestResults| run.latency_us.as_ref().and_then(|latency| latency.p95);
    let (Some(was_us), is_us) = (p95_us(before), p95_us(after)) else {
        let why = "there is no P95 before to compare with".to_owned();
        return counted(name, under(units::span(floor)), "none".to_owned(), false, [why]);
    };
    let limit_us = (factor * was_us).max(floor.as_secs_f64() * 1e6);
    let allowed = under(units::latency_us(limit_us));
    let Some(us) = is_us else {
        let why = "messages without an answer rank above all others".to_owned();
        return counted(name, allowed, shown(is_us, units::latency_us), false, [why]);
    };
    let timed = Timed {
        name,
        limit: allowed,
        measured: Some(units::latency_us(us)),
        holds: us < limit_us,
        lateness_limit: Duration::try_from_secs_f64(limit_us / 1e6).unwrap_or(Duration::MAX),
        evidence: vec![format!("{} before", units::latency_us(was_us))],
    };
    timed.outcome(limits, &[before, after])
}
