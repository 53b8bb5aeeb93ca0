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
pub(super) const BUSY_CORES: f64 = 0.95;

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
pub(super) fn skipped(name: &str, limit: impl Into<String>, why: impl Into<String>) -> CriterionOutcome {
    CriterionOutcome {
        name: name.to_owned(),
        limit: limit.into(),
        measured: "none".to_owned(),
        verdict: Verdict::Skipped,
        evidence: vec![why.into()],
    }
}

/// The limit of what has none.
const TOLD: &str = "told";

/// Something that is told and never fails. What of it is missing, and why, makes it skipped: nothing was checked.
pub(super) fn told(name: &str, measured: String, missing: Option<String>) -> CriterionOutcome {
    CriterionOutcome {
        name: name.to_owned(),
        limit: TOLD.to_owned(),
        measured,
        verdict: if missing.is_none() { Verdict::Pass } else { Verdict::Skipped },
        evidence: missing.into_iter().collect(),
    }
}

/// Whether an outcome is of something that is [`told`].
#[cfg(test)]
pub(crate) fn is_told(outcome: &CriterionOutcome) -> bool {
    outcome.limit == TOLD
}

/// A criterion that depends on time, so that the generator or the machine may be why it fails.
pub(super) struct Timed<'a> {
    pub(super) name: &'a str,
    pub(super) limit: String,
    /// `None` where there is nothing to judge by. Then it fails: a slow machine makes data late, it does not take them away.
    pub(super) measured: Option<String>,
    pub(super) holds: bool,
    /// What the send lateness is held against: the limit itself, where it is a latency.
    pub(super) lateness_limit: Duration,
    pub(super) evidence: Vec<String>,
}

