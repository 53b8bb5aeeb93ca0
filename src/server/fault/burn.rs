//! CPU time that is wasted in proportion to what is used: a regression of a known size, for those who measure CPU time.

use std::cell::Cell;
use std::hint::spin_loop;
use std::time::Duration;

use crate::clock::thread_cpu;

/// After so many messages of a worker: reading the thread's clock takes a system call, a third of what a message costs at
/// capacity, which must not be the regression.
const EVERY: u32 = 64;

/// What one worker wastes.
#[derive(Debug)]
pub(in crate::server) struct Burn {
    share: f64,
    messages: Cell<u32>,
    /// The thread's CPU time when it had last wasted its share.
    since: Cell<Duration>,
}

impl Burn {
    /// For the thread that this is called on.
    pub(in crate::server) fn new(share: f64) -> Self {
        Self { share, messages: Cell::new(0), since: Cell::new(cpu_time()) }
    }

    /// To be called with each message.
    pub(in crate::server) fn message_seen(&self) {
        let messages = self.messages.get() + 1;
        self.messages.set(messages % EVERY);
        if messages < EVERY {
            return;
        }
        let used = cpu_time().saturating_sub(self.since.get());
        let until = self.since.get() + used + used.mul_f64(self.share);
        let mut now = cpu_time();
        while now < until {
            // Some microseconds between two looks at the clock.
            (0..64).for_each(|_| spin_loop());
            now = cpu_time();
        }
        self.since.set(now);
    }
}

/// The CPU time of this thread; nothing where the system does not tell, so that nothing is wasted either.
fn cpu_time() -> Duration {
    thread_cpu().unwrap_or_default()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// CPU time of `rounds` times 64 messages that each take a little.
    fn worked(share: f64, rounds: u32) -> Duration {
        let burn = Burn::new(share);
        let begun = cpu_time();
        for _ in 0..rounds * EVERY {
            (0..2_000).for_each(|_| spin_loop());
            burn.message_seen();
        }
        cpu_time() - begun
    }

    #[test]
    fn the_work_takes_its_share_more() {
        // The best of some, in turn: whatever else the machine does only adds to it.
        let (mut without, mut with) = (Duration::MAX, Duration::MAX);
        for _ in 0..5 {
            without = without.min(worked(0.0, 10));
            with = with.min(worked(1.0, 10));
        }
        let ratio = with.as_secs_f64() / without.as_secs_f64();
        assert!((1.7..2.3).contains(&ratio), "{ratio}: {without:?} {with:?}");
    }
}
