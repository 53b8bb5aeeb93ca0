//! `floodline calibrate`: what the load generator itself can do on this machine, kept for the results to come.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use floodline::calibration::cache::{CalibrationCache, Known, generator_of};
use floodline::calibration::truth::{self, TruthError};
use floodline::calibration::{CalibrationError, CalibrationPlan, calibrate};
use floodline::client::Stop;
use floodline::clock::unix_now_ns;
use floodline::config::{HighVolumeConfig, environment};
use floodline::report::calibration as report;
use floodline::report::json::JsonOutput;
use floodline::report::truth as report_truth;
use floodline::result::calibration::Calibration;
use floodline::result::truth::TruthResults;
use floodline::run::ServerCommand;
use floodline::units::{parse_bytes, parse_duration};
use floodline::workload::{Offered, Workload};

use super::exit::{Failure, code_of};
use super::load::SPARE_CONNECTIONS;
use super::progress::ProgressLine;
use super::suite::{outputs, say};

/// Flags of `floodline calibrate`.
#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// Bytes of content a message [default: that of the configuration, 1024]
    #[arg(long, value_parser = parse_bytes, value_name = "SIZE")]
    payload_bytes: Option<u64>,
    /// Connections of the ceiling and the timer [default: those of the configuration, 100]
    #[arg(long, value_name = "N")]
    connections: Option<u32>,
    /// How long each of the five loads takes, up to 5s [default: 2s]
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    stage: Option<Duration>,
    /// Instead: hold reported latencies against servers that delay by a known time, in about two minutes; or only against
    /// those whose name, such as `stall 500 ms, 2000/s on 100`, holds this text
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "",
          conflicts_with_all = ["payload_bytes", "connections", "stage"])]
    truth: Option<String>,
    /// Configuration file [default: floodline.toml in the current directory, where it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the result to this file, or to standard output for -
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
}

/// The longest load: all five take less than half a minute.
const LONGEST_STAGE: Duration = Duration::from_secs(5);
const USUAL_STAGE: Duration = Duration::from_secs(2);

/// Calibrates, prints what was found, and keeps it where the machine was quiet meanwhile.
pub fn run(args: &CalibrateArgs) -> Result<ExitCode, Failure> {
    let config =
        HighVolumeConfig::load(args.config.as_deref(), environment(), None).map_err(Failure::usage)?;
    let plan = plan(args, &config).map_err(Failure::Usage)?;
    let (json, stop) = outputs(args.json.as_deref())?;
    let to_stdout = json.as_ref().is_some_and(JsonOutput::is_stdout);
    if let Some(name) = &args.truth {
        return truth_table(name, &config, json, &stop);
    }
    let mut progress = ProgressLine::default();
    progress.case("calibrate");
    let outcome = calibrate(&plan, &stop, &mut progress);
    progress.clear();
    let calibration = outcome.map_err(failure)?;
    say(&report::summary(&calibration), to_stdout).map_err(Failure::usage)?;
    if let Some(json) = json {
        json.write(&calibration).context("--json").map_err(Failure::Usage)?;
    }
    keep(&calibration, &config, to_stdout)
}

fn plan(args: &CalibrateArgs, config: &HighVolumeConfig) -> anyhow::Result<CalibrationPlan> {
    let stage = args.stage.unwrap_or(USUAL_STAGE);
    if stage > LONGEST_STAGE {
        return Err(anyhow!("--stage: a load of a calibration takes 5 s at most"));
    }
    let workload = Workload {
        offered: Offered::Max,
        connections: args.connections.unwrap_or(config.load.connections),
        payload_bytes: usize::try_from(args.payload_bytes.unwrap_or(config.load.payload_bytes))?,
        window: config.load.window as usize,
        duration: stage,
        ..Workload::default()
    };
    let executable = std::env::current_exe().context("cannot find the floodline executable")?;
    let generator = generator_of(&executable).context("cannot read the floodline executable")?;
    let connections = workload.connections.saturating_add(SPARE_CONNECTIONS);
    let server = ServerCommand { executable, args: vec![format!("--max-connections={connections}")] };
    Ok(CalibrationPlan { workload: workload.validated()?, server, generator })
}

