//! The Criterion glue, for our benches and for other people's.
//!
//! A load at a fixed rate takes a fixed time, so its wall time says nothing. What should be compared (a latency, CPU per
//! message) is measured by the load itself, and one load measures all of it at once. So each [`Cell`] runs its windows
//! *once*, one load a window, and keeps a value of every [`Measure`] for each. Criterion is then handed those values:
//! its `n`-th call of a benchmark gets the value of window `n`, times the iterations that it asked for. The first call,
//! Criterion's warm-up, gets the first window, which warms up the server as well; with a warm-up time of 1 ns there is
//! just one such call.
//!
//! Every window is judged before it is measured. A cell whose load does not hold is not measured, the others are, and
//! [`Suite::finish`] ends with exit code 1 and the list.

mod arguments;
pub mod cells;
mod series;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use thiserror::Error;

use self::arguments::{Arguments, Mode};
pub(crate) use self::series::refused;
pub use self::series::{Id, Series, Unit, dealt, run_series};
use crate::client::{Access, Observer, Stop};
use crate::config::{ConfigError, HighVolumeConfig, Profile, environment};
use crate::dialect::{DialectError, DialectKind, DialectSettings};
use crate::result::{CaseResults, CriterionOutcome, LoadTestResults, Verdict};
use crate::run::plan::{Evidence, Plan, PlanObserver, Venue, execute};
use crate::run::{
    AccessError, LoadPlan, Peer, Restart, RunError, ServerCommand, ServerProcess, access, run_load,
};
use crate::scenario::Case;
use crate::scenario::load::{LatencyLimit, judge, judge_drained};
use crate::units::{Rate, UnitError};
use crate::workload::{Offered, Target, TargetError, Workload};

/// Samples that Criterion takes of each benchmark: its least.
const SAMPLES: usize = 10;
/// Resamples of Criterion's bootstrap: its default of ten times as many takes longer than the load, for ten values that
/// carry no more.
const RESAMPLES: usize = 10_000;
/// A P99 of fewer messages is not worth a benchmark of its own: it would rest on its twenty largest values or fewer.
const P99_MESSAGES: f64 = 2_000.0;

/// What a window of a load is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Median latency from the due instant.
    LatencyP50,
    /// 99th percentile of the latency from the due instant; left out where a window has fewer than 2,000 messages.
    LatencyP99,
    /// Median latency from the send.
    ServiceLatencyP50,
    /// CPU time of the client's process an answered message.
    ClientCpuPerMessage,
    /// CPU time of the server's process an answered message; left out where the server's process is not known.
    ServerCpuPerMessage,
    /// The time in which so many messages are answered or refused, from the start of the load to the last of them. A load
    /// that is measured so is not expected to be followed: it is judged by its counts.
    Drain {
        /// How many; in a closed loop, whose windows differ, the time is scaled to this.
        messages: u64,
    },
}

impl Measure {
    /// All of them: what a load at a fixed rate should be compared by.
    pub const ALL: [Self; 5] = [
        Self::LatencyP50,
        Self::LatencyP99,
        Self::ServiceLatencyP50,
        Self::ClientCpuPerMessage,
        Self::ServerCpuPerMessage,
    ];

    /// Its part of a benchmark's id.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LatencyP50 => "latency_p50",
            Self::LatencyP99 => "latency_p99",
            Self::ServiceLatencyP50 => "service_latency_p50",
            Self::ClientCpuPerMessage => "client_cpu_per_message",
            Self::ServerCpuPerMessage => "server_cpu_per_message",
            Self::Drain { .. } => "drain",
        }
    }

    /// Its value in a result; `None` where there is none.
    fn of(self, results: &LoadTestResults) -> Option<Duration> {
        let value_us = match self {
            Self::LatencyP50 => results.latency_us.as_ref()?.p50,
            Self::LatencyP99 => results.latency_us.as_ref()?.p99,
            Self::ServiceLatencyP50 => results.service_latency_us.as_ref()?.p50,
            Self::ClientCpuPerMessage => results.cost.client_cpu_us_per_message,
            Self::ServerCpuPerMessage => results.cost.server_cpu_us_per_message,
            Self::Drain { messages } => {
                let told = results.messages.counts.answered + results.messages.counts.refused;
                let us = results.moments.last_answer_s? * 1e6 * messages as f64 / told as f64;
                Some(us).filter(|us| us.is_finite())
            }
        }?;
        // Criterion silently drops a benchmark with a zero sample, and a real one of these is never zero.
        (value_us > 0.0).then(|| Duration::from_secs_f64(value_us / 1e6))
    }
}

