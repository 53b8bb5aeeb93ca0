//! Faults as data: a [`Rule`] says what goes wrong, on which connections and when; its [`Verdict`] says
//! when it takes hold of one given connection. Seeded, with no clock and no I/O: the same rule says the
//! same of the same connection every time.
//!
//! What a fault does to the bytes of a connection is in [`effect`]; how a rule is written is in
//! [`Rule`]'s `FromStr`.

mod display;
pub mod effect;
mod meter;
mod seed;
mod text;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use seed::Draws;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every byte arrives later by `delay`, give or take up to `jitter`; order is kept. The runtime's timer
    /// adds 1 to 2 ms.
    Latency {
        /// The mean delay.
        delay: Duration,
        /// Each read is delayed by a uniform draw from `delay ± jitter`; at most `delay`.
        jitter: Duration,
        /// Which bytes.
        direction: Direction,
    },
    /// Bytes leave at no more than a given pace, as over a slow link.
    Bandwidth {
        /// The pace, in each direction.
        bytes_per_s: u64,
        /// Which bytes.
        direction: Direction,
    },
    /// Bytes are taken in at no more than a given pace, so that the sender's socket fills up.
    SlowReader {
        /// The pace, in each direction.
        bytes_per_s: u64,
        /// `to-client` reads slowly from the server, `to-server` slowly from the client.
        direction: Direction,
    },
    /// The connection is closed.
    Drop(Cut),
    /// One side is closed, and the other is not told: it may send, which is swallowed, and hears nothing.
    HalfOpen {
        /// The side that is closed.
        closed: Side,
    },
    /// Nothing gets through, and nothing is lost: what was held is delivered in order when the fault ends.
    /// A new connection reaches no server until then.
    Partition {
        /// Which bytes.
        direction: Direction,
    },
    /// Bytes are taken in and lost; the connection stays open.
    Silence {
        /// Which bytes.
        direction: Direction,
    },
    /// Single bytes are altered.
    Corrupt {
        /// How many, on each connection and in each direction.
        times: u32,
        /// One byte is altered in each successive stretch of this length, at a seeded place.
        spacing_bytes: u64,
        /// Which bytes.
        direction: Direction,
    },
}

/// How a connection is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both sides see an orderly end (FIN).
    Fin,
    /// Both sides see a reset (RST).
    Rst,
    /// The next bytes read are forwarded in part, then both sides see an end (FIN).
    MidFrame {
        /// Which bytes; with `Both`, whichever come first.
        direction: Direction,
    },
}

/// Which bytes of a connection a fault meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Those of the client and those of the server.
    Both,
    /// Those of the client.
    ToServer,
    /// Those of the server.
    ToClient,
}

impl Direction {
    /// Whether the bytes of `flow` are met.
    #[must_use]
    pub fn meets(self, flow: Flow) -> bool {
        match self {
            Self::Both => true,
            Self::ToServer => flow == Flow::ToServer,
            Self::ToClient => flow == Flow::ToClient,
        }
    }
}

/// One of the two streams of bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The client's bytes.
    ToServer,
    /// The server's bytes.
    ToClient,
}

/// One end of a proxied connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The end that connected to the proxy.
    Client,
    /// The end that the proxy connected to.
    Server,
}

/// Which connections a rule may meet. Connections are numbered from 0 in the order of their arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// A seeded share of them, drawn anew for each occurrence: exact to within one among the first *n*, and on
    /// average among those of them that are still open.
    Share(Share),
    /// Those with these numbers.
    Listed(Vec<u64>),
}

/// A share of the connections, from 0.001 to 1, exact to a millionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    millionths: u32,
}

impl Share {
    const WHOLE: u32 = 1_000_000;
    /// A smaller share would need thousands of draws to find the next occurrence that meets a connection.
    const LEAST: u32 = 1_000;

    /// The share `share`, rounded to a millionth; `None` outside 0.001 to 1.
    #[must_use]
    pub fn new(share: f64) -> Option<Self> {
        let millionths = (share * f64::from(Self::WHOLE)).round();
        let known = (f64::from(Self::LEAST)..=f64::from(Self::WHOLE)).contains(&millionths);
        known.then_some(Self { millionths: millionths as u32 })
    }

