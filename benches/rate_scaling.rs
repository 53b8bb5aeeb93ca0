//! The rate table: at each rate, what a message waits and what it costs.
//!
//! `cargo bench --bench rate_scaling`; the size by `FLOODLINE_PROFILE`, a server of yours by `FLOODLINE_TARGET`.

use std::process::ExitCode;

use floodline::bench::{self, BenchError, Cell, Measure, Settings};
use floodline::scenario::load::LatencyLimit;
use floodline::units::Rate;

fn main() -> ExitCode {
    bench::run("rate_scaling", env!("CARGO_BIN_EXE_floodline"), cells)
}

/// One cell a rate; up to the sustained rate the P95 has a limit.
fn cells(settings: &Settings) -> Result<Vec<Cell>, BenchError> {
    let limits = &settings.config.limits;
    let cell = |&rate: &Rate| {
        let timed = rate <= settings.config.rate_scaling.limits.timed_up_to;
        Ok(Cell {
            parameter: rate.as_per_second().to_string(),
            workload: settings.workload(rate)?,
            limits: timed.then(|| LatencyLimit::p95(limits.p95)).into_iter().collect(),
            measures: Measure::ALL.to_vec(),
        })
    };
    settings.config.rates.iter().map(cell).collect()
}
