//! The burst, and the capacity in a closed loop: how long it takes to drain so many messages.
//!
//! `cargo bench --bench peak`; the size by `FLOODLINE_PROFILE`, a server of yours by `FLOODLINE_TARGET`. The search for the
//! peak itself is `floodline peak`: its figure is a rate that was offered, which says too little to compare two versions by.

use std::process::ExitCode;

use floodline::bench::{self, BenchError, Cell, Measure, Settings, Suite};
use floodline::config::{HighVolumeConfig, Profile};
use floodline::scenario::{self, peak};
use floodline::units::Rate;
use floodline::workload::{Offered, Workload};

/// A closed loop at which both sides are busy and nobody waits for a round trip.
const CONNECTIONS: u32 = 50;
const WINDOW: usize = 32;

fn main() -> ExitCode {
    bench::run_checked("peak", env!("CARGO_BIN_EXE_floodline"), cells, check)
}

fn cells(settings: &Settings) -> Result<Vec<Cell>, BenchError> {
    let config = &settings.config;
    let messages = config.peak.burst_messages;
    let burst = peak::burst(config);
    let closed_loop = Workload {
        offered: Offered::Max,
        connections: CONNECTIONS,
        window: WINDOW,
        ..settings.workload(config.peak.start_rate)?
    };
    let cell = |parameter: String, workload| Cell {
        parameter,
        workload,
        limits: Vec::new(),
        measures: vec![Measure::Drain { messages }],
    };
    Ok(vec![
        cell(format!("burst_{}", burst.connections), burst),
        cell(format!("closed_loop_{CONNECTIONS}x{WINDOW}"), closed_loop),
    ])
}

/// The case at its smallest size, and no higher than twice what it requires: where the peak lies is not asked here.
fn check(suite: &mut Suite) -> bool {
    let settings = &suite.settings().config;
    let mut config =
        HighVolumeConfig { limits: settings.limits.clone(), ..HighVolumeConfig::for_profile(Profile::Smoke) };
    config.load = settings.load.clone();
    let twice = Rate::per_second(2.0 * config.limits.peak_rate.as_per_second());
    config.peak.ceiling_rate = twice.unwrap_or(config.peak.ceiling_rate);
    config.peak.start_rate = config.limits.peak_rate;
    scenario::by_name("peak").is_some_and(|case| suite.check(case, &config))
}
