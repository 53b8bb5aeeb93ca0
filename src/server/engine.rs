//! Processing that takes time: the queue, the requests in work, and the timer that completes them.
//!
//! All workers share one engine. A request takes a slot, or waits for one; after exactly the processing delay it is
//! done, and goes to the outbox of the connection that is to have its answer, which wakes that connection's task.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::task::AtomicWaker;
use tokio::sync::{Notify, watch};

use super::config::ServerConfig;
use super::fault::Planted;
use super::idempotency::{ProcessedIds, RecordError, Recorded, Recording};
use super::queue::PriorityQueue;
use super::stats::Counters;
use crate::clock::{Clock, MonotonicClock, unix_now_ns};
use crate::message::{Priority, WallTime};
use crate::pacer::Sleeper;

/// A request that was admitted.
#[derive(Debug)]
pub(super) struct Job {
    /// The request as it came; it is read again for its answer.
    pub(super) text: Box<str>,
    /// The id to process once, where the request is a `user_message`.
    pub(super) once_id: Option<Arc<str>>,
    pub(super) priority: Priority,
    /// The server's clock when the request was read.
    pub(super) received_at: WallTime,
    /// Who gets the answer (the latest sender, where `once_id` was sent again).
    pub(super) outbox: Arc<Outbox>,
}

/// A request that was processed and waits for its answer to be written.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) text: Box<str>,
    pub(super) received_at: WallTime,
    /// Whether it counts as processed; else its id could not be recorded.
    pub(super) recorded: bool,
}

/// A request whose processing is over, and whose id is being recorded or stands behind one that is.
struct Committing {
    job: Job,
    recording: Recording,
}

/// Where a connection finds the requests of it that were processed.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    done: Mutex<Vec<Done>>,
    /// Wakes the connection's task.
    pub(super) waker: AtomicWaker,
    /// Requests admitted whose answers this connection will get and has not got.
    in_flight: AtomicUsize,
    /// The connection is gone: its answers go nowhere.
    closed: AtomicBool,
}

impl Outbox {
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Takes out what is done.
    pub(super) fn take(&self) -> Vec<Done> {
        let done = std::mem::take(&mut *self.done());
        self.in_flight.fetch_sub(done.len(), Ordering::AcqRel);
        done
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.done().clear();
    }

    fn deliver(&self, done: Done) {
        if !self.closed.load(Ordering::Acquire) {
            self.done().push(done);
            self.waker.wake();
        }
    }

    fn done(&self) -> MutexGuard<'_, Vec<Done>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is in work, or waits.
    Admitted,
    /// There is no room.
    Refused,
    /// Its id is queued or in work: the one answer will go to this sender.
    Repeated,
    /// Its id was processed, at this time.
    Processed(WallTime),
}

/// The queue, the slots and their timer.
#[derive(Debug)]
pub(super) struct Engine {
    state: Mutex<State>,
    /// Requests that wait, for the answers that tell it; written under the lock.
    depth: AtomicU64,
    /// Requests that are processed and wait for their ids to be recorded; written by the engine's thread only.
    committing: AtomicUsize,
    /// The first request is in work, or the engine shall end.
    changed: Notify,
    /// Nothing more will come: end when all is done.
    finishing: AtomicBool,
    /// End now.
    aborted: AtomicBool,
    clock: MonotonicClock,
    delay: Duration,
    /// A fault: by how much the delay grows in which time.
    growth: Option<(Duration, Duration)>,
    /// A fault: by how much the delay grows with each open connection; and how many those are.
    slowness: Option<Duration>,
    open: Arc<AtomicUsize>,
    /// A fault: whether ids are remembered as processed when they are admitted.
    marks_at_admission: bool,
    slots: usize,
    store: Arc<dyn ProcessedIds>,
    /// Why an id could not be recorded, the first time.
    record_error: watch::Sender<Option<RecordError>>,
    /// Written by the engine's thread only.
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct State {
    queue: PriorityQueue<Waiting>,
    /// In work. None takes less long than one that started before it, so the first to start is the first to be done.
    in_work: VecDeque<InWork>,
    /// Who gets the answer to an id that is queued or in work.
    once: HashMap<Arc<str>, Arc<Outbox>>,
    /// When the first request came.
    first_ns: Option<u64>,
}

#[derive(Debug)]
struct Waiting {
    since_ns: u64,
    job: Job,
}

#[derive(Debug)]
struct InWork {
    due_ns: u64,
    job: Job,
}

impl Engine {
    pub(super) fn new(
        config: &ServerConfig,
        planted: &Planted,
        store: Arc<dyn ProcessedIds>,
        counters: Arc<Counters>,
        open: Arc<AtomicUsize>,
    ) -> Self {
        let queue =
            PriorityQueue::new(config.queue_capacity, planted.ignores_priority(), planted.keeps_queued());
        Self {
            state: Mutex::new(State {
                queue,
                in_work: VecDeque::new(),
                once: HashMap::new(),
                first_ns: None,
            }),
            depth: AtomicU64::new(0),
            committing: AtomicUsize::new(0),
            changed: Notify::new(),
            finishing: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            clock: MonotonicClock::start(),
            delay: config.processing_delay,
            growth: planted.growing_delay(),
            slowness: planted.slowness_per_connection(),
            open,
            marks_at_admission: planted.marks_at_admission(),
            slots: config.concurrency.unwrap_or(usize::MAX),
            store,
            record_error: watch::Sender::new(None),
            counters,
        }
    }

