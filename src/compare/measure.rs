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

    /// How often it is offered in a turn. Spells in which the machine is half as fast last a second or so; of five short loads
    /// of either side one falls beside them.
    fn repeats(self) -> u32 {
        match self {
            Self::Paced => 1,
            Self::Closed => 5,
        }
    }

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
    /// Which loads each is offered in each turn; the paced one first, so that it finds a fresh server.
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
    /// How long each of the five closed ones takes.
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
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Turn {
    /// The figures, those without a value too.
    pub figures: Vec<Figure>,
    due: u64,
    answered: u64,
    /// Core seconds that other processes took in its loads, and the seconds that these took.
    foreign: Option<(f64, f64)>,
    workloads: Vec<WorkloadSummary>,
}

/// A turn in which others took more than this was disturbed, in cores: the machine's counters are right to some 30 ms, which
/// is an eighth of a core over a quarter of a second.
const DISTURBED_CORES: f64 = 0.25;

impl Turn {
    /// Takes the figures of a load from its repeats, the best of each: whatever disturbs a load at capacity can only make it
    /// worse (J. Chen, J. Revels, "Robust benchmarking in noisy environments", 2016).
    fn take_in(&mut self, load: LoadKind, runs: Vec<LoadTestResults>, idle_bytes: Option<u64>) {
        for (_, metric, higher, read) in METRICS.iter().filter(|(of, ..)| *of == load) {
            let value_of =
                |run: &LoadTestResults| if *metric == MEMORY { memory(run, idle_bytes) } else { read(run) };
            let values = runs.iter().filter_map(value_of);
            let value = if *higher { values.max_by(f64::total_cmp) } else { values.min_by(f64::total_cmp) };
            self.figures.push(Figure { load, metric, value });
        }
        for run in &runs {
            self.due += run.messages.due;
            self.answered += run.messages.counts.answered;
            if let Some(cores) = run.resources.foreign_cpu_cores {
                let (cpu_s, span_s) = self.foreign.unwrap_or_default();
                self.foreign = Some((cpu_s + cores * run.offered_for_s, span_s + run.offered_for_s));
            }
        }
        self.workloads.extend(runs.into_iter().next().map(|run| run.workload));
    }

    fn is_disturbed(&self) -> bool {
        self.foreign.is_some_and(|(cpu_s, span_s)| cpu_s > DISTURBED_CORES * span_s)
    }
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
    /// Pairs that are left out because something else took a part of the machine.
    pub left_out: Vec<(Turn, Turn)>,
}

impl Measured {
    /// What A or B, of this name, came to.
    #[must_use]
    pub fn side(&self, name: &str, of: impl Fn(&(Turn, Turn)) -> &Turn) -> Side {
        let all = || self.pairs.iter().chain(&self.left_out);
        let sum = |count: fn(&Turn) -> u64| all().map(|pair| count(of(pair))).sum();
        Side { name: name.to_owned(), due: sum(|turn| turn.due), answered: sum(|turn| turn.answered) }
    }

    /// What other processes took on average, in cores.
    #[must_use]
    pub fn foreign_cpu_cores(&self) -> Option<f64> {
        let turns = self.pairs.iter().flat_map(|(a, b)| [a, b]).filter_map(|turn| turn.foreign);
        let (cpu_s, span_s) = turns.fold((0.0, 0.0), |(cpu, span), turn| (cpu + turn.0, span + turn.1));
        (span_s > 0.0).then(|| cpu_s / span_s)
    }

    /// Leaves out the pairs in which others took a part of the machine; none, where too few would be left. A pair is left
    /// out for what others did, never for what it measured, and A's turn with B's.
    fn of(pairs: Vec<(Turn, Turn)>) -> Self {
        let (disturbed, calm): (Vec<_>, Vec<_>) =
            pairs.iter().cloned().partition(|(a, b)| a.is_disturbed() || b.is_disturbed());
        if calm.len() < ComparePlan::LEAST_PAIRS as usize {
            return Self { pairs, left_out: Vec::new() };
        }
        Self { pairs: calm, left_out: disturbed }
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

/// Measures both in turn, A B, B A, A B …, pair by pair and load by load: what slows the machine for minutes, or for a
/// second, falls on both alike.
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
    // The first pair pays for pages and caches that all others find warm.
    bench.pair([a, b], stop, observer)?;
    let mut pairs = Vec::new();
    for pair in 0..plan.pairs {
        let a_first = pair.is_multiple_of(2);
        let [first, second] = bench.pair(if a_first { [a, b] } else { [b, a] }, stop, observer)?;
        pairs.push(if a_first { (first, second) } else { (second, first) });
    }
    Ok(Measured::of(pairs))
}

/// What all turns have in common.
struct Bench<'a> {
    plan: &'a ComparePlan,
    halves: Halves,
    /// Threads of either side: as many as it would have on all cores.
    workers: usize,
}

