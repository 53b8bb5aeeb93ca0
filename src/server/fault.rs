//! What the server can be told to do wrong, so that every check is proven able to fail.

mod burn;
mod law;
mod planted;
mod text;

use std::fmt;
use std::time::Duration;

use super::config::{ServerConfigError, up_to};

pub(super) use burn::Burn;
pub use law::DelayLaw;
pub(super) use planted::{Mishap, Planted, Slips};
pub use text::ServerFaultError;

/// One thing to do wrong. Its [`FromStr`](std::str::FromStr) reads what each variant's doc shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ServerFault {
    /// The whole server stops reading and answering once: `stall=1s,at=2s`.
    StallOnce {
        /// When, counted from the first message.
        at: Duration,
        /// For how long.
        duration: Duration,
    },
    /// The whole server stops reading and answering again and again: `pause=60ms,every=1s`.
    Pause {
        /// From the first message to the first pause, and from the end of each to the next.
        every: Duration,
        /// For how long.
        duration: Duration,
    },
    /// Requests are processed, but their answers are never sent: `drop-answers=0.02,seed=7`.
    DropAnswers {
        /// Which share of the messages, 0 to 1. [`ServerFault::hits`] tells which.
        share: f64,
        /// Which messages.
        seed: u64,
    },
    /// A share of the answers goes out later than it could, the others on time: `late-answers=0.02,by=300ms,seed=7`.
    /// The late are overtaken by the others of their connection.
    LateAnswers {
        /// Which share of the messages, 0 to 1. [`ServerFault::hits`] tells which.
        share: f64,
        /// By how much later.
        by: Duration,
        /// Which messages.
        seed: u64,
    },
    /// Every answer to a processed request goes out a known time after its request came: `delay=lognormal:5ms:0.5,seed=7`.
    /// Short delays overtake long ones. It is the truth that a measured latency can be held against: the time of each
    /// message counts from the instant at which the read of its last byte off the socket returned to that at which its
    /// answer is to be written, or from which it can be, where its processing takes longer. It goes to the microsecond,
    /// at the price of a core for each worker.
    Delay {
        /// How long.
        law: DelayLaw,
        /// With the id of a message decides its delay: [`DelayLaw::of`].
        seed: u64,
    },
    /// The answers of each such connection leave no closer to each other than that, however many wait:
    /// `starve-connections=50,gap=20ms`. So at twice as many requests, half of them are answered within the load. What
    /// is not an answer to a processed request leaves at once.
    StarveConnections {
        /// Each how-many-th, counted from 1 in the order of the handshakes' ends.
        nth: u64,
        /// The time between two answers.
        gap: Duration,
    },
    /// Some slips, an exact number of times: `swap-answers=3,among=1000,seed=7`, or another [`Slip`].
    Slips {
        /// What goes wrong.
        slip: Slip,
        /// How often, and where.
        targets: Targets,
    },
    /// Processing takes longer and longer: `growing-delay=10ms,per=1s`. It makes a queue, also without a delay.
    GrowingDelay {
        /// By how much longer.
        growth: Duration,
        /// After each such time since the first message, in proportion.
        per: Duration,
    },
    /// Processing takes longer for each connection that is open: `slow-per-connection=100us`. With a `--concurrency` the
    /// server's throughput falls with each connection, without one only the latency grows.
    SlowPerConnection {
        /// By how much, for each that is open when the processing begins.
        slowness: Duration,
    },
    /// The queue does not become empty again after an overload: `keep-queue=100`. When it has overflowed and then
    /// fallen to so many messages, these are set aside: they count as waiting, and are processed only when the server
    /// shuts down. What comes later is served as ever.
    KeepQueue {
        /// How many.
        count: u64,
    },
    /// A `user_message` is remembered as processed as soon as it is admitted: `processed-at-admission`. What was queued
    /// when the server is killed is never processed, nor is it in the journal of a durable store, and yet a resend to
    /// the next server on that store is answered `duplicate_rejected`. Without a kill nothing is to be seen of it.
    ProcessedAtAdmission,
    /// No `backpressure` is sent when the queue is full: `no-backpressure`.
    NoBackpressure,
    /// `backpressure` comes late: `late-backpressure=1s`.
    LateBackpressure {
        /// From an overflow episode's first refusal on; it comes with the first refusal after that, and not at all
        /// where the episode ends sooner.
        by: Duration,
    },
    /// A refused message gets no `queue_full`: `silent-refusals`. `backpressure` is sent as ever.
    SilentRefusals,
    /// High-priority messages have their reserve of the queue, but wait like all others: `arrival-order`.
    ArrivalOrder,
    /// Ids that an earlier run of the server processed are not known: `forget-on-start`. The journal keeps them.
    ForgetOnStart,
    /// One connection is closed with 1013 although there is room: `refuse-connection=50`.
    RefuseConnection {
        /// Which, counted from 1 in the order of the handshakes' ends.
        nth: u64,
    },
    /// Whenever a connection ends without a close handshake (reset, or its stream ended), the whole server stops reading
    /// and answering: `bad-neighbour=200ms`. A loss that comes to light only after that, as all of the same worker do, is
    /// one of its own.
    BadNeighbour {
        /// For how long.
        duration: Duration,
    },
    /// After a connection has ended without a close handshake, no new one is served: `deaf-after-loss=5s`. The listener's
    /// backlog holds those that come, so to a client the TCP connection is open and the handshake gets no answer; they
    /// are served afterwards.
    DeafAfterLoss {
        /// For how long, from when the server noticed the last such loss.
        duration: Duration,
    },
    /// The server shuts down its sending side of one connection, and goes on reading: `half-close=3,at=2s`. Its requests
    /// are processed, and their answers go nowhere.
    HalfClose {
        /// Which, counted from 1 in the order of the handshakes' ends.
        nth: u64,
        /// When, counted from the handshake's end.
        at: Duration,
    },
    /// The server forgets one connection that stays open: `silent-connection=3,at=2s`. Nothing is read from it any more,
    /// and nothing sent, neither answer nor pong nor close frame, until the server shuts down.
    SilentConnection {
        /// Which, counted from 1 in the order of the handshakes' ends.
        nth: u64,
        /// When, counted from the handshake's end.
        at: Duration,
    },
    /// Whoever asks is let in, without a token or with a wrong or expired one, and may stay: `open-door`.
    OpenDoor,
    /// Over each handshake that is refused, the thread that serves other connections too stands still:
    /// `costly-refusals=20ms`.
    CostlyRefusals {
        /// For how long.
        duration: Duration,
    },
    /// Every worker wastes CPU time in proportion to what it uses: `burn-cpu=0.05` makes 1.05 of it. It is for those who
    /// measure CPU time: a regression of a known size, whatever the load.
    BurnCpu {
        /// How much more, 0 to 100: 0.05 is 5 %.
        share: f64,
    },
    /// Memory is lost with every message: `leak=100B`.
    Leak {
        /// How much, beside some bytes for the allocation itself.
        bytes: u64,
    },
    /// Memory is lost once, and kept for ever: `grow=64MiB` with the first message, `grow=64MiB,after=10000` with the
    /// one of that number.
    Grow {
        /// How much.
        bytes: u64,
        /// With which message of any type, counted from 1 over the whole server.
        after: u64,
    },
    /// Memory is taken once, and given back when the last connection is closed that has sent a request for work:
    /// `swell=300MiB,after=10000`. A connection that asked for statistics only does not keep it.
    Swell {
        /// How much.
        bytes: u64,
        /// With which message of any type, counted from 1 over the whole server.
        after: u64,
    },
}