    /// Requests that wait, to be processed or to be recorded.
    pub(super) fn depth(&self) -> u64 {
        self.depth.load(Ordering::Relaxed) + self.committing.load(Ordering::Relaxed) as u64
    }

    /// Waits until an id cannot be recorded, for the first time; for ever, where none fails.
    pub(super) async fn record_error(&self) -> RecordError {
        let mut errors = self.record_error.subscribe();
        loop {
            if let Some(error) = &*errors.borrow_and_update() {
                return error.clone();
            }
            // The sender is our own, so it cannot be gone.
            let _ = errors.changed().await;
        }
    }

    /// Takes a request into work or into the queue, or says why not.
    pub(super) fn submit(&self, job: Job) -> Admission {
        let mut state = self.state();
        if let Some(id) = &job.once_id {
            if let Some(outbox) = state.once.get_mut(id) {
                redirect(outbox, job.outbox);
                return Admission::Repeated;
            }
            if let Some(original) = self.store.lookup(id) {
                return Admission::Processed(WallTime::from_unix_ns(original));
            }
        }
        // What the store cannot keep up with waits, too, and must not wait without a bound.
        let committing = self.committing.load(Ordering::Relaxed);
        if committing > 0 && committing + state.queue.len() >= state.queue.room(job.priority) {
            return Admission::Refused;
        }
        let once = job.once_id.clone().map(|id| (id, Arc::clone(&job.outbox)));
        let outbox = Arc::clone(&job.outbox);
        let now_ns = self.clock.now_ns();
        let first_ns = *state.first_ns.get_or_insert(now_ns);
        if state.in_work.len() < self.slots {
            self.start(&mut state, job, now_ns, first_ns);
            if state.in_work.len() == 1 {
                self.changed.notify_one();
            }
        } else if state.queue.push(job.priority, Waiting { since_ns: now_ns, job }).is_err() {
            return Admission::Refused;
        }
        outbox.in_flight.fetch_add(1, Ordering::AcqRel);
        if self.marks_at_admission
            && let Some((id, _)) = &once
        {
            // Nobody waits for it, as nobody should rely on it.
            drop(self.store.remember(id, unix_now_ns()));
        }
        state.once.extend(once);
        self.publish_depth(&state);
        Admission::Admitted
    }

