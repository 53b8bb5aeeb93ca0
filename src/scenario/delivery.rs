//! Case 3: is every message processed exactly once, whatever is cut or killed?

use std::collections::BTreeSet;
use std::time::Duration;

use super::criteria::{Timed, counted, none_of, skipped};
use super::load::{connections, counting, first_ids, none_over};
use super::{Body, Case, Need, flag, workload};
use crate::config::{DeliveryConfig, HighVolumeConfig};
use crate::dialect::RequestKind;
use crate::fault::{Cut, Direction, Fault, Rule, Schedule, Scope, Share};
use crate::proxy::{Action as Done, Injection};
use crate::result::{CriterionOutcome, LoadTestResults, Verdict};
use crate::retry::{PingPolicy, RetryPolicy};
use crate::run::plan::{Action, Evidence, Phase, Plan};
use crate::run::scene::{Injected, Load, Route, Scene, SceneEvidence};
use crate::schedule::mix;
use crate::units;
use crate::workload::{Offered, Workload};

pub(super) const CASE: Case = Case {
    name: "delivery",
    question: "is every message processed exactly once, whatever is cut or killed?",
    needs: &[Need::Restart, Need::Journal],
    body: Body::Planned { plan, judge },
};

const PHASE: &str = "cuts";
const LOAD: &str = "load";

/// Where a message can be cut off: before it is received, between its commit and its answer, anywhere at once. Each
/// first two in mid-frame, so that a part of the frame arrives.
const CUTS: [Cut; 3] = [
    Cut::MidFrame { direction: Direction::ToServer },
    Cut::MidFrame { direction: Direction::ToClient },
    Cut::Rst,
];

/// Before each kill no answer gets through for so long: they die with the server, as those do that are still under way,
/// and what was processed is sent again to one that was not there then. At 50 msg/s these are 10 messages; without them a
/// server that forgets is found out by chance only, for the instant between commit and answer is short.
const UNHEARD: Duration = Duration::from_millis(200);
/// That is over so long before the kill: the answers to those who come back must get through.
const UNHEARD_UNTIL: Duration = Duration::from_millis(20);
/// What a pong takes on the wire at most: two bytes, and what TLS adds to them. Everything else that a server sends is an
/// answer.
const PONG_BYTES: f64 = 32.0;
/// So long after it all connections are cut: where the server is not ours to kill, nothing was heard for nothing.
const CUT_AFTER: Duration = Duration::from_millis(50);

fn plan(config: &HighVolumeConfig) -> Plan {
    let case = &config.delivery;
    let retrying = Workload {
        offered: Offered::Rate(case.rate),
        connections: case.connections,
        duration: load_span(case),
        retry: Some(RetryPolicy::default()),
        ping: Some(pings(config)),
        connect_timeout: config.recovery.peer_dead_after,
        // Faults strike at moments of a load that does not change.
        ramp: Duration::ZERO,
        ..workload(config)
    };
    let load = Load { request: RequestKind::UserMessage, route: Route::Faulty, ..Load::new(LOAD, retrying) };
    let scene = Scene {
        loads: vec![load],
        rules: rules(case, config.load.seed).into_iter().chain(unheard(case)).collect(),
        kills: kills(case).collect(),
        ..Scene::default()
    };
    Plan {
        server_args: vec![flag("processing-delay", case.processing)],
        durable: true,
        locks: None,
        phases: vec![Phase::new(PHASE, Action::Scene(scene))],
    }
}

/// How a client of a case with cuts finds out a peer that is silent.
pub(super) fn pings(config: &HighVolumeConfig) -> PingPolicy {
    PingPolicy { every: config.recovery.ping_every, dead_after: config.recovery.peer_dead_after }
}

fn load_span(case: &DeliveryConfig) -> Duration {
    Duration::from_secs_f64(case.messages as f64 / case.rate.as_per_second())
}

fn kills(case: &DeliveryConfig) -> impl Iterator<Item = Duration> {
    (1..=case.kills).map(|n| case.kill_period * n)
}

/// Before each kill no answer is heard, and after it nobody waits for one.
fn unheard(case: &DeliveryConfig) -> Vec<Rule> {
    let of_kill = |at: Duration| {
        let length = UNHEARD.saturating_sub(UNHEARD_UNTIL).min(at);
        let silent =
            Schedule { from: at.saturating_sub(UNHEARD), length: Some(length), ..Schedule::default() };
        let cut = Schedule { from: at + CUT_AFTER, ..Schedule::default() };
        [(Fault::Silence { direction: Direction::ToClient }, silent), (Fault::Drop(Cut::Fin), cut)]
    };
    // A silence of more than nothing, and a drop, contradict no schedule.
    kills(case)
        .flat_map(of_kill)
        .filter_map(|(fault, schedule)| Rule::new(fault, Scope::All, schedule, 0).ok())
        .collect()
}