/// Something that goes wrong with one message, and is right with the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slip {
    /// A request for work is ignored, neither processed nor answered. Counted over all such requests.
    IgnoreRequest,
    /// Instead of a request for work being processed, its connection is cut without a close frame. Counted over all
    /// such requests.
    CutConnection,
    /// The answer to a processed request is not sent. Counted over all such answers, like the following.
    LoseAnswer,
    /// It is sent twice.
    RepeatAnswer,
    /// It is held until the connection's next one is sent, so the two have changed places; where the next is to be
    /// swapped too, the one after that is. The last answer of a connection would be held for good: leave `among` well
    /// below the number of messages.
    SwapAnswers,
    /// It names a message that was never sent.
    MisnameAnswer,
    /// Behind it comes, once more, the last answer that somebody with another identity was sent; where nobody was yet,
    /// behind the connection's next one.
    CrossTalk,
    /// It tells of a content that is not the request's: one byte differs. Counted over the answers that tell of one.
    AlterAnswer,
}

impl Slip {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::IgnoreRequest,
        Self::CutConnection,
        Self::LoseAnswer,
        Self::RepeatAnswer,
        Self::SwapAnswers,
        Self::MisnameAnswer,
        Self::CrossTalk,
        Self::AlterAnswer,
    ];

    /// Its name in the text form.
    fn name(self) -> &'static str {
        match self {
            Self::IgnoreRequest => "ignore-requests",
            Self::CutConnection => "cut-connections",
            Self::LoseAnswer => "lose-answers",
            Self::RepeatAnswer => "repeat-answers",
            Self::SwapAnswers => "swap-answers",
            Self::MisnameAnswer => "misname-answers",
            Self::CrossTalk => "cross-talk",
            Self::AlterAnswer => "alter-answers",
        }
    }
}

