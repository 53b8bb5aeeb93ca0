//! `floodline test`: the cases, one table, an exit code.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Args;
use floodline::client::Stop;
use floodline::config::{HighVolumeConfig, Profile, environment};
use floodline::environment::Environment;
use floodline::report::json::JsonOutput;
use floodline::report::table;
use floodline::result::{CaseResults, PhaseRun, TEST_SCHEMA, TestResults, Verdict};
use floodline::run::plan::{PlanError, Venue};
use floodline::scenario::{self, Case};

use super::exit::{Failure, code_of};
use super::progress::ProgressLine;
use super::signals::on_interrupt;
use super::target::{self, TargetArgs};

/// Flags of `floodline test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Cases to run; see floodline list [default: all]
    #[arg(value_name = "CASE")]
    cases: Vec<String>,
    #[command(flatten)]
    target: TargetArgs,
    /// Size of the cases: smoke, quick or full [default: quick]
    #[arg(long)]
    profile: Option<Profile>,
    /// Write the results of every case and load to this directory, as JSON
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write all results to this file, or to standard output for -
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
}

/// Runs the cases, each against a server of its own unless a target is given.
pub fn run(args: TestArgs) -> Result<ExitCode, Failure> {
    let env = target::environment_without_token(&args.target, environment());
    let config =
        HighVolumeConfig::load(args.target.config.as_deref(), env, args.profile).map_err(Failure::usage)?;
    let cases = cases(&args.cases).map_err(Failure::Usage)?;
    let venue = target::venue(&args.target, &config).map_err(Failure::Usage)?;
    let json =
        args.json.as_deref().map(JsonOutput::open).transpose().context("--json").map_err(Failure::Usage)?;
    let to_stdout = json.as_ref().is_some_and(JsonOutput::is_stdout);
    make_directory(args.out.as_deref())?;
    let stop = Stop::default();
    let on_signal = stop.clone();
    on_interrupt(move || on_signal.stop()).map_err(Failure::usage)?;

    let run = Run { config: &config, venue: &venue, out: args.out.as_deref(), to_stdout };
    let mut found = Vec::new();
    let failure = run.cases(&cases, &stop, &mut found).err();
    let results = results(&config, &stop, found, failure.as_ref());
    say(&table::last_line(&results), to_stdout).map_err(Failure::usage)?;
    if let Some(out) = &args.out {
        let output = JsonOutput::open(&out.join("test.json")).map_err(Failure::usage)?;
        output.write(&results).map_err(Failure::usage)?;
    }
    if let Some(json) = json {
        json.write(&results).map_err(Failure::usage)?;
    }
    match failure {
        Some(failure) => Err(failure),
        None if results.interrupted => Ok(ExitCode::from(130)),
        None => Ok(code_of(results.verdict)),
    }
}

/// What the cases need.
struct Run<'a> {
    config: &'a HighVolumeConfig,
    venue: &'a Venue,
    out: Option<&'a Path>,
    to_stdout: bool,
}

impl Run<'_> {
    /// Runs one case after the other until all are in `found`, one cannot be run, or the user ends it.
    fn cases(&self, cases: &[&Case], stop: &Stop, found: &mut Vec<CaseResults>) -> Result<(), Failure> {
        let mut progress = ProgressLine::default();
        for case in cases {
            progress.case(case.name);
            let outcome = case.run(self.config, self.venue, stop, &mut progress);
            progress.clear();
            match outcome {
                Ok(results) => {
                    let table = table::case(&results);
                    let out = self.out.map_or(Ok(()), |out| write_case(out, &results));
                    found.push(results);
                    say(&table, self.to_stdout).map_err(Failure::usage)?;
                    out.map_err(Failure::Usage)?;
                }
                Err(PlanError::Stopped) if stop.is_stopped() => return Ok(()),
                Err(error) => return Err(Failure::of_plan(error, case.name)),
            }
        }
        Ok(())
    }
}

/// The whole of what was found. Where a case could not be run, nothing it might have found can make a pass of it.
fn results(
    config: &HighVolumeConfig,
    stop: &Stop,
    cases: Vec<CaseResults>,
    failure: Option<&Failure>,
) -> TestResults {
    let error = failure.and_then(Failure::text);
    let not_run = error.is_some().then_some(Verdict::Inconclusive);
    TestResults {
        schema: TEST_SCHEMA.to_owned(),
        verdict: Verdict::of_all(cases.iter().map(|case| case.verdict).chain(not_run)),
        interrupted: stop.is_stopped(),
        profile: config.profile.to_string(),
        cases,
        error,
        environment: Environment::detect(),
    }
}

fn cases(names: &[String]) -> anyhow::Result<Vec<&'static Case>> {
    if names.is_empty() {
        return Ok(scenario::ALL.to_vec());
    }
    let known = || scenario::ALL.map(|case| case.name).join(", ");
    names
        .iter()
        .map(|name| {
            scenario::by_name(name).ok_or_else(|| anyhow!("no case is named `{name}`; there are {}", known()))
        })
        .collect()
}

/// The table goes to standard output, unless the JSON does.
pub(super) fn say(text: &str, json_on_stdout: bool) -> std::io::Result<()> {
    if json_on_stdout {
        let _ = std::io::stderr().write_all(text.as_bytes());
        return Ok(());
    }
    std::io::stdout().write_all(text.as_bytes())
}

/// One file a load, and one with the verdicts of the case.
fn write_case(out: &Path, case: &CaseResults) -> anyhow::Result<()> {
    write_runs(out, &case.name, &case.runs)?;
    let verdicts = CaseResults { runs: Vec::new(), ..case.clone() };
    JsonOutput::open(&out.join(format!("{}.json", case.name)))?.write(&verdicts)?;
    Ok(())
}

/// One file a load.
pub(super) fn write_runs(out: &Path, case: &str, runs: &[PhaseRun]) -> anyhow::Result<()> {
    for run in runs {
        let path = out.join(format!("{case}.{}.json", run.phase));
        JsonOutput::open(&path)?.write(&run.run)?;
    }
    Ok(())
}

/// Makes the directory for results, where one is wanted.
pub(super) fn make_directory(out: Option<&Path>) -> Result<(), Failure> {
    let Some(out) = out else { return Ok(()) };
    fs::create_dir_all(out).with_context(|| format!("--out {}", out.display())).map_err(Failure::Usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_that_could_not_be_run_leaves_a_failure_one_and_makes_no_pass() {
        let case = |verdict| CaseResults {
            name: "ordering".to_owned(),
            verdict,
            reasons: Vec::new(),
            criteria: Vec::new(),
            incidents: Vec::new(),
            runs: Vec::new(),
        };
        let unreachable = Failure::Unreachable(anyhow!("nobody there"));
        let results = |verdict, failure: Option<&Failure>| {
            let config = HighVolumeConfig::default();
            let results = results(&config, &Stop::default(), vec![case(verdict)], failure);
            (results.verdict, results.error)
        };
        use Verdict::{Fail, Inconclusive, Pass};
        let error = Some("nobody there".to_owned());
        assert_eq!(results(Fail, Some(&unreachable)), (Fail, error.clone()));
        assert_eq!(results(Pass, Some(&unreachable)), (Inconclusive, error));
        assert_eq!(results(Pass, None), (Pass, None));
        // Ended by the user, what was found stands for itself.
        assert_eq!(results(Pass, Some(&Failure::Interrupted)), (Pass, None));
    }
}
