//! `floodline history`: earlier runs, and where a figure moved to another level.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context;
use clap::Args;
use floodline::history::{History, HistoryError, series};
use floodline::report::history as text;
use floodline::report::json::JsonOutput;

use super::exit::Failure;
use super::report;
use super::suite::say;

/// Flags of `floodline history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// What load, test or peak appended to with --history
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only this load, such as load or latency.sustained
    #[arg(long, value_name = "LOAD")]
    load: Option<String>,
    /// Look at this figure, by its path in the JSON such as latency_us.p99 [default: rates, latencies, CPU time a message,
    /// memory]; may be repeated
    #[arg(long, value_name = "FIGURE")]
    metric: Vec<String>,
    /// Write a page with a plot of each figure
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write runs and series to this file, or to standard output for -
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
}

/// Lists, plots, and tells what changed.
pub fn run(args: &HistoryArgs) -> Result<ExitCode, Failure> {
    let history = History::read(&args.file).map_err(Failure::usage)?;
    let json = args.json.as_deref().map(JsonOutput::open).transpose().context("--json");
    let json = json.map_err(Failure::Usage)?;
    let found = series::results(&history, args.load.as_deref(), &args.metric).map_err(Failure::usage)?;
    say(&text::summary(&found), json.as_ref().is_some_and(JsonOutput::is_stdout)).map_err(Failure::usage)?;
    if let Some(path) = &args.html {
        report::write(path, &text::page(&found)).map_err(Failure::Usage)?;
    }
    if let Some(json) = json {
        json.write(&found).context("--json").map_err(Failure::Usage)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where a run is kept, opened before its load: a path that cannot be written is found before and not after it.
pub struct Keeper {
    history: History,
    commit: Option<String>,
}

impl Keeper {
    /// Opens the file of `--history`, where it is given.
    pub fn open(path: Option<&Path>) -> Result<Option<Self>, Failure> {
        let Some(path) = path else { return Ok(None) };
        let history = History::append_to(path).context("--history").map_err(Failure::Usage)?;
        Ok(Some(Self { history, commit: commit() }))
    }

    /// Appends by `append`, which is given the commit.
    pub fn keep(
        mut self,
        append: impl FnOnce(&mut History, Option<&str>) -> Result<i64, HistoryError>,
    ) -> Result<(), Failure> {
        let kept = append(&mut self.history, self.commit.as_deref()).context("--history");
        kept.map(|_| ()).map_err(Failure::Usage)
    }
}

/// The commit that is checked out where this runs; `None` where git knows none.
fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output =
            Command::new("git").args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let head = git(&["rev-parse", "HEAD"]).filter(|head| !head.is_empty())?;
    let clean =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| changes.is_empty());
    Some(if clean { head } else { format!("{head}-dirty") })
}