impl fmt::Display for Slip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Exactly `times` of the first `among` of what is counted over the whole server, chosen by the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Targets {
    /// How many are hit; fewer, where fewer than `among` come.
    pub times: u64,
    /// How many are drawn from.
    pub among: u64,
    /// Which are hit.
    pub seed: u64,
}

impl ServerFault {
    pub(super) fn validate(&self) -> Result<(), ServerConfigError> {
        const HOUR: Duration = Duration::from_secs(3_600);
        const TICK: Duration = Duration::from_millis(1);
        match *self {
            Self::StallOnce { at, duration } => {
                up_to("at", at, Duration::ZERO, HOUR)?;
                up_to("duration", duration, Duration::ZERO, HOUR)
            }
            Self::Pause { every, duration } => {
                up_to("every", every, TICK, HOUR)?;
                up_to("duration", duration, Duration::ZERO, HOUR)
            }
            Self::GrowingDelay { growth, per } => {
                up_to("growth", growth, Duration::ZERO, HOUR)?;
                up_to("per", per, TICK, HOUR)
            }
            Self::LateBackpressure { by } => up_to("by", by, Duration::ZERO, HOUR),
            Self::DropAnswers { share, .. } => in_range("share", share, 0.0, 1.0),
            Self::LateAnswers { share, by, .. } => {
                in_range("share", share, 0.0, 1.0)?;
                up_to("by", by, Duration::ZERO, HOUR)
            }
            Self::Delay { law, .. } => law.validate(),
            Self::StarveConnections { nth, gap } => {
                whole("nth", nth, 1, u64::MAX)?;
                up_to("gap", gap, Duration::ZERO, HOUR)
            }
            Self::Slips { targets: Targets { times, among, .. }, .. } => {
                // So many positions are kept in memory.
                whole("times", times, 1, among.min(1_000_000))
            }
            Self::RefuseConnection { nth } => whole("nth", nth, 1, u64::MAX),
            Self::BadNeighbour { duration }
            | Self::DeafAfterLoss { duration }
            | Self::CostlyRefusals { duration } => up_to("duration", duration, Duration::ZERO, HOUR),
            Self::HalfClose { nth, at } | Self::SilentConnection { nth, at } => {
                whole("nth", nth, 1, u64::MAX)?;
                up_to("at", at, Duration::ZERO, HOUR)
            }
            Self::BurnCpu { share } => in_range("share", share, 0.0, 100.0),
            Self::Leak { bytes } => whole("bytes", bytes, 1, 1 << 30),
            Self::Grow { bytes, after } | Self::Swell { bytes, after } => {
                whole("bytes", bytes, 1, 1 << 36)?;
                whole("after", after, 1, u64::MAX)
            }
            Self::SlowPerConnection { slowness } => up_to("slowness", slowness, Duration::ZERO, HOUR),
            Self::KeepQueue { count } => whole("count", count, 1, 100_000_000),
            Self::NoBackpressure
            | Self::SilentRefusals
            | Self::ArrivalOrder
            | Self::ForgetOnStart
            | Self::OpenDoor
            | Self::ProcessedAtAdmission => Ok(()),
        }
    }

    /// Whether a fault of a share of the messages is to hit the one of this id. It depends on the share, the seed and
    /// the id only; with one seed, the smaller of two shares is part of the other. False for all other faults.
    #[must_use]
    pub fn hits(&self, message_id: &str) -> bool {
        match *self {
            Self::DropAnswers { share, seed } | Self::LateAnswers { share, seed, .. } => {
                unit(seed, message_id, 0) < share
            }
            _ => false,
        }
    }
}

