//! Faults that `connection_scaling` catches.

use super::planted::{IN_VAIN, MISCOUNTED, PATIENT, Planted, Proof, by, follows, may};

pub(super) const PROOF: Proof = Proof {
    case: "connection_scaling",
    settings: &[
        ("connections", "10, 250"),
        ("connection_scaling.rate_per_connection", "20"),
        ("connection_scaling.hold", "500ms"),
        ("load.ramp", "0"),
        PATIENT,
    ],
    faults: &[
        &[
            Planted::server("refuses-the-200th", &["--fault=refuse-connection=200"]).fails(&[
                by("connections").measuring("259").naming(&["at 250"]),
                by("lowest_share@250").measuring("0.0000"),
                follows("latency_p95_of_each@250", "it has no latency"),
                may("fairness@250", "it got no answer at all"),
            ]),
            Planted::server("starves-one-in-50", &["--fault=starve-connections=50,gap=1s"])
                .with(IN_VAIN)
                .fails(&[
                    by("fairness@250"),
                    by("lowest_share@250"),
                    by("latency_p95_of_each@250"),
                    follows("lost", "they wait until they are given up"),
                    follows("achieved_rate@250", "a fiftieth of the messages is not answered in time"),
                    may("slope", "by nearly as much as it may differ from 1"),
                ]),
            // 0.6 ms at 10 connections, 15 ms at 250: with 20 at a time 1,300 a second.
            Planted::server(
                "slows-with-each-connection",
                &["--fault=slow-per-connection=60us", "--concurrency=20"],
            )
            .with(&[("connections", "10, 50, 75, 250")])
            .fails(&[
                by("achieved_rate@250"),
                by("slope"),
                by("r_squared"),
                by("latency_p95_of_each@250"),
                may("lowest_share@250", "some got less of their ten messages in time than others"),
                may("fairness@250", "some got less of their ten messages in time than others"),
            ]),
        ],
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
