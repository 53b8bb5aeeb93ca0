//! Case 6: does every connection get its share, however many there are?

use super::criteria::{ACHIEVED_GRACE, Timed, shown, straight_line, under};
use super::load::{achieved_rate, connections_over, counting_over};
use super::{Case, workload};
use crate::analysis::ThroughputAnalyzer;
use crate::config::HighVolumeConfig;
use crate::result::{CriterionOutcome, LoadTestResults, Verdict};
use crate::run::plan::{Action, Evidence, Phase, Plan};
use crate::units::{self, Rate};
use crate::workload::{Offered, Workload};

pub(super) const CASE: Case = Case {
    name: "connection_scaling",
    question: "does every connection get its share, however many there are?",
    plan,
    judge,
};

fn plan(config: &HighVolumeConfig) -> Plan {
    let case = &config.connection_scaling;
    let phase = |&connections: &u32| {
        let rate = case.rate_per_connection.as_per_second() * f64::from(connections);
        let load = Workload {
            // Out of range only where the configuration is beyond a thousand million messages a second.
            offered: Offered::Rate(Rate::per_second(rate).unwrap_or(case.rate_per_connection)),
            connections,
            duration: case.hold,
            ..workload(config)
        };
        Phase::new(connections.to_string(), Action::Load(load))
    };
    let most = config.connections.iter().max().copied().unwrap_or(0);
    let server_args = vec![format!("--max-connections={}", most.max(1_100))];
    Plan { server_args, phases: config.connections.iter().map(phase).collect(), ..Plan::default() }
}

fn judge(config: &HighVolumeConfig, evidence: &Evidence) -> Vec<CriterionOutcome> {
    let steps: Vec<(u32, &LoadTestResults)> =
        config.connections.iter().filter_map(|&n| Some((n, evidence.run(&n.to_string())?))).collect();
    let mut criteria: Vec<CriterionOutcome> =
        steps.iter().flat_map(|&(connections, run)| at_step(config, connections, run)).collect();
    let runs: Vec<_> = evidence.runs().collect();
    criteria.extend(counting_over(&runs));
    criteria.push(connections_over(&runs));
    criteria.extend(linearity(config, &steps));
    criteria.push(memory(&steps));
    criteria
}

fn at_step(
    config: &HighVolumeConfig,
    connections_asked: u32,
    run: &LoadTestResults,
) -> Vec<CriterionOutcome> {
    let mut criteria: Vec<CriterionOutcome> = achieved_rate(run, &config.limits).into_iter().collect();
    criteria.extend(fairness(config, run));
    if connections_asked == config.connection_scaling.limits.p95_at_connections {
        criteria.push(p95_of_each(config, run));
    }
    for criterion in &mut criteria {
        criterion.name = format!("{}@{connections_asked}", criterion.name);
    }
    criteria
}

/// Every single connection's P95; the buckets of a connection have the limit of 100 ms as a bound.
fn p95_of_each(config: &HighVolumeConfig, run: &LoadTestResults) -> CriterionOutcome {
    let limit = config.connection_scaling.limits.p95;
    let limit_us = limit.as_secs_f64() * 1e6;
    let of_each = || {
        run.per_connection.iter().map(|connection| (connection.latency_p95_at_most_us, connection.connection))
    };
    // A bucket's upper bound is exclusive, so a bound that equals the limit is under it.
    let above: Vec<u32> = of_each()
        .filter(|(p95_us, _)| p95_us.is_none_or(|us| us > limit_us))
        .map(|(_, index)| index)
        .collect();
    let worst = of_each().filter_map(|(p95_us, _)| p95_us).max_by(f64::total_cmp);
    let first: Vec<String> = above.iter().take(3).map(ToString::to_string).collect();
    let timed = Timed {
        name: "latency_p95_of_each",
        limit: under(units::span(limit)),
        measured: shown(worst, |us| format!("worst at most {}", units::latency_us(us))),
        holds: above.is_empty() && worst.is_some(),
        lateness_limit: limit,
        evidence: vec![format!("{} connections above, such as {}", above.len(), first.join(", "))],
    };
    timed.outcome(&config.limits, &[run])
}

fn fairness(config: &HighVolumeConfig, run: &LoadTestResults) -> Vec<CriterionOutcome> {
    let limits = &config.connection_scaling.limits;
    let served: Vec<f64> =
        run.per_connection.iter().map(|connection| connection.counts.answered as f64).collect();
    let fairness = ThroughputAnalyzer::calculate_fairness(&served).ok();
    let lowest = ThroughputAnalyzer::calculate_lowest_share(&served).ok();
    let least = run.per_connection.iter().min_by_key(|connection| connection.counts.answered);
    let evidence: Vec<String> = least
        .map(|least| {
            format!("connection {} got {} answers", least.connection, units::count(least.counts.answered))
        })
        .into_iter()
        .collect();
    let timed = |name, limit: f64, value: Option<f64>| {
        let limit_text = format!("at least {limit}");
        let measured = shown(value, |value| format!("{value:.4}"));
        let holds = value.is_some_and(|value| value >= limit);
        let evidence = evidence.clone();
        Timed { name, limit: limit_text, measured, holds, lateness_limit: ACHIEVED_GRACE, evidence }
            .outcome(&config.limits, &[run])
    };
    vec![timed("fairness", limits.fairness, fairness), timed("lowest_share", limits.median_ratio, lowest)]
}

