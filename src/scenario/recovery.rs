//! Case 8: does a fault stay where it is, and is it gone when it ends?
//!
//! The connections that a fault touches are those of a client of their own, behind a proxy of their own; the untouched
//! ones go through another that only copies. So each side is measured whole, and compared with a baseline that went
//! through such a proxy too.

use std::collections::BTreeSet;
use std::time::Duration;

use super::comparison::{p95_as_before, rate_as_before, rate_kept};
use super::criteria::{ACHIEVED_GRACE, Timed, counted, needs_all, none_of, shown, skipped};
use super::delivery::{duplicates, pings};
use super::load::{corrupted, first_ids, foreign, none_over};
use super::{Body, Case, Need, flag, workload};
use crate::config::{HighVolumeConfig, RecoveryConfig};
use crate::dialect::RequestKind;
use crate::fault::{Cut, Direction, Fault, Rule, Schedule, Scope, Side};
use crate::proxy::Action as Done;
use crate::result::{CriterionOutcome, LoadTestResults, Outage};
use crate::retry::RetryPolicy;
use crate::run::plan::{Action, Evidence, Phase, Plan};
use crate::run::scene::{Load, Route, Scene, SceneEvidence};
use crate::units::{self, Rate};
use crate::workload::{Offered, Workload};

pub(super) const CASE: Case = Case {
    name: "recovery",
    question: "does a fault stay where it is, and is it gone when it ends?",
    needs: &[Need::Restart],
    body: Body::Planned { plan, judge },
};

/// A fault of some of the connections.
struct Kind {
    name: &'static str,
    /// Which share of the connections.
    share: fn(&RecoveryConfig) -> f64,
    faults: &'static [Fault],
    /// Whether it lasts, rather than strikes.
    lasts: bool,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "drops",
        share: |case| case.drop_ratio,
        faults: &[
            Fault::Drop(Cut::Fin),
            Fault::Drop(Cut::Rst),
            Fault::Drop(Cut::MidFrame { direction: Direction::Both }),
        ],
        lasts: false,
    },
    Kind {
        name: "half_open",
        share: |case| case.silence_ratio,
        faults: &[Fault::HalfOpen { closed: Side::Server }],
        lasts: false,
    },
    Kind {
        name: "partition",
        share: |case| case.partition_ratio,
        faults: &[Fault::Partition { direction: Direction::Both }],
        lasts: true,
    },
    Kind {
        name: "silence",
        share: |case| case.silence_ratio,
        faults: &[Fault::Silence { direction: Direction::Both }],
        lasts: true,
    },
];

/// The first part of a load with a fault, before it strikes, is this part of the fault's length.
const LEAD: u32 = 10;

fn plan(config: &HighVolumeConfig) -> Plan {
    let case = &config.recovery;
    let all = |name: &str, duration| Load {
        route: Route::Proxied,
        ..load(config, name, case.connections, case.rate.as_per_second(), duration)
    };
    let alone = |load: Load| {
        let name = load.name.clone();
        Phase::new(name, Action::Scene(Scene { loads: vec![load], ..Scene::default() }))
    };
    let mut phases = vec![alone(all("baseline", case.baseline))];
    phases.extend(KINDS.iter().map(|kind| Phase::new(kind.name, Action::Scene(scene(config, kind)))));
    let extra = case.overload_factor * capacity(case) - case.rate.as_per_second();
    let span = case.fault.mul_f64(case.overload_time_ratio);
    let overload =
        Load { route: Route::Proxied, ..load(config, "overload.extra", case.connections, extra, span) };
    phases.push(Phase::new(
        "overload",
        Action::Scene(Scene { loads: vec![all("overload.base", case.fault), overload], ..Scene::default() }),
    ));
    phases.push(Phase::new(
        "kill",
        Action::Scene(Scene {
            loads: vec![all("kill.all", case.fault)],
            kills: vec![case.fault / LEAD],
            ..Scene::default()
        }),
    ));
    phases.push(alone(all("after", case.baseline)));
    Plan {
        server_args: vec![
            flag("processing-delay", case.processing),
            format!("--concurrency={}", case.concurrency),
            // Two loads at once in the overload, and connections that the server has not missed yet.
            format!("--max-connections={}", (4 * case.connections).max(1_100)),
        ],
        phases,
        ..Plan::default()
    }
}

