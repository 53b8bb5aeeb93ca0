//! `floodline peak`: the highest rate that holds, with its interval and what limits it, and a burst.
//!
//! Prints every rate that was tried, the criteria, and the figure. The JSON is `floodline.peak/1`
//! ([`floodline::result::peak`]); `--out` writes each load to a file of its own besides.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use floodline::config::HighVolumeConfig;
use floodline::report::json::JsonOutput;
use floodline::report::{peak as report, table};
use floodline::result::CaseResults;
use floodline::result::peak::PeakResults;
use floodline::scenario::peak;
use floodline::units;

use super::calibrate;
use super::exit::{Failure, code_of};
use super::progress::ProgressLine;
use super::suite::{SuiteArgs, write_runs};

/// Flags of `floodline peak`; rates and durations are those of `[peak]` in the configuration.
#[derive(Debug, Args)]
pub struct PeakArgs {
    #[command(flatten)]
    suite: SuiteArgs,
}

/// Searches against a server of its own unless a target is given.
pub fn run(args: PeakArgs) -> Result<ExitCode, Failure> {
    let suite = args.suite.prepare()?;
    within_guard(&suite.config).map_err(Failure::Usage)?;
    let mut progress = ProgressLine::default();
    progress.case("peak");
    let outcome = peak::run(&suite.config, &suite.venue, &suite.stop, &mut progress);
    progress.clear();
    let failed = |error| suite.time_limit.reached().unwrap_or_else(|| Failure::of_plan(error, "peak"));
    let found = outcome.map_err(failed)?;

    let criteria = CaseResults { runs: Vec::new(), ..found.clone().into() };
    let generator = calibrate::line(suite.venue.calibration.as_deref());
    let parts = [report::tries(&found), table::case(&criteria), report::last_line(&found), generator];
    suite.say(&parts.concat())?;
    if let Some(out) = &suite.out {
        write(out, &found).map_err(Failure::Usage)?;
    }
    if let Some(keeper) = suite.keeper {
        keeper.keep(|history, commit| history.append_peak(&found, commit))?;
    }
    if let Some(json) = suite.json {
        json.write(&found).map_err(Failure::usage)?;
    }
    match suite.time_limit.reached() {
        Some(ended) if found.interrupted => Err(ended),
        _ if found.interrupted => Ok(ExitCode::from(130)),
        _ => Ok(code_of(found.verdict)),
    }
}

/// Refuses a search that cannot end well within what is allowed; how long it takes at the least.
pub fn within_guard(config: &HighVolumeConfig) -> anyhow::Result<Duration> {
    let (guard, needed) = (&config.guard, config.limits.peak_rate);
    if guard.max_rate < needed {
        let needed = units::per_second(needed.as_per_second());
        bail!(
            "peak must reach {needed} (limits.peak_rate), beyond --max-rate {} (guard.max_rate)",
            guard.max_rate
        );
    }
    let burst = peak::burst(config);
    guard.check_load("peak", &burst)?;
    let takes = (config.peak.confirm + 2 * config.load.ramp) * config.peak.repeats;
    guard.check_time("peak", takes)?;
    Ok(takes)
}

/// One file a load, and one with everything else.
fn write(out: &Path, found: &PeakResults) -> anyhow::Result<()> {
    write_runs(out, "peak", &found.runs)?;
    let without_runs = PeakResults { runs: Vec::new(), ..found.clone() };
    JsonOutput::open(&out.join("peak.json"))?.write(&without_runs)?;
    Ok(())
}
