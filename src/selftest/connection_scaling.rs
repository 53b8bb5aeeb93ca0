//! Faults that `connection_scaling` catches.

use super::planted::{MISCOUNTED, Planted, Proof, by, follows, may};

pub(super) const PROOF: Proof = Proof {
    case: "connection_scaling",
    settings: &[
        ("connections", "10, 250"),
        ("connection_scaling.rate_per_connection", "20"),
        ("connection_scaling.hold", "500ms"),
        ("load.ramp", "0"),
        ("load.answer_timeout", "300ms"),
    ],
    faults: &[
        &[
            Planted::server("refuses-the-200th", &["--fault=refuse-connection=200"]).fails(&[
                by("connections").measuring("259").naming(&["at 250"]),
                by("lowest_share@250").measuring("0.0000"),
                follows("latency_p95_of_each@250", "it has no latency"),
                may("fairness@250", "it got no answer at all"),
            ]),
            // Of the ten messages of a connection each is a tenth of its share.
            Planted::server("can-do-2000-a-second", &["--processing-delay=10ms", "--concurrency=20"])
                .with(&[("connections", "10, 50, 75, 250"), ("load.answer_timeout", "10s")])
                .fails(&[
                    by("achieved_rate@250"),
                    by("slope"),
                    by("r_squared"),
                    by("latency_p95_of_each@250"),
                    may("lowest_share@250", "some got one of their ten messages less in time"),
                    may("fairness@250", "some got one of their ten messages less in time"),
                ]),
        ],
        &[Planted::evidence("five-starved", |evidence| {
            let last = evidence.runs_mut().last();
            let starved = last.into_iter().flat_map(|(_, run)| run.per_connection.iter_mut().take(5));
            starved.for_each(|connection| connection.achieved = 0);
        })
        .fails(&[by("fairness@250").measuring("0.9800"), by("lowest_share@250").measuring("0.0000")])],
        &[Planted::evidence("a-step-missing", |evidence| {
            evidence.phases.retain(|phase| phase.name != "10");
        })
        .fails(&[
            by("missing_phases").measuring("1"),
            follows("slope", "one number of connections makes no line"),
            follows("r_squared", "one number of connections makes no line"),
        ])],
        &MISCOUNTED,
    ],
};
