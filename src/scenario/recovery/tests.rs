use super::super::testing::{assert_fails, judged, named, run, seen};
use super::*;
use crate::ledger::Counts;
use crate::proxy::Injection;
use crate::record::{Window, WindowSummary};
use crate::result::Verdict;
use crate::run::plan::PhaseEvidence;
use crate::run::scene::{Injected, Kill, NamedRun};

fn config() -> HighVolumeConfig {
    HighVolumeConfig::for_profile(crate::config::Profile::Full)
}

fn outage(connection: u32, lost_at_s: f64, recovered_at_s: f64) -> Outage {
    Outage {
        connection,
        lost_at_s,
        reconnected_at_s: Some(recovered_at_s - 0.1),
        recovered_at_s: Some(recovered_at_s),
        reason: "reset".to_owned(),
        unanswered: 1,
        resent: 1,
    }
}

fn load_of(connections: u32) -> LoadTestResults {
    let mut run = run(60.0 * f64::from(connections), connections);
    run.messages.due = 10_000;
    run.messages.counts = Counts { sent: 10_000, answered: 10_000, ..Counts::default() };
    run.latency_us.as_mut().unwrap().p95 = Some(11_000.0);
    run
}

fn scene_of(runs: Vec<(String, LoadTestResults)>) -> SceneEvidence {
    let named = |(name, run)| NamedRun { name, run: Box::new(run) };
    SceneEvidence { runs: runs.into_iter().map(named).collect(), ..SceneEvidence::default() }
}

/// Whatever a kind injects is seen, on every connection, and over in a second; a lasting one begins at 1 s, is noticed
/// after 3 s, and ends at 11 s.
fn struck(kind: &Kind) -> SceneEvidence {
    let touched = touched(&config().recovery, kind);
    let mut hit = load_of(touched);
    let mut injections = Vec::new();
    for (rule_id, &fault) in (0_u64..).zip(kind.faults) {
        let action = match fault {
            Fault::Drop(Cut::Fin) => Done::Closed,
            Fault::Drop(Cut::Rst) => Done::Reset,
            Fault::Drop(Cut::MidFrame { .. }) => Done::Cut,
            Fault::HalfOpen { .. } => Done::HalfOpened,
            _ => Done::Began,
        };
        for connection in 0..touched {
            let rule = Rule::new(fault, Scope::All, Schedule::default(), 0).unwrap();
            let connection_at = u64::from(connection);
            let injection = Injection {
                rule_id,
                rule,
                connection: connection_at,
                at_ns: 0,
                unix_ns: 0,
                action,
                bytes: 0,
            };
            injections.push(Injected { at_s: 1.0, injection });
            hit.outages.push(match kind.lasts {
                true => outage(connection, 4.0, 12.0),
                false => outage(connection, 4.0, 5.0),
            });
        }
    }
    hit.connections.reasons.insert("reset".to_owned(), hit.outages.len() as u64);
    let untouched = load_of(50 - touched);
    let runs = vec![(format!("{}.touched", kind.name), hit), (format!("{}.untouched", kind.name), untouched)];
    SceneEvidence { injections, ..scene_of(runs) }
}

fn clean() -> Vec<(&'static str, SceneEvidence)> {
    let alone = |name: &str| scene_of(vec![(name.to_owned(), load_of(50))]);
    let mut scenes = vec![("baseline", alone("baseline"))];
    scenes.extend(KINDS.iter().map(|kind| (kind.name, struck(kind))));
    let mut base = load_of(50);
    base.windows =
        vec![WindowSummary { queue_depth_max: Some(900), ..WindowSummary::of(&Window::default()) }];
    let mut extra = load_of(50);
    extra.offered_for_s = 1.0;
    extra.moments.last_answer_s = Some(3.0);
    let overload = vec![("overload.base".to_owned(), base), ("overload.extra".to_owned(), extra)];
    scenes.push(("overload", scene_of(overload)));
    let mut killed = alone("kill.all");
    killed.kills = vec![Kill { at_s: 1.0, back_at_s: 1.1 }];
    killed.runs[0].run.outages = (0..50).map(|connection| outage(connection, 1.0, 1.5)).collect();
    scenes.push(("kill", killed));
    scenes.push(("after", alone("after")));
    scenes
}