impl Timed<'_> {
    /// Its outcome, given the runs that it was measured in.
    pub(super) fn outcome(self, limits: &Limits, runs: &[&LoadTestResults]) -> CriterionOutcome {
        let Self { name, limit, measured, holds, lateness_limit, evidence } = self;
        let Some(measured) = measured else {
            return counted(name, limit, "none".to_owned(), false, evidence);
        };
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
/// more than a tenth of a core, or the send lateness's P99 is above a tenth of the limit; it could not open all connections;
/// and where it was calibrated: it was to offer more than it can).
pub(super) fn doubts(limits: &Limits, run: &LoadTestResults, limit: Duration) -> Vec<String> {
    let mut doubts: Vec<String> = unopened(run).into_iter().collect();
    let calibration = run.calibration.as_ref();
    let exceeded = calibration.and_then(|known| known.exceeded_by(&run.workload, run.shard.of));
    // A worker that is busy at a rate that it was seen to offer with room to spare is held up by what it talks to, and one
    // that spins is always busy. Of both the lateness tells whether they were on time.
    let open_loop = run.workload.rate.is_some();
    let fits = calibration.is_some_and(|known| known.fits(&run.workload, run.shard.of));
    let vouched = open_loop && fits && exceeded.is_none();
    let spins = open_loop && run.workload.pacer == "spin";
    doubts.extend(exceeded);
    if let Some(foreign) = run.resources.foreign_cpu_cores.filter(|&cores| cores > limits.foreign_cpu_cores) {
        doubts.push(format!("other processes took {foreign:.2} cores"));
    }
    let late_from_us = limits.lateness_ratio * limit.as_secs_f64() * 1e6;
    let late_us = run.send_lateness_us.as_ref().and_then(|lateness| lateness.p99);
    if let Some(late_us) = late_us.filter(|&late_us| late_us > late_from_us) {
        doubts.push(format!("the generator was late: send lateness P99 {}", units::latency_us(late_us)));
    }
    let cores = run.resources.busiest_worker_cores.filter(|&cores| cores > BUSY_CORES);
    if let Some(cores) = cores.filter(|_| !spins && !vouched) {
        doubts.push(format!("the generator's busiest worker used {cores:.2} of a core"));
    }
    doubts
}

/// Why the generator itself did not open all connections of a run; `None` where it is not to blame for any.
pub(super) fn unopened(run: &LoadTestResults) -> Option<String> {
    let unopened = &run.connections.unopened;
    let lacked: Vec<&str> = unopened.reasons.keys().map(String::as_str).collect();
    let [missing, requested] =
        [unopened.connections.len() as u64, run.connections.requested].map(units::count);
    (!unopened.connections.is_empty())
        .then(|| format!("{}: it did not open {missing} of {requested} connections", lacked.join(", ")))
}

/// Leaves in doubt what fails only for want of the connections that the generator itself did not open: `opened` are the same
/// criteria over the loads [without them](LoadTestResults::as_opened). What fails there too is the server's. Counts of what
/// it did (loss, order, duplicates, execution) are the same in both, so they are never in doubt.
pub(super) fn excuse(criteria: &mut [CriterionOutcome], opened: &[CriterionOutcome], doubts: &[String]) {
    for criterion in criteria.iter_mut().filter(|criterion| criterion.verdict == Verdict::Fail) {
        let without = opened.iter().find(|opened| opened.name == criterion.name);
        if without.is_some_and(|without| without.verdict != Verdict::Fail) {
            leave_in_doubt(criterion, doubts.iter().cloned());
        }
    }
}

/// Leaves what fails in doubt where a run lacks connections that the generator itself did not open: for what asks for an
/// effect that fewer connections may not have.
pub(super) fn needs_all(criterion: &mut CriterionOutcome, runs: &[&LoadTestResults]) {
    let doubts: Vec<String> = runs.iter().filter_map(|run| unopened(run)).collect();
    if criterion.verdict == Verdict::Fail && !doubts.is_empty() {
        leave_in_doubt(criterion, doubts);
    }
}

fn leave_in_doubt(criterion: &mut CriterionOutcome, doubts: impl IntoIterator<Item = String>) {
    criterion.verdict = Verdict::Inconclusive;
    criterion.evidence.splice(0..0, doubts);
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
        let why_none = match &line {
            Err(error) => Some(error.to_string()),
            Ok(_) if value.is_none() => {
                Some("all steps achieved the same, which leaves nothing to fit".to_owned())
            }
            Ok(_) => None,
        };
        let timed = Timed {
            name,
            limit,
            measured: value.map(|value| format!("{value:.4}")),
            holds: value.is_some_and(holds),
            lateness_limit: ACHIEVED_GRACE,
            evidence: why_none.into_iter().collect(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    #[test]
    fn a_timing_without_data_fails_on_the_noisiest_machine() {
        let mut run = example::clean();
        run.resources.foreign_cpu_cores = Some(2.0);
        let timed = |measured: Option<&str>, holds| {
            Timed {
                name: "x",
                limit: "1".to_owned(),
                measured: measured.map(str::to_owned),
                holds,
                lateness_limit: ACHIEVED_GRACE,
                evidence: vec!["why".to_owned()],
            }
            .outcome(&Limits::default(), &[&run])
        };
        assert_eq!(timed(Some("2"), false).verdict, Verdict::Inconclusive);
        assert_eq!(timed(Some("1"), true).verdict, Verdict::Pass);
        for holds in [false, true] {
            let outcome = timed(None, holds);
            assert_eq!((outcome.verdict, &*outcome.measured), (Verdict::Fail, "none"));
            assert_eq!(outcome.evidence, ["why"]);
        }
    }

    #[test]
    fn a_busy_worker_is_a_doubt_unless_it_spins_or_was_seen_to_do_more() {
        let limit = Duration::from_secs(1);
        let doubts = |edit: fn(&mut LoadTestResults)| {
            let mut run = example::clean();
            run.resources.busiest_worker_cores = Some(1.0);
            run.calibration = Some(Box::new(crate::result::calibration::tests::example()));
            edit(&mut run);
            doubts(&Limits::default(), &run, limit)
        };
        let busy = ["the generator's busiest worker used 1.00 of a core"];
        // The calibration is of 64 B on 10 connections, as the example is, and of a million messages a second.
        assert_eq!(doubts(|_| {}), [""; 0]);
        assert_eq!(doubts(|run| run.calibration = None), busy);
        assert_eq!(doubts(|run| run.workload.connections = 11), busy);
        assert_eq!(doubts(|run| run.workload.rate = None), busy);
        assert_eq!(doubts(|run| (run.calibration, run.workload.pacer) = (None, "spin".to_owned())), [""; 0]);
        // At a rate beyond what it can do the busy worker is told too.
        let beyond = doubts(|run| run.workload.rate = Some(950_000.0));
        assert!(beyond.len() == 2 && beyond[0].contains("own ceiling") && beyond[1] == busy[0], "{beyond:?}");
    }

    #[test]
    fn a_line_without_points_or_without_a_slope_fails_on_the_noisiest_machine() {
        let mut run = example::clean();
        run.resources.foreign_cpu_cores = Some(2.0);
        let verdicts = |points: &[(f64, f64)]| {
            straight_line(&Limits::default(), points, &[&run], (0.02, 0.99), "")
                .map(|outcome| outcome.verdict)
        };
        assert_eq!(verdicts(&[]), [Verdict::Fail; 2]);
        assert_eq!(verdicts(&[(1.0, 1.0), (1.0, 1.0)]), [Verdict::Fail; 2]);
        // The same everywhere: a slope of 0 may be the machine's fault, but there is nothing that R² could tell.
        assert_eq!(verdicts(&[(1.0, 1.0), (2.0, 1.0)]), [Verdict::Inconclusive, Verdict::Fail]);
        assert_eq!(verdicts(&[(1.0, 1.0), (2.0, 2.0)]), [Verdict::Pass; 2]);
    }

    #[test]
    fn only_a_figure_that_is_not_there_is_explained() {
        let run = example::clean();
        let evidence = |points: &[(f64, f64)]| {
            straight_line(&Limits::default(), points, &[&run], (0.02, 0.99), "")
                .map(|outcome| (outcome.measured, outcome.evidence))
        };
        let [slope, r_squared] = evidence(&[(1.0, 1.0), (2.0, 1.0)]);
        assert_eq!(slope, ("0.0000".to_owned(), Vec::new()));
        let why = "all steps achieved the same, which leaves nothing to fit".to_owned();
        assert_eq!(r_squared, ("none".to_owned(), vec![why]));
    }

    #[test]
    fn a_limit_from_above_says_so() {
        assert_eq!(under("50.0 ms"), "under 50.0 ms");
    }
}
