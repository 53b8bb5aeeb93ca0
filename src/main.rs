//! The `floodline` command: parse, run, report, exit code.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let outcome = match cli::Cli::parse().command {
        cli::Command::Serve(args) => cli::serve::run(*args),
        cli::Command::Load(args) => cli::load::run(*args),
        cli::Command::Test(args) => cli::test::run(*args),
        cli::Command::Peak(args) => cli::peak::run(*args),
        cli::Command::Selftest(args) => cli::selftest::run(&args),
        cli::Command::Proxy(args) => cli::proxy::run(&args),
        cli::Command::Merge(args) => cli::merge::run(&args),
        cli::Command::Report(args) => cli::report::run(&args),
        cli::Command::Compare(args) => cli::compare::run(&args),
        cli::Command::History(args) => cli::history::run(&args),
        cli::Command::Calibrate(args) => cli::calibrate::run(&args),
        cli::Command::Config(args) => cli::config::run(&args),
        cli::Command::List => cli::list::run(),
    };
    match outcome {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
