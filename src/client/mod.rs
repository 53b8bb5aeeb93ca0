//! The load generator: `HighVolumeThroughputClient` and its workers.
//!
//! [`HighVolumeThroughputClient::run`] opens the connections on its worker threads, starts them all at one instant,
//! waits until every message has its class, and gives what was measured. It is generic over what it connects to
//! ([`Connect`]) and over the [`Dialect`]; the machinery below also over the clock.

mod access;
mod account;
mod conductor;
mod connect;
mod connection;
mod course;
mod dial;
mod in_flight;
mod keeper;
mod muster;
mod opening;
mod outages;
mod pulse;
mod report;
mod shared;
mod sources;
mod summary;
mod tls;
mod transport;
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use thiserror::Error;
use tokio::sync::{oneshot, watch};

pub use access::{Access, Token, TokenPlace, Tokens};
pub use connect::{Connect, ConnectError, Encrypted, NetStream, TcpConnect};
pub use in_flight::InFlight;
pub use muster::{Muster, Place};
pub use tls::{ClientIdentity, TlsAccess};
pub use transport::Transport;

use crate::clock::{Clock, MonotonicClock, TokioClock, unix_now_ns};
use crate::dialect::Dialect;
use crate::limits::Reserve;
use crate::pacer::Sleeper;
use crate::record::{LatencyHistogram, Window, WindowSummary};
use crate::result::{
    BlockedSends, ConnectionCounts, ConnectionSummary, LatencyMeasurement, MessageCounts, Moments, Outage,
    Unmatched,
};
use crate::workload::Workload;

use conductor::Control;
use course::{Course, Run};
use report::count_reason;
use shared::nanos;
use worker::{Opened, Plan, SetupTimes, Start, WorkerReport};

/// Between the last handshake and the first message: time for every worker to be told.
const START_DELAY: Duration = Duration::from_millis(50);
/// Open files that a load needs once its connections are open, beside a timer for each worker: to watch the resources of both
/// sides.
const FILES_OF_LOAD: usize = 8;
/// How often the coordinator collects windows and shows progress.
const COLLECT_EVERY: Duration = Duration::from_millis(100);

/// A load could not be offered at all.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Not one connection could be opened.
    #[error("no connection could be opened: {first}{}", others(*.failed))]
    Unreachable {
        /// How many attempts failed.
        failed: u64,
        /// The first failure.
        first: ConnectError,
    },
    /// The system gave no thread or no timer.
    #[error("a worker could not run: {0}")]
    Worker(#[from] io::Error),
    /// It was stopped before the load began.
    #[error("stopped before the load began")]
    Stopped,
}

fn others(failed: u64) -> String {
    if failed > 1 { format!(" (and {} more)", failed - 1) } else { String::new() }
}

/// Ends a running load. Clones end the same load.
#[derive(Debug, Clone)]
pub struct Stop {
    control: Arc<watch::Sender<Control>>,
}

impl Default for Stop {
    fn default() -> Self {
        Self { control: Arc::new(watch::Sender::new(Control::Run)) }
    }
}

impl Stop {
    /// Ends the load; what was sent is still awaited. A second call gives up waiting.
    pub fn stop(&self) {
        self.control.send_modify(|control| {
            *control = if *control == Control::Run { Control::Stop } else { Control::Abort };
        });
    }

    /// Whether the load was asked to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.control.borrow() != Control::Run
    }
}

/// Where a running load stands.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadProgress {
    /// Since the load began, its ramp included.
    pub elapsed: Duration,
    /// Until its end, its ramp included; zero while answers are awaited.
    pub left: Duration,
    /// Answers so far.
    pub answered: u64,
    /// The last complete second.
    pub window: Option<WindowSummary>,
}

/// Is told how a load goes.
pub trait Observer {
    /// The connections are open; the load starts now.
    fn started(&mut self) {}
    /// About every 100 ms.
    fn progress(&mut self, _progress: &LoadProgress) {}
}

impl Observer for () {}

