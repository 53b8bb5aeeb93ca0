//! Wakes a worker at the next due instant.
//!
//! tokio's timer is a wheel of 1 ms, far too coarse for a schedule of thousands of messages a second. On Linux a
//! [`Sleeper`] waits on a `timerfd` instead, which wakes within tens of microseconds; elsewhere, and under a test's
//! paused clock, it falls back to tokio's timer. How late the wake-ups are is always measured by whoever sleeps.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{UnitError, parse_duration};

/// How a worker waits for the next due instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PacerKind {
    /// Sleep on a precise timer: tens of microseconds late, little CPU.
    #[default]
    Timer,
    /// Sleep, and from a fifth of a millisecond before a message is due poll the clock instead: about a microsecond late, a
    /// whole core from 5,000 messages a second and worker up.
    Spin,
    /// Wake only at multiples of this period and send all that came due meanwhile: later by up to the period, cheaper.
    Coalesce(Duration),
}

impl PacerKind {
    /// When to wake for a message that is due at `due_ns`: never before it is due.
    #[must_use]
    pub fn wake_at(self, due_ns: u64) -> u64 {
        match self {
            Self::Timer | Self::Spin => due_ns,
            Self::Coalesce(period) => {
                let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1);
                due_ns.checked_next_multiple_of(period_ns).unwrap_or(due_ns)
            }
        }
    }
}

impl FromStr for PacerKind {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let unknown = || UnitError::Malformed {
            value: text.to_owned(),
            expected: "a pacer: timer, spin or coalesce=PERIOD (such as coalesce=1ms)",
        };
        match text.split_once('=') {
            None if text == "timer" => Ok(Self::Timer),
            None if text == "spin" => Ok(Self::Spin),
            Some(("coalesce", period)) => match parse_duration(period)? {
                period if period.is_zero() || period > Duration::from_secs(1) => Err(UnitError::OutOfRange {
                    value: text.to_owned(),
                    expected: "a period above 0, up to 1s",
                }),
                period => Ok(Self::Coalesce(period)),
            },
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for PacerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timer => f.write_str("timer"),
            Self::Spin => f.write_str("spin"),
            Self::Coalesce(period) => match period.as_nanos() {
                ns if ns % 1_000_000 == 0 => write!(f, "coalesce={}ms", ns / 1_000_000),
                ns if ns % 1_000 == 0 => write!(f, "coalesce={}us", ns / 1_000),
                ns => write!(f, "coalesce={ns}ns"),
            },
        }
    }
}

impl TryFrom<String> for PacerKind {
    type Error = UnitError;
    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

impl From<PacerKind> for String {
    fn from(kind: PacerKind) -> String {
        kind.to_string()
    }
}

/// By how much a sleeper wakes late even when all goes well: by so much it can be told to wake early, so that it is on
/// time then.
///
/// It follows a low quantile of the lateness, about a tenth, since whoever wakes too early has to spin for the rest: down by
/// a quarter of the difference, up by a hundredth. It stays below [`Lead::MOST_NS`], which bounds the spinning.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lead {
    ns: u64,
}

impl Lead {
    /// Timers of idle virtual machines are late by some 50 µs; what is later has another cause than the timer.
    pub const MOST_NS: u64 = 60_000;

    /// By how much to wake early.
    #[must_use]
    pub fn span_ns(self) -> u64 {
        self.ns
    }

    /// The sleeper woke so much later than it was told to.
    pub fn woke(&mut self, late_ns: u64) {
        self.ns = if late_ns < self.ns {
            self.ns - (self.ns - late_ns) / 4
        } else {
            (self.ns + (late_ns - self.ns) / 100).min(Self::MOST_NS)
        };
    }
}

/// Sleeps for short spans, precisely. It may wake early (never rely on one sleep): ask the clock, and sleep again.
#[derive(Debug)]
pub struct Sleeper {
    timer: Timer,
}

impl Sleeper {
    /// The most precise sleeper of this platform. Call it inside a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// Where the operating system gives no timer (no file descriptor left, for example).
    pub fn precise() -> io::Result<Self> {
        Ok(Self { timer: Timer::precise()? })
    }

    /// A sleeper on tokio's timer, which follows a paused clock.
    #[must_use]
    pub fn coarse() -> Self {
        Self { timer: Timer::Tokio }
    }

    /// Whether it is precise, and time goes on while it is not asked.
    #[must_use]
    pub fn is_precise(&self) -> bool {
        !matches!(self.timer, Timer::Tokio)
    }

    /// Sleeps for about `span_ns`.
    ///
    /// # Errors
    /// Where the timer cannot be set or read.
    pub async fn sleep(&mut self, span_ns: u64) -> io::Result<()> {
        self.timer.sleep(span_ns).await
    }
}

/// Two sleeps are never outstanding at once, so a timer has only one state: set, or not.
#[derive(Debug)]
enum Timer {
    #[cfg(target_os = "linux")]
    Fd(linux::TimerFd),
    Tokio,
}