/// Before each kill, and after the last, each kind of cut once, at a moment that the seed decides.
fn rules(case: &DeliveryConfig, seed: u64) -> Vec<Rule> {
    let end = load_span(case);
    let share = Share::new(case.cut_ratio.max(0.001)).map_or(Scope::All, Scope::Share);
    let stretches = (0..=case.kills).map(|n| (case.kill_period * n, (case.kill_period * (n + 1)).min(end)));
    let mut rules = Vec::new();
    for (from, to) in stretches {
        for cut in CUTS {
            let draw = mix(seed, rules.len() as u64);
            let share_of_stretch = (draw >> 11) as f64 / (1_u64 << 53) as f64;
            let at = from + to.saturating_sub(from).mul_f64(share_of_stretch);
            let schedule = Schedule { from: at, ..Schedule::default() };
            // A share that is no share was made whole above, and a drop contradicts no schedule.
            rules.extend(Rule::new(Fault::Drop(cut), share.clone(), schedule, draw).ok());
        }
    }
    rules
}

fn judge(config: &HighVolumeConfig, evidence: &Evidence) -> Vec<CriterionOutcome> {
    let (Some(run), Some(scene)) = (evidence.run(LOAD), evidence.scene(PHASE)) else {
        return Vec::new();
    };
    let unanswered = |run: &LoadTestResults| run.messages.due.saturating_sub(run.messages.counts.answered);
    let how = |run: &LoadTestResults| {
        let counts = &run.messages.counts;
        Some(format!("unsent {}, refused {}, lost {}", run.messages.unsent, counts.refused, counts.lost))
    };
    let mut criteria = vec![none_over("unanswered", &[("", run)], unanswered, how)];
    let counted_zero = ["lost", "foreign", "corrupted"];
    criteria.extend(counting(run).into_iter().filter(|criterion| counted_zero.contains(&&*criterion.name)));
    criteria.push(duplicates(config, &[run]));
    criteria.push(connections(run));
    criteria.extend(processed(evidence, run));
    criteria.push(recovery(config, scene, run));
    criteria.push(timeout_resends(run));
    criteria.push(injected(config, evidence, scene));
    criteria
}

/// Second answers to one send, against all messages.
pub(super) fn duplicates(config: &HighVolumeConfig, runs: &[&LoadTestResults]) -> CriterionOutcome {
    let limit = config.limits.duplicate_ratio;
    let count: u64 = runs.iter().map(|run| run.messages.counts.duplicates).sum();
    let due: u64 = runs.iter().map(|run| run.messages.due).sum();
    let holds = count as f64 <= limit * due as f64;
    let allowed = format!("at most {} of {}", units::percent(limit), units::count(due));
    let ids = runs.iter().filter_map(|run| first_ids(&run.messages.duplicate_ids));
    counted("duplicates", allowed, units::count(count), holds, ids)
}

/// What the execution journal says: each id exactly once, and nothing else.
fn processed(evidence: &Evidence, run: &LoadTestResults) -> Vec<CriterionOutcome> {
    const NAMES: [&str; 3] = ["processed_twice", "not_processed", "processed_unknown"];
    let Some(journal) = &evidence.journal else {
        let why = "only our own server keeps an execution journal";
        return NAMES.into_iter().map(|name| skipped(name, "0", why)).collect();
    };
    let sent: BTreeSet<String> = run
        .per_connection
        .iter()
        .flat_map(|connection| {
            let client = format!("{}-{}-{}", run.run_id, run.shard.index, connection.connection);
            (0..connection.counts.sent).map(move |sequence| format!("{client}-{sequence}"))
        })
        .collect();
    let twice: Vec<&String> = journal.iter().filter(|(_, times)| **times > 1).map(|(id, _)| id).collect();
    let never: Vec<&String> = sent.iter().filter(|id| !journal.contains_key(*id)).collect();
    let unknown: Vec<&String> = journal.keys().filter(|id| !sent.contains(*id)).collect();
    let outcome = |(name, ids): (&str, Vec<&String>)| {
        let first = ids.iter().take(3).map(|id| (*id).clone()).collect::<Vec<_>>().join(", ");
        none_of(name, ids.len() as u64, [format!("ids: {first}")])
    };
    NAMES.into_iter().zip([twice, never, unknown]).map(outcome).collect()
}

