//! How a load compares with an earlier one: the rate that it achieved, and its P95.
//!
//! What the machine did to the earlier load makes a measure that everything passes by. So a load that holds only because
//! the earlier one was that bad is in doubt where that one is.

use std::time::Duration;

use super::criteria::{ACHIEVED_GRACE, Timed, counted, doubts, shown, under};
use crate::config::Limits;
use crate::result::{CriterionOutcome, LoadTestResults, Verdict};
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
    let [before, during] = runs;
    let achieved = during.throughput.achieved_rate;
    let kept = |expected: f64| achieved > (1.0 - fall_ratio) * expected;
    // Of what was due.
    let against_due = during.throughput.offered_rate.is_none_or(kept);
    let timed = Timed {
        name,
        limit: format!("less than {} under {}", units::percent(fall_ratio), units::per_second(expected)),
        measured: Some(units::per_second(achieved)),
        holds: expected > 0.0 && kept(expected),
        lateness_limit: ACHIEVED_GRACE,
        evidence: Vec::new(),
    };
    unless_by_a_bad_measure(timed.outcome(limits, &runs), against_due, || {
        doubts(limits, before, ACHIEVED_GRACE)
    })
}

/// In doubt where it passes, does not hold `anyway`, and what it is measured by is in doubt.
fn unless_by_a_bad_measure(
    outcome: CriterionOutcome,
    anyway: bool,
    doubts: impl FnOnce() -> Vec<String>,
) -> CriterionOutcome {
    if anyway || outcome.verdict != Verdict::Pass {
        return outcome;
    }
    let evidence: Vec<String> = doubts().iter().map(|doubt| format!("in the load before: {doubt}")).collect();
    let verdict = if evidence.is_empty() { Verdict::Pass } else { Verdict::Inconclusive };
    CriterionOutcome { verdict, evidence, ..outcome }
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
    let anyway = us < floor.as_secs_f64() * 1e6;
    let measure = Duration::try_from_secs_f64(was_us / 1e6).unwrap_or(Duration::MAX);
    unless_by_a_bad_measure(timed.outcome(limits, &[before, after]), anyway, || {
        doubts(limits, before, measure)
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::run;
    use super::*;
    use crate::config::{HighVolumeConfig, Profile};

    fn limits() -> Limits {
        HighVolumeConfig::for_profile(Profile::Full).limits
    }

    fn with_p95(us: f64) -> LoadTestResults {
        let mut run = run(1_000.0, 10);
        run.latency_us.as_mut().unwrap().p95 = Some(us);
        run
    }

    /// At most twice what was before, or 10 ms.
    fn p95(before: &LoadTestResults, after_us: f64) -> CriterionOutcome {
        p95_as_before("p95", &limits(), before, &with_p95(after_us), (2.0, Duration::from_millis(10)))
    }

    #[test]
    fn a_p95_that_holds_by_a_noisy_measure_only_is_in_doubt() {
        let quiet = with_p95(8_000.0);
        let mut noisy = quiet.clone();
        noisy.resources.foreign_cpu_cores = Some(0.5);
        assert_eq!(p95(&quiet, 15_999.0).verdict, Verdict::Pass);
        let doubted = p95(&noisy, 10_000.0);
        assert_eq!(doubted.verdict, Verdict::Inconclusive);
        assert_eq!(doubted.evidence, ["in the load before: other processes took 0.50 cores"]);
        assert_eq!(p95(&noisy, 9_999.0).verdict, Verdict::Pass);
        // A generator that was late by a tenth of what it measured has measured itself.
        let late = |us| {
            let mut late = quiet.clone();
            late.send_lateness_us.as_mut().unwrap().p99 = Some(us);
            p95(&late, 15_000.0).verdict
        };
        assert_eq!((late(800.0), late(801.0)), (Verdict::Pass, Verdict::Inconclusive));
        // What fails is held against its own limit of 16 ms.
        let too_high = |us| {
            let mut late = quiet.clone();
            late.send_lateness_us.as_mut().unwrap().p99 = Some(us);
            p95(&late, 16_000.0).verdict
        };
        assert_eq!((too_high(1_600.0), too_high(1_601.0)), (Verdict::Fail, Verdict::Inconclusive));
    }

    #[test]
    fn a_rate_that_is_kept_by_a_noisy_measure_only_is_in_doubt() {
        // Less than 5 % under what was achieved before, of 1,000 due.
        let kept = |before_rate: f64, foreign: f64, during_rate: f64| {
            let [mut before, mut during] = [run(1_000.0, 10), run(1_000.0, 10)];
            before.throughput.achieved_rate = before_rate;
            before.resources.foreign_cpu_cores = Some(foreign);
            during.throughput.achieved_rate = during_rate;
            rate_kept("rate", &limits(), before_rate, [&before, &during], 0.05)
        };
        assert_eq!(kept(900.0, 0.0, 900.0).verdict, Verdict::Pass);
        assert_eq!(kept(900.0, 0.5, 951.0).verdict, Verdict::Pass);
        assert_eq!(kept(900.0, 0.5, 900.0).verdict, Verdict::Inconclusive);
        assert_eq!(kept(1_000.0, 0.0, 950.0).verdict, Verdict::Fail);
    }
}
