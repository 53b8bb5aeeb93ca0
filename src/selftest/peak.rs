//! Faults that `peak` catches.

use super::planted::{Planted, Proof, by, follows};
use crate::result::LoadTestResults;
use crate::result::peak::PeakResults;

pub(super) const PROOF: Proof = Proof {
    case: "peak",
    settings: &[
        ("peak.ceiling_rate", "10000"),
        ("peak.connections", "20"),
        ("peak.hold", "200ms"),
        ("peak.confirm", "300ms"),
        ("peak.repeats", "1"),
        ("peak.burst_messages", "2000"),
        ("load.answer_timeout", "1s"),
    ],
    faults: &[
        Planted::server("can-do-3000-a-second", &["--processing-delay=10ms", "--concurrency=30"])
            .with(&[("load.answer_timeout", "10s")])
            .fails(&[by("peak_rate").naming(&["limited by the server"])]),
        Planted::search("loses-a-message", |found| {
            for_burst(found, |burst| {
                burst.messages.counts.answered -= 1;
                burst.messages.counts.lost += 1;
            });
        })
        .fails(&[
            by("lost").measuring("1").naming(&["1 at burst"]),
            by("burst_unanswered").measuring("1").naming(&["unsent 0, lost 1"]),
        ]),
        Planted::search("swaps-answers", |found| {
            for_burst(found, |burst| burst.messages.counts.reordered += 3)
        })
        .fails(&[by("reordered").measuring("3").naming(&["3 at burst"])]),
        Planted::search("loses-its-runs", |found| found.runs.clear()).fails(&[by("missing_phases")]),
    ],
};

fn for_burst(found: &mut PeakResults, edit: impl Fn(&mut LoadTestResults)) {
    found.runs.iter_mut().filter(|run| run.phase == "burst").for_each(|run| edit(&mut run.run));
}