/// Throughput must be linear in connections.
fn linearity(config: &HighVolumeConfig, steps: &[(u32, &LoadTestResults)]) -> [CriterionOutcome; 2] {
    let limits = &config.connection_scaling.limits;
    let each = config.connection_scaling.rate_per_connection.as_per_second();
    let points: Vec<(f64, f64)> =
        steps.iter().map(|(n, run)| (f64::from(*n), run.throughput.achieved_rate / each)).collect();
    let runs: Vec<&LoadTestResults> = steps.iter().map(|(_, run)| *run).collect();
    straight_line(&config.limits, &points, &runs, (limits.slope_tolerance_ratio, limits.r_squared), "")
}

/// What a connection weighs, by the peak of either side at the most connections against that at the fewest. It tells and
/// never fails.
fn memory(steps: &[(u32, &LoadTestResults)]) -> CriterionOutcome {
    let side = |of: fn(&LoadTestResults) -> Option<u64>| {
        let (fewest, most) = (steps.first()?, steps.last()?);
        let grown = of(most.1)?.checked_sub(of(fewest.1)?)?;
        Some(units::bytes(grown / u64::from(most.0.checked_sub(fewest.0).filter(|&n| n > 0)?)))
    };
    let client = side(|run| run.resources.client.as_ref()?.peak_rss_bytes);
    let server = side(|run| run.resources.server.as_ref()?.peak_rss_bytes);
    CriterionOutcome {
        name: "memory_per_connection".to_owned(),
        limit: "told".to_owned(),
        measured: format!("client {}, server {}", shown(client, |text| text), shown(server, |text| text)),
        verdict: Verdict::Pass,
        evidence: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_fails, judged, loaded, named, run};
    use super::*;
    use crate::ledger::Counts;
    use crate::result::ConnectionSummary;

    const TABLE: [u32; 6] = [1, 10, 50, 100, 250, 500];

    fn step(connections: u32) -> LoadTestResults {
        let mut run = run(f64::from(connections) * 100.0, connections);
        run.per_connection = (0..connections)
            .map(|connection| ConnectionSummary {
                connection,
                due: 1_000,
                counts: Counts { sent: 1_000, answered: 1_000, ..Counts::default() },
                latency_p95_at_most_us: Some(1_000.0),
            })
            .collect();
        run
    }

    fn with(at: u32, edit: impl Fn(&mut LoadTestResults)) -> Vec<CriterionOutcome> {
        let phase = |connections: u32| {
            let mut run = step(connections);
            if connections == at {
                edit(&mut run);
            }
            loaded(connections.to_string(), run)
        };
        judged(&CASE, &Evidence { phases: TABLE.into_iter().map(phase).collect(), ..Evidence::default() })
    }

    #[test]
    fn equal_shares_pass_everything() {
        let criteria = with(0, |_| {});
        assert_eq!(named(&criteria, Verdict::Pass).len(), criteria.len(), "{criteria:#?}");
    }

    #[test]
    fn every_single_connection_has_its_p95_at_250() {
        let slow = |p95_us| with(250, move |run| run.per_connection[17].latency_p95_at_most_us = p95_us);
        // A bucket's bound is exclusive, so one of 100 ms is under 100 ms.
        assert_fails(&slow(Some(100_000.0)), &[]);
        let criteria = slow(Some(150_000.0));
        assert_fails(&criteria, &["latency_p95_of_each@250"]);
        let failed = criteria.iter().find(|criterion| criterion.verdict == Verdict::Fail).unwrap();
        assert_eq!(failed.evidence, ["1 connections above, such as 17"]);
        assert_fails(&slow(None), &["latency_p95_of_each@250"]);
        assert_fails(&with(500, |run| run.per_connection[17].latency_p95_at_most_us = None), &[]);
    }

    #[test]
    fn nobody_may_be_starved() {
        let starved = |answered| with(100, move |run| run.per_connection[3].counts.answered = answered);
        assert_fails(&starved(900), &[]);
        // One in a hundred hardly moves the index, which is why the lowest share is judged too.
        assert_fails(&starved(899), &["lowest_share@100"]);
    }

    #[test]
    fn shares_must_be_even() {
        // Half of them at x of the others' share have the index (1 + x)² / (2 (1 + x²)): 0.99 at x = 0.8182.
        let uneven = |answered| {
            with(100, move |run| {
                run.per_connection.iter_mut().step_by(2).for_each(|c| c.counts.answered = answered)
            })
        };
        let failed = |criteria: &[CriterionOutcome]| named(criteria, Verdict::Fail).contains(&"fairness@100");
        assert!(!failed(&uneven(819)));
        assert!(failed(&uneven(817)));
    }

    #[test]
    fn throughput_must_be_linear_in_connections() {
        let bent = |achieved| with(500, move |run| run.throughput.achieved_rate = achieved);
        assert_fails(&bent(49_500.0), &[]);
        assert_fails(&bent(48_000.0), &["achieved_rate@500", "slope"]);
    }

    #[test]
    fn each_step_must_be_achieved_and_every_connection_kept() {
        assert_fails(&with(10, |run| run.throughput.achieved_rate = 989.0), &["achieved_rate@10"]);
        assert_fails(&with(250, |run| run.connections.established = 249), &["connections"]);
    }
}
