//! `floodline selftest`: the proof that every check can fail, one table, an exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Args;
use floodline::client::Stop;
use floodline::report::json::JsonOutput;
use floodline::report::selftest as table;
use floodline::result::selftest::{RowResult, SelftestResults};
use floodline::run::plan::PlanError;
use floodline::selftest::{self, Row, Selftest, SelftestError};

use super::exit::{Failure, code_of};
use super::progress::ProgressLine;
use super::suite::{outputs, say};

/// Flags of `floodline selftest`.
#[derive(Debug, Args)]
pub struct SelftestArgs {
    /// Cases or faults to show; a wrong name lists all [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Offer each fault of the server to every other case as well, and print what fails there without being explained by
    /// it: takes twenty minutes
    #[arg(long, conflicts_with = "json")]
    matrix: bool,
    /// Write all results to this file, or to standard output for -
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
}

/// Plants each fault, and says whether its case catches it.
pub fn run(args: &SelftestArgs) -> Result<ExitCode, Failure> {
    let rows = selftest::selected(&args.names)
        .map_err(|unknown| anyhow!("no case or fault is named `{unknown}`; there are {}", known()))
        .map_err(Failure::Usage)?;
    let executable =
        std::env::current_exe().context("cannot find the floodline executable").map_err(Failure::Usage)?;
    let (json, stop) = outputs(args.json.as_deref())?;
    let to_stdout = json.as_ref().is_some_and(JsonOutput::is_stdout);

    let mut selftest = Selftest::new(executable);
    if args.matrix {
        return matrix(&selftest, &rows, &stop);
    }
    let found = all(&mut selftest, &rows, &stop, to_stdout)?;
    let results = SelftestResults::of(found, stop.is_stopped());
    say(&table::summary(&results), to_stdout).map_err(Failure::usage)?;
    if let Some(json) = json {
        json.write(&results).map_err(Failure::usage)?;
    }
    Ok(if results.interrupted { ExitCode::from(130) } else { code_of(results.verdict) })
}

/// Runs one row after the other until all are done, one cannot be run, or the user ends it.
fn all(
    selftest: &mut Selftest,
    rows: &[Row],
    stop: &Stop,
    to_stdout: bool,
) -> Result<Vec<RowResult>, Failure> {
    let mut progress = ProgressLine::default();
    let mut found: Vec<RowResult> = Vec::new();
    for (n, &row) in rows.iter().enumerate() {
        progress.case(&format!("{}/{} {}, {}:", n + 1, rows.len(), row.proof.case, row.planted.name));
        let outcome = selftest.run(row, stop, &mut progress);
        progress.clear();
        match outcome {
            Ok(result) => {
                let first = found.last().is_none_or(|last| last.case != result.case);
                say(&table::row(&result, first), to_stdout).map_err(Failure::usage)?;
                found.push(result);
            }
            Err(SelftestError::Plan(PlanError::Stopped)) if stop.is_stopped() => break,
            Err(error) => return Err(failure(error, row)),
        }
        if stop.is_stopped() {
            break;
        }
    }
    Ok(found)
}

/// Each fault of the server among `rows` against every other case.
fn matrix(selftest: &Selftest, rows: &[Row], stop: &Stop) -> Result<ExitCode, Failure> {
    let strays = selftest::strays(rows);
    if strays.is_empty() {
        return Err(Failure::Usage(anyhow!("--matrix: none of these faults is one of the server")));
    }
    let mut progress = ProgressLine::default();
    let mut unexplained = 0;
    for &stray in &strays {
        let place =
            format!("{}/{} in {}", stray.row.proof.case, stray.row.planted.name, stray.elsewhere.proof.case);
        progress.case(&place);
        let failed = selftest.run_stray(stray, stop, &mut progress);
        progress.clear();
        match failed {
            Ok(failed) => {
                unexplained += failed.len();
                for criterion in failed {
                    let line = format!(
                        "{place}: {}: {} (limit: {})\n",
                        criterion.name, criterion.measured, criterion.limit
                    );
                    say(&line, false).map_err(Failure::usage)?;
                }
            }
            Err(SelftestError::Plan(PlanError::Stopped)) if stop.is_stopped() => {
                return Ok(ExitCode::from(130));
            }
            // A fault may keep another case from taking place at all, and then nothing of it was judged.
            Err(error) => {
                unexplained += 1;
                say(&format!("{place}: {error}\n"), false).map_err(Failure::usage)?;
            }
        }
    }
    let tried = strays.len();
    let line = format!("{tried} pairs tried, {unexplained} failures that the fault does not explain\n");
    say(&line, false).map_err(Failure::usage)?;
    Ok(ExitCode::from(u8::from(unexplained > 0)))
}

fn failure(error: SelftestError, row: Row) -> Failure {
    match error {
        SelftestError::Plan(error) => {
            Failure::of_plan(error, row.proof.case).context(format!("fault {}", row.planted.name))
        }
        error => Failure::usage(error),
    }
}

fn known() -> String {
    let mut names: Vec<&str> = selftest::rows().flat_map(|row| [row.proof.case, row.planted.name]).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}
