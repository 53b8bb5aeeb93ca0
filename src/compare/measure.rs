//! Measuring two in turn.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::CompareError;
use super::order::{Order, drawn};
use super::pin::Halves;
use super::reference::{Pace, Reference, calmest, usual};
use super::turn::{LoadKind, Measured, Turn, is_slow, memory};
use crate::client::{Access, Observer, Stop, default_workers};
use crate::clock::unix_now_ns;
use crate::dialect::DialectKind;
use crate::result::LoadTestResults;
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
    /// Where its server comes from.
    pub origin: Origin,
}

/// Where a contender's server comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
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

/// What to measure.
#[derive(Debug, Clone)]
pub struct ComparePlan {
    /// Which loads each is offered in each turn; the paced one first, so that its first round finds a fresh server.
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
    /// How long each of the closed ones takes.
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

/// Measures both in turn, pair by pair and load by load, which of them first drawn by lot: what slows the machine for minutes,
/// for a second, or every few seconds, falls on both alike.
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
    let mut bench = Bench {
        plan,
        halves: Halves::of_this_thread(),
        workers: default_workers(),
        reference: Reference::new(plan.payload_bytes),
        paces: Vec::new(),
        planned: Duration::ZERO,
        again: Duration::ZERO,
    };
    // The first pair pays for pages and caches that all others find warm: nothing of it counts, what it saw of the machine
    // neither, and nothing of it is offered again.
    bench.pair([a, b], stop, observer)?;
    bench.paces.clear();
    bench.planned = Duration::ZERO;
    let order = drawn(plan.pairs, unix_now_ns());
    let mut pairs = Vec::new();
    for order in &order {
        pairs.push(match order {
            Order::Ab => bench.pair([a, b], stop, observer)?.into(),
            Order::Ba => {
                let [b, a] = bench.pair([b, a], stop, observer)?;
                (a, b)
            }
        });
    }
    Ok(Measured::of(pairs, usual(&bench.paces)).in_order(&order))
}

/// What all turns have in common.
struct Bench<'a> {
    plan: &'a ComparePlan,
    halves: Halves,
    /// Threads of either side: as many as it would have on all cores.
    workers: usize,
    reference: Reference,
    /// All that were seen.
    paces: Vec<Pace>,
    /// How long the rounds took that are offered anyway, and those that are offered because the machine was slow.
    planned: Duration,
    again: Duration,
}

/// A load, offered to both, one after the other.
struct Round {
    runs: [LoadTestResults; 2],
    /// The slowest before, between and after.
    pace: Pace,
}

/// Rounds that are offered again take at most so much of the time of all others.
const AGAIN_SHARE: f64 = 0.25;

impl Bench<'_> {
    /// Offers every load of the plan to both, each on a fresh server, and its rounds in turn.
    fn pair(
        &mut self,
        contenders: [&Contender; 2],
        stop: &Stop,
        observer: &mut dyn Observer,
    ) -> Result<[Turn; 2], CompareError> {
        let served = [self.serve(contenders[0])?, self.serve(contenders[1])?];
        let mut turns = [Turn::default(), Turn::default()];
        for &load in &self.plan.loads {
            let idle_bytes = served.each_ref().map(Served::resident_bytes);
            let mut rounds = Vec::new();
            while self.is_another_due(load, &rounds) {
                let order = if rounds.len().is_multiple_of(2) { [0, 1] } else { [1, 0] };
                let (begun, planned) = (Instant::now(), rounds.len() < load.rounds());
                rounds.push(self.round(contenders, load, &served, order, stop, observer)?);
                *(if planned { &mut self.planned } else { &mut self.again }) += begun.elapsed();
            }
            for round in &rounds {
                turns.iter_mut().zip(&round.runs).for_each(|(turn, run)| turn.count(run));
            }
            let (calmest, pace) = self.calmest(load, &rounds);
            for (side, (turn, idle_bytes)) in turns.iter_mut().zip(idle_bytes).enumerate() {
                let runs: Vec<&LoadTestResults> = calmest.iter().map(|round| &round.runs[side]).collect();
                // What connections take is told by the first round: after it the server has what others left.
                let memory = rounds.first().and_then(|round| memory(&round.runs[side], idle_bytes));
                turn.take_in(load, &runs, pace, memory);
            }
        }
        Ok(turns)
    }

    /// Whether a load is to be offered once more: as often as is planned, and again where the machine was slow.
    fn is_another_due(&self, load: LoadKind, rounds: &[Round]) -> bool {
        let usual = usual(&self.paces);
        let calm = rounds.iter().filter(|round| !is_slow(round.pace, usual)).count();
        rounds.len() < load.rounds()
            || (calm < load.rounds()
                && rounds.len() < load.most_rounds()
                && self.again.as_secs_f64() < AGAIN_SHARE * self.planned.as_secs_f64())
    }

    /// As many rounds as are planned, the calmest, and the slowest pace of them: the same rounds of either side, chosen by
    /// what has nothing to do with what they measured.
    fn calmest<'r>(&self, load: LoadKind, rounds: &'r [Round]) -> (Vec<&'r Round>, Pace) {
        let paces: Vec<Pace> = rounds.iter().map(|round| round.pace).collect();
        let calmest = calmest(&paces, load.rounds(), usual(&self.paces));
        let pace = calmest.iter().fold(Pace::default(), |pace, &index| pace.slower(paces[index]));
        (calmest.into_iter().map(|index| &rounds[index]).collect(), pace)
    }

    /// One load to both, in this order.
    fn round(
        &mut self,
        contenders: [&Contender; 2],
        load: LoadKind,
        served: &[Served; 2],
        order: [usize; 2],
        stop: &Stop,
        observer: &mut dyn Observer,
    ) -> Result<Round, CompareError> {
        let mut pace = self.look();
        let mut offer = |side: usize| {
            let run = self.offer(contenders[side], load, &served[side], stop, observer)?;
            if run.interrupted || stop.is_stopped() {
                return Err(CompareError::Stopped);
            }
            pace = pace.slower(self.look());
            Ok(run)
        };
        let (first, second) = (offer(order[0])?, offer(order[1])?);
        let runs = if order == [0, 1] { [first, second] } else { [second, first] };
        Ok(Round { runs, pace })
    }

    /// How fast the machine is now.
    fn look(&mut self) -> Pace {
        let pace = self.reference.pace(&self.halves);
        self.paces.push(pace);
        pace
    }

    /// Starts a contender's server, where it is an executable.
    fn serve(&self, contender: &Contender) -> Result<Served, CompareError> {
        match &contender.origin {
            Origin::Executable(executable) => {
                let named = |source| CompareError::Server { name: contender.name.clone(), source };
                let server = self.start(executable).map_err(named)?;
                let (target, pid) = (server.target().clone(), Some(server.pid()));
                Ok(Served { _process: Some(server), target, pid })
            }
            Origin::At { target, pid } => Ok(Served { _process: None, target: target.clone(), pid: *pid }),
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
        if let (Origin::Executable(executable), true) = (&contender.origin, plan.own_client) {
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