/// Judges clean evidence of our own server with one scene edited.
fn with(scene: &str, edit: impl Fn(&mut SceneEvidence)) -> Vec<CriterionOutcome> {
    of_server(true, scene, edit)
}

fn of_server(own_server: bool, scene: &str, edit: impl Fn(&mut SceneEvidence)) -> Vec<CriterionOutcome> {
    let mut scenes = clean();
    scenes.iter_mut().filter(|(name, _)| *name == scene).for_each(|(_, scene)| edit(scene));
    let phase = |(name, scene)| PhaseEvidence { scene: Some(scene), ..PhaseEvidence::of(name) };
    judged(&CASE, &Evidence { own_server, ..seen(scenes.into_iter().map(phase).collect()) })
}

#[test]
fn faults_that_stay_where_they_are_pass() {
    let criteria = with("", |_| {});
    assert_eq!(named(&criteria, Verdict::Pass).len(), criteria.len(), "{criteria:#?}");
}

#[test]
fn every_injection_must_be_seen() {
    for kind in &KINDS {
        let unseen = with(kind.name, |scene| drop(scene.runs[0].run.outages.pop()));
        assert_fails(&unseen, &[&format!("detected@{}", kind.name)]);
        let not_injected = with(kind.name, |scene| drop(scene.injections.pop()));
        assert_eq!(named(&not_injected, Verdict::Inconclusive), [format!("detected@{}", kind.name)]);
    }
    let alive = with("kill", |scene| drop(scene.runs[0].run.outages.pop()));
    assert_fails(&alive, &["detected@kill"]);
}

#[test]
fn a_cut_that_nobody_injected_fails() {
    for name in ["baseline", "overload", "after"] {
        let cut = with(name, |scene| scene.runs[0].run.outages.push(outage(7, 1.0, 1.1)));
        assert_fails(&cut, &["cut"]);
    }
}

#[test]
fn an_outage_that_nobody_injected_is_not_a_detection() {
    // The rules strike at 1 s, the kill too.
    for (name, criterion) in [("silence", "detected@silence"), ("kill", "detected@kill")] {
        let before = with(name, |scene| scene.runs[0].run.outages[0].lost_at_s = 0.9);
        assert_fails(&before, &[criterion]);
    }
    let more = with("drops", |scene| scene.runs[0].run.outages.push(outage(0, 6.0, 6.5)));
    assert_fails(&more, &["detected@drops"]);
}

#[test]
fn each_kind_is_recovered_from_within_30_s() {
    for (kind, lasts) in [("drops", false), ("half_open", false), ("partition", true), ("silence", true)] {
        // A lasting fault ends at 11 s, the others strike at 4 s.
        let from_s = if lasts { 11.0 } else { 4.0 };
        let took = |s: Option<f64>| {
            with(kind, move |scene| scene.runs[0].run.outages[0].recovered_at_s = s.map(|s| from_s + s))
        };
        assert_fails(&took(Some(30.0)), &[]);
        assert_fails(&took(Some(30.001)), &[&format!("recovery@{kind}")]);
        assert_fails(&took(None), &[&format!("recovery@{kind}")]);
    }
    // What became of those that are not listed, nobody knows.
    let unlisted = with("silence", |scene| scene.runs[0].run.outages_not_listed = 1);
    assert_fails(&unlisted, &["recovery@silence"]);
    let kill = |s| with("kill", move |scene| scene.runs[0].run.outages[9].recovered_at_s = Some(1.0 + s));
    assert_fails(&kill(30.0), &[]);
    assert_fails(&kill(30.001), &["recovery@kill"]);
    let overload = |s| with("overload", move |scene| scene.runs[1].run.moments.last_answer_s = Some(1.0 + s));
    assert_fails(&overload(30.0), &[]);
    let measured = |criteria: &[CriterionOutcome], name: &str| {
        criteria.iter().find(|criterion| criterion.name == name).unwrap().measured.clone()
    };
    assert_eq!(measured(&overload(2.0), "recovery@overload"), "2.00 s");
    assert_eq!(measured(&kill(2.0), "recovery@kill"), "2.00 s");
    assert_fails(&overload(30.001), &["recovery@overload"]);
    assert_fails(
        &with("overload", |scene| scene.runs[1].run.moments.last_answer_s = None),
        &["recovery@overload"],
    );
}

