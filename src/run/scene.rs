//! Several loads at once, and what happens to the server and to the connections meanwhile.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::control::{ControlConnection, ControlError};
use super::host::Host;
use super::plan::{PlanError, PlanObserver, Venue};
use super::probe;
use super::{LoadPlan, Peer, RunError, SPARE_FILES, run_load};
use crate::client::{ConnectError, InFlight, LoadProgress, Muster, Observer, Place, Stop, TcpConnect};
use crate::clock::unix_now_ns;
use crate::dialect::RequestKind;
use crate::fault::Rule;
use crate::limits::ensure_open_files;
use crate::message::Priority;
use crate::proxy::{Injection, ProxyThread, RuleGuard};
use crate::result::{Cost, LoadTestResults};
use crate::workload::Workload;

pub use super::probe::{Manner, Probe, ProbeEvidence};

/// How long each address of a server may take to be reached.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How often the depth of the queue is read: a twentieth of a second against limits of seconds.
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// What happens at the same time.
#[derive(Debug, Clone, Default)]
pub struct Scene {
    /// What is offered; the first load's start is the scene's.
    pub loads: Vec<Load>,
    /// What the faulty proxy does, each rule's schedule counted from the start.
    pub rules: Vec<Rule>,
    /// When the server is killed (SIGKILL) and started again, our own by us, another's by its owner's command, if at all.
    /// All loads must go through a proxy then.
    pub kills: Vec<Duration>,
    /// A number of messages in flight over all loads: when it is first reached is noted.
    pub in_flight_mark: Option<u64>,
    /// Whether the depth of the server's queue is to be watched.
    pub watch_queue: bool,
    /// Who tries to get in beside the loads.
    pub probes: Vec<Probe>,
}

/// One load among those of a scene.
#[derive(Debug, Clone)]
pub struct Load {
    /// Names it in reports and for the judge; unique within a plan.
    pub name: String,
    /// What is offered.
    pub workload: Workload,
    /// Which request is sent, in the dialect `floodline`.
    pub request: RequestKind,
    /// With which priority, in the dialect `floodline`; `None` names none.
    pub priority: Option<Priority>,
    /// Which way.
    pub route: Route,
}

/// Which way a load takes to the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Route {
    /// The straight one.
    #[default]
    Direct,
    /// Through a proxy that does nothing but copy, so that what goes through the other can be compared with it.
    Proxied,
    /// Through the proxy that the scene's rules are for.
    Faulty,
}

impl Load {
    /// A load that goes straight to the server.
    #[must_use]
    pub fn new(name: impl Into<String>, workload: Workload) -> Self {
        let (request, priority, route) = (RequestKind::default(), None, Route::default());
        Self { name: name.into(), workload, request, priority, route }
    }
}

/// What a scene brought to light. Times are seconds since its start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SceneEvidence {
    /// The result of each load, in order.
    pub runs: Vec<NamedRun>,
    /// The deaths of the server.
    pub kills: Vec<Kill>,
    /// What the faulty proxy did.
    pub injections: Vec<Injected>,
    /// When the mark of messages in flight was first reached.
    pub in_flight_reached_s: Option<f64>,
    /// The depth of the server's queue, where it was watched.
    pub queue: Vec<QueueSample>,
    /// Why it could not be watched.
    pub stats_error: Option<String>,
    /// What became of those who tried to get in.
    #[serde(default)]
    pub probes: Vec<ProbeEvidence>,
}

/// One load's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedRun {
    /// The load's name.
    pub name: String,
    /// What was measured.
    pub run: Box<LoadTestResults>,
}

/// One death of the server.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Kill {
    /// When it was killed.
    pub at_s: f64,
    /// When it listened again.
    pub back_at_s: f64,
}

/// One thing that the faulty proxy did to a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Injected {
    /// When.
    pub at_s: f64,
    /// What, to which connection, by which rule.
    #[serde(flatten)]
    pub injection: Injection,
}

