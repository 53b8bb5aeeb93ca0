//! The plan of one load phase, parsed and validated once: what is offered, to whom, from how many connections.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio_tungstenite::tungstenite::http::Uri;

use crate::pacer::PacerKind;
use crate::retry::{PingPolicy, RetryPolicy};
use crate::schedule::{Arrival, Schedule};
use crate::units::{self, Rate, UnitError};

/// How load is offered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Offered {
    /// Open loop: message `n` is due at `n / rate` whatever the server does.
    Rate(Rate),
    /// Closed loop: each connection keeps its window of unanswered messages full.
    Max,
}

impl Offered {
    /// The rate, where there is one.
    #[must_use]
    pub fn rate(self) -> Option<Rate> {
        match self {
            Self::Rate(rate) => Some(rate),
            Self::Max => None,
        }
    }
}

impl FromStr for Offered {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text == "max" { Ok(Self::Max) } else { text.parse().map(Self::Rate) }
    }
}

impl fmt::Display for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => rate.fmt(f),
            Self::Max => f.write_str("max"),
        }
    }
}

/// Which part of a load this process offers: shard `index` of `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// From 0.
    pub index: u32,
    /// How many shards make the whole.
    pub of: u32,
}

impl Default for Shard {
    fn default() -> Self {
        Self { index: 0, of: 1 }
    }
}

impl FromStr for Shard {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let malformed = || UnitError::Malformed {
            value: text.to_owned(),
            expected: "a shard i/n with i from 0 to n-1, such as 0/2",
        };
        let (index, of) = text.split_once('/').ok_or_else(malformed)?;
        let shard =
            Self { index: index.parse().map_err(|_| malformed())?, of: of.parse().map_err(|_| malformed())? };
        if shard.index < shard.of { Ok(shard) } else { Err(malformed()) }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// A target could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TargetError {
    /// Not a URL at all.
    #[error("`{url}` is not a URL: {cause}")]
    Malformed {
        /// What was given.
        url: String,
        /// What the parser says.
        cause: String,
    },
    /// A URL, but not of a WebSocket.
    #[error("`{url}` is not a ws:// or wss:// URL")]
    Scheme {
        /// What was given.
        url: String,
    },
    /// The URL carries credentials, which would end up in reports and logs.
    #[error("the URL carries credentials; give a token by --token-env instead")]
    Credentials,
}

/// Where the load goes: a `ws://` or `wss://` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    uri: Uri,
    host: String,
    port: u16,
    tls: bool,
}

impl Target {
    /// The host as it stands in the URL, without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port: that of the URL, else 80 or 443.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// The same, asking for `path`, a query included, where this URL names nothing but the host.
    #[must_use]
    pub fn or_path(self, path: &str) -> Self {
        if self.uri.path() != "/" || self.uri.query().is_some() {
            return self;
        }
        let uri = format!("{}{path}", self.uri.to_string().trim_end_matches('/')).parse();
        Self { uri: uri.unwrap_or_else(|_| self.uri.clone()), ..self }
    }

    /// The whole URL.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.uri
    }
}

impl FromStr for Target {
    type Err = TargetError;
    fn from_str(url: &str) -> Result<Self, TargetError> {
        let malformed =
            |cause: &dyn fmt::Display| TargetError::Malformed { url: url.into(), cause: cause.to_string() };
        if url.contains('@') {
            return Err(TargetError::Credentials);
        }
        let uri: Uri = url.parse().map_err(|error| malformed(&error))?;
        let tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(TargetError::Scheme { url: url.into() }),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| malformed(&"no host"))?;
        // A port that is no port counts as none to the parser: look for what stands behind the host.
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let behind = authority.get(host.len()..).unwrap_or_default();
        if uri.port_u16().is_none() && !behind.is_empty() {
            return Err(malformed(&format!("`{behind}` is not a port")));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        if port == 0 {
            return Err(malformed(&"port 0"));
        }
        Ok(Self { uri, host, port, tls })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

/// A workload that makes no sense.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum WorkloadError {
    /// A load needs at least one connection.
    #[error("0 connections offer no load: give 1 or more")]
    NoConnections,
    /// More shards than connections leave a shard without any.
    #[error("{of} shards of {connections} connections leave shard {index} without one")]
    EmptyShard {
        /// Which shard.
        index: u32,
        /// Of how many.
        of: u32,
        /// How many connections there are.
        connections: u32,
    },
    /// A load that lasts no time.
    #[error("a load of 0 s sends nothing: give a duration above 0")]
    NoDuration,
    /// Only a rate can rise and fall.
    #[error("a closed loop has no rate that could rise over {}: give a rate, or no ramp", units::span(*ramp))]
    RampWithoutRate {
        /// What was asked for.
        ramp: Duration,
    },
    /// Poisson arrivals faster than they can be drawn.
    #[error("{rate} by Poisson arrivals, which are drawn one by one: give {limit} or less, or uniform arrivals", limit = units::per_second(POISSON_LIMIT_PER_SECOND))]
    PoissonTooFast {
        /// What was asked for.
        rate: Rate,
    },
    /// A closed loop that never sends.
    #[error("a window of 0 unanswered messages sends nothing: give 1 or more")]
    NoWindow,
    /// A payload larger than any server's message limit.
    #[error("a payload of {bytes} bytes is above the {limit} bytes that a message may have")]
    PayloadTooLarge {
        /// What was asked for.
        bytes: usize,
        /// The most that fits.
        limit: usize,
    },
    /// Giving up at once would lose every message.
    #[error("an answer time-out of 0 s loses every message: give more than 0")]
    NoAnswerTimeout,
    /// Trying again without a pause floods the server with handshakes.
    #[error(
        "a retry after 0 s, for ever, floods the server with handshakes: give an initial delay and a cap above 0"
    )]
    NoBackoff,
    /// A peer that need not have been pinged cannot be told from a dead one.
    #[error(
        "pings every {every:?} cannot tell after {dead_after:?} that a peer is dead: give a longer time than between pings"
    )]
    UselessPings {
        /// How often pings were to leave.
        every: Duration,
        /// When the peer was to be dead.
        dead_after: Duration,
    },
}

