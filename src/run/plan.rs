//! A plan of several phases against one server, and its execution: what a case is made of.
//!
//! A plan is data. Executing it gives the [`Evidence`]: a result for each load, the server's statistics where they were
//! asked for. Judging the evidence is the case's business.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::control::{ControlConnection, ControlError};
use super::host::Host;
use super::keys::Keys;
use super::restart::Restart;
use super::scene::{self, Scene, SceneEvidence};
use super::{LoadPlan, Peer, RunError, ServerProcessError, run_load};
use crate::allocator;
use crate::analysis::search::SearchError;
use crate::client::{Access, Observer, Stop};
use crate::clock::unix_now_ns;
use crate::dialect::{DialectKind, DialectSettings};
use crate::message::PerformanceStats;
use crate::proxy::ProxyError;
use crate::result::LoadTestResults;
use crate::result::calibration::Calibration;
use crate::server::{JournalError, read_journal};
use crate::workload::Workload;

pub use super::keys::{Bearer, Locks};

/// How often live bytes are read during a watched load: often enough for a slope over a short load, seldom enough that
/// reading them (16 ms where the heap has many holes) does not show in the latency.
pub(crate) const WATCH_EVERY: Duration = Duration::from_millis(250);

/// A case's phases against one server.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// What follows `serve`, where the server is our own.
    pub server_args: Vec<String>,
    /// Whether our own server keeps on disk what it processed, in a directory that is gone with the plan.
    pub durable: bool,
    /// What our own server is to let in; everybody, where nothing is said.
    pub locks: Option<Locks>,
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
    /// Several loads are offered at once, and things happen meanwhile.
    Scene(Scene),
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
    /// What that dialect needs to be told.
    pub dialect_settings: Arc<DialectSettings>,
    /// How the target is reached: whom it trusts, what the handshake carries.
    pub access: Access,
    /// What the generator can do, where that is known.
    pub calibration: Option<Box<Calibration>>,
    /// How a server that is not our own is started again; without it none is killed.
    pub restart: Option<Restart>,
    /// Where our own server keeps what has to outlive it, in a directory of its own that is removed at the end; `None` for
    /// the system's directory for temporary files.
    pub state_in: Option<PathBuf>,
}

impl Venue {
    /// A server that is reached plainly, in the default dialect.
    #[must_use]
    pub fn new(peer: Peer) -> Self {
        Self {
            peer,
            dialect: DialectKind::default(),
            dialect_settings: Arc::default(),
            access: Access::default(),
            calibration: None,
            restart: None,
            state_in: None,
        }
    }
}

/// What executing a plan brought to light, a phase each.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Whether the server was our own, so that whatever it cannot be asked is a failure.
    #[serde(default)]
    pub own_server: bool,
    /// How many identities come in by the tokens that were known; 0 where none was.
    #[serde(default)]
    pub identities: usize,
    /// In the plan's order.
    pub phases: Vec<PhaseEvidence>,
    /// Why the server could not be reached any more after it had been: from there on the phases are missing.
    #[serde(default)]
    pub gone: Option<String>,
    /// How often each id was processed, by the execution journal of our own server where it kept one.
    pub journal: Option<BTreeMap<String, u64>>,
}

/// What one phase brought to light.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseEvidence {
    /// The phase's name.
    pub name: String,
    /// The result, where load was offered.
    pub run: Option<Box<LoadTestResults>>,
    /// Memory: at one moment, or over a watched load.
    pub memory: Vec<MemorySample>,
    /// What a scene brought to light.
    pub scene: Option<SceneEvidence>,
    /// Why the server did not tell its statistics, or no more of them, where the phase asked.
    #[serde(default)]
    pub stats_error: Option<String>,
}

