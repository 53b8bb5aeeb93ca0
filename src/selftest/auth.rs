//! Faults that `auth` catches.

use super::planted::{PATIENT, Planted, Proof, by, may};

pub(super) const PROOF: Proof = Proof {
    case: "auth",
    settings: &[("auth.baseline", "300ms"), ("auth.siege", "500ms"), ("load.ramp", "0s"), PATIENT],
    faults: &[&[
        Planted::server("lets-anybody-in", &["--fault=open-door"]).fails(&[
            by("unauthenticated_admitted"),
            by("wrong_token_admitted"),
            by("expired_admitted"),
            by("expired_cut").measuring("0 of 3"),
        ]),
        Planted::server("mixes-up-identities", &["--fault=cross-talk=3,among=1000,seed=7"]).fails(&[by(
            "cross_talk",
        )
        .measuring("3")
        .naming(&["3 at alone"])]),
        Planted::server("pays-for-refusals", &["--fault=costly-refusals=5ms"]).fails(&[
            by("authenticated_p95"),
            may("authenticated_rate", "while the server stands still it answers nobody"),
        ]),
        Planted::evidence("refuses-without-a-word", |evidence| {
            let probes = evidence.phases.iter_mut().filter_map(|phase| phase.scene.as_mut());
            if let Some(first) = probes.flat_map(|scene| &mut scene.probes).next() {
                first.refused.clear();
                first.failed = first.attempts;
                first.first_failure = Some("it closed the connection".to_owned());
            }
        })
        .fails(&[by("refusals_told").naming(&["it closed the connection"])]),
        Planted::last_run("serves-less-besieged", |run| run.throughput.achieved_rate *= 0.9)
            .fails(&[by("authenticated_rate")]),
        Planted::last_run("a-message-lost", |run| run.messages.counts.lost += 1)
            .fails(&[by("lost").measuring("1")]),
        Planted::last_run("an-answer-reordered", |run| run.messages.counts.reordered += 1)
            .fails(&[by("reordered").measuring("1")]),
        Planted::last_run("an-answer-repeated", |run| run.messages.counts.duplicates += 1)
            .fails(&[by("duplicates").measuring("1")]),
        Planted::last_run("an-answer-altered", |run| run.messages.counts.corrupted += 1)
            .fails(&[by("corrupted").measuring("1")]),
        Planted::last_run("a-connection-dropped", |run| run.connections.dropped += 1)
            .fails(&[by("connections")]),
        Planted::last_run("a-message-unanswered", |run| run.messages.counts.answered -= 1)
            .fails(&[by("unanswered").measuring("1")]),
        Planted::evidence("loses-a-phase", |evidence| evidence.phases.truncate(1)).fails(&[by(
            "missing_phases",
        )
        .measuring("1")
        .naming(&["no evidence of phase `siege`"])]),
    ]],
};
