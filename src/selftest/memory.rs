//! Faults that `memory` catches.

use super::planted::{MISCOUNTED, PATIENT, Planted, Proof, by};
use crate::run::plan::{Evidence, MemorySample};

pub(super) const PROOF: Proof = Proof {
    case: "memory",
    settings: &[
        ("memory.fill_messages", "2000"),
        // Ten readings after the warm-up, for a slope.
        ("memory.duration", "3500ms"),
        ("memory.idle", "300ms"),
        ("load.ramp", "0"),
        PATIENT,
    ],
    faults: &[
        // The 3,000th message is due a tenth of a second after the load began, so what comes with it is no slope; nor is what
        // the client takes for the latencies of those that wait meanwhile, at the end of the first second.
        &[
            Planted::server("leaks-64-bytes-a-message", &["--fault=leak=64B"]).fails(&[by("server_leak")]),
            Planted::server("keeps-100-mb", &["--fault=grow=100MiB,after=3000"])
                .fails(&[by("server_given_back")]),
            Planted::server("grows-300-mb-for-a-while", &["--fault=swell=300MiB,after=3000"])
                .fails(&[by("server_growth")]),
        ],
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
            Planted::evidence("growth-of-the-client", |evidence| {
                for (_, run) in evidence.runs_mut() {
                    let client = run.resources.client.as_mut();
                    let peak = client.and_then(|client| client.peak_rss_bytes.as_mut());
                    peak.into_iter().for_each(|peak| *peak += 300_000_000);
                }
            })
            .fails(&[by("client_growth")]),
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
