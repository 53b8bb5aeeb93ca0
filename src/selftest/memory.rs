//! Faults that `memory` catches.

use super::planted::{MISCOUNTED, Planted, Proof, by};
use crate::result::Resources;
use crate::run::plan::{Evidence, MemorySample};
use crate::sampler::ProcessSummary;

pub(super) const PROOF: Proof = Proof {
    case: "memory",
    settings: &[("memory.fill_messages", "2000"), ("memory.idle", "300ms"), ("load.ramp", "0")],
    faults: &[
        &[Planted::server("leaks-64-bytes-a-message", &["--fault=leak=64B"]).fails(&[by("server_leak")])],
        &[
            Planted::evidence("a-gap-in-the-statistics", |evidence| {
                samples(evidence, &["load"], |memory| memory.retain(|sample| sample.t_s < 2.0));
            })
            .fails(&[by("statistics")]),
            Planted::evidence("a-leak-in-the-client", |evidence| {
                samples(evidence, &["load"], |memory| {
                    for sample in memory {
                        let leaked = sample.processed.map(|processed| processed * 64);
                        sample.client_live_bytes =
                            sample.client_live_bytes.zip(leaked).map(|(live, leaked)| live + leaked);
                    }
                });
            })
            .fails(&[by("client_leak")]),
            Planted::evidence("memory-kept-by-the-client", |evidence| {
                samples(evidence, &["load", "idled"], |memory| {
                    for sample in memory {
                        sample.client_live_bytes = sample.client_live_bytes.map(|live| live + 100_000_000);
                    }
                });
            })
            .fails(&[by("client_given_back")]),
            Planted::evidence("memory-kept-by-the-server", |evidence| {
                samples(evidence, &["load", "idled"], |memory| {
                    for sample in memory {
                        sample.server_live_bytes = sample.server_live_bytes.map(|live| live + 100_000_000);
                    }
                });
            })
            .fails(&[by("server_given_back")]),
            Planted::evidence("growth-of-the-client", |evidence| {
                grow(evidence, |resources| resources.client.as_mut());
            })
            .fails(&[by("client_growth")]),
            Planted::evidence("growth-of-the-server", |evidence| {
                grow(evidence, |resources| resources.server.as_mut());
            })
            .fails(&[by("server_growth")]),
            Planted::evidence("too-little-filled", |evidence| {
                let fill = evidence.runs_mut().filter(|(name, _)| *name == "fill");
                fill.for_each(|(_, run)| run.messages.counts.answered -= 3);
            })
            .fails(&[by("unfilled").measuring("3")]),
            Planted::evidence("one-in-500-unanswered", |evidence| {
                let load = evidence.runs_mut().filter(|(name, _)| *name == "load");
                load.for_each(|(_, run)| run.messages.counts.answered -= run.messages.due / 500);
            })
            .fails(&[by("delivery").measuring("99.80 %")]),
            Planted::evidence("a-phase-missing", |evidence| {
                evidence.phases.retain(|phase| phase.name != "fill");
            })
            .fails(&[by("missing_phases").measuring("1")]),
        ],
        &MISCOUNTED,
    ],
};

fn samples(evidence: &mut Evidence, phases: &[&str], edit: impl FnMut(&mut Vec<MemorySample>)) {
    let chosen = evidence.phases.iter_mut().filter(|phase| phases.contains(&&*phase.name));
    chosen.map(|phase| &mut phase.memory).for_each(edit);
}

fn grow(evidence: &mut Evidence, side: fn(&mut Resources) -> Option<&mut ProcessSummary>) {
    for (_, run) in evidence.runs_mut() {
        let peak = side(&mut run.resources).and_then(|process| process.peak_rss_bytes.as_mut());
        peak.into_iter().for_each(|peak| *peak += 300_000_000);
    }
}
