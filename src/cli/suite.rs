//! What `floodline test` and `floodline peak` have in common: whom the load goes to, how large it is, where results go.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use floodline::client::Stop;
use floodline::config::{HighVolumeConfig, Profile, environment};
use floodline::report::json::JsonOutput;
use floodline::result::PhaseRun;
use floodline::run::plan::Venue;

use super::exit::Failure;
use super::history::Keeper;
use super::signals::on_interrupt;
use super::target::{self, TargetArgs};
use super::time_limit::TimeLimit;

/// Flags of a suite.
#[derive(Debug, Args)]
pub struct SuiteArgs {
    /// Size of the loads: smoke, quick or full [default: quick]
    #[arg(long)]
    profile: Option<Profile>,
    /// Write the results, and every load to a file of its own, to this directory, as JSON
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write all results to this file, or to standard output for -
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    /// Append the results to this SQLite file; see floodline history
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    // Last: the headings in the help go on to what follows.
    #[command(flatten)]
    target: TargetArgs,
}

/// A suite that is ready to run: nothing that a flag or a file says is in doubt any more, and Ctrl-C stops it.
pub struct Suite {
    pub config: HighVolumeConfig,
    pub venue: Venue,
    pub stop: Stop,
    pub time_limit: TimeLimit,
    pub out: Option<PathBuf>,
    pub json: Option<JsonOutput>,
    pub keeper: Option<Keeper>,
}

impl SuiteArgs {
    /// Reads the configuration and opens what is written to, before any load.
    pub fn prepare(self) -> Result<Suite, Failure> {
        let env = self.target.environment_without_token(environment());
        let mut config = HighVolumeConfig::load(self.target.config.as_deref(), env, self.profile)
            .map_err(Failure::usage)?;
        self.target.overlay(&mut config).map_err(Failure::Usage)?;
        let venue = target::venue(&self.target, &config).map_err(Failure::Usage)?;
        let (json, stop) = outputs(self.json.as_deref())?;
        let keeper = Keeper::open(self.history.as_deref())?;
        let time_limit =
            TimeLimit::start(config.guard.time_limit, Duration::ZERO, &stop).map_err(Failure::usage)?;
        if let Some(out) = &self.out {
            let made = fs::create_dir_all(out).with_context(|| format!("--out {}", out.display()));
            made.map_err(Failure::Usage)?;
        }
        Ok(Suite { config, venue, stop, time_limit, out: self.out, json, keeper })
    }
}

impl Suite {
    /// The table goes to standard output, unless the JSON does.
    pub fn say(&self, text: &str) -> Result<(), Failure> {
        say(text, self.json.as_ref().is_some_and(JsonOutput::is_stdout)).map_err(Failure::usage)
    }
}

/// Opens what JSON is to be written to, so that a path that cannot be written is found before any load; and what Ctrl-C stops.
pub fn outputs(json: Option<&Path>) -> Result<(Option<JsonOutput>, Stop), Failure> {
    let json = json.map(JsonOutput::open).transpose().context("--json").map_err(Failure::Usage)?;
    let stop = Stop::default();
    let on_signal = stop.clone();
    on_interrupt(move || on_signal.stop()).map_err(Failure::usage)?;
    Ok((json, stop))
}

/// Text for people goes to standard output, unless the JSON does.
pub fn say(text: &str, json_on_stdout: bool) -> std::io::Result<()> {
    if json_on_stdout {
        let _ = std::io::stderr().write_all(text.as_bytes());
        return Ok(());
    }
    std::io::stdout().write_all(text.as_bytes())
}

/// One file a load.
pub fn write_runs(out: &Path, case: &str, runs: &[PhaseRun]) -> anyhow::Result<()> {
    for run in runs {
        let path = out.join(format!("{case}.{}.json", run.phase));
        JsonOutput::open(&path)?.write(&run.run)?;
    }
    Ok(())
}