#[test]
fn the_untouched_must_not_notice() {
    for kind in &KINDS {
        let rate =
            |share: f64| with(kind.name, move |scene| scene.runs[1].run.throughput.achieved_rate *= share);
        assert_fails(&rate(0.951), &[]);
        assert_fails(&rate(0.95), &[&format!("untouched_rate@{}", kind.name)]);
        let p95 = |us: f64| {
            with(kind.name, move |scene| scene.runs[1].run.latency_us.as_mut().unwrap().p95 = Some(us))
        };
        assert_fails(&p95(21_999.0), &[]);
        assert_fails(&p95(22_000.0), &[&format!("untouched_p95@{}", kind.name)]);
        let cut = with(kind.name, |scene| scene.runs[1].run.outages.push(outage(7, 1.0, 1.1)));
        assert_fails(&cut, &[&format!("untouched_cut@{}", kind.name)]);
    }
}

#[test]
fn afterwards_all_is_as_before() {
    let rate =
        |per_second| with("after", move |scene| scene.runs[0].run.throughput.achieved_rate = per_second);
    assert_fails(&rate(2_850.0), &[]);
    assert_fails(&rate(2_849.0), &["after_rate"]);
    let p95 = |us| with("after", move |scene| scene.runs[0].run.latency_us.as_mut().unwrap().p95 = Some(us));
    assert_fails(&p95(21_999.0), &[]);
    assert_fails(&p95(22_000.0), &["after_p95"]);
}

#[test]
fn nothing_is_lost_or_left_unsent_in_any_fault() {
    let lost = with("partition", |scene| {
        scene.runs[0].run.messages.counts.lost = 1;
        scene.runs[0].run.messages.missing_ids = vec!["r-0-1-2".to_owned()];
    });
    assert_fails(&lost, &["lost"]);
    let found = lost.iter().find(|criterion| criterion.name == "lost").unwrap();
    assert_eq!(found.evidence, ["1 at partition.touched, ids: r-0-1-2"]);
    let unsent = with("kill", |scene| scene.runs[0].run.messages.unsent = 2);
    assert_fails(&unsent, &["unsent"]);
    let found = unsent.iter().find(|criterion| criterion.name == "unsent").unwrap();
    assert_eq!((&*found.measured, &*found.evidence), ("2", &["2 at kill.all".to_owned()][..]));
    // Cuts that are not listed are cuts.
    let cut = with("baseline", |scene| {
        scene.runs[0].run.outages_not_listed = 2;
        scene.runs[0].run.connections.dropped = 1;
        scene.runs[0].run.connections.reasons = [("reset".to_owned(), 3)].into();
    });
    assert_fails(&cut, &["cut"]);
    let found = cut.iter().find(|criterion| criterion.name == "cut").unwrap();
    assert_eq!((&*found.measured, &*found.evidence), ("3", &["3 at baseline, 3 × reset".to_owned()][..]));
    let refused = with("overload", |scene| {
        scene.runs[0].run.windows.clear();
        scene.runs[1].run.messages.counts.refused = 1;
    });
    assert_fails(&refused, &[]);
    assert_fails(&with("silence", |scene| scene.runs[1].run.messages.counts.foreign = 1), &["foreign"]);
    assert_fails(&with("drops", |scene| scene.runs[0].run.messages.counts.corrupted = 1), &["corrupted"]);
    // Twelve loads of 10,000 are due.
    let duplicates = |count| with("drops", move |scene| scene.runs[0].run.messages.counts.duplicates = count);
    assert_fails(&duplicates(130), &[]);
    assert_fails(&duplicates(131), &["duplicates"]);
}