impl Timer {
    #[cfg(target_os = "linux")]
    fn precise() -> io::Result<Self> {
        Ok(Self::Fd(linux::TimerFd::new()?))
    }

    #[cfg(not(target_os = "linux"))]
    fn precise() -> io::Result<Self> {
        Ok(Self::Tokio)
    }

    async fn sleep(&mut self, span_ns: u64) -> io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Fd(timer) => timer.sleep(span_ns).await,
            Self::Tokio => {
                tokio::time::sleep(Duration::from_nanos(span_ns)).await;
                Ok(())
            }
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::{AsFd, OwnedFd};
    use std::time::Duration;

    use nix::sys::time::TimeSpec;
    use nix::sys::timerfd::{ClockId, Expiration, TimerFd as OsTimer, TimerFlags, TimerSetTimeFlags};
    use tokio::io::unix::AsyncFd;

    /// A one-shot `timerfd` that the runtime's own poller watches.
    #[derive(Debug)]
    pub(super) struct TimerFd {
        /// Sets the timer; shares its file description with `readiness`.
        timer: OsTimer,
        /// Tells that it expired. The expiry count is never read: setting the timer again resets it, which saves a
        /// system call a wake-up.
        readiness: AsyncFd<OwnedFd>,
    }

    impl TimerFd {
        #[allow(
            deprecated,
            reason = "unsound only for types whose descriptor can change; an OwnedFd's cannot"
        )]
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
            let timer = OsTimer::new(ClockId::CLOCK_MONOTONIC, flags)?;
            let watched = timer.as_fd().try_clone_to_owned()?;
            let readiness = AsyncFd::with_interest(watched, tokio::io::Interest::READABLE)?;
            Ok(Self { timer, readiness })
        }

        pub(super) async fn sleep(&mut self, span_ns: u64) -> io::Result<()> {
            // A span of 0 would disarm the timer.
            let span = TimeSpec::from_duration(Duration::from_nanos(span_ns.max(1)));
            self.timer.set(Expiration::OneShot(span), TimerSetTimeFlags::empty())?;
            self.readiness.readable().await?.clear_ready();
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, MonotonicClock, TokioClock};

    #[test]
    fn pacers_read_and_write_the_same() {
        for text in ["timer", "spin", "coalesce=1ms", "coalesce=250us"] {
            assert_eq!(text.parse::<PacerKind>().unwrap().to_string(), text);
        }
        for text in ["", "coalesce", "coalesce=0", "coalesce=2s", "coalesce=-1ms", "timer=1ms", "fast"] {
            assert!(text.parse::<PacerKind>().is_err(), "{text}");
        }
    }

    #[test]
    fn coalescing_never_wakes_early() {
        let coalesce = PacerKind::Coalesce(Duration::from_millis(1));
        for (due, wake) in [(0, 0), (1, 1_000_000), (1_000_000, 1_000_000), (1_000_001, 2_000_000)] {
            assert_eq!(coalesce.wake_at(due), wake);
        }
        assert_eq!(PacerKind::Timer.wake_at(17), 17);
    }

    #[test]
    fn a_lead_follows_the_least_lateness_and_stays_bounded() {
        let mut lead = Lead::default();
        (0..10_000).for_each(|n| lead.woke(if n % 10 == 0 { 30_000 } else { 50_000 }));
        assert!((30_000..45_000).contains(&lead.span_ns()), "{lead:?}");
        (0..10_000).for_each(|_| lead.woke(10_000_000));
        assert_eq!(lead.span_ns(), Lead::MOST_NS);
        (0..50).for_each(|_| lead.woke(0));
        assert!(lead.span_ns() < 10, "{lead:?}");
    }

    #[tokio::test]
    async fn a_sleep_lasts_at_least_its_span_and_can_be_repeated() {
        let clock = MonotonicClock::start();
        let mut sleeper = Sleeper::precise().unwrap();
        for _ in 0..20 {
            let wake_ns = clock.now_ns() + 200_000;
            while clock.now_ns() < wake_ns {
                sleeper.sleep(wake_ns.saturating_sub(clock.now_ns())).await.unwrap();
            }
        }
        assert!(clock.now_ns() >= 20 * 200_000);
    }

    #[tokio::test]
    async fn a_cancelled_sleep_does_not_disturb_the_next() {
        let clock = MonotonicClock::start();
        let mut sleeper = Sleeper::precise().unwrap();
        let long = Duration::from_secs(3_600);
        tokio::select! {
            biased;
            slept = sleeper.sleep(u64::try_from(long.as_nanos()).unwrap()) => panic!("slept an hour: {slept:?}"),
            () = std::future::ready(()) => {}
        }
        sleeper.sleep(1_000).await.unwrap();
        assert!(clock.now_ns() < 3_600_000_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn the_coarse_sleeper_follows_a_paused_clock() {
        let clock = TokioClock::start();
        Sleeper::coarse().sleep(5_000_000_000).await.unwrap();
        assert_eq!(clock.now_ns(), 5_000_000_000);
    }
}
