//! Faults that `recovery` catches.

use super::planted::{Planted, Proof, by, follows, may};
use crate::result::LoadTestResults;
use crate::run::plan::Evidence;

/// What must hold of each kind of fault, wrong in the evidence of one.
macro_rules! of_kind {
    ($kind:literal) => {
        [
            Planted::evidence(concat!("an-outage-unnoticed-", $kind), |evidence| {
                edit(evidence, concat!($kind, ".touched"), unnoticed);
            })
            .fails(&[
                by(concat!("detected@", $kind)),
                may(concat!("recovery@", $kind), "without an outage there is nothing to recover from"),
            ]),
            Planted::evidence(concat!("an-outage-for-good-", $kind), |evidence| {
                edit(evidence, concat!($kind, ".touched"), |run| {
                    run.outages.iter_mut().take(1).for_each(|outage| outage.recovered_at_s = None);
                });
            })
            .fails(&[by(concat!("recovery@", $kind)).measuring("1 never recovered")]),
            Planted::evidence(concat!("others-served-less-", $kind), |evidence| {
                edit(evidence, concat!($kind, ".untouched"), |run| run.throughput.achieved_rate *= 0.9);
            })
            .fails(&[by(concat!("untouched_rate@", $kind))]),
            Planted::evidence(concat!("others-served-later-", $kind), |evidence| {
                edit(evidence, concat!($kind, ".untouched"), slower);
            })
            .fails(&[by(concat!("untouched_p95@", $kind)).measuring("1.00 s")]),
            Planted::evidence(concat!("another-cut-", $kind), |evidence| {
                edit(evidence, concat!($kind, ".untouched"), |run| run.connections.dropped += 1);
            })
            .fails(&[by(concat!("untouched_cut@", $kind)).measuring("1")]),
        ]
    };
}