/// The depth of the server's queue at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct QueueSample {
    /// When.
    pub t_s: f64,
    /// Messages waiting.
    pub depth: u64,
}

/// Plays a scene to its end.
pub(super) fn play(
    scene: &Scene,
    host: &Host,
    venue: &Venue,
    stop: &Stop,
    observer: &mut dyn PlanObserver,
) -> Result<SceneEvidence, PlanError> {
    ensure_open_files(files(scene)).map_err(|error| PlanError::Run {
        phase: scene.loads.first().map(|load| load.name.clone()).unwrap_or_default(),
        source: RunError::Limit(error),
    })?;
    let ways = Ways::open(scene, host)?;
    let control = scene.watch_queue.then(|| ControlConnection::open(&host.target(), host.access()));
    let stage = Stage { scene, host, venue, stop, ways: &ways };
    let played = stage.play(control, observer)?;
    Ok(played.evidence(scene, &ways))
}

/// How many files are open at once: a proxied connection has its two ends in the proxy beside the client's.
fn files(scene: &Scene) -> u64 {
    let of =
        |load: &Load| u64::from(load.workload.connections) * if load.route == Route::Direct { 1 } else { 3 };
    scene.loads.iter().map(of).sum::<u64>() + SPARE_FILES * scene.loads.len() as u64
}

/// The proxies that the loads go through.
struct Ways {
    clean: Option<ProxyThread>,
    faulty: Option<ProxyThread>,
}

impl Ways {
    fn open(scene: &Scene, host: &Host) -> Result<Self, PlanError> {
        let upstream = || upstream(host);
        let open = |route| -> Result<Option<ProxyThread>, PlanError> {
            if scene.loads.iter().all(|load| load.route != route) {
                return Ok(None);
            }
            Ok(Some(ProxyThread::start(SocketAddr::from(([127, 0, 0, 1], 0)), upstream()?)?))
        };
        Ok(Self { clean: open(Route::Proxied)?, faulty: open(Route::Faulty)? })
    }

    fn via(&self, route: Route) -> Option<SocketAddr> {
        let proxy = match route {
            Route::Direct => None,
            Route::Proxied => self.clean.as_ref(),
            Route::Faulty => self.faulty.as_ref(),
        };
        proxy.map(ProxyThread::address)
    }

    /// The server is elsewhere now.
    fn lead_to(&self, upstream: SocketAddr) {
        for proxy in [&self.clean, &self.faulty].into_iter().flatten() {
            proxy.handle().set_upstream(upstream);
        }
    }
}

/// The address of the server itself: the first of its name's at which somebody listens.
fn upstream(host: &Host) -> Result<SocketAddr, PlanError> {
    let unreachable =
        |error| PlanError::Control { phase: "proxy".to_owned(), source: ControlError::Connect(error) };
    let target = host.target();
    let address = format!("{}:{}", target.host(), target.port());
    let connect = TcpConnect::new(target, host.access()).map_err(unreachable)?;
    let mut refused = io::Error::other("no address");
    for address in connect.addresses() {
        match TcpStream::connect_timeout(address, CONNECT_WITHIN) {
            Ok(_) => return Ok(*address),
            Err(cause) => refused = cause,
        }
    }
    Err(unreachable(ConnectError::Tcp { address, cause: refused }))
}

struct Stage<'a> {
    scene: &'a Scene,
    host: &'a Host,
    venue: &'a Venue,
    stop: &'a Stop,
    ways: &'a Ways,
}

/// A scene that is over, on the wall clock.
#[derive(Default)]
struct Played {
    runs: Vec<NamedRun>,
    kills: Vec<(u64, u64)>,
    queue: Vec<(u64, u64)>,
    stats_error: Option<String>,
    reached_unix_ns: Option<u64>,
    probes: Vec<ProbeEvidence>,
}

