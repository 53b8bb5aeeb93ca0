//! Memory: what an idle connection weighs on either side.
//!
//! `cargo bench --bench memory`; the size of the case that is checked first by `FLOODLINE_PROFILE`. Growth and leaks are that
//! case's to judge: a value that should be nothing cannot be compared.

use std::process::ExitCode;
use std::time::Duration;

use floodline::bench::{self, Id, Series, Suite};
use floodline::run::plan::{Action, MemorySample, Phase, Plan};
use floodline::scenario;
use floodline::units::Rate;
use floodline::workload::{Offered, Workload};

const CLIENT: Id = Id::of_bytes("client_bytes_per_connection", "200");
const SERVER: Id = Id::of_bytes("server_bytes_per_connection", "200");
const CONNECTIONS: u32 = 200;

fn main() -> ExitCode {
    bench::run_series("memory", env!("CARGO_BIN_EXE_floodline"), &[CLIENT, SERVER], measure)
}

fn measure(suite: &mut Suite) -> Option<Vec<Series>> {
    let config = suite.settings().config.clone();
    suite.case(scenario::by_name("memory")?, &config)?;
    // One message a second over all of them: they are open, and nothing else.
    let idle = Workload {
        offered: Offered::Rate(Rate::per_second(1.0).ok()?),
        connections: CONNECTIONS,
        duration: Duration::from_millis(800),
        ..Workload::default()
    };
    // The first time buffers and pools grow that are there from then on.
    let phases = (0..=suite.values_needed()).flat_map(|n| {
        [
            // The connections of the load before are gone by the end of this.
            Phase::new(format!("pause-{n}"), Action::Idle(Duration::from_millis(100))),
            Phase::new(format!("none-{n}"), Action::Stats),
            Phase::new(format!("idle-{n}"), Action::WatchedLoad(idle.clone())),
        ]
    });
    let count = suite.values_needed();
    let evidence = suite.execute(&Plan { phases: phases.collect(), ..Plan::default() })?;
    let of = |id, live: fn(&MemorySample) -> Option<u64>| {
        let per_connection = |n: usize| {
            let none = live(evidence.phase(&format!("none-{n}"))?.memory.first()?)?;
            let idle = evidence.phase(&format!("idle-{n}"))?;
            let all = idle.run.as_ref()?.connections.established == u64::from(CONNECTIONS);
            let most = idle.memory.iter().filter_map(live).max().filter(|_| all)?;
            Some(most.checked_sub(none)? as f64 / f64::from(CONNECTIONS))
        };
        Series { id, values: (1..=count).filter_map(per_connection).collect() }
    };
    Some(vec![of(CLIENT, |sample| sample.client_live_bytes), of(SERVER, |sample| sample.server_live_bytes)])
}