/// What a load measured.
#[derive(Debug)]
pub struct LoadMeasurement {
    /// Distinguishes this load's ids.
    pub run_id: String,
    /// When it started: after the ramp, where it has one.
    pub started_at_unix_ns: u64,
    /// How long load was offered, without the ramps: the plan's duration, less where it was stopped, zero where that was
    /// before the rate was reached.
    pub offered_for: Duration,
    /// Whether it was stopped.
    pub stopped: bool,
    /// The counts.
    pub messages: MessageCounts,
    /// Answers to what was due outside the ramps, received by the end of that time plus 500 ms.
    pub achieved: u64,
    /// When what first happened.
    pub moments: Moments,
    /// All windows in one, with the histograms. Like them it knows only what was due outside the ramps.
    pub total: Window,
    /// The seconds.
    pub windows: Vec<WindowSummary>,
    /// What became of the connections.
    pub connections: ConnectionCounts,
    /// Each connection's account, by index.
    pub per_connection: Vec<ConnectionSummary>,
    /// The first cuts of connections that were to be opened again, at most [`OUTAGES_KEPT`](crate::result::OUTAGES_KEPT).
    pub outages: Vec<Outage>,
    /// How many more there were.
    pub outages_not_listed: u64,
    /// The first messages that matched nothing that was asked, at most [`UNMATCHED_KEPT`](crate::result::UNMATCHED_KEPT).
    pub unmatched: Vec<Unmatched>,
    /// Sends that waited for a full socket, or for a connection.
    pub blocked_sends: BlockedSends,
    /// CPU of the busiest worker's thread while the rate was held ÷ that time, in cores.
    pub busiest_worker_cores: Option<f64>,
}

/// Offers one load to one target.
#[derive(Debug)]
pub struct HighVolumeThroughputClient<K, D> {
    workload: Workload,
    connect: K,
    dialect: D,
    workers: usize,
    start_at_unix_ns: Option<u64>,
    together: Option<Arc<Place>>,
    in_flight: Option<Arc<InFlight>>,
}