pub(super) const PROOF: Proof = Proof {
    case: "recovery",
    settings: &[
        ("recovery.rate", "1000"),
        ("recovery.connections", "20"),
        ("recovery.concurrency", "40"),
        ("recovery.baseline", "300ms"),
        ("recovery.fault", "700ms"),
        ("recovery.overload_time_ratio", "0.2"),
        ("recovery.ping_every", "150ms"),
        ("recovery.peer_dead_after", "450ms"),
        ("load.answer_timeout", "2s"),
    ],
    faults: &[
        &[
            // Three connections of the baseline: one ends without a close frame, one is shut down by half, one goes silent.
            Planted::server(
                "ends-three-connections-badly",
                &[
                    "--fault=cut-connections=1,among=100,seed=7",
                    "--fault=half-close=3,at=100ms",
                    "--fault=silent-connection=5,at=100ms",
                ],
            )
            .fails(&[by("cut").measuring("3").naming(&[
                "3 at baseline",
                "2 × connection lost without a close frame",
                "1 × no sign of life for 450 ms",
            ])]),
            // What is lost never comes back, however long one waits, and the next phase finds nobody.
            Planted::server("accepts-nobody-after-a-loss", &["--fault=deaf-after-loss=60s"])
                .with(&[("recovery.limits.recovery_within", "1500ms")])
                .fails(&[
                    by("recovery@drops"),
                    by("missing_phases").naming(&["the server was there, and then it was not"]),
                    may("detected@drops", "what strikes an attempt to come back is no outage"),
                    follows("unsent", DEAF),
                    may("lost", DEAF),
                    may("cut", DEAF),
                ]),
            Planted::server("one-lost-slows-all", &["--fault=bad-neighbour=200ms"]).fails(&[
                by("untouched_p95@drops"),
                may("untouched_p95@half_open", LOSES),
                may("untouched_p95@partition", LOSES),
                may("untouched_p95@silence", LOSES),
            ]),
        ],
        &of_kind!("drops"),
        &of_kind!("half_open"),
        &of_kind!("partition"),
        &of_kind!("silence"),
        &[
            Planted::evidence("an-overload-without-a-sign", |evidence| {
                for (_, run) in evidence.runs_mut().filter(|(name, _)| name.starts_with("overload")) {
                    run.windows.iter_mut().for_each(|window| window.queue_depth_max = Some(0));
                    run.messages.counts.refused = 0;
                    run.moments.first_backpressure_s = None;
                }
            })
            .fails(&[by("detected@overload")]),
            Planted::evidence("an-overload-worked-off-too-late", |evidence| {
                edit(evidence, "overload.extra", |run| {
                    run.moments.last_answer_s = Some(run.offered_for_s + 31.0);
                });
            })
            .fails(&[by("recovery@overload").measuring("31.0 s")]),
            Planted::evidence("a-kill-unnoticed", |evidence| {
                edit(evidence, "kill.all", |run| run.outages.retain(|outage| outage.connection != 3));
            })
            .fails(&[by("detected@kill").measuring("19")]),
            Planted::evidence("a-kill-for-good", |evidence| {
                edit(evidence, "kill.all", |run| {
                    run.outages.iter_mut().take(1).for_each(|outage| outage.recovered_at_s = None);
                });
            })
            .fails(&[by("recovery@kill").measuring("1 never recovered")]),
            Planted::evidence("less-achieved-afterwards", |evidence| {
                edit(evidence, "after", |run| run.throughput.achieved_rate *= 0.9);
            })
            .fails(&[by("after_rate")]),
            Planted::evidence("slower-afterwards", |evidence| edit(evidence, "after", slower))
                .fails(&[by("after_p95").measuring("1.00 s")]),
        ],
        &[
            Planted::evidence("a-message-lost", |evidence| {
                edit(evidence, "kill.all", |run| run.messages.counts.lost += 1);
            })
            .fails(&[by("lost").measuring("1").naming(&["1 at kill.all"])]),
            Planted::evidence("a-message-unsent", |evidence| {
                edit(evidence, "after", |run| run.messages.unsent += 1);
            })
            .fails(&[by("unsent").measuring("1").naming(&["1 at after"])]),
            Planted::evidence("a-connection-cut", |evidence| {
                edit(evidence, "baseline", |run| run.connections.dropped += 1);
            })
            .fails(&[by("cut").measuring("1").naming(&["1 at baseline"])]),
            Planted::evidence("an-answer-misnamed", |evidence| {
                edit(evidence, "after", |run| run.messages.counts.foreign += 1);
            })
            .fails(&[by("foreign").measuring("1").naming(&["1 at after"])]),
            Planted::evidence("an-answer-altered", |evidence| {
                edit(evidence, "after", |run| run.messages.counts.corrupted += 1);
            })
            .fails(&[by("corrupted").measuring("1").naming(&["1 at after"])]),
            Planted::evidence("many-answers-repeated", |evidence| {
                edit(evidence, "after", |run| run.messages.counts.duplicates += 100);
            })
            .fails(&[by("duplicates")]),
            Planted::evidence("a-phase-missing", |evidence| {
                evidence.phases.retain(|phase| phase.name != "kill");
            })
            .fails(&[by("missing_phases").measuring("1")]),
        ],
    ],
};

const DEAF: &str = "a connection that does not come back has nobody to send to";
const LOSES: &str = "this kind loses connections too";

fn edit(evidence: &mut Evidence, name: &str, edit: impl FnMut(&mut LoadTestResults)) {
    evidence.runs_mut().filter(|(run, _)| *run == name).map(|(_, run)| run).for_each(edit);
}

/// The outages of one connection are lost, or one of them where there is no other connection.
fn unnoticed(run: &mut LoadTestResults) {
    let Some(last) = run.outages.pop() else { return };
    let of_others = run.outages.iter().any(|outage| outage.connection != last.connection);
    run.outages.retain(|outage| !of_others || outage.connection != last.connection);
}

fn slower(run: &mut LoadTestResults) {
    run.latency_us.iter_mut().for_each(|latency| latency.p95 = Some(1e6));
}
