//! Case 6: does every connection get its share, however many there are?

use super::criteria::{ACHIEVED_GRACE, Timed, needs_all, shown, straight_line, told, under};
use super::load::{achieved_rate, connections_over, counting_over};
use super::{Body, Case, workload};
use crate::analysis::spread::SampleError;
use crate::analysis::{ThroughputAnalyzer, Usl};
use crate::config::HighVolumeConfig;
use crate::result::{CriterionOutcome, LoadTestResults};
use crate::run::plan::{Action, Evidence, Phase, Plan};
use crate::units::{self, Rate};
use crate::workload::{Offered, Workload};

pub(super) const CASE: Case = Case {
    name: "connection_scaling",
    question: "does every connection get its share, however many there are?",
    needs: &[],
    body: Body::Planned { plan, judge },
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
    criteria.push(scalability(&steps));
    criteria.push(memory(&steps));
    criteria
}

fn at_step(
    config: &HighVolumeConfig,
    connections_asked: u32,
    run: &LoadTestResults,
) -> Vec<CriterionOutcome> {
    let mut criteria = vec![achieved_rate(run, &config.limits)];
    criteria.extend(fairness(config, connections_asked, run));
    if connections_asked == config.connection_scaling.limits.p95_at_connections {
        criteria.push(p95_of_each(config, connections_asked, run));
    }
    for criterion in &mut criteria {
        criterion.name = format!("{}@{connections_asked}", criterion.name);
    }
    criteria
}

/// Every single connection's P95; the buckets of a connection have the limit of 100 ms as a bound.
fn p95_of_each(config: &HighVolumeConfig, connections_asked: u32, run: &LoadTestResults) -> CriterionOutcome {
    let limit = config.connection_scaling.limits.p95;
    let limit_us = limit.as_secs_f64() * 1e6;
    let known: Vec<(u32, f64)> =
        run.per_connection.iter().filter_map(|c| Some((c.connection, c.latency_p95_at_most_us?))).collect();
    let unknown = (connections_asked as usize).saturating_sub(known.len());
    // A bucket's upper bound is exclusive, so a bound that equals the limit is under it.
    let above: Vec<String> =
        known.iter().filter(|(_, us)| *us > limit_us).map(|(index, _)| index.to_string()).collect();
    let worst = known.iter().map(|&(_, us)| us).max_by(f64::total_cmp).filter(|_| unknown == 0);
    let evidence = if unknown > 0 {
        let without = run.per_connection.iter().find(|c| c.latency_p95_at_most_us.is_none());
        let such_as = without.map(|c| format!(", such as {}", c.connection)).unwrap_or_default();
        format!("none of {unknown} connections{such_as}")
    } else {
        let first = &above[..above.len().min(3)];
        format!("{} connections above, such as {}", above.len(), first.join(", "))
    };
    let timed = Timed {
        name: "latency_p95_of_each",
        limit: under(units::span(limit)),
        measured: worst.map(|us| format!("worst at most {}", units::latency_us(us))),
        holds: above.is_empty(),
        lateness_limit: limit,
        evidence: vec![evidence],
    };
    let mut outcome = timed.outcome(&config.limits, &[run]);
    if unknown == run.connections.unopened.connections.len() {
        // Every connection has its P95 that was opened.
        needs_all(&mut outcome, &[run]);
    }
    outcome
}