fn whole(setting: &'static str, value: u64, min: u64, max: u64) -> Result<(), ServerConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(out_of_range(setting, value, &format!("{min} to {max}")))
}

fn out_of_range(setting: &'static str, value: impl fmt::Display, expected: &str) -> ServerConfigError {
    ServerConfigError::OutOfRange { setting, value: value.to_string(), expected: expected.to_owned() }
}

fn in_range(setting: &'static str, value: f64, min: f64, max: f64) -> Result<(), ServerConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(out_of_range(setting, value, &format!("{min} to {max}")))
}

/// The n-th number in [0, 1) that the seed and the text decide: FNV-1a of the text starts SplitMix64.
fn unit(seed: u64, text: &str, n: u64) -> f64 {
    let start = text.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut hash = start.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    // The upper 53 bits are as many as a double holds.
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_the_seed_decides() {
        let hit = |seed| -> Vec<u32> {
            let fault = ServerFault::DropAnswers { share: 0.1, seed };
            (0..10_000).filter(|n| fault.hits(&format!("run-0-0-{n}"))).collect()
        };
        let first = hit(1);
        // Binomial: 1,000 expected, standard deviation 30.
        assert!((850..1_150).contains(&first.len()), "{}", first.len());
        assert_eq!(first, hit(1));
        assert_ne!(first, hit(2));
    }

    #[test]
    fn all_and_nothing_are_shares_too() {
        for n in 0..1_000 {
            let id = n.to_string();
            assert!(ServerFault::DropAnswers { share: 1.0, seed: n }.hits(&id));
            assert!(!ServerFault::DropAnswers { share: 0.0, seed: n }.hits(&id));
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let targets = |times, among| Targets { times, among, seed: 0 };
        let slips = |targets| ServerFault::Slips { slip: Slip::LoseAnswer, targets };
        let (zero, second) = (Duration::ZERO, Duration::from_secs(1));
        for (fault, setting) in [
            (slips(targets(0, 10)), "times"),
            (slips(targets(11, 10)), "times"),
            (ServerFault::Pause { every: zero, duration: second }, "every"),
            (ServerFault::GrowingDelay { growth: second, per: zero }, "per"),
            (ServerFault::LateBackpressure { by: Duration::MAX }, "by"),
            (ServerFault::LateAnswers { share: f64::NAN, by: second, seed: 0 }, "share"),
            (ServerFault::LateAnswers { share: 1.0, by: Duration::MAX, seed: 0 }, "by"),
            (ServerFault::Delay { law: DelayLaw::Constant(Duration::MAX), seed: 0 }, "delay"),
            (ServerFault::Delay { law: DelayLaw::Uniform(second, zero), seed: 0 }, "delay"),
            (
                ServerFault::Delay { law: DelayLaw::Lognormal { median: second, sigma: 4.0 }, seed: 0 },
                "sigma",
            ),
            (ServerFault::StarveConnections { nth: 0, gap: second }, "nth"),
            (ServerFault::StarveConnections { nth: 1, gap: Duration::MAX }, "gap"),
            (ServerFault::SlowPerConnection { slowness: Duration::MAX }, "slowness"),
            (ServerFault::KeepQueue { count: 0 }, "count"),
            (ServerFault::RefuseConnection { nth: 0 }, "nth"),
            (ServerFault::BadNeighbour { duration: Duration::MAX }, "duration"),
            (ServerFault::DeafAfterLoss { duration: Duration::MAX }, "duration"),
            (ServerFault::HalfClose { nth: 0, at: second }, "nth"),
            (ServerFault::SilentConnection { nth: 1, at: Duration::MAX }, "at"),
            (ServerFault::BurnCpu { share: 101.0 }, "share"),
            (ServerFault::Leak { bytes: 0 }, "bytes"),
            (ServerFault::Grow { bytes: u64::MAX, after: 1 }, "bytes"),
            (ServerFault::Grow { bytes: 1, after: 0 }, "after"),
            (ServerFault::Swell { bytes: 0, after: 1 }, "bytes"),
        ] {
            let error = fault.validate().unwrap_err().to_string();
            assert!(error.contains(&format!("`{setting}`")), "{error}");
        }
        assert_eq!(slips(targets(10, 10)).validate(), Ok(()));
    }
}
