//! Case 4: does an overloaded service say so, refuse in order, and recover?

use std::time::Duration;

use super::comparison::{p95_as_before, rate_as_before};
use super::criteria::{Timed, counted, needs_all, skipped};
use super::load::{connections_over, counting_over};
use super::{Body, Case, Need, flag, workload};
use crate::config::HighVolumeConfig;
use crate::dialect::DialectKind;
use crate::message::Priority;
use crate::record::WindowSummary;
use crate::result::{CriterionOutcome, LoadTestResults};
use crate::run::plan::{Action, Evidence, Phase, Plan};
use crate::run::scene::{Load, Scene, SceneEvidence};
use crate::units;
use crate::workload::{Offered, Workload};

pub(super) const CASE: Case = Case {
    name: "backpressure",
    question: "does an overloaded service say so, refuse in order, and recover?",
    needs: &[Need::Statistics, Need::Refusals, Need::Priorities],
    body: Body::Planned { plan, judge },
};

const NORMAL: &str = "overload.normal";
const HIGH: &str = "overload.high";

fn plan(config: &HighVolumeConfig) -> Plan {
    let case = &config.backpressure;
    // The overload is a number of messages, and begins at once.
    let ramp = Duration::ZERO;
    let common = Workload { answer_timeout: case.answer_timeout, ramp, ..workload(config) };
    let baseline = Workload {
        offered: Offered::Rate(case.baseline_rate),
        connections: case.connections,
        duration: case.baseline,
        ..common.clone()
    };
    let overload = Workload {
        offered: Offered::Rate(case.rate),
        connections: case.connections,
        duration: Duration::from_secs_f64(case.messages as f64 / case.rate.as_per_second()),
        ..common
    };
    let high = Workload {
        offered: Offered::Rate(case.priority_rate),
        connections: case.priority_connections,
        ..overload.clone()
    };
    let scene = Scene {
        loads: vec![
            Load::new(NORMAL, overload),
            Load { priority: Some(Priority::High), ..Load::new(HIGH, high) },
        ],
        in_flight_mark: Some(full(config)),
        watch_queue: true,
        ..Scene::default()
    };
    Plan {
        server_args: vec![
            flag("processing-delay", case.processing),
            format!("--concurrency={}", case.concurrency),
            format!("--queue-capacity={}", case.queue_threshold),
        ],
        phases: vec![
            Phase::new("before", Action::Load(baseline.clone())),
            Phase::new("overload", Action::Scene(scene)),
            Phase::new("after", Action::Load(baseline)),
        ],
        ..Plan::default()
    }
}

/// With so many messages in flight, the queue must be full.
fn full(config: &HighVolumeConfig) -> u64 {
    config.backpressure.queue_threshold + u64::from(config.backpressure.concurrency)
}

fn judge(config: &HighVolumeConfig, evidence: &Evidence) -> Vec<CriterionOutcome> {
    let mut criteria = Vec::new();
    if let (Some(scene), Some(normal), Some(high)) =
        (evidence.scene("overload"), evidence.run(NORMAL), evidence.run(HIGH))
    {
        match untold(evidence, normal) {
            None => {
                criteria.push(overflow(config, scene, normal));
                criteria.push(signal(config, normal));
                criteria.push(threshold_to_signal(config, scene, normal));
                criteria.push(refusals_told(normal));
            }
            Some(why) => criteria.extend(OF_OVERFLOW.map(|name| skipped(name, "an overflow", why))),
        }
        criteria.extend(high_priority(config, evidence, normal, high));
        if scene.in_flight_reached_s.is_none() {
            // Fewer connections may not fill the queue, and then nothing is refused or overtaken.
            let by_overflow = |name: &str| OF_OVERFLOW.contains(&name) || name == "high_priority_first";
            let of_overflow = criteria.iter_mut().filter(|criterion| by_overflow(&criterion.name));
            of_overflow.for_each(|criterion| needs_all(criterion, &[normal]));
        }
        criteria.push(queue_empty(config, evidence, scene, [normal, high]));
    }
    if let (Some(before), Some(after)) = (evidence.run("before"), evidence.run("after")) {
        let (limits, own) = (&config.limits, &config.backpressure.limits);
        criteria.push(rate_as_before("after_rate", limits, before, after, own.achieved_change_ratio));
        criteria.push(p95_as_before("after_p95", limits, before, after, (own.p95_factor, own.p95_floor)));
    }
    let runs: Vec<_> = evidence.runs().collect();
    criteria.extend(counting_over(&runs));
    criteria.push(connections_over(&runs));
    criteria
}

