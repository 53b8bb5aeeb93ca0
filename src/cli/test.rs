//! `floodline test`: the cases, one table, an exit code.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use floodline::client::Stop;
use floodline::config::HighVolumeConfig;
use floodline::environment::Environment;
use floodline::report::json::JsonOutput;
use floodline::report::table;
use floodline::result::{CaseResults, TEST_SCHEMA, TestResults, Verdict};
use floodline::run::plan::PlanError;
use floodline::scenario::{self, Case};

use super::calibrate;
use super::exit::{Failure, code_of};
use super::peak;
use super::progress::ProgressLine;
use super::report;
use super::suite::{Suite, SuiteArgs, write_runs};

/// Flags of `floodline test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Cases to run; see floodline list [default: the nine]
    #[arg(value_name = "CASE")]
    cases: Vec<String>,
    #[command(flatten)]
    suite: SuiteArgs,
}

/// Runs the cases, each against a server of its own unless a target is given.
pub fn run(args: TestArgs) -> Result<ExitCode, Failure> {
    let cases = cases(&args.cases).map_err(Failure::Usage)?;
    let suite = args.suite.prepare()?;
    within_guard(&suite.config, &cases).map_err(Failure::Usage)?;
    let mut found = Vec::new();
    let failure = run_cases(&suite, &cases, &mut found).err();
    let failure = suite.time_limit.reached().filter(|_| suite.stop.is_stopped()).or(failure);
    let results = results(&suite.config, &suite.stop, found, failure.as_ref());
    let generator = calibrate::line(suite.venue.calibration.as_deref());
    suite.say(&format!("{}{generator}", table::last_line(&results)))?;
    if let Some(out) = &suite.out {
        let output = JsonOutput::open(&out.join("test.json")).map_err(Failure::usage)?;
        output.write(&results).map_err(Failure::usage)?;
        report::write(&out.join("report.html"), &report::page(&results)).map_err(Failure::usage)?;
    }
    if let Some(keeper) = suite.keeper {
        keeper.keep(|history, commit| history.append_test(&results, commit))?;
    }
    if let Some(json) = suite.json {
        json.write(&results).map_err(Failure::usage)?;
    }
    match failure {
        Some(failure) => Err(failure),
        None if results.interrupted => Ok(ExitCode::from(130)),
        None => Ok(code_of(results.verdict)),
    }
}

/// Refuses what would go beyond what is allowed, before any of it is offered.
fn within_guard(config: &HighVolumeConfig, cases: &[&Case]) -> anyhow::Result<()> {
    let mut takes = Duration::ZERO;
    for case in cases {
        takes += match case.plan(config) {
            Some(plan) => config.guard.check_plan(case.name, &plan)?,
            None => peak::within_guard(config)?,
        };
    }
    Ok(config.guard.check_time("this test", takes)?)
}

/// Runs one case after the other until all are in `found`, one cannot be run, or the user ends it.
fn run_cases(suite: &Suite, cases: &[&Case], found: &mut Vec<CaseResults>) -> Result<(), Failure> {
    let mut progress = ProgressLine::default();
    for case in cases {
        progress.case(case.name);
        let outcome = case.run(&suite.config, &suite.venue, &suite.stop, &mut progress);
        progress.clear();
        match outcome {
            Ok(results) => {
                let table = table::case(&results);
                let written = suite.out.as_deref().map_or(Ok(()), |out| write_case(out, &results));
                found.push(results);
                suite.say(&table)?;
                written.map_err(Failure::Usage)?;
            }
            Err(PlanError::Stopped) if suite.stop.is_stopped() => return Ok(()),
            Err(error) => return Err(Failure::of_plan(error, case.name)),
        }
    }
    Ok(())
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
    let known = || scenario::every().map(|case| case.name).collect::<Vec<_>>().join(", ");
    names
        .iter()
        .map(|name| {
            scenario::by_name(name).ok_or_else(|| anyhow!("no case is named `{name}`; there are {}", known()))
        })
        .collect()
}

/// One file a load, and one with the verdicts of the case.
fn write_case(out: &Path, case: &CaseResults) -> anyhow::Result<()> {
    write_runs(out, &case.name, &case.runs)?;
    let verdicts = CaseResults { runs: Vec::new(), ..case.clone() };
    JsonOutput::open(&out.join(format!("{}.json", case.name)))?.write(&verdicts)?;
    Ok(())
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
