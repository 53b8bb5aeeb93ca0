//! The load generator: `HighVolumeThroughputClient` and its workers.
//!
//! [`HighVolumeThroughputClient::run`] opens the connections on its worker threads, starts them all at one instant,
//! waits until every message has its class, and gives what was measured. It is generic over what it connects to
//! ([`Connect`]) and over the [`Dialect`]; the machinery below also over the clock.

mod account;
mod connect;
mod connection;
mod dial;
mod in_flight;
mod keeper;
mod outages;
mod pulse;
mod report;
mod shared;
mod transport;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{oneshot, watch};

pub use connect::{Connect, ConnectError, NetStream, TcpConnect, Token};
pub use in_flight::InFlight;
pub use transport::Transport;

use crate::clock::{Clock, MonotonicClock, unix_now_ns};
use crate::dialect::Dialect;
use crate::ledger::{Counts, MISSING_KEPT};
use crate::record::{Collector, LatencyHistogram, Window, WindowSummary};
use crate::result::{
    BlockedSends, ConnectionCounts, ConnectionSummary, LatencyMeasurement, MessageCounts, Moments, Outage,
};
use crate::schedule::mix;
use crate::workload::Workload;

use outages::OutageLog;
use report::{ConnectionReport, count_reason};
use shared::nanos;
use worker::{Control, Opened, Plan, Progress, Start, WorkerReport};

