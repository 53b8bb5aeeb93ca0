//! Measuring two in turn.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::CompareError;
use super::pin::Halves;
use crate::client::{Access, Observer, Stop, default_workers};
use crate::dialect::DialectKind;
use crate::result::compare::Side;
use crate::result::{LoadTestResults, WorkloadSummary};
use crate::run::{LoadPlan, Peer, RunError, ServerCommand, ServerProcess, ServerProcessError, run_load};
use crate::sampler::ProcessProbe;
use crate::units::Rate;
use crate::workload::{Offered, Target, Workload, WorkloadError};

/// One of the two.
#[derive(Debug, Clone, PartialEq)]
pub struct Contender {
    /// What it is called.
    pub name: String,
    /// What makes it another one: the content of an executable, or a URL.
    pub identity: String,
    /// Where it is.
    pub place: Place,
}

/// Where a contender is.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// A build of this crate: `serve` starts its server.
    Executable(PathBuf),
    /// A server that is there.
    At {
        /// Its URL.
        target: Target,
        /// Its process, where it runs on this machine.
        pid: Option<u32>,
    },
}

/// The loads of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadKind {
    /// A fixed rate: latency, and the CPU time of a message where the server often waits.
    Paced,
    /// As fast as answers come: capacity, and the CPU time of a message where it never does.
    Closed,
}

impl LoadKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Paced, Self::Closed];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Paced => "paced",
            Self::Closed => "closed",
        }
    }
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct ComparePlan {
    /// Which loads each is offered in each turn.
    pub loads: Vec<LoadKind>,
    /// Of the paced load.
    pub rate: Rate,
    /// Connections of each load.
    pub connections: u32,
    /// Bytes of content a message.
    pub payload_bytes: usize,
    /// Unanswered messages a connection, in the closed load.
    pub window: usize,
    /// How long the paced load takes.
    pub paced_for: Duration,
    /// How long the closed one takes.
    pub closed_for: Duration,
    /// How many pairs.
    pub pairs: u32,
    /// What is spoken.
    pub dialect: DialectKind,
    /// How a target is reached: whether it may be loaded, what the handshake carries.
    pub access: Access,
    /// Whether each executable offers the load by its own `load`; else this process offers it to both.
    pub own_client: bool,
}

impl ComparePlan {
    /// The least number of pairs: with fewer, the smallest p-value that there can be is lost among the figures.
    pub const LEAST_PAIRS: u32 = 10;

    /// What the noise belongs to: the loads, and A, since a slow server is as steady as its own delays, and a fast one as the
    /// machine.
    #[must_use]
    pub fn signature(&self, a: &Contender) -> String {
        let names: Vec<&str> = self.loads.iter().map(|load| load.name()).collect();
        format!(
            "{} {} msg/s, {} connections, {} B, window {}, {} s, {} s, {}, client {}, A {}",
            names.join(" "),
            self.rate.as_per_second(),
            self.connections,
            self.payload_bytes,
            self.window,
            self.paced_for.as_secs_f64(),
            self.closed_for.as_secs_f64(),
            self.dialect,
            if self.own_client { "each its own" } else { "the same" },
            a.identity
        )
    }

    fn workload(&self, load: LoadKind) -> Result<Workload, WorkloadError> {
        let (offered, duration) = match load {
            LoadKind::Paced => (Offered::Rate(self.rate), self.paced_for),
            LoadKind::Closed => (Offered::Max, self.closed_for),
        };
        let workload = Workload {
            offered,
            duration,
            connections: self.connections,
            payload_bytes: self.payload_bytes,
            window: self.window,
            // A message that takes longer is lost, and said to be: a comparison is not to wait for it.
            answer_timeout: Duration::from_secs(5),
            ..Workload::default()
        };
        workload.validated()
    }
}

/// Connections that a server allows beyond those of the load, which may not be gone yet when others come.
const SPARE_CONNECTIONS: u32 = 64;

/// One figure of one turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// Of which load.
    pub load: LoadKind,
    /// Its name, with the unit.
    pub metric: &'static str,
    /// Its value; `None` where there is none.
    pub value: Option<f64>,
}