impl Bench<'_> {
    /// Offers every load of the plan to both, each on a fresh server, and its repeats in turn.
    fn pair(
        &self,
        contenders: [&Contender; 2],
        stop: &Stop,
        observer: &mut dyn Observer,
    ) -> Result<[Turn; 2], CompareError> {
        let served = [self.serve(contenders[0])?, self.serve(contenders[1])?];
        let mut turns = [Turn::default(), Turn::default()];
        for &load in &self.plan.loads {
            let idle_bytes = served.each_ref().map(Served::resident_bytes);
            let mut runs = [Vec::new(), Vec::new()];
            for repeat in 0..load.repeats() {
                for side in if repeat.is_multiple_of(2) { [0, 1] } else { [1, 0] } {
                    let run = self.offer(contenders[side], load, &served[side], stop, observer)?;
                    if run.interrupted || stop.is_stopped() {
                        return Err(CompareError::Stopped);
                    }
                    runs[side].push(run);
                }
            }
            for ((turn, runs), idle_bytes) in turns.iter_mut().zip(runs).zip(idle_bytes) {
                turn.take_in(load, runs, idle_bytes);
            }
        }
        Ok(turns)
    }

    /// Starts a contender's server, where it is an executable.
    fn serve(&self, contender: &Contender) -> Result<Served, CompareError> {
        match &contender.place {
            Place::Executable(executable) => {
                let named = |source| CompareError::Server { name: contender.name.clone(), source };
                let server = self.start(executable).map_err(named)?;
                let (target, pid) = (server.target().clone(), Some(server.pid()));
                Ok(Served { _process: Some(server), target, pid })
            }
            Place::At { target, pid } => Ok(Served { _process: None, target: target.clone(), pid: *pid }),
        }
    }

    /// One load, by this process or by the contender's own client.
    fn offer(
        &self,
        contender: &Contender,
        load: LoadKind,
        &Served { ref target, pid, .. }: &Served,
        stop: &Stop,
        observer: &mut dyn Observer,
    ) -> Result<LoadTestResults, CompareError> {
        let plan = self.plan;
        let name = || contender.name.clone();
        if let (Place::Executable(executable), true) = (&contender.place, plan.own_client) {
            let run = by_own_client(plan, executable, load, (target, pid), self.workers);
            return run.map_err(|cause| CompareError::OwnClient { name: name(), cause });
        }
        let (dialect, access, workers) = (plan.dialect, plan.access.clone(), Some(self.workers));
        let offered = LoadPlan::new(plan.workload(load)?, Peer::At { target: target.clone(), pid });
        let run = run_load(&LoadPlan { dialect, access, workers, ..offered }, stop, observer);
        run.map_err(|source: RunError| CompareError::Run { name: name(), source: Box::new(source) })
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

/// A contender's server: stopped with this, where it was started for it.
struct Served {
    _process: Option<ServerProcess>,
    target: Target,
    pid: Option<u32>,
}

impl Served {
    fn resident_bytes(&self) -> Option<u64> {
        ProcessProbe::open(self.pid?)?.read()?.rss_bytes
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

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(value: f64, foreign_cores: f64) -> Turn {
        let figures = vec![Figure { load: LoadKind::Paced, metric: "latency_p50_us", value: Some(value) }];
        Turn { figures, due: 10, answered: 9, foreign: Some((foreign_cores * 2.0, 2.0)), ..Turn::default() }
    }

    #[test]
    fn a_disturbed_pair_is_left_out_with_both_its_turns_and_still_accounted_for() {
        let pair = |n: u32| (turn(f64::from(n), 0.01), turn(1.0, if n < 3 { 0.9 } else { 0.01 }));
        let measured = Measured::of((0..20).map(pair).collect());
        assert_eq!((measured.pairs.len(), measured.left_out.len()), (17, 3));
        assert_eq!(measured.values()[0].pairs[0], (3.0, 1.0));
        let side = measured.side("a", |pair| &pair.0);
        assert_eq!((side.due, side.answered), (200, 180));
        assert!((measured.foreign_cpu_cores().unwrap() - 0.01).abs() < 1e-9);
        // Where the machine is always busy, there is nothing else to go by.
        let busy = Measured::of((0..12).map(pair).collect());
        assert_eq!((busy.pairs.len(), busy.left_out.len()), (12, 0));
    }
}