/// Between the last handshake and the first message: time for every worker to be told.
const START_DELAY: Duration = Duration::from_millis(50);
/// How often the coordinator collects windows and shows progress.
const COLLECT_EVERY: Duration = Duration::from_millis(100);
/// A window is complete so long after its end, because every worker hands over within its housekeeping interval.
const SETTLE_NS: u64 = 300_000_000;

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
        let clock = MonotonicClock::start();
        let unix_origin_ns = unix_now_ns();
        let run_id = run_id(unix_origin_ns);
        let progress = Arc::new(Progress::default());
        let shares = self.shares();
        let (opened_sender, opened) = mpsc::channel();
        let (report_sender, reports) = mpsc::channel();
        let mut starts = Vec::with_capacity(shares.len());
        for (worker, connections) in shares.iter().enumerate() {
            let plan = Plan {
                workload: self.workload.clone(),
                connections: connections.clone(),
                run_id: run_id.clone(),
                connect: self.connect.clone(),
                dialect: self.dialect.clone(),
                clock,
                unix_origin_ns,
                control: stop.control.subscribe(),
                progress: Arc::clone(&progress),
                in_flight: self.in_flight.clone(),
            };
            let (start_sender, start) = oneshot::channel();
            starts.push(start_sender);
            let (opened, report) = (opened_sender.clone(), report_sender.clone());
            std::thread::Builder::new().name(format!("client-{worker}")).spawn(move || {
                // Both receivers outlive the threads, unless the coordinator has already failed.
                let outcome = worker::run(plan, |how| drop(opened.send(how)), start);
                let _ = report.send(outcome);
            })?;
        }
        drop((opened_sender, report_sender));
        let opened: Vec<Opened> = opened.iter().collect_exactly(shares.len(), &reports)?;
        if stop.is_stopped() {
            return Err(ClientError::Stopped);
        }
        let connections = self.connections_opened(opened)?;
        let start_ns = self.start_ns(&clock, unix_origin_ns);
        let (mut collector, recorders) = Collector::new(shares.len(), start_ns);
        observer.started();
        for (start, recorder) in starts.into_iter().zip(recorders) {
            // A worker that is gone shows as a missing report.
            let _ = start.send(Start { start_ns, recorder });
        }
        let reports = self.await_reports(
            &reports,
            shares.len(),
            &clock,
            start_ns,
            &mut collector,
            observer,
            &progress,
        )?;
        let ended_ns = reports.iter().map(|report| report.ended_ns).max().unwrap_or(start_ns);
        let offered_ns = ended_ns.saturating_sub(start_ns - nanos(self.workload.ramp));
        if offered_ns == 0 {
            return Err(ClientError::Stopped);
        }
        let held_ns = ended_ns.saturating_sub(start_ns).min(nanos(self.workload.duration));
        let offered_for = Duration::from_nanos(held_ns);
        let (total, windows) = collector.finish();
        let summed = Summed::of(&self.workload, reports, offered_ns, offered_for, connections);
        Ok(LoadMeasurement {
            run_id,
            started_at_unix_ns: unix_origin_ns + start_ns,
            offered_for,
            stopped: stop.is_stopped(),
            messages: summed.messages,
            achieved: summed.achieved,
            moments: summed.moments,
            total,
            windows,
            connections: summed.connections,
            per_connection: summed.per_connection,
            outages: summed.outages,
            outages_not_listed: summed.outages_not_listed,
            blocked_sends: summed.blocked_sends,
            busiest_worker_cores: summed.busiest_worker_cores,
        })
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
        let mut setup = LatencyHistogram::default();
        let mut failures = Vec::new();
        for worker in opened {
            counts.established += worker.established;
            setup.add(&worker.setup);
            failures.extend(worker.failures);
        }
        failures.sort_by_key(|(index, _)| *index);
        counts.refused = failures.len() as u64;
        for (_, failure) in &failures {
            count_reason(&mut counts.reasons, failure.to_string(), 1);
        }
        if counts.established == 0 {
            let failed = counts.refused;
            return match failures.into_iter().next() {
                Some((_, first)) => Err(ClientError::Unreachable { failed, first }),
                None => Err(ClientError::Stopped),
            };
        }
        counts.setup_us = (!setup.is_empty()).then(|| LatencyMeasurement::of(&setup, 0));
        Ok(counts)
    }

    /// When the rate is reached, on the run's clock.
    fn start_ns(&self, clock: &MonotonicClock, unix_origin_ns: u64) -> u64 {
        let soonest_ns = clock.now_ns() + START_DELAY.as_nanos() as u64;
        let origin_ns = match self.start_at_unix_ns {
            Some(wanted) => wanted.saturating_sub(unix_origin_ns).max(soonest_ns),
            None => soonest_ns,
        };
        origin_ns + nanos(self.workload.ramp)
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one loop over what `run` has at hand; a struct would only rename it"
    )]
    fn await_reports(
        &self,
        reports: &mpsc::Receiver<io::Result<Option<WorkerReport>>>,
        workers: usize,
        clock: &MonotonicClock,
        start_ns: u64,
        collector: &mut Collector,
        observer: &mut dyn Observer,
        progress: &Progress,
    ) -> Result<Vec<WorkerReport>, ClientError> {
        let ramp = self.workload.ramp;
        let origin_ns = start_ns - nanos(ramp);
        let duration = self.workload.duration.saturating_add(ramp.saturating_mul(2));
        let mut received = Vec::with_capacity(workers);
        while received.len() < workers {
            match reports.recv_timeout(COLLECT_EVERY) {
                Ok(report) => received.extend(report?),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ClientError::Worker(io::Error::other("it ended without a report")));
                }
            }
            let now_ns = clock.now_ns();
            collector.collect(now_ns.saturating_sub(start_ns + SETTLE_NS) / 1_000_000_000);
            let elapsed = Duration::from_nanos(now_ns.saturating_sub(origin_ns));
            observer.progress(&LoadProgress {
                elapsed,
                left: duration.saturating_sub(elapsed),
                answered: progress.answered.load(Ordering::Relaxed),
                window: collector.latest().cloned(),
            });
        }
        Ok(received)
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

/// The reports of all workers in one.
struct Summed {
    messages: MessageCounts,
    achieved: u64,
    moments: Moments,
    connections: ConnectionCounts,
    per_connection: Vec<ConnectionSummary>,
    outages: Vec<Outage>,
    outages_not_listed: u64,
    blocked_sends: BlockedSends,
    busiest_worker_cores: Option<f64>,
}

