//! Latency under a steady load: its percentiles second by second.
//!
//! `cargo bench --bench latency`; the size by `FLOODLINE_PROFILE`, a server of yours by `FLOODLINE_TARGET`. The values are
//! those of the case's own seconds.

use std::process::ExitCode;

use floodline::bench::{self, Id, Series, Suite, dealt};
use floodline::record::WindowSummary;
use floodline::scenario;

const P50: Id = Id::of_time("latency_p50", "steady");
const P95: Id = Id::of_time("latency_p95", "steady");
const P99: Id = Id::of_time("latency_p99", "steady");
const SERVICE_P50: Id = Id::of_time("service_latency_p50", "steady");

fn main() -> ExitCode {
    bench::run_series("latency", env!("CARGO_BIN_EXE_floodline"), &[P50, P95, P99, SERVICE_P50], measure)
}

fn measure(suite: &mut Suite) -> Option<Vec<Series>> {
    let config = suite.settings().config.clone();
    let found = suite.case(scenario::by_name("latency")?, &config)?;
    let run = &found.runs.first()?.run;
    let of = |id, us: fn(&WindowSummary) -> Option<f64>| {
        let full = run.windows.iter().filter(|window| (window.t_s + 1) as f64 <= run.offered_for_s);
        let values: Vec<f64> = full.filter_map(us).map(|us| us / 1e6).collect();
        Series { id, values: dealt(&values) }
    };
    Some(vec![
        of(P50, |window| window.latency_p50_us),
        of(P95, |window| window.latency_p95_us),
        of(P99, |window| window.latency_p99_us),
        of(SERVICE_P50, |window| window.service_latency_p50_us),
    ])
}
