//! Faults that `recovery` catches.

use super::planted::{Planted, Proof, by};

pub(super) const PROOF: Proof = Proof {
    case: "recovery",
    settings: &[
        ("recovery.rate", "1000"),
        ("recovery.connections", "20"),
        ("recovery.concurrency", "40"),
        ("recovery.baseline", "500ms"),
        ("recovery.fault", "1s"),
        ("recovery.ping_every", "200ms"),
        ("recovery.peer_dead_after", "600ms"),
        ("load.answer_timeout", "2s"),
    ],
    faults: &[Planted::evidence("loses-a-phase", |evidence| {
        evidence.phases.retain(|phase| phase.name != "kill")
    })
    .fails(&[by("missing_phases").measuring("1")])],
};