/// What the service can do a second.
fn capacity(case: &RecoveryConfig) -> f64 {
    f64::from(case.concurrency) / case.processing.as_secs_f64()
}

fn load(
    config: &HighVolumeConfig,
    name: &str,
    connections: u32,
    per_second: f64,
    duration: Duration,
) -> Load {
    let case = &config.recovery;
    let workload = Workload {
        // Out of range only where the configuration is beyond a thousand million messages a second.
        offered: Offered::Rate(Rate::per_second(per_second).unwrap_or(case.rate)),
        connections,
        duration,
        retry: Some(RetryPolicy::default()),
        ping: Some(pings(config)),
        // An attempt through a silent network is given up as a silent connection is.
        connect_timeout: case.peer_dead_after,
        // Faults strike at moments of a load that does not change.
        ramp: Duration::ZERO,
        // What was sent just before a fault is answered when all is well again, at the latest.
        answer_timeout: config.load.answer_timeout.max(case.fault + case.limits.recovery_within),
        ..workload(config)
    };
    Load { request: RequestKind::UserMessage, ..Load::new(name, workload) }
}

/// How many connections a kind touches.
fn touched(case: &RecoveryConfig, kind: &Kind) -> u32 {
    // 0.14 of 50 is 7, whatever the doubles say.
    ((kind.share)(case) * f64::from(case.connections) - 1e-9).ceil() as u32
}

fn scene(config: &HighVolumeConfig, kind: &Kind) -> Scene {
    let case = &config.recovery;
    let lead = case.fault / LEAD;
    let side = |name: &str, connections: u32, route| Load {
        route,
        ..load(
            config,
            &format!("{}.{name}", kind.name),
            connections,
            case.rate.as_per_second() * f64::from(connections) / f64::from(case.connections),
            lead + case.fault,
        )
    };
    let touched = touched(case, kind);
    let step = case.fault / kind.faults.len() as u32;
    let rule = |(n, &fault): (u32, &Fault)| {
        let length = kind.lasts.then_some(case.fault);
        let schedule = Schedule { from: lead + step * n, length, ..Schedule::default() };
        // None of these contradicts its schedule.
        Rule::new(fault, Scope::All, schedule, config.load.seed).ok()
    };
    Scene {
        loads: vec![
            side("touched", touched, Route::Faulty),
            side("untouched", case.connections - touched, Route::Proxied),
        ],
        rules: (0..).zip(kind.faults).filter_map(rule).collect(),
        ..Scene::default()
    }
}

fn judge(config: &HighVolumeConfig, evidence: &Evidence) -> Vec<CriterionOutcome> {
    let Some(baseline) = evidence.run("baseline") else { return Vec::new() };
    let mut criteria = Vec::new();
    for kind in &KINDS {
        let run = |side: &str| evidence.run(&format!("{}.{side}", kind.name));
        if let (Some(scene), Some(touched), Some(untouched)) =
            (evidence.scene(kind.name), run("touched"), run("untouched"))
        {
            criteria.push(detected(config, kind, scene, touched));
            criteria.push(recovered(config, kind, touched));
            criteria.extend(unimpaired(config, kind.name, baseline, untouched));
        }
    }
    criteria.extend(overload(config, evidence));
    criteria.extend(kill(config, evidence));
    if let Some(after) = evidence.run("after") {
        let (limits, own) = (&config.limits, &config.recovery.limits);
        criteria.push(rate_as_before("after_rate", limits, baseline, after, own.achieved_change_ratio));
        criteria.push(p95_as_before("after_p95", limits, baseline, after, (own.p95_factor, own.p95_floor)));
    }
    criteria.extend(counts(config, evidence));
    criteria
}

