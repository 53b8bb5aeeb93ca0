//! Order under a burst: how long one connection, and several, take to get everything through.
//!
//! `cargo bench --bench ordering`; the size by `FLOODLINE_PROFILE`, a server of yours by `FLOODLINE_TARGET`.

use std::process::ExitCode;

use floodline::bench::{self, BenchError, Cell, Measure, Settings, Suite};
use floodline::run::plan::Action;
use floodline::scenario::{self, Case};

fn main() -> ExitCode {
    bench::run_checked("ordering", env!("CARGO_BIN_EXE_floodline"), cells, check)
}

fn case() -> Option<&'static Case> {
    scenario::by_name("ordering")
}

fn check(suite: &mut Suite) -> bool {
    let config = suite.settings().config.clone();
    case().is_some_and(|case| suite.check(case, &config))
}

/// The case's burst on one connection: everything is due before the first answer.
fn cells(settings: &Settings) -> Result<Vec<Cell>, BenchError> {
    let plan = case().and_then(|case| case.plan(&settings.config)).unwrap_or_default();
    let bursts = plan.phases.into_iter().filter(|phase| phase.name == "unpaced");
    let cell = |phase: floodline::run::plan::Phase| match phase.action {
        Action::Load(workload) => Some(Cell {
            parameter: phase.name,
            workload,
            limits: Vec::new(),
            measures: vec![Measure::Drain { messages: settings.config.ordering.messages }],
        }),
        _ => None,
    };
    Ok(bursts.filter_map(cell).collect())
}
