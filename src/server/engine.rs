//! Processing that takes time: the queue, the requests in work, and the timer that completes them.
//!
//! All workers share one engine. A request takes a slot, or waits for one; after exactly the processing delay it is
//! done, and goes to the outbox of the connection that is to have its answer, which wakes that connection's task.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::sync::Notify;

use super::idempotency::MemoryStore;
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
    /// The first request is in work, or the engine shall stop.
    changed: Notify,
    stopped: AtomicBool,
    clock: MonotonicClock,
    delay_ns: u64,
    slots: usize,
    store: Arc<MemoryStore>,
    /// Written under the lock.
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct State {
    queue: PriorityQueue<Waiting>,
    /// In work. All take equally long, so the first to start is the first to be done.
    in_work: VecDeque<InWork>,
    /// Who gets the answer to an id that is queued or in work.
    once: HashMap<Arc<str>, Arc<Outbox>>,
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
        delay: Duration,
        concurrency: Option<usize>,
        queue_capacity: usize,
        store: Arc<MemoryStore>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            state: Mutex::new(State {
                queue: PriorityQueue::new(queue_capacity),
                in_work: VecDeque::new(),
                once: HashMap::new(),
            }),
            depth: AtomicU64::new(0),
            changed: Notify::new(),
            stopped: AtomicBool::new(false),
            clock: MonotonicClock::start(),
            delay_ns: u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX),
            slots: concurrency.unwrap_or(usize::MAX),
            store,
            counters,
        }
    }

    /// Requests that wait.
    pub(super) fn depth(&self) -> u64 {
        self.depth.load(Ordering::Relaxed)
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
                return Admission::Processed(original);
            }
        }
        let once = job.once_id.clone().map(|id| (id, Arc::clone(&job.outbox)));
        let outbox = Arc::clone(&job.outbox);
        let now_ns = self.clock.now_ns();
        if state.in_work.len() < self.slots {
            state.in_work.push_back(InWork { due_ns: now_ns.saturating_add(self.delay_ns), job });
            if state.in_work.len() == 1 {
                self.changed.notify_one();
            }
        } else if state.queue.push(job.priority, Waiting { since_ns: now_ns, job }).is_err() {
            return Admission::Refused;
        }
        outbox.in_flight.fetch_add(1, Ordering::AcqRel);
        state.once.extend(once);
        self.publish_depth(&state);
        Admission::Admitted
    }

    /// Completes requests when they are due, until [`Engine::stop`].
    ///
    /// # Errors
    /// Where the timer fails.
    pub(super) async fn run(&self, mut sleeper: Sleeper) -> io::Result<()> {
        while !self.stopped.load(Ordering::Acquire) {
            match self.complete_due() {
                Some(span_ns) => tokio::select! {
                    biased;
                    slept = sleeper.sleep(span_ns) => slept?,
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
        Ok(())
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Completes what is due and starts what waits; says how long it is to the next completion.
    fn complete_due(&self) -> Option<u64> {
        let mut completed = Vec::new();
        let mut state = self.state();
        let now_ns = self.clock.now_ns();
        while state.in_work.front().is_some_and(|first| first.due_ns <= now_ns) {
            let Some(InWork { due_ns, job }) = state.in_work.pop_front() else { break };
            if let Some(Waiting { since_ns, job }) = state.queue.pop() {
                // The slot was free when it was due, however late the timer says so: else every late wake-up would
                // lower the capacity, which is to be exactly slots over delay.
                let start_ns = due_ns.max(since_ns);
                state.in_work.push_back(InWork { due_ns: start_ns.saturating_add(self.delay_ns), job });
            }
            completed.push(self.complete(&mut state, job));
        }
        self.publish_depth(&state);
        let next = state.in_work.front().map(|first| first.due_ns.saturating_sub(now_ns));
        drop(state);
        for (outbox, done) in completed {
            outbox.deliver(done);
        }
        next
    }

    /// The one place where a request becomes processed. A store whose records take time to become durable would
    /// hold its completions back here, in order.
    fn complete(&self, state: &mut State, job: Job) -> (Arc<Outbox>, Done) {
        let mut outbox = job.outbox;
        if let Some(id) = &job.once_id {
            // Nobody else can have recorded it: the id was in `once` from its admission on.
            let _ = self.store.record(id, WallTime::from_unix_ns(unix_now_ns()));
            outbox = state.once.remove(id).unwrap_or(outbox);
        }
        self.counters.processed.add_one();
        (outbox, Done { text: job.text, received_at: job.received_at })
    }

    fn publish_depth(&self, state: &State) {
        self.depth.store(state.queue.len() as u64, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
