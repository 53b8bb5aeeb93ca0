//! One worker: a thread's worth of connections, from their handshakes to their reports.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{oneshot, watch};

use super::account::{Account, Pace, Parts};
use super::conductor::{Conductor, Control, Progress};
use super::connect::{Connect, ConnectError};
use super::dial::{Dialed, Dialer, Setup, Socket};
use super::in_flight::InFlight;
use super::keeper::{Keeper, Retry};
use super::outages::OutageLog;
use super::report::ConnectionReport;
use super::shared::{Phase, Shared, Slot, nanos};
use crate::clock::Clock;
use crate::dialect::{Dialect, Identity};
use crate::pacer::Sleeper;
use crate::record::{LatencyHistogram, Recorder};
use crate::result::{Moments, Unmatched};
use crate::schedule::{Timeline, mix};
use crate::workload::Workload;

/// Handshakes under way at once, a worker: enough to fill the time until the server answers, too few to overflow its
/// backlog of connections.
const HANDSHAKES_AT_ONCE: usize = 32;
/// Sets the random delays of reconnects apart from everything else that the seed decides.
const BACKOFF_STREAM: u64 = 0x6261_636b_6f66_6621;
/// How long connections get to send their close frames.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a worker needs to start the load, given to all at once.
pub(super) struct Start {
    /// When the held part begins; a ramp comes before it.
    pub(super) start_ns: u64,
    pub(super) recorder: Recorder,
}

/// How a worker's connections came about.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub(super) established: u64,
    pub(super) failures: Vec<(u32, ConnectError)>,
    pub(super) setup: SetupTimes,
    /// When it began, and when the last was open or had failed, on the run's clock.
    pub(super) begun_ns: u64,
    pub(super) ended_ns: u64,
}

/// How long connections took to be opened, and what of it.
#[derive(Debug, Default)]
pub(super) struct SetupTimes {
    pub(super) total: LatencyHistogram,
    pub(super) connect: LatencyHistogram,
    pub(super) tls: LatencyHistogram,
    pub(super) upgrade: LatencyHistogram,
}

impl SetupTimes {
    fn record(&mut self, setup: Setup) {
        self.total.record(setup.total_ns);
        self.connect.record(setup.connect_ns);
        setup.tls_ns.into_iter().for_each(|tls_ns| self.tls.record(tls_ns));
        self.upgrade.record(setup.upgrade_ns);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.total.add(&other.total);
        self.connect.add(&other.connect);
        self.tls.add(&other.tls);
        self.upgrade.add(&other.upgrade);
    }
}

/// What a worker found.
#[derive(Debug)]
pub(super) struct WorkerReport {
    pub(super) connections: Vec<ConnectionReport>,
    pub(super) outages: OutageLog,
    pub(super) unmatched: Vec<Unmatched>,
    pub(super) achieved: u64,
    pub(super) moments: Moments,
    /// When load really ended, on the run's clock.
    pub(super) ended_ns: u64,
    /// CPU seconds of this worker's thread during the held part of the load; `None` where it never began, or where the
    /// system cannot tell.
    pub(super) cpu_s: Option<f64>,
}

/// A worker's share of the load.
pub(super) struct Plan<K, D, C> {
    pub(super) workload: Workload,
    pub(super) connections: Vec<u32>,
    pub(super) run_id: String,
    pub(super) connect: K,
    pub(super) dialect: D,
    pub(super) clock: C,
    /// Makes what the worker sleeps by, which must follow the same clock.
    pub(super) sleeper: fn() -> std::io::Result<Sleeper>,
    /// What the wall clock says when the run's clock says 0.
    pub(super) unix_origin_ns: u64,
    pub(super) control: watch::Receiver<Control>,
    pub(super) progress: Arc<Progress>,
    pub(super) in_flight: Option<Arc<InFlight>>,
}

/// A connection over which load may be offered.
struct Open<S, D, C> {
    index: u32,
    socket: Socket<S, C>,
    session: D,
    setup: Setup,
}

/// What comes of opening one: it, or which failed and why.
type Handshake<K, D, C> =
    Result<Open<<K as Connect>::Stream, <D as Dialect>::Session, C>, (u32, ConnectError)>;

/// Connections that are open and wait for the load.
pub(super) struct Ready<S, D, C> {
    open: Vec<Open<S, D, C>>,
}

