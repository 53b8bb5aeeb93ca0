//! Order under a burst: how long one connection, and several, take to get everything through.
//!
//! `cargo bench --bench ordering`; the size by `FLOODLINE_PROFILE`, a server of yours by `FLOODLINE_TARGET`.

use std::process::ExitCode;

use floodline::bench::{self, Suite, cells};
use floodline::scenario;

fn main() -> ExitCode {
    bench::run_checked("ordering", env!("CARGO_BIN_EXE_floodline"), cells::ordering, check)
}

fn check(suite: &mut Suite) -> bool {
    let config = suite.settings().config.clone();
    scenario::by_name("ordering").is_some_and(|case| suite.check(case, &config))
}