impl Played {
    fn evidence(self, scene: &Scene, ways: &Ways) -> SceneEvidence {
        let start_unix_ns = self.runs.first().map_or(0, |first| first.run.started_at_unix_ns);
        let since_start_s = |unix_ns: u64| (unix_ns as f64 - start_unix_ns as f64) / 1e9;
        let injections = ways.faulty.as_ref().map(|proxy| proxy.handle().events()).unwrap_or_default();
        let injections = if scene.rules.is_empty() { Vec::new() } else { injections };
        SceneEvidence {
            runs: self.runs,
            kills: self
                .kills
                .into_iter()
                .map(|(at, back)| Kill { at_s: since_start_s(at), back_at_s: since_start_s(back) })
                .collect(),
            injections: injections
                .into_iter()
                .map(|injection| Injected { at_s: since_start_s(injection.unix_ns), injection })
                .collect(),
            in_flight_reached_s: self.reached_unix_ns.map(since_start_s),
            queue: self
                .queue
                .into_iter()
                .map(|(at, depth)| QueueSample { t_s: since_start_s(at), depth })
                .collect(),
            stats_error: self.stats_error,
            probes: self.probes,
        }
    }
}

impl Stage<'_> {
    fn play(
        &self,
        control: Option<Result<ControlConnection, ControlError>>,
        observer: &mut dyn PlanObserver,
    ) -> Result<Played, PlanError> {
        let in_flight = self.scene.in_flight_mark.map(|mark| Arc::new(InFlight::with_mark(mark)));
        let mut places = Muster::of(self.scene.loads.len()).into_iter();
        let first_place = places.next();
        let (begin, begun) = mpsc::channel();
        let (watch_over, watched) = mpsc::channel::<()>();
        let (loads_over, waiting) = mpsc::channel::<()>();
        let (go, gone) = watch::channel(false);
        let Some((first, others)) = self.scene.loads.split_first() else { return Ok(Played::default()) };
        std::thread::scope(|scope| {
            let watcher = control.map(|control| scope.spawn(move || watched_queue(control, &watched)));
            let incidents = scope.spawn(move || self.incidents(&begun, &waiting));
            let knocking = scope.spawn(move || probe::knock(&self.scene.probes, self.host, &gone));
            let others: Vec<_> = others
                .iter()
                .zip(places)
                .map(|(load, place)| {
                    let in_flight = in_flight.clone();
                    scope.spawn(move || self.offer(load, Some(place), in_flight, &mut ()))
                })
                .collect();
            let ramp = first.workload.ramp;
            let mut announcer = Announcer { observer, begin: Some(begin), ramp };
            let first = self.offer(first, first_place, in_flight.clone(), &mut announcer);
            drop(announcer);
            let others: Vec<_> = others.into_iter().map(joined).collect();
            drop((loads_over, watch_over));
            go.send_replace(true);
            let probes = joined(knocking);
            let kills = joined(incidents);
            let (queue, stats_error) = watcher.map(joined).unwrap_or_default();
            let runs = std::iter::once(first).chain(others);
            Ok(Played {
                runs: runs.collect::<Result<_, _>>()?,
                kills: kills?,
                queue,
                stats_error,
                reached_unix_ns: in_flight.and_then(|in_flight| in_flight.reached_unix_ns()),
                probes: probes?,
            })
        })
    }

    fn offer(
        &self,
        load: &Load,
        together: Option<Arc<Place>>,
        in_flight: Option<Arc<InFlight>>,
        observer: &mut dyn Observer,
    ) -> Result<NamedRun, PlanError> {
        let peer = Peer::At { target: self.host.target(), pid: self.host.pid() };
        let plan = LoadPlan {
            dialect: self.venue.dialect,
            dialect_settings: Arc::clone(&self.venue.dialect_settings),
            request: load.request,
            priority: load.priority,
            access: self.host.access(),
            calibration: self.venue.calibration.clone(),
            together: together.filter(|_| self.scene.loads.len() > 1),
            via: self.ways.via(load.route),
            in_flight,
            server_pid_now: self.host.pid_now(),
            ..LoadPlan::new(load.workload.clone(), peer)
        };
        let mut run = run_load(&plan, self.stop, observer)
            .map_err(|source| PlanError::Run { phase: load.name.clone(), source })?;
        if self.host.is_own() {
            run.workload.target = None;
        }
        if self.scene.loads.len() > 1 || load.route != Route::Direct {
            // The processes serve other loads, or a proxy, too: their CPU is not what a message of this one costs.
            run.cost = Cost::default();
        }
        Ok(NamedRun { name: load.name.clone(), run: Box::new(run) })
    }

    /// Puts the rules into force at the start, and kills the server when it is time; when that was, and when it
    /// listened again.
    fn incidents(
        &self,
        begun: &Receiver<Instant>,
        over: &Receiver<()>,
    ) -> Result<Vec<(u64, u64)>, PlanError> {
        let Ok(start) = begun.recv() else { return Ok(Vec::new()) };
        let _in_force = self.inject(start);
        let mut kills = Vec::new();
        // Somebody else's server is not ours to kill, unless its owner says how.
        for &after in self.scene.kills.iter().filter(|_| self.host.can_be_killed()) {
            let left = (start + after).saturating_duration_since(Instant::now());
            if !matches!(over.recv_timeout(left), Err(RecvTimeoutError::Timeout)) {
                return Ok(kills);
            }
            let killed_unix_ns = unix_now_ns();
            self.host.kill();
            let again = self.host.start_again().map_err(PlanError::from);
            match again.and_then(|()| upstream(self.host)) {
                Ok(upstream) => self.ways.lead_to(upstream),
                // Ctrl-C reaches a server that is just starting too.
                Err(_) if self.stop.is_stopped() => return Ok(kills),
                Err(error) => return Err(error),
            }
            kills.push((killed_unix_ns, unix_now_ns()));
        }
        // Rules hold until their guards are dropped; nothing is ever sent.
        let _ = over.recv();
        Ok(kills)
    }

    fn inject(&self, start: Instant) -> Vec<RuleGuard> {
        let Some(proxy) = &self.ways.faulty else { return Vec::new() };
        let handle = proxy.handle();
        let epoch_ns = handle.now_ns().saturating_sub(start.elapsed().as_nanos() as u64);
        self.scene.rules.iter().map(|rule| handle.inject_at(rule.clone(), epoch_ns)).collect()
    }
}