/// Nothing is lost, whatever happened, and whatever is refused was told so.
fn counts(config: &HighVolumeConfig, evidence: &Evidence) -> Vec<CriterionOutcome> {
    let runs: Vec<_> = evidence.runs().collect();
    let all: Vec<&LoadTestResults> = runs.iter().map(|(_, run)| *run).collect();
    vec![
        none_over("lost", &runs, |run| run.messages.counts.lost, |run| first_ids(&run.messages.missing_ids)),
        unsent(config, &runs),
        none_over("cut", &undisturbed(&runs), cuts, reasons),
        none_over("foreign", &runs, |run| run.messages.counts.foreign, foreign),
        none_over("corrupted", &runs, |run| run.messages.counts.corrupted, corrupted),
        duplicates(config, &all),
    ]
}

/// Nothing is left unsent for good. A generator that had no time leaves some too, so this may be in doubt.
fn unsent(config: &HighVolumeConfig, runs: &[(&str, &LoadTestResults)]) -> CriterionOutcome {
    let of = |run: &LoadTestResults| run.messages.unsent;
    let guilty: Vec<&LoadTestResults> = runs.iter().map(|(_, run)| *run).filter(|run| of(run) > 0).collect();
    let count: u64 = guilty.iter().map(|run| of(run)).sum();
    let places = runs.iter().filter(|(_, run)| of(run) > 0);
    let timed = Timed {
        name: "unsent",
        limit: "0".to_owned(),
        measured: Some(units::count(count)),
        holds: count == 0,
        lateness_limit: ACHIEVED_GRACE,
        evidence: places.map(|(name, run)| format!("{} at {name}", units::count(of(run)))).collect(),
    };
    timed.outcome(&config.limits, &guilty)
}

/// The loads in which nobody cuts a connection.
fn undisturbed<'a>(runs: &[(&'a str, &'a LoadTestResults)]) -> Vec<(&'a str, &'a LoadTestResults)> {
    let names = ["baseline", "overload.base", "overload.extra", "after"];
    runs.iter().copied().filter(|(name, _)| names.contains(name)).collect()
}

/// How many connections were cut.
fn cuts(run: &LoadTestResults) -> u64 {
    run.outages.len() as u64 + run.outages_not_listed + run.connections.dropped
}

fn reasons(run: &LoadTestResults) -> Option<String> {
    let each: Vec<String> =
        run.connections.reasons.iter().map(|(reason, count)| format!("{count} × {reason}")).collect();
    (!each.is_empty()).then(|| each.join(", "))
}

/// Two clocks are compared where an outage is put beside what caused it.
const CLOCKS_APART_S: f64 = 0.05;

/// Each injection must show in the client's account: for a drop, as many outages as connections were dropped; for what
/// leaves the connection open, an outage on each connection that it took hold of.
fn detected(
    config: &HighVolumeConfig,
    kind: &Kind,
    scene: &SceneEvidence,
    touched: &LoadTestResults,
) -> CriterionOutcome {
    let name = format!("detected@{}", kind.name);
    let drops = kind.faults.iter().all(|fault| matches!(fault, Fault::Drop(_)));
    let connections = touched.connections.requested;
    let first_s = scene.injections.iter().map(|injected| injected.at_s).min_by(f64::total_cmp);
    // What was lost before anything was injected is another matter.
    let seen = touched
        .outages
        .iter()
        .filter(|outage| first_s.is_some_and(|first_s| outage.lost_at_s >= first_s - CLOCKS_APART_S));
    let (injected, seen) = if drops {
        let struck = |action: Done| matches!(action, Done::Closed | Done::Reset | Done::Cut);
        let struck = scene.injections.iter().filter(|injected| struck(injected.injection.action));
        (struck.count() as u64, seen.count() as u64 + touched.outages_not_listed)
    } else {
        // Those that come later are the client's attempts to get back.
        let held = scene.injections.iter().map(|injected| &injected.injection);
        let held: BTreeSet<u64> = held
            .filter(|injection| injection.connection < connections)
            .filter(|injection| matches!(injection.action, Done::Began | Done::HalfOpened))
            .map(|injection| injection.connection)
            .collect();
        let seen: BTreeSet<u32> = seen.map(|outage| outage.connection).collect();
        (held.len() as u64, seen.len() as u64)
    };
    let wanted = if drops { connections * kind.faults.len() as u64 } else { connections };
    let limit = format!("all {} injected", units::count(injected));
    if injected != wanted {
        let why = format!("{} of {} were injected", units::count(injected), units::count(wanted));
        return CriterionOutcome {
            name,
            limit,
            measured: units::count(seen),
            verdict: crate::result::Verdict::Inconclusive,
            evidence: vec![why],
        };
    }
    let timed = Timed {
        name: &name,
        limit,
        measured: Some(units::count(seen)),
        holds: seen == injected && seen > 0,
        // A generator that was away does not hear a silence.
        lateness_limit: config.recovery.peer_dead_after,
        evidence: reasons(touched).into_iter().collect(),
    };
    timed.outcome(&config.limits, &[touched])
}

