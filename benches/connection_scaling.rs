//! Many connections: what a message waits, and what it costs, at the counts that the case judges most.
//!
//! `cargo bench --bench connection_scaling`; the size by `FLOODLINE_PROFILE`, a server of yours by `FLOODLINE_TARGET`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use floodline::bench::{self, BenchError, Cell, Measure, Settings, Suite};
use floodline::scenario;
use floodline::units::Rate;
use floodline::workload::Workload;

fn main() -> ExitCode {
    bench::run_checked("connection_scaling", env!("CARGO_BIN_EXE_floodline"), cells, check)
}

fn check(suite: &mut Suite) -> bool {
    let config = suite.settings().config.clone();
    scenario::by_name("connection_scaling").is_some_and(|case| suite.check(case, &config))
}

/// The count at which every connection's P95 has a limit, and the highest of the table.
fn cells(settings: &Settings) -> Result<Vec<Cell>, BenchError> {
    let case = &settings.config.connection_scaling;
    let highest = settings.config.connections.iter().copied().max();
    let counts: BTreeSet<u32> = highest.into_iter().chain([case.limits.p95_at_connections]).collect();
    let cell = |connections: u32| {
        let rate = Rate::per_second(case.rate_per_connection.as_per_second() * f64::from(connections))?;
        Ok(Cell {
            parameter: connections.to_string(),
            workload: Workload { connections, ..settings.workload(rate)? },
            limits: Vec::new(),
            measures: Measure::ALL.to_vec(),
        })
    };
    counts.into_iter().map(cell).collect()
}
