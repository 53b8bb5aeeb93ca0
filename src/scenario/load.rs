//! The judge of one load: the counts, the achieved rate, the connections, and whatever limits the user set.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::criteria::{ACHIEVED_GRACE, Timed, counted, excuse, none_of, under, unopened};
use crate::config::Limits;
use crate::result::{
    ConnectionSummary, CriterionOutcome, FanOut, LoadTestResults, Unmatched, UnmatchedKind, Verdict,
};
use crate::units::{self, UnitError, parse_duration};

/// A limit on one percentile of the latency, such as `p99=500ms`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencyLimit {
    percentile: &'static str,
    below: Duration,
}

impl LatencyLimit {
    /// The limit on the median.
    #[must_use]
    pub fn p50(below: Duration) -> Self {
        Self { percentile: "p50", below }
    }

    /// The limit on the 95th percentile.
    #[must_use]
    pub fn p95(below: Duration) -> Self {
        Self { percentile: "p95", below }
    }

    /// The limit on the 99th percentile.
    #[must_use]
    pub fn p99(below: Duration) -> Self {
        Self { percentile: "p99", below }
    }
}

impl FromStr for LatencyLimit {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let malformed = || UnitError::Malformed {
            value: text.to_owned(),
            expected: "a limit such as p99=500ms (p50, p90, p95, p99, p999 or max)",
        };
        let (name, below) = text.split_once('=').ok_or_else(malformed)?;
        let names = ["p50", "p90", "p95", "p99", "p999", "max"];
        let percentile = names.into_iter().find(|known| *known == name).ok_or_else(malformed)?;
        let below = parse_duration(below)?;
        if below.is_zero() {
            return Err(malformed());
        }
        Ok(Self { percentile, below })
    }
}

impl fmt::Display for LatencyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.percentile, units::span(self.below))
    }
}

/// Judges a load and writes criteria, verdict and reasons into its results.
pub fn judge(results: &mut LoadTestResults, limits: &Limits, latencies: &[LatencyLimit]) {
    conclude(results, |results| {
        let mut criteria = counting(results);
        criteria.push(connections(results));
        if results.workload.rate.is_some() || results.throughput.offered_rate.is_some() {
            criteria.push(achieved_rate(results, limits));
        }
        criteria.extend(results.fan_out.as_ref().map(reach));
        criteria.extend(latencies.iter().map(|limit| latency(results, limits, limit)));
        criteria
    });
}

/// Judges a load that is to be drained, however long that takes: the counts, the connections, and that every message was
/// answered or refused.
pub fn judge_drained(results: &mut LoadTestResults) {
    conclude(results, |results| {
        let mut criteria = counting(results);
        criteria.push(connections(results));
        criteria.push(without_a_word(results));
        criteria
    });
}

fn conclude(results: &mut LoadTestResults, judge: impl Fn(&LoadTestResults) -> Vec<CriterionOutcome>) {
    let criteria = by_what_was_opened(results, judge);
    results.verdict = Verdict::of_all(criteria.iter().map(|criterion| criterion.verdict));
    results.reasons = criteria.iter().filter_map(reason).collect();
    results.criteria = criteria;
}

/// The criteria over a load, and in doubt what fails only for want of connections that the generator itself did not open.
pub(super) fn by_what_was_opened(
    results: &LoadTestResults,
    judge: impl Fn(&LoadTestResults) -> Vec<CriterionOutcome>,
) -> Vec<CriterionOutcome> {
    let mut criteria = judge(results);
    if let Some(doubt) = unopened(results) {
        excuse(&mut criteria, &judge(&results.as_opened()), &[doubt]);
    }
    criteria
}

/// Why a criterion did not pass, in a line.
pub(super) fn reason(criterion: &CriterionOutcome) -> Option<String> {
    let CriterionOutcome { name, limit, measured, verdict, evidence } = criterion;
    match verdict {
        Verdict::Pass | Verdict::Skipped => None,
        Verdict::Fail | Verdict::Inconclusive => {
            let because = evidence.first().map(|first| format!("; {first}")).unwrap_or_default();
            Some(format!("{name}: {measured} (limit: {limit}){because}"))
        }
    }
}

/// Nothing lost, reordered, answered twice, foreign or corrupted.
pub(super) fn counting(results: &LoadTestResults) -> Vec<CriterionOutcome> {
    counting_over(&[("", results)])
}

