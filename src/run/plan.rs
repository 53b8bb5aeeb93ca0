//! A plan of several phases against one server, and its execution: what a case is made of.
//!
//! A plan is data. Executing it gives the [`Evidence`]: a result for each load, the server's statistics where they were
//! asked for. Judging the evidence is the case's business.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::control::{ControlConnection, ControlError};
use super::{LoadPlan, Peer, RunError, ServerCommand, ServerProcess, ServerProcessError, run_load};
use crate::allocator;
use crate::client::{Observer, Stop, Token};
use crate::dialect::{DialectKind, RequestKind};
use crate::message::PerformanceStats;
use crate::result::LoadTestResults;
use crate::workload::{Target, Workload};

/// How often live bytes are read during a watched load: often enough for a slope over a short load, seldom enough that
/// reading them (16 ms where the heap has many holes) does not show in the latency.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// A case's phases against one server.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// What follows `serve`, where the server is our own.
    pub server_args: Vec<String>,
    /// In order.
    pub phases: Vec<Phase>,
}

/// One phase.
#[derive(Debug, Clone)]
pub struct Phase {
    /// Names it in reports and for the judge; unique within a plan.
    pub name: String,
    /// What happens.
    pub action: Action,
}

/// What happens in a phase.
#[derive(Debug, Clone)]
pub enum Action {
    /// Load is offered.
    Load(Workload),
    /// Load is offered, while the live bytes of both sides are read again and again.
    WatchedLoad(Workload),
    /// Nothing is offered for so long.
    Idle(Duration),
    /// Both sides are asked for their memory.
    Stats,
    /// Both sides give free memory back to the system, and are asked for their memory.
    Purge,
}

impl Phase {
    /// A phase.
    #[must_use]
    pub fn new(name: impl Into<String>, action: Action) -> Self {
        Self { name: name.into(), action }
    }
}

/// What the plan is executed against, and how.
#[derive(Debug, Clone)]
pub struct Venue {
    /// Whose server.
    pub peer: Peer,
    /// In which dialect.
    pub dialect: DialectKind,
    /// Bearer token for the handshake.
    pub token: Option<Token>,
}

/// What executing a plan brought to light, a phase each.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// In the plan's order.
    pub phases: Vec<PhaseEvidence>,
}

/// What one phase brought to light.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseEvidence {
    /// The phase's name.
    pub name: String,
    /// The result, where load was offered.
    pub run: Option<Box<LoadTestResults>>,
    /// Memory: at one moment, or over a watched load.
    pub memory: Vec<MemorySample>,
}

/// The memory of both sides at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct MemorySample {
    /// Seconds since the phase began.
    pub t_s: f64,
    /// Messages that the server had processed by then.
    pub processed: Option<u64>,
    /// Bytes that the client had allocated and not freed.
    pub client_live_bytes: Option<u64>,
    /// The same of the server.
    pub server_live_bytes: Option<u64>,
    /// Bytes of physical memory that the server held.
    pub server_resident_bytes: Option<u64>,
}

impl Evidence {
    /// The phase of that name.
    #[must_use]
    pub fn phase(&self, name: &str) -> Option<&PhaseEvidence> {
        self.phases.iter().find(|phase| phase.name == name)
    }

    /// The result of the load phase of that name.
    #[must_use]
    pub fn run(&self, name: &str) -> Option<&LoadTestResults> {
        self.phase(name)?.run.as_deref()
    }

    /// All loads, in order, with their names.
    pub fn runs(&self) -> impl Iterator<Item = (&str, &LoadTestResults)> {
        self.phases.iter().filter_map(|phase| Some((&*phase.name, phase.run.as_deref()?)))
    }
}

/// A plan could not be executed.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The server did not start.
    #[error(transparent)]
    Server(#[from] ServerProcessError),
    /// A load could not be offered.
    #[error("phase `{phase}`: {source}")]
    Run {
        /// Which phase.
        phase: String,
        /// What went wrong.
        source: RunError,
    },
    /// The server cannot be asked.
    #[error("phase `{phase}`: {source}")]
    Control {
        /// Which phase.
        phase: String,
        /// What went wrong.
        source: ControlError,
    },
    /// The user ended it.
    #[error("ended early")]
    Stopped,
}

/// Is told which phase begins, and how its load goes.
pub trait PlanObserver: Observer {
    /// A phase begins.
    fn phase(&mut self, _name: &str) {}
}

impl PlanObserver for () {}