/// The memory of both sides at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct MemorySample {
    /// Seconds since the start of the phase's load (below 0 before it), or since the phase began where it has none.
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

    /// What the scene of that name brought to light.
    #[must_use]
    pub fn scene(&self, name: &str) -> Option<&SceneEvidence> {
        self.phase(name)?.scene.as_ref()
    }

    /// The result of the load of that name: that of its phase, or its own within a scene.
    #[must_use]
    pub fn run(&self, name: &str) -> Option<&LoadTestResults> {
        self.runs().find(|(run, _)| *run == name).map(|(_, run)| run)
    }

    /// All loads, in order, with their names.
    pub fn runs(&self) -> impl Iterator<Item = (&str, &LoadTestResults)> {
        self.phases.iter().flat_map(PhaseEvidence::runs)
    }

    /// The same, to be edited.
    pub fn runs_mut(&mut self) -> impl Iterator<Item = (&str, &mut LoadTestResults)> {
        self.phases.iter_mut().flat_map(PhaseEvidence::runs_mut)
    }
}

impl PhaseEvidence {
    /// Nothing seen yet of the phase of that name.
    #[must_use]
    pub fn of(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Its loads, with their names.
    pub fn runs(&self) -> impl Iterator<Item = (&str, &LoadTestResults)> {
        let of_phase = self.run.as_deref().map(|run| (&*self.name, run));
        let of_scene = self.scene.iter().flat_map(|scene| &scene.runs);
        of_phase.into_iter().chain(of_scene.map(|named| (&*named.name, &*named.run)))
    }

    /// The same, to be edited.
    pub fn runs_mut(&mut self) -> impl Iterator<Item = (&str, &mut LoadTestResults)> {
        let of_phase = self.run.as_deref_mut().map(|run| (&*self.name, run));
        let of_scene = self.scene.iter_mut().flat_map(|scene| &mut scene.runs);
        of_phase.into_iter().chain(of_scene.map(|named| (&*named.name, &mut *named.run)))
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
    /// We cannot ask the server: no fault of its own, and so no evidence.
    #[error("phase `{phase}`: {source}")]
    Control {
        /// Which phase.
        phase: String,
        /// What went wrong.
        source: ControlError,
    },
    /// A proxy could not be put in front of the server.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// There is no room for what our own server keeps.
    #[error("no directory for the state of the server: {0}")]
    State(#[source] std::io::Error),
    /// The journal of our own server cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The range of a search makes no sense.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// The user ended it.
    #[error("ended early")]
    Stopped,
}

impl PlanError {
    /// Whether the server cannot be reached, which is not for us to mend.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Run { source, .. } => source.is_unreachable(),
            Self::Control { source, .. } => !source.is_ours(),
            _ => false,
        }
    }
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
    let own = matches!(venue.peer, Peer::Own(_));
    let state_in = venue.state_in.clone().unwrap_or_else(std::env::temp_dir);
    let state = (plan.durable && own).then(|| tempfile::tempdir_in(state_in));
    let state = state.transpose().map_err(PlanError::State)?;
    let mut args = plan.server_args.clone();
    args.extend(state.as_ref().map(|dir| format!("--state={}", dir.path().display())));
    let keys = plan.locks.filter(|_| own).map(Keys::cut);
    let key_dir = keys.is_some().then(tempfile::tempdir).transpose().map_err(PlanError::State)?;
    if let (Some(keys), Some(dir)) = (&keys, &key_dir) {
        let path = dir.path().join("tokens");
        keys.write(&path).map_err(PlanError::State)?;
        args.push(format!("--tokens={}", path.display()));
    }
    let host = Host::of(venue, &args, keys)?;
    let stage = Stage { venue, host: &host, stop };
    let mut evidence = Evidence { own_server: own, identities: host.identities(), ..Evidence::default() };
    for phase in &plan.phases {
        if stop.is_stopped() {
            return Err(PlanError::Stopped);
        }
        observer.phase(&phase.name);
        match stage.perform(phase, observer) {
            Ok(seen) => evidence.phases.push(seen),
            // It was there, and is not any more: that is what the case has found out.
            Err(error) if error.is_unreachable() && !evidence.phases.is_empty() => {
                evidence.gone = Some(error.to_string());
                break;
            }
            Err(error) => return Err(error),
        }
    }
    // What was cut short is no evidence of anything.
    if stop.is_stopped() {
        return Err(PlanError::Stopped);
    }
    if let Some(dir) = &state {
        let mut journal = BTreeMap::new();
        for entry in read_journal(dir.path())? {
            *journal.entry(entry.id).or_default() += 1;
        }
        evidence.journal = Some(journal);
    }
    Ok(evidence)
}

/// Where phases take place.
struct Stage<'a> {
    venue: &'a Venue,
    host: &'a Host,
    stop: &'a Stop,
}