/// The same over several loads, each with its name: the counts add up, and the evidence says whose they are.
pub(super) fn counting_over(runs: &[(&str, &LoadTestResults)]) -> Vec<CriterionOutcome> {
    let lost = |run: &LoadTestResults| {
        joined([on_connections(run, |c| c.counts.lost), first_ids(&run.messages.missing_ids)])
    };
    let reordered = |run: &LoadTestResults| {
        let distance = format!("by up to {} places", units::count(run.messages.reorder_distance_max));
        let ids = first_ids(&run.messages.reordered_ids);
        joined([on_connections(run, |c| c.counts.reordered), Some(distance), ids])
    };
    let duplicates = |run: &LoadTestResults| {
        joined([on_connections(run, |c| c.counts.duplicates), first_ids(&run.messages.duplicate_ids)])
    };
    vec![
        none_over("lost", runs, |run| run.messages.counts.lost, lost),
        none_over("reordered", runs, |run| run.messages.counts.reordered, reordered),
        none_over("duplicates", runs, |run| run.messages.counts.duplicates, duplicates),
        none_over("foreign", runs, |run| run.messages.counts.foreign, foreign),
        none_over("corrupted", runs, |run| run.messages.counts.corrupted, corrupted),
    ]
}

/// Which answers were foreign, in a line.
pub(super) fn foreign(run: &LoadTestResults) -> Option<String> {
    let ids = first_ids(&run.messages.foreign_ids);
    joined([on_connections(run, |c| c.counts.foreign), ids, as_they_came(run, UnmatchedKind::Foreign)])
}

/// Which messages had an answer with a wrong content, in a line.
pub(super) fn corrupted(run: &LoadTestResults) -> Option<String> {
    joined([on_connections(run, |c| c.counts.corrupted), first_ids(&run.messages.corrupted_ids)])
}

/// Every due message answered, over several loads: what was refused or never sent counts like what was lost.
pub(super) fn unanswered_over(name: &str, runs: &[(&str, &LoadTestResults)]) -> CriterionOutcome {
    none_over(name, runs, unanswered, |run| {
        let places = on_connections(run, |c| c.due.saturating_sub(c.counts.answered));
        joined([Some(classes(run)), places, first_ids(&run.messages.missing_ids)])
    })
}

/// Answered ÷ due at least `least`: what was refused or never sent counts like what was lost.
pub(super) fn delivery(name: &str, run: &LoadTestResults, least: f64) -> CriterionOutcome {
    let due = run.messages.due;
    let ratio = run.messages.counts.answered as f64 / due.max(1) as f64;
    let evidence = [Some(classes(run)), first_ids(&run.messages.missing_ids)].into_iter().flatten();
    let limit = format!("at least {}", units::percent(least));
    counted(name, limit, units::percent(ratio), due > 0 && ratio >= least, evidence)
}

/// Due messages without an answer.
pub(super) fn unanswered(run: &LoadTestResults) -> u64 {
    run.messages.due.saturating_sub(run.messages.counts.answered)
}

/// What became of messages without an answer, in a line.
fn classes(run: &LoadTestResults) -> String {
    let counts = &run.messages.counts;
    let [unsent, refused, lost] = [run.messages.unsent, counts.refused, counts.lost].map(units::count);
    format!("unsent {unsent}, refused {refused}, lost {lost}")
}

/// The first connections on which something was counted, in a line.
fn on_connections(run: &LoadTestResults, of: impl Fn(&ConnectionSummary) -> u64) -> Option<String> {
    const SHOWN: usize = 3;
    let on: Vec<String> =
        run.per_connection.iter().filter(|c| of(c) > 0).map(|c| c.connection.to_string()).collect();
    let plural = if on.len() > 1 { "s" } else { "" };
    let more = if on.len() > SHOWN { ", …" } else { "" };
    (!on.is_empty()).then(|| format!("on connection{plural} {}{more}", on[..on.len().min(SHOWN)].join(", ")))
}

/// What there is to say, in a line.
fn joined(parts: impl IntoIterator<Item = Option<String>>) -> Option<String> {
    let said: Vec<String> = parts.into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join(", "))
}

