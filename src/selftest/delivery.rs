//! Faults that `delivery` catches.

use super::planted::{Planted, Proof, by, follows};
use crate::result::LoadTestResults;
use crate::run::plan::Evidence;

pub(super) const PROOF: Proof = Proof {
    case: "delivery",
    settings: &[
        // 2 s at 50 msg/s, killed once.
        ("delivery.messages", "100"),
        ("delivery.kill_period", "1200ms"),
        ("delivery.kills", "1"),
        ("load.answer_timeout", "700ms"),
    ],
    faults: &[&[
        Planted::server("loses-answers", &["--fault=lose-answers=2,among=10,seed=7"])
            .fails(&[by("lost").measuring("2"), follows("unanswered", NO_ANSWER).measuring("2")]),
        Planted::server("misnames-answers", &["--fault=misname-answers=1,among=10,seed=7"]).fails(&[
            by("foreign").measuring("1"),
            follows("lost", "the answer went to a message that was never sent").measuring("1"),
            follows("unanswered", NO_ANSWER).measuring("1"),
        ]),
        Planted::server("alters-answers", &["--fault=alter-answers=1,among=20,seed=7"])
            .fails(&[by("corrupted")]),
        Planted::server("repeats-answers", &["--fault=repeat-answers=2,among=20,seed=7"])
            .fails(&[by("duplicates")]),
        Planted::server("forgets-when-restarted", &["--fault=forget-on-start"])
            .fails(&[by("processed_twice")]),
        Planted::evidence("processes-what-was-never-sent", |evidence| {
            let journal = evidence.journal.get_or_insert_default();
            journal.insert("stranger-0-0-0".to_owned(), 1);
        })
        .fails(&[by("processed_unknown").measuring("1").naming(&["ids: stranger-0-0-0"])]),
        Planted::evidence("recovers-late", |evidence| {
            for_load(evidence, |run| {
                let first = run.outages.first_mut();
                first.into_iter().for_each(|outage| outage.recovered_at_s = Some(outage.lost_at_s + 5.5));
            });
        })
        .fails(&[by("recovery")]),
        Planted::evidence("resends-without-a-cut", |evidence| {
            for_load(evidence, |run| {
                let uncut = |n: u32| run.outages.iter().all(|outage| outage.connection != n);
                if let Some(n) = (0..run.workload.connections).find(|&n| uncut(n)) {
                    let connection = run.per_connection.iter_mut().find(|c| c.connection == n);
                    connection.into_iter().for_each(|connection| connection.counts.resent += 1);
                } else if let Some(connection) = run.per_connection.first_mut() {
                    connection.counts.resent += 1_000;
                }
            });
        })
        .fails(&[by("timeout_resends")]),
        Planted::evidence("is-not-killed", |evidence| {
            let scenes = evidence.phases.iter_mut().filter_map(|phase| phase.scene.as_mut());
            scenes.for_each(|scene| scene.kills.clear());
        })
        .fails(&[by("faults_injected").naming(&["not killed as often as planned"])]),
        Planted::evidence("drops-a-connection-for-good", |evidence| {
            for_load(evidence, |run| run.connections.dropped += 1);
        })
        .fails(&[by("connections").measuring("19")]),
        Planted::evidence("loses-its-load", |evidence| {
            let scenes = evidence.phases.iter_mut().filter_map(|phase| phase.scene.as_mut());
            scenes.for_each(|scene| scene.runs.clear());
        })
        .fails(&[by("missing_phases").measuring("1")]),
    ]],
};

const NO_ANSWER: &str = "what is lost has no answer";

fn for_load(evidence: &mut Evidence, edit: impl FnMut(&mut LoadTestResults)) {
    let scenes = evidence.phases.iter_mut().filter_map(|phase| phase.scene.as_mut());
    scenes.flat_map(|scene| &mut scene.runs).map(|named| &mut *named.run).for_each(edit);
}