/// The largest payload: a message of 1 MiB less the room for its other fields.
pub const PAYLOAD_LIMIT_BYTES: usize = (1 << 20) - 4_096;

/// The highest rate of Poisson arrivals, messages per second. At 10 ns a draw even this takes a tenth of a core to count;
/// no generator comes near it.
pub const POISSON_LIMIT_PER_SECOND: f64 = 1e7;

/// A validated load phase.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// How load is offered.
    pub offered: Offered,
    /// Connections over all shards.
    pub connections: u32,
    /// How long load is offered, at the full rate where there is one.
    pub duration: Duration,
    /// How long the rate rises from 0 before that, and falls to 0 after it (open loop only): the messages due meanwhile
    /// are accounted for and not timed.
    pub ramp: Duration,
    /// The law of arrivals (open loop only).
    pub arrival: Arrival,
    /// Bytes of content a message.
    pub payload_bytes: usize,
    /// Unanswered messages a connection (closed loop only).
    pub window: usize,
    /// Without an answer for this long after its last send, a message is lost.
    pub answer_timeout: Duration,
    /// What came due before the end of the load is still sent for so long after it; what is left then is unsent.
    pub send_grace: Duration,
    /// Seed of everything random.
    pub seed: u64,
    /// How workers wait.
    pub pacer: PacerKind,
    /// Which part of the load this process offers.
    pub shard: Shard,
    /// Over how long the connections are opened.
    pub ramp_up: Duration,
    /// How long opening one connection may take, handshake included.
    pub connect_timeout: Duration,
    /// When a lost connection is opened again; `None` leaves it lost.
    pub retry: Option<RetryPolicy>,
    /// How a silent peer is found out; `None` waits for what the network says.
    pub ping: Option<PingPolicy>,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            offered: Offered::Max,
            connections: 100,
            duration: Duration::from_secs(10),
            ramp: Duration::ZERO,
            arrival: Arrival::Uniform,
            payload_bytes: 1_024,
            window: 32,
            answer_timeout: Duration::from_secs(30),
            // As long as answers count as achieved: what leaves later can't any more.
            send_grace: Duration::from_millis(500),
            seed: 1,
            pacer: PacerKind::Timer,
            shard: Shard::default(),
            ramp_up: Duration::ZERO,
            connect_timeout: Duration::from_secs(10),
            retry: None,
            ping: None,
        }
    }
}

impl Workload {
    /// Checks that the workload can be run.
    ///
    /// # Errors
    /// Where a value makes no sense; see [`WorkloadError`].
    pub fn validated(self) -> Result<Self, WorkloadError> {
        let Shard { index, of } = self.shard;
        let connections = self.connections;
        if let Some(PingPolicy { every, dead_after }) = self.ping
            && (every.is_zero() || dead_after <= every)
        {
            return Err(WorkloadError::UselessPings { every, dead_after });
        }
        if let Offered::Rate(rate) = self.offered
            && self.arrival == Arrival::Poisson
            && rate.as_per_second() > POISSON_LIMIT_PER_SECOND
        {
            return Err(WorkloadError::PoissonTooFast { rate });
        }
        match () {
            () if connections == 0 => Err(WorkloadError::NoConnections),
            () if index >= connections => Err(WorkloadError::EmptyShard { index, of, connections }),
            () if self.duration.is_zero() => Err(WorkloadError::NoDuration),
            () if !self.ramp.is_zero() && self.offered == Offered::Max => {
                Err(WorkloadError::RampWithoutRate { ramp: self.ramp })
            }
            () if self.window == 0 => Err(WorkloadError::NoWindow),
            () if self.answer_timeout.is_zero() => Err(WorkloadError::NoAnswerTimeout),
            () if self.retry.is_some_and(|retry| retry.initial.min(retry.cap).is_zero()) => {
                Err(WorkloadError::NoBackoff)
            }
            () if self.payload_bytes > PAYLOAD_LIMIT_BYTES => {
                Err(WorkloadError::PayloadTooLarge { bytes: self.payload_bytes, limit: PAYLOAD_LIMIT_BYTES })
            }
            () => Ok(self),
        }
    }