/// A criterion that nothing may be counted of, over several loads.
pub(super) fn none_over(
    name: &str,
    runs: &[(&str, &LoadTestResults)],
    of: impl Fn(&LoadTestResults) -> u64,
    more: impl Fn(&LoadTestResults) -> Option<String>,
) -> CriterionOutcome {
    let evidence = runs.iter().filter(|(_, run)| of(run) > 0).filter_map(|(label, run)| {
        let said = more(run);
        if label.is_empty() {
            return said;
        }
        let said = said.map(|said| format!(", {said}")).unwrap_or_default();
        Some(format!("{} at {label}{said}", units::count(of(run))))
    });
    none_of(name, runs.iter().map(|(_, run)| of(run)).sum(), evidence)
}

/// The first answers that were counted as this, in a line.
fn as_they_came(run: &LoadTestResults, kind: UnmatchedKind) -> Option<String> {
    const SHOWN: usize = 3;
    const CHARS: usize = 100;
    let brief = |seen: &Unmatched| {
        let line = seen.line();
        line.char_indices().nth(CHARS).map(|(end, _)| format!("{}…", &line[..end])).unwrap_or(line)
    };
    let came: Vec<String> =
        run.unmatched.iter().filter(|seen| seen.kind == kind).take(SHOWN).map(brief).collect();
    (!came.is_empty()).then(|| format!("as they came: {}", came.join(" ")))
}

/// The first ids of those that something is wrong with, in a line.
pub(super) fn first_ids(ids: &[String]) -> Option<String> {
    const SHOWN: usize = 3;
    let more = if ids.len() > SHOWN { ", …" } else { "" };
    (!ids.is_empty()).then(|| format!("ids: {}{more}", ids[..ids.len().min(SHOWN)].join(", ")))
}

/// Every connection of several loads established, and none dropped.
pub(super) fn connections_over(runs: &[(&str, &LoadTestResults)]) -> CriterionOutcome {
    let each: Vec<CriterionOutcome> = runs.iter().map(|(_, run)| connections(run)).collect();
    let requested: u64 = runs.iter().map(|(_, run)| run.connections.requested).sum();
    let kept: u64 =
        runs.iter().map(|(_, run)| run.connections.established.saturating_sub(run.connections.dropped)).sum();
    let evidence = runs.iter().zip(each).filter(|(_, outcome)| outcome.verdict == Verdict::Fail).flat_map(
        |((label, _), outcome)| outcome.evidence.into_iter().map(move |line| format!("at {label}: {line}")),
    );
    let limit = format!("{} established and kept", units::count(requested));
    counted("connections", limit, units::count(kept), kept == requested, evidence)
}

/// Every connection established, and none dropped.
pub(super) fn connections(results: &LoadTestResults) -> CriterionOutcome {
    let counts = &results.connections;
    let kept = counts.established.saturating_sub(counts.dropped);
    let reasons = counts.reasons.iter().map(|(reason, count)| format!("{count} × {reason}"));
    let limit = format!("{} established and kept", units::count(counts.requested));
    counted("connections", limit, units::count(kept), kept == counts.requested, reasons)
}

/// Every message answered or refused.
pub(super) fn without_a_word(results: &LoadTestResults) -> CriterionOutcome {
    let messages = &results.messages;
    let told = messages.counts.answered + messages.counts.refused;
    let which =
        format!("unsent {}, lost {}", units::count(messages.unsent), units::count(messages.counts.lost));
    none_of("unanswered", messages.due.saturating_sub(told), [which])
}

/// Every copy of every message came, where each goes to several connections.
fn reach(fan_out: &FanOut) -> CriterionOutcome {
    let measured = fan_out.reach.map_or_else(|| "none".to_owned(), units::percent);
    let FanOut { expected, received, .. } = *fan_out;
    let came = format!("{} of {} copies came", units::count(received), units::count(expected));
    counted("reach", units::percent(1.0), measured, received == expected, [came])
}

/// Achieved against offered, of a load that is an open loop: one that says not what it offered does not pass.
pub(super) fn achieved_rate(results: &LoadTestResults, limits: &Limits) -> CriterionOutcome {
    let (name, least) = ("achieved_rate", units::percent(limits.achieved_ratio));
    let Some(offered) = results.throughput.offered_rate else {
        let why = "this open loop does not say what it offered".to_owned();
        return counted(name, format!("at least {least}"), "none".to_owned(), false, [why]);
    };
    let achieved = results.throughput.achieved_rate;
    let timed = Timed {
        name,
        limit: format!("at least {least} of {}", units::per_second(offered)),
        measured: Some(format!("{} ({})", units::per_second(achieved), units::percent(achieved / offered))),
        holds: achieved >= limits.achieved_ratio * offered,
        lateness_limit: ACHIEVED_GRACE,
        evidence: server_side(results),
    };
    timed.outcome(limits, &[results])
}