const OF_OVERFLOW: [&str; 4] = ["overflow", "signal", "threshold_to_signal", "refusals_told"];

/// Why another's server shows nothing of an overflow: how long its queue is, is not for us to say.
fn untold(evidence: &Evidence, normal: &LoadTestResults) -> Option<&'static str> {
    let moments = &normal.moments;
    let silent = moments.first_refusal_s.is_none() && moments.first_backpressure_s.is_none();
    (!evidence.own_server && silent).then_some(
        "the target took it without a refusal or a signal: its queue is longer, or it has no way to say so",
    )
}

/// What becomes of the high-priority messages, where there are such and an overflow for them to overtake in.
fn high_priority(
    config: &HighVolumeConfig,
    evidence: &Evidence,
    normal: &LoadTestResults,
    high: &LoadTestResults,
) -> Vec<CriterionOutcome> {
    let limits = [("high_priority_served", "all"), ("high_priority_first", "under the normal P1")];
    let without = high.workload.dialect != DialectKind::Floodline.name();
    match untold(evidence, normal) {
        _ if without => {
            let why = format!("the dialect {} has no priorities", high.workload.dialect);
            limits.map(|(name, limit)| skipped(name, limit, &*why)).to_vec()
        }
        Some(why) => {
            let (first, limit) = limits[1];
            vec![high_priority_served(high), skipped(first, limit, why)]
        }
        None => vec![high_priority_served(high), high_priority_first(config, normal, high)],
    }
}

/// From the instant at which the queue must be full to the first refusal.
fn overflow(config: &HighVolumeConfig, scene: &SceneEvidence, normal: &LoadTestResults) -> CriterionOutcome {
    let limit = config.backpressure.limits.overflow_within;
    let full = units::count(full(config));
    let allowed = format!("at most {} after {full} in flight", units::span(limit));
    let missing =
        |why: &str| counted("overflow", allowed.clone(), "none".to_owned(), false, [why.to_owned()]);
    let Some(refused_s) = normal.moments.first_refusal_s else {
        return missing("nothing was refused");
    };
    let Some(full_s) = scene.in_flight_reached_s else {
        return missing("messages were refused, and there were never so many in flight");
    };
    let after_s = refused_s - full_s;
    let size = units::latency_us(after_s.abs() * 1e6);
    let timed = Timed {
        name: "overflow",
        limit: allowed,
        measured: Some(if after_s < 0.0 { format!("{size} before") } else { size }),
        // A refusal long before there was no room is not the answer to the overflow.
        holds: after_s.abs() <= limit.as_secs_f64(),
        lateness_limit: limit,
        evidence: vec![format!("full at {full_s:.3} s, first refusal at {refused_s:.3} s")],
    };
    timed.outcome(&config.limits, &[normal])
}

/// From the first refusal to the signal.
fn signal(config: &HighVolumeConfig, normal: &LoadTestResults) -> CriterionOutcome {
    let limit = config.backpressure.limits.signal_within;
    let allowed = format!("at most {} after the first refusal", units::span(limit));
    let (Some(refused_s), Some(signal_s)) =
        (normal.moments.first_refusal_s, normal.moments.first_backpressure_s)
    else {
        let why = "no `backpressure` came".to_owned();
        return counted("signal", allowed, "none".to_owned(), false, [why]);
    };
    let after_s = signal_s - refused_s;
    let timed = Timed {
        name: "signal",
        limit: allowed,
        measured: Some(units::latency_us(after_s.max(0.0) * 1e6)),
        holds: after_s <= limit.as_secs_f64(),
        lateness_limit: limit,
        evidence: vec![format!("first refusal at {refused_s:.3} s, signal at {signal_s:.3} s")],
    };
    timed.outcome(&config.limits, &[normal])
}