impl<K: Connect, D: Dialect> HighVolumeThroughputClient<K, D>
where
    D::Session: Unpin,
{
    /// A client for a validated workload, with one worker for every two cores.
    #[must_use]
    pub fn new(workload: Workload, connect: K, dialect: D) -> Self {
        Self {
            workload,
            connect,
            dialect,
            workers: default_workers(),
            start_at_unix_ns: None,
            together: None,
            in_flight: None,
        }
    }

    /// Sets how many worker threads share the connections; at least 1.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// Starts the load, with its ramp where it has one, at this time of the wall clock, together with other shards,
    /// instead of at once.
    #[must_use]
    pub fn start_at_unix_ns(mut self, start_at_unix_ns: u64) -> Self {
        self.start_at_unix_ns = Some(start_at_unix_ns);
        self
    }

    /// Starts the load when all loads of this process that are to start with it have opened their connections. Of
    /// [`run`](Self::run) only: the thread waits, which in virtual time would be for ever.
    #[must_use]
    pub fn together(mut self, place: Arc<Place>) -> Self {
        self.together = Some(place);
        self
    }

    /// Counts what is sent and unanswered into this, together with the other loads that share it.
    #[must_use]
    pub fn in_flight(mut self, in_flight: Arc<InFlight>) -> Self {
        self.in_flight = Some(in_flight);
        self
    }

    /// Offers the load and waits until every message has its class.
    ///
    /// # Errors
    /// Where no connection at all could be opened, the system refuses a thread, or `stop` came first.
    pub fn run(self, stop: &Stop, observer: &mut dyn Observer) -> Result<LoadMeasurement, ClientError> {
        let run = Run::new(MonotonicClock::start(), unix_now_ns(), u64::from(std::process::id()));
        let shares = self.shares();
        // Where open files run out, it is connections that go without.
        let reserve = Reserve::of(shares.len() + FILES_OF_LOAD);
        let (opened_sender, opened) = mpsc::channel();
        let (report_sender, reports) = mpsc::channel();
        let mut to_start = Vec::with_capacity(shares.len());
        for (worker, connections) in shares.iter().enumerate() {
            let plan = self.plan(&run, connections.clone(), Sleeper::precise, stop);
            let (start_sender, start) = oneshot::channel();
            to_start.push(start_sender);
            let (opened, report) = (opened_sender.clone(), report_sender.clone());
            std::thread::Builder::new().name(format!("client-{worker}")).spawn(move || {
                // Both receivers outlive the threads, unless the coordinator has already failed.
                let outcome = worker::run(plan, |how| drop(opened.send(how)), start);
                let _ = report.send(outcome);
            })?;
        }
        drop((opened_sender, report_sender));
        let opened: Vec<Opened> = opened.iter().collect_exactly(shares.len(), &reports)?;
        let (mut course, starts) =
            self.begin(run, opened, (self.together.as_deref(), Some(reserve)), stop, observer)?;
        for (sender, start) in to_start.into_iter().zip(starts) {
            // A worker that is gone shows as a missing report.
            let _ = sender.send(start);
        }
        let mut received = Vec::with_capacity(shares.len());
        while received.len() < shares.len() {
            match reports.recv_timeout(COLLECT_EVERY) {
                Ok(report) => received.extend(report?),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ClientError::Worker(io::Error::other("it ended without a report")));
                }
            }
            course.look();
        }
        course.finish(received, stop.is_stopped())
    }

    /// Offers the load as [`run`](Self::run) does, but in the task that polls this and on tokio's clock, both of which a
    /// simulator may drive. The workers are tasks then, of which a simulation should [choose the number](Self::workers).
    ///
    /// Nothing comes from the real world: the time of day starts at `unix_origin_ns`, and the run's id follows from that
    /// and the workload's seed. The same network gives the same load again, but for the masks and keys that the WebSocket
    /// layer draws. It is as precise as tokio's timer, a millisecond; no CPU time is reported.
    ///
    /// Poll it inside a [`LocalSet`](tokio::task::LocalSet), or another place where `spawn_local` works.
    ///
    /// # Errors
    /// Where no connection at all could be opened, or `stop` came first.
    pub async fn run_in_virtual_time(
        self,
        unix_origin_ns: u64,
        stop: &Stop,
        observer: &mut dyn Observer,
    ) -> Result<LoadMeasurement, ClientError> {
        let run = Run::new(TokioClock::start(), unix_origin_ns, self.workload.seed);
        let shares = self.shares().into_iter();
        let mut plans: Vec<_> =
            shares.map(|connections| self.plan(&run, connections, || Ok(Sleeper::coarse()), stop)).collect();
        let opened = join_all(plans.iter_mut().map(Plan::open)).await;
        let (ready, opened): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
        let (mut course, starts) = self.begin(run, opened, (None, None), stop, observer)?;
        let workers = plans.iter_mut().zip(ready).zip(starts);
        let mut loads: FuturesUnordered<_> =
            workers.map(|((plan, ready), start)| plan.load(ready, start)).collect();
        let mut received = Vec::with_capacity(loads.len());
        while !loads.is_empty() {
            if let Ok(Some(report)) = tokio::time::timeout(COLLECT_EVERY, loads.next()).await {
                received.push(WorkerReport { cpu_s: None, ..report? });
            }
            course.look();
        }
        drop(loads);
        course.finish(received, stop.is_stopped())
    }

    /// What a worker is to do.
    fn plan<C: Clock>(
        &self,
        run: &Run<C>,
        connections: Vec<u32>,
        sleeper: fn() -> io::Result<Sleeper>,
        stop: &Stop,
    ) -> Plan<K, D, C> {
        Plan {
            workload: self.workload.clone(),
            connections,
            run_id: run.id.clone(),
            connect: self.connect.clone(),
            dialect: self.dialect.clone(),
            clock: run.clock.clone(),
            sleeper,
            unix_origin_ns: run.unix_origin_ns,
            control: stop.control.subscribe(),
            progress: Arc::clone(&run.progress),
            in_flight: self.in_flight.clone(),
        }
    }

    /// The connections are open: the load begins.
    fn begin<'a, C: Clock>(
        &'a self,
        run: Run<C>,
        opened: Vec<Opened>,
        (together, reserve): (Option<&Place>, Option<Reserve>),
        stop: &Stop,
        observer: &'a mut dyn Observer,
    ) -> Result<(Course<'a, C>, Vec<Start>), ClientError> {
        if stop.is_stopped() {
            return Err(ClientError::Stopped);
        }
        let workers = opened.len();
        let connections = self.connections_opened(opened)?;
        let together_ns = together.map(|place| place.ready(stop));
        // The connections of all are open.
        drop(reserve);
        let start_ns = self.start_ns(together_ns, &run.clock, run.unix_origin_ns);
        Ok(Course::begin(&self.workload, run, start_ns, workers, connections, observer))
    }

    /// Which connections each worker opens: this shard's, dealt in turn; no worker without one.
    fn shares(&self) -> Vec<Vec<u32>> {
        let mine: Vec<u32> = self.workload.shard_connections().collect();
        let workers = self.workers.min(mine.len()).max(1);
        (0..workers).map(|worker| mine.iter().copied().skip(worker).step_by(workers).collect()).collect()
    }

    fn connections_opened(&self, opened: Vec<Opened>) -> Result<ConnectionCounts, ClientError> {
        let requested = self.workload.shard_connections().count() as u64;
        let mut counts = ConnectionCounts { requested, ..ConnectionCounts::default() };
        let mut setup = SetupTimes::default();
        let mut failures = Vec::new();
        let begun_ns = opened.iter().map(|worker| worker.begun_ns).min();
        let ended_ns = opened.iter().map(|worker| worker.ended_ns).max();
        counts.opening_s =
            ended_ns.zip(begun_ns).map(|(ended, begun)| ended.saturating_sub(begun) as f64 / 1e9);
        for worker in opened {
            counts.established += worker.established;
            setup.add(&worker.setup);
            failures.extend(worker.failures);
        }
        failures.sort_by_key(|(index, _)| *index);
        for (index, failure) in &failures {
            count_reason(&mut counts.reasons, failure.to_string(), 1);
            match failure.lacked() {
                Some(lacked) => {
                    count_reason(&mut counts.unopened.reasons, lacked, 1);
                    counts.unopened.connections.push(*index);
                }
                None => counts.refused += 1,
            }
        }
        if counts.established == 0 {
            let failed = failures.len() as u64;
            return match failures.into_iter().next() {
                Some((_, first)) => Err(ClientError::Unreachable { failed, first }),
                None => Err(ClientError::Stopped),
            };
        }
        let of = |times: &LatencyHistogram| (!times.is_empty()).then(|| LatencyMeasurement::of(times, 0));
        counts.setup_us = of(&setup.total);
        counts.connect_us = of(&setup.connect);
        counts.tls_us = of(&setup.tls);
        counts.upgrade_us = of(&setup.upgrade);
        Ok(counts)
    }

    /// When the rate is reached, on the run's clock.
    fn start_ns(&self, together_unix_ns: Option<u64>, clock: &impl Clock, unix_origin_ns: u64) -> u64 {
        let soonest_ns = clock.now_ns() + START_DELAY.as_nanos() as u64;
        let origin_ns = match together_unix_ns.or(self.start_at_unix_ns) {
            Some(wanted) => wanted.saturating_sub(unix_origin_ns).max(soonest_ns),
            None => soonest_ns,
        };
        origin_ns + nanos(self.workload.ramp)
    }
}

/// One worker for every two cores: on two cores the server gets the other one.
#[must_use]
pub fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

/// Collects one item a worker, or the error of the worker that ended without.
trait CollectExactly {
    fn collect_exactly(
        self,
        workers: usize,
        reports: &mpsc::Receiver<io::Result<Option<WorkerReport>>>,
    ) -> Result<Vec<Opened>, ClientError>;
}

impl<I: Iterator<Item = Opened>> CollectExactly for I {
    fn collect_exactly(
        self,
        workers: usize,
        reports: &mpsc::Receiver<io::Result<Option<WorkerReport>>>,
    ) -> Result<Vec<Opened>, ClientError> {
        let opened: Vec<Opened> = self.take(workers).collect();
        if opened.len() == workers {
            return Ok(opened);
        }
        match reports.try_recv() {
            Ok(Err(error)) => Err(ClientError::Worker(error)),
            _ => Err(ClientError::Worker(io::Error::other("it ended before it had opened its connections"))),
        }
    }
}
