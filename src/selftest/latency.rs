//! Faults that `latency` catches.

use super::planted::{IN_VAIN, MISCOUNTED, PATIENT, Planted, Proof, by, follows, may};

pub(super) const PROOF: Proof = Proof {
    case: "latency",
    settings: &[
        // Enough for a P99 of each window, and for three windows.
        ("latency.rate", "1200"),
        ("latency.connections", "10"),
        ("latency.duration", "3s"),
        ("load.ramp", "0"),
        PATIENT,
    ],
    faults: &[
        &[
            Planted::server("stalls-1-s", &["--fault=stall=1s,at=500ms"]).fails(&[
                by("latency_p99_in_every_window"),
                by("latency_p95_in_every_window"),
                by("latency_p50_in_every_window"),
                by("variation"),
                follows("latency_p95", "a third of so short a load is a second"),
                follows("latency_p99", "a third of so short a load is a second"),
                follows("outliers", "a third of so short a load is a second"),
                may("trend", "it lies at the beginning, and so few windows have no interval"),
            ]),
            Planted::server(
                "grows-by-9-ms",
                &["--processing-delay=20ms", "--fault=growing-delay=9ms,per=3s"],
            )
            .fails(&[by("trend")]),
            Planted::server("pauses-60-ms", &["--fault=pause=60ms,every=1s"]).fails(&[by("outliers")]),
            Planted::server("2-percent-300-ms-late", &["--fault=late-answers=0.02,by=300ms,seed=7"])
                .fails(&[by("outliers"), follows("reordered", OVERTAKEN)]),
            Planted::server("6-percent-250-ms-late", &["--fault=late-answers=0.06,by=250ms,seed=7"])
                // Of so many, 6 % are not 5 % by chance (3.6 standard deviations).
                .with(&[("latency.rate", "2400")])
                .fails(&[
                    by("latency_p95"),
                    by("latency_p95_in_every_window"),
                    follows("outliers", "they are far above the median"),
                    follows("reordered", OVERTAKEN),
                ]),
            Planted::server("2-percent-600-ms-late", &["--fault=late-answers=0.02,by=600ms,seed=7"]).fails(
                &[
                    by("latency_p99"),
                    by("latency_p99_in_every_window"),
                    follows("outliers", "they are far above the median"),
                    follows("reordered", OVERTAKEN),
                ],
            ),
            // A little more than half: exactly half of them leave the median to chance.
            Planted::server("half-60-ms-late", &["--fault=late-answers=0.55,by=60ms,seed=7"]).fails(&[
                by("latency_p50"),
                by("latency_p50_in_every_window"),
                follows("reordered", OVERTAKEN),
                may("variation", "the median of a window may fall among those in time"),
            ]),
            Planted::server("can-do-900-a-second", &["--processing-delay=10ms", "--concurrency=9"]).fails(&[
                by("achieved_rate"),
                by("latency_p50"),
                follows("latency_p95", BACKLOG),
                follows("latency_p99", BACKLOG),
                follows("latency_p50_in_every_window", BACKLOG),
                follows("latency_p95_in_every_window", BACKLOG),
                follows("latency_p99_in_every_window", BACKLOG),
                follows("trend", BACKLOG),
                follows("variation", BACKLOG),
                may("outliers", BACKLOG),
            ]),
            Planted::server("drops-one-in-200", &["--fault=lose-answers=18,among=3000,seed=7"])
                .with(IN_VAIN)
                .fails(&[by("delivery").naming(&["lost 18"]), by("lost").measuring("18")]),
            Planted::evidence("loses-a-window", |evidence| {
                let runs = evidence.phases.iter_mut().filter_map(|phase| phase.run.as_mut());
                runs.for_each(|run| run.windows.retain(|window| window.t_s != 1));
            })
            .fails(&[by("windows").measuring("2 of 3").naming(&["none at 1 s"])]),
            Planted::evidence("loses-its-load", |evidence| {
                evidence.phases.iter_mut().for_each(|phase| phase.run = None);
            })
            .fails(&[by("missing_phases").measuring("1")]),
        ],
        &MISCOUNTED,
    ],
};

const OVERTAKEN: &str = "the late are overtaken by the others";
const BACKLOG: &str = "what waits its turn is late";