/// From each cut until everything that was unanswered then had its answer.
fn recovery(config: &HighVolumeConfig, scene: &SceneEvidence, run: &LoadTestResults) -> CriterionOutcome {
    let limit = config.delivery.limits.recovery_within;
    let allowed = format!("at most {} after each cut", units::span(limit));
    if run.outages.is_empty() && scene.injections.is_empty() && scene.kills.is_empty() {
        return skipped("recovery", &allowed, "no connection was cut");
    }
    if run.outages.is_empty() {
        let why = "connections were cut, and the client saw nothing of it".to_owned();
        return counted("recovery", allowed, "none".to_owned(), false, [why]);
    }
    let never = run.outages.iter().filter(|outage| outage.recovered_at_s.is_none());
    let never: Vec<String> = never
        .map(|outage| format!("connection {} at {:.1} s", outage.connection, outage.lost_at_s))
        .collect();
    if !never.is_empty() || run.outages_not_listed > 0 {
        let measured = format!("{} never recovered", units::count(never.len() as u64));
        let unlisted = (run.outages_not_listed > 0)
            .then(|| format!("{} more cuts are not listed", units::count(run.outages_not_listed)));
        return counted("recovery", allowed, measured, false, never.into_iter().take(3).chain(unlisted));
    }
    let took = |outage: &crate::result::Outage| Some(outage.recovered_at_s? - outage.lost_at_s);
    let worst = run.outages.iter().filter_map(|o| Some((took(o)?, o))).max_by(|a, b| a.0.total_cmp(&b.0));
    let evidence = worst.map(|(_, outage)| {
        format!("connection {}, cut at {:.1} s: {}", outage.connection, outage.lost_at_s, outage.reason)
    });
    let cuts = units::count(run.outages.len() as u64);
    let timed = Timed {
        name: "recovery",
        limit: allowed,
        measured: worst.map(|(s, _)| format!("{cuts} cuts, worst {}", units::latency_us(s * 1e6))),
        holds: worst.is_some_and(|(s, _)| s <= limit.as_secs_f64()),
        lateness_limit: limit,
        evidence: evidence.into_iter().collect(),
    };
    timed.outcome(&config.limits, &[run])
}

/// A message is sent again only because its connection was cut: no more often than messages were unanswered at a cut.
fn timeout_resends(run: &LoadTestResults) -> CriterionOutcome {
    let cut: BTreeSet<u32> = run.outages.iter().map(|outage| outage.connection).collect();
    let resent: u64 = run
        .per_connection
        .iter()
        .map(|connection| {
            let of_it = run.outages.iter().filter(|outage| outage.connection == connection.connection);
            let unanswered: u64 = of_it.map(|outage| outage.unanswered).sum();
            connection.counts.resent.saturating_sub(unanswered)
        })
        .sum();
    let uncut = run.per_connection.iter().filter(|c| c.counts.resent > 0 && !cut.contains(&c.connection));
    let evidence = uncut.take(3).map(|c| format!("connection {} was never cut", c.connection));
    none_of("timeout_resends", resent, evidence)
}

