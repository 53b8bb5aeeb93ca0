//! A case beside the nine: are those without a good token kept out, and those with one left in peace?
//!
//! The load of those who are let in is offered twice: alone, and while others try to get in, without a token, with a wrong
//! one, with one that has expired, and with one that expires meanwhile. Our own server is given the tokens, and deals its
//! connections among several identities; another's are those that the user names.

use super::comparison::{p95_as_before, rate_kept};
use super::criteria::{counted, skipped};
use super::load::{connections_over, counting_over, unanswered_over};
use super::{Body, Case, Need, workload};
use crate::config::HighVolumeConfig;
use crate::result::{CriterionOutcome, LoadTestResults, Verdict};
use crate::run::plan::{Action, Bearer, Evidence, Locks, Phase, Plan};
use crate::run::scene::{Load, Manner, Probe, ProbeEvidence, Scene, SceneEvidence};
use crate::units;
use crate::workload::{Offered, Workload};

pub(super) const CASE: Case = Case {
    name: "auth",
    question: "are those without a good token kept out, and those with one left in peace?",
    needs: &[Need::Tokens],
    body: Body::Planned { plan, judge },
};

const ALONE: &str = "alone";
const SIEGE: &str = "siege";
const BESIEGED: &str = "besieged";

/// Who must not come in: the probe's name, what it brings, and the criterion.
const KEPT_OUT: [(&str, Bearer, &str); 3] = [
    ("without", Bearer::Nothing, "unauthenticated_admitted"),
    ("wrong", Bearer::Wrong, "wrong_token_admitted"),
    ("expired", Bearer::Expired, "expired_admitted"),
];
/// Who may come in and not stay.
const EXPIRING: &str = "expiring";
/// Connections with a token that expires: one to each of a few workers.
const EXPIRING_CONNECTIONS: u32 = 3;
/// The statuses by which a server says that the token is not good (RFC 9110, sections 15.5.2 and 15.5.4).
const TOLD: [u16; 2] = [401, 403];

fn plan(config: &HighVolumeConfig) -> Plan {
    let case = &config.auth;
    let load = |duration| Workload {
        offered: Offered::Rate(case.rate),
        connections: case.connections,
        duration,
        ..workload(config)
    };
    let often = KEPT_OUT.map(|(name, bearer, _)| Probe {
        name: name.to_owned(),
        bearer,
        manner: Manner::Often(case.attempts),
    });
    let expiring = Probe {
        name: EXPIRING.to_owned(),
        bearer: Bearer::Expiring,
        manner: Manner::Stay(EXPIRING_CONNECTIONS),
    };
    let scene = Scene {
        loads: vec![Load::new(BESIEGED, load(case.siege))],
        probes: often.into_iter().chain([expiring]).collect(),
        ..Scene::default()
    };
    Plan {
        // In the middle of the siege.
        locks: Some(Locks { identities: case.identities, good_for: case.siege / 2 }),
        phases: vec![
            Phase::new(ALONE, Action::Load(load(case.baseline))),
            Phase::new(SIEGE, Action::Scene(scene)),
        ],
        ..Plan::default()
    }
}

fn judge(config: &HighVolumeConfig, evidence: &Evidence) -> Vec<CriterionOutcome> {
    let (Some(alone), Some(besieged), Some(scene)) =
        (evidence.run(ALONE), evidence.run(BESIEGED), evidence.scene(SIEGE))
    else {
        return Vec::new();
    };
    let mut criteria: Vec<CriterionOutcome> =
        KEPT_OUT.map(|(probe, _, name)| kept_out(name, probe_of(scene, probe))).to_vec();
    criteria.push(expired_cut(probe_of(scene, EXPIRING)));
    criteria.push(refusals_told(scene));
    let (limits, own) = (&config.limits, &config.auth.limits);
    let expected = alone.throughput.achieved_rate;
    criteria.push(rate_kept("authenticated_rate", limits, expected, [alone, besieged], own.rate_drop_ratio));
    let p95 = (own.p95_factor, own.p95_floor);
    criteria.push(p95_as_before("authenticated_p95", limits, alone, besieged, p95));
    criteria.extend(counts(&[(ALONE, alone), (BESIEGED, besieged)]));
    criteria
}

/// Nothing is lost, doubled or altered, and nobody gets what was meant for somebody else.
fn counts(runs: &[(&str, &LoadTestResults)]) -> Vec<CriterionOutcome> {
    let mut criteria = counting_over(runs);
    // An answer to an id of another connection: of the connections in turn each has another identity.
    for foreign in criteria.iter_mut().filter(|criterion| criterion.name == "foreign") {
        foreign.name = "cross_talk".to_owned();
    }
    criteria.push(unanswered_over("unanswered", runs));
    criteria.push(connections_over(runs));
    criteria
}