/// From the end of the fault, or from the cut, until everything that was unanswered had its answer.
fn recovered(config: &HighVolumeConfig, kind: &Kind, touched: &LoadTestResults) -> CriterionOutcome {
    let case = &config.recovery;
    let end_s = (case.fault / LEAD + case.fault).as_secs_f64();
    let from_s = |outage: &Outage| if kind.lasts { end_s } else { outage.lost_at_s };
    outages_recovered(config, kind.name, touched, from_s)
}

fn outages_recovered(
    config: &HighVolumeConfig,
    kind: &str,
    run: &LoadTestResults,
    from_s: impl Fn(&Outage) -> f64,
) -> CriterionOutcome {
    let limit = config.recovery.limits.recovery_within;
    let name = format!("recovery@{kind}");
    let allowed = format!("at most {}", units::span(limit));
    let never: Vec<String> = run
        .outages
        .iter()
        .filter(|outage| outage.recovered_at_s.is_none())
        .map(|outage| format!("connection {}, lost at {:.1} s", outage.connection, outage.lost_at_s))
        .collect();
    let took = |outage: &Outage| Some((outage.recovered_at_s? - from_s(outage)).max(0.0));
    let worst = run.outages.iter().filter_map(took).max_by(f64::total_cmp);
    if !never.is_empty() || run.outages_not_listed > 0 || worst.is_none() {
        let measured = format!("{} never recovered", units::count(never.len() as u64));
        let nothing = worst.is_none().then(|| "no outage was seen".to_owned());
        return counted(&name, allowed, measured, false, never.into_iter().take(3).chain(nothing));
    }
    let timed = Timed {
        name: &name,
        limit: allowed,
        measured: worst.map(|s| units::latency_us(s * 1e6)),
        holds: worst.is_some_and(|s| s <= limit.as_secs_f64()),
        lateness_limit: limit,
        evidence: Vec::new(),
    };
    timed.outcome(&config.limits, &[run])
}

/// The connections that a fault does not touch notice nothing.
fn unimpaired(
    config: &HighVolumeConfig,
    kind: &str,
    baseline: &LoadTestResults,
    untouched: &LoadTestResults,
) -> [CriterionOutcome; 3] {
    let (case, limits) = (&config.recovery, &config.limits);
    let share = f64::from(untouched.workload.connections) / f64::from(case.connections);
    let expected = baseline.throughput.achieved_rate * share;
    let (cut, reasons) = (cuts(untouched), reasons(untouched));
    let p95 = (case.limits.p95_factor, case.limits.p95_floor);
    let fall = case.limits.untouched_drop_ratio;
    [
        rate_kept(&format!("untouched_rate@{kind}"), limits, expected, [baseline, untouched], fall),
        p95_as_before(&format!("untouched_p95@{kind}"), limits, baseline, untouched, p95),
        none_of(&format!("untouched_cut@{kind}"), cut, reasons),
    ]
}

