//! `floodline peak`: the highest rate that holds, with its interval and what limits it, and a burst.
//!
//! Prints every rate that was tried, the criteria, and the figure. The JSON is `floodline.peak/1`
//! ([`floodline::result::peak`]); `--out` writes each load to a file of its own besides.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use floodline::client::Stop;
use floodline::config::{HighVolumeConfig, Profile, environment};
use floodline::report::json::JsonOutput;
use floodline::report::{peak as report, table};
use floodline::result::CaseResults;
use floodline::result::peak::PeakResults;
use floodline::scenario::peak;

use super::exit::{Failure, code_of};
use super::progress::ProgressLine;
use super::signals::on_interrupt;
use super::target::{self, TargetArgs};
use super::test::{make_directory, say, write_runs};

/// Flags of `floodline peak`; rates and durations are those of `[peak]` in the configuration.
#[derive(Debug, Args)]
pub struct PeakArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Size of the loads: smoke, quick or full [default: quick]
    #[arg(long)]
    profile: Option<Profile>,
    /// Write the result and every load to this directory, as JSON
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the result with all loads to this file, or to standard output for -
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
}

/// Searches against a server of its own unless a target is given.
pub fn run(args: &PeakArgs) -> Result<ExitCode, Failure> {
    let env = target::environment_without_token(&args.target, environment());
    let config =
        HighVolumeConfig::load(args.target.config.as_deref(), env, args.profile).map_err(Failure::usage)?;
    let venue = target::venue(&args.target, &config).map_err(Failure::Usage)?;
    let json =
        args.json.as_deref().map(JsonOutput::open).transpose().context("--json").map_err(Failure::Usage)?;
    let to_stdout = json.as_ref().is_some_and(JsonOutput::is_stdout);
    make_directory(args.out.as_deref())?;
    let stop = Stop::default();
    let on_signal = stop.clone();
    on_interrupt(move || on_signal.stop()).map_err(Failure::usage)?;

    let mut progress = ProgressLine::default();
    progress.case("peak");
    let outcome = peak::run(&config, &venue, &stop, &mut progress);
    progress.clear();
    let found = outcome.map_err(|error| Failure::of_plan(error, "peak"))?;

    let criteria = CaseResults { runs: Vec::new(), ..found.clone().into() };
    let parts = [report::tries(&found), table::case(&criteria), report::last_line(&found)];
    say(&parts.concat(), to_stdout).map_err(Failure::usage)?;
    if let Some(out) = &args.out {
        write(out, &found).map_err(Failure::Usage)?;
    }
    if let Some(json) = json {
        json.write(&found).map_err(Failure::usage)?;
    }
    Ok(if found.interrupted { ExitCode::from(130) } else { code_of(found.verdict) })
}

/// One file a load, and one with everything else.
fn write(out: &Path, found: &PeakResults) -> anyhow::Result<()> {
    write_runs(out, "peak", &found.runs)?;
    let without_runs = PeakResults { runs: Vec::new(), ..found.clone() };
    JsonOutput::open(&out.join("peak.json"))?.write(&without_runs)?;
    Ok(())
}