fn probe_of<'a>(scene: &'a SceneEvidence, name: &str) -> Option<&'a ProbeEvidence> {
    scene.probes.iter().find(|probe| probe.name == name)
}

/// Nobody of these was let in.
fn kept_out(name: &str, probe: Option<&ProbeEvidence>) -> CriterionOutcome {
    let limit = "0".to_owned();
    let Some(probe) = probe else { return untried(name, limit) };
    if let Some(why) = &probe.unavailable {
        return skipped(name, limit, why);
    }
    if let Some(in_doubt) = unmade(name, &limit, &[probe]) {
        return in_doubt;
    }
    let measured = format!("{} of {}", units::count(probe.admitted), units::count(probe.attempts));
    counted(name, limit, measured, probe.admitted == 0 && probe.attempts > 0, [])
}

/// Whoever came in by a token that then expired was shown out.
fn expired_cut(probe: Option<&ProbeEvidence>) -> CriterionOutcome {
    let (name, limit) = ("expired_cut", "every connection of a token that expires".to_owned());
    let Some(probe) = probe else { return untried(name, limit) };
    if let Some(why) = &probe.unavailable {
        return skipped(name, limit, why);
    }
    if let Some(in_doubt) = unmade(name, &limit, &[probe]) {
        return in_doubt;
    }
    let measured = format!("{} of {}", units::count(probe.cut), units::count(probe.attempts));
    let holds = probe.cut == probe.attempts && probe.cut > 0;
    let refused: u64 = probe.refused.values().sum();
    let why = format!(
        "{} were let in, {} refused, {} got no answer",
        units::count(probe.admitted),
        units::count(refused),
        units::count(probe.failed)
    );
    counted(name, limit, measured, holds, [why])
}

/// Whoever was kept out was told why, by the status for it.
fn refusals_told(scene: &SceneEvidence) -> CriterionOutcome {
    let (name, limit) = ("refusals_told", "every one, by 401 or 403".to_owned());
    let probes: Vec<&ProbeEvidence> =
        KEPT_OUT.iter().filter_map(|(probe, ..)| probe_of(scene, probe)).collect();
    let tried = || probes.iter().filter(|probe| probe.unavailable.is_none());
    if let Some(why) = probes.iter().find_map(|probe| probe.unavailable.as_ref())
        && tried().next().is_none()
    {
        return skipped(name, limit, why);
    }
    let all: Vec<&ProbeEvidence> = tried().copied().collect();
    if let Some(in_doubt) = unmade(name, &limit, &all) {
        return in_doubt;
    }
    let attempts: u64 = tried().map(|probe| probe.attempts).sum();
    let admitted: u64 = tried().map(|probe| probe.admitted).sum();
    let told: u64 =
        tried().flat_map(|probe| TOLD.iter().filter_map(|status| probe.refused.get(status))).sum();
    let untold = attempts.saturating_sub(admitted + told);
    let measured = format!("{} told, {} not", units::count(told), units::count(untold));
    let others = tried().flat_map(|probe| &probe.refused).filter(|(status, _)| !TOLD.contains(status));
    let others = others.map(|(status, count)| format!("{} × HTTP {status}", units::count(*count)));
    let failures = tried().filter_map(|probe| {
        Some(format!("{} × {}", units::count(probe.failed), probe.first_failure.as_ref()?))
    });
    counted(name, limit, measured, untold == 0 && attempts > 0, others.chain(failures))
}

/// In doubt where every attempt failed for want of something of the generator's own: nothing got as far as the server.
fn unmade(name: &str, limit: &str, probes: &[&ProbeEvidence]) -> Option<CriterionOutcome> {
    let lacked = probes.iter().find_map(|probe| probe.first_unmade.as_ref())?;
    probes.iter().all(|probe| probe.attempts == 0).then(|| CriterionOutcome {
        name: name.to_owned(),
        limit: limit.to_owned(),
        measured: "none".to_owned(),
        verdict: Verdict::Inconclusive,
        evidence: vec![format!("the generator could make no attempt: {lacked}")],
    })
}

