//! Case 1: does the service follow each rate of the table?

use super::criteria::{Timed, straight_line, told, under};
use super::load::{achieved_rate, connections_over, counting_over, delivery, unanswered_over};
use super::{Body, Case, workload};
use crate::analysis::{RateStep, ThroughputAnalyzer};
use crate::config::HighVolumeConfig;
use crate::result::{CriterionOutcome, LoadTestResults};
use crate::run::plan::{Action, Evidence, Phase, Plan};
use crate::units::{self, Rate};
use crate::workload::{Offered, Workload};

pub(super) const CASE: Case = Case {
    name: "rate_scaling",
    question: "does the service follow each rate of the table?",
    needs: &[],
    body: Body::Planned { plan, judge },
};

fn plan(config: &HighVolumeConfig) -> Plan {
    let phase = |&rate: &Rate| {
        let load = Workload {
            offered: Offered::Rate(rate),
            connections: config.rate_scaling.connections,
            duration: config.rate_scaling.hold,
            ..workload(config)
        };
        Phase::new(phase_name(rate), Action::Load(load))
    };
    Plan { phases: config.rates.iter().map(phase).collect(), ..Plan::default() }
}

fn phase_name(rate: Rate) -> String {
    rate.as_per_second().to_string()
}

fn judge(config: &HighVolumeConfig, evidence: &Evidence) -> Vec<CriterionOutcome> {
    let steps: Vec<(Rate, &LoadTestResults)> =
        config.rates.iter().filter_map(|&rate| Some((rate, evidence.run(&phase_name(rate))?))).collect();
    let mut criteria: Vec<CriterionOutcome> =
        steps.iter().flat_map(|&(rate, run)| at_step(config, rate, run)).collect();
    criteria.extend(deliveries(config, &steps));
    let runs: Vec<_> = evidence.runs().collect();
    criteria.extend(counting_over(&runs).into_iter().filter(|criterion| criterion.name != "lost"));
    criteria.push(connections_over(&runs));
    criteria.extend(linearity(config, &steps));
    criteria.push(knee(config, &steps));
    criteria
}

/// What must hold at one rate, beside the counts.
fn at_step(config: &HighVolumeConfig, rate: Rate, run: &LoadTestResults) -> Vec<CriterionOutcome> {
    let limits = &config.rate_scaling.limits;
    let mut criteria = vec![achieved_rate(run, &config.limits)];
    if rate <= limits.timed_up_to {
        criteria.push(p95(config, run));
    }
    for criterion in &mut criteria {
        criterion.name = format!("{}@{}", criterion.name, phase_name(rate));
    }
    criteria
}

fn p95(config: &HighVolumeConfig, run: &LoadTestResults) -> CriterionOutcome {
    let limit = config.limits.p95;
    let p95_us = run.latency_us.as_ref().and_then(|latency| latency.p95);
    let why = || "messages without an answer rank above all others".to_owned();
    let timed = Timed {
        name: "latency_p95",
        limit: under(units::span(limit)),
        measured: p95_us.map(units::latency_us),
        holds: p95_us.is_some_and(|us| us < limit.as_secs_f64() * 1e6),
        lateness_limit: limit,
        evidence: p95_us.is_none().then(why).into_iter().collect(),
    };
    timed.outcome(&config.limits, &[run])
}

/// Everything due is answered up to a rate, almost everything above.
fn deliveries(config: &HighVolumeConfig, steps: &[(Rate, &LoadTestResults)]) -> Vec<CriterionOutcome> {
    let lossless = config.rate_scaling.limits.lossless_up_to;
    let names: Vec<String> = steps.iter().map(|&(rate, _)| phase_name(rate)).collect();
    let (up_to, above): (Vec<_>, Vec<_>) =
        steps.iter().zip(&names).partition(|((rate, _), _)| *rate <= lossless);
    let up_to: Vec<(&str, &LoadTestResults)> =
        up_to.into_iter().map(|((_, run), name)| (name.as_str(), *run)).collect();
    let mut criteria = vec![unanswered_over(&format!("unanswered_up_to_{}", phase_name(lossless)), &up_to)];
    criteria.extend(
        above
            .into_iter()
            .map(|((_, run), name)| delivery(&format!("delivery@{name}"), run, config.limits.delivery_ratio)),
    );
    criteria
}