    /// The indices of the connections that this shard opens.
    pub fn shard_connections(&self) -> impl Iterator<Item = u32> + use<> {
        (self.shard.index..self.connections).step_by(self.shard.of.max(1) as usize)
    }

    /// The schedule of the load, for an open loop.
    #[must_use]
    pub fn schedule(&self) -> Option<Schedule> {
        let rate = self.offered.rate()?;
        let Self { connections, duration, ramp, arrival, seed, .. } = *self;
        Some(Schedule { rate, arrival, connections, duration, ramp, seed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_once_and_for_all() {
        let target: Target = "ws://127.0.0.1:9001/ws?x=1".parse().unwrap();
        assert_eq!((target.host(), target.port(), target.tls()), ("127.0.0.1", 9001, false));
        let target: Target = "wss://example.org".parse().unwrap();
        assert_eq!((target.host(), target.port(), target.tls()), ("example.org", 443, true));
        assert_eq!("ws://[::1]:80/".parse::<Target>().unwrap().host(), "::1");
        for (url, asked) in [
            ("ws://h:1", "ws://h:1/p/?a=b"),
            ("ws://h:1/", "ws://h:1/p/?a=b"),
            ("ws://h:1/q", "ws://h:1/q"),
            ("ws://h:1/?c=d", "ws://h:1/?c=d"),
        ] {
            assert_eq!(url.parse::<Target>().unwrap().or_path("/p/?a=b").to_string(), asked);
        }
    }

    #[test]
    fn what_is_no_websocket_url_is_refused_with_the_text() {
        for url in
            ["http://localhost/", "localhost:80", "", "ws://", "ws://host:99999/", "ws:///path", "ws://h:0/"]
        {
            let error = url.parse::<Target>().err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(&format!("`{url}`")), "{url}: {error}");
        }
        let error = "ws://user:secret@host/".parse::<Target>().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn workloads_without_sense_are_refused() {
        let base = Workload::default;
        let refused = |workload: Workload| workload.validated().unwrap_err();
        assert_eq!(refused(Workload { connections: 0, ..base() }), WorkloadError::NoConnections);
        assert_eq!(refused(Workload { duration: Duration::ZERO, ..base() }), WorkloadError::NoDuration);
        assert_eq!(refused(Workload { window: 0, ..base() }), WorkloadError::NoWindow);
        assert_eq!(
            refused(Workload { answer_timeout: Duration::ZERO, ..base() }),
            WorkloadError::NoAnswerTimeout
        );
        let ramp = Duration::from_secs(1);
        let error = refused(Workload { ramp, offered: Offered::Max, ..base() });
        assert_eq!(error, WorkloadError::RampWithoutRate { ramp });
        let rate = Offered::Rate(Rate::per_second(1.0).unwrap());
        assert!(Workload { ramp, offered: rate, ..base() }.validated().is_ok());
        let arrival = Arrival::Poisson;
        let at = |per_second| Offered::Rate(Rate::per_second(per_second).unwrap());
        let rate = Rate::per_second(1.1e7).unwrap();
        let error = refused(Workload { arrival, offered: at(1.1e7), ..base() });
        assert_eq!(error, WorkloadError::PoissonTooFast { rate });
        assert!(Workload { arrival, offered: at(1e7), ..base() }.validated().is_ok());
        let shard = Shard { index: 3, of: 4 };
        let error = refused(Workload { connections: 3, shard, ..base() });
        assert_eq!(error, WorkloadError::EmptyShard { index: 3, of: 4, connections: 3 });
        let retry = |initial| Some(RetryPolicy { initial, ..RetryPolicy::default() });
        assert_eq!(refused(Workload { retry: retry(Duration::ZERO), ..base() }), WorkloadError::NoBackoff);
        let every = Duration::from_secs(3);
        let ping = Some(PingPolicy { every, dead_after: every });
        let error = refused(Workload { ping, ..base() });
        assert_eq!(error, WorkloadError::UselessPings { every, dead_after: every });
        let bytes = PAYLOAD_LIMIT_BYTES + 1;
        let error = refused(Workload { payload_bytes: bytes, ..base() });
        assert_eq!(error, WorkloadError::PayloadTooLarge { bytes, limit: PAYLOAD_LIMIT_BYTES });
        assert!(base().validated().is_ok());
    }

    #[test]
    fn shards_share_the_connections_without_overlap() {
        let shard = |index| Workload { connections: 7, shard: Shard { index, of: 3 }, ..Workload::default() };
        let mut all: Vec<u32> = (0..3).flat_map(|index| shard(index).shard_connections()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..7).collect::<Vec<_>>());
        for text in ["", "1", "2/2", "-1/2", "a/b", "0/0"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
