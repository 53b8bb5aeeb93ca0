//! Delivery through cuts and kills: how long a client takes to be back, and until all that was unanswered has its answer.
//!
//! `cargo bench --bench delivery`; the size by `FLOODLINE_PROFILE`. The values come out of the case itself, an outage each.

use std::process::ExitCode;

use floodline::bench::{self, Id, Series, Suite, dealt};
use floodline::result::Outage;
use floodline::scenario;

const RECONNECT_CUT: Id = Id::of_time("reconnect", "cut");
const RECOVERY_CUT: Id = Id::of_time("recovery", "cut");
const RECOVERY_KILL: Id = Id::of_time("recovery", "kill");
/// The client sees the death of the server so soon.
const SEEN_WITHIN_S: f64 = 0.5;

fn main() -> ExitCode {
    let ids = [RECONNECT_CUT, RECOVERY_CUT, RECOVERY_KILL];
    bench::run_series("delivery", env!("CARGO_BIN_EXE_floodline"), &ids, measure)
}

fn measure(suite: &mut Suite) -> Option<Vec<Series>> {
    let config = suite.settings().config.clone();
    let evidence = suite.evidence(scenario::by_name("delivery")?, &config)?;
    let kills = &evidence.scene("cuts")?.kills;
    let by_kill = |outage: &&Outage| {
        kills.iter().any(|kill| (kill.at_s..kill.back_at_s + SEEN_WITHIN_S).contains(&outage.lost_at_s))
    };
    let (killed, cut): (Vec<&Outage>, Vec<&Outage>) = evidence.run("load")?.outages.iter().partition(by_kill);
    let of = |id, outages: &[&Outage], end: fn(&Outage) -> Option<f64>| {
        let took = outages.iter().filter_map(|outage| Some(end(outage)? - outage.lost_at_s));
        Series { id, values: dealt(&took.collect::<Vec<f64>>()) }
    };
    Some(vec![
        of(RECONNECT_CUT, &cut, |outage| outage.reconnected_at_s),
        of(RECOVERY_CUT, &cut, |outage| outage.recovered_at_s),
        of(RECOVERY_KILL, &killed, |outage| outage.recovered_at_s),
    ])
}
