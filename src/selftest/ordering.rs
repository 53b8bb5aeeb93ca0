//! Faults that `ordering` catches.
//!
//! In the paced phase one connection has one message under way at a time, so the n-th answer is that to message n: the
//! seed's positions are the sequences of the messages that are hit.

use super::planted::{IN_VAIN, PATIENT, Planted, Proof, by, follows};

pub(super) const PROOF: Proof = Proof {
    case: "ordering",
    settings: &[
        ("ordering.messages", "200"),
        ("ordering.messages_per_connection", "100"),
        ("ordering.parallel_connections", "2"),
        PATIENT,
    ],
    faults: &[&[
        Planted::server("swaps-answers", &["--fault=swap-answers=3,among=190,seed=7"]).fails(&[by(
            "reordered",
        )
        .measuring("3")
        .naming(&["3 at paced, on connection 0", "-0-0-10, ", "-0-0-32, ", "-0-0-136"])]),
        Planted::server("loses-answers", &["--fault=lose-answers=3,among=200,seed=7"]).with(IN_VAIN).fails(
            &[
                by("lost").measuring("3").naming(&["on connection 0", "-0-0-10, ", "-0-0-34, ", "-0-0-143"]),
                follows("unanswered", NO_ANSWER).measuring("3"),
            ],
        ),
        Planted::server("ignores-requests", &["--fault=ignore-requests=2,among=200,seed=8"])
            .with(IN_VAIN)
            .fails(&[
                by("lost").measuring("2").naming(&["on connection 0", "-0-0-77, ", "-0-0-85"]),
                follows("unanswered", NO_ANSWER).measuring("2"),
            ]),
        Planted::server("repeats-answers", &["--fault=repeat-answers=3,among=200,seed=7"]).fails(&[by(
            "duplicates",
        )
        .measuring("3")
        .naming(&["3 at paced, on connection 0", "-0-0-10, ", "-0-0-34, ", "-0-0-143"])]),
        Planted::server("misnames-answers", &["--fault=misname-answers=3,among=200,seed=7"])
            .with(IN_VAIN)
            .fails(&[
                by("foreign").measuring("3").naming(&[
                    "3 at paced, on connection 0",
                    "nobody-",
                    "-0-0-10\"",
                    "-0-0-34\"",
                    "-0-0-143\"",
                ]),
                follows("lost", "the answer went to a message that was never sent").measuring("3").naming(&[
                    "-0-0-10, ",
                    "-0-0-34, ",
                    "-0-0-143",
                ]),
                follows("unanswered", NO_ANSWER).measuring("3"),
            ]),
        Planted::server("alters-answers", &["--fault=alter-answers=3,among=200,seed=7"]).fails(&[by(
            "corrupted",
        )
        .measuring("3")
        .naming(&["3 at paced, on connection 0", "-0-0-10, ", "-0-0-34, ", "-0-0-143"])]),
        Planted::server("refuses-connection", &["--fault=refuse-connection=3"]).fails(&[
            by("connections").measuring("3").naming(&["at parallel"]),
            by("unanswered").measuring("100").naming(&["100 at parallel"]),
        ]),
        Planted::evidence("offers-too-little", |evidence| {
            let runs = evidence.phases.iter_mut().filter_map(|phase| phase.run.as_mut());
            runs.for_each(|run| {
                run.messages.due -= 5;
                run.messages.counts.sent -= 5;
                run.messages.counts.answered -= 5;
            });
        })
        .fails(&[by("not_offered").measuring("15").naming(&["195 of 200 at paced"])]),
        Planted::evidence("loses-a-phase", |evidence| {
            evidence.phases.retain(|phase| phase.name != "unpaced")
        })
        .fails(&[by("missing_phases").measuring("1").naming(&["no evidence of phase `unpaced`"])]),
    ]],
};

const NO_ANSWER: &str = "what is lost has no answer";