/// Slope and R² of achieved against offered.
fn linearity(config: &HighVolumeConfig, steps: &[(Rate, &LoadTestResults)]) -> [CriterionOutcome; 2] {
    let limits = &config.rate_scaling.limits;
    let fitted = steps.iter().filter(|(rate, _)| *rate <= limits.linear_up_to);
    let runs: Vec<&LoadTestResults> = fitted.map(|(_, run)| *run).collect();
    let points: Vec<(f64, f64)> = runs
        .iter()
        .filter_map(|run| Some((run.throughput.offered_rate?, run.throughput.achieved_rate)))
        .collect();
    let tolerances = (limits.slope_tolerance_ratio, limits.r_squared);
    straight_line(&config.limits, &points, &runs, tolerances, &format!(" up to {}", limits.linear_up_to))
}

/// Names the step where the service stops following. It tells and never fails: `achieved_rate` does that.
fn knee(config: &HighVolumeConfig, steps: &[(Rate, &LoadTestResults)]) -> CriterionOutcome {
    let table: Vec<RateStep> = steps
        .iter()
        .filter_map(|(_, run)| {
            Some(RateStep { offered: run.throughput.offered_rate?, achieved: run.throughput.achieved_rate })
        })
        .collect();
    let (measured, missing) = match ThroughputAnalyzer::calculate_knee(&table, config.limits.achieved_ratio) {
        Ok(Some(knee)) => (format!("stops following at {}", units::per_second(knee.step.offered)), None),
        Ok(None) => ("follows every rate of the table".to_owned(), None),
        Err(error) => ("none".to_owned(), Some(error.to_string())),
    };
    told("knee", measured, missing)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_fails, judged, loaded, named, run, seen};
    use super::*;
    use crate::result::Verdict;

    /// Spotless evidence of every rate, with one step edited.
    fn evidence(rate: f64, edit: impl Fn(&mut LoadTestResults)) -> Evidence {
        let rates = [100.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 7_500.0, 10_000.0];
        let step = |of: f64| {
            let mut run = run(of, 100);
            if of == rate {
                edit(&mut run);
            }
            loaded(of.to_string(), run)
        };
        seen(rates.into_iter().map(step).collect())
    }

    fn at(rate: f64, edit: impl Fn(&mut LoadTestResults)) -> Vec<CriterionOutcome> {
        judged(&CASE, &evidence(rate, edit))
    }

    #[test]
    fn a_service_that_follows_passes_everything() {
        let criteria = at(0.0, |_| {});
        assert_eq!(named(&criteria, Verdict::Pass).len(), criteria.len(), "{criteria:#?}");
    }

    #[test]
    fn each_rate_must_be_followed_to_99_percent() {
        assert_fails(&at(10_000.0, |run| run.throughput.achieved_rate = 9_900.0), &[]);
        let criteria = at(10_000.0, |run| run.throughput.achieved_rate = 9_899.0);
        assert_fails(&criteria, &["achieved_rate@10000"]);
        let knee = criteria.iter().find(|criterion| criterion.name == "knee").unwrap();
        assert_eq!(knee.measured, "stops following at 10,000 msg/s");
    }

    #[test]
    fn the_slope_must_be_1_within_2_percent() {
        // A line through six rates that bends down at the last: the slope is what least squares makes of it.
        let bent = |achieved: f64| at(5_000.0, move |run| run.throughput.achieved_rate = achieved);
        assert_fails(&bent(4_960.0), &[]);
        assert_fails(&bent(4_800.0), &["achieved_rate@5000", "slope"]);
    }

    #[test]
    fn a_slope_above_1_fails_alone() {
        // No step falls short, and the line fits: only the slope is too steep.
        let steep = |achieved: f64| at(5_000.0, move |run| run.throughput.achieved_rate = achieved);
        assert_fails(&steep(5_080.0), &[]);
        assert_fails(&steep(5_200.0), &["slope"]);
    }

    #[test]
    fn a_line_that_does_not_fit_fails_alone() {
        // Two steps on either side of the mean rate (1,820), raised so that their pulls on the slope cancel out:
        // 820 × 17 against 680 × 20.5.
        let raised = |times: f64| {
            let mut evidence = evidence(0.0, |_| {});
            for (name, by) in [("1000", 17.0), ("2500", 20.5)] {
                let step = evidence.phases.iter_mut().find(|phase| phase.name == name).unwrap();
                step.run.as_mut().unwrap().throughput.achieved_rate += times * by;
            }
            judged(&CASE, &evidence)
        };
        assert_fails(&raised(10.0), &[]);
        assert_fails(&raised(30.0), &["r_squared"]);
    }

    #[test]
    fn the_line_must_fit() {
        assert_fails(
            &at(2_500.0, |run| run.throughput.achieved_rate = 1_500.0),
            &["achieved_rate@2500", "slope", "r_squared"],
        );
    }

    #[test]
    fn latency_is_judged_up_to_5_000() {
        let slow =
            |rate: f64, p95_us: f64| at(rate, move |run| run.latency_us.as_mut().unwrap().p95 = Some(p95_us));
        assert_fails(&slow(5_000.0, 199_999.0), &[]);
        assert_fails(&slow(5_000.0, 200_000.0), &["latency_p95@5000"]);
        assert_fails(&slow(7_500.0, 200_000.0), &[]);
        let unknown = at(100.0, |run| {
            run.latency_us.as_mut().unwrap().p95 = None;
            run.resources.foreign_cpu_cores = Some(2.0);
        });
        assert_fails(&unknown, &["latency_p95@100"]);
    }

    #[test]
    fn everything_is_answered_up_to_7_500_and_almost_everything_above() {
        type Take = fn(&mut LoadTestResults, u64);
        let kinds: [(&str, Take); 3] = [
            ("unsent 0, refused 0, lost 1, ids: r-0-0-9", |run, lost| {
                run.messages.counts.lost = lost;
                run.messages.missing_ids = vec!["r-0-0-9".to_owned()];
            }),
            ("unsent 0, refused 1, lost 0", |run, refused| run.messages.counts.refused = refused),
            ("unsent 1, refused 0, lost 0", |run, unsent| run.messages.unsent = unsent),
        ];
        for (said, take) in kinds {
            let without = |rate: f64, count: u64| {
                at(rate, move |run| {
                    run.messages.counts.answered -= count;
                    // The noisiest machine loses no message.
                    run.resources.foreign_cpu_cores = Some(2.0);
                    take(run, count);
                })
            };
            let criteria = without(7_500.0, 1);
            assert_fails(&criteria, &["unanswered_up_to_7500"]);
            let failed = criteria.iter().find(|c| c.name == "unanswered_up_to_7500").unwrap();
            assert_eq!((&*failed.measured, &*failed.evidence[0]), ("1", &*format!("1 at 7500, {said}")));
            // 10,000 were due.
            assert_fails(&without(10_000.0, 10), &[]);
            assert_fails(&without(10_000.0, 11), &["delivery@10000"]);
        }
        let nothing = at(10_000.0, |run| (run.messages.due, run.messages.counts.answered) = (0, 0));
        assert_fails(&nothing, &["delivery@10000"]);
    }

    #[test]
    fn without_an_offered_rate_nothing_is_followed() {
        let criteria = at(10_000.0, |run| {
            run.throughput.offered_rate = None;
            run.workload.rate = None;
        });
        assert_fails(&criteria, &["achieved_rate@10000"]);
    }

    #[test]
    fn a_knee_of_nothing_is_not_told() {
        let criteria = judged(&CASE, &seen(Vec::new()));
        assert_eq!(named(&criteria, Verdict::Skipped), ["knee"]);
        let knee = criteria.iter().find(|criterion| criterion.name == "knee").unwrap();
        assert_eq!(knee.evidence, ["the rate table has no steps"]);
    }

    #[test]
    fn connections_and_order_count_at_every_rate() {
        let criteria = at(500.0, |run| {
            run.connections.dropped = 1;
            run.messages.counts.reordered = 3;
        });
        assert_fails(&criteria, &["reordered", "connections"]);
        let reordered = criteria.iter().find(|criterion| criterion.name == "reordered").unwrap();
        assert_eq!(reordered.measured, "3");
        assert!(reordered.evidence[0].starts_with("3 at 500"), "{reordered:?}");
    }

    #[test]
    fn a_late_generator_is_no_slow_server() {
        let criteria = at(10_000.0, |run| {
            run.throughput.achieved_rate = 9_000.0;
            run.send_lateness_us.as_mut().unwrap().p99 = Some(60_000.0);
        });
        assert_eq!(named(&criteria, Verdict::Inconclusive), ["achieved_rate@10000"]);
        assert_eq!(named(&criteria, Verdict::Fail), [""; 0]);
    }
}
