//! The pacer of a worker: it wakes the connections when messages are due, ends the load, and waits for the answers.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::shared::{Phase, Shared, Slot, nanos};
use crate::clock::{Clock, thread_cpu};
use crate::pacer::{Lead, PacerKind, Sleeper};
use crate::schedule::Timeline;
use crate::workload::Workload;

/// How often a worker looks after what no message wakes it for: time-outs, windows, progress.
const HOUSEKEEPING_NS: u64 = 50_000_000;
/// A time-out is noticed at most this late, a twentieth of its length where that is less.
const MAX_EXPIRE_STEP_NS: u64 = 1_000_000_000;
/// After the last answer, stragglers (second answers, above all) are awaited for so long.
const LINGER_NS: u64 = 100_000_000;
/// Who spins does so from so long before a message is due: about twice as long as a timer may be late.
const SPIN_BUDGET_NS: u64 = 200_000;
/// Who spins for answers gives up after so long without one, and sleeps.
const ANSWER_SPIN_BUDGET_NS: u64 = 1_000_000;

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
    pub(super) fn is_end(&self) -> bool {
        *self != Self::Run
    }
}

/// Progress of all workers, for a display.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) answered: AtomicU64,
}

/// Leads a worker's connections through the load: wakes them when messages are due, ends the load, waits for the
/// answers.
pub(super) struct Conductor<'a, C> {
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
    shared: Rc<Shared<C>>,
    slots: &'a [Rc<Slot>],
}

impl<'a, C: Clock> Conductor<'a, C> {
    pub(super) fn new(
        workload: &Workload,
        timeline: Timeline,
        sleeper: Sleeper,
        control: watch::Receiver<Control>,
        progress: Arc<Progress>,
        shared: Rc<Shared<C>>,
        slots: &'a [Rc<Slot>],
    ) -> Self {
        Self {
            sleeper,
            timeline,
            pacer: workload.pacer,
            lead: Lead::default(),
            expire_step_ns: (shared.answer_timeout_ns / 20).clamp(HOUSEKEEPING_NS, MAX_EXPIRE_STEP_NS),
            send_grace_ns: nanos(workload.send_grace),
            control,
            progress,
            published: 0,
            shared,
            slots,
        }
    }

    /// Returns the CPU seconds of this thread during the held part of the load; `None` where it never began, or where the
    /// system cannot tell.
    pub(super) async fn conduct(mut self) -> std::io::Result<Option<f64>> {
        self.sleep_until(self.shared.origin_ns).await?;
        if *self.control.borrow() != Control::Run {
            self.shared.end_early(self.shared.origin_ns);
            return Ok(None);
        }
        self.shared.phase.set(Phase::Loading);
        self.shared.tick_ns.set(self.shared.clock.now_ns());
        self.slots.iter().for_each(|slot| slot.wake());
        let start_ns = self.shared.start_ns;
        let held_end_ns = start_ns + self.shared.held_ns.get();
        self.offer_until(start_ns).await?;
        let mut cpu_s = None;
        if self.shared.end_ns.get() > start_ns {
            let before = thread_cpu();
            self.offer_until(held_end_ns).await?;
            cpu_s = thread_cpu().zip(before).map(|(after, before)| (after - before).as_secs_f64());
        }
        self.offer_until(u64::MAX).await?;
        self.drain().await?;
        Ok(cpu_s)
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
