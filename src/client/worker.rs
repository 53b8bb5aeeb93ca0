//! One worker: a thread's worth of connections, and the pacer that wakes them when messages are due.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{oneshot, watch};

use super::account::{Account, Pace, Parts};
use super::connect::{Connect, ConnectError};
use super::dial::{Dialed, Dialer, Setup, Socket};
use super::in_flight::InFlight;
use super::keeper::{Keeper, Retry};
use super::outages::OutageLog;
use super::report::ConnectionReport;
use super::shared::{Phase, Shared, Slot};
use crate::clock::{Clock, thread_cpu};
use crate::dialect::{Dialect, Identity};
use crate::pacer::{Lead, PacerKind, Sleeper};
use crate::record::{LatencyHistogram, Recorder};
use crate::result::{Moments, Unmatched};
use crate::schedule::{Timeline, mix};
use crate::workload::Workload;

/// Handshakes under way at once, a worker: enough to fill the time until the server answers, too few to overflow its
/// backlog of connections.
const HANDSHAKES_AT_ONCE: usize = 32;
/// How often a worker looks after what no message wakes it for: time-outs, windows, progress.
const HOUSEKEEPING_NS: u64 = 50_000_000;
/// A time-out is noticed at most this late, a twentieth of its length where that is less.
const MAX_EXPIRE_STEP_NS: u64 = 1_000_000_000;
/// After the last answer, stragglers (second answers, above all) are awaited for so long.
const LINGER_NS: u64 = 100_000_000;
/// Sets the random delays of reconnects apart from everything else that the seed decides.
const BACKOFF_STREAM: u64 = 0x6261_636b_6f66_6621;
/// Who spins does so from so long before a message is due: about twice as long as a timer may be late.
const SPIN_BUDGET_NS: u64 = 200_000;
/// Who spins for answers gives up after so long without one, and sleeps.
const ANSWER_SPIN_BUDGET_NS: u64 = 1_000_000;
/// How long connections get to send their close frames.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the coordinator tells all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    /// Go on.
    Run,
    /// End the load now, and drain.
    Stop,
    /// End everything now.
    Abort,
}

impl Control {
    fn is_end(&self) -> bool {
        *self != Self::Run
    }
}

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

/// Progress of all workers, for a display.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) answered: AtomicU64,
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
        let ramp_ns = u64::try_from(self.workload.ramp_up.as_nanos()).unwrap_or(u64::MAX);
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
        let answer_timeout_ns = shared.answer_timeout_ns;
        let mut conductor = Conductor {
            sleeper: (self.sleeper)()?,
            timeline: Timeline::new(timeline),
            pacer: self.workload.pacer,
            lead: Lead::default(),
            expire_step_ns: (answer_timeout_ns / 20).clamp(HOUSEKEEPING_NS, MAX_EXPIRE_STEP_NS),
            send_grace_ns: u64::try_from(self.workload.send_grace.as_nanos()).unwrap_or(u64::MAX),
            control: self.control.clone(),
            progress: Arc::clone(&self.progress),
            published: 0,
            cpu_s: None,
            shared: Rc::clone(&shared),
            slots: &slots,
        };
        conductor.conduct().await?;
        let cpu_s = conductor.cpu_s;
        drop(conductor);
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

/// Leads a worker's connections through the load: wakes them when messages are due, ends the load, waits for the
/// answers.
struct Conductor<'a, C> {
    sleeper: Sleeper,
    timeline: Timeline,
    pacer: PacerKind,
    /// By how much the sleeper is told to wake early, since it wakes late.
    lead: Lead,
    /// How often connections are woken to look for messages that timed out.
    expire_step_ns: u64,
    /// After the end of the load, messages that came due before it may still leave for so long.
    send_grace_ns: u64,
    control: watch::Receiver<Control>,
    progress: Arc<Progress>,
    /// How many answers have been added to the progress.
    published: u64,
    /// CPU seconds of this thread during the held part.
    cpu_s: Option<f64>,
    shared: Rc<Shared<C>>,
    slots: &'a [Rc<Slot>],
}

