//! Many connections: what a message waits, and what it costs, at the counts that the case judges most.
//!
//! `cargo bench --bench connection_scaling`; the size by `FLOODLINE_PROFILE`, a server of yours by `FLOODLINE_TARGET`.

use std::process::ExitCode;

use floodline::bench::{self, Suite, cells};
use floodline::scenario;

fn main() -> ExitCode {
    bench::run_checked(
        "connection_scaling",
        env!("CARGO_BIN_EXE_floodline"),
        cells::connection_scaling,
        check,
    )
}

fn check(suite: &mut Suite) -> bool {
    let config = suite.settings().config.clone();
    scenario::by_name("connection_scaling").is_some_and(|case| suite.check(case, &config))
}