/// What a thread of the scene found. A bug there is a bug here: it must not look like the user's end of the test.
fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Passes on how the first load goes, and tells the others when it began.
struct Announcer<'a> {
    observer: &'a mut dyn PlanObserver,
    begin: Option<mpsc::Sender<Instant>>,
    /// Before the start, which counts from the end of it.
    ramp: Duration,
}

impl Observer for Announcer<'_> {
    fn started(&mut self) {
        self.observer.started();
    }

    fn progress(&mut self, progress: &LoadProgress) {
        if !progress.elapsed.is_zero()
            && let Some(begin) = self.begin.take()
        {
            // The receiver is gone where there is nothing to do.
            let _ = begin.send(Instant::now() - progress.elapsed + self.ramp);
        }
        self.observer.progress(progress);
    }
}

/// Reads the depth of the queue until the loads are over, and once more.
fn watched_queue(
    control: Result<ControlConnection, ControlError>,
    over: &Receiver<()>,
) -> (Vec<(u64, u64)>, Option<String>) {
    let mut samples = Vec::new();
    let mut control = match control {
        Ok(control) => control,
        Err(error) => return (samples, Some(error.to_string())),
    };
    let mut last = false;
    loop {
        match control.stats() {
            Ok(stats) => samples.push((unix_now_ns(), stats.queue_depth)),
            Err(error) => return (samples, Some(error.to_string())),
        }
        if last {
            return (samples, None);
        }
        last = !matches!(over.recv_timeout(WATCH_EVERY), Err(RecvTimeoutError::Timeout));
    }
}
