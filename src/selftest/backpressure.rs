//! Faults that `backpressure` catches.

use super::planted::{MISCOUNTED, Planted, Proof, by, follows, may};
use crate::result::LoadTestResults;
use crate::run::plan::Evidence;
use crate::run::scene::{QueueSample, SceneEvidence};

pub(super) const PROOF: Proof = Proof {
    case: "backpressure",
    settings: &[
        // 1,025 msg/s on what can do 500: the queue is full after 1.1 s, in the second window, and empty 1.2 s after the load.
        ("backpressure.rate", "1000"),
        ("backpressure.messages", "1600"),
        ("backpressure.queue_threshold", "600"),
        ("backpressure.connections", "20"),
        ("backpressure.priority_rate", "25"),
        ("backpressure.priority_connections", "4"),
        ("backpressure.baseline", "300ms"),
        ("backpressure.answer_timeout", "2s"),
    ],
    faults: &[
        &[
            Planted::server("never-signals", &["--fault=no-backpressure"]).fails(&[
                by("signal").measuring("none").naming(&["no `backpressure` came"]),
                by("threshold_to_signal").measuring("none").naming(&["no `backpressure` came"]),
            ]),
            // Each connection has its own episode, which ends with the next message that is admitted.
            Planted::server("signals-1-s-late", &["--fault=late-backpressure=1s"]).fails(&[
                by("signal"),
                may("threshold_to_signal", "an episode that ends sooner has no signal"),
            ]),
            Planted::server("refuses-without-a-word", &["--fault=silent-refusals"]).fails(&[
                by("refusals_told"),
                follows("lost", "what was refused waits for a word until it is given up"),
                follows("overflow", NO_REFUSAL),
                follows("signal", NO_REFUSAL),
                follows("high_priority_first", NO_REFUSAL),
            ]),
            Planted::server("serves-in-arrival-order", &["--fault=arrival-order"])
                .fails(&[by("high_priority_first")]),
            Planted::server("keeps-its-queue", &["--fault=keep-queue=100"]).fails(&[
                by("queue_empty").measuring("100 still waiting"),
                by("lost").measuring("100"),
                follows("refusals_told", "what is kept gets no word"),
            ]),
            Planted::server("stalls-when-full", &["--fault=stall=1500ms,at=1400ms"])
                .with(&[("backpressure.answer_timeout", "5s")])
                .fails(&[by("overflow"), may("high_priority_first", "nothing overtakes in a stall")]),
        ],
        &[
            Planted::evidence("the-signal-late", |evidence| {
                edit(evidence, "overload.normal", |run| {
                    let moments = &mut run.moments;
                    moments.first_backpressure_s = moments.first_refusal_s.map(|refused_s| refused_s + 1.5);
                });
            })
            .fails(&[by("signal").measuring("1.50 s")]),
            Planted::evidence("the-signal-far-too-late", |evidence| {
                let full_s = evidence.scene("overload").and_then(|scene| scene.in_flight_reached_s);
                edit(evidence, "overload.normal", |run| {
                    run.moments.first_backpressure_s = full_s.map(|full_s| full_s + 6.0);
                });
            })
            .fails(&[
                by("threshold_to_signal").measuring("6.00 s"),
                follows("signal", "it is late after a refusal too"),
            ]),
            Planted::evidence("a-high-priority-message-refused", |evidence| {
                edit(evidence, "overload.high", |run| {
                    run.messages.counts.answered -= 1;
                    run.messages.counts.refused += 1;
                });
            })
            .fails(&[by("high_priority_served").measuring("39")]),
            Planted::evidence("something-still-waits", |evidence| {
                in_scene(evidence, |scene| scene.queue.push(QueueSample { t_s: 10.0, depth: 3 }));
            })
            .fails(&[by("queue_empty").measuring("3 still waiting")]),
            Planted::evidence("the-queue-empty-too-late", |evidence| {
                edit(evidence, "overload.normal", |run| {
                    run.moments.last_answer_s = Some(run.offered_for_s + 31.0);
                });
            })
            .fails(&[by("queue_empty").measuring("31.0 s")]),
            Planted::evidence("less-achieved-afterwards", |evidence| {
                edit(evidence, "after", |run| run.throughput.achieved_rate *= 0.9);
            })
            .fails(&[by("after_rate")]),
            Planted::evidence("slower-afterwards", |evidence| {
                edit(evidence, "after", |run| {
                    run.latency_us.iter_mut().for_each(|latency| latency.p95 = Some(1e6));
                });
            })
            .fails(&[by("after_p95").measuring("1.00 s")]),
            Planted::evidence("a-load-missing", |evidence| {
                in_scene(evidence, |scene| scene.runs.retain(|run| run.name != "overload.high"));
            })
            .fails(&[by("missing_phases").measuring("1").naming(&["no evidence of phase `overload`"])]),
        ],
        &MISCOUNTED,
    ],
};

const NO_REFUSAL: &str = "nobody heard of a refusal";

fn edit(evidence: &mut Evidence, name: &str, edit: impl FnMut(&mut LoadTestResults)) {
    evidence.runs_mut().filter(|(run, _)| *run == name).map(|(_, run)| run).for_each(edit);
}

fn in_scene(evidence: &mut Evidence, edit: impl FnMut(&mut SceneEvidence)) {
    evidence.phases.iter_mut().filter_map(|phase| phase.scene.as_mut()).for_each(edit);
}
