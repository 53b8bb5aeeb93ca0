//! Faults that `connection_scaling` catches.

use super::planted::{Planted, Proof, by, follows, may};

pub(super) const PROOF: Proof = Proof {
    case: "connection_scaling",
    settings: &[
        ("connections", "10, 250"),
        ("connection_scaling.rate_per_connection", "20"),
        ("connection_scaling.hold", "500ms"),
        ("load.ramp", "0"),
        ("load.answer_timeout", "300ms"),
    ],
    faults: &[&[
        Planted::server("refuses-the-200th", &["--fault=refuse-connection=200"]).fails(&[
            by("connections").measuring("259").naming(&["at 250"]),
            follows("lowest_share@250", "it got no answer at all"),
            follows("latency_p95_of_each@250", "it has no latency"),
            may("fairness@250", "it got no answer at all"),
            may("achieved_rate@250", "its share was never sent"),
        ]),
        Planted::server("loses-answers", &["--fault=lose-answers=1,among=100,seed=7"])
            .fails(&[by("lost").measuring("1"), may("lowest_share@10", "it got one of ten less")]),
        Planted::server("swaps-answers", &["--fault=swap-answers=3,among=90,seed=7"])
            .fails(&[by("reordered").measuring("3")]),
        Planted::server("repeats-answers", &["--fault=repeat-answers=3,among=90,seed=7"])
            .fails(&[by("duplicates").measuring("3")]),
        Planted::server("misnames-answers", &["--fault=misname-answers=1,among=90,seed=7"]).fails(&[
            by("foreign").measuring("1"),
            follows("lost", "the answer went to a message that was never sent").measuring("1"),
        ]),
        Planted::server("alters-answers", &["--fault=alter-answers=3,among=90,seed=7"])
            .fails(&[by("corrupted").measuring("3")]),
        Planted::server("can-do-2000-a-second", &["--processing-delay=10ms", "--concurrency=20"])
            .with(&[("connections", "10, 50, 100, 150, 250"), ("load.answer_timeout", "10s")])
            .fails(&[by("achieved_rate@250"), by("slope"), by("r_squared"), by("latency_p95_of_each@250")]),
        Planted::evidence("loses-a-step", |evidence| evidence.phases.retain(|phase| phase.name != "10"))
            .fails(&[
                by("missing_phases").measuring("1"),
                follows("slope", "one number of connections makes no line"),
                follows("r_squared", "one number of connections makes no line"),
            ]),
    ]],
};