    /// Completes requests when they are due, until [`Engine::finish`] or [`Engine::abort`].
    ///
    /// # Errors
    /// Where the timer fails.
    pub(super) async fn run(&self, mut sleeper: Sleeper) -> io::Result<()> {
        let mut committing = VecDeque::new();
        while !self.aborted.load(Ordering::Acquire) {
            let next_ns = self.complete_due(&mut committing);
            if self.finishing.load(Ordering::Acquire) && next_ns.is_none() && committing.is_empty() {
                break;
            }
            let next_due = async {
                match next_ns {
                    Some(span_ns) => sleeper.sleep(span_ns).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                slept = next_due => slept?,
                () = self.changed.notified() => {}
                result = first_recorded(&mut committing) => self.release_recorded(&mut committing, result),
            }
        }
        Ok(())
    }

    /// Lets what a fault keeps queued be processed: the server shuts down.
    pub(super) fn restore_kept(&self) {
        let mut state = self.state();
        state.queue.restore_kept();
        let now_ns = self.clock.now_ns();
        let first_ns = state.first_ns.unwrap_or(now_ns);
        while state.in_work.len() < self.slots
            && let Some(Waiting { job, .. }) = state.queue.pop()
        {
            self.start(&mut state, job, now_ns, first_ns);
        }
        self.publish_depth(&state);
        self.changed.notify_one();
    }

    /// Ends the engine when all that was admitted is processed, also for connections that are gone.
    pub(super) fn finish(&self) {
        self.finishing.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Ends the engine at once.
    pub(super) fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Completes what is due and starts what waits; says how long it is to the next completion.
    fn complete_due(&self, committing: &mut VecDeque<Committing>) -> Option<u64> {
        let mut state = self.state();
        let now_ns = self.clock.now_ns();
        let first_ns = state.first_ns.unwrap_or(now_ns);
        let mut completed = Vec::new();
        while state.in_work.front().is_some_and(|first| first.due_ns <= now_ns) {
            let Some(InWork { due_ns, job }) = state.in_work.pop_front() else { break };
            if let Some(Waiting { since_ns, job }) = state.queue.pop() {
                // The slot was free when it was due, however late the timer says so: else every late wake-up would
                // lower the capacity, which is to be exactly slots over delay.
                let start_ns = due_ns.max(since_ns);
                self.start(&mut state, job, start_ns, first_ns);
            }
            completed.push(job);
        }
        self.publish_depth(&state);
        let next_ns = state.in_work.front().map(|first| first.due_ns.saturating_sub(now_ns));
        drop(state);
        for job in completed {
            match self.record(&job) {
                Recording::Done(_) if committing.is_empty() => self.release(job, true),
                recording => committing.push_back(Committing { job, recording }),
            }
        }
        self.committing.store(committing.len(), Ordering::Relaxed);
        next_ns
    }

    /// Releases the first of `committing`, whose recording has ended as told, and those behind it that are ready, too:
    /// a store records many at once.
    fn release_recorded(&self, committing: &mut VecDeque<Committing>, first: Result<(), RecordError>) {
        let mut next = Some(first);
        while let Some(result) = next {
            let Some(Committing { job, .. }) = committing.pop_front() else { break };
            self.release(job, result.is_ok());
            if let Err(error) = result {
                self.record_error.send_if_modified(|first| {
                    let is_first = first.is_none();
                    first.get_or_insert(error);
                    is_first
                });
            }
            next = first_recorded(committing).now_or_never();
        }
        self.committing.store(committing.len(), Ordering::Relaxed);
    }

    /// Puts a request into work.
    fn start(&self, state: &mut State, job: Job, start_ns: u64, first_ns: u64) {
        // A connection that closed may have made it quicker than those before it; the first to start is still the
        // first to be done.
        let last_ns = state.in_work.back().map_or(0, |last| last.due_ns);
        let due_ns = self.due_ns(start_ns, first_ns).max(last_ns);
        state.in_work.push_back(InWork { due_ns, job });
    }

    /// When a request is done that starts at `start_ns`.
    fn due_ns(&self, start_ns: u64, first_ns: u64) -> u64 {
        let grown_ns = self.growth.map_or(0, |(growth, per)| {
            let since_first_ns = u128::from(start_ns.saturating_sub(first_ns));
            growth.as_nanos().saturating_mul(since_first_ns) / per.as_nanos().max(1)
        });
        let slowed_ns = self
            .slowness
            .map_or(0, |slowness| slowness.as_nanos() * self.open.load(Ordering::Relaxed) as u128);
        let delay_ns = self.delay.as_nanos().saturating_add(grown_ns).saturating_add(slowed_ns);
        start_ns.saturating_add(u64::try_from(delay_ns).unwrap_or(u64::MAX))
    }

    /// Nobody else can have recorded the id: it was in `once` from its admission on, and leaves it on its release.
    fn record(&self, job: &Job) -> Recording {
        match &job.once_id {
            Some(id) => self.store.record(id, unix_now_ns()),
            None => Recording::Done(Recorded::First),
        }
    }

    /// The one place where a request becomes processed, and where its answer's way to a connection begins.
    fn release(&self, job: Job, recorded: bool) {
        let mut outbox = job.outbox;
        if let Some(id) = &job.once_id {
            outbox = self.state().once.remove(id).unwrap_or(outbox);
        }
        if recorded {
            self.counters.processed.add_one();
        }
        outbox.deliver(Done { text: job.text, received_at: job.received_at, recorded });
    }

    fn publish_depth(&self, state: &State) {
        self.depth.store(state.queue.len() as u64, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ready when the first of `committing` is recorded or has failed to be; never, where there is none.
async fn first_recorded(committing: &mut VecDeque<Committing>) -> Result<(), RecordError> {
    match committing.front_mut().map(|first| &mut first.recording) {
        Some(Recording::Done(_)) => Ok(()),
        Some(Recording::Pending(recording)) => recording.await.map(drop),
        None => std::future::pending().await,
    }
}

/// Lets the answer that `from` was to get go to `to`.
fn redirect(from: &mut Arc<Outbox>, to: Arc<Outbox>) {
    to.in_flight.fetch_add(1, Ordering::AcqRel);
    from.in_flight.fetch_sub(1, Ordering::AcqRel);
    // It may be waiting for just this answer before it closes.
    from.waker.wake();
    *from = to;
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::super::fault::ServerFault;
    use super::super::idempotency::{MemoryStore, Retention};
    use super::*;

    /// A store whose recordings are done when the test says so.
    #[derive(Debug, Default)]
    struct SlowStore {
        pending: Mutex<Vec<oneshot::Sender<Result<Recorded, RecordError>>>>,
    }

    impl ProcessedIds for SlowStore {
        fn lookup(&self, _: &str) -> Option<u64> {
            None
        }

        fn record(&self, _: &str, _: u64) -> Recording {
            let (done, recording) = oneshot::channel();
            self.pending.lock().unwrap().push(done);
            Recording::Pending(Box::pin(async { recording.await.unwrap_or(Err(RecordError::Closed)) }))
        }

        fn is_durable(&self) -> bool {
            true
        }
    }

    fn engine<S: ProcessedIds + 'static>(
        config: ServerConfig,
        store: &Arc<S>,
        counters: &Arc<Counters>,
    ) -> Engine {
        let store: Arc<dyn ProcessedIds> = store.clone();
        Engine::new(&config, &Planted::new(&config.faults), store, Arc::clone(counters), Arc::default())
    }

    fn job(text: &str, once: bool, outbox: &Arc<Outbox>) -> Job {
        Job {
            text: text.into(),
            once_id: once.then(|| text.into()),
            priority: Priority::Normal,
            received_at: WallTime::default(),
            outbox: Arc::clone(outbox),
        }
    }

    async fn next(outbox: &Outbox) -> Vec<(String, bool)> {
        std::future::poll_fn(|cx| {
            outbox.waker.register(cx.waker());
            let done = outbox.take();
            if done.is_empty() { std::task::Poll::Pending } else { std::task::Poll::Ready(done) }
        })
        .await
        .into_iter()
        .map(|done| (done.text.into(), done.recorded))
        .collect()
    }

    #[tokio::test]
    async fn answers_wait_for_the_recordings_before_them() {
        let store = Arc::new(SlowStore::default());
        let counters = Arc::<Counters>::default();
        let engine = engine(ServerConfig::default(), &store, &counters);
        let outbox = Arc::default();
        for (text, once) in [("a", true), ("b", true), ("free", false)] {
            assert_eq!(engine.submit(job(text, once, &outbox)), Admission::Admitted);
        }
        assert_eq!(engine.submit(job("a", true, &outbox)), Admission::Repeated);
        let testing = async {
            let (mut first, mut second) = (None, None);
            while second.is_none() {
                tokio::task::yield_now().await;
                let mut pending = store.pending.lock().unwrap();
                if pending.len() == 2 {
                    second = pending.pop();
                    first = pending.pop();
                }
            }
            let (Some(first), Some(second)) = (first, second) else { panic!("nothing recorded") };
            second.send(Err(RecordError::Closed)).unwrap();
            tokio::task::yield_now().await;
            assert_eq!((outbox.in_flight(), counters.processed.load()), (3, 0), "held back behind the first");
            first.send(Ok(Recorded::First)).unwrap();
            let mut order = Vec::new();
            while order.len() < 3 {
                order.extend(next(&outbox).await);
            }
            assert_eq!(order, [("a".to_owned(), true), ("b".to_owned(), false), ("free".to_owned(), true)]);
            assert!(matches!(engine.record_error().await, RecordError::Closed));
            // A failed recording makes its id new again.
            assert_eq!(engine.submit(job("b", true, &outbox)), Admission::Admitted);
            engine.abort();
        };
        let (ran, ()) = tokio::join!(engine.run(Sleeper::precise().unwrap()), testing);
        ran.unwrap();
        assert_eq!(counters.processed.load(), 2);
    }

    #[tokio::test]
    async fn what_waits_to_be_recorded_is_bounded_by_the_queue() {
        let store = Arc::new(SlowStore::default());
        let engine =
            engine(ServerConfig { queue_capacity: 10, ..ServerConfig::default() }, &store, &Arc::default());
        let outbox = Arc::default();
        let testing = async {
            for n in 0..10 {
                assert_eq!(engine.submit(job(&n.to_string(), true, &outbox)), Admission::Admitted);
            }
            while engine.depth() < 10 {
                tokio::task::yield_now().await;
            }
            let high = |text| Job { priority: Priority::High, ..job(text, false, &outbox) };
            assert_eq!(engine.submit(job("normal", false, &outbox)), Admission::Refused);
            assert_eq!(engine.submit(high("high")), Admission::Admitted, "the reserve is for it");
            while engine.depth() < 11 {
                tokio::task::yield_now().await;
            }
            assert_eq!(engine.submit(high("another")), Admission::Refused);
            for pending in store.pending.lock().unwrap().drain(..) {
                pending.send(Ok(Recorded::First)).unwrap();
            }
            while engine.depth() > 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(next(&outbox).await.len(), 11);
            assert_eq!(engine.submit(job("normal", false, &outbox)), Admission::Admitted);
            engine.abort();
        };
        let (ran, ()) = tokio::join!(engine.run(Sleeper::precise().unwrap()), testing);
        ran.unwrap();
    }

    #[test]
    fn a_growing_delay_grows_in_proportion_from_the_first_request() {
        let (growth, per) = (Duration::from_millis(10), Duration::from_secs(1));
        let config = ServerConfig {
            processing_delay: Duration::from_millis(5),
            faults: vec![ServerFault::GrowingDelay { growth, per }],
            ..ServerConfig::default()
        };
        let engine = engine(config, &Arc::new(SlowStore::default()), &Arc::default());
        let delay_us = |start_ns| (engine.due_ns(start_ns, 7_000) - start_ns) / 1_000;
        assert_eq!([7_000, 500_007_000, 3_000_007_000].map(delay_us), [5_000, 10_000, 35_000]);
    }

    #[test]
    fn each_open_connection_slows_and_nobody_is_done_before_who_came_first() {
        let slowness = Duration::from_millis(3);
        let config = ServerConfig {
            processing_delay: Duration::from_millis(5),
            faults: vec![ServerFault::SlowPerConnection { slowness }],
            ..ServerConfig::default()
        };
        let engine = engine(config, &Arc::new(SlowStore::default()), &Arc::default());
        let outbox = Arc::default();
        let mut state = engine.state();
        for open in [0, 2, 10, 0] {
            engine.open.store(open, Ordering::Relaxed);
            engine.start(&mut state, job("a", false, &outbox), 7, 0);
        }
        let done_us: Vec<u64> = state.in_work.iter().map(|work| (work.due_ns - 7) / 1_000).collect();
        assert_eq!(done_us, [5_000, 11_000, 35_000, 35_000]);
    }

    #[tokio::test]
    async fn an_engine_that_finishes_processes_what_it_has_for_nobody_too() {
        let counters = Arc::<Counters>::default();
        let store = Arc::new(Mutex::new(MemoryStore::new(Retention::default())));
        let config = ServerConfig {
            processing_delay: Duration::from_millis(1),
            concurrency: Some(2),
            ..ServerConfig::default()
        };
        let engine = engine(config, &store, &counters);
        let outbox = Arc::<Outbox>::default();
        for n in 0..7 {
            assert_eq!(engine.submit(job(&n.to_string(), true, &outbox)), Admission::Admitted);
        }
        assert_eq!(engine.depth(), 5);
        outbox.close();
        engine.finish();
        engine.run(Sleeper::precise().unwrap()).await.unwrap();
        assert_eq!((counters.processed.load(), engine.depth()), (7, 0));
        assert!(outbox.take().is_empty());
        assert!((0..7).all(|n| ProcessedIds::lookup(&*store, &n.to_string()).is_some()));
    }
}
