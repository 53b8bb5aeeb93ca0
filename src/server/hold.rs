//! Answers that a fault holds back, and the timer that lets them go.
//!
//! A worker has one timer for all of its connections, as precise as the pacer's: it lets each answer go at its own
//! instant, so that a longer delay holds up nobody else's answer, nor a later one of the same connection. Where the
//! delays are a truth that others are held against, it polls the clock for the last part of the way.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::BytesMut;
use futures::task::AtomicWaker;
use tokio::sync::Notify;

use crate::clock::{Clock, MonotonicClock};
use crate::pacer::Sleeper;

/// For how long before an exact release the clock is polled: a timer that wakes later than this on one occasion in a
/// thousand belongs to a machine that has other work.
const POLLED_NS: u64 = 1_000_000;

/// What a worker holds back.
#[derive(Debug)]
pub(super) struct Hold {
    clock: MonotonicClock,
    /// How long before each release it stops to sleep, and polls the clock.
    polled_ns: u64,
    /// By the instant at which each is to be let go, and by number: what is due together goes in the order in which it
    /// came.
    held: RefCell<BTreeMap<(u64, u64), Held>>,
    /// How many were ever held.
    count: Cell<u64>,
    /// Something is to be let go sooner than all else.
    sooner: Notify,
}

/// The answers of one connection that were held, and may go now.
#[derive(Debug, Default)]
pub(super) struct Released {
    frames: RefCell<BytesMut>,
    /// Answers still held.
    held: Cell<usize>,
    /// Wakes the connection's task.
    pub(super) waker: AtomicWaker,
}

#[derive(Debug)]
struct Held {
    frames: BytesMut,
    /// Where the connection is gone, the answer goes nowhere.
    to: Weak<Released>,
}

impl Hold {
    /// `exact`: to the microsecond, at the price of a core.
    pub(super) fn new(exact: bool) -> Self {
        Self {
            clock: MonotonicClock::start(),
            polled_ns: if exact { POLLED_NS } else { 0 },
            held: RefCell::default(),
            count: Cell::new(0),
            sooner: Notify::new(),
        }
    }

    /// On this clock `due_ns` counts.
    pub(super) fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// Holds `frames` until `due_ns`.
    pub(super) fn hold(&self, frames: BytesMut, due_ns: u64, to: &Rc<Released>) {
        to.held.set(to.held.get() + 1);
        let number = self.count.replace(self.count.get() + 1);
        let mut held = self.held.borrow_mut();
        held.insert((due_ns, number), Held { frames, to: Rc::downgrade(to) });
        if held.first_key_value().is_some_and(|(first, _)| *first == (due_ns, number)) {
            self.sooner.notify_one();
        }
    }

    /// Lets everything go when it is due; runs as long as the worker.
    pub(super) async fn run(&self) {
        // Where the system has no precise timer left, a coarse one is better than to hold answers for ever.
        let mut sleeper = Sleeper::precise().unwrap_or_else(|_| Sleeper::coarse());
        loop {
            let Some(span_ns) = self.release_due() else {
                self.sooner.notified().await;
                continue;
            };
            let asleep_ns = span_ns.saturating_sub(self.polled_ns);
            if asleep_ns == 0 {
                // The connections are looked after meanwhile.
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                biased;
                slept = sleeper.sleep(asleep_ns) => if slept.is_err() {
                    sleeper = Sleeper::coarse();
                },
                () = self.sooner.notified() => {}
            }
        }
    }

    /// Says how long it is to the next that is due.
    fn release_due(&self) -> Option<u64> {
        let mut held = self.held.borrow_mut();
        loop {
            let now_ns = self.now_ns();
            let first = held.first_entry()?;
            let span_ns = first.key().0.saturating_sub(now_ns);
            if span_ns > 0 {
                return Some(span_ns);
            }
            let Held { frames, to } = first.remove();
            if let Some(to) = to.upgrade() {
                to.held.set(to.held.get().saturating_sub(1));
                to.frames.borrow_mut().extend_from_slice(&frames);
                to.waker.wake();
            }
        }
    }
}

impl Released {
    /// Appends what may go.
    pub(super) fn take(&self, out: &mut BytesMut) {
        out.extend_from_slice(&std::mem::take(&mut *self.frames.borrow_mut()));
    }

    /// Whether nothing is held or waits to be taken.
    pub(super) fn is_settled(&self) -> bool {
        self.held.get() == 0 && self.frames.borrow().is_empty()
    }
}

/// When an answer that was ready at `ready_ns` may go, where the answers of its connection leave no closer than `gap` to
/// each other; `next_ns`, when the next may go, moves on.
pub(super) fn spaced(next_ns: &mut u64, ready_ns: u64, gap: Duration) -> u64 {
    let due_ns = ready_ns.max(*next_ns);
    *next_ns = due_ns.saturating_add(u64::try_from(gap.as_nanos()).unwrap_or(u64::MAX));
    due_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_goes_at_its_own_time_and_none_before_it() {
        goes_in_time(Hold::new(false)).await;
        goes_in_time(Hold::new(true)).await;
    }

    async fn goes_in_time(hold: Hold) {
        const MS: u64 = 1_000_000;
        let (one, gone) = (Rc::<Released>::default(), Rc::<Released>::default());
        let now_ns = hold.now_ns();
        for (text, after_ms) in [("late", 30), ("first", 10), ("second", 10)] {
            hold.hold(BytesMut::from(text), now_ns + after_ms * MS, &one);
        }
        hold.hold(BytesMut::from("nobody"), now_ns, &gone);
        drop(gone);
        assert!(!one.is_settled());
        let mut out = BytesMut::new();
        let testing = async {
            for (expected, after_ms) in [("firstsecond", 10), ("firstsecondlate", 30)] {
                while out.len() < expected.len() {
                    tokio::task::yield_now().await;
                    one.take(&mut out);
                }
                assert_eq!(out, expected);
                assert!(hold.now_ns() >= now_ns + after_ms * MS);
            }
        };
        tokio::select! {
            () = hold.run() => {}
            () = testing => {}
        }
        assert!(one.is_settled());
    }

    #[test]
    fn spaced_answers_keep_their_gap_and_lose_what_was_not_used() {
        let gap = Duration::from_nanos(10);
        let mut next_ns = 0;
        let due: Vec<u64> = [5, 6, 7, 100, 101].map(|ready| spaced(&mut next_ns, ready, gap)).into();
        assert_eq!(due, [5, 15, 25, 100, 110]);
    }
}
