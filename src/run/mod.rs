//! One load from start to result: start or reach the target, offer the load, gather what both sides say.

mod access;
pub mod control;
mod guard;
mod host;
mod keys;
pub mod plan;
mod probe;
mod restart;
pub mod scene;
mod server_process;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use thiserror::Error;

use crate::client::{
    Access, ClientError, ConnectError, HighVolumeThroughputClient, InFlight, LoadMeasurement, LoadProgress,
    Observer, Place, Stop, TcpConnect,
};
use crate::clock::unix_now_ns;
use crate::dialect::{Dialect, DialectError, DialectKind, DialectSettings, Floodline, RequestKind};
use crate::environment::Environment;
use crate::limits::{LimitError, ensure_open_files};
use crate::message::Priority;
use crate::result::calibration::Calibration;
use crate::result::{
    Cost, FanOut, Histograms, LoadTestResults, RUN_SCHEMA, Resources, ThroughputMetrics, TlsSummary, Verdict,
    WorkloadSummary,
};
use crate::sampler::{DEFAULT_PERIOD, ProcessProbe, Sample, SampleSeries, Sampler, SamplerError};
use crate::workload::{Target, Workload, WorkloadError};

pub use access::{AccessError, access};
pub use guard::GuardError;
pub use restart::Restart;
pub use server_process::{Listening, ServerCommand, ServerProcess, ServerProcessError};

/// File descriptors beside those of the connections: standard streams, timers, polls, sampling, and room.
pub(crate) const SPARE_FILES: u64 = 64;

/// Whom the load goes to.
#[derive(Debug, Clone)]
pub enum Peer {
    /// A server that is there.
    At {
        /// Its URL.
        target: Target,
        /// Its process, where it runs on this machine: its CPU and memory are then measured.
        pid: Option<u32>,
    },
    /// A server of our own, started for this load and stopped after it.
    Own(ServerCommand),
}

/// One load to run.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// What is offered.
    pub workload: Workload,
    /// To whom.
    pub peer: Peer,
    /// In which dialect.
    pub dialect: DialectKind,
    /// What that dialect needs to be told.
    pub dialect_settings: Arc<DialectSettings>,
    /// Which request is sent, in the dialect `floodline`.
    pub request: RequestKind,
    /// With which priority, in the dialect `floodline`; `None` names none.
    pub priority: Option<Priority>,
    /// How the target is reached: whom it trusts, what the handshake carries.
    pub access: Access,
    /// Worker threads; `None` for one every two cores.
    pub workers: Option<usize>,
    /// Start together with other shards at this time of the wall clock.
    pub start_at_unix_ns: Option<u64>,
    /// Start together with other loads of this process, when all are ready.
    pub together: Option<Arc<Place>>,
    /// Where to connect in place of the target's own address: to a proxy in front of it.
    pub via: Option<SocketAddr>,
    /// Counts what is in flight, together with the loads that share it.
    pub in_flight: Option<Arc<InFlight>>,
    /// The id of the server's process, where it may be another's in the middle of the load; 0 while there is none.
    pub server_pid_now: Option<Arc<AtomicU32>>,
    /// What the generator can do, where that is known.
    pub calibration: Option<Box<Calibration>>,
}

impl LoadPlan {
    /// A load of `workload` on `peer`; everything else as it is where nothing is said.
    #[must_use]
    pub fn new(workload: Workload, peer: Peer) -> Self {
        Self {
            workload,
            peer,
            dialect: DialectKind::default(),
            dialect_settings: Arc::default(),
            request: RequestKind::default(),
            priority: None,
            access: Access::default(),
            workers: None,
            start_at_unix_ns: None,
            together: None,
            via: None,
            in_flight: None,
            server_pid_now: None,
            calibration: None,
        }
    }
}

/// A load could not be run.
#[derive(Debug, Error)]
pub enum RunError {
    /// The workload makes no sense.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The dialect cannot carry it.
    #[error(transparent)]
    Dialect(#[from] DialectError),
    /// Not enough file descriptors.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The target cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The client could not offer the load.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Our own server did not start.
    #[error(transparent)]
    Server(#[from] ServerProcessError),
    /// The resources cannot be watched.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
}

impl RunError {
    /// Whether the target cannot be reached or refuses the handshake, which is not for us to mend.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Connect(cause) | Self::Client(ClientError::Unreachable { first: cause, .. }) => {
                !cause.is_ours()
            }
            _ => false,
        }
    }
}

