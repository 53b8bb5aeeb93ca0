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
    Plan { server_args: Vec::new(), phases: vec![Phase::new(PHASE, Action::Load(load))] }
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
