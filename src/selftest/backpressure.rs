//! Faults that `backpressure` catches.

use super::planted::{Planted, Proof, by, follows};

pub(super) const PROOF: Proof = Proof {
    case: "backpressure",
    settings: &[
        // 1,000 msg/s on what can do 500: the queue is full after 1.1 s, in the second window, and empty 1.1 s later.
        ("backpressure.rate", "1000"),
        ("backpressure.messages", "1600"),
        ("backpressure.queue_threshold", "550"),
        ("backpressure.connections", "20"),
        ("backpressure.priority_connections", "4"),
        ("backpressure.baseline", "500ms"),
        ("backpressure.answer_timeout", "3s"),
    ],
    faults: &[
        Planted::server("never-signals", &["--fault=no-backpressure"])
            .fails(&[by("signal").measuring("none").naming(&["no `backpressure` came"])]),
        Planted::server("signals-1-s-late", &["--fault=late-backpressure=1s"])
            .with(&[("backpressure.messages", "2600")])
            .fails(&[by("signal")]),
        Planted::server("refuses-without-a-word", &["--fault=silent-refusals"]).fails(&[
            by("refusals_told"),
            follows("lost", "what was refused waits for a word until it is given up"),
            follows("overflow", "no refusal was heard of"),
            follows("signal", "no refusal was heard of, which it could follow"),
            follows("high_priority_first", "no refusal was heard of, so there was no overflow"),
        ]),
        Planted::server("serves-in-arrival-order", &["--fault=arrival-order"])
            .fails(&[by("high_priority_first")]),
    ],
};
