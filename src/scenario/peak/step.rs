//! Whether one rate held, and what kept it from holding.

use std::time::Duration;

use super::super::criteria::{ACHIEVED_GRACE, BUSY_CORES, Timed, counted, doubts, unopened};
use super::super::load::{LatencyLimit, achieved_rate, by_what_was_opened, connections, latency, reason};
use crate::config::Limits;
use crate::result::peak::{LimitingSide, RateTry};
use crate::result::{CriterionOutcome, LoadTestResults, Verdict};
use crate::sampler::Sample;
use crate::units;

/// A backlog under this is the scheduler's, on either side, whatever the load lasts.
const BACKLOG_FLOOR: Duration = Duration::from_millis(20);
/// Of all cores, so much in use is all: the rest goes to the system's own work.
const FULL_MACHINE: f64 = 0.95;

/// Judges the load of one try.
pub(super) fn tried(limits: &Limits, phase: &str, rate: f64, run: &LoadTestResults) -> RateTry {
    let criteria = by_what_was_opened(run, |run| criteria(limits, run));
    let verdict = if run.interrupted { Verdict::Skipped } else { verdict(limits, run, &criteria) };
    let reasons = match verdict {
        Verdict::Skipped => vec!["ended early".to_owned()],
        _ => criteria.iter().filter_map(reason).collect(),
    };
    RateTry {
        phase: phase.to_owned(),
        rate,
        verdict,
        reasons,
        limiting_side: limiting_side(limits, run, verdict),
        achieved_rate: run.throughput.achieved_rate,
        served_rate: run.messages.counts.answered as f64
            / (run.offered_for_s + backlog_s(run).unwrap_or(0.0)).max(1e-9),
        latency_p50_us: run.latency_us.as_ref().and_then(|latency| latency.p50),
        latency_p99_us: run.latency_us.as_ref().and_then(|latency| latency.p99),
        backlog_s: backlog_s(run),
        client_cores: client_cores(run),
        busiest_worker_cores: run.resources.busiest_worker_cores,
        server_cores: server_cores(run),
        foreign_cores: run.resources.foreign_cpu_cores,
        send_lateness_p99_us: run.send_lateness_us.as_ref().and_then(|lateness| lateness.p99),
    }
}

/// What must hold for a rate to hold.
fn criteria(limits: &Limits, run: &LoadTestResults) -> Vec<CriterionOutcome> {
    let percentiles =
        [LatencyLimit::p50(limits.p50), LatencyLimit::p95(limits.p95), LatencyLimit::p99(limits.p99)];
    let mut criteria = vec![delivery(limits, run), connections(run)];
    criteria.push(achieved_rate(run, limits));
    criteria.extend(percentiles.iter().map(|limit| latency(run, limits, limit)));
    criteria.push(backlog(limits, run));
    criteria
}

fn delivery(limits: &Limits, run: &LoadTestResults) -> CriterionOutcome {
    let messages = &run.messages;
    let ratio = messages.counts.answered as f64 / messages.due.max(1) as f64;
    let limit = format!("at least {}", units::percent(limits.delivery_ratio));
    let missing = format!(
        "unsent {}, refused {}, lost {}",
        units::count(messages.unsent),
        units::count(messages.counts.refused),
        units::count(messages.counts.lost)
    );
    counted("delivery", limit, units::percent(ratio), ratio >= limits.delivery_ratio, [missing])
}

/// What was left to answer when the load ended, in the time that it took.
///
/// A server that is offered 1 % more than it can do is 1 % of the load's time behind at its end. Over a minute that
/// fails the achieved rate and the percentiles; in a load of a second all answers still come within their grace. So a
/// server must be done `1 − achieved_ratio` of the load's time after its end: this makes a short load as strict as a long
/// one, down to [`BACKLOG_FLOOR`].
fn backlog(limits: &Limits, run: &LoadTestResults) -> CriterionOutcome {
    let share = (1.0 - limits.achieved_ratio) * run.offered_for_s;
    let allowed = Duration::from_secs_f64(share.max(0.0)).max(BACKLOG_FLOOR);
    let backlog_s = backlog_s(run);
    let timed = Timed {
        name: "backlog",
        limit: format!("worked off within {}", units::span(allowed)),
        measured: backlog_s.map(|seconds| units::latency_us(seconds * 1e6)),
        holds: backlog_s.is_some_and(|seconds| seconds <= allowed.as_secs_f64()),
        lateness_limit: allowed,
        evidence: Vec::new(),
    };
    timed.outcome(limits, &[run])
}

