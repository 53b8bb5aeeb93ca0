//! Faults that `memory` catches.

use super::planted::{Planted, Proof, by, follows};
use crate::run::plan::{Evidence, MemorySample};

pub(super) const PROOF: Proof = Proof {
    case: "memory",
    settings: &[
        ("memory.fill_messages", "2000"),
        ("memory.duration", "3s"),
        ("memory.warm_up", "1s"),
        ("memory.idle", "300ms"),
        ("memory.connections", "20"),
        ("load.ramp", "0"),
        ("load.answer_timeout", "500ms"),
    ],
    faults: &[
        Planted::server("leaks-64-bytes-a-message", &["--fault=leak=64B"]).fails(&[by("server_leak")]),
        Planted::server("fills-too-little", &["--fault=lose-answers=3,among=2000,seed=7"])
            .fails(&[by("unfilled").measuring("3")]),
        Planted::server("drops-one-in-100", &["--fault=drop-answers=0.01,seed=1"]).fails(&[
            by("lost"),
            by("delivery"),
            follows("unfilled", "the filling has its share of the dropped"),
        ]),
        Planted::server("swaps-answers", &["--fault=swap-answers=30,among=31000,seed=7"])
            .fails(&[by("reordered")]),
        Planted::server("repeats-answers", &["--fault=repeat-answers=30,among=31000,seed=7"])
            .fails(&[by("duplicates")]),
        Planted::server("misnames-answers", &["--fault=misname-answers=30,among=31000,seed=7"]).fails(&[
            by("foreign"),
            follows("lost", "the answer went to a message that was never sent"),
            follows("unfilled", "so did some of the filling"),
        ]),
        Planted::server("alters-answers", &["--fault=alter-answers=30,among=31000,seed=7"])
            .fails(&[by("corrupted")]),
        Planted::server("refuses-connection", &["--fault=refuse-connection=30"])
            .fails(&[by("connections").measuring("19"), follows("delivery", "its share was never sent")]),
        Planted::evidence("has-a-gap-in-the-statistics", |evidence| {
            let watched = evidence.phases.iter_mut().filter(|phase| phase.name == "load");
            watched.for_each(|phase| phase.memory.retain(|sample| sample.t_s < 2.0));
        })
        .fails(&[by("statistics")]),
        Planted::evidence("leaks-in-the-client", |evidence| {
            for_samples(evidence, |sample| {
                let leaked = sample.processed.map(|processed| processed * 2);
                sample.client_live_bytes =
                    sample.client_live_bytes.zip(leaked).map(|(live, leaked)| live + leaked);
            });
        })
        .fails(&[by("client_leak")]),
        Planted::evidence("keeps-memory-in-the-client", |evidence| {
            let after = ["load", "loaded", "idled", "purged"];
            let phases = evidence.phases.iter_mut().filter(|phase| after.contains(&&*phase.name));
            for sample in phases.flat_map(|phase| &mut phase.memory) {
                sample.client_live_bytes = sample.client_live_bytes.map(|live| live + 100_000_000);
            }
        })
        .fails(&[by("client_given_back")]),
        Planted::evidence("grows-in-the-client", |evidence| {
            for run in evidence.phases.iter_mut().filter_map(|phase| phase.run.as_mut()) {
                let process = run.resources.client.as_mut().and_then(|client| client.peak_rss_bytes.as_mut());
                process.into_iter().for_each(|peak| *peak += 300_000_000);
            }
        })
        .fails(&[by("client_growth")]),
        Planted::evidence("loses-a-phase", |evidence| evidence.phases.retain(|phase| phase.name != "fill"))
            .fails(&[by("missing_phases").measuring("1")]),
    ],
};

fn for_samples(evidence: &mut Evidence, edit: impl FnMut(&mut MemorySample)) {
    evidence.phases.iter_mut().flat_map(|phase| &mut phase.memory).for_each(edit);
}
