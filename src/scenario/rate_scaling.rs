//! Case 1: does the service follow each rate of the table?

use super::criteria::{Timed, counted, none_of, shown, under};
use super::load::{ACHIEVED_GRACE, achieved_rate, connections_over, counting_over};
use super::{Case, workload};
use crate::analysis::{RateStep, ThroughputAnalyzer};
use crate::config::HighVolumeConfig;
use crate::result::{CriterionOutcome, LoadTestResults, Verdict};
use crate::run::plan::{Action, Evidence, Phase, Plan};
use crate::units::{self, Rate};
use crate::workload::{Offered, Workload};

pub(super) const CASE: Case =
    Case { name: "rate_scaling", question: "does the service follow each rate of the table?", plan, judge };

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
    Plan { server_args: Vec::new(), phases: config.rates.iter().map(phase).collect() }
}

fn phase_name(rate: Rate) -> String {
    rate.as_per_second().to_string()
}

fn judge(config: &HighVolumeConfig, evidence: &Evidence) -> Vec<CriterionOutcome> {
    let steps: Vec<(Rate, &LoadTestResults)> =
        config.rates.iter().filter_map(|&rate| Some((rate, evidence.run(&phase_name(rate))?))).collect();
    let mut criteria: Vec<CriterionOutcome> =
        steps.iter().flat_map(|&(rate, run)| at_step(config, rate, run)).collect();
    criteria.extend(delivery(config, &steps));
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
    let mut criteria: Vec<CriterionOutcome> = achieved_rate(run, &config.limits).into_iter().collect();
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
    let allowed = under(units::span(limit));
    let Some(us) = p95_us else {
        let why = "messages without an answer rank above all others".to_owned();
        return counted("latency_p95", allowed, shown(p95_us, units::latency_us), false, [why]);
    };
    let holds = us < limit.as_secs_f64() * 1e6;
    let measured = units::latency_us(us);
    let timed = Timed {
        name: "latency_p95",
        limit: allowed,
        measured,
        holds,
        lateness_limit: limit,
        evidence: Vec::new(),
    };
    timed.outcome(&config.limits, &[run])
}

/// No loss up to a rate, almost none above.
fn delivery(config: &HighVolumeConfig, steps: &[(Rate, &LoadTestResults)]) -> Vec<CriterionOutcome> {
    let lossless = config.rate_scaling.limits.lossless_up_to;
    let label = |rate: Rate| phase_name(rate);
    let (up_to, above): (Vec<_>, Vec<_>) = steps.iter().copied().partition(|(rate, _)| *rate <= lossless);
    let lost: u64 = up_to.iter().map(|(_, run)| run.messages.counts.lost).sum();
    let ids = up_to.iter().filter(|(_, run)| run.messages.counts.lost > 0).map(|&(rate, run)| {
        let ids = run.messages.missing_ids.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        format!("{} at {}, ids: {ids}", units::count(run.messages.counts.lost), label(rate))
    });
    let mut criteria = vec![none_of(&format!("lost_up_to_{}", label(lossless)), lost, ids)];
    criteria.extend(above.iter().map(|&(rate, run)| {
        let messages = &run.messages;
        let ratio = messages.counts.answered as f64 / messages.due.max(1) as f64;
        let least = config.limits.delivery_ratio;
        let limit = format!("at least {}", units::percent(least));
        let ids = messages.missing_ids.iter().take(3).cloned();
        counted(&format!("delivery@{}", label(rate)), limit, units::percent(ratio), ratio >= least, ids)
    }));
    criteria
}

/// Slope and R² of achieved against offered.
fn linearity(config: &HighVolumeConfig, steps: &[(Rate, &LoadTestResults)]) -> Vec<CriterionOutcome> {
    let limits = &config.rate_scaling.limits;
    let fitted: Vec<_> = steps.iter().filter(|(rate, _)| *rate <= limits.linear_up_to).collect();
    let runs: Vec<&LoadTestResults> = fitted.iter().map(|(_, run)| *run).collect();
    let points: Vec<(f64, f64)> = runs
        .iter()
        .filter_map(|run| Some((run.throughput.offered_rate?, run.throughput.achieved_rate)))
        .collect();
    let line = ThroughputAnalyzer::calculate_linear_fit(&points);
    let timed = |name, limit, value: Option<f64>, holds, error: Option<String>| {
        let evidence = error.into_iter().collect();
        let measured = shown(value, |value| format!("{value:.4}"));
        Timed { name, limit, measured, holds, lateness_limit: ACHIEVED_GRACE, evidence }
            .outcome(&config.limits, &runs)
    };
    let error = line.as_ref().err().map(ToString::to_string);
    let slope = line.as_ref().ok().map(|line| line.slope);
    let r_squared = line.as_ref().ok().and_then(|line| line.r_squared);
    let tolerance = limits.slope_tolerance_ratio;
    vec![
        timed(
            "slope",
            format!("1 ± {tolerance} up to {}", limits.linear_up_to),
            slope,
            slope.is_some_and(|slope| (slope - 1.0).abs() <= tolerance),
            error.clone(),
        ),
        timed(
            "r_squared",
            format!("at least {} up to {}", limits.r_squared, limits.linear_up_to),
            r_squared,
            r_squared.is_some_and(|r_squared| r_squared >= limits.r_squared),
            error,
        ),
    ]
}

/// Names the step where the service stops following. It tells and never fails: `achieved_rate` does that.
fn knee(config: &HighVolumeConfig, steps: &[(Rate, &LoadTestResults)]) -> CriterionOutcome {
    let table: Vec<RateStep> = steps
        .iter()
        .filter_map(|(_, run)| {
            Some(RateStep { offered: run.throughput.offered_rate?, achieved: run.throughput.achieved_rate })
        })
        .collect();
    let measured = match ThroughputAnalyzer::calculate_knee(&table, config.limits.achieved_ratio) {
        Ok(Some(knee)) => format!("stops following at {}", units::per_second(knee.step.offered)),
        Ok(None) => "follows every rate of the table".to_owned(),
        Err(error) => error.to_string(),
    };
    let limit = "named".to_owned();
    CriterionOutcome {
        name: "knee".to_owned(),
        limit,
        measured,
        verdict: Verdict::Pass,
        evidence: Vec::new(),
    }
}
