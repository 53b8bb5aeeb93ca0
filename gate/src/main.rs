//! Counts, and compares: `cargo run -p floodline-gate`.
//!
//! Exit codes: 0 nothing changed by more than 2 %, or the tools are missing, which is said; 1 something did; 2 wrong usage,
//! or it could not be counted; 3 the baseline is of another environment.

#![allow(clippy::print_stdout, reason = "what it prints is its result")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use floodline_gate::baseline::Baseline;
use floodline_gate::comparison::{Comparison, TOLERANCE_PERCENT};
use floodline_gate::counts::{self, Counts};
use floodline_gate::environment::{Environment, output_of};
use floodline_gate::{GUNGRAUN, MESSAGES};

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.json");

/// Counts the instructions that a message takes, part by part, and holds them against a baseline.
#[derive(Parser)]
#[command(name = "floodline-gate")]
struct Args {
    /// The baseline; by default the committed one.
    #[arg(long, value_name = "FILE", default_value = BASELINE, hide_default_value = true)]
    baseline: PathBuf,
    /// Write what is counted as the new baseline, whatever changed.
    #[arg(long)]
    bless: bool,
}

fn main() -> ExitCode {
    run(&Args::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

fn run(args: &Args) -> Result<ExitCode> {
    if let Some(missing) = missing_tool() {
        ensure!(!args.bless, "{missing}");
        println!("SKIPPED: {missing}. No instruction was counted.");
        return Ok(ExitCode::SUCCESS);
    }
    if args.bless {
        return bless(&args.baseline);
    }
    // Before the minutes that the counting may take.
    let known = Baseline::read(&args.baseline)?;
    Ok(judge(&known, &take()?))
}

fn take() -> Result<Baseline> {
    Ok(Baseline { environment: Environment::here()?, instructions: count()? })
}

fn bless(path: &Path) -> Result<ExitCode> {
    let now = take()?;
    // One that cannot be read is written anew.
    if let Ok(known) = Baseline::read(path) {
        println!("{}", Comparison::new(&known.instructions, &now.instructions, MESSAGES));
    }
    now.write(path)?;
    println!("Written: {}", path.display());
    Ok(ExitCode::SUCCESS)
}

/// Prints what changed; the exit code is that of the command.
fn judge(known: &Baseline, now: &Baseline) -> ExitCode {
    let comparison = Comparison::new(&known.instructions, &now.instructions, MESSAGES);
    println!("{comparison}");
    let differences = now.environment.differences(&known.environment);
    if !differences.is_empty() {
        println!("INCONCLUSIVE: the baseline was taken elsewhere, so the table says nothing about the code.");
        differences.iter().for_each(|difference| println!("  {difference}"));
        println!("Take one of the base commit here: --bless --baseline FILE there, --baseline FILE here.");
        return ExitCode::from(3);
    }
    let (changed, all) = (comparison.changed().count(), comparison.rows.len());
    if changed == 0 {
        println!("No benchmark of {all} changed by more than {TOLERANCE_PERCENT} %.");
        return ExitCode::SUCCESS;
    }
    println!("FAILED: {changed} of {all} changed by more than {TOLERANCE_PERCENT} %.");
    println!("Where that is meant to be, fewer instructions included, commit a new baseline: --bless.");
    ExitCode::FAILURE
}

/// What there is to install before anything can be counted.
fn missing_tool() -> Option<String> {
    if output_of("valgrind", &["--version"]).is_err() {
        return Some("valgrind is not installed".to_owned());
    }
    let runner = std::env::var("GUNGRAUN_RUNNER").unwrap_or_else(|_| "gungraun-runner".to_owned());
    let found = output_of(&runner, &["--version"]).unwrap_or_default();
    let is_it = found.split_whitespace().any(|word| word == GUNGRAUN);
    (!is_it).then(|| {
        let found = if found.is_empty() { "none" } else { &found };
        format!("gungraun-runner {GUNGRAUN} is not installed (found: {found}): cargo install gungraun-runner --version {GUNGRAUN} --locked")
    })
}

/// Builds and runs the benchmarks.
fn count() -> Result<Counts> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .args(["bench", "--locked", "--features", "benches", "--bench", "instructions", "--"])
        .args(["--output-format=json"])
        // Cargo's progress, and what gungraun has to complain of.
        .stderr(Stdio::inherit())
        .output()
        .context("cargo bench")?;
    ensure!(output.status.success(), "cargo bench ended with {}", output.status);
    counts::read(&String::from_utf8_lossy(&output.stdout))
}