pub(super) fn latency(results: &LoadTestResults, limits: &Limits, limit: &LatencyLimit) -> CriterionOutcome {
    // In a closed loop nothing is due: the latency from the send is the only one.
    let open_loop = results.workload.rate.is_some();
    let measurement = if open_loop { &results.latency_us } else { &results.service_latency_us };
    let measured_us = measurement.as_ref().and_then(|latency| latency.by_name(limit.percentile)).flatten();
    let name = format!("latency_{}", limit.percentile);
    let allowed = under(units::span(limit.below));
    // A percentile that falls among messages without an answer is no matter of timing.
    let censored = measurement.as_ref().map_or(0, |latency| latency.censored);
    let why = || format!("{} messages without an answer rank above all others", units::count(censored));
    let timed = Timed {
        name: &name,
        limit: allowed,
        measured: measured_us.map(units::latency_us),
        holds: measured_us.is_some_and(|us| us < limit.below.as_secs_f64() * 1e6),
        lateness_limit: limit.below,
        evidence: measured_us.is_none().then(why).into_iter().collect(),
    };
    timed.outcome(limits, &[results])
}

/// What speaks for the server being the limit.
fn server_side(results: &LoadTestResults) -> Vec<String> {
    let mut seen = Vec::new();
    let counts = &results.messages.counts;
    if results.blocked_sends.messages > 0 {
        seen.push(format!(
            "the server did not read: {} messages waited for a full socket, up to {}",
            units::count(results.blocked_sends.messages),
            units::latency_us(results.blocked_sends.max_us)
        ));
    }
    if counts.refused > 0 {
        seen.push(format!("the server refused {} messages", units::count(counts.refused)));
    }
    if results.messages.unsent > 0 {
        seen.push(format!("{} messages were never sent", units::count(results.messages.unsent)));
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{LatencyMeasurement, example};

    fn judged(edit: impl FnOnce(&mut LoadTestResults), latencies: &[LatencyLimit]) -> LoadTestResults {
        let mut results = example::clean();
        edit(&mut results);
        judge(&mut results, &Limits::default(), latencies);
        results
    }

    /// The names of the criteria that did not pass.
    fn failed(results: &LoadTestResults) -> Vec<&str> {
        results.criteria.iter().filter(|c| c.verdict != Verdict::Pass).map(|c| &*c.name).collect()
    }

    #[test]
    fn a_clean_run_passes_everything() {
        let results = judged(|_| {}, &["p50=50ms".parse().unwrap(), "max=1s".parse().unwrap()]);
        assert_eq!((results.verdict, results.reasons.len(), results.criteria.len()), (Verdict::Pass, 0, 9));
    }

    #[test]
    fn one_message_fails_each_counting_criterion_and_that_alone() {
        type Edit = fn(&mut LoadTestResults);
        let cases: [(&str, Edit); 5] = [
            ("lost", |r| r.messages.counts.lost = 1),
            ("reordered", |r| r.messages.counts.reordered = 1),
            ("duplicates", |r| r.messages.counts.duplicates = 1),
            ("foreign", |r| r.messages.counts.foreign = 1),
            ("corrupted", |r| r.messages.counts.corrupted = 1),
        ];
        for (name, edit) in cases {
            // The noisiest machine does not excuse a count.
            let results = judged(
                |results| {
                    edit(results);
                    results.resources.foreign_cpu_cores = Some(1.5);
                },
                &[],
            );
            assert_eq!((failed(&results), results.verdict), (vec![name], Verdict::Fail));
        }
    }

    #[test]
    fn what_is_drained_may_take_its_time_and_be_refused_but_not_be_forgotten() {
        let drained = |edit: fn(&mut LoadTestResults)| {
            let mut results = example::clean();
            results.throughput.achieved_rate = 1.0;
            results.messages.counts.answered -= 1;
            edit(&mut results);
            judge_drained(&mut results);
            (failed(&results).join(" "), results.verdict)
        };
        assert_eq!(drained(|r| r.messages.counts.refused = 1), (String::new(), Verdict::Pass));
        assert_eq!(drained(|r| r.messages.unsent = 1), ("unanswered".to_owned(), Verdict::Fail));
        assert_eq!(drained(|r| r.messages.counts.lost = 1), ("lost unanswered".to_owned(), Verdict::Fail));
    }

    #[test]
    fn a_copy_that_did_not_come_fails_the_reach_alone() {
        let fanned = |received| {
            let skew = crate::record::LatencyHistogram::default();
            judged(|results| results.fan_out = Some(FanOut::new(4, 40_000, received, 0, &skew)), &[])
        };
        assert_eq!(fanned(40_000).verdict, Verdict::Pass);
        assert_eq!(failed(&fanned(39_999)), ["reach"]);
    }

    #[test]
    fn a_lost_message_is_named() {
        let results = judged(
            |results| {
                results.messages.counts.lost = 4;
                results.messages.missing_ids = (0..4).map(|n| format!("r-0-0-{n}")).collect();
            },
            &[],
        );
        assert_eq!(results.reasons, ["lost: 4 (limit: 0); ids: r-0-0-0, r-0-0-1, r-0-0-2, …"]);
    }

    #[test]
    fn what_is_wrong_is_placed_on_its_connections() {
        let on = |index: u32, edit: fn(&mut ConnectionSummary)| {
            let mut connection = ConnectionSummary {
                connection: index,
                due: 10,
                counts: crate::ledger::Counts { sent: 10, answered: 10, ..Default::default() },
                achieved: 10,
                latency_p95_at_most_us: None,
            };
            edit(&mut connection);
            connection
        };
        let results = judged(
            |results| {
                let counts = &mut results.messages.counts;
                (counts.lost, counts.reordered, counts.foreign, counts.duplicates) = (1, 4, 1, 3);
                results.messages.reorder_distance_max = 2;
                let messages = &mut results.messages;
                messages.missing_ids = vec!["r-0-9-4".to_owned()];
                messages.reordered_ids = [1, 2, 3, 4].map(|n| format!("r-0-2-{n}")).to_vec();
                messages.duplicate_ids = vec!["r-0-5-6".to_owned(), "r-0-7-0".to_owned()];
                messages.foreign_ids = vec!["r-0-8-11".to_owned()];
                messages.counts.corrupted = 1;
                messages.corrupted_ids = vec!["r-0-3-5".to_owned()];
                results.unmatched = [
                    (UnmatchedKind::Unattributed, "never mind"),
                    (UnmatchedKind::Foreign, "{\"id\":\"who?\"}\n"),
                    (UnmatchedKind::Foreign, &*"é".repeat(101)),
                ]
                .map(|(kind, text)| Unmatched { t_s: 0.0, connection: 8, kind, text: text.to_owned() })
                .to_vec();
                results.per_connection = vec![
                    on(2, |c| c.counts.reordered = 1),
                    on(3, |c| c.counts.corrupted = 1),
                    on(5, |c| (c.counts.reordered, c.counts.duplicates) = (1, 2)),
                    on(7, |c| (c.counts.reordered, c.counts.duplicates) = (1, 1)),
                    on(8, |c| (c.counts.reordered, c.counts.foreign) = (1, 1)),
                    on(9, |c| c.counts.lost = 1),
                ];
            },
            &[],
        );
        let evidence = |name: &str| &results.criteria.iter().find(|c| c.name == name).unwrap().evidence;
        assert_eq!(*evidence("lost"), ["on connection 9, ids: r-0-9-4"]);
        assert_eq!(
            *evidence("reordered"),
            ["on connections 2, 5, 7, …, by up to 2 places, ids: r-0-2-1, r-0-2-2, r-0-2-3, …"]
        );
        assert_eq!(*evidence("duplicates"), ["on connections 5, 7, ids: r-0-5-6, r-0-7-0"]);
        let foreign = r#"on connection 8, ids: r-0-8-11, as they came: {"id":"who?"}\n "#;
        assert_eq!(*evidence("foreign"), [format!("{foreign}{}…", "é".repeat(100))]);
        assert_eq!(*evidence("corrupted"), ["on connection 3, ids: r-0-3-5"]);
    }

    #[test]
    fn only_the_loads_that_lack_connections_are_named() {
        let (whole, mut short) = (example::clean(), example::clean());
        short.connections.dropped = 1;
        short.connections.reasons = [("reset".to_owned(), 1)].into();
        let outcome = connections_over(&[("whole", &whole), ("short", &short)]);
        assert_eq!(
            (outcome.verdict, &*outcome.evidence),
            (Verdict::Fail, &["at short: 1 × reset".to_owned()][..])
        );
    }

    #[test]
    fn what_speaks_for_the_server_is_said_where_there_is_such() {
        let evidence = |refused, unsent| {
            let results = judged(
                |results| {
                    results.throughput.achieved_rate = 1.0;
                    (results.messages.counts.refused, results.messages.unsent) = (refused, unsent);
                },
                &[],
            );
            results.criteria.into_iter().find(|c| c.name == "achieved_rate").unwrap().evidence
        };
        assert_eq!(evidence(0, 0), [""; 0]);
        assert_eq!(evidence(1, 2), ["the server refused 1 messages", "2 messages were never sent"]);
    }

    #[test]
    fn an_open_loop_that_does_not_say_what_it_offered_fails() {
        let results = judged(
            |results| {
                results.throughput.offered_rate = None;
                results.resources.foreign_cpu_cores = Some(2.0);
            },
            &[],
        );
        assert_eq!((failed(&results), results.verdict), (vec!["achieved_rate"], Verdict::Fail));
    }

    #[test]
    fn every_connection_counts() {
        let dropped = judged(|results| results.connections.dropped = 1, &[]);
        assert_eq!(failed(&dropped), ["connections"]);
        let refused = judged(|results| results.connections.established = 9, &[]);
        assert_eq!(failed(&refused), ["connections"]);
    }

    /// 3 of 10 connections that the generator had no open files for, and what came beside.
    fn starved(edit: fn(&mut LoadTestResults), latencies: &[&str]) -> LoadTestResults {
        let latencies: Vec<LatencyLimit> = latencies.iter().map(|limit| limit.parse().unwrap()).collect();
        let edit = |results: &mut LoadTestResults| {
            example::starve(results, 3);
            edit(results);
            results.measure();
        };
        judged(edit, &latencies)
    }

    fn named(results: &LoadTestResults, verdict: Verdict) -> Vec<&str> {
        results.criteria.iter().filter(|c| c.verdict == verdict).map(|c| &*c.name).collect()
    }

    #[test]
    fn what_the_generator_did_not_open_is_no_fault_of_the_server() {
        let results = starved(|_| {}, &["p50=50ms", "p99=500ms"]);
        assert_eq!(results.verdict, Verdict::Inconclusive);
        // The median is one of what was answered, the P99 is not.
        assert_eq!(named(&results, Verdict::Inconclusive), ["connections", "achieved_rate", "latency_p99"]);
        assert_eq!((failed(&results).len(), results.reasons.len()), (3, 3));
        let why = "the generator ran out of open files (EMFILE): it did not open 3 of 10 connections";
        assert!(results.reasons.iter().all(|reason| reason.ends_with(why)), "{:?}", results.reasons);

        let mut drained = example::clean();
        example::starve(&mut drained, 3);
        judge_drained(&mut drained);
        assert_eq!(named(&drained, Verdict::Inconclusive), ["connections", "unanswered"]);
        assert_eq!(named(&drained, Verdict::Fail), [""; 0]);
    }

    #[test]
    fn what_the_server_did_beside_what_the_generator_did_not_fails_all_the_same() {
        type Edit = fn(&mut LoadTestResults);
        let refuse: Edit = |r| (r.connections.established, r.connections.refused) = (6, 1);
        let unanswered: Edit = |r| {
            // Of the 7,000 that were offered more than one in a hundred.
            r.messages.counts.answered -= 100;
            r.messages.counts.refused += 100;
        };
        let cases: [(Edit, &[&str]); 5] = [
            (refuse, &["connections"]),
            (|r| r.connections.dropped = 1, &["connections"]),
            (|r| r.messages.counts.lost = 1, &["lost"]),
            (|r| r.messages.counts.duplicates = 1, &["duplicates"]),
            (unanswered, &["latency_p99"]),
        ];
        for (edit, expected) in cases {
            let results = starved(edit, &["p99=500ms"]);
            assert_eq!((named(&results, Verdict::Fail), results.verdict), (expected.to_vec(), Verdict::Fail));
        }
        let mut drained = example::clean();
        example::starve(&mut drained, 3);
        drained.messages.unsent += 1;
        drained.messages.due += 1;
        judge_drained(&mut drained);
        assert_eq!(named(&drained, Verdict::Fail), ["unanswered"]);
    }

    #[test]
    fn the_achieved_rate_must_reach_99_percent() {
        let at = |achieved| judged(|results| results.throughput.achieved_rate = achieved, &[]);
        assert_eq!(at(990.0).verdict, Verdict::Pass);
        assert_eq!((failed(&at(989.9)), at(989.9).verdict), (vec!["achieved_rate"], Verdict::Fail));
    }

    #[test]
    fn a_percentile_must_stay_under_its_limit() {
        let limited = |text: &str| judged(|_| {}, &[text.parse().unwrap()]).verdict;
        // The example answers after 1 ms, which the histogram rounds up by less than 0.1 %.
        assert_eq!(limited("p99=1.002ms"), Verdict::Pass);
        assert_eq!(limited("p99=1ms"), Verdict::Fail);
    }

    #[test]
    fn a_percentile_among_the_unanswered_fails_whatever_the_machine_did() {
        let results = judged(
            |results| {
                results.messages.counts.answered = 9_000;
                results.messages.counts.refused = 1_000;
                results.resources.foreign_cpu_cores = Some(2.0);
                results.measure();
            },
            &["p95=10s".parse().unwrap()],
        );
        assert_eq!((failed(&results), results.verdict), (vec!["latency_p95"], Verdict::Fail));
        assert!(results.reasons[0].contains("1,000 messages without an answer"), "{:?}", results.reasons);
    }

    #[test]
    fn a_failed_timing_is_inconclusive_where_the_generator_or_the_machine_may_be_why() {
        type Edit = fn(&mut LoadTestResults);
        let doubtful: [(&str, Edit, Edit); 3] = [
            (
                "other processes",
                |r| r.resources.foreign_cpu_cores = Some(0.11),
                |r| r.resources.foreign_cpu_cores = Some(0.10),
            ),
            ("was late", |r| set_lateness(r, 50_001.0), |r| set_lateness(r, 49_999.0)),
            (
                "busiest worker",
                |r| r.resources.busiest_worker_cores = Some(0.96),
                |r| r.resources.busiest_worker_cores = Some(0.94),
            ),
        ];
        for (why, doubt, sure) in doubtful {
            let slow = |edit: Edit| {
                judged(
                    move |results| {
                        results.throughput.achieved_rate = 500.0;
                        edit(results);
                    },
                    &[],
                )
            };
            let results = slow(doubt);
            assert_eq!(results.verdict, Verdict::Inconclusive, "{why}");
            assert!(results.reasons[0].contains(why), "{:?}", results.reasons);
            assert_eq!(slow(sure).verdict, Verdict::Fail, "{why}");
        }
    }

    fn set_lateness(results: &mut LoadTestResults, p99_us: f64) {
        let lateness = results.send_lateness_us.take().unwrap();
        results.send_lateness_us = Some(LatencyMeasurement { p99: Some(p99_us), ..lateness });
    }

    #[test]
    fn a_server_that_does_not_read_is_named_and_not_excused() {
        let results = judged(
            |results| {
                results.throughput.achieved_rate = 500.0;
                results.blocked_sends.messages = 3;
                results.blocked_sends.max_us = 1e6;
            },
            &[],
        );
        assert_eq!(results.verdict, Verdict::Fail);
        assert!(results.reasons[0].contains("the server did not read"), "{:?}", results.reasons);
    }

    #[test]
    fn a_closed_loop_is_limited_by_its_latency_from_the_send() {
        let closed = |text: &str| {
            let edit = |results: &mut LoadTestResults| {
                results.workload.rate = None;
                results.throughput.offered_rate = None;
                results.measure();
            };
            judged(edit, &[text.parse().unwrap()]).verdict
        };
        assert_eq!(closed("p50=0.95ms"), Verdict::Pass);
        assert_eq!(closed("p50=0.9ms"), Verdict::Fail);
    }

    #[test]
    fn limits_read_as_written() {
        for text in ["p99", "p98=1s", "p99=0", "p99=-1s", "=1s", "p99=fast"] {
            assert!(text.parse::<LatencyLimit>().is_err(), "{text}");
        }
        assert_eq!("p999=2s".parse::<LatencyLimit>().unwrap().to_string(), "p999=2.00 s");
    }
}
