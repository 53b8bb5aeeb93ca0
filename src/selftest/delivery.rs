//! Faults that `delivery` catches.
//!
//! A server that is killed is started again with the same faults, so how often they strike depends on the kill, and only what
//! they hit in its first life is named.

use super::planted::{IN_VAIN, PATIENT, Planted, Proof, by, follows, may};
use crate::result::LoadTestResults;
use crate::run::plan::Evidence;
use crate::run::scene::SceneEvidence;

pub(super) const PROOF: Proof = Proof {
    case: "delivery",
    settings: &[
        // 2 s at 50 msg/s, killed once.
        ("delivery.messages", "100"),
        ("delivery.kill_period", "1200ms"),
        ("delivery.kills", "1"),
        PATIENT,
    ],
    faults: &[
        &[
            Planted::server("loses-answers", &["--fault=lose-answers=2,among=10,seed=7"])
                .with(IN_VAIN)
                .fails(&[
                    by("lost").naming(&["-0-0-0", "-0-1-0"]),
                    by("unanswered"),
                    may("recovery", NOT_RECOVERED),
                ]),
            Planted::server("misnames-answers", &["--fault=misname-answers=1,among=10,seed=7"])
                .with(IN_VAIN)
                .fails(&[
                    by("foreign").naming(&["nobody-", "-0-0-0\""]),
                    follows("lost", "the answer went to a message that was never sent"),
                    follows("unanswered", "what is lost has no answer"),
                    may("recovery", NOT_RECOVERED),
                ]),
            Planted::server("alters-answers", &["--fault=alter-answers=1,among=20,seed=7"])
                .fails(&[by("corrupted").naming(&["-0-1-0"])]),
            Planted::server("repeats-answers", &["--fault=repeat-answers=2,among=20,seed=7"])
                .fails(&[by("duplicates").naming(&["-0-1-0", "-0-3-0"])]),
            Planted::server("forgets-when-restarted", &["--fault=forget-on-start"])
                .fails(&[by("processed_twice")]),
            Planted::server("marks-processed-at-admission", &["--fault=processed-at-admission"])
                .fails(&[by("not_processed")]),
        ],
        &[
            Planted::evidence("a-stranger-processed", |evidence| {
                let journal = evidence.journal.get_or_insert_default();
                journal.insert("stranger-0-0-0".to_owned(), 1);
            })
            .fails(&[by("processed_unknown").measuring("1").naming(&["ids: stranger-0-0-0"])]),
            Planted::evidence("an-outage-of-6-s", |evidence| {
                load(evidence, |run| {
                    let first = run.outages.iter_mut().take(1);
                    first.for_each(|outage| outage.recovered_at_s = Some(outage.lost_at_s + 6.0));
                });
            })
            .fails(&[by("recovery")]),
            Planted::evidence("a-message-sent-again-without-a-cut", |evidence| {
                // No more was resent than was unanswered at a cut, on any connection.
                load(evidence, |run| {
                    for connection in run.per_connection.iter_mut().take(1) {
                        let cuts =
                            run.outages.iter().filter(|outage| outage.connection == connection.connection);
                        connection.counts.resent = cuts.map(|outage| outage.unanswered).sum::<u64>() + 1;
                    }
                });
            })
            .fails(&[by("timeout_resends").measuring("1")]),
            Planted::evidence("the-kill-missing", |evidence| scene(evidence, |scene| scene.kills.clear()))
                .fails(&[by("faults_injected").naming(&["not killed as often as planned"])]),
            Planted::evidence("a-connection-dropped-for-good", |evidence| {
                load(evidence, |run| run.connections.dropped += 1);
            })
            .fails(&[by("connections").measuring("19")]),
            Planted::evidence("the-load-missing", |evidence| scene(evidence, |scene| scene.runs.clear()))
                .fails(&[by("missing_phases").measuring("1")]),
        ],
    ],
};

const NOT_RECOVERED: &str = "an outage is not over while something has no answer";

fn scene(evidence: &mut Evidence, edit: impl FnMut(&mut SceneEvidence)) {
    evidence.phases.iter_mut().filter_map(|phase| phase.scene.as_mut()).for_each(edit);
}

fn load(evidence: &mut Evidence, edit: impl FnMut(&mut LoadTestResults)) {
    evidence.runs_mut().map(|(_, run)| run).for_each(edit);
}