/// From the instant at which the queue must be full to the signal, whatever comes between: the shared limit.
fn threshold_to_signal(
    config: &HighVolumeConfig,
    scene: &SceneEvidence,
    normal: &LoadTestResults,
) -> CriterionOutcome {
    const NAME: &str = "threshold_to_signal";
    let limit = config.limits.backpressure_within;
    let allowed = format!("at most {} after {} in flight", units::span(limit), units::count(full(config)));
    let missing = |why: &str| counted(NAME, allowed.clone(), "none".to_owned(), false, [why.to_owned()]);
    let Some(full_s) = scene.in_flight_reached_s else {
        return missing("there were never so many messages in flight");
    };
    let Some(signal_s) = normal.moments.first_backpressure_s else {
        return missing("no `backpressure` came");
    };
    let after_s = signal_s - full_s;
    let timed = Timed {
        name: NAME,
        limit: allowed,
        measured: Some(units::latency_us(after_s.max(0.0) * 1e6)),
        holds: after_s <= limit.as_secs_f64(),
        lateness_limit: limit,
        evidence: vec![format!("full at {full_s:.3} s, signal at {signal_s:.3} s")],
    };
    timed.outcome(&config.limits, &[normal])
}

/// Whatever was not processed was refused by name: nothing is left without a word.
fn refusals_told(normal: &LoadTestResults) -> CriterionOutcome {
    let counts = &normal.messages.counts;
    let silent = normal.messages.due.saturating_sub(counts.answered + counts.refused);
    let measured =
        format!("{} refused, {} without a word", units::count(counts.refused), units::count(silent));
    let ids = normal.messages.missing_ids.iter().take(3).cloned();
    let holds = silent == 0 && counts.refused > 0;
    counted("refusals_told", "every one, and some".to_owned(), measured, holds, ids)
}

fn high_priority_served(high: &LoadTestResults) -> CriterionOutcome {
    let (due, answered) = (high.messages.due, high.messages.counts.answered);
    let limit = format!("all {}", units::count(due));
    let ids = high.messages.missing_ids.iter().take(3).cloned();
    counted("high_priority_served", limit, units::count(answered), answered == due && due > 0, ids)
}

/// High priority overtakes: in the seconds of the overflow its P99 is under the normal messages' P1. A second has some
/// hundred high-priority answers, of which the P99 is the slowest, so that is what is compared.
fn high_priority_first(
    config: &HighVolumeConfig,
    normal: &LoadTestResults,
    high: &LoadTestResults,
) -> CriterionOutcome {
    const NAME: &str = "high_priority_first";
    let missing = |why: &str| {
        let limit = "under the normal P1".to_owned();
        counted(NAME, limit, "none".to_owned(), false, [why.to_owned()])
    };
    let Some(from_s) = normal.moments.first_refusal_s else {
        return missing("there was no overflow to overtake in");
    };
    let during = |window: &&WindowSummary| {
        (window.t_s + 1) as f64 > from_s && (window.t_s as f64) < normal.offered_for_s
    };
    let normal_p01_us = normal.windows.iter().filter(during).filter_map(|window| window.latency_p01_us);
    // Where one load started later, its seconds are others.
    let later_s = starts_later_s(normal, high).round() as i64;
    let high_max_us = high.windows.iter().filter(|window| {
        let t_s = window.t_s.saturating_add_signed(later_s);
        during(&&WindowSummary { t_s, ..(*window).clone() })
    });
    let high_max_us = high_max_us.filter_map(|window| window.latency_max_us);
    let Some(normal_us) = normal_p01_us.min_by(f64::total_cmp) else {
        return missing("no normal message was answered in the overflow");
    };
    let Some(high_us) = high_max_us.max_by(f64::total_cmp) else {
        return missing("no high-priority message was answered in the overflow");
    };
    let timed = Timed {
        name: NAME,
        limit: format!("under the normal P1, {}", units::latency_us(normal_us)),
        measured: Some(units::latency_us(high_us)),
        holds: high_us < normal_us,
        lateness_limit: Duration::from_secs_f64(normal_us / 1e6),
        evidence: Vec::new(),
    };
    timed.outcome(&config.limits, &[normal, high])
}

/// How much later the one load started than the other, in seconds.
fn starts_later_s(than: &LoadTestResults, run: &LoadTestResults) -> f64 {
    (run.started_at_unix_ns as f64 - than.started_at_unix_ns as f64) / 1e9
}