/// One load of a bench: its windows are run once and measured in several ways.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Its part of a benchmark's id, such as the rate.
    pub parameter: String,
    /// What one window offers.
    pub workload: Workload,
    /// Latency limits that every window must hold, beside the counts and the achieved rate.
    pub limits: Vec<LatencyLimit>,
    /// What it is measured by.
    pub measures: Vec<Measure>,
}

/// A bench cannot start.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A setting cannot be read.
    #[error(transparent)]
    Setting(#[from] UnitError),
    /// The target cannot be understood.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The way to the target cannot be gone.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The dialect lacks something.
    #[error(transparent)]
    Dialect(#[from] DialectError),
    /// The filter on the command line is no regular expression.
    #[error("the filter `{filter}` is not a regular expression: {cause}")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        cause: regex::Error,
    },
}

/// What a bench is to do, from its command line, the environment and `floodline.toml`.
#[derive(Debug)]
pub struct Settings {
    /// The numbers of the cases, at the profile's size.
    pub config: HighVolumeConfig,
    /// How long one measured window lasts.
    pub window: Duration,
    dialect: DialectKind,
    access: Access,
    restart: Option<Restart>,
    dialect_settings: Arc<DialectSettings>,
    peer: PeerSetting,
    arguments: Arguments,
}

#[derive(Debug)]
enum PeerSetting {
    At { target: Target, pid: Option<u32> },
    Own(ServerCommand),
}

impl Settings {
    /// Reads them. `executable` is the `floodline` binary, which serves where no target is set: in a bench of this crate
    /// `env!("CARGO_BIN_EXE_floodline")`.
    ///
    /// # Errors
    /// At the first setting that is unknown or makes no sense.
    pub fn read(executable: &str) -> Result<Self, BenchError> {
        let arguments = Arguments::parse(std::env::args().skip(1))?;
        // Criterion's `--test` wants every benchmark run once, fast.
        let profile = (arguments.mode == Mode::Test).then_some(Profile::Smoke);
        let config = HighVolumeConfig::load(None, environment(), profile)?;
        let peer = match &config.target.url {
            Some(url) => PeerSetting::At { target: url.parse()?, pid: None },
            None => PeerSetting::Own(ServerCommand { executable: executable.into(), args: Vec::new() }),
        };
        let window = window(config.profile);
        let access = access(&config.target)?;
        let restart = config.target.restart_command.clone().map(Restart::command);
        let dialect = config.target.dialect.parse()?;
        let dialect_settings =
            Arc::new(DialectSettings::new(config.dialect.clone(), |name| std::env::var(name).ok())?);
        Ok(Self { dialect, dialect_settings, access, restart, peer, window, arguments, config })
    }

    /// What a bench of somebody else's server is to do; `config` is asked for the numbers, with the profile that the
    /// command line wants.
    pub(crate) fn of(
        venue: &Venue,
        config: impl FnOnce(Option<Profile>) -> Result<HighVolumeConfig, ConfigError>,
    ) -> Result<Self, BenchError> {
        let arguments = Arguments::parse(std::env::args().skip(1))?;
        let config = config((arguments.mode == Mode::Test).then_some(Profile::Smoke))?;
        let peer = match &venue.peer {
            Peer::At { target, pid } => PeerSetting::At { target: target.clone(), pid: *pid },
            Peer::Own(command) => PeerSetting::Own(command.clone()),
        };
        let (dialect, access, window) = (venue.dialect, venue.access.clone(), window(config.profile));
        let dialect_settings =
            Arc::new(DialectSettings::new(config.dialect.clone(), |name| std::env::var(name).ok())?);
        let restart = venue.restart.clone();
        Ok(Self { config, window, dialect, dialect_settings, access, restart, peer, arguments })
    }

    /// Whether the server's process is known, and so what it costs.
    fn knows_process(&self) -> bool {
        !matches!(self.peer, PeerSetting::At { pid: None, .. })
    }