/// From the end of the load to the last answer, less what an answer takes at least.
fn backlog_s(run: &LoadTestResults) -> Option<f64> {
    let shortest_us = run.service_latency_us.as_ref().and_then(|latency| latency.min).unwrap_or(0.0);
    Some((run.moments.last_answer_s? - run.offered_for_s - shortest_us / 1e6).max(0.0))
}

/// The verdict over all criteria. A count that fails is sure, except for messages that were never sent: a generator that
/// could not keep up leaves some too.
fn verdict(limits: &Limits, run: &LoadTestResults, criteria: &[CriterionOutcome]) -> Verdict {
    let verdict = Verdict::of_all(criteria.iter().map(|criterion| criterion.verdict));
    let counts = &run.messages.counts;
    let failed =
        |name| criteria.iter().any(|outcome| outcome.name == name && outcome.verdict == Verdict::Fail);
    let by_the_server = counts.refused + counts.lost > 0 || failed("connections");
    if verdict == Verdict::Fail && !by_the_server && !doubts(limits, run, ACHIEVED_GRACE).is_empty() {
        return Verdict::Inconclusive;
    }
    verdict
}

/// What kept the rate from holding; `None` where it held.
fn limiting_side(limits: &Limits, run: &LoadTestResults, verdict: Verdict) -> Option<LimitingSide> {
    match verdict {
        Verdict::Pass | Verdict::Skipped => None,
        Verdict::Fail => Some(LimitingSide::Server),
        Verdict::Inconclusive => {
            let busy = run.resources.busiest_worker_cores.is_some_and(|cores| cores > BUSY_CORES);
            let foreign =
                run.resources.foreign_cpu_cores.is_some_and(|cores| cores > limits.foreign_cpu_cores);
            // A busy worker on a machine with a core to spare is the generator's own limit; so are connections that it
            // could not open, and lateness, unless others took the CPU that it needed.
            let generator = busy || unopened(run).is_some() || !foreign;
            Some(if generator && !is_full(run) { LimitingSide::Generator } else { LimitingSide::Machine })
        }
    }
}

/// Whether both sides and everybody else together left no CPU to anybody.
fn is_full(run: &LoadTestResults) -> bool {
    let used = client_cores(run)
        .zip(server_cores(run))
        .map(|(client, server)| client + server + run.resources.foreign_cpu_cores.unwrap_or(0.0));
    used.zip(run.environment.cores).is_some_and(|(used, cores)| used >= FULL_MACHINE * cores as f64)
}

fn client_cores(run: &LoadTestResults) -> Option<f64> {
    cores(run, |sample| sample.client.cpu_s)
}

fn server_cores(run: &LoadTestResults) -> Option<f64> {
    cores(run, |sample| sample.server?.cpu_s)
}

