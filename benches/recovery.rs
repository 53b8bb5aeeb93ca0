//! Recovery: how long a client takes from a dropped connection, and from the death of the server, until all is well.
//!
//! `cargo bench --bench recovery`; the size of the case that is checked first by `FLOODLINE_PROFILE`. The values of the kill
//! come out of the case, those of the drops out of its phase with enough connections dropped.

use std::process::ExitCode;

use floodline::bench::{self, Id, Series, Suite, dealt};
use floodline::result::Outage;
use floodline::scenario;

const DROP: Id = Id::of_time("recovery", "drop");
const KILL: Id = Id::of_time("recovery", "kill");

fn main() -> ExitCode {
    bench::run_series("recovery", env!("CARGO_BIN_EXE_floodline"), &[DROP, KILL], measure)
}

fn measure(suite: &mut Suite) -> Option<Vec<Series>> {
    let case = scenario::by_name("recovery")?;
    let mut config = suite.settings().config.clone();
    let of_case = suite.evidence(case, &config)?;
    // A server that cannot be started again is not killed.
    let killed = of_case.run("kill.all").map_or(&[][..], |run| &run.outages);
    config.recovery.drop_ratio = 0.4;
    let mut plan = case.plan(&config)?;
    plan.phases.retain(|phase| phase.name == "drops");
    let evidence = suite.execute(&plan)?;
    let dropped = &evidence.run("drops.touched")?.outages;
    if dropped.iter().any(|outage| outage.recovered_at_s.is_none()) {
        suite.fail("recovery/drop", "a client never recovered");
        return None;
    }
    let of = |id, outages: &[Outage]| {
        let took = |outage: &Outage| Some(outage.recovered_at_s? - outage.lost_at_s);
        Series { id, values: dealt(&outages.iter().filter_map(took).collect::<Vec<f64>>()) }
    };
    Some(vec![of(DROP, dropped), of(KILL, killed)])
}