#[test]
fn what_only_our_own_server_can_do_is_skipped_on_others() {
    let criteria = of_server(false, "kill", |scene| scene.kills.clear());
    assert_eq!(named(&criteria, Verdict::Skipped), ["detected@kill", "recovery@kill"]);
    assert_fails(&with("kill", |scene| scene.kills.clear()), &["detected@kill"]);
    // A queue no longer than what is in work is none.
    let depth = |scene: &mut SceneEvidence, depth| scene.runs[0].run.windows[0].queue_depth_max = Some(depth);
    let criteria = of_server(false, "overload", |scene| depth(scene, 120));
    assert_eq!(named(&criteria, Verdict::Skipped), ["detected@overload"]);
    assert_fails(&with("overload", |scene| depth(scene, 120)), &["detected@overload"]);
    assert_fails(&with("overload", |scene| depth(scene, 121)), &[]);
}

#[test]
fn an_overload_that_the_generator_was_too_small_for_is_in_doubt() {
    let criteria = with("overload", |scene| {
        scene.runs[0].run.windows[0].queue_depth_max = Some(120);
        crate::result::example::starve(&mut scene.runs[1].run, 20);
    });
    let seen = criteria.iter().find(|criterion| criterion.name == "detected@overload").unwrap();
    assert_eq!(seen.verdict, Verdict::Inconclusive);
    assert!(seen.evidence[0].contains("it did not open 20 of 50 connections"), "{seen:?}");
    assert_eq!(named(&criteria, Verdict::Fail), [""; 0]);
}

#[test]
fn a_doubtful_machine_makes_timing_inconclusive_and_counts_not() {
    let criteria = with("drops", |scene| {
        scene.runs[1].run.resources.foreign_cpu_cores = Some(0.5);
        scene.runs[1].run.throughput.achieved_rate = 1.0;
        scene.runs[1].run.messages.counts.corrupted = 1;
    });
    assert_eq!(named(&criteria, Verdict::Inconclusive), ["untouched_rate@drops"]);
    assert_eq!(named(&criteria, Verdict::Fail), ["corrupted"]);
}

#[test]
fn the_full_size_touches_the_shares_of_the_requirements() {
    let config = config();
    // 5 %, 10 %, 15 % and 10 % of 50 connections; half a connection is a whole one.
    assert_eq!(KINDS.each_ref().map(|kind| touched(&config.recovery, kind)), [3, 5, 8, 5]);
    let plan = plan(&config);
    let names: Vec<&str> = plan.phases.iter().map(|phase| &*phase.name).collect();
    let expected = ["baseline", "drops", "half_open", "partition", "silence", "overload", "kill", "after"];
    assert_eq!(names, expected);
    for phase in &plan.phases {
        let Action::Scene(scene) = &phase.action else { panic!("{phase:?}") };
        let offered: f64 =
            scene.loads.iter().map(|load| load.workload.offered.rate().unwrap().as_per_second()).sum();
        let wanted = if phase.name == "overload" { 24_000.0 } else { 3_000.0 };
        assert!((offered - wanted).abs() < 1e-6, "{}: {offered}", phase.name);
    }
}

#[test]
fn each_fault_strikes_after_a_tenth_of_its_length_and_one_kind_of_drop_after_the_other() {
    let plan = plan(&config());
    let scene = |name: &str| {
        let phase = plan.phases.iter().find(|phase| phase.name == name).unwrap();
        let Action::Scene(scene) = &phase.action else { panic!("{phase:?}") };
        scene
    };
    let rules = |name: &str| scene(name).rules.iter().map(ToString::to_string).collect::<Vec<_>>();
    // For 10 s, beside loads that begin a second before.
    for kind in &KINDS {
        let spans = scene(kind.name).loads.iter().map(|load| load.workload.duration);
        assert!(spans.eq([Duration::from_secs(11); 2]), "{}", kind.name);
    }
    let from: Vec<Duration> = scene("drops").rules.iter().map(|rule| rule.schedule().from).collect();
    let step = Duration::from_secs(10) / 3;
    assert_eq!(from, [0, 1, 2].map(|n| Duration::from_secs(1) + step * n));
    assert_eq!(rules("partition"), ["partition=both,from=1s,for=10s,seed=1"]);
    assert_eq!(rules("silence"), ["silence=both,from=1s,for=10s,seed=1"]);
    assert_eq!(scene("kill").kills, [Duration::from_secs(1)]);
}