/// The figures of a load, how they are read, and whether more is better.
type Reader = (LoadKind, &'static str, bool, fn(&LoadTestResults) -> Option<f64>);

const METRICS: [Reader; 8] = [
    (LoadKind::Paced, "latency_p50_us", false, |run| run.latency_us.as_ref()?.p50),
    (LoadKind::Paced, "latency_p99_us", false, |run| run.latency_us.as_ref()?.p99),
    (LoadKind::Paced, "server_cpu_us_per_message", false, |run| run.cost.server_cpu_us_per_message),
    (LoadKind::Paced, "client_cpu_us_per_message", false, |run| run.cost.client_cpu_us_per_message),
    (LoadKind::Closed, "throughput_per_second", true, |run| {
        Some(run.throughput.achieved_rate).filter(|&rate| rate > 0.0)
    }),
    (LoadKind::Closed, "server_cpu_us_per_message", false, |run| run.cost.server_cpu_us_per_message),
    (LoadKind::Closed, "client_cpu_us_per_message", false, |run| run.cost.client_cpu_us_per_message),
    // Not of the run: see `memory`.
    (LoadKind::Paced, MEMORY, false, |_| None),
];
const MEMORY: &str = "server_bytes_per_connection";

/// Whether more of a figure is better.
#[must_use]
pub fn higher_is_better(metric: &str) -> bool {
    METRICS.iter().any(|(_, name, higher, _)| *name == metric && *higher)
}

/// One turn: what it measured, and what else was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// The figures, those without a value too.
    pub figures: Vec<Figure>,
    due: u64,
    answered: u64,
    foreign_cpu_cores: Option<f64>,
    workloads: Vec<WorkloadSummary>,
}

/// One figure of both, pair by pair.
#[derive(Debug, Clone, PartialEq)]
pub struct PairedFigure {
    /// Of which load.
    pub load: LoadKind,
    /// Its name, with the unit.
    pub metric: &'static str,
    /// A's value and B's.
    pub pairs: Vec<(f64, f64)>,
}

/// All turns of both.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// A's turn and B's of each pair.
    pub pairs: Vec<(Turn, Turn)>,
}

impl Measured {
    /// What A or B, of this name, came to.
    #[must_use]
    pub fn side(&self, name: &str, of: impl Fn(&(Turn, Turn)) -> &Turn) -> Side {
        let sum = |count: fn(&Turn) -> u64| self.pairs.iter().map(|pair| count(of(pair))).sum();
        Side { name: name.to_owned(), due: sum(|turn| turn.due), answered: sum(|turn| turn.answered) }
    }

    /// The most that other processes took in any turn.
    #[must_use]
    pub fn foreign_cpu_cores(&self) -> Option<f64> {
        let turns = self.pairs.iter().flat_map(|(a, b)| [a, b]);
        turns.filter_map(|turn| turn.foreign_cpu_cores).max_by(f64::total_cmp)
    }

    /// The loads, as they were offered.
    #[must_use]
    pub fn workloads(&self) -> Vec<WorkloadSummary> {
        self.pairs.first().map(|(a, _)| a.workloads.clone()).unwrap_or_default()
    }

    /// The values of each figure, pair by pair; a pair without one of the two is left out, and so is a
    /// figure without two pairs.
    #[must_use]
    pub fn values(&self) -> Vec<PairedFigure> {
        let Some((first, _)) = self.pairs.first() else { return Vec::new() };
        let figure = |index: usize| {
            let Figure { load, metric, .. } = first.figures[index];
            let both = |(a, b): &(Turn, Turn)| a.figures[index].value.zip(b.figures[index].value);
            PairedFigure { load, metric, pairs: self.pairs.iter().filter_map(both).collect() }
        };
        (0..first.figures.len()).map(figure).filter(|figure| figure.pairs.len() > 1).collect()
    }
}

/// Measures both in turn, A B, B A, A B …: what drifts over the minutes falls on both alike.
///
/// # Errors
/// Where a load cannot be offered to one of them, or `stop` came first.
pub fn measure(
    plan: &ComparePlan,
    a: &Contender,
    b: &Contender,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Result<Measured, CompareError> {
    let bench = Bench { plan, halves: Halves::of_this_thread(), workers: default_workers() };
    // The first turn pays for pages and caches that all others find warm.
    bench.turn(a, stop, observer)?;
    let mut pairs = Vec::new();
    for pair in 0..plan.pairs {
        let a_first = pair.is_multiple_of(2);
        let (first, second) = if a_first { (a, b) } else { (b, a) };
        let first = bench.turn(first, stop, observer)?;
        let second = bench.turn(second, stop, observer)?;
        pairs.push(if a_first { (first, second) } else { (second, first) });
    }
    Ok(Measured { pairs })
}

/// What all turns have in common.
struct Bench<'a> {
    plan: &'a ComparePlan,
    halves: Halves,
    /// Threads of either side: as many as it would have on all cores.
    workers: usize,
}

