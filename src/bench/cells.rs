//! Which loads are measured of which case.

use std::collections::BTreeSet;

use super::{BenchError, Cell, Measure, Settings};
use crate::run::plan::Action;
use crate::scenario;
use crate::scenario::load::LatencyLimit;
use crate::units::Rate;
use crate::workload::Workload;

/// One cell a rate; up to the sustained rate the P95 has a limit.
///
/// # Errors
/// Where a configured word is unknown.
pub fn rate_scaling(settings: &Settings) -> Result<Vec<Cell>, BenchError> {
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

/// The count at which every connection's P95 has a limit, and the highest of the table.
///
/// # Errors
/// Where a configured word is unknown.
pub fn connection_scaling(settings: &Settings) -> Result<Vec<Cell>, BenchError> {
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

/// The burst of the case `ordering` on one connection: everything is due before the first answer.
///
/// # Errors
/// None: for the sake of the others.
pub fn ordering(settings: &Settings) -> Result<Vec<Cell>, BenchError> {
    let plan = scenario::by_name("ordering").and_then(|case| case.plan(&settings.config)).unwrap_or_default();
    let bursts = plan.phases.into_iter().filter(|phase| phase.name == "unpaced");
    let cell = |phase: crate::run::plan::Phase| match phase.action {
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
