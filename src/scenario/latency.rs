//! Case 5: does latency stay under its limits for as long as the load lasts?

use std::time::Duration;

use super::criteria::{Timed, counted, shown, under};
use super::load::{achieved_rate, connections, counting};
use super::{Case, workload};
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
    plan,
    judge,
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
    criteria.push(variation(config, run));
    criteria.push(outliers(config, run));
    criteria.push(trend(config, run));
    criteria.extend(achieved_rate(run, &config.limits));
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
) -> Vec<CriterionOutcome> {
    let limit_us = limit.as_secs_f64() * 1e6;
    let overall = run.latency_us.as_ref().and_then(|latency| latency.by_name(percentile)).flatten();
    let windows = full_windows(run);
    let worst = windows
        .iter()
        .filter_map(|window| Some((of(window)?, window.t_s)))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let above = windows.iter().filter(|window| of(window).is_none_or(|us| us >= limit_us)).count();
    let name = format!("latency_{percentile}");
    let allowed = under(units::span(limit));
    let whole = match overall {
        Some(us) => Timed {
            name: &name,
            limit: allowed.clone(),
            measured: units::latency_us(us),
            holds: us < limit_us,
            lateness_limit: limit,
            evidence: Vec::new(),
        }
        .outcome(&config.limits, &[run]),
        None => {
            let why = "messages without an answer rank above all others".to_owned();
            counted(&name, allowed.clone(), "none".to_owned(), false, [why])
        }
    };
    let in_windows = Timed {
        name: &format!("{name}_in_every_window"),
        limit: allowed,
        measured: shown(worst, |(us, t_s)| format!("worst {} at {t_s} s", units::latency_us(us))),
        holds: above == 0 && worst.is_some(),
        lateness_limit: limit,
        evidence: vec![format!("{above} of {} windows", windows.len())],
    };
    vec![whole, in_windows.outcome(&config.limits, &[run])]
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
        measured: shown(variation.as_ref().ok(), |variation| format!("{variation:.3}")),
        holds: variation.as_ref().is_ok_and(|&variation| variation < limits.variation),
        lateness_limit: limits.variation_floor,
        evidence: variation.err().map(|error| error.to_string()).into_iter().collect(),
    };
    timed.outcome(&config.limits, &[run])
}

fn outliers(config: &HighVolumeConfig, run: &LoadTestResults) -> CriterionOutcome {
    let limits = &config.latency.limits;
    let median_us = run.latency_us.as_ref().and_then(|latency| latency.p50);
    let floor_us = limits.outlier_floor.as_secs_f64() * 1e6;
    let share = median_us.and_then(|median_us| {
        let above_us = (limits.outlier_factor * median_us).max(floor_us);
        let histogram = &run.histograms.latency;
        let outliers = histogram.count_above((above_us * 1e3) as u64);
        ThroughputAnalyzer::calculate_outlier_share(outliers, histogram.len())
    });
    let timed = Timed {
        name: "outliers",
        limit: format!(
            "under {} above {} × median and {}",
            units::percent(limits.outlier_ratio),
            limits.outlier_factor,
            units::span(limits.outlier_floor)
        ),
        measured: shown(share, units::percent),
        holds: share.is_some_and(|share| share < limits.outlier_ratio),
        lateness_limit: limits.outlier_floor,
        evidence: spikes(run, floor_us),
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
        measured: shown(growth_us, |us| format!("at least {}", units::latency_us(us))),
        holds: growth_us.is_some_and(|us| us <= limit.as_secs_f64() * 1e6),
        lateness_limit: limit,
        evidence: trend.err().map(|error| error.to_string()).into_iter().collect(),
    };
    timed.outcome(&config.limits, &[run])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_fails, judged, loaded, named, run};
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
        judged(&CASE, &Evidence { phases: vec![loaded(PHASE, run)], ..Evidence::default() })
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
        let limits: [(&str, f64, Set); 2] = [
            ("latency_p95_in_every_window", 200_000.0, |window, us| window.latency_p95_us = us),
            ("latency_p99_in_every_window", 500_000.0, |window, us| window.latency_p99_us = us),
        ];
        for (name, limit_us, set) in limits {
            assert_fails(&with(|run| set(&mut run.windows[7], Some(limit_us - 1.0))), &[]);
            assert_fails(&with(|run| set(&mut run.windows[7], Some(limit_us))), &[name]);
            // A window that cannot tell does not pass.
            assert_fails(&with(|run| set(&mut run.windows[7], None)), &[name]);
        }
        let criteria = with(|run| run.windows[7].latency_p99_us = Some(600_000.0));
        let failed = criteria.iter().find(|criterion| criterion.verdict == Verdict::Fail).unwrap();
        assert_eq!((&*failed.measured, &*failed.evidence[0]), ("worst 600 ms at 7 s", "1 of 20 windows"));
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
            judged(&CASE, &Evidence { phases: vec![loaded(PHASE, run)], ..Evidence::default() })
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
    }

    #[test]
    fn latency_may_grow_by_5_ms_over_the_load() {
        let growing = |us_per_s: f64| {
            let run = steady(|t_s| 1_000.0 + us_per_s * t_s as f64);
            judged(&CASE, &Evidence { phases: vec![loaded(PHASE, run)], ..Evidence::default() })
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