/// From the end of the load until nothing waits: by the server's own word where it gives it, and until the last answer.
fn queue_empty(
    config: &HighVolumeConfig,
    evidence: &Evidence,
    scene: &SceneEvidence,
    [normal, high]: [&LoadTestResults; 2],
) -> CriterionOutcome {
    let limit = config.limits.queue_recovery_within;
    let allowed = format!("at most {} after the load", units::span(limit));
    let end_s = normal.offered_for_s;
    // A series that broke off says nothing of the end.
    let told = if scene.stats_error.is_none() { &*scene.queue } else { &[] };
    if let Some(error) = scene.stats_error.as_ref().filter(|_| evidence.own_server) {
        return counted("queue_empty", allowed, "none".to_owned(), false, [error.clone()]);
    }
    let told_s = told.iter().rev().take_while(|sample| sample.depth == 0).last().map(|s| s.t_s);
    let still = told.last().filter(|sample| sample.depth > 0);
    if let Some(still) = still {
        let waiting = format!("{} still waiting", units::count(still.depth));
        let when = format!("{:.1} s after the load, when the last answer was in", still.t_s - end_s);
        return counted("queue_empty", allowed, waiting, false, [when]);
    }
    let of_high_s = high.moments.last_answer_s.map(|s| s + starts_later_s(normal, high));
    let last_s = normal.moments.last_answer_s.into_iter().chain(of_high_s);
    let empty_s = last_s.chain(told_s).max_by(f64::total_cmp).map(|s| (s - end_s).max(0.0));
    let timed = Timed {
        name: "queue_empty",
        limit: allowed,
        measured: empty_s.map(|s| units::latency_us(s * 1e6)),
        holds: empty_s.is_some_and(|s| s <= limit.as_secs_f64()),
        lateness_limit: limit,
        evidence: scene.stats_error.iter().map(|error| format!("by the answers alone: {error}")).collect(),
    };
    timed.outcome(&config.limits, &[normal])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_fails, judged, loaded, named, run, seen};
    use super::*;
    use crate::ledger::Counts;
    use crate::record::Window;
    use crate::result::{Moments, Verdict};
    use crate::run::plan::PhaseEvidence;
    use crate::run::scene::{NamedRun, QueueSample};

    struct Parts {
        before: LoadTestResults,
        after: LoadTestResults,
        normal: LoadTestResults,
        high: LoadTestResults,
        scene: SceneEvidence,
    }

    fn second(t_s: u64, p01_us: f64, max_us: f64) -> WindowSummary {
        let window = Window { index: t_s, ..Window::default() };
        WindowSummary {
            latency_p01_us: Some(p01_us),
            latency_max_us: Some(max_us),
            ..WindowSummary::of(&window)
        }
    }

    /// An overload of 7.5 s that is full after 6.7 s; 15,000 messages of which 1,250 are refused.
    fn clean() -> Parts {
        let baseline = || {
            let mut baseline = run(250.0, 100);
            baseline.latency_us.as_mut().unwrap().p95 = Some(102_000.0);
            baseline
        };
        let mut normal = run(2_000.0, 100);
        normal.offered_for_s = 7.5;
        normal.messages.due = 15_000;
        normal.messages.counts =
            Counts { sent: 15_000, answered: 13_750, refused: 1_250, ..Counts::default() };
        normal.moments = Moments {
            first_refusal_s: Some(6.75),
            first_backpressure_s: Some(6.76),
            last_answer_s: Some(27.4),
        };
        normal.windows = (0..28).map(|t_s| second(t_s, 1e6 * t_s as f64, 2e6 * t_s as f64)).collect();
        let mut high = run(100.0, 10);
        high.offered_for_s = 7.5;
        high.messages.due = 750;
        high.messages.counts = Counts { sent: 750, answered: 750, ..Counts::default() };
        high.windows = (0..8).map(|t_s| second(t_s, 100_000.0, 200_000.0)).collect();
        high.moments.last_answer_s = Some(7.6);
        let queue = |(t_s, depth)| QueueSample { t_s, depth };
        let scene = SceneEvidence {
            in_flight_reached_s: Some(6.7),
            queue: [(0.0, 0), (6.7, 10_000), (20.0, 3_000), (27.3, 0), (27.5, 0)].map(queue).to_vec(),
            ..SceneEvidence::default()
        };
        Parts { before: baseline(), after: baseline(), normal, high, scene }
    }

    fn with(edit: impl Fn(&mut Parts)) -> Vec<CriterionOutcome> {
        let mut parts = clean();
        edit(&mut parts);
        judged(&CASE, &evidence(parts))
    }

    fn evidence(parts: Parts) -> Evidence {
        let Parts { before, after, normal, high, mut scene } = parts;
        let named = |name: &str, run| NamedRun { name: name.to_owned(), run: Box::new(run) };
        scene.runs = vec![named(NORMAL, normal), named(HIGH, high)];
        let overload = PhaseEvidence { scene: Some(scene), ..PhaseEvidence::of("overload") };
        seen(vec![loaded("before", before), overload, loaded("after", after)])
    }

    #[test]
    fn a_service_that_says_so_passes_everything() {
        let criteria = with(|_| {});
        assert_eq!(named(&criteria, Verdict::Pass).len(), criteria.len(), "{criteria:#?}");
    }

    #[test]
    fn the_overflow_is_answered_within_500_ms() {
        let first = |s| {
            with(move |parts| {
                parts.normal.moments.first_refusal_s = Some(s);
                parts.normal.moments.first_backpressure_s = Some(s);
            })
        };
        assert_fails(&first(7.2), &[]);
        assert_fails(&first(7.201), &["overflow"]);
        // One that came long before had another reason.
        assert_fails(&first(6.2), &[]);
        assert_fails(&first(6.199), &["overflow"]);
        let never = with(|parts| parts.scene.in_flight_reached_s = None);
        assert_fails(&never, &["overflow", "threshold_to_signal"]);
        let said = |criteria: &[CriterionOutcome]| {
            let overflow = criteria.iter().find(|criterion| criterion.name == "overflow").unwrap();
            (overflow.limit.clone(), overflow.measured.clone())
        };
        // What waits, and what is in work.
        let limit = "at most 500 ms after 10,050 in flight".to_owned();
        assert_eq!(said(&first(6.75)), (limit.clone(), "50.0 ms".to_owned()));
        assert_eq!(said(&first(6.2)), (limit, "500 ms before".to_owned()));
    }

    #[test]
    fn the_signal_comes_within_100_ms() {
        let signal = |s| with(move |parts| parts.normal.moments.first_backpressure_s = s);
        assert_fails(&signal(Some(6.85)), &[]);
        let measured = signal(Some(6.80)).into_iter().find(|criterion| criterion.name == "signal").unwrap();
        assert_eq!(measured.measured, "50.0 ms");
        assert_fails(&signal(Some(6.851)), &["signal"]);
        assert_fails(&signal(None), &["signal", "threshold_to_signal"]);
        // Before the first refusal is no fault.
        assert_fails(&signal(Some(6.0)), &[]);
    }

    #[test]
    fn from_the_threshold_to_the_signal_it_takes_5_s_at_most() {
        let signal = |s| with(move |parts| parts.normal.moments.first_backpressure_s = Some(s));
        assert_fails(&signal(11.7), &["signal"]);
        assert_fails(&signal(11.701), &["signal", "threshold_to_signal"]);
        let found =
            signal(8.7).into_iter().find(|criterion| criterion.name == "threshold_to_signal").unwrap();
        assert_eq!(found.measured, "2.00 s");
    }

    #[test]
    fn one_message_without_a_word_is_too_many() {
        assert_fails(&with(|parts| parts.normal.messages.counts.refused -= 1), &["refusals_told"]);
    }

    #[test]
    fn a_service_that_refuses_nothing_has_said_nothing() {
        let criteria = with(|parts| {
            parts.normal.messages.counts.answered = 15_000;
            parts.normal.messages.counts.refused = 0;
            parts.normal.moments.first_refusal_s = None;
        });
        assert_fails(&criteria, &["overflow", "signal", "refusals_told", "high_priority_first"]);
    }

    #[test]
    fn an_overflow_that_the_generator_was_too_small_for_is_in_doubt() {
        let criteria = |edit: fn(&mut Parts)| {
            let mut parts = clean();
            crate::result::example::starve(&mut parts.normal, 40);
            // A queue that is never full: nothing is refused, and nothing is said.
            parts.normal.messages.counts.answered += parts.normal.messages.counts.refused;
            parts.normal.messages.counts.refused = 0;
            parts.normal.moments.first_refusal_s = None;
            parts.normal.moments.first_backpressure_s = None;
            parts.scene.in_flight_reached_s = None;
            edit(&mut parts);
            CASE.assess(&HighVolumeConfig::for_profile(crate::config::Profile::Full), &evidence(parts))
        };
        let doubted = criteria(|_| {});
        let of_overflow = [&OF_OVERFLOW[..], &["high_priority_first", "connections"]].concat();
        assert_eq!(named(&doubted, Verdict::Inconclusive), of_overflow, "{doubted:#?}");
        assert_eq!(named(&doubted, Verdict::Fail), [""; 0]);
        // One that was full all the same is judged as ever.
        let full = criteria(|parts| parts.scene.in_flight_reached_s = Some(6.7));
        let of_overflow =
            ["overflow", "signal", "threshold_to_signal", "refusals_told", "high_priority_first"];
        assert_eq!(named(&full, Verdict::Fail), of_overflow);
        let unserved = criteria(|parts| parts.high.messages.counts.answered -= 1);
        assert_eq!(named(&unserved, Verdict::Fail), ["high_priority_served"]);
    }

    #[test]
    fn high_priority_is_served_to_the_last() {
        assert_fails(&with(|parts| parts.high.messages.counts.answered -= 1), &["high_priority_served"]);
    }

    #[test]
    fn high_priority_overtakes_in_the_overflow() {
        // The first of the overflow's seconds has a normal P1 of 6 s.
        let slowest = |us| with(move |parts| parts.high.windows[7].latency_max_us = Some(us));
        assert_fails(&slowest(5_999_999.0), &[]);
        assert_fails(&slowest(6_000_000.0), &["high_priority_first"]);
        // Before the overflow nobody has to overtake.
        assert_fails(&with(|parts| parts.high.windows[3].latency_max_us = Some(9e6)), &[]);
        assert_fails(&with(|parts| parts.high.windows.clear()), &["high_priority_first"]);
    }

    #[test]
    fn the_queue_is_empty_within_30_s() {
        let empty = |s: f64| with(move |parts| parts.normal.moments.last_answer_s = Some(s));
        assert_fails(&empty(37.5), &[]);
        assert_fails(&empty(37.501), &["queue_empty"]);
        // It is empty from the first sample of the last that are so, even where the answers were in before.
        let by_samples = with(|parts| {
            parts.normal.moments.last_answer_s = Some(8.0);
            parts.high.moments.last_answer_s = None;
        });
        let found = by_samples.into_iter().find(|criterion| criterion.name == "queue_empty").unwrap();
        assert_eq!(found.measured, "19.8 s");
        // What has high priority counts too, from where it began: so much later by the clock.
        let of_high = |later_s: u64| {
            with(move |parts| {
                parts.high.moments.last_answer_s = Some(37.0);
                parts.high.started_at_unix_ns = parts.normal.started_at_unix_ns + later_s * 1_000_000_000 / 2;
            })
        };
        assert_fails(&of_high(1), &[]);
        assert_fails(&of_high(2), &["queue_empty"]);
        let found = of_high(1).into_iter().find(|criterion| criterion.name == "queue_empty").unwrap();
        assert_eq!(found.measured, "30.0 s");
        let told = with(|parts| parts.scene.queue[3] = QueueSample { t_s: 38.0, depth: 1 });
        assert_fails(&told, &[]);
        let late = with(|parts| parts.scene.queue[4] = QueueSample { t_s: 38.0, depth: 0 });
        assert_fails(&late, &[]);
        let kept = with(|parts| parts.scene.queue.push(QueueSample { t_s: 28.0, depth: 7 }));
        assert_fails(&kept, &["queue_empty"]);
    }

    #[test]
    fn another_server_that_signals_and_refuses_nothing_is_judged_all_the_same() {
        let mut parts = clean();
        parts.normal.messages.counts.answered = 15_000;
        parts.normal.messages.counts.refused = 0;
        parts.normal.moments.first_refusal_s = None;
        let criteria = judged(&CASE, &Evidence { own_server: false, ..evidence(parts) });
        assert!(named(&criteria, Verdict::Fail).contains(&"overflow"), "{criteria:#?}");
    }

    #[test]
    fn another_server_that_does_not_tell_its_queue_is_judged_by_its_answers() {
        let silent = |own_server, last_s: f64| {
            let mut parts = clean();
            // It broke off while the queue was full.
            parts.scene.queue.truncate(2);
            parts.scene.stats_error = Some("no stats".to_owned());
            parts.normal.moments.last_answer_s = Some(last_s);
            judged(&CASE, &Evidence { own_server, ..evidence(parts) })
        };
        assert_fails(&silent(false, 37.5), &[]);
        assert_fails(&silent(false, 37.6), &["queue_empty"]);
        assert_fails(&silent(true, 27.4), &["queue_empty"]);
    }

    #[test]
    fn another_server_that_shows_no_overflow_is_not_judged_by_it() {
        let quiet = |own_server, dialect: &str| {
            let mut parts = clean();
            (parts.normal.moments.first_refusal_s, parts.normal.moments.first_backpressure_s) = (None, None);
            parts.high.workload.dialect = dialect.to_owned();
            judged(&CASE, &Evidence { own_server, ..evidence(parts) })
        };
        let of_overflow = [&OF_OVERFLOW[..], &["high_priority_first"]].concat();
        assert_fails(&quiet(false, "floodline"), &[]);
        assert_eq!(named(&quiet(false, "floodline"), Verdict::Skipped), of_overflow);
        let priorities = ["high_priority_served", "high_priority_first"];
        assert_eq!(named(&quiet(false, "echo"), Verdict::Skipped), [&OF_OVERFLOW[..], &priorities].concat());
        // Our own server must show it.
        assert!(named(&quiet(true, "floodline"), Verdict::Fail).contains(&"overflow"));
    }

    #[test]
    fn a_load_that_started_later_is_placed_in_the_same_time() {
        let later = |edit: fn(&mut Parts)| {
            with(move |parts| {
                parts.high.started_at_unix_ns = parts.normal.started_at_unix_ns + 2_000_000_000;
                edit(parts);
            })
        };
        // Its second 3 is the overload's 5, before the overflow; its second 5 is the 7.
        assert_fails(&later(|parts| parts.high.windows[3].latency_max_us = Some(9e6)), &[]);
        let slow = later(|parts| parts.high.windows[5].latency_max_us = Some(9e6));
        assert_fails(&slow, &["high_priority_first"]);
        assert_fails(&later(|parts| parts.high.moments.last_answer_s = Some(35.501)), &["queue_empty"]);
    }

    #[test]
    fn afterwards_all_is_as_before() {
        let after = |rate: f64, p95_us: f64| {
            with(move |parts| {
                parts.after.throughput.achieved_rate = rate;
                parts.after.latency_us.as_mut().unwrap().p95 = Some(p95_us);
            })
        };
        assert_fails(&after(237.5, 203_999.0), &[]);
        assert_fails(&after(237.4, 102_000.0), &["after_rate"]);
        assert_fails(&after(250.0, 204_000.0), &["after_p95"]);
        // Under the floor nothing is compared.
        let floor = |p95_us: f64| {
            with(move |parts| {
                parts.before.latency_us.as_mut().unwrap().p95 = Some(1_000.0);
                parts.after.latency_us.as_mut().unwrap().p95 = Some(p95_us);
            })
        };
        assert_fails(&floor(9_999.0), &[]);
        assert_fails(&floor(10_000.0), &["after_p95"]);
    }

    #[test]
    fn a_doubtful_machine_makes_timing_inconclusive_and_counts_not() {
        let criteria = with(|parts| {
            parts.normal.resources.foreign_cpu_cores = Some(0.5);
            parts.normal.moments.first_backpressure_s = Some(7.0);
            parts.normal.messages.counts.duplicates = 1;
        });
        assert_eq!(named(&criteria, Verdict::Inconclusive), ["signal"]);
        assert_eq!(named(&criteria, Verdict::Fail), ["duplicates"]);
    }
}
