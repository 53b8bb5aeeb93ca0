//! Case 5: does latency stay under its limits for as long as the load lasts?

use std::collections::BTreeSet;
use std::time::Duration;

use super::criteria::{Timed, counted, under};
use super::load::{achieved_rate, connections, counting, delivery, unanswered};
use super::{Body, Case, workload};
use crate::analysis::{Confidence, SeriesStep, ThroughputAnalyzer};
use crate::config::HighVolumeConfig;
use crate::record::WindowSummary;
use crate::result::{CriterionOutcome, LoadTestResults};
use crate::run::plan::{Action, Evidence, Phase, Plan};
use crate::units;
use crate::workload::{Offered, Workload};

pub(super) const CASE: Case = Case {
    name: "latency",
    question: "does latency stay under its limits for as long as the load lasts?",
    needs: &[],
    body: Body::Planned { plan, judge },
};

const PHASE: &str = "load";

fn plan(config: &HighVolumeConfig) -> Plan {
    let case = &config.latency;
    let load = Workload {
        offered: Offered::Rate(case.rate),
        connections: case.connections,
        duration: case.duration,
        ..workload(config)
    };
    Plan { phases: vec![Phase::new(PHASE, Action::Load(load))], ..Plan::default() }
}

fn judge(config: &HighVolumeConfig, evidence: &Evidence) -> Vec<CriterionOutcome> {
    let Some(run) = evidence.run(PHASE) else {
        return Vec::new();
    };
    let mut criteria = percentiles(config, run);
    criteria.push(windows(run));
    criteria.push(variation(config, run));
    criteria.push(outliers(config, run));
    criteria.push(trend(config, run));
    criteria.push(achieved_rate(run, &config.limits));
    criteria.push(delivery("delivery", run, config.limits.delivery_ratio));
    criteria.extend(counting(run));
    criteria.push(connections(run));
    criteria
}

/// Each percentile overall, and in every window.
fn percentiles(config: &HighVolumeConfig, run: &LoadTestResults) -> Vec<CriterionOutcome> {
    type InWindow = fn(&WindowSummary) -> Option<f64>;
    let limits = &config.limits;
    let judged: [(&str, Duration, InWindow); 3] = [
        ("p50", limits.p50, |window| window.latency_p50_us),
        ("p95", limits.p95, |window| window.latency_p95_us),
        ("p99", limits.p99, |window| window.latency_p99_us),
    ];
    judged.into_iter().flat_map(|(name, limit, of)| percentile(config, run, name, limit, of)).collect()
}

fn percentile(
    config: &HighVolumeConfig,
    run: &LoadTestResults,
    percentile: &str,
    limit: Duration,
    of: fn(&WindowSummary) -> Option<f64>,
) -> [CriterionOutcome; 2] {
    let limit_us = limit.as_secs_f64() * 1e6;
    let overall = run.latency_us.as_ref().and_then(|latency| latency.by_name(percentile)).flatten();
    let windows = full_windows(run);
    let worst = windows
        .iter()
        .filter_map(|window| Some((of(window)?, window.t_s)))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let above = windows.iter().filter(|window| of(window).is_some_and(|us| us >= limit_us)).count();
    let without: Vec<u64> = windows.iter().filter(|w| of(w).is_none()).map(|w| w.t_s).collect();
    // Where too few answers came for a percentile, the server stood still, or the generator, or the whole machine did: which,
    // is asked as for a percentile that is too high.
    let unknown =
        without.first().map(|t_s| format!("none in {} windows, the first at {t_s} s", without.len()));
    let name = format!("latency_{percentile}");
    let allowed = under(units::span(limit));
    let why = || "messages without an answer rank above all others".to_owned();
    let whole = Timed {
        name: &name,
        limit: allowed.clone(),
        measured: overall.map(units::latency_us),
        holds: overall.is_some_and(|us| us < limit_us),
        lateness_limit: limit,
        evidence: overall.is_none().then(why).into_iter().collect(),
    };
    let in_windows = Timed {
        name: &format!("{name}_in_every_window"),
        limit: allowed,
        measured: match worst {
            Some((us, t_s)) if unknown.is_none() => {
                Some(format!("worst {} at {t_s} s", units::latency_us(us)))
            }
            _ => unknown.clone(),
        },
        holds: above == 0 && unknown.is_none() && !windows.is_empty(),
        lateness_limit: limit,
        evidence: vec![format!("{above} of {} windows", windows.len())],
    };
    [whole, in_windows].map(|timed| timed.outcome(&config.limits, &[run]))
}