    /// The load of one window at `rate`, everything else as configured.
    ///
    /// # Errors
    /// Where a configured word is unknown.
    pub fn workload(&self, rate: Rate) -> Result<Workload, BenchError> {
        let load = &self.config.load;
        Ok(Workload {
            offered: Offered::Rate(rate),
            connections: load.connections,
            duration: self.window,
            arrival: load.arrival.parse()?,
            payload_bytes: usize::try_from(load.payload_bytes).unwrap_or(usize::MAX),
            answer_timeout: load.answer_timeout,
            seed: load.seed,
            pacer: load.pacer.parse()?,
            ..Workload::default()
        })
    }
}

/// A bench: its cells in turn, each checked and then measured.
pub struct Suite {
    name: &'static str,
    settings: Settings,
    criterion: Criterion,
    /// The cells that did not hold, with why.
    failed: Vec<String>,
}

impl Suite {
    /// A bench named `name`, which is the first part of all its benchmarks' ids.
    #[must_use]
    pub fn new(name: &'static str, settings: Settings) -> Self {
        Self { name, settings, criterion: Criterion::default().configure_from_args(), failed: Vec::new() }
    }

    /// Runs a whole case of the size that `config` gives it, unless nothing is to be run at all: what it finds wrong stands
    /// in the way of measuring. `true` where it holds or leaves doubts, which are told.
    pub fn check(&mut self, case: &Case, config: &HighVolumeConfig) -> bool {
        self.settings.arguments.mode == Mode::NoRun || self.case(case, config).is_some()
    }

    /// Runs a whole case and gives what it found; `None` where it does not hold, which ends the bench with exit code 1.
    pub fn case(&mut self, case: &Case, config: &HighVolumeConfig) -> Option<CaseResults> {
        let mut observer = PhaseProgress { prefix: format!("{}: checking the case", self.name) };
        let found = case.within_guard(config).map_err(|beyond| beyond.to_string()).and_then(|()| {
            let found = case.run(config, &self.venue(), &Stop::default(), &mut observer);
            found.map_err(|error| error.to_string())
        });
        let failure = match found {
            Ok(found) if found.verdict == Verdict::Fail => found.reasons.join("; "),
            Ok(found) => {
                found.reasons.iter().for_each(|reason| say(&format!("{}: {reason}", self.name)));
                return Some(found);
            }
            Err(error) => error,
        };
        self.fail(case.name, &failure);
        None
    }

    /// Runs a whole case and gives its evidence; `None` where it does not hold, which ends the bench with exit code 1.
    pub fn evidence(&mut self, case: &Case, config: &HighVolumeConfig) -> Option<Evidence> {
        let Some(plan) = case.plan(config) else {
            self.fail(case.name, "it has no plan");
            return None;
        };
        if let Err(beyond) = case.within_guard(config) {
            self.fail(case.name, &beyond.to_string());
            return None;
        }
        let evidence = self.execute(&plan)?;
        for criterion in case.assess(config, &evidence) {
            let CriterionOutcome { name, limit, measured, verdict, .. } = criterion;
            let told = format!("{name}: {measured} (limit: {limit})");
            match verdict {
                Verdict::Pass | Verdict::Skipped => {}
                Verdict::Inconclusive => say(&format!("{}: {told} is inconclusive", self.name)),
                Verdict::Fail => {
                    self.fail(case.name, &told);
                    return None;
                }
            }
        }
        Some(evidence)
    }

    /// Executes a plan; `None` where that was not possible, which ends the bench with exit code 1.
    pub fn execute(&mut self, plan: &Plan) -> Option<Evidence> {
        let mut observer = PhaseProgress { prefix: format!("{}: measuring", self.name) };
        match execute(plan, &self.venue(), &Stop::default(), &mut observer) {
            Ok(evidence) => Some(evidence),
            Err(error) => {
                self.fail("plan", &error.to_string());
                None
            }
        }
    }

    /// Runs one cell, unless the command line's filter leaves out all of its benchmarks.
    pub fn cell(&mut self, cell: &Cell) {
        let measures: Vec<Measure> = self.measures_of(cell).collect();
        if measures.is_empty() {
            return;
        }
        let windows =
            if self.settings.arguments.mode == Mode::NoRun { Ok(Vec::new()) } else { self.windows(cell) };
        match windows {
            Ok(windows) => measures.into_iter().for_each(|measure| self.hand_over(cell, measure, &windows)),
            Err(reason) => self.fail(&cell.parameter, &reason),
        }
    }

