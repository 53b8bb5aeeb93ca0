//! Keeps a worker awake for a moment after each batch of requests, where more are likely to come in that moment.
//!
//! To put a thread to sleep and to wake it again takes longer than to answer a request, and whoever sends the next one pays
//! for a part of it: on a virtual machine 10 to 30 µs of latency. So a worker that was right about more to come looks
//! again and again, for at most [`BUDGET_NS`] in vain; one that was wrong tries less and less often, down to one batch in
//! 64. From some 50,000 requests a second up, and where each request waits for an answer, a worker so takes its whole core.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

use crate::clock::{Clock, MonotonicClock};

/// As long as a client of this kind needs between an answer and its next request, about; and what sleeping and waking
/// costs.
const BUDGET_NS: u64 = 20_000;
/// At most 2 to the power of this many batches pass between two tries.
const MOST_DOUBLINGS: u32 = 6;

/// The spinner of one worker.
#[derive(Debug, Default)]
pub(super) struct Spinner {
    /// Batches that were read.
    batches: Cell<u64>,
    /// How often in a row it spun in vain, and how many batches are to pass before it spins again.
    in_vain: Cell<u32>,
    to_pass: Cell<u32>,
    /// Whom to wake; none while it spins.
    sleeping: RefCell<Option<Waker>>,
}

impl Spinner {
    /// A batch of requests was read.
    #[inline]
    pub(super) fn batch_came(&self) {
        self.batches.set(self.batches.get() + 1);
        match self.to_pass.get() {
            0 => {
                if let Some(waker) = self.sleeping.take() {
                    waker.wake();
                }
            }
            to_pass => self.to_pass.set(to_pass - 1),
        }
    }

    /// Spins whenever that may be worth it; runs as long as the worker.
    pub(super) async fn run(&self) {
        let clock = MonotonicClock::start();
        loop {
            self.sleep().await;
            let paid = self.spin(&clock).await;
            let in_vain = if paid { 0 } else { (self.in_vain.get() + 1).min(MOST_DOUBLINGS) };
            self.in_vain.set(in_vain);
            self.to_pass.set((1 << in_vain) - 1);
        }
    }

    /// Until a batch comes after which it is to spin.
    async fn sleep(&self) {
        let mut slept = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut slept, true) && self.sleeping.borrow().is_none() {
                return Poll::Ready(());
            }
            *self.sleeping.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Lets the worker look for requests until none has come for the budget; whether any came.
    async fn spin(&self, clock: &MonotonicClock) -> bool {
        let (first, mut seen) = (self.batches.get(), self.batches.get());
        let mut until_ns = clock.now_ns() + BUDGET_NS;
        loop {
            // The runtime looks for requests without sleeping, as a task is still to be run.
            tokio::task::yield_now().await;
            let (batches, now_ns) = (self.batches.get(), clock.now_ns());
            if batches != seen {
                seen = batches;
                until_ns = now_ns + BUDGET_NS;
            } else if now_ns >= until_ns {
                return seen != first;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One batch, and then a long pause, again and again: it must not spin after each.
    #[tokio::test]
    async fn what_never_pays_is_tried_ever_less_often() {
        let spinner = Spinner::default();
        let mut tries = 0;
        let sending = async {
            for _ in 0..1_000 {
                spinner.batch_came();
                // It has begun to spin where nobody sleeps; then it is let spin in vain.
                tries += u32::from(spinner.sleeping.borrow().is_none());
                while spinner.sleeping.borrow().is_none() {
                    tokio::task::yield_now().await;
                }
            }
        };
        tokio::select! {
            biased;
            () = spinner.run() => {}
            () = sending => {}
        }
        // 6 at first, ever further apart, then one in 64.
        assert!((10..40).contains(&tries), "{tries}");
    }

    #[tokio::test]
    async fn what_pays_goes_on_without_sleep() {
        let spinner = Spinner::default();
        let mut slept = 0;
        let sending = async {
            for _ in 0..1_000 {
                spinner.batch_came();
                tokio::task::yield_now().await;
                slept += u32::from(spinner.sleeping.borrow().is_some());
            }
        };
        tokio::select! {
            biased;
            () = spinner.run() => {}
            () = sending => {}
        }
        // A pause of the machine may end a spin.
        assert!(slept < 500, "{slept}");
    }
}
