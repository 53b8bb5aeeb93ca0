//! `floodline merge`: one result from those of several shards.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use floodline::config::HighVolumeConfig;
use floodline::report::json::JsonOutput;
use floodline::report::terminal;
use floodline::result::{LoadTestResults, RUN_SCHEMA};
use floodline::scenario::load::{LatencyLimit, judge};

use super::exit::{Failure, code_of};

/// Flags of `floodline merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// JSON results of the shards of one load
    #[arg(required = true, value_name = "RESULT.json")]
    results: Vec<PathBuf>,
    /// Limit on a latency percentile, such as p99=500ms; may be repeated
    #[arg(long, value_name = "PERCENTILE=LIMIT")]
    limit: Vec<LatencyLimit>,
    /// Write the merged result to this file, or to standard output for -
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
}

/// Merges, judges anew, reports.
pub fn run(args: &MergeArgs) -> Result<ExitCode, Failure> {
    let json =
        args.json.as_deref().map(JsonOutput::open).transpose().context("--json").map_err(Failure::Usage)?;
    let shards: Result<Vec<_>, _> = args.results.iter().map(|path| read(path)).collect();
    let mut merged = LoadTestResults::merge(shards.map_err(Failure::Usage)?).map_err(Failure::usage)?;
    judge(&mut merged, &HighVolumeConfig::default().limits, &args.limit);
    let text = terminal::summary(&merged);
    if json.as_ref().is_some_and(JsonOutput::is_stdout) {
        let _ = std::io::stderr().write_all(text.as_bytes());
    } else {
        std::io::stdout().write_all(text.as_bytes()).map_err(Failure::usage)?;
    }
    if let Some(json) = json {
        json.write(&merged).context("--json").map_err(Failure::Usage)?;
    }
    Ok(code_of(merged.verdict))
}

fn read(path: &Path) -> anyhow::Result<LoadTestResults> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let results: LoadTestResults = serde_json::from_reader(BufReader::new(file))
        .with_context(|| format!("{} is not a result of floodline load", path.display()))?;
    anyhow::ensure!(
        results.schema == RUN_SCHEMA,
        "{} has the schema `{}`, not `{RUN_SCHEMA}`",
        path.display(),
        results.schema
    );
    Ok(results)
}