/// Whether the faults took place at all: without them nothing was shown.
fn injected(config: &HighVolumeConfig, evidence: &Evidence, scene: &SceneEvidence) -> CriterionOutcome {
    let hit = |cut: Cut| {
        let done = |action: Done| matches!(action, Done::Cut | Done::Reset | Done::Closed);
        let of_cut = scene.injections.iter().filter(|injected| {
            injected.injection.rule.fault() == Fault::Drop(cut) && done(injected.injection.action)
        });
        of_cut.count()
    };
    // More came in the silence than answers to pings.
    let pongs = (UNHEARD.as_secs_f64() / config.recovery.ping_every.as_secs_f64()).ceil();
    let unheard = |injected: &&Injected| {
        let Injection { rule, action, bytes, .. } = &injected.injection;
        let over = matches!(rule.fault(), Fault::Silence { .. }) && *action == Done::Ended;
        over && *bytes as f64 > pongs * PONG_BYTES
    };
    let unheard: Vec<u64> =
        scene.injections.iter().filter(unheard).map(|injected| injected.injection.rule_id).collect();
    // One silence a kill.
    let silences = unheard.iter().collect::<BTreeSet<_>>().len();
    let unheard = unheard.len();
    let cuts = CUTS.map(hit);
    let (kills, wanted) = (scene.kills.len(), config.delivery.kills as usize);
    let name = "faults_injected";
    let limit = format!("every kind of cut, {wanted} kills");
    let measured = format!("{} + {} + {} cuts, {kills} kills, {unheard} unheard", cuts[0], cuts[1], cuts[2]);
    let nothing_shown = if cuts.contains(&0) {
        Some("a kind of cut met no connection: nothing was shown of it".to_owned())
    } else if silences < wanted {
        let heard = wanted - silences;
        Some(format!("all answers were heard before {heard} of {wanted} kills: no memory was asked for"))
    } else {
        None
    };
    if let Some(why) = nothing_shown {
        let evidence = vec![why];
        let verdict = Verdict::Inconclusive;
        return CriterionOutcome { name: name.to_owned(), limit, measured, verdict, evidence };
    }
    if kills == 0 && !evidence.own_server {
        return skipped(name, &limit, "a server that is not our own is killed by --restart-command only");
    }
    counted(
        name,
        limit,
        measured,
        kills == wanted,
        ["the server was not killed as often as planned".to_owned()],
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_fails, judged, named, run, seen};
    use super::*;
    use crate::ledger::Counts;
    use crate::result::{ConnectionSummary, Outage};
    use crate::run::plan::PhaseEvidence;
    use crate::run::scene::{Kill, NamedRun};
    use std::collections::BTreeMap;

    /// 5,000 messages over 20 connections, each cut once, everything as it should be.
    fn clean() -> (LoadTestResults, SceneEvidence, BTreeMap<String, u64>) {
        let mut run = run(50.0, 20);
        run.run_id = "r".to_owned();
        run.messages.due = 5_000;
        run.messages.counts = Counts { sent: 5_000, answered: 5_000, resent: 20, ..Counts::default() };
        run.per_connection = (0..20)
            .map(|connection| ConnectionSummary {
                connection,
                due: 250,
                counts: Counts { sent: 250, answered: 250, resent: 1, ..Counts::default() },
                achieved: 250,
                latency_p95_at_most_us: None,
            })
            .collect();
        let outage = |connection| Outage {
            connection,
            lost_at_s: 10.0,
            reconnected_at_s: Some(10.1),
            recovered_at_s: Some(10.5),
            reason: "reset".to_owned(),
            unanswered: 1,
            resent: 1,
        };
        run.outages = (0..20).map(outage).collect();
        let injected = |(n, (fault, action)): (u64, (Fault, Done))| {
            let rule = Rule::new(fault, Scope::All, Schedule::default(), 0).unwrap();
            let injection =
                Injection { rule_id: n, rule, connection: n, at_ns: 0, unix_ns: 0, action, bytes: 150 };
            Injected { at_s: 5.0, injection }
        };
        let done = |cut| (Fault::Drop(cut), if cut == Cut::Rst { Done::Reset } else { Done::Cut });
        let unheard = [(Fault::Silence { direction: Direction::ToClient }, Done::Ended); 3];
        let scene = SceneEvidence {
            kills: [30.0, 60.0, 90.0].map(|at_s| Kill { at_s, back_at_s: at_s + 0.1 }).to_vec(),
            injections: (0..).zip(CUTS.map(done).into_iter().chain(unheard)).map(injected).collect(),
            ..SceneEvidence::default()
        };
        let ids = (0..20).flat_map(|c| (0..250).map(move |n| (format!("r-0-{c}-{n}"), 1)));
        (run, scene, ids.collect())
    }

    type Parts = (LoadTestResults, SceneEvidence, Option<BTreeMap<String, u64>>);

    fn with(edit: impl Fn(&mut Parts)) -> Vec<CriterionOutcome> {
        let (run, scene, journal) = clean();
        let mut parts = (run, scene, Some(journal));
        edit(&mut parts);
        let (run, mut scene, journal) = parts;
        scene.runs.push(NamedRun { name: LOAD.to_owned(), run: Box::new(run) });
        let phase = PhaseEvidence { scene: Some(scene), ..PhaseEvidence::of(PHASE) };
        // Only our own server keeps a journal.
        let own_server = journal.is_some();
        judged(&CASE, &Evidence { journal, own_server, ..seen(vec![phase]) })
    }

    #[test]
    fn everything_once_passes() {
        let criteria = with(|_| {});
        assert_eq!(named(&criteria, Verdict::Pass).len(), criteria.len(), "{criteria:#?}");
    }

    #[test]
    fn one_message_without_an_answer_is_too_many() {
        assert_fails(&with(|(run, ..)| run.messages.counts.answered -= 1), &["unanswered"]);
        let lost = with(|(run, ..)| {
            run.messages.counts.answered -= 1;
            run.messages.counts.lost = 1;
            run.messages.missing_ids = vec!["r-0-3-7".to_owned()];
        });
        assert_fails(&lost, &["unanswered", "lost"]);
        assert_eq!(lost[1].evidence, ["ids: r-0-3-7"]);
    }

    #[test]
    fn each_id_is_in_the_journal_exactly_once() {
        let journal =
            |edit: fn(&mut BTreeMap<String, u64>)| with(move |(.., journal)| edit(journal.as_mut().unwrap()));
        let twice = journal(|ids| *ids.get_mut("r-0-3-7").unwrap() = 2);
        assert_fails(&twice, &["processed_twice"]);
        let never = journal(|ids| _ = ids.remove("r-0-3-7"));
        assert_fails(&never, &["not_processed"]);
        let found = never.iter().find(|criterion| criterion.name == "not_processed").unwrap();
        assert_eq!((&*found.measured, &*found.evidence[0]), ("1", "ids: r-0-3-7"));
        assert_fails(&journal(|ids| _ = ids.insert("x".to_owned(), 1)), &["processed_unknown"]);
    }

    #[test]
    fn a_server_without_a_journal_is_skipped_with_the_reason() {
        let criteria = with(|(_, scene, journal)| {
            *journal = None;
            scene.kills.clear();
        });
        let skipped = ["processed_twice", "not_processed", "processed_unknown", "faults_injected"];
        assert_eq!(named(&criteria, Verdict::Skipped), skipped);
        assert_fails(&criteria, &[]);
    }

    #[test]
    fn every_cut_is_recovered_from_within_5_s() {
        let took =
            |s: Option<f64>| with(move |(run, ..)| run.outages[3].recovered_at_s = s.map(|s| 10.0 + s));
        assert_fails(&took(Some(5.0)), &[]);
        assert_fails(&took(Some(5.001)), &["recovery"]);
        let never = took(None);
        assert_fails(&never, &["recovery"]);
        let found = never.iter().find(|criterion| criterion.name == "recovery").unwrap();
        assert_eq!(found.evidence, ["connection 3 at 10.0 s"]);
        assert_fails(&with(|(run, ..)| run.outages_not_listed = 1), &["recovery"]);
        // Cuts that the client saw nothing of are no recovery.
        let unseen = with(|(run, ..)| {
            run.outages.clear();
            run.per_connection.iter_mut().for_each(|connection| connection.counts.resent = 0);
        });
        assert_fails(&unseen, &["recovery"]);
    }

    #[test]
    fn a_doubtful_machine_makes_recovery_inconclusive_and_counts_not() {
        let criteria = with(|(run, ..)| {
            run.resources.foreign_cpu_cores = Some(0.5);
            run.outages[3].recovered_at_s = Some(16.0);
            run.messages.counts.corrupted = 1;
        });
        assert_eq!(named(&criteria, Verdict::Inconclusive), ["recovery"]);
        assert_eq!(named(&criteria, Verdict::Fail), ["corrupted"]);
    }

    #[test]
    fn nothing_is_sent_again_without_a_cut() {
        let more = with(|(run, ..)| run.per_connection[5].counts.resent = 2);
        assert_fails(&more, &["timeout_resends"]);
        let uncut = with(|(run, ..)| drop(run.outages.remove(5)));
        assert_fails(&uncut, &["timeout_resends"]);
        let found = uncut.iter().find(|criterion| criterion.name == "timeout_resends").unwrap();
        assert_eq!((&*found.measured, &*found.evidence[0]), ("1", "connection 5 was never cut"));
    }

    #[test]
    fn one_duplicate_a_thousand_is_allowed() {
        let duplicates = |count| with(move |(run, ..)| run.messages.counts.duplicates = count);
        assert_fails(&duplicates(5), &[]);
        assert_fails(&duplicates(6), &["duplicates"]);
    }

    #[test]
    fn foreign_altered_and_lost_connections_fail_alone() {
        assert_fails(&with(|(run, ..)| run.messages.counts.foreign = 1), &["foreign"]);
        assert_fails(&with(|(run, ..)| run.messages.counts.corrupted = 1), &["corrupted"]);
        assert_fails(&with(|(run, ..)| run.connections.dropped = 1), &["connections"]);
    }

    #[test]
    fn cuts_that_nobody_injected_are_to_be_recovered_from_too() {
        let cut = with(|(run, scene, _)| {
            scene.injections.clear();
            scene.kills.clear();
            run.outages.iter_mut().for_each(|outage| outage.recovered_at_s = Some(15.001));
        });
        assert!(named(&cut, Verdict::Fail).contains(&"recovery"), "{cut:#?}");
    }

    #[test]
    fn faults_that_did_not_take_place_show_nothing() {
        for n in 0..=CUTS.len() {
            let criteria = with(|(_, scene, _)| drop(scene.injections.remove(n)));
            assert_eq!(named(&criteria, Verdict::Inconclusive), ["faults_injected"], "{n}");
        }
        // Without a kill there is nothing to hear, or not.
        let config = {
            let mut config = HighVolumeConfig::for_profile(crate::config::Profile::Full);
            config.delivery.kills = 0;
            config
        };
        let (_, mut scene, _) = clean();
        scene.kills.clear();
        scene.injections.truncate(CUTS.len());
        let own = Evidence { own_server: true, ..Evidence::default() };
        assert_eq!(injected(&config, &own, &scene).verdict, Verdict::Pass);
        assert_fails(&with(|(_, scene, _)| _ = scene.kills.pop()), &["faults_injected"]);
        assert_fails(&with(|(_, scene, _)| scene.kills.clear()), &["faults_injected"]);
    }

    #[test]
    fn a_kill_before_which_every_answer_was_heard_shows_nothing_of_the_memory() {
        let doubt = |edit: fn(&mut Injection)| {
            let criteria = with(move |(_, scene, _)| {
                // That before the second of three kills.
                let silences = scene.injections.iter_mut().map(|injected| &mut injected.injection);
                let mut silences = silences.filter(|i| matches!(i.rule.fault(), Fault::Silence { .. }));
                edit(silences.nth(1).unwrap());
            });
            let injected =
                criteria.into_iter().find(|criterion| criterion.name == "faults_injected").unwrap();
            (injected.verdict, injected.measured, injected.evidence)
        };
        let why = "all answers were heard before 1 of 3 kills: no memory was asked for".to_owned();
        let doubted = (Verdict::Inconclusive, "1 + 1 + 1 cuts, 3 kills, 2 unheard".to_owned(), vec![why]);
        // A pong in each second is all that the server said.
        assert_eq!(doubt(|silence| silence.bytes = 32), doubted);
        assert_eq!(doubt(|silence| silence.bytes = 33).0, Verdict::Pass);
        // Only its end tells what was swallowed.
        assert_eq!(doubt(|silence| silence.action = Done::Began), doubted);
    }

    #[test]
    fn the_full_size_cuts_every_kind_before_and_after_each_kill() {
        let config = HighVolumeConfig::for_profile(crate::config::Profile::Full);
        let rules = rules(&config.delivery, 1);
        assert_eq!(rules.len(), 4 * CUTS.len());
        for (n, rule) in rules.iter().enumerate() {
            let from = Duration::from_secs(30) * (n / CUTS.len()) as u32;
            let to = (from + Duration::from_secs(30)).min(Duration::from_secs(100));
            let at = rule.schedule().from;
            assert!(from <= at && at <= to, "{rule}");
        }
        // 5,000 messages at 50 a second take 100 s, and each stretch has its own moments.
        assert!(rules[9..].iter().all(|rule| rule.schedule().from > Duration::from_secs(90)), "{rules:?}");
        assert!(rules[0..3].iter().all(|rule| rule.schedule().from > Duration::ZERO), "{rules:?}");
        assert_ne!(rules, super::rules(&config.delivery, 2));
    }

    #[test]
    fn before_each_kill_answers_die_with_the_server_and_nobody_waits_for_them() {
        let config = HighVolumeConfig::for_profile(crate::config::Profile::Full);
        let rules: Vec<String> = unheard(&config.delivery).iter().map(ToString::to_string).collect();
        let of_kill = |at_ms: u64| {
            [
                format!("silence=to-client,from={}ms,for=180ms", at_ms - 200),
                format!("drop=fin,from={}ms", at_ms + 50),
            ]
        };
        assert_eq!(rules, [30_000, 60_000, 90_000].map(of_kill).concat());
    }
}