fn untried(name: &str, limit: String) -> CriterionOutcome {
    counted(name, limit, "none".to_owned(), false, ["nobody tried to get in".to_owned()])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_fails, judged, loaded, named, run, seen};
    use super::*;
    use crate::run::plan::PhaseEvidence;
    use crate::run::scene::NamedRun;

    /// Everybody treated as they should be.
    fn clean() -> (LoadTestResults, Vec<ProbeEvidence>) {
        let mut besieged = run(5_000.0, 20);
        besieged.latency_us.as_mut().unwrap().p95 = Some(9_000.0);
        let probe = |name: &str| ProbeEvidence {
            name: name.to_owned(),
            attempts: 100,
            refused: [(401, 100)].into(),
            ..ProbeEvidence::default()
        };
        let mut probes: Vec<ProbeEvidence> = KEPT_OUT.iter().map(|(name, ..)| probe(name)).collect();
        probes.push(ProbeEvidence {
            name: EXPIRING.to_owned(),
            attempts: 3,
            admitted: 3,
            cut: 3,
            ..ProbeEvidence::default()
        });
        (besieged, probes)
    }

    fn with(edit: impl Fn(&mut LoadTestResults, &mut [ProbeEvidence])) -> Vec<CriterionOutcome> {
        let (mut besieged, mut probes) = clean();
        edit(&mut besieged, &mut probes);
        let named = NamedRun { name: BESIEGED.to_owned(), run: Box::new(besieged) };
        let scene = SceneEvidence { runs: vec![named], probes, ..SceneEvidence::default() };
        let siege = PhaseEvidence { scene: Some(scene), ..PhaseEvidence::of(SIEGE) };
        judged(&CASE, &seen(vec![loaded(ALONE, run(5_000.0, 20)), siege]))
    }

    #[test]
    fn each_wrong_thing_fails_its_criterion_alone() {
        type Edit = fn(&mut LoadTestResults, &mut [ProbeEvidence]);
        let cases: [(&[&str], Edit); 12] = [
            (&[], |_, _| {}),
            (&["unauthenticated_admitted"], |_, p| (p[0].admitted, p[0].refused) = (1, [(401, 99)].into())),
            (&["wrong_token_admitted"], |_, p| (p[1].admitted, p[1].refused) = (1, [(401, 99)].into())),
            (&["expired_admitted"], |_, p| (p[2].admitted, p[2].refused) = (1, [(403, 99)].into())),
            (&["expired_cut"], |_, p| p[3].cut = 2),
            (&["expired_cut"], |_, p| p[3] = ProbeEvidence { name: EXPIRING.into(), ..Default::default() }),
            (&["refusals_told"], |_, p| (p[0].failed, p[0].refused) = (1, [(401, 99)].into())),
            (&["refusals_told"], |_, p| p[0].refused = [(401, 99), (500, 1)].into()),
            (&["authenticated_rate"], |run, _| run.throughput.achieved_rate = 4_750.0),
            (&["authenticated_p95"], |run, _| run.latency_us.as_mut().unwrap().p95 = Some(10_000.0)),
            (&["cross_talk"], |run, _| run.messages.counts.foreign = 1),
            (&["connections"], |run, _| run.connections.dropped = 1),
        ];
        for (names, edit) in cases {
            assert_fails(&with(edit), names);
        }
        let other = with(|_, p| p[0].refused = [(401, 99), (500, 1)].into());
        let told = other.iter().find(|criterion| criterion.name == "refusals_told").unwrap();
        assert_eq!(told.evidence, ["1 × HTTP 500"]);
    }

    #[test]
    fn attempts_that_the_generator_could_not_make_are_no_fault_of_the_server() {
        let starved = |attempts: u64| {
            with(move |_, probes| {
                probes.iter_mut().for_each(|probe| {
                    let told = [(401, attempts)].into();
                    let stays = probe.name == EXPIRING;
                    (probe.attempts, probe.unmade) = (attempts, 3);
                    probe.first_unmade = Some("no more open files".to_owned());
                    (probe.admitted, probe.cut) = if stays { (attempts, attempts) } else { (0, 0) };
                    probe.refused = if stays { [].into() } else { told };
                });
            })
        };
        assert_fails(&starved(2), &[]);
        let nothing = starved(0);
        assert_eq!(named(&nothing, Verdict::Inconclusive).len(), 5, "{nothing:#?}");
        assert_eq!(named(&nothing, Verdict::Fail), [""; 0]);
        // One who was let in was let in.
        let open = with(|_, probes| {
            (probes[0].unmade, probes[0].admitted, probes[0].refused) = (3, 1, [(401, 99)].into());
        });
        assert_fails(&open, &["unauthenticated_admitted"]);
    }

    #[test]
    fn where_nothing_could_be_tried_nothing_is_judged() {
        let skipped = with(|_, probes| {
            probes.iter_mut().for_each(|probe| {
                *probe = ProbeEvidence {
                    name: probe.name.clone(),
                    unavailable: Some("no token is known".to_owned()),
                    ..ProbeEvidence::default()
                };
            });
        });
        assert_fails(&skipped, &[]);
        let names = [
            "unauthenticated_admitted",
            "wrong_token_admitted",
            "expired_admitted",
            "expired_cut",
            "refusals_told",
        ];
        assert_eq!(named(&skipped, Verdict::Skipped), names);
    }
}
