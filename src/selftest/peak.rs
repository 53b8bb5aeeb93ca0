//! Faults that `peak` catches.

use super::planted::{MISCOUNTED, Planted, Proof, by};

pub(super) const PROOF: Proof = Proof {
    case: "peak",
    settings: &[
        ("peak.ceiling_rate", "10000"),
        ("peak.connections", "20"),
        ("peak.hold", "200ms"),
        ("peak.confirm", "300ms"),
        ("peak.repeats", "1"),
        ("peak.burst_messages", "2000"),
    ],
    faults: &[
        &[Planted::server("can-do-3000-a-second", &["--processing-delay=10ms", "--concurrency=30"])
            .with(&[("peak.resolution_ratio", "0.5")])
            .fails(&[by("peak_rate").naming(&["limited by the server"])])],
        &[
            Planted::search("one-of-the-burst-without-a-word", |found| {
                let burst = found.runs.iter_mut().filter(|run| run.phase == "burst");
                burst.for_each(|burst| burst.run.messages.counts.answered -= 1);
            })
            .fails(&[by("burst_unanswered").measuring("1")]),
            Planted::search("the-burst-missing", |found| found.runs.retain(|run| run.phase != "burst"))
                .fails(&[by("missing_phases").measuring("1").naming(&["no evidence of phase `burst`"])]),
        ],
        &MISCOUNTED,
    ],
};