    /// The share as a number from 0.001 to 1.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.millionths) / f64::from(Self::WHOLE)
    }

    /// Whether connection `connection` is drawn.
    ///
    /// Stratified sampling (Cochran, *Sampling Techniques*, ch. 5): the numbers are cut into stretches of
    /// 1/share, and each stretch has exactly one of its connections drawn. So among the first *n*
    /// connections the share is exact to within one, where independent draws would often meet none of 20.
    fn draws(self, connection: u64, seed: u64) -> bool {
        let (share, whole) = (u128::from(self.millionths), u128::from(Self::WHOLE));
        let stretch = u128::from(connection) * share / whole;
        let first = (stretch * whole).div_ceil(share);
        let after = ((stretch + 1) * whole).div_ceil(share);
        // At most 1/LEAST connections to a stretch, and as many stretches as connections: both fit.
        let chosen = Draws::new(&[seed, stretch as u64]).below((after - first) as u64);
        u128::from(connection) == first + u128::from(chosen)
    }
}

/// When a rule holds, counted from the epoch that it is injected with.
///
/// Occurrence *j* begins at `from + j × every`. Without `every` there is one.
///
/// What `length` means depends on the fault. A lasting one (latency, partition …) holds for `length`, or
/// without it until the rule is removed, on every connection of its scope, also on those that are opened
/// meanwhile. A drop or a half-open happens at the beginning of an occurrence, to the connections then
/// open; with a `length` also to those that are opened within it, as they open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Schedule {
    /// The beginning of the first occurrence.
    pub from: Duration,
    /// How long each occurrence lasts.
    pub length: Option<Duration>,
    /// The time from the beginning of one occurrence to that of the next.
    pub every: Option<Duration>,
    /// The number of occurrences; `None` with `every` is without end.
    pub times: Option<u32>,
}

/// One fault, the connections that it may meet, and when. Always valid.
///
/// Its text form is what the command line takes and what it is displayed as:
///
/// ```
/// use floodline::fault::Rule;
///
/// let rule: Rule = "latency=20ms,jitter=5ms,share=0.1,from=10s,for=10s".parse()?;
/// assert_eq!(rule.to_string(), "latency=20ms,jitter=5ms,share=0.1,from=10s,for=10s");
/// let error = "drop=rst,share=3".parse::<Rule>().unwrap_err();
/// assert!(error.to_string().contains("`share=3`"));
/// # Ok::<(), floodline::fault::RuleError>(())
/// ```
///
/// The fault is one of `latency=DURATION`, `bandwidth=SIZE/s`, `slow-reader=SIZE/s`,
/// `drop=fin|rst|mid-frame`, `half-open[=client|server]` (the side closed; `server`), `corrupt=TIMES`,
/// `partition[=both|to-server|to-client]` and `silence[=both|to-server|to-client]` (`both`). Beside it may
/// stand, each once and in any order:
///
/// | key | default | meaning |
/// |---|---|---|
/// | `jitter` | 0 | of `latency`, at most as long |
/// | `spacing` | 1KiB | of `corrupt`: one byte is altered in each successive stretch of this length |
/// | `direction` | `both`; `to-client` for `slow-reader`, `corrupt` | of what has a direction |
/// | `share` or `connections` | all | a share such as 0.1, or numbers such as 0+3+7 |
/// | `from`, `for`, `every`, `times` | at once, for good, once | see [`Schedule`] |
/// | `seed` | 0 | of all that is drawn: connections, jitter, places |
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    fault: Fault,
    scope: Scope,
    schedule: Schedule,
    seed: u64,
}

/// A text is no fault rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuleError {
    /// The text names no fault.
    #[error("fault rule `{rule}` names no fault: one of {known}")]
    NoFault {
        /// The text.
        rule: String,
        /// The faults there are.
        known: &'static str,
    },
    /// The text names two faults, or a key twice.
    #[error("fault rule `{rule}`: `{item}` after `{earlier}`: a rule has one fault, and each key once")]
    Repeated {
        /// The text.
        rule: String,
        /// The first of the two.
        earlier: String,
        /// The second of the two.
        item: String,
    },
    /// A key that does not exist, or that does not belong to this fault.
    #[error("fault rule `{rule}`: `{item}`: {reason}")]
    Misplaced {
        /// The text.
        rule: String,
        /// The key and its value.
        item: String,
        /// Why it can't stand here.
        reason: &'static str,
    },
    /// A value that can't be read, or that makes no sense.
    #[error("fault rule `{rule}`: `{item}`: {expected}")]
    Value {
        /// The text.
        rule: String,
        /// The key and its value.
        item: String,
        /// What would have been understood.
        expected: String,
    },
}

