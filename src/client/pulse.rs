//! Signs of life: when to ping a peer, and when it counts as dead.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::retry::PingPolicy;

/// The pulse of one connection.
#[derive(Debug)]
pub(super) struct Pulse {
    policy: PingPolicy,
    timer: Pin<Box<Sleep>>,
    next_ping: Instant,
    /// Silence counts from here at the earliest.
    begun: Instant,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    Ping,
    /// Nothing came for too long.
    Dead,
}

impl Pulse {
    /// Must be made where tokio's timers work.
    pub(super) fn new(policy: PingPolicy) -> Self {
        let begun = Instant::now();
        let next_ping = begun + policy.every;
        Self { policy, timer: Box::pin(sleep_until(next_ping)), next_ping, begun }
    }

    /// After how long a silence the peer is dead.
    pub(super) fn dead_after(&self) -> Duration {
        self.policy.dead_after
    }

    /// Ready when something is to be done; `silent_for` says how long ago the last byte came. Everything that came must
    /// have been read before.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, silent_for: impl Fn() -> Duration) -> Poll<Beat> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if now.duration_since(self.timer.deadline()) > self.policy.every {
                // It is we who were away: no ping left, and no silence was heard.
                self.begun = now;
            }
            let silent_for = silent_for().min(now.duration_since(self.begun));
            let Some(left) = self.policy.dead_after.checked_sub(silent_for).filter(|left| !left.is_zero())
            else {
                return Poll::Ready(Beat::Dead);
            };
            let ping = now >= self.next_ping;
            if ping {
                self.next_ping = now + self.policy.every;
            }
            self.timer.as_mut().reset(self.next_ping.min(now + left));
            if ping {
                return Poll::Ready(Beat::Ping);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::poll_fn;

    const POLICY: PingPolicy =
        PingPolicy { every: Duration::from_secs(1), dead_after: Duration::from_millis(2_500) };

    async fn next(pulse: &mut Pulse, heard: &Cell<Instant>) -> Beat {
        poll_fn(|cx| pulse.poll(cx, || heard.get().elapsed())).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_pinged_and_then_dead() {
        let start = Instant::now();
        // What came long before the pulse began to be felt does not count as silence.
        let heard = Cell::new(start - Duration::from_secs(100));
        let mut pulse = Pulse::new(POLICY);
        for seconds in [1.0, 2.0] {
            assert_eq!(next(&mut pulse, &heard).await, Beat::Ping);
            assert_eq!(start.elapsed().as_secs_f64(), seconds);
        }
        assert_eq!(next(&mut pulse, &heard).await, Beat::Dead);
        assert_eq!(start.elapsed(), POLICY.dead_after);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answers_lives_and_our_own_pause_is_not_its_silence() {
        let heard = Cell::new(Instant::now());
        let mut pulse = Pulse::new(POLICY);
        for _ in 0..10 {
            assert_eq!(next(&mut pulse, &heard).await, Beat::Ping);
            heard.set(Instant::now());
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(next(&mut pulse, &heard).await, Beat::Ping);
    }
}