/// Expected against reported, of the cases whose name holds a text.
fn truth_table(
    name: &str,
    config: &HighVolumeConfig,
    json: Option<JsonOutput>,
    stop: &Stop,
) -> Result<ExitCode, Failure> {
    let cases = truth::selected(name).map_err(|known| {
        Failure::Usage(anyhow!("--truth: no case's name holds `{name}`; there are: {}", known.join("; ")))
    })?;
    let executable = std::env::current_exe().context("cannot find the floodline executable");
    let server = ServerCommand { executable: executable.map_err(Failure::Usage)?, args: Vec::new() };
    let to_stdout = json.as_ref().is_some_and(JsonOutput::is_stdout);
    say(&report_truth::head(), to_stdout).map_err(Failure::usage)?;
    let (mut table, mut baseline) = (Vec::new(), truth::Baseline::default());
    for case in cases {
        let mut progress = ProgressLine::default();
        progress.case("truth");
        let outcome = truth::run(&case, &server, &mut baseline, stop, &mut progress);
        progress.clear();
        let rows = outcome.map_err(|error| match error {
            TruthError::Run(error) => Failure::from(error),
            TruthError::Stopped => Failure::Interrupted,
            error => Failure::usage(error),
        })?;
        say(&report_truth::rows(&rows), to_stdout).map_err(Failure::usage)?;
        table.extend(rows);
    }
    let results = TruthResults::of(table, config.limits.foreign_cpu_cores);
    say(&report_truth::last_line(&results), to_stdout).map_err(Failure::usage)?;
    if let Some(json) = json {
        json.write(&results).context("--json").map_err(Failure::Usage)?;
    }
    Ok(code_of(results.verdict))
}

fn failure(error: CalibrationError) -> Failure {
    match error {
        CalibrationError::Stopped => Failure::Interrupted,
        CalibrationError::Run { stage, source } => Failure::from(source).context(stage.to_owned()),
        error @ (CalibrationError::Unanswered { .. } | CalibrationError::Rate(_)) => Failure::usage(error),
    }
}

/// What was disturbed says too little of the generator, and would later excuse a server: it is not kept.
fn keep(calibration: &Calibration, config: &HighVolumeConfig, to_stdout: bool) -> Result<ExitCode, Failure> {
    let limit = config.limits.foreign_cpu_cores;
    if let Some(foreign) = calibration.foreign_cpu_cores.filter(|&foreign| foreign > limit) {
        let text = format!("INCONCLUSIVE: not kept, because other processes took {foreign:.2} cores\n");
        say(&text, to_stdout).map_err(Failure::usage)?;
        return Ok(ExitCode::from(3));
    }
    let Some(cache) = user_cache() else {
        say("not kept: the environment names no directory for it\n", to_stdout).map_err(Failure::usage)?;
        return Ok(ExitCode::SUCCESS);
    };
    cache.keep(calibration).map_err(Failure::usage)?;
    say(&format!("kept for a week in {}\n", cache.path().display()), to_stdout).map_err(Failure::usage)?;
    Ok(ExitCode::SUCCESS)
}

fn user_cache() -> Option<CalibrationCache> {
    CalibrationCache::of_user(|name| std::env::var_os(name).map(PathBuf::from))
}

/// What is known of this generator, where it was calibrated and that still holds; else says on standard error that it does
/// not, and why.
pub(super) fn known(payload_bytes: usize, connections: u32) -> Option<Box<Calibration>> {
    let cache = user_cache()?;
    if !cache.path().exists() {
        return None;
    }
    let executable = std::env::current_exe().ok()?;
    let known = match generator_of(&executable) {
        Ok(generator) => cache.look_up(&generator, payload_bytes, connections, unix_now_ns()),
        Err(error) => Known::Outdated(format!("the executable cannot be read: {error}")),
    };
    match known {
        Known::Valid(calibration) => Some(calibration),
        Known::Nothing => None,
        Known::Outdated(why) => {
            note(&format!("the calibration is not used: {why}"));
            None
        }
        Known::OfAnotherLoad(calibration, why) => {
            note(&format!("the calibration of this load is not used: {why}; that of another load is shown"));
            Some(calibration)
        }
    }
}

fn note(text: &str) {
    let text = format!("note: {text}; `floodline calibrate` makes a new one\n");
    // Standard error may be closed; the result does without.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// The line beside a result.
pub(super) fn line(calibration: Option<&Calibration>) -> String {
    calibration.map(|calibration| report::line(calibration, unix_now_ns())).unwrap_or_default()
}