/// A window for each second that lies wholly within the load: what was not looked at does not pass.
fn windows(run: &LoadTestResults) -> CriterionOutcome {
    let seen: BTreeSet<u64> = full_windows(run).into_iter().map(|window| window.t_s).collect();
    let seconds = run.offered_for_s as u64;
    let missing = (0..seconds).find(|t_s| !seen.contains(t_s)).map(|t_s| format!("none at {t_s} s"));
    let measured = format!("{} of {}", units::count(seen.len() as u64), units::count(seconds));
    let holds = seconds > 0 && missing.is_none();
    counted("windows", "one for each full second".to_owned(), measured, holds, missing)
}

/// The seconds that lie wholly within the load: the others hold too few answers to be compared.
fn full_windows(run: &LoadTestResults) -> Vec<&WindowSummary> {
    run.windows.iter().filter(|window| ((window.t_s + 1) as f64) <= run.offered_for_s).collect()
}

fn medians(run: &LoadTestResults) -> Vec<(f64, f64)> {
    full_windows(run).iter().filter_map(|window| Some((window.t_s as f64, window.latency_p50_us?))).collect()
}

fn variation(config: &HighVolumeConfig, run: &LoadTestResults) -> CriterionOutcome {
    let limits = &config.latency.limits;
    let medians_us: Vec<f64> = medians(run).into_iter().map(|(_, us)| us).collect();
    let floor_us = limits.variation_floor.as_secs_f64() * 1e6;
    let variation = ThroughputAnalyzer::calculate_variation(&medians_us, floor_us);
    let timed = Timed {
        name: "variation",
        limit: format!("under {} of max(mean, {})", limits.variation, units::span(limits.variation_floor)),
        measured: variation.as_ref().ok().map(|variation| format!("{variation:.3}")),
        holds: variation.as_ref().is_ok_and(|&variation| variation < limits.variation),
        lateness_limit: limits.variation_floor,
        evidence: variation.err().map(|error| error.to_string()).into_iter().collect(),
    };
    timed.outcome(&config.limits, &[run])
}

/// What is without an answer ranks above every answer, and so is an outlier.
fn outliers(config: &HighVolumeConfig, run: &LoadTestResults) -> CriterionOutcome {
    let censored = unanswered(run);
    let limits = &config.latency.limits;
    let median_us = run.latency_us.as_ref().and_then(|latency| latency.p50);
    let floor_us = limits.outlier_floor.as_secs_f64() * 1e6;
    let share = median_us.and_then(|median_us| {
        let above_us = (limits.outlier_factor * median_us).max(floor_us);
        let histogram = &run.histograms.latency;
        let outliers = histogram.count_above((above_us * 1e3) as u64);
        ThroughputAnalyzer::calculate_outlier_share(outliers + censored, histogram.len() + censored)
    });
    let unanswered_line =
        (censored > 0).then(|| format!("{} of them without an answer", units::count(censored)));
    let timed = Timed {
        name: "outliers",
        limit: format!(
            "under {} above {} × median and {}",
            units::percent(limits.outlier_ratio),
            limits.outlier_factor,
            units::span(limits.outlier_floor)
        ),
        measured: share.map(units::percent),
        holds: share.is_some_and(|share| share < limits.outlier_ratio),
        lateness_limit: limits.outlier_floor,
        evidence: unanswered_line.into_iter().chain(spikes(run, floor_us)).collect(),
    };
    timed.outcome(&config.limits, &[run])
}