/// When a rule takes hold of one connection, in nanoseconds from the rule's epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Which occurrence of the rule, from 0.
    pub occurrence: u64,
    /// The beginning; may lie before the connection was opened, where the occurrence was then under way.
    pub begins_ns: u64,
    /// The end; `None` lasts until the rule is removed.
    pub ends_ns: Option<u64>,
    /// The seed of what this occurrence draws on this connection (jitter, places).
    pub seed: u64,
}

impl Rule {
    /// A rule for `fault`.
    ///
    /// # Errors
    /// Where a value is out of its range, or contradicts another; the error names both rule and value.
    pub fn new(fault: Fault, scope: Scope, schedule: Schedule, seed: u64) -> Result<Self, RuleError> {
        let rule = Self { fault, scope, schedule, seed };
        match text::contradiction(&rule) {
            None => Ok(rule),
            Some((item, expected)) => Err(RuleError::Value { rule: rule.to_string(), item, expected }),
        }
    }

    /// What goes wrong.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// Which connections the rule may meet.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// When it holds.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        self.schedule
    }

    /// The seed of all that it draws.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// When the rule next takes hold of connection `connection`, which was opened `opened_ns` after the
    /// rule's epoch (0 where before it): the first occurrence later than `after` that meets it, or `None`
    /// where there will be none. An occurrence that was over when the connection was opened does not meet it.
    #[must_use]
    pub fn verdict(&self, connection: u64, opened_ns: u64, after: Option<u64>) -> Option<Verdict> {
        if matches!(&self.scope, Scope::Listed(numbers) if !numbers.contains(&connection)) {
            return None;
        }
        let first = after.map_or(0, |occurrence| occurrence + 1).max(self.first_met(opened_ns));
        let last = match (self.schedule.every, self.schedule.times) {
            (None, _) => 0,
            (Some(_), None) => u64::MAX,
            (Some(_), Some(times)) => u64::from(times) - 1,
        };
        (first..=last)
            // The time line ends after 584 years; an occurrence beyond it never begins.
            .map_while(|occurrence| Some((occurrence, self.begins_ns(occurrence)?)))
            .find(|&(occurrence, begins_ns)| self.meets(connection, opened_ns, occurrence, begins_ns))
            .map(|(occurrence, begins_ns)| Verdict {
                occurrence,
                begins_ns,
                ends_ns: self.schedule.length.map(|length| begins_ns.saturating_add(nanos(length))),
                seed: Draws::new(&[self.seed, connection, occurrence]).next(),
            })
    }

    /// The first occurrence that may not be over `opened_ns` after the epoch: a bound from below that
    /// spares a walk through all that have been.
    fn first_met(&self, opened_ns: u64) -> u64 {
        let (Some(every), from_ns) = (self.schedule.every, nanos(self.schedule.from)) else { return 0 };
        let length_ns = self.schedule.length.map_or(0, nanos);
        opened_ns.saturating_sub(from_ns.saturating_add(length_ns)) / nanos(every)
    }

    fn begins_ns(&self, occurrence: u64) -> Option<u64> {
        let every_ns = self.schedule.every.map_or(0, nanos);
        occurrence.checked_mul(every_ns)?.checked_add(nanos(self.schedule.from))
    }

    fn meets(&self, connection: u64, opened_ns: u64, occurrence: u64, begins_ns: u64) -> bool {
        let in_time = match self.schedule.length {
            Some(length) => opened_ns < begins_ns.saturating_add(nanos(length)),
            None => self.fault.lasts() || opened_ns <= begins_ns,
        };
        let drawn = match &self.scope {
            Scope::Share(share) => share.draws(connection, Draws::new(&[self.seed, occurrence]).next()),
            Scope::All | Scope::Listed(_) => true,
        };
        in_time && drawn
    }
}

impl Fault {
    /// Whether the fault holds a connection for a while, rather than striking it once.
    #[must_use]
    pub fn lasts(&self) -> bool {
        !matches!(self, Self::Drop(_) | Self::HalfOpen { .. })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
