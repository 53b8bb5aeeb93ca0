//! Overload: how soon it is signalled, how long the queue takes to empty, how long high priority waits meanwhile.
//!
//! `cargo bench --bench backpressure`; the size of the case that is checked first by `FLOODLINE_PROFILE`. What is measured
//! is the case's overload of a small queue, again and again.

use std::process::ExitCode;
use std::time::Duration;

use floodline::bench::{self, Id, Series, Suite};
use floodline::config::HighVolumeConfig;
use floodline::run::plan::Evidence;
use floodline::scenario;
use floodline::units::Rate;

const SIGNAL: Id = Id::of_time("signal", "overload");
const DRAIN: Id = Id::of_time("drain", "overload");
const HIGH_PRIORITY: Id = Id::of_time("high_priority_p95", "overload");

fn main() -> ExitCode {
    let ids = [SIGNAL, DRAIN, HIGH_PRIORITY];
    bench::run_series("backpressure", env!("CARGO_BIN_EXE_floodline"), &ids, measure)
}

/// A service of 2,000 msg/s whose queue of 500 is full after an eighth of a second.
fn small(config: &HighVolumeConfig) -> Option<HighVolumeConfig> {
    let mut small = config.clone();
    let case = &mut small.backpressure;
    (case.processing, case.concurrency) = (Duration::from_millis(10), 20);
    (case.queue_threshold, case.messages) = (500, 2_400);
    (case.rate, case.priority_rate) = (Rate::per_second(6_000.0).ok()?, Rate::per_second(200.0).ok()?);
    Some(small)
}

fn measure(suite: &mut Suite) -> Option<Vec<Series>> {
    let case = scenario::by_name("backpressure")?;
    let config = suite.settings().config.clone();
    suite.case(case, &config)?;
    let mut plan = case.plan(&small(&config)?)?;
    plan.phases.retain(|phase| phase.name == "overload");
    let mut series = [SIGNAL, DRAIN, HIGH_PRIORITY].map(|id| Series { id, values: Vec::new() });
    for _ in 0..suite.values_needed() {
        let evidence = suite.execute(&plan)?;
        let told = |name: &str| {
            let messages = &evidence.run(name)?.messages;
            Some(messages.due == messages.counts.answered + messages.counts.refused)
        };
        if told("overload.normal") != Some(true) || told("overload.high") != Some(true) {
            suite.fail("overload", "a message had no word");
            return None;
        }
        for (series, value) in series.iter_mut().zip(values(&evidence)) {
            series.values.extend(value);
        }
    }
    Some(series.to_vec())
}

/// From the start of the overload to the signal; from the end of the load to the last answer; the wait of
/// high priority.
fn values(evidence: &Evidence) -> [Option<f64>; 3] {
    let normal = evidence.run("overload.normal");
    let signal_s = normal.and_then(|run| run.moments.first_backpressure_s);
    let drain_s = normal.and_then(|run| Some(run.moments.last_answer_s? - run.offered_for_s));
    let high_us = evidence.run("overload.high").and_then(|run| run.latency_us.as_ref()?.p95);
    [signal_s, drain_s, high_us.map(|us| us / 1e6)]
}
