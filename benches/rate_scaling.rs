//! The rate table: at each rate, what a message waits and what it costs.
//!
//! `cargo bench --bench rate_scaling`; the size by `FLOODLINE_PROFILE`, a server of yours by `FLOODLINE_TARGET`.

use std::process::ExitCode;

use floodline::bench::{self, BenchError, Cell, Measure, Settings};
use floodline::units::Rate;

fn main() -> ExitCode {
    bench::run("rate_scaling", env!("CARGO_BIN_EXE_floodline"), cells)
}

/// One cell a rate; up to the sustained rate the P95 has a limit.
fn cells(settings: &Settings) -> Result<Vec<Cell>, BenchError> {
    let limits = &settings.config.limits;
    let cell = |&rate: &Rate| {
        let limited =
            (rate <= limits.sustained_rate).then(|| format!("p95={}ns", limits.p95.as_nanos()).parse());
        Ok(Cell {
            parameter: rate.as_per_second().to_string(),
            workload: settings.workload(rate)?,
            limits: limited.into_iter().collect::<Result<_, _>>()?,
            measures: Measure::ALL.to_vec(),
        })
    };
    settings.config.rates.iter().map(cell).collect()
}