impl Bench<'_> {
    /// Offers every load of the plan to one of the two once.
    fn turn(
        &self,
        contender: &Contender,
        stop: &Stop,
        observer: &mut dyn Observer,
    ) -> Result<Turn, CompareError> {
        let mut turn =
            Turn { figures: Vec::new(), due: 0, answered: 0, foreign_cpu_cores: None, workloads: Vec::new() };
        for &load in &self.plan.loads {
            let (run, idle_bytes) = self.offer(contender, load, stop, observer)?;
            if run.interrupted || stop.is_stopped() {
                return Err(CompareError::Stopped);
            }
            for (_, metric, _, read) in METRICS.iter().filter(|(of, ..)| *of == load) {
                let value = if *metric == MEMORY { memory(&run, idle_bytes) } else { read(&run) };
                turn.figures.push(Figure { load, metric, value });
            }
            turn.due += run.messages.due;
            turn.answered += run.messages.counts.answered;
            turn.foreign_cpu_cores = [turn.foreign_cpu_cores, run.resources.foreign_cpu_cores]
                .into_iter()
                .flatten()
                .max_by(f64::total_cmp);
            turn.workloads.push(run.workload);
        }
        Ok(turn)
    }

    /// One load on a fresh server, and what the server had resident before the first connection came.
    fn offer(
        &self,
        contender: &Contender,
        load: LoadKind,
        stop: &Stop,
        observer: &mut dyn Observer,
    ) -> Result<(LoadTestResults, Option<u64>), CompareError> {
        let plan = self.plan;
        let workload = plan.workload(load)?;
        let (_server, target, pid) = match &contender.place {
            Place::Executable(executable) => {
                let server = self.start(executable);
                let server =
                    server.map_err(|source| CompareError::Server { name: contender.name.clone(), source })?;
                let (target, pid) = (server.target().clone(), server.pid());
                (Some(server), target, Some(pid))
            }
            Place::At { target, pid } => (None, target.clone(), *pid),
        };
        let idle_bytes = pid.and_then(ProcessProbe::open).and_then(|mut probe| probe.read()?.rss_bytes);
        let run = match &contender.place {
            Place::Executable(executable) if plan.own_client => {
                by_own_client(plan, executable, load, (&target, pid), self.workers)
                    .map_err(|cause| CompareError::OwnClient { name: contender.name.clone(), cause })?
            }
            _ => {
                let (dialect, access, workers) = (plan.dialect, plan.access.clone(), Some(self.workers));
                let offered = LoadPlan::new(workload, Peer::At { target, pid });
                let run = run_load(&LoadPlan { dialect, access, workers, ..offered }, stop, observer);
                let failed = |source: RunError| CompareError::Run {
                    name: contender.name.clone(),
                    source: Box::new(source),
                };
                run.map_err(failed)?
            }
        };
        Ok((run, idle_bytes))
    }

    /// Starts a server on its half of the cores, with as many workers as it would have on all of them.
    fn start(&self, executable: &Path) -> Result<ServerProcess, ServerProcessError> {
        let connections = self.plan.connections.saturating_add(SPARE_CONNECTIONS);
        let args = vec![format!("--max-connections={connections}"), format!("--workers={}", self.workers)];
        let command = ServerCommand { executable: executable.to_owned(), args };
        self.halves.start_server();
        let started = ServerProcess::start(&command);
        self.halves.start_client();
        started
    }
}

/// What the server has taken for each connection, before the first message. `None` where its process is not known.
fn memory(run: &LoadTestResults, idle_bytes: Option<u64>) -> Option<f64> {
    let with_all = run.resources.server.as_ref()?.rss_start_bytes?;
    let taken = with_all.checked_sub(idle_bytes?).filter(|&bytes| bytes > 0)?;
    Some(taken as f64 / run.connections.established.max(1) as f64)
}

/// The load by the executable's own `load`, from the JSON that it prints.
fn by_own_client(
    plan: &ComparePlan,
    executable: &Path,
    load: LoadKind,
    (target, pid): (&Target, Option<u32>),
    workers: usize,
) -> Result<LoadTestResults, String> {
    let workload = plan.workload(load).map_err(|error| error.to_string())?;
    let rate = match load {
        LoadKind::Paced => plan.rate.as_per_second().to_string(),
        LoadKind::Closed => "max".to_owned(),
    };
    let mut command = Command::new(executable);
    command.args(["load", "--json", "-", "--target"]).arg(target.to_string()).args(["--rate", &rate]);
    command.args(["--connections", &plan.connections.to_string(), "--window", &plan.window.to_string()]);
    command.args(["--payload-bytes", &plan.payload_bytes.to_string(), "--dialect", plan.dialect.name()]);
    command.args(["--duration", &format!("{}ms", workload.duration.as_millis())]);
    command.args(["--answer-timeout", &format!("{}ms", workload.answer_timeout.as_millis())]);
    command.args(["--workers", &workers.to_string()]);
    if let Some(pid) = pid {
        command.args(["--pid", &pid.to_string()]);
    }
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("no result; it says `{}`", said.lines().last().unwrap_or_default())
    })
}