    /// Ends the bench: exit code 1 where a cell did not hold.
    #[must_use]
    pub fn finish(self) -> ExitCode {
        self.criterion.final_summary();
        if self.failed.is_empty() {
            return ExitCode::SUCCESS;
        }
        say(&format!("{} of the cells did not hold and were not measured:", self.failed.len()));
        self.failed.iter().for_each(|failure| say(&format!("  {failure}")));
        ExitCode::FAILURE
    }

    fn measures_of<'a>(&'a self, cell: &'a Cell) -> impl Iterator<Item = Measure> {
        cell.measures.iter().copied().filter(|&measure| self.is_wanted(cell, measure))
    }

    /// What the bench is to do.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn is_wanted(&self, cell: &Cell, measure: Measure) -> bool {
        let id = format!("{}/{}/{}", self.name, measure.name(), cell.parameter);
        let known = match measure {
            Measure::LatencyP99 => messages_a_window(&cell.workload) >= P99_MESSAGES,
            Measure::ServerCpuPerMessage => self.settings.knows_process(),
            _ => true,
        };
        known && self.settings.arguments.filter.accepts(&id)
    }

    /// Runs and judges the windows of a cell.
    fn windows(&self, cell: &Cell) -> Result<Vec<LoadTestResults>, String> {
        let within = self.settings.config.guard.check_load("each window", &cell.workload);
        within.map_err(|beyond| beyond.to_string())?;
        let count = if self.settings.arguments.mode == Mode::Test { 1 } else { SAMPLES + 1 };
        let server = match &self.settings.peer {
            PeerSetting::Own(command) => {
                Some(ServerProcess::start(command).map_err(|error| error.to_string())?)
            }
            PeerSetting::At { .. } => None,
        };
        let peer = match (&server, &self.settings.peer) {
            (Some(server), _) => Peer::At { target: server.target().clone(), pid: Some(server.pid()) },
            (None, PeerSetting::At { target, pid }) => Peer::At { target: target.clone(), pid: *pid },
            (None, PeerSetting::Own(command)) => Peer::Own(command.clone()),
        };
        let Settings { dialect, dialect_settings, access, .. } = &self.settings;
        let plan = LoadPlan {
            dialect: *dialect,
            dialect_settings: Arc::clone(dialect_settings),
            access: access.clone(),
            ..LoadPlan::new(cell.workload.clone(), peer)
        };
        let mut windows = Vec::with_capacity(count);
        for window in 1..=count {
            progress(&format!("{}/{}: window {window} of {count}", self.name, cell.parameter));
            let mut results =
                run_load(&plan, &Stop::default(), &mut ()).map_err(|error: RunError| error.to_string())?;
            if cell.measures.iter().any(|measure| matches!(measure, Measure::Drain { .. })) {
                judge_drained(&mut results);
            } else {
                judge(&mut results, &self.settings.config.limits, &cell.limits);
            }
            match results.verdict {
                Verdict::Fail => return Err(format!("window {window}: {}", results.reasons.join("; "))),
                Verdict::Inconclusive => say(&format!(
                    "{}/{}: window {window} is inconclusive: {}",
                    self.name,
                    cell.parameter,
                    results.reasons.join("; ")
                )),
                Verdict::Pass | Verdict::Skipped => {}
            }
            windows.push(results);
        }
        Ok(windows)
    }

    /// Hands a measure's recorded values to Criterion, one a call.
    fn hand_over(&mut self, cell: &Cell, measure: Measure, windows: &[LoadTestResults]) {
        let values: Option<Vec<Duration>> = windows.iter().map(|results| measure.of(results)).collect();
        let Some(values) = values else {
            let why = "a window has no value";
            self.fail(&format!("{}/{}", measure.name(), cell.parameter), why);
            return;
        };
        let throughput = match measure {
            Measure::Drain { messages } => Some(Throughput::Elements(messages)),
            _ => None,
        };
        let id = BenchmarkId::new(measure.name(), &cell.parameter);
        let times_n = |time: Duration, n: u64| time.mul_f64(n as f64);
        series::hand_over(&mut self.criterion, self.name, id, throughput, &values, times_n);
    }

    /// Says why something is not measured, which ends the bench with exit code 1.
    pub fn fail(&mut self, what: &str, why: &str) {
        say(&format!("{}/{what}: NOT MEASURED: {why}", self.name));
        self.failed.push(format!("{}/{what}: {why}", self.name));
    }

    /// Says what a target gives no value for; the rest of the bench stands.
    pub(crate) fn leave_out(&self, what: &str, why: &str) {
        say(&format!("{}/{what}: not measured on this target: {why}", self.name));
    }

    /// Whether it is another server than our own that is measured.
    pub(crate) fn is_on_target(&self) -> bool {
        matches!(self.settings.peer, PeerSetting::At { .. })
    }

    fn venue(&self) -> Venue {
        let peer = match &self.settings.peer {
            PeerSetting::At { target, pid } => Peer::At { target: target.clone(), pid: *pid },
            PeerSetting::Own(command) => Peer::Own(command.clone()),
        };
        let Settings { dialect, dialect_settings, access, restart, .. } = &self.settings;
        Venue {
            dialect: *dialect,
            dialect_settings: Arc::clone(dialect_settings),
            access: access.clone(),
            restart: restart.clone(),
            ..Venue::new(peer)
        }
    }
}