/// An overload touches every connection; it is over when the last of what was too much has its answer.
fn overload(config: &HighVolumeConfig, evidence: &Evidence) -> Vec<CriterionOutcome> {
    let (Some(base), Some(extra)) = (evidence.run("overload.base"), evidence.run("overload.extra")) else {
        return Vec::new();
    };
    let limit = config.recovery.limits.recovery_within;
    let last_s = extra.moments.last_answer_s.map(|last_s| (last_s - extra.offered_for_s).max(0.0));
    let allowed = format!("at most {}", units::span(limit));
    let timed = Timed {
        name: "recovery@overload",
        limit: allowed,
        measured: last_s.map(|s| units::latency_us(s * 1e6)),
        holds: last_s.is_some_and(|s| s <= limit.as_secs_f64()),
        lateness_limit: limit,
        evidence: Vec::new(),
    };
    vec![overload_seen(config, evidence, base, extra), timed.outcome(&config.limits, &[base, extra])]
}

/// An overload shows by a queue, by refusals, or by a signal. Where it does not, the service can do more than it was
/// taken for, which is no fault of its.
fn overload_seen(
    config: &HighVolumeConfig,
    evidence: &Evidence,
    base: &LoadTestResults,
    extra: &LoadTestResults,
) -> CriterionOutcome {
    let usual = evidence.run("baseline").into_iter().flat_map(|run| &run.windows);
    let usual = usual.filter_map(|window| window.queue_depth_max).max().unwrap_or(0);
    let usual = usual.max(u64::from(config.recovery.concurrency));
    let name = "detected@overload";
    let limit = &format!("a queue of more than {}, a refusal or a signal", units::count(usual));
    let runs = [base, extra];
    let deepest = runs.iter().flat_map(|run| &run.windows).filter_map(|window| window.queue_depth_max).max();
    let refused: u64 = runs.iter().map(|run| run.messages.counts.refused).sum();
    let signalled = runs.iter().any(|run| run.moments.first_backpressure_s.is_some());
    let seen = deepest.is_some_and(|depth| depth > usual) || refused > 0 || signalled;
    if !seen && !evidence.own_server {
        let why = "the service took it without a sign: it can do more than recovery.concurrency ÷ processing";
        return skipped(name, limit, why);
    }
    let queue = shown(deepest, units::count);
    let measured = format!("queue of {queue}, {} refused", units::count(refused));
    let why = ["our own server cannot do so much".to_owned()];
    let mut outcome = counted(name, limit.to_owned(), measured, seen, why);
    needs_all(&mut outcome, &runs);
    outcome
}

/// The death of the server cuts every connection.
fn kill(config: &HighVolumeConfig, evidence: &Evidence) -> Vec<CriterionOutcome> {
    let (Some(scene), Some(run)) = (evidence.scene("kill"), evidence.run("kill.all")) else {
        return Vec::new();
    };
    let why = "a server that is not our own is killed by --restart-command only";
    if scene.kills.is_empty() && !evidence.own_server {
        let within = format!("at most {}", units::span(config.recovery.limits.recovery_within));
        return vec![
            skipped("detected@kill", "every connection", why),
            skipped("recovery@kill", &within, why),
        ];
    }
    let killed_s = scene.kills.first().map_or(f64::INFINITY, |kill| kill.at_s - CLOCKS_APART_S);
    let seen = run.outages.iter().filter(|outage| outage.lost_at_s >= killed_s);
    let seen: BTreeSet<u32> = seen.map(|outage| outage.connection).collect();
    let wanted = run.connections.requested;
    let limit = format!("all {}", units::count(wanted));
    let timed = Timed {
        name: "detected@kill",
        limit,
        measured: Some(units::count(seen.len() as u64)),
        holds: seen.len() as u64 == wanted,
        lateness_limit: config.recovery.peer_dead_after,
        evidence: reasons(run).into_iter().collect(),
    };
    vec![
        timed.outcome(&config.limits, &[run]),
        outages_recovered(config, "kill", run, |outage| outage.lost_at_s),
    ]
}

#[cfg(test)]
mod tests;