impl<K: Connect, D: Dialect, C: Clock + Unpin> Plan<K, D, C>
where
    D::Session: Unpin,
{
    /// Opens this worker's connections, spread over the ramp-up.
    pub(super) async fn open(&mut self) -> (Ready<K::Stream, D::Session, C>, Opened) {
        let mut opened = Opened::default();
        let mut open = Vec::with_capacity(self.connections.len());
        let begun_ns = self.clock.now_ns();
        opened.begun_ns = begun_ns;
        let ramp_ns = nanos(self.workload.ramp_up);
        let mut under_way = FuturesUnordered::new();
        let mut control = self.control.clone();
        for (place, &index) in self.connections.iter().enumerate() {
            let turn_ns = begun_ns + (ramp_ns as f64 * place as f64 / self.connections.len() as f64) as u64;
            let wait_ns = turn_ns.saturating_sub(self.clock.now_ns());
            let turn = tokio::time::sleep(Duration::from_nanos(wait_ns));
            tokio::pin!(turn);
            // The handshakes under way go on while the next one's turn is awaited.
            let mut waiting = wait_ns > 0;
            while waiting {
                tokio::select! {
                    biased;
                    () = &mut turn => waiting = false,
                    Ok(_) = control.wait_for(Control::is_end) => waiting = false,
                    Some(outcome) = under_way.next() => opened.add(outcome, &mut open),
                }
            }
            if control.borrow_and_update().is_end() {
                break;
            }
            under_way.push(self.handshake(index));
            while under_way.len() >= HANDSHAKES_AT_ONCE
                && let Some(outcome) = next_unless_ended(&mut under_way, &mut control).await
            {
                opened.add(outcome, &mut open);
            }
        }
        while let Some(outcome) = next_unless_ended(&mut under_way, &mut control).await {
            opened.add(outcome, &mut open);
        }
        open.sort_by_key(|connection| connection.index);
        opened.established = open.len() as u64;
        opened.ended_ns = self.clock.now_ns();
        (Ready { open }, opened)
    }

    /// Offers the load on the open connections, and reports when all is over. Must run where `spawn_local` works.
    pub(super) async fn load(
        &mut self,
        ready: Ready<K::Stream, D::Session, C>,
        start: Start,
    ) -> std::io::Result<WorkerReport> {
        let Start { start_ns, recorder } = start;
        let clock = self.clock.clone();
        let shared = Shared::new(clock, self.unix_origin_ns, &self.workload, start_ns, recorder);
        let secrets = self.connect.secrets().and(self.dialect.secrets());
        let shared = Rc::new(Shared { in_flight: self.in_flight.clone(), secrets, ..shared });
        let slots: Vec<Rc<Slot>> = ready.open.iter().map(|_| Rc::default()).collect();
        let mut timeline = Vec::new();
        let mut tasks = Vec::with_capacity(slots.len());
        let schedule = self.workload.schedule();
        let dialer = Rc::new(self.dialer());
        for (Open { index, socket, session, .. }, slot) in ready.open.into_iter().zip(&slots) {
            let identity = self.identity(index);
            let client_id = identity.client_id.clone();
            let pace = match schedule {
                Some(schedule) => {
                    timeline.push(schedule.due_times(index));
                    Pace::Open(schedule.due_times(index))
                }
                None => Pace::Closed { window: self.workload.window },
            };
            let parts = Parts { index, client_id, session, pace, slot: Rc::clone(slot) };
            let account = Account::new(Rc::clone(&shared), parts);
            let retry = self.workload.retry.map(|policy| {
                let seed = mix(self.workload.seed ^ BACKOFF_STREAM, u64::from(index));
                Retry::new(policy, Rc::clone(&dialer), identity, seed)
            });
            let keeper = Keeper::<K, C, D>::new(account, socket, self.workload.ping, retry);
            tasks.push(tokio::task::spawn_local(keeper));
        }
        let conductor = Conductor::new(
            &self.workload,
            Timeline::new(timeline),
            (self.sleeper)()?,
            self.control.clone(),
            Arc::clone(&self.progress),
            Rc::clone(&shared),
            &slots,
        );
        let cpu_s = conductor.conduct().await?;
        self.close(&shared, &slots, tasks).await;
        let mut connections: Vec<ConnectionReport> =
            slots.iter().filter_map(|slot| slot.take_report()).collect();
        connections.iter_mut().for_each(|report| count_rest(report, &shared));
        let (outages, unmatched) = (shared.outages.take(), shared.unmatched.take());
        let (achieved, ended_ns) = (shared.achieved.get(), shared.end_ns.get());
        shared.recorder.borrow_mut().finish();
        let moments = shared.moments();
        Ok(WorkerReport { connections, outages, unmatched, achieved, moments, ended_ns, cpu_s })
    }

    /// Lets every connection hand in its report and say goodbye.
    async fn close(&self, shared: &Shared<C>, slots: &[Rc<Slot>], tasks: Vec<tokio::task::JoinHandle<()>>) {
        shared.phase.set(Phase::Closing);
        slots.iter().for_each(|slot| slot.wake());
        let aborts: Vec<_> = tasks.iter().map(tokio::task::JoinHandle::abort_handle).collect();
        let all = async {
            for task in tasks {
                // A task that panicked has no report; its connection's messages then show as unsent.
                let _ = task.await;
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, all).await.is_err() {
            // It is goodbyes that are not waited for; a machine that stood still must not cost a report.
            while slots.iter().zip(&aborts).any(|(slot, task)| !slot.reported() && !task.is_finished()) {
                tokio::task::yield_now().await;
            }
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
            // An aborted task is dropped when the scheduler next gets to it.
            tokio::task::yield_now().await;
        }
    }

    /// Opens connection `index`.
    fn handshake(&self, index: u32) -> impl Future<Output = Handshake<K, D, C>> + use<K, D, C> {
        let dialing = self.dialer().dial(self.identity(index));
        async move {
            match dialing.await {
                Ok(Dialed { socket, session, setup }) => Ok(Open { index, socket, session, setup }),
                Err(error) => Err((index, error)),
            }
        }
    }

    /// Who connection `index` is.
    fn identity(&self, index: u32) -> Identity {
        let client_id = format!("{}-{}-{index}", self.run_id, self.workload.shard.index);
        Identity { client_id, connection: index }
    }

    fn dialer(&self) -> Dialer<K, D, C> {
        let limit = self.workload.connect_timeout;
        let (connect, dialect) = (self.connect.clone(), self.dialect.clone());
        Dialer { connect, dialect, clock: self.clock.clone(), limit }
    }
}

/// The next to be ready; none where none is left, or the load was ended: then nobody waits for a slow handshake.
async fn next_unless_ended<F: Future>(
    under_way: &mut FuturesUnordered<F>,
    control: &mut watch::Receiver<Control>,
) -> Option<F::Output> {
    tokio::select! {
        // Not at random, so that a simulation goes the same way again.
        biased;
        outcome = under_way.next() => outcome,
        Ok(_) = control.wait_for(Control::is_end) => None,
    }
}

impl Opened {
    fn add<S, D, C>(
        &mut self,
        outcome: Result<Open<S, D, C>, (u32, ConnectError)>,
        open: &mut Vec<Open<S, D, C>>,
    ) {
        match outcome {
            Ok(connection) => {
                self.setup.record(connection.setup);
                open.push(connection);
            }
            Err(failure) => self.failures.push(failure),
        }
    }
}

/// Runs a worker on this thread: opens, tells how that went, waits for the start, offers the load.
pub(super) fn run<K: Connect, D: Dialect, C: Clock + Unpin>(
    mut plan: Plan<K, D, C>,
    opened: impl FnOnce(Opened),
    start: oneshot::Receiver<Start>,
) -> std::io::Result<Option<WorkerReport>>
where
    D::Session: Unpin,
{
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async {
        let (ready, outcome) = plan.open().await;
        opened(outcome);
        match start.await {
            Ok(start) => plan.load(ready, start).await.map(Some),
            // The coordinator gave up: no connection anywhere.
            Err(_) => Ok(None),
        }
    })
}

/// Adds what a connection's schedule held when it ended, up to the end of the load.
fn count_rest<C: Clock>(report: &mut ConnectionReport, shared: &Shared<C>) {
    let Some(mut rest) = report.rest.take() else { return };
    rest.truncate(shared.end_ns.get() - shared.origin_ns);
    // The instants before the held part, in it, and after it; nothing is due at 0 where there is a ramp before it.
    let start_ns = shared.start_ns - shared.origin_ns;
    let held_end_ns = start_ns + shared.held_ns.get();
    let mut before = |end_ns: u64| end_ns.checked_sub(1).map_or(0, |last_ns| rest.pass(last_ns, u64::MAX));
    let [rising, held, falling] = [start_ns, held_end_ns, u64::MAX].map(&mut before);
    report.due += rising + held + falling;
    report.untimed.due += rising + falling;
}