/// Where in time the latency spiked.
fn spikes(run: &LoadTestResults, floor_us: f64) -> Vec<String> {
    let series: Vec<SeriesStep> = full_windows(run)
        .iter()
        .map(|window| SeriesStep { t_s: window.t_s as f64, value: window.latency_max_us })
        .collect();
    let found = ThroughputAnalyzer::detect_spikes(&series, floor_us).unwrap_or_default();
    found.iter().map(|spike| format!("{} at {} s", units::latency_us(spike.peak), spike.peak_at_s)).collect()
}

fn trend(config: &HighVolumeConfig, run: &LoadTestResults) -> CriterionOutcome {
    let limit = config.latency.limits.trend;
    let trend = ThroughputAnalyzer::calculate_trend(&medians(run), Confidence::P95);
    let interval = trend.as_ref().ok().and_then(|trend| trend.interval);
    // Without an interval (fewer than six windows) the slope itself is all there is.
    let slope_us_per_s =
        interval.map(|interval| interval.lower).or(trend.as_ref().ok().map(|trend| trend.slope));
    let growth_us = slope_us_per_s.map(|slope| slope * run.offered_for_s);
    let timed = Timed {
        name: "trend",
        limit: format!("at most {} over the load", units::span(limit)),
        measured: growth_us.map(|us| format!("at least {}", units::latency_us(us))),
        holds: growth_us.is_some_and(|us| us <= limit.as_secs_f64() * 1e6),
        lateness_limit: limit,
        evidence: trend.err().map(|error| error.to_string()).into_iter().collect(),
    };
    timed.outcome(&config.limits, &[run])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_fails, judged, loaded, named, run, seen};
    use super::*;
    use crate::record::{LatencyHistogram, Window};
    use crate::result::Verdict;

    /// Twenty seconds at 5,000 msg/s, each window's median by `median_us`.
    fn steady(median_us: impl Fn(u64) -> f64) -> LoadTestResults {
        let mut run = run(5_000.0, 100);
        run.offered_for_s = 20.0;
        let window = |t_s| WindowSummary {
            t_s,
            latency_p50_us: Some(median_us(t_s)),
            latency_p95_us: Some(2_000.0),
            latency_p99_us: Some(3_000.0),
            latency_max_us: Some(4_000.0),
            ..WindowSummary::of(&Window::default())
        };
        run.windows = (0..20).map(window).collect();
        run
    }

    fn with(edit: impl Fn(&mut LoadTestResults)) -> Vec<CriterionOutcome> {
        let mut run = steady(|_| 1_000.0);
        edit(&mut run);
        judged(&CASE, &seen(vec![loaded(PHASE, run)]))
    }

    #[test]
    fn steady_latency_passes_everything() {
        let criteria = with(|_| {});
        assert_eq!(named(&criteria, Verdict::Pass).len(), criteria.len(), "{criteria:#?}");
    }

    #[test]
    fn each_percentile_has_its_limit_over_the_whole_load() {
        type Set = fn(&mut LoadTestResults, Option<f64>);
        let limits: [(&str, f64, Set); 3] = [
            ("latency_p50", 50_000.0, |run, us| run.latency_us.as_mut().unwrap().p50 = us),
            ("latency_p95", 200_000.0, |run, us| run.latency_us.as_mut().unwrap().p95 = us),
            ("latency_p99", 500_000.0, |run, us| run.latency_us.as_mut().unwrap().p99 = us),
        ];
        for (name, limit_us, set) in limits {
            assert_fails(&with(|run| set(run, Some(limit_us - 1.0))), &[]);
            assert_fails(&with(|run| set(run, Some(limit_us))), &[name]);
        }
        // A percentile among the unanswered.
        assert_fails(&with(|run| run.latency_us.as_mut().unwrap().p99 = None), &["latency_p99"]);
    }

    #[test]
    fn one_bad_window_is_enough() {
        type Set = fn(&mut WindowSummary, Option<f64>);
        let limits: [(&str, f64, Set); 3] = [
            ("latency_p50_in_every_window", 50_000.0, |window, us| window.latency_p50_us = us),
            ("latency_p95_in_every_window", 200_000.0, |window, us| window.latency_p95_us = us),
            ("latency_p99_in_every_window", 500_000.0, |window, us| window.latency_p99_us = us),
        ];
        for (name, limit_us, set) in limits {
            let failed = |us| {
                let criteria = with(|run| set(&mut run.windows[7], us));
                let failed = named(&criteria, Verdict::Fail).into_iter().map(str::to_owned);
                // A single median of 50 ms among those of 1 ms makes them vary as well.
                failed.filter(|name| name != "variation").collect::<Vec<_>>()
            };
            assert_eq!(failed(Some(limit_us - 1.0)), [""; 0]);
            assert_eq!(failed(Some(limit_us)), [name]);
            // A window that cannot tell does not pass, whatever the machine did.
            let unknown = |foreign: f64| {
                let criteria = with(|run| {
                    set(&mut run.windows[7], None);
                    run.resources.foreign_cpu_cores = Some(foreign);
                });
                let unknown = criteria.into_iter().find(|criterion| criterion.name == name).unwrap();
                assert_eq!(unknown.measured, "none in 1 windows, the first at 7 s");
                unknown.verdict
            };
            assert_eq!((unknown(0.0), unknown(2.0)), (Verdict::Fail, Verdict::Inconclusive));
        }
        let criteria = with(|run| run.windows[7].latency_p99_us = Some(600_000.0));
        let failed = criteria.iter().find(|criterion| criterion.verdict == Verdict::Fail).unwrap();
        assert_eq!((&*failed.measured, &*failed.evidence[0]), ("worst 600 ms at 7 s", "1 of 20 windows"));
    }

    #[test]
    fn every_full_second_has_a_window() {
        let without = |t_s: u64| {
            with(move |run| {
                run.windows.retain(|window| window.t_s != t_s);
                run.resources.foreign_cpu_cores = Some(2.0);
            })
        };
        for (t_s, missing) in [(7, "none at 7 s"), (0, "none at 0 s"), (19, "none at 19 s")] {
            let criteria = without(t_s);
            assert_fails(&criteria, &["windows"]);
            let failed = criteria.iter().find(|criterion| criterion.name == "windows").unwrap();
            assert_eq!((&*failed.measured, &*failed.evidence[0]), ("19 of 20", missing));
        }
        // A load of less than a second has none, and nothing to judge by.
        let none = with(|run| {
            run.offered_for_s = 0.9;
            run.resources.foreign_cpu_cores = Some(2.0);
        });
        let in_windows = ["p50", "p95", "p99"].map(|name| format!("latency_{name}_in_every_window"));
        let [p50, p95, p99] = in_windows.each_ref().map(String::as_str);
        assert_fails(&none, &[p50, p95, p99, "windows", "variation", "trend"]);
    }

    #[test]
    fn almost_everything_due_is_answered() {
        let without = |count: u64| {
            with(move |run| {
                run.messages.counts.answered -= count;
                run.messages.counts.refused = count;
                run.resources.foreign_cpu_cores = Some(2.0);
            })
        };
        // 10,000 were due.
        assert_fails(&without(10), &[]);
        let criteria = without(11);
        assert_fails(&criteria, &["delivery"]);
        let delivery = criteria.iter().find(|criterion| criterion.name == "delivery").unwrap();
        assert_eq!(delivery.evidence, ["unsent 0, refused 11, lost 0"]);
    }

    #[test]
    fn a_second_that_the_load_does_not_fill_is_no_window() {
        assert_fails(
            &with(|run| {
                let after = WindowSummary { t_s: 20, ..run.windows[0].clone() };
                run.windows.push(WindowSummary { latency_p99_us: None, ..after });
            }),
            &[],
        );
    }

    #[test]
    fn medians_may_vary_by_less_than_0_3_of_5_ms() {
        let alternating = |high_us: f64| {
            let run = steady(|t_s| if t_s % 2 == 0 { 1_000.0 } else { high_us });
            judged(&CASE, &seen(vec![loaded(PHASE, run)]))
        };
        // Ten values of each: the sample's standard deviation is half the difference times √(20 / 19).
        let at_limit = 1_000.0 + 2.0 * 0.3 * 5_000.0 * (19.0_f64 / 20.0).sqrt();
        assert_fails(&alternating(at_limit - 100.0), &[]);
        assert_fails(&alternating(at_limit + 100.0), &["variation"]);
    }

    #[test]
    fn outliers_must_be_less_than_one_percent() {
        let outliers = |share: u64| {
            with(move |run| {
                let mut histogram = LatencyHistogram::default();
                (0..1_000 - share).for_each(|_| histogram.record(1_000_000));
                (0..share).for_each(|_| histogram.record(11_000_000));
                run.histograms.latency = histogram;
            })
        };
        assert_fails(&outliers(9), &[]);
        assert_fails(&outliers(10), &["outliers"]);
        // Ten medians where those are more than 10 ms, and no median is so short that less than that is one.
        let late = |median_us: f64, late_ns: u64| {
            with(move |run| {
                run.latency_us.as_mut().unwrap().p50 = Some(median_us);
                run.histograms.latency = LatencyHistogram::default();
                (0..1_000).for_each(|_| run.histograms.latency.record(late_ns));
            })
        };
        assert_fails(&late(4_000.0, 39_000_000), &[]);
        assert_fails(&late(4_000.0, 41_000_000), &["outliers"]);
        assert_fails(&late(10.0, 9_900_000), &[]);
        assert_fails(&late(10.0, 10_100_000), &["outliers"]);
    }

    #[test]
    fn spikes_are_placed_in_time_beside_outliers() {
        let criteria = with(|run| {
            run.windows[7].latency_max_us = Some(30_000.0);
            (0..200).for_each(|_| run.histograms.latency.record(30_000_000));
        });
        assert_fails(&criteria, &["outliers"]);
        let outliers = criteria.iter().find(|criterion| criterion.name == "outliers").unwrap();
        assert_eq!(outliers.evidence, ["30.0 ms at 7 s"]);
    }

    #[test]
    fn what_is_without_an_answer_is_an_outlier() {
        // Of 10,000 due, late answers and messages without any add up.
        let late = |late: u64, unanswered: u64| {
            with(move |run| {
                let mut histogram = LatencyHistogram::default();
                (0..10_000 - unanswered - late).for_each(|_| histogram.record(1_000_000));
                (0..late).for_each(|_| histogram.record(11_000_000));
                run.histograms.latency = histogram;
                run.messages.counts.answered -= unanswered;
                run.messages.unsent = unanswered;
            })
        };
        assert_fails(&late(89, 10), &[]);
        assert_fails(&late(90, 10), &["outliers"]);
        let criteria = late(0, 100);
        assert_fails(&criteria, &["outliers", "delivery"]);
        let outliers = criteria.iter().find(|criterion| criterion.name == "outliers").unwrap();
        assert_eq!(
            (&*outliers.measured, &*outliers.evidence[0]),
            ("1.00 %", "100 of them without an answer")
        );
        // Where most have none, there is no median to compare with.
        let unknown = with(|run| {
            run.latency_us.as_mut().unwrap().p50 = None;
            run.resources.foreign_cpu_cores = Some(2.0);
        });
        assert_fails(&unknown, &["latency_p50", "outliers"]);
    }

    #[test]
    fn latency_may_grow_by_5_ms_over_the_load() {
        let growing = |us_per_s: f64| {
            let run = steady(|t_s| 1_000.0 + us_per_s * t_s as f64);
            judged(&CASE, &seen(vec![loaded(PHASE, run)]))
        };
        assert_fails(&growing(249.0), &["variation"; 0]);
        assert_fails(&growing(251.0), &["trend"]);
    }

    #[test]
    fn a_noisy_machine_makes_timing_inconclusive_and_counting_not() {
        let criteria = with(|run| {
            run.resources.foreign_cpu_cores = Some(0.5);
            run.latency_us.as_mut().unwrap().p99 = Some(600_000.0);
            run.messages.counts.duplicates = 1;
        });
        assert_eq!(named(&criteria, Verdict::Inconclusive), ["latency_p99"]);
        assert_eq!(named(&criteria, Verdict::Fail), ["duplicates"]);
    }
}