/// Whether all got their share in time: of a load that has ended everybody gets everything in the end, also who was
/// starved. Because in time is a matter of time, a machine or a generator that was in doubt leaves these in doubt too.
fn fairness(
    config: &HighVolumeConfig,
    connections_asked: u32,
    run: &LoadTestResults,
) -> [CriterionOutcome; 2] {
    let limits = &config.connection_scaling.limits;
    let mut served: Vec<f64> =
        run.per_connection.iter().map(|connection| connection.achieved as f64).collect();
    // A connection that nothing is known of got nothing.
    served.resize(served.len().max(connections_asked as usize), 0.0);
    let fairness = ThroughputAnalyzer::calculate_fairness(&served);
    let lowest = ThroughputAnalyzer::calculate_lowest_share(&served);
    let least = run.per_connection.iter().min_by_key(|connection| connection.achieved);
    let least = least.map(|least| {
        let [achieved, due] = [least.achieved, least.due].map(units::count);
        format!("connection {} got {achieved} answers of {due} in time", least.connection)
    });
    let timed = |name, limit: f64, value: Result<f64, SampleError>| {
        let why_none = value.as_ref().err().map(ToString::to_string);
        let timed = Timed {
            name,
            limit: format!("at least {limit}"),
            measured: value.as_ref().ok().map(|value| format!("{value:.4}")),
            holds: value.is_ok_and(|value| value >= limit),
            lateness_limit: ACHIEVED_GRACE,
            evidence: why_none.into_iter().chain(least.clone()).collect(),
        };
        timed.outcome(&config.limits, &[run])
    };
    [timed("fairness", limits.fairness, fairness), timed("lowest_share", limits.median_ratio, lowest)]
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

/// What the Universal Scalability Law makes of the table: how much of the work is serial, and what each pair of connections
/// costs. It tells and never fails: `slope` and `r_squared` do that.
fn scalability(steps: &[(u32, &LoadTestResults)]) -> CriterionOutcome {
    let points: Vec<(f64, f64)> =
        steps.iter().map(|(n, run)| (f64::from(*n), run.throughput.achieved_rate)).collect();
    let fit = ThroughputAnalyzer::calculate_scalability(&points);
    let text = |fit: &Usl| {
        let peak =
            fit.peak_load().map_or_else(String::new, |load| format!(", most at {load:.0} connections"));
        let each = units::per_second(fit.lambda);
        format!("{each} each, contention {:.4}, coherency {:.2e}{peak}", fit.sigma, fit.kappa)
    };
    let measured = shown(fit.as_ref().ok(), text);
    told("scalability", measured, fit.err().map(|error| error.to_string()))
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
    let missing: Vec<&str> = [("client", &client), ("server", &server)]
        .iter()
        .filter(|(_, side)| side.is_none())
        .map(|(name, _)| *name)
        .collect();
    let why = || {
        format!(
            "no growth from the fewest to the most connections is known of the {}",
            missing.join(" and the ")
        )
    };
    let why = (!missing.is_empty()).then(why);
    let measured = format!("client {}, server {}", shown(client, |text| text), shown(server, |text| text));
    told("memory_per_connection", measured, why)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_fails, judged, loaded, named, run, seen};
    use super::*;
    use crate::ledger::Counts;
    use crate::result::{ConnectionSummary, Verdict};
    use crate::sampler::ProcessSummary;

    const TABLE: [u32; 6] = [1, 10, 50, 100, 250, 500];

    fn step(connections: u32) -> LoadTestResults {
        let mut run = run(f64::from(connections) * 100.0, connections);
        run.per_connection = (0..connections)
            .map(|connection| ConnectionSummary {
                connection,
                due: 1_000,
                counts: Counts { sent: 1_000, answered: 1_000, ..Counts::default() },
                achieved: 1_000,
                latency_p95_at_most_us: Some(1_000.0),
            })
            .collect();
        let side = |bytes: u64| ProcessSummary { peak_rss_bytes: Some(bytes), ..ProcessSummary::default() };
        run.resources.client = Some(side(10_000_000 + u64::from(connections) * 20_000));
        run.resources.server = Some(side(10_000_000 + u64::from(connections) * 30_000));
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
        judged(&CASE, &seen(TABLE.into_iter().map(phase).collect()))
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
        // One that cannot tell fails, whatever the machine did.
        let unknown = with(250, |run| {
            run.per_connection[17].latency_p95_at_most_us = None;
            run.resources.foreign_cpu_cores = Some(2.0);
        });
        assert_fails(&unknown, &["latency_p95_of_each@250"]);
        let failed = unknown.iter().find(|criterion| criterion.verdict == Verdict::Fail).unwrap();
        assert_eq!((&*failed.measured, &*failed.evidence[0]), ("none", "none of 1 connections, such as 17"));
        let absent = with(250, |run| run.per_connection.truncate(249));
        assert_fails(&absent, &["lowest_share@250", "latency_p95_of_each@250"]);
        assert_fails(&with(500, |run| run.per_connection[17].latency_p95_at_most_us = None), &[]);
    }

    #[test]
    fn nobody_may_be_starved() {
        let starved = |achieved| with(100, move |run| run.per_connection[3].achieved = achieved);
        assert_fails(&starved(900), &[]);
        // One in a hundred hardly moves the index, which is why the lowest share is judged too. All its messages were
        // answered in the end: that was too late.
        let criteria = starved(899);
        assert_fails(&criteria, &["lowest_share@100"]);
        let failed = criteria.iter().find(|criterion| criterion.verdict == Verdict::Fail).unwrap();
        assert_eq!(failed.evidence, ["connection 3 got 899 answers of 1,000 in time"]);
    }

    #[test]
    fn what_came_late_is_no_share() {
        // How many answers there were in the end is not looked at.
        assert_fails(&with(100, |run| run.per_connection[3].counts.answered = 1), &[]);
        let nothing = with(100, |run| {
            run.per_connection.iter_mut().for_each(|connection| connection.achieved = 0);
            run.resources.foreign_cpu_cores = Some(2.0);
        });
        assert_fails(&nothing, &["fairness@100", "lowest_share@100"]);
    }

    #[test]
    fn shares_must_be_even() {
        // Half of them at x of the others' share have the index (1 + x)² / (2 (1 + x²)): 0.99 at x = 0.8182.
        let uneven = |achieved| {
            with(100, move |run| run.per_connection.iter_mut().step_by(2).for_each(|c| c.achieved = achieved))
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
    fn a_slope_or_a_line_that_does_not_fit_fails_alone() {
        // No step falls short of what it was offered.
        assert_fails(&with(500, |run| run.throughput.achieved_rate = 51_500.0), &["slope"]);
        // About the mean of 151.8 connections, 100 and 250 pull alike where they are raised by 98.2 to 51.8.
        let mut phases: Vec<_> = TABLE.into_iter().map(|n| loaded(n.to_string(), step(n))).collect();
        for (place, by) in [(3, 9_820.0), (4, 5_180.0)] {
            phases[place].run.as_mut().unwrap().throughput.achieved_rate += by;
        }
        assert_fails(&judged(&CASE, &seen(phases)), &["r_squared"]);
    }

    #[test]
    fn a_doubtful_machine_leaves_timing_in_doubt_and_counts_not() {
        let criteria = with(250, |run| {
            run.resources.foreign_cpu_cores = Some(0.5);
            run.throughput.achieved_rate = 24_000.0;
            run.per_connection[17].latency_p95_at_most_us = Some(150_000.0);
            run.per_connection[18].achieved = 500;
            run.messages.counts.duplicates = 1;
            run.connections.dropped = 1;
        });
        assert_eq!(
            named(&criteria, Verdict::Inconclusive),
            ["achieved_rate@250", "lowest_share@250", "latency_p95_of_each@250"]
        );
        assert_eq!(named(&criteria, Verdict::Fail), ["duplicates", "connections"]);
    }

    #[test]
    fn what_each_pair_of_connections_costs_is_told() {
        let told = |criteria: &[CriterionOutcome]| {
            criteria.iter().find(|criterion| criterion.name == "scalability").unwrap().clone()
        };
        let linear = told(&with(0, |_| {}));
        let expected = "100 msg/s each, contention 0.0000, coherency 0.00e0";
        assert_eq!((linear.verdict, &*linear.measured), (Verdict::Pass, expected));
        // 1 % serial work, and a cost of a millionth for each pair.
        let law = |n: f64| 100.0 * n / (1.0 + 0.01 * (n - 1.0) + 1e-6 * n * (n - 1.0));
        let mut phases: Vec<_> = TABLE.into_iter().map(|n| loaded(n.to_string(), step(n))).collect();
        for (phase, n) in phases.iter_mut().zip(TABLE) {
            phase.run.as_mut().unwrap().throughput.achieved_rate = law(f64::from(n));
        }
        let bent = told(&judged(&CASE, &seen(phases)));
        let expected = "100 msg/s each, contention 0.0100, coherency 1.00e-6, most at 995 connections";
        assert_eq!(bent.measured, expected);
        let few = told(&judged(&CASE, &seen(vec![loaded("1", step(1))])));
        assert_eq!((few.verdict, &*few.measured), (Verdict::Skipped, "none"));
    }

    #[test]
    fn what_a_connection_weighs_is_told_where_it_is_known() {
        let memory = |criteria: &[CriterionOutcome]| {
            criteria.iter().find(|criterion| criterion.name == "memory_per_connection").unwrap().clone()
        };
        let known = memory(&with(0, |_| {}));
        assert_eq!((known.verdict, &*known.measured), (Verdict::Pass, "client 19.5 KiB, server 29.3 KiB"));
        let unknown = memory(&with(500, |run| run.resources.server = None));
        assert_eq!((unknown.verdict, &*unknown.measured), (Verdict::Skipped, "client 19.5 KiB, server none"));
        assert!(unknown.evidence[0].contains("the server"), "{unknown:?}");
    }

    #[test]
    fn connections_that_the_generator_did_not_open_leave_their_step_in_doubt_and_no_other() {
        let starved = |edit: fn(&mut LoadTestResults)| {
            let phase = |connections: u32| {
                let mut run = step(connections);
                if connections == 250 {
                    crate::result::example::starve(&mut run, 50);
                    edit(&mut run);
                }
                loaded(connections.to_string(), run)
            };
            let config = HighVolumeConfig::for_profile(crate::config::Profile::Full);
            CASE.assess(&config, &seen(TABLE.into_iter().map(phase).collect()))
        };
        let doubted = [
            "achieved_rate@250",
            "fairness@250",
            "lowest_share@250",
            "latency_p95_of_each@250",
            "connections",
            "slope",
            "r_squared",
        ];
        let criteria = starved(|_| {});
        assert_eq!(named(&criteria, Verdict::Fail), [""; 0], "{criteria:#?}");
        let in_doubt = named(&criteria, Verdict::Inconclusive);
        assert!(in_doubt.iter().all(|name| doubted.contains(name)), "{in_doubt:?}");
        assert!(in_doubt.contains(&"connections") && in_doubt.contains(&"latency_p95_of_each@250"));
        // One more without a P95 is one that was open, and got nothing.
        let criteria = starved(|run| run.per_connection[17].latency_p95_at_most_us = None);
        assert_eq!(named(&criteria, Verdict::Fail), ["latency_p95_of_each@250"]);
    }

    #[test]
    fn each_step_must_be_achieved_and_every_connection_kept() {
        assert_fails(&with(10, |run| run.throughput.achieved_rate = 989.0), &["achieved_rate@10"]);
        assert_fails(&with(250, |run| run.connections.established = 249), &["connections"]);
    }
}
