//! Faults that `rate_scaling` catches.

use super::planted::{IN_VAIN, PATIENT, Planted, Proof, by, follows, may};

pub(super) const PROOF: Proof = Proof {
    case: "rate_scaling",
    settings: &[
        ("rates", "1000, 2000"),
        ("rate_scaling.connections", "10"),
        ("rate_scaling.hold", "300ms"),
        ("load.ramp", "0"),
        PATIENT,
    ],
    faults: &[&[
        // What 10 ms at 30 at a time can do.
        Planted::server("can-do-3000-a-second", &["--processing-delay=10ms", "--concurrency=30"])
            .with(&[("rates", "500, 4000, 5000"), ("rate_scaling.hold", "1250ms")])
            .fails(&[
                by("achieved_rate@5000"),
                by("slope"),
                follows("latency_p95@4000", "what waits its turn is late"),
                follows("latency_p95@5000", "what waits its turn is late"),
                may("achieved_rate@4000", "that is beyond it too, for so short a load by little"),
                may("r_squared", "the line bends"),
            ]),
        Planted::server("stalls-at-one-rate", &["--fault=stall=1s,at=800ms"])
            .with(&[("rates", "1000, 3000, 5000"), ("rate_scaling.hold", "500ms")])
            .fails(&[
                by("r_squared"),
                by("latency_p95@3000"),
                follows("achieved_rate@3000", "what is answered 500 ms after the load is too late"),
                may(
                    "slope",
                    "the rate in the middle turns the line only where it is not quite in the middle",
                ),
            ]),
        Planted::server("loses-answers", &["--fault=lose-answers=2,among=250,seed=1"])
            .with(IN_VAIN)
            .fails(&[by("unanswered_up_to_7500").measuring("2").naming(&["2 at 1000"])]),
        // Of 300, 600 and 2,400 messages.
        Planted::server("loses-one-in-500", &["--fault=lose-answers=7,among=3300,seed=1"])
            .with(&[("rates", "1000, 2000, 8000"), ("load.answer_timeout", "600ms")])
            .fails(&[
                by("delivery@8000").measuring("99.79 %"),
                follows("unanswered_up_to_7500", "the lower rates have their share of the lost")
                    .measuring("2")
                    .naming(&["2 at 2000"]),
            ]),
        Planted::server("swaps-answers", &["--fault=swap-answers=3,among=250,seed=7"]).fails(&[by(
            "reordered",
        )
        .measuring("3")
        .naming(&["3 at 1000"])]),
        Planted::server("repeats-answers", &["--fault=repeat-answers=2,among=250,seed=7"])
            .fails(&[by("duplicates").measuring("2")]),
        Planted::server("misnames-answers", &["--fault=misname-answers=2,among=250,seed=7"])
            .with(IN_VAIN)
            .fails(&[
                by("foreign").measuring("2"),
                follows("unanswered_up_to_7500", "the answer went to a message that was never sent")
                    .measuring("2"),
            ]),
        Planted::server("alters-answers", &["--fault=alter-answers=2,among=250,seed=7"])
            .fails(&[by("corrupted").measuring("2")]),
        Planted::server("drops-a-connection", &["--fault=cut-connections=1,among=250,seed=7"]).fails(&[
            by("connections").measuring("19").naming(&["at 1000"]),
            follows("unanswered_up_to_7500", "what was due on it later is never sent"),
            may("achieved_rate@1000", "so it is not achieved either, unless the cut came at the end"),
            may("slope", "so the line is another"),
            may("latency_p95@1000", "what was never sent ranks above every answer"),
        ]),
        Planted::evidence("loses-a-step", |evidence| evidence.phases.retain(|phase| phase.name != "2000"))
            .fails(&[
                by("missing_phases").measuring("1").naming(&["no evidence of phase `2000`"]),
                follows("slope", "one rate makes no line"),
                follows("r_squared", "one rate makes no line"),
            ]),
    ]],
};
