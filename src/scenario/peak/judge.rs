//! What must hold over the whole search: the rate, the counts of the confirming runs, the burst.

use super::super::criteria::{none_of, shown, told};
use super::super::load::{connections_over, counting_over, without_a_word};
use super::{BURST, CONFIRM};
use crate::config::HighVolumeConfig;
use crate::result::peak::{LimitingSide, PeakResults, RateTry};
use crate::result::{CriterionOutcome, LoadTestResults, Verdict};
use crate::units;

/// The criteria over what was found.
pub(super) fn criteria(config: &HighVolumeConfig, found: &PeakResults) -> Vec<CriterionOutcome> {
    let mut runs = confirming_runs(found);
    let burst = found.runs.iter().find(|run| run.phase == BURST);
    runs.extend(burst.map(|burst| (BURST, &burst.run)));
    let mut criteria = vec![peak_rate(config, found)];
    // What did not take place has no counts: ended early, that is said by the criterion above.
    if !runs.is_empty() {
        criteria.extend(counting_over(&runs));
        criteria.push(connections_over(&runs));
    }
    if let Some(burst) = burst {
        criteria.push(CriterionOutcome { name: "burst_unanswered".to_owned(), ..without_a_word(&burst.run) });
    }
    criteria.extend(told_of(found));
    let missing = missing(found);
    if !missing.is_empty() {
        criteria.push(none_of("missing_phases", missing.len() as u64, missing));
    }
    criteria
}

/// The loads whose counts should be judged and are not there: what was not looked at does not pass.
fn missing(found: &PeakResults) -> Vec<String> {
    let is_there = |phase: &str| found.runs.iter().any(|run| run.phase == phase);
    let confirming = found.tries.iter().map(|tried| &*tried.phase).filter(|phase| phase.starts_with(CONFIRM));
    // Ended early, there may have been no time for it.
    let burst = (!found.interrupted).then_some(BURST);
    let missing = confirming.chain(burst).filter(|phase| !is_there(phase));
    missing.map(|phase| format!("no evidence of phase `{phase}`")).collect()
}

/// What kept the rate from being higher: the side that did so in the tries at the lowest rate that did not hold. One that
/// is sure decides; `ceiling` where every rate held.
pub(super) fn limiting_side(
    tries: &[RateTry],
    confirmed: Option<f64>,
    ended_early: bool,
) -> Option<LimitingSide> {
    let bound = bounding(tries, confirmed);
    let sides = || bound.iter().filter_map(|tried| tried.limiting_side);
    if sides().any(|side| side == LimitingSide::Server) {
        return Some(LimitingSide::Server);
    }
    sides().next_back().or((!ended_early).then_some(LimitingSide::Ceiling))
}

/// The tries that did not hold at the lowest such rate above the one that was confirmed. A try of the search that failed
/// once, and held when it was tried again, bounds nothing.
pub(super) fn bounding(tries: &[RateTry], confirmed: Option<f64>) -> Vec<&RateTry> {
    let of_search = |tried: &RateTry| !tried.phase.starts_with(CONFIRM);
    let held_again = |tried: &RateTry| {
        let mut others = tries.iter().filter(|other| of_search(other) && other.rate == tried.rate);
        of_search(tried) && others.any(|other| other.verdict == Verdict::Pass)
    };
    let above = |tried: &&RateTry| {
        matches!(tried.verdict, Verdict::Fail | Verdict::Inconclusive)
            && confirmed.is_none_or(|rate| tried.rate > rate)
            && !held_again(tried)
    };
    let lowest = tries.iter().filter(above).map(|tried| tried.rate).fold(f64::INFINITY, f64::min);
    tries.iter().filter(above).filter(|tried| tried.rate <= lowest).collect()
}

/// The runs whose counts are judged: those at the confirmed rate, or all confirming runs where none was.
fn confirming_runs(found: &PeakResults) -> Vec<(&str, &LoadTestResults)> {
    let rate = found.peak.map(|peak| peak.rate);
    let counts =
        |tried: &&RateTry| tried.phase.starts_with(CONFIRM) && rate.is_none_or(|rate| tried.rate == rate);
    let named = |tried: &RateTry| found.runs.iter().find(|run| run.phase == tried.phase);
    let runs = found.tries.iter().filter(counts).filter_map(named);
    runs.map(|run| (&*run.phase, &run.run)).collect()
}