impl Stage<'_> {
    fn perform(&self, phase: &Phase, observer: &mut dyn PlanObserver) -> Result<PhaseEvidence, PlanError> {
        let mut seen = PhaseEvidence::of(&phase.name);
        match &phase.action {
            Action::Load(workload) => seen.run = Some(self.load(phase, workload, observer)?),
            Action::WatchedLoad(workload) => {
                let control = asked(phase, self.control())?;
                let begun_unix_ns = unix_now_ns();
                let (run, watched) = watched(control, || self.load(phase, workload, observer));
                let run = run?;
                (seen.memory, seen.stats_error) = watched;
                // Handshakes and a ramp come first.
                let before_s = (run.started_at_unix_ns as f64 - begun_unix_ns as f64) / 1e9;
                seen.memory.iter_mut().for_each(|sample| sample.t_s -= before_s);
                seen.run = Some(run);
            }
            Action::Scene(scene) => {
                seen.scene = Some(scene::play(scene, self.host, self.venue, self.stop, observer)?);
            }
            Action::Idle(span) => self.idle(*span),
            Action::Stats => {
                let stats = self.control().and_then(|mut control| control.stats());
                seen.asked_once(asked(phase, stats)?);
            }
            Action::Purge => {
                allocator::purge();
                let stats = self.control().and_then(|mut control| control.purge());
                seen.asked_once(asked(phase, stats)?);
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
        let peer = Peer::At { target: self.host.target(), pid: self.host.pid() };
        let plan = LoadPlan {
            dialect: self.venue.dialect,
            access: self.host.access(),
            dialect_settings: Arc::clone(&self.venue.dialect_settings),
            calibration: self.venue.calibration.clone(),
            ..LoadPlan::new(workload.clone(), peer)
        };
        let mut results = run_load(&plan, self.stop, observer)
            .map_err(|source| PlanError::Run { phase: phase.name.clone(), source })?;
        if self.host.is_own() {
            results.workload.target = None;
        }
        Ok(Box::new(results))
    }

    fn control(&self) -> Result<ControlConnection, ControlError> {
        ControlConnection::open(&self.host.target(), self.host.access())
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

/// What the server told, or why it told nothing: that is evidence, unless it is we who cannot ask.
fn asked<T>(phase: &Phase, told: Result<T, ControlError>) -> Result<Result<T, String>, PlanError> {
    match told {
        Err(source) if source.is_ours() => Err(PlanError::Control { phase: phase.name.clone(), source }),
        told => Ok(told.map_err(|error| error.to_string())),
    }
}

impl PhaseEvidence {
    fn asked_once(&mut self, told: Result<PerformanceStats, String>) {
        match told {
            Ok(stats) => self.memory.push(memory_sample(0.0, &stats)),
            Err(error) => self.stats_error = Some(error),
        }
    }
}

/// Memory over time, and why it ended before the load did.
type Series = (Vec<MemorySample>, Option<String>);

/// Reads the memory of both sides while `load` runs, which it does also where there is nobody to ask.
fn watched<T>(control: Result<ControlConnection, String>, load: impl FnOnce() -> T) -> (T, Series) {
    let mut control = match control {
        Ok(control) => control,
        Err(error) => return (load(), (Vec::new(), Some(error))),
    };
    let (done, wait) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(move || {
            let begun = Instant::now();
            let mut samples = Vec::new();
            loop {
                match control.stats() {
                    Ok(stats) => samples.push(memory_sample(begun.elapsed().as_secs_f64(), &stats)),
                    Err(error) => return (samples, Some(error.to_string())),
                }
                if !matches!(wait.recv_timeout(WATCH_EVERY), Err(RecvTimeoutError::Timeout)) {
                    return (samples, None);
                }
            }
        });
        let outcome = load();
        drop(done);
        let ended = |_| (Vec::new(), Some("the watch over the statistics panicked".to_owned()));
        (outcome, watcher.join().unwrap_or_else(ended))
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
