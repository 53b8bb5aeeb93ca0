//! `floodline peak`: the highest rate that holds, with its interval and what limits it, and a burst.
//!
//! Prints every rate that was tried, the criteria, and the figure. The JSON is `floodline.peak/1`
//! ([`floodline::result::peak`]); `--out` writes each load to a file of its own besides.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use floodline::report::json::JsonOutput;
use floodline::report::{peak as report, table};
use floodline::result::CaseResults;
use floodline::result::peak::PeakResults;
use floodline::scenario::peak;

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
    let mut progress = ProgressLine::default();
    progress.case("peak");
    let outcome = peak::run(&suite.config, &suite.venue, &suite.stop, &mut progress);
    progress.clear();
    let found = outcome.map_err(|error| Failure::of_plan(error, "peak"))?;

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
    Ok(if found.interrupted { ExitCode::from(130) } else { code_of(found.verdict) })
}

/// One file a load, and one with everything else.
fn write(out: &Path, found: &PeakResults) -> anyhow::Result<()> {
    write_runs(out, "peak", &found.runs)?;
    let without_runs = PeakResults { runs: Vec::new(), ..found.clone() };
    JsonOutput::open(&out.join("peak.json"))?.write(&without_runs)?;
    Ok(())
}
