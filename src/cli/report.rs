//! `floodline report`: shows results again, in another form.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use floodline::report::{csv, hdr_log, html, junit, markdown};
use floodline::result::peak::{PEAK_SCHEMA, PeakResults};
use floodline::result::{LoadTestResults, RUN_SCHEMA, TEST_SCHEMA, TestResults, Verdict};
use floodline::scenario;
use serde_json::Value;

use super::exit::Failure;

/// Flags of `floodline report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// JSON results of floodline test, peak or load; several are shown as one
    #[arg(required = true, value_name = "RESULT.json")]
    results: Vec<PathBuf>,
    #[command(flatten)]
    forms: Forms,
}

/// Where to write which form; at least one.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Forms {
    /// Write a page that needs nothing else, for a browser
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write JUnit XML, for CI servers
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write a summary in Markdown, for a comment at a pull request
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write every second of every load as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write the histograms as an HdrHistogram interval log
    #[arg(long, value_name = "FILE")]
    hdr_log: Option<PathBuf>,
}

/// Writes the forms that were asked for.
pub fn run(args: &ReportArgs) -> Result<ExitCode, Failure> {
    let mut all = Vec::new();
    for path in &args.results {
        all.push(read(path).map_err(Failure::Usage)?);
    }
    name_loads(&args.results, &mut all);
    let results = together(all).map_err(Failure::Usage)?;
    args.forms.write(&results).map_err(Failure::Usage)?;
    Ok(ExitCode::SUCCESS)
}

impl Forms {
    fn write(&self, results: &TestResults) -> anyhow::Result<()> {
        if let Some(path) = &self.html {
            write(path, &page(results))?;
        }
        if let Some(path) = &self.junit {
            write(path, &junit::document(results)?)?;
        }
        if let Some(path) = &self.markdown {
            write(path, &markdown::summary(results))?;
        }
        if let Some(path) = &self.csv {
            write(path, &csv::windows(results)?)?;
        }
        if let Some(path) = &self.hdr_log {
            write(path, &hdr_log::intervals(results)?)?;
        }
        Ok(())
    }
}

/// The page of a test, with the question of each case.
pub fn page(results: &TestResults) -> String {
    html::page(results, |name| scenario::by_name(name).map(|case| case.question))
}

/// A result of test, peak or load, as that of a test.
pub fn read(path: &Path) -> anyhow::Result<TestResults> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("{name}"))?;
    let value: Value = serde_json::from_str(&text).with_context(|| format!("{name} is no JSON"))?;
    let schema = value["schema"].as_str().unwrap_or_default().to_owned();
    let read = match &*schema {
        TEST_SCHEMA => serde_json::from_value(value),
        RUN_SCHEMA => serde_json::from_value::<LoadTestResults>(value).map(TestResults::of_load),
        PEAK_SCHEMA => serde_json::from_value::<PeakResults>(value).map(TestResults::of_peak),
        other => {
            bail!("{name}: `schema` is `{other}`; expected {TEST_SCHEMA}, {PEAK_SCHEMA} or {RUN_SCHEMA}")
        }
    };
    read.with_context(|| format!("{name} is no {schema}"))
}

/// Of several single loads, each is called what its file is: they would all be `load`.
fn name_loads(paths: &[PathBuf], all: &mut [TestResults]) {
    let loads = all.iter().filter(|results| results.profile == LOAD).count();
    if loads < 2 {
        return;
    }
    for (path, results) in paths.iter().zip(all.iter_mut()).filter(|(_, results)| results.profile == LOAD) {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        for (case, stem) in results.cases.iter_mut().zip(stem) {
            case.name = stem;
        }
    }
}

/// The profile of what is a load of its own ([`TestResults::of_load`]).
const LOAD: &str = "load";

/// Several results as one, the cases in the order of the files.
fn together(all: Vec<TestResults>) -> anyhow::Result<TestResults> {
    let mut rest = all.into_iter();
    let Some(mut first) = rest.next() else { bail!("no result to show") };
    for other in rest {
        if other.environment.fingerprint() != first.environment.fingerprint() {
            bail!("the results are from different machines, which one page would hide");
        }
        first.verdict = Verdict::of_all([first.verdict, other.verdict]);
        first.interrupted |= other.interrupted;
        first.error = first.error.or(other.error);
        if first.profile != other.profile {
            first.profile = format!("{} and {}", first.profile, other.profile);
        }
        first.cases.extend(other.cases);
    }
    Ok(first)
}

/// Writes a text file.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