impl Summed {
    fn of(
        workload: &Workload,
        reports: Vec<WorkerReport>,
        offered_ns: u64,
        offered_for: Duration,
        connections: ConnectionCounts,
    ) -> Self {
        let cores = |cpu_s: f64| cpu_s / offered_for.as_secs_f64().max(1e-9);
        let busiest_worker_cores =
            reports.iter().filter_map(|report| report.cpu_s).map(cores).max_by(f64::total_cmp);
        let mut summed = Self {
            messages: MessageCounts::default(),
            achieved: reports.iter().map(|report| report.achieved).sum(),
            moments: reports.iter().fold(Moments::default(), |all, report| all.with(report.moments)),
            connections,
            per_connection: Vec::new(),
            outages: Vec::new(),
            outages_not_listed: 0,
            blocked_sends: BlockedSends::default(),
            busiest_worker_cores,
        };
        let mut by_index: BTreeMap<u32, ConnectionReport> = BTreeMap::new();
        for report in reports {
            by_index.extend(report.connections.into_iter().map(|connection| (connection.index, connection)));
            summed.add_outages(report.outages);
        }
        summed.outages_not_listed += Outage::keep_first(&mut summed.outages);
        for index in workload.shard_connections() {
            match by_index.remove(&index) {
                Some(report) => summed.add(report),
                None => summed.add_unopened(workload, index, offered_ns),
            }
        }
        summed
    }

    fn add_outages(&mut self, log: OutageLog) {
        self.outages.extend(log.kept);
        self.outages_not_listed += log.more;
        for (reason, count) in log.reasons {
            count_reason(&mut self.connections.reasons, reason, count);
        }
    }

    fn add(&mut self, report: ConnectionReport) {
        let counts = *report.ledger.counts();
        self.messages.due += report.due;
        self.messages.unsent += report.due - counts.sent;
        self.messages.untimed_due += report.untimed.due;
        self.messages.untimed_answered += report.untimed.answered;
        self.messages.counts.add(&counts);
        self.messages.reorder_distance_max =
            self.messages.reorder_distance_max.max(report.ledger.reorder_distance_max());
        let room = MISSING_KEPT - self.messages.missing_ids.len();
        let missing = report.ledger.missing().iter().take(room);
        self.messages.missing_ids.extend(missing.map(|sequence| format!("{}-{sequence}", report.client_id)));
        self.blocked_sends.messages += report.blocked.messages;
        self.blocked_sends.max_us = self.blocked_sends.max_us.max(report.blocked.max_ns as f64 / 1e3);
        self.blocked_sends.connection_s += report.blocked.total_ns as f64 / 1e9;
        self.connections.reconnects += report.reconnects;
        if let Some(end) = report.end {
            if end.refused {
                self.connections.refused += 1;
                self.connections.established -= 1;
            } else {
                self.connections.dropped += 1;
            }
            count_reason(&mut self.connections.reasons, end.reason, 1);
        }
        let timed = report.due.max(counts.answered) - report.untimed.due;
        self.per_connection.push(ConnectionSummary {
            connection: report.index,
            due: report.due,
            counts,
            achieved: report.achieved,
            latency_p95_at_most_us: p95_at_most_us(&report.coarse, timed),
        });
    }

    /// A connection that was never open: what was due on it is unsent.
    fn add_unopened(&mut self, workload: &Workload, index: u32, offered_ns: u64) {
        let mut due = 0;
        if let Some(schedule) = workload.schedule() {
            let held_ns = schedule.held_ns();
            let mut due_times = schedule.due_times(index);
            due_times.truncate(offered_ns);
            for due_ns in due_times {
                due += 1;
                self.messages.untimed_due += u64::from(!held_ns.contains(&due_ns));
            }
        }
        self.messages.due += due;
        self.messages.unsent += due;
        self.per_connection.push(ConnectionSummary {
            connection: index,
            due,
            counts: Counts::default(),
            achieved: 0,
            latency_p95_at_most_us: None,
        });
    }
}

/// The upper bound of the bucket that holds the 95th percentile of `due` messages, the unanswered ones above all.
fn p95_at_most_us(coarse: &crate::record::CoarseHistogram, due: u64) -> Option<f64> {
    let rank = (0.95 * due as f64 - 1e-9).ceil() as u64;
    let mut below = 0;
    for (upper_ns, count) in coarse.buckets() {
        below += u64::from(count);
        if below >= rank.max(1) {
            return upper_ns.map(|ns| ns as f64 / 1e3);
        }
    }
    None
}

/// Eight hex digits that no other run has, for all that matters.
fn run_id(unix_ns: u64) -> String {
    format!("{:08x}", mix(unix_ns, u64::from(std::process::id())) as u32)
}
