//! The rate table: at each rate, what a message waits and what it costs.
//!
//! `cargo bench --bench rate_scaling`; the size by `FLOODLINE_PROFILE`, a server of yours by `FLOODLINE_TARGET`.

use std::process::ExitCode;

use floodline::bench::{self, cells};

fn main() -> ExitCode {
    bench::run("rate_scaling", env!("CARGO_BIN_EXE_floodline"), cells::rate_scaling)
}