/// At least the required rate, at the lower end of the interval: with a few repeats, in each of them. Where it is not
/// reached, the generator or the machine may be why: then it is inconclusive.
fn peak_rate(config: &HighVolumeConfig, found: &PeakResults) -> CriterionOutcome {
    let least = config.limits.peak_rate;
    let holds = found.peak.is_some_and(|peak| peak.interval.lower >= least.as_per_second());
    let verdict = match found.limiting_side {
        _ if holds => Verdict::Pass,
        _ if found.peak.is_none() && found.interrupted => Verdict::Skipped,
        Some(LimitingSide::Generator | LimitingSide::Machine) => Verdict::Inconclusive,
        _ => Verdict::Fail,
    };
    let mut evidence = Vec::new();
    if verdict == Verdict::Skipped {
        evidence.push("ended before a rate was confirmed".to_owned());
    } else if !holds {
        evidence.extend(found.limiting_side.map(|side| format!("limited by the {side}")));
        let bound = bounding(&found.tries, found.peak.map(|peak| peak.rate));
        evidence.extend(bound.iter().filter_map(|tried| {
            Some(format!("at {}: {}", units::per_second(tried.rate), tried.reasons.first()?))
        }));
        // Both tries of a rate mostly end alike.
        evidence.dedup();
    }
    CriterionOutcome {
        name: "peak_rate".to_owned(),
        limit: format!("at least {} for {}", least, units::span(config.peak.confirm)),
        measured: shown(found.peak, |peak| peak.to_string()),
        verdict,
        evidence,
    }
}