/// Executes a plan.
///
/// # Errors
/// Where a phase could not take place; what goes wrong within a load is part of the evidence.
pub fn execute(
    plan: &Plan,
    venue: &Venue,
    stop: &Stop,
    observer: &mut dyn PlanObserver,
) -> Result<Evidence, PlanError> {
    let server = match &venue.peer {
        Peer::Own(ServerCommand { executable, args }) => {
            let args = args.iter().chain(&plan.server_args).cloned().collect();
            Some(ServerProcess::start(&ServerCommand { executable: executable.clone(), args })?)
        }
        Peer::At { .. } => None,
    };
    let (target, pid) = match (&server, &venue.peer) {
        (Some(server), _) => (server.target().clone(), Some(server.pid())),
        (None, Peer::At { target, pid }) => (target.clone(), *pid),
        // An own server that is not there cannot be: it was started above.
        (None, Peer::Own(_)) => return Err(PlanError::Stopped),
    };
    let stage = Stage { venue, target, pid, stop };
    let mut evidence = Evidence::default();
    for phase in &plan.phases {
        if stop.is_stopped() {
            return Err(PlanError::Stopped);
        }
        observer.phase(&phase.name);
        evidence.phases.push(stage.perform(phase, observer)?);
    }
    Ok(evidence)
}

/// Where phases take place.
struct Stage<'a> {
    venue: &'a Venue,
    target: Target,
    pid: Option<u32>,
    stop: &'a Stop,
}

impl Stage<'_> {
    fn perform(&self, phase: &Phase, observer: &mut dyn PlanObserver) -> Result<PhaseEvidence, PlanError> {
        let control_error = |source| PlanError::Control { phase: phase.name.clone(), source };
        let mut seen = PhaseEvidence { name: phase.name.clone(), run: None, memory: Vec::new() };
        match &phase.action {
            Action::Load(workload) => seen.run = Some(self.load(phase, workload, observer)?),
            Action::WatchedLoad(workload) => {
                let control = self.control().map_err(control_error)?;
                let (run, memory) = watched(control, || self.load(phase, workload, observer));
                seen.run = Some(run?);
                seen.memory = memory;
            }
            Action::Idle(span) => self.idle(*span),
            Action::Stats => {
                let stats = self.control().and_then(|mut control| control.stats()).map_err(control_error)?;
                seen.memory.push(memory_sample(0.0, &stats));
            }
            Action::Purge => {
                allocator::purge();
                let stats = self.control().and_then(|mut control| control.purge()).map_err(control_error)?;
                seen.memory.push(memory_sample(0.0, &stats));
            }
        }
        Ok(seen)
    }

    fn load(
        &self,
        phase: &Phase,
        workload: &Workload,
        observer: &mut dyn PlanObserver,
    ) -> Result<Box<LoadTestResults>, PlanError> {
        let plan = LoadPlan {
            workload: workload.clone(),
            peer: Peer::At { target: self.target.clone(), pid: self.pid },
            dialect: self.venue.dialect,
            request: RequestKind::default(),
            priority: None,
            token: self.venue.token.clone(),
            workers: None,
            start_at_unix_ns: None,
        };
        let mut results = run_load(&plan, self.stop, observer)
            .map_err(|source| PlanError::Run { phase: phase.name.clone(), source })?;
        if matches!(self.venue.peer, Peer::Own(_)) {
            results.workload.target = None;
        }
        Ok(Box::new(results))
    }

    fn control(&self) -> Result<ControlConnection, ControlError> {
        ControlConnection::open(&self.target, self.venue.token.clone())
    }

    fn idle(&self, span: Duration) {
        let end = Instant::now() + span;
        while !self.stop.is_stopped() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }
}

/// Reads the memory of both sides while `load` runs.
fn watched<T>(mut control: ControlConnection, load: impl FnOnce() -> T) -> (T, Vec<MemorySample>) {
    let (done, wait) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(move || {
            let begun = Instant::now();
            let mut samples = Vec::new();
            // A server that stops answering is noticed by the load; here it only ends the series.
            while let Ok(stats) = control.stats() {
                samples.push(memory_sample(begun.elapsed().as_secs_f64(), &stats));
                if !matches!(wait.recv_timeout(WATCH_EVERY), Err(RecvTimeoutError::Timeout)) {
                    break;
                }
            }
            samples
        });
        let outcome = load();
        drop(done);
        (outcome, watcher.join().unwrap_or_default())
    })
}

fn memory_sample(t_s: f64, stats: &PerformanceStats) -> MemorySample {
    MemorySample {
        t_s,
        processed: stats.processed,
        client_live_bytes: allocator::live_bytes(),
        server_live_bytes: stats.live_bytes,
        server_resident_bytes: stats.resident_bytes,
    }
}