/// Runs a bench from its `main`: reads the settings, lets `cells` name the cells, runs them, and gives the exit code.
pub fn run(
    name: &'static str,
    executable: &str,
    cells: impl FnOnce(&Settings) -> Result<Vec<Cell>, BenchError>,
) -> ExitCode {
    run_checked(name, executable, cells, |_| true)
}

/// The same, where `check` (which is to use [`Suite::check`]) finds nothing wrong.
pub fn run_checked(
    name: &'static str,
    executable: &str,
    cells: impl FnOnce(&Settings) -> Result<Vec<Cell>, BenchError>,
    check: impl FnOnce(&mut Suite) -> bool,
) -> ExitCode {
    let prepared =
        Settings::read(executable).and_then(|settings| cells(&settings).map(|cells| (settings, cells)));
    match prepared {
        Ok((settings, cells)) => {
            let mut suite = Suite::new(name, settings);
            let wanted = cells.iter().any(|cell| suite.measures_of(cell).next().is_some());
            if wanted && check(&mut suite) {
                cells.iter().for_each(|cell| suite.cell(cell));
            }
            suite.finish()
        }
        Err(error) => series::refused(&error),
    }
}

/// Measures all that can be of a server that may be somebody else's: a group for each of three cases, which must hold
/// first.
pub(crate) fn run_all(name: &'static str, settings: Settings) -> ExitCode {
    type Cells = fn(&Settings) -> Result<Vec<Cell>, BenchError>;
    const GROUPS: [(&str, Cells); 3] = [
        ("ordering", cells::ordering),
        ("rate_scaling", cells::rate_scaling),
        ("connection_scaling", cells::connection_scaling),
    ];
    let mut suite = Suite::new(name, settings);
    for (case, cells) in GROUPS {
        let cells = match cells(&suite.settings) {
            Ok(cells) => cells,
            Err(error) => return series::refused(&error),
        };
        // The same rate may stand in two groups.
        let named = |cell: Cell| Cell { parameter: format!("{case}/{}", cell.parameter), ..cell };
        let cells: Vec<Cell> = cells.into_iter().map(named).collect();
        let wanted = cells.iter().any(|cell| suite.measures_of(cell).next().is_some());
        let config = suite.settings.config.clone();
        let case = crate::scenario::by_name(case).filter(|_| wanted);
        if case.is_some_and(|case| suite.check(case, &config)) {
            cells.iter().for_each(|cell| suite.cell(cell));
        }
    }
    suite.finish()
}

/// How long one measured window lasts.
fn window(profile: Profile) -> Duration {
    match profile {
        Profile::Smoke => Duration::from_secs(1),
        Profile::Quick => Duration::from_secs(2),
        Profile::Full => Duration::from_secs(10),
    }
}

fn messages_a_window(workload: &Workload) -> f64 {
    workload.offered.rate().map_or(f64::INFINITY, Rate::as_per_second) * workload.duration.as_secs_f64()
}

/// Criterion's own output goes to standard output.
fn say(line: &str) {
    let mut err = std::io::stderr();
    // On a terminal the progress line stands where this goes.
    let over = if err.is_terminal() { "\r\x1b[K" } else { "" };
    let _ = writeln!(err, "{over}{line}");
}

/// Says in which phase a case is.
struct PhaseProgress {
    prefix: String,
}

impl Observer for PhaseProgress {}

impl PlanObserver for PhaseProgress {
    fn phase(&mut self, name: &str) {
        progress(&format!("{}: {name}", self.prefix));
    }
}

fn progress(line: &str) {
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
    }
}