/// What is told, and cannot fail.
fn told_of(found: &PeakResults) -> Vec<CriterionOutcome> {
    let told = |name, measured| told(name, measured, None);
    let side = shown(found.limiting_side, |side| side.to_string());
    let above = found.peak.and_then(|peak| peak.not_held_rate);
    let above = above.map(|rate| format!(", {} did not hold", units::per_second(rate))).unwrap_or_default();
    let capacity = found.fitted_capacity.map(units::per_second);
    let mut criteria = vec![
        told("limiting_side", format!("{side}{above}")),
        told("fitted_capacity", capacity.unwrap_or_else(|| "beyond what was tried".to_owned())),
    ];
    criteria.extend(found.burst.map(|burst| {
        let drain = shown(burst.drain_s, |seconds| units::latency_us(seconds * 1e6));
        let refused = match burst.refused {
            0 => String::new(),
            refused => format!(", {} refused", units::count(refused)),
        };
        told("burst_drain", format!("{drain} for {} messages{refused}", units::count(burst.due)))
    }));
    criteria
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{assert_fails, named, run};
    use super::super::{burst_results, figure};
    use super::*;
    use crate::config::Profile;
    use crate::result::PhaseRun;

    fn try_of(phase: &str, rate: f64, side: Option<LimitingSide>) -> RateTry {
        let verdict = match side {
            None => Verdict::Pass,
            Some(LimitingSide::Server) => Verdict::Fail,
            Some(_) => Verdict::Inconclusive,
        };
        RateTry {
            phase: phase.to_owned(),
            rate,
            verdict,
            reasons: side
                .map(|_| "latency_p50: 60.0 ms (limit: under 50.0 ms)".to_owned())
                .into_iter()
                .collect(),
            limiting_side: side,
            achieved_rate: rate,
            served_rate: rate,
            latency_p50_us: None,
            latency_p99_us: None,
            backlog_s: None,
            client_cores: None,
            busiest_worker_cores: None,
            server_cores: None,
            foreign_cores: None,
            send_lateness_p99_us: None,
        }
    }

    /// A search that ended at `rate`, because of `side` above it; confirmed three times unless it is 0.
    fn found(rate: f64, side: LimitingSide, edit: impl FnOnce(&mut PeakResults)) -> Vec<CriterionOutcome> {
        let confirms = ["confirm-1-1", "confirm-1-2", "confirm-1-3"];
        let mut tries =
            vec![try_of("search-01", 20_000.0, Some(side)), try_of("search-02", 20_000.0, Some(side))];
        if side == LimitingSide::Ceiling {
            tries.clear();
        }
        let mut runs = Vec::new();
        if rate > 0.0 {
            for phase in confirms {
                tries.push(try_of(phase, rate, None));
                runs.push(PhaseRun { phase: phase.to_owned(), run: run(rate, 100) });
            }
        }
        let mut burst = run(1e6, 100);
        burst.offered_for_s = 0.01;
        burst.moments.last_answer_s = Some(0.11);
        runs.push(PhaseRun { phase: BURST.to_owned(), run: burst.clone() });
        let peak = (rate > 0.0).then(|| figure(rate, &[rate, rate, rate], &tries)).flatten();
        let mut found = PeakResults {
            schema: String::new(),
            verdict: Verdict::Pass,
            reasons: Vec::new(),
            interrupted: false,
            profile: "full".to_owned(),
            connections: 100,
            limiting_side: limiting_side(&tries, peak.map(|peak| peak.rate), false),
            peak,
            fitted_capacity: None,
            tries,
            burst: Some(burst_results(&burst)),
            criteria: Vec::new(),
            runs,
            environment: burst.environment,
        };
        edit(&mut found);
        criteria(&HighVolumeConfig::for_profile(Profile::Full), &found)
    }

    fn measured<'a>(criteria: &'a [CriterionOutcome], name: &str) -> &'a CriterionOutcome {
        criteria.iter().find(|criterion| criterion.name == name).unwrap()
    }

    #[test]
    fn a_try_that_held_when_it_was_tried_again_bounds_nothing() {
        let failed = |phase| try_of(phase, 20_000.0, Some(LimitingSide::Server));
        let held = |phase| try_of(phase, 20_000.0, None);
        let bound = |tries: &[RateTry]| {
            bounding(tries, Some(10_000.0)).iter().map(|tried| tried.phase.clone()).collect::<Vec<_>>()
        };
        assert_eq!(bound(&[failed("search-01"), failed("search-02")]), ["search-01", "search-02"]);
        assert_eq!(bound(&[failed("search-01"), held("search-02")]), [""; 0]);
        // One of several repeats failed: so the rate is not confirmed.
        assert_eq!(bound(&[failed("confirm-1-1"), held("confirm-1-2"), held("search-01")]), ["confirm-1-1"]);
    }

    #[test]
    fn ten_thousand_must_be_confirmed() {
        let at = |rate| found(rate, LimitingSide::Server, |_| {});
        let enough = at(10_000.0);
        assert_eq!(named(&enough, Verdict::Pass).len(), enough.len(), "{enough:#?}");
        let short = at(9_999.0);
        assert_fails(&short, &["peak_rate"]);
        let evidence = &measured(&short, "peak_rate").evidence;
        let why = "at 20,000 msg/s: latency_p50: 60.0 ms (limit: under 50.0 ms)";
        assert_eq!(*evidence, ["limited by the server", why]);
        assert_fails(&at(0.0), &["peak_rate"]);
    }

    #[test]
    fn each_repeat_must_reach_it() {
        let criteria = found(10_000.0, LimitingSide::Server, |found| {
            found.peak = figure(10_000.0, &[10_000.0, 9_999.0, 10_000.0], &found.tries);
        });
        assert_fails(&criteria, &["peak_rate"]);
    }

    #[test]
    fn a_limit_that_is_not_the_servers_is_inconclusive() {
        for side in [LimitingSide::Generator, LimitingSide::Machine] {
            for rate in [0.0, 9_999.0] {
                let criteria = found(rate, side, |_| {});
                assert_eq!(named(&criteria, Verdict::Inconclusive), ["peak_rate"], "{side} at {rate}");
                assert_eq!(named(&criteria, Verdict::Fail), [""; 0]);
            }
            assert_fails(&found(10_000.0, side, |_| {}), &[]);
        }
        let ceiling = found(10_000.0, LimitingSide::Ceiling, |_| {});
        assert_eq!(measured(&ceiling, "limiting_side").measured, "ceiling");
    }

    #[test]
    fn one_message_fails_its_criterion_in_a_confirming_run_and_in_the_burst() {
        type Edit = fn(&mut LoadTestResults);
        let edits: [(&str, Edit); 6] = [
            ("lost", |run| run.messages.counts.lost = 1),
            ("reordered", |run| run.messages.counts.reordered = 1),
            ("duplicates", |run| run.messages.counts.duplicates = 1),
            ("foreign", |run| run.messages.counts.foreign = 1),
            ("corrupted", |run| run.messages.counts.corrupted = 1),
            ("connections", |run| run.connections.dropped = 1),
        ];
        for (name, edit) in edits {
            for place in [0, 3] {
                let criteria =
                    found(10_000.0, LimitingSide::Server, |found| edit(&mut found.runs[place].run));
                assert_fails(&criteria, &[name]);
            }
        }
    }

    #[test]
    fn what_the_search_lost_on_its_way_is_not_counted() {
        // At another rate, and at the confirmed one, before it was to be confirmed.
        for rate in [20_000.0, 10_000.0] {
            let criteria = found(10_000.0, LimitingSide::Server, |found| {
                let mut lossy = run(rate, 100);
                lossy.messages.counts.lost = 7;
                found.tries.push(try_of("search-03", rate, Some(LimitingSide::Server)));
                found.runs.push(PhaseRun { phase: "search-03".to_owned(), run: lossy });
            });
            assert_eq!(measured(&criteria, "lost").measured, "0", "{rate}");
        }
    }

    #[test]
    fn the_counts_are_those_of_the_loads_that_confirm() {
        let lost_at = |place: usize| {
            found(10_000.0, LimitingSide::Server, |found| found.runs[place].run.messages.counts.lost += 1)
        };
        for (place, phase) in ["confirm-1-1", "confirm-1-2", "confirm-1-3"].into_iter().enumerate() {
            let lost = lost_at(place);
            assert_fails(&lost, &["lost"]);
            let evidence = &measured(&lost, "lost").evidence;
            assert!(evidence[0].starts_with(&format!("1 at {phase}")), "{evidence:?}");
        }
    }

    #[test]
    fn the_burst_may_be_refused_but_not_forgotten() {
        let burst = |edit: fn(&mut LoadTestResults)| {
            found(10_000.0, LimitingSide::Server, |found| {
                let run = &mut found.runs[3].run;
                run.messages.counts.answered -= 1;
                edit(run);
            })
        };
        assert_fails(&burst(|run| run.messages.counts.refused = 1), &[]);
        let unsent = burst(|run| run.messages.unsent = 1);
        assert_fails(&unsent, &["burst_unanswered"]);
        assert_eq!(measured(&unsent, "burst_unanswered").evidence, ["unsent 1, lost 0"]);
        assert_fails(&burst(|run| run.messages.counts.lost = 1), &["lost", "burst_unanswered"]);
        assert_eq!(measured(&unsent, "burst_drain").measured, "100 ms for 10,000 messages");
    }

    #[test]
    fn what_the_generator_did_not_open_of_the_burst_is_no_fault_of_the_server() {
        let burst = |edit: fn(&mut LoadTestResults)| {
            let mut criteria = Vec::new();
            found(10_000.0, LimitingSide::Server, |found| {
                crate::result::example::starve(&mut found.runs[3].run, 2);
                edit(&mut found.runs[3].run);
                criteria = super::super::criteria(&HighVolumeConfig::default(), found);
            });
            criteria
        };
        let starved = burst(|_| {});
        assert_eq!(
            named(&starved, Verdict::Inconclusive),
            ["connections", "burst_unanswered"],
            "{starved:#?}"
        );
        assert_eq!(named(&starved, Verdict::Fail), [""; 0]);
        let told = "at burst: the generator ran out of open files";
        assert!(measured(&starved, "burst_unanswered").evidence[0].starts_with(told), "{starved:#?}");
        let forgotten = burst(|run| run.messages.counts.answered -= 1);
        assert_eq!(named(&forgotten, Verdict::Fail), ["burst_unanswered"]);
    }

    #[test]
    fn a_load_that_is_not_there_passes_nothing() {
        let without =
            |place: usize| found(10_000.0, LimitingSide::Server, |found| drop(found.runs.remove(place)));
        for (place, phase) in [(1, "confirm-1-2"), (3, "burst")] {
            let criteria = without(place);
            assert_fails(&criteria, &["missing_phases"]);
            let missing = &measured(&criteria, "missing_phases").evidence;
            assert_eq!(*missing, [format!("no evidence of phase `{phase}`")]);
        }
        assert_fails(&found(10_000.0, LimitingSide::Server, |found| found.runs.clear()), &["missing_phases"]);
    }

    #[test]
    fn what_was_ended_early_is_not_judged() {
        let criteria = found(0.0, LimitingSide::Server, |found| {
            found.interrupted = true;
            found.runs.clear();
            found.burst = None;
        });
        assert_eq!(named(&criteria, Verdict::Skipped), ["peak_rate"]);
        assert_eq!(named(&criteria, Verdict::Fail), [""; 0]);
    }

    #[test]
    fn the_lowest_rate_that_did_not_hold_says_what_limits() {
        let tries = [
            try_of("a", 1_000.0, None),
            try_of("b", 4_000.0, Some(LimitingSide::Generator)),
            try_of("c", 2_000.0, Some(LimitingSide::Server)),
            try_of("d", 2_000.0, Some(LimitingSide::Machine)),
            try_of("e", 1_500.0, Some(LimitingSide::Machine)),
        ];
        // What failed below the confirmed rate was a hiccup: it held there later.
        assert_eq!(limiting_side(&tries, Some(1_500.0), false), Some(LimitingSide::Server));
        assert_eq!(limiting_side(&tries, Some(2_000.0), false), Some(LimitingSide::Generator));
        assert_eq!(limiting_side(&tries, None, false), Some(LimitingSide::Machine));
        assert_eq!(limiting_side(&tries[..1], Some(1_000.0), false), Some(LimitingSide::Ceiling));
        assert_eq!(limiting_side(&tries[..1], None, true), None);
    }
}