/// Runs one load. The verdict of the result is `pass` until somebody judges it.
///
/// # Errors
/// Where the load cannot be offered at all; what goes wrong during the load is part of the result.
pub fn run_load(
    plan: &LoadPlan,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Result<LoadTestResults, RunError> {
    let workload = plan.workload.clone().validated()?;
    ensure_open_files(workload.shard_connections().count() as u64 + SPARE_FILES)?;
    match &plan.peer {
        Peer::At { target, pid } => {
            let mut results = reach(plan, workload, target, *pid, stop, observer)?;
            results.workload.target = Some(target.to_string());
            Ok(results)
        }
        Peer::Own(command) => {
            let server = ServerProcess::start(command)?;
            reach(plan, workload, server.target(), Some(server.pid()), stop, observer)
        }
    }
}

fn reach(
    plan: &LoadPlan,
    workload: Workload,
    target: &Target,
    server_pid: Option<u32>,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Result<LoadTestResults, RunError> {
    let target = match plan.dialect.default_path() {
        Some(path) => target.clone().or_path(path),
        None => target.clone(),
    };
    let connect = match plan.via {
        Some(address) => TcpConnect::via(address, target.clone(), plan.access.clone())?,
        None => TcpConnect::new(target.clone(), plan.access.clone())?,
    };
    let tls = target.tls().then(|| tls_summary(&plan.access));
    let (seed, payload_bytes) = (workload.seed, workload.payload_bytes);
    let mut results = match plan.dialect {
        DialectKind::Floodline => {
            let dialect = Floodline::new(seed, payload_bytes, plan.request, plan.priority);
            offer(plan, workload, connect, dialect, server_pid, stop, observer)
        }
        other => {
            let dialect = plan.dialect_settings.dialect(other, seed, payload_bytes)?;
            offer(plan, workload, connect, dialect, server_pid, stop, observer)
        }
    }?;
    results.workload.tls = tls;
    Ok(results)
}

fn tls_summary(access: &Access) -> TlsSummary {
    let tls = &access.tls;
    TlsSummary {
        verified: !tls.insecure,
        client_certificate: tls.identity.is_some(),
        server_name: tls.server_name.clone(),
    }
}

fn offer<D: Dialect>(
    plan: &LoadPlan,
    workload: Workload,
    connect: TcpConnect,
    dialect: D,
    server_pid: Option<u32>,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Result<LoadTestResults, RunError>
where
    D::Session: Unpin,
{
    let summary = summary_of(plan, &workload);
    let (shard, connections) = (workload.shard, workload.connections);
    let spoken = dialect.clone();
    let mut client = HighVolumeThroughputClient::new(workload, connect, dialect);
    if let Some(workers) = plan.workers {
        client = client.workers(workers);
    }
    if let Some(at) = plan.start_at_unix_ns {
        client = client.start_at_unix_ns(at);
    }
    if let Some(place) = &plan.together {
        client = client.together(Arc::clone(place));
    }
    if let Some(in_flight) = &plan.in_flight {
        client = client.in_flight(Arc::clone(in_flight));
    }
    let server_pid_now = plan.server_pid_now.clone();
    let mut watched = Watched { observer, server_pid, server_pid_now, sampler: None, since_unix_ns: 0 };
    let before = [Some(std::process::id()), server_pid].map(|pid| pid.and_then(resident_bytes));
    let measured = client.run(stop, &mut watched);
    let mut series = watched.sampler.take().transpose()?.map(Sampler::stop).unwrap_or_default();
    let measured = measured?;
    // Sampling begins when the connections are open, the load's own time later: after a wait for others, and a ramp.
    let before_s = (measured.started_at_unix_ns as f64 - watched.since_unix_ns as f64) / 1e9;
    series.samples.iter_mut().for_each(|sample| sample.t_s -= before_s);
    let mut results = gather(summary, shard, measured, series);
    cost_of_connections(&mut results, before);
    results.calibration.clone_from(&plan.calibration);
    results.fan_out = spoken.fan_out().map(|counts| {
        let per_connection = results.per_connection.iter();
        let copies = per_connection.map(|sender| {
            let first = sender.connection / counts.subscribers * counts.subscribers;
            let group = counts.subscribers.min(connections.saturating_sub(first));
            sender.counts.sent * u64::from(group)
        });
        FanOut::new(counts.subscribers, copies.sum(), counts.received, counts.repeated, &counts.skew)
    });
    Ok(results)
}

fn resident_bytes(pid: u32) -> Option<u64> {
    ProcessProbe::open(pid)?.read()?.rss_bytes
}

/// What the connections took, where `before` them the client and the server were as large as it says.
fn cost_of_connections(results: &mut LoadTestResults, before: [Option<u64>; 2]) {
    let established = results.connections.established;
    let each = |before: Option<u64>, most: Option<u64>| {
        let grown = most?.saturating_sub(before?);
        (established > 0).then(|| grown as f64 / established as f64)
    };
    let [client, server] = before;
    // Behind the load its result is put together, which takes memory, too.
    let under_load = |sample: &&Sample| sample.t_s <= results.offered_for_s;
    let samples: Vec<&Sample> = results.resources.samples.iter().filter(under_load).collect();
    let most_of_client = samples.iter().filter_map(|sample| sample.client.rss_bytes).max();
    let most_of_server = samples.iter().filter_map(|sample| sample.server?.rss_bytes).max();
    results.cost.client_bytes_per_connection = each(client, most_of_client);
    results.cost.server_bytes_per_connection = each(server, most_of_server);
}

/// Watches the resources from the moment the load starts.
struct Watched<'a> {
    observer: &'a mut dyn Observer,
    server_pid: Option<u32>,
    server_pid_now: Option<Arc<AtomicU32>>,
    sampler: Option<Result<Sampler, SamplerError>>,
    /// When sampling began.
    since_unix_ns: u64,
}

impl Observer for Watched<'_> {
    fn started(&mut self) {
        self.since_unix_ns = unix_now_ns();
        self.sampler = Some(Sampler::start(std::process::id(), self.server_pid, DEFAULT_PERIOD));
        self.observer.started();
    }

    fn progress(&mut self, progress: &LoadProgress) {
        let now = self.server_pid_now.as_ref().map(|pid| pid.load(Ordering::Acquire)).filter(|&pid| pid > 0);
        if now.is_some() && now != self.server_pid {
            self.server_pid = now;
            if let Some(Ok(sampler)) = &self.sampler {
                sampler.set_server_pid(now);
            }
        }
        self.observer.progress(progress);
    }
}

fn summary_of(plan: &LoadPlan, workload: &Workload) -> WorkloadSummary {
    let floodline = plan.dialect == DialectKind::Floodline;
    WorkloadSummary {
        target: None,
        tls: None,
        dialect: plan.dialect.name().to_owned(),
        rate: workload.offered.rate().map(|rate| rate.as_per_second()),
        connections: workload.connections,
        duration_s: workload.duration.as_secs_f64(),
        ramp_s: workload.ramp.as_secs_f64(),
        payload_bytes: workload.payload_bytes,
        request: floodline.then(|| plan.request.name().to_owned()),
        priority: plan.priority.filter(|_| floodline).map(|priority| priority.as_str().to_owned()),
        arrival: workload.arrival.to_string(),
        window: workload.window,
        seed: workload.seed,
        pacer: workload.pacer.to_string(),
    }
}

fn gather(
    workload: WorkloadSummary,
    shard: crate::workload::Shard,
    measured: LoadMeasurement,
    series: SampleSeries,
) -> LoadTestResults {
    let timed_due = measured.messages.due - measured.messages.untimed_due;
    let per_second =
        |messages: u64| messages as f64 / measured.offered_for.max(Duration::from_nanos(1)).as_secs_f64();
    let summary = series.summary;
    let answered = measured.messages.counts.answered;
    let per_message =
        |cpu_s: Option<f64>| cpu_s.filter(|_| answered > 0).map(|cpu_s| cpu_s * 1e6 / answered as f64);
    let mut results = LoadTestResults {
        schema: RUN_SCHEMA.to_owned(),
        verdict: Verdict::Pass,
        reasons: Vec::new(),
        interrupted: measured.stopped,
        run_id: measured.run_id,
        shard,
        started_at_unix_ns: measured.started_at_unix_ns,
        offered_for_s: measured.offered_for.as_secs_f64(),
        throughput: ThroughputMetrics {
            offered_rate: workload
                .rate
                .filter(|_| !measured.offered_for.is_zero())
                .map(|_| per_second(timed_due)),
            achieved_rate: per_second(measured.achieved),
        },
        workload,
        cost: Cost {
            client_cpu_us_per_message: per_message(summary.client.cpu_s),
            server_cpu_us_per_message: per_message(summary.server.as_ref().and_then(|server| server.cpu_s)),
            ..Cost::default()
        },
        moments: measured.moments,
        messages: measured.messages,
        fan_out: None,
        latency_us: None,
        service_latency_us: None,
        send_lateness_us: None,
        refusal_latency_us: None,
        blocked_sends: measured.blocked_sends,
        histograms: Histograms {
            latency: measured.total.latency,
            service_latency: measured.total.service_latency,
            send_lateness: measured.total.send_lateness,
            refusal_latency: measured.total.refusal_latency,
        },
        windows: measured.windows,
        connections: measured.connections,
        per_connection: measured.per_connection,
        outages: measured.outages,
        outages_not_listed: measured.outages_not_listed,
        unmatched: measured.unmatched,
        resources: Resources {
            client: Some(summary.client),
            server: summary.server,
            foreign_cpu_cores: summary.foreign_cpu_cores,
            stolen_cpu_cores: summary.stolen_cpu_cores,
            busiest_worker_cores: measured.busiest_worker_cores,
            samples: series.samples,
        },
        criteria: Vec::new(),
        calibration: None,
        environment: Environment::detect(),
    };
    results.measure();
    results
}