/// Cores taken while load was offered: up to the last sample before its end, or over all samples where the load was too
/// short to have one.
fn cores(run: &LoadTestResults, cpu_s: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
    let samples = &run.resources.samples;
    let loaded = samples.iter().rfind(|sample| sample.t_s > 0.0 && sample.t_s <= run.offered_for_s);
    let sample = loaded.or(samples.last()).filter(|sample| sample.t_s > 0.0)?;
    Some(cpu_s(sample)? / sample.t_s)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::run;
    use super::*;
    use crate::sampler::ProcessSample;

    /// A try at 10,000 msg/s for 10 s, edited.
    fn at_10_000(edit: impl FnOnce(&mut LoadTestResults)) -> RateTry {
        let mut run = run(10_000.0, 100);
        edit(&mut run);
        tried(&Limits::default(), "search-01-10000", 10_000.0, &run)
    }

    fn sampled(client: f64, server: f64) -> Vec<Sample> {
        let side = |cores: f64, t_s: f64| ProcessSample { rss_bytes: None, cpu_s: Some(cores * t_s) };
        let at = |t_s: f64, cores_factor: f64| Sample {
            t_s,
            client: side(client * cores_factor, t_s),
            server: Some(side(server * cores_factor, t_s)),
            foreign_cpu_cores: None,
        };
        // Drained for another 10 s, in which neither did anything.
        vec![at(0.0, 1.0), at(5.0, 1.0), at(10.0, 1.0), at(20.0, 0.5)]
    }

    #[test]
    fn each_limit_decides_at_its_value() {
        type Edit = fn(&mut LoadTestResults);
        let cases: [(&str, Edit, Edit); 7] = [
            ("latency_p50", |r| latency(r).p50 = Some(49_999.0), |r| latency(r).p50 = Some(50_000.0)),
            ("latency_p95", |r| latency(r).p95 = Some(199_999.0), |r| latency(r).p95 = Some(200_000.0)),
            ("latency_p99", |r| latency(r).p99 = Some(499_999.0), |r| latency(r).p99 = Some(500_000.0)),
            (
                "achieved_rate",
                |r| r.throughput.achieved_rate = 9_900.0,
                |r| {
                    r.throughput.achieved_rate = 9_899.0;
                },
            ),
            ("delivery", |r| refuse(r, 10), |r| refuse(r, 11)),
            ("connections", |_| {}, |r| r.connections.dropped = 1),
            // 1 % of 10 s, beyond the shortest latency of 0.9 ms.
            (
                "backlog",
                |r| r.moments.last_answer_s = Some(10.1005),
                |r| r.moments.last_answer_s = Some(10.102),
            ),
        ];
        for (name, holds, fails) in cases {
            let held = at_10_000(holds);
            assert_eq!((held.verdict, held.limiting_side), (Verdict::Pass, None), "{name}: {held:?}");
            let failed = at_10_000(fails);
            assert_eq!(
                (failed.verdict, failed.limiting_side),
                (Verdict::Fail, Some(LimitingSide::Server)),
                "{name}"
            );
            assert!(failed.reasons.len() == 1 && failed.reasons[0].starts_with(name), "{:?}", failed.reasons);
        }
    }

    fn latency(run: &mut LoadTestResults) -> &mut crate::result::LatencyMeasurement {
        run.latency_us.as_mut().unwrap()
    }

    /// 10,000 are due.
    fn refuse(run: &mut LoadTestResults, messages: u64) {
        run.messages.counts.answered -= messages;
        run.messages.counts.refused = messages;
    }

    #[test]
    fn a_short_load_is_judged_by_its_backlog() {
        let short = |last_answer_s: f64| {
            at_10_000(|run| {
                run.offered_for_s = 1.0;
                run.moments.last_answer_s = Some(last_answer_s);
            })
        };
        assert_eq!(short(1.020).verdict, Verdict::Pass);
        assert_eq!(short(1.022).verdict, Verdict::Fail);
        // Beyond the shortest latency of 0.9 ms.
        assert!(short(1.1009).reasons[0].starts_with("backlog: 100 ms "), "{:?}", short(1.1009).reasons);
        // 10,000 answers, in the second and the 99.1 ms after it.
        assert!((short(1.1).served_rate - 10_000.0 / 1.0991).abs() < 0.1, "{:?}", short(1.1));
        let silent = at_10_000(|run| run.moments.last_answer_s = None);
        assert_eq!((silent.verdict, silent.backlog_s), (Verdict::Fail, None));
    }

    #[test]
    fn what_limits_is_told_apart() {
        let slow = |edit: fn(&mut LoadTestResults)| {
            let slow = at_10_000(|run| {
                run.throughput.achieved_rate = 5_000.0;
                run.environment.cores = Some(2);
                run.resources.samples = sampled(0.9, 0.5);
                edit(run);
            });
            (slow.verdict, slow.limiting_side.unwrap())
        };
        let doubtful = |side| (Verdict::Inconclusive, side);
        assert_eq!(slow(|_| {}), (Verdict::Fail, LimitingSide::Server));
        assert_eq!(
            slow(|run| run.resources.busiest_worker_cores = Some(0.94)),
            (Verdict::Fail, LimitingSide::Server)
        );
        assert_eq!(
            slow(|run| run.resources.busiest_worker_cores = Some(0.96)),
            doubtful(LimitingSide::Generator)
        );
        assert_eq!(
            slow(|run| run.send_lateness_us.as_mut().unwrap().p99 = Some(50_001.0)),
            doubtful(LimitingSide::Generator)
        );
        assert_eq!(slow(|run| run.resources.foreign_cpu_cores = Some(0.11)), doubtful(LimitingSide::Machine));
        // Both sides share two cores, and use them up.
        assert_eq!(
            slow(|run| {
                run.resources.busiest_worker_cores = Some(0.96);
                run.resources.samples = sampled(0.97, 0.94);
            }),
            doubtful(LimitingSide::Machine)
        );
        // Others beside a busy generator do not excuse it while a core is left, and do where none is.
        assert_eq!(
            slow(|run| {
                run.resources.busiest_worker_cores = Some(0.96);
                run.resources.foreign_cpu_cores = Some(0.3);
            }),
            doubtful(LimitingSide::Generator)
        );
        assert_eq!(
            slow(|run| {
                run.resources.busiest_worker_cores = Some(0.96);
                run.resources.foreign_cpu_cores = Some(0.6);
            }),
            doubtful(LimitingSide::Machine)
        );
        // As much as they may take is not too much.
        assert_eq!(
            slow(|run| {
                run.send_lateness_us.as_mut().unwrap().p99 = Some(50_001.0);
                run.resources.foreign_cpu_cores = Some(Limits::default().foreign_cpu_cores);
            }),
            doubtful(LimitingSide::Generator)
        );
        // A busy generator sends late, but it does not refuse what it sends.
        assert_eq!(
            slow(|run| {
                run.resources.busiest_worker_cores = Some(0.96);
                refuse(run, 100);
            }),
            (Verdict::Fail, LimitingSide::Server)
        );
    }

    #[test]
    fn connections_that_the_generator_did_not_open_limit_it_and_not_the_server() {
        let starved = |edit: fn(&mut LoadTestResults)| {
            at_10_000(|run| {
                crate::result::example::starve(run, 20);
                run.resources.foreign_cpu_cores = Some(0.5);
                edit(run);
            })
        };
        let tried = starved(|_| {});
        assert_eq!(
            (tried.verdict, tried.limiting_side),
            (Verdict::Inconclusive, Some(LimitingSide::Generator))
        );
        assert!(tried.reasons.iter().all(|reason| reason.contains("ran out of open files")), "{tried:?}");
        let refused = starved(|run| (run.connections.established, run.connections.refused) = (79, 1));
        assert_eq!((refused.verdict, refused.limiting_side), (Verdict::Fail, Some(LimitingSide::Server)));
    }

    #[test]
    fn as_much_refused_as_lost_is_the_servers_all_the_same() {
        let tried = at_10_000(|run| {
            run.messages.counts.answered -= 200;
            (run.messages.counts.refused, run.messages.counts.lost) = (100, 100);
            run.resources.busiest_worker_cores = Some(0.99);
        });
        assert_eq!((tried.verdict, tried.limiting_side), (Verdict::Fail, Some(LimitingSide::Server)));
    }

    #[test]
    fn what_was_never_sent_may_be_the_generators() {
        let unsent = |busiest: f64| {
            at_10_000(|run| {
                run.messages.counts.sent = 5_000;
                run.messages.counts.answered = 5_000;
                run.messages.unsent = 5_000;
                run.measure();
                run.resources.busiest_worker_cores = Some(busiest);
            })
            .verdict
        };
        assert_eq!(unsent(0.99), Verdict::Inconclusive);
        assert_eq!(unsent(0.50), Verdict::Fail);
    }

    #[test]
    fn cpu_is_that_of_the_load_and_not_of_the_drain() {
        let tried = at_10_000(|run| run.resources.samples = sampled(0.8, 0.6));
        assert_eq!((tried.client_cores, tried.server_cores), (Some(0.8), Some(0.6)));
        let unknown = at_10_000(|_| {});
        assert_eq!((unknown.client_cores, unknown.server_cores), (None, None));
    }

    #[test]
    fn a_load_that_was_ended_early_is_not_judged() {
        let ended = at_10_000(|run| {
            run.interrupted = true;
            run.throughput.achieved_rate = 1.0;
        });
        assert_eq!((ended.verdict, ended.limiting_side), (Verdict::Skipped, None));
        assert_eq!(ended.reasons, ["ended early"]);
    }
}