impl<C: Clock> Conductor<'_, C> {
    async fn conduct(&mut self) -> std::io::Result<()> {
        self.sleep_until(self.shared.origin_ns).await?;
        if *self.control.borrow() != Control::Run {
            self.shared.end_early(self.shared.origin_ns);
            return Ok(());
        }
        self.shared.phase.set(Phase::Loading);
        self.shared.tick_ns.set(self.shared.clock.now_ns());
        self.slots.iter().for_each(|slot| slot.wake());
        let start_ns = self.shared.start_ns;
        let held_end_ns = start_ns + self.shared.held_ns.get();
        self.offer_until(start_ns).await?;
        if self.shared.end_ns.get() > start_ns {
            let before = thread_cpu();
            self.offer_until(held_end_ns).await?;
            self.cpu_s = thread_cpu().zip(before).map(|(after, before)| (after - before).as_secs_f64());
        }
        self.offer_until(u64::MAX).await?;
        self.drain().await
    }

    /// Until then, or until the end of the load where that is sooner: wakes whoever has a message due.
    async fn offer_until(&mut self, until_ns: u64) -> std::io::Result<()> {
        let origin_ns = self.shared.origin_ns;
        let mut keep_house_ns = self.shared.clock.now_ns() + HOUSEKEEPING_NS;
        loop {
            let now_ns = self.shared.clock.now_ns();
            self.shared.tick_ns.set(now_ns);
            let slots = self.slots;
            self.timeline.advance(now_ns.saturating_sub(origin_ns), |place| slots[place].wake());
            let end_ns = self.shared.end_ns.get().min(until_ns);
            if now_ns >= end_ns || self.all_reported() {
                return Ok(());
            }
            if now_ns >= keep_house_ns {
                self.keep_house(now_ns);
                keep_house_ns = now_ns + HOUSEKEEPING_NS;
            }
            let due_ns =
                self.timeline.next_due().map_or(u64::MAX, |due_ns| self.pacer.wake_at(origin_ns + due_ns));
            if self.wait_until(due_ns.min(keep_house_ns).min(end_ns)).await? {
                self.end_early();
            }
        }
    }

    /// After the end of the load: what came due is sent, what was sent is awaited.
    async fn drain(&mut self) -> std::io::Result<()> {
        self.shared.phase.set(Phase::Finishing);
        // Closed loops learn by this that they must not refill their windows.
        self.slots.iter().for_each(|slot| slot.wake());
        let grace_ends_ns = self.shared.end_ns.get().saturating_add(self.send_grace_ns);
        let mut quiet_since_ns = None;
        loop {
            let now_ns = self.shared.clock.now_ns();
            self.shared.tick_ns.set(now_ns);
            self.keep_house(now_ns);
            if now_ns >= grace_ends_ns && self.shared.phase.get() < Phase::Draining {
                self.shared.phase.set(Phase::Draining);
                // They know best who may still send.
                self.slots.iter().for_each(|slot| slot.wake());
            }
            // Who is cut off does not look at the time, but is not waited for longer than it may send.
            let backlog = self.shared.may_send(true) && self.slots.iter().any(|slot| slot.backlog.get());
            let quiet = !backlog && self.slots.iter().all(|slot| slot.in_flight.get() == 0);
            if !quiet {
                quiet_since_ns = None;
            } else if now_ns.saturating_sub(*quiet_since_ns.get_or_insert(now_ns)) >= LINGER_NS
                || self.all_reported()
            {
                return Ok(());
            }
            self.wait_until(now_ns + LINGER_NS / 10).await?;
            if *self.control.borrow() == Control::Abort {
                return Ok(());
            }
        }
    }

    /// Waits until then; whether the coordinator wants the load to end, which ends the wait.
    async fn wait_until(&mut self, wake_ns: u64) -> std::io::Result<bool> {
        loop {
            let now_ns = self.shared.clock.now_ns();
            let early_ns = match self.pacer {
                // A clock that a test drives stands still while anybody spins.
                _ if !self.sleeper.is_precise() => 0,
                PacerKind::Spin if self.expects_answers(now_ns) => u64::MAX,
                PacerKind::Spin => SPIN_BUDGET_NS,
                PacerKind::Timer | PacerKind::Coalesce(_) => self.lead.span_ns(),
            };
            let span_ns = wake_ns.saturating_sub(now_ns);
            if let Some(sleep_ns) = span_ns.checked_sub(early_ns).filter(|&sleep_ns| sleep_ns > 0) {
                tokio::select! {
                    biased;
                    slept = self.sleeper.sleep(sleep_ns) => slept?,
                    // The sender lives as long as the coordinator; without one there is nobody to report to.
                    changed = self.control.changed() => {
                        return Ok(changed.is_err() || *self.control.borrow() != Control::Run);
                    }
                }
                self.lead.woke(self.shared.clock.now_ns().saturating_sub(now_ns + sleep_ns));
            } else {
                // The answers are looked after meanwhile.
                tokio::task::yield_now().await;
                if *self.control.borrow() != Control::Run {
                    return Ok(true);
                }
            }
            if self.shared.clock.now_ns() >= wake_ns {
                return Ok(false);
            }
        }
    }

    /// Whether it is answers and not the schedule that the next messages wait for: in a closed loop, as long as they come.
    fn expects_answers(&self, now_ns: u64) -> bool {
        let last_ns = self.shared.last_answer_ns.get().unwrap_or(self.shared.start_ns);
        self.timeline.next_due().is_none() && now_ns.saturating_sub(last_ns) < ANSWER_SPIN_BUDGET_NS
    }

    async fn sleep_until(&mut self, wake_ns: u64) -> std::io::Result<()> {
        while self.shared.clock.now_ns() < wake_ns && *self.control.borrow() == Control::Run {
            self.wait_until(wake_ns).await?;
        }
        Ok(())
    }

    /// The load ends now: nothing comes due any more.
    fn end_early(&mut self) {
        // What was due up to the last tick may have left.
        let now_ns = self.shared.clock.now_ns().max(self.shared.tick_ns.get() + 1);
        if now_ns < self.shared.end_ns.get() {
            self.shared.end_early(now_ns);
            self.timeline.truncate(now_ns - self.shared.origin_ns);
        }
    }

    fn keep_house(&mut self, now_ns: u64) {
        self.shared.recorder.borrow_mut().window_at(now_ns);
        let expire_ns = now_ns.saturating_sub(self.shared.answer_timeout_ns);
        if expire_ns >= self.shared.expire_ns.get() + self.expire_step_ns {
            self.shared.expire_ns.set(expire_ns);
            self.slots.iter().filter(|slot| slot.in_flight.get() > 0).for_each(|slot| slot.wake());
        }
        let answered = self.shared.answered.get();
        self.progress.answered.fetch_add(answered - self.published, Ordering::Relaxed);
        self.published = answered;
    }

    fn all_reported(&self) -> bool {
        self.slots.iter().all(|slot| slot.reported())
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
