//! What a run found: versioned, with units in the names, and "no data" as null.
//!
//! Results of several shards merge into one ([`LoadTestResults::merge`]), because they carry their histograms.

pub mod calibration;
pub mod compare;
mod fan_out;
mod hdr_base64;
mod merge;
pub mod peak;
pub mod selftest;
mod test;
pub mod truth;
mod unmatched;
mod unopened;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::serialization::{Deserializer as HdrDeserializer, Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::environment::Environment;
use crate::ledger::Counts;
use crate::record::{LatencyHistogram, WindowSummary};
use crate::sampler::{ProcessSummary, Sample};
use crate::workload::Shard;

pub use fan_out::FanOut;
pub use merge::MergeError;
pub use test::{CaseResults, Incident, PhaseRun, TEST_SCHEMA, TestResults};
pub use unmatched::{UNMATCHED_KEPT, Unmatched, UnmatchedKind};
pub use unopened::Unopened;

/// The version of the JSON of one run. Fields are only ever added.
pub const RUN_SCHEMA: &str = "floodline.run/1";

/// How many outages are listed; the rest is counted.
pub const OUTAGES_KEPT: usize = 1_000;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not hold.
    Fail,
    /// It does not hold, but the generator or the machine, not the server, may be why.
    Inconclusive,
    /// The target cannot do what it asks for.
    Skipped,
}

impl Verdict {
    /// The verdict of a whole by those of its parts: fail before inconclusive before pass; skipped where all are, and
    /// where there is none, because nothing was checked.
    #[must_use]
    pub fn of_all(parts: impl IntoIterator<Item = Self>) -> Self {
        let weight = |verdict: &Self| match verdict {
            Self::Skipped => 0,
            Self::Pass => 1,
            Self::Inconclusive => 2,
            Self::Fail => 3,
        };
        parts.into_iter().max_by_key(weight).unwrap_or(Self::Skipped)
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
            Self::Skipped => "skipped",
        }
    }
}

/// One check: what was asked, what was seen, how it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CriterionOutcome {
    /// Its name, stable.
    pub name: String,
    /// What had to hold, for people.
    pub limit: String,
    /// What was measured, for people.
    pub measured: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why: counts, ids, windows; empty where there is nothing to add.
    #[serde(default)]
    pub evidence: Vec<String>,
}

/// A latency distribution in microseconds. Percentiles rank the `censored` above all values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatencyMeasurement {
    /// How many messages the percentiles rank, the censored included.
    pub count: u64,
    /// How many of them have no value: refused, lost or never sent.
    pub censored: u64,
    /// Smallest value.
    pub min: Option<f64>,
    /// Mean of the values.
    pub mean: Option<f64>,
    /// Standard deviation of the values.
    pub stddev: Option<f64>,
    /// Median; like every percentile null where its rank falls among the censored.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 95th percentile.
    pub p95: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// 99.9th percentile.
    pub p999: Option<f64>,
    /// Largest of all ranked; null where any is censored.
    pub max: Option<f64>,
    /// How many values were beyond what the histogram can hold (an hour).
    pub saturated: u64,
}

impl LatencyMeasurement {
    /// The measurement of a histogram, with `censored` more messages that rank above all its values.
    #[must_use]
    pub fn of(histogram: &LatencyHistogram, censored: u64) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        let quantile = |q: f64| histogram.quantile(q, censored).map(us);
        let moments = histogram.moments();
        Self {
            count: histogram.len() + censored,
            censored,
            min: moments.map(|m| us(m.min_ns)),
            mean: moments.map(|m| m.mean_ns / 1e3),
            stddev: moments.map(|m| m.stddev_ns / 1e3),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p95: quantile(0.95),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: moments.filter(|_| censored == 0).map(|m| us(m.max_ns)),
            saturated: histogram.saturated(),
        }
    }

    /// A percentile by its name (`p50`, `p90`, `p95`, `p99`, `p999` or `p99.9`, `max`); `None` for another name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<Option<f64>> {
        Some(match name {
            "p50" => self.p50,
            "p90" => self.p90,
            "p95" => self.p95,
            "p99" => self.p99,
            "p999" | "p99.9" => self.p999,
            "max" => self.max,
            _ => return None,
        })
    }
}

/// What was offered and what came back, in messages per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ThroughputMetrics {
    /// Messages due ÷ duration, both without the ramps; null in a closed loop, where nothing is due, and where the load
    /// was ended while it rose.
    pub offered_rate: Option<f64>,
    /// Processed answers to what was due outside the ramps, received by the end of that time plus 500 ms, ÷ duration.
    pub achieved_rate: f64,
}

/// How `wss://` was spoken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsSummary {
    /// Whether the server's certificate was checked; false by `--insecure`: then anybody may have answered.
    pub verified: bool,
    /// Whether a certificate of the client's own was at hand.
    pub client_certificate: bool,
    /// The name that was asked for, where it is not the URL's host.
    pub server_name: Option<String>,
}

/// What the load was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkloadSummary {
    /// The URL; null for a server of our own.
    pub target: Option<String>,
    /// How `wss://` was spoken; null for `ws://`.
    #[serde(default)]
    pub tls: Option<TlsSummary>,
    /// The dialect spoken.
    pub dialect: String,
    /// Messages per second; null for a closed loop.
    pub rate: Option<f64>,
    /// Connections over all shards.
    pub connections: u32,
    /// How long load was to be offered, without the ramps.
    pub duration_s: f64,
    /// How long the rate was to rise before that, and to fall after it. What was due then is accounted for and not timed:
    /// it is in `messages` and `per_connection`, and in no rate, latency, lateness, histogram or window.
    #[serde(default)]
    pub ramp_s: f64,
    /// Bytes of content a message.
    pub payload_bytes: usize,
    /// Which request is sent; null where the dialect has only one.
    #[serde(default)]
    pub request: Option<String>,
    /// With which priority; null where none is named.
    #[serde(default)]
    pub priority: Option<String>,
    /// Law of arrivals.
    pub arrival: String,
    /// Unanswered messages a connection, in a closed loop.
    pub window: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// How workers waited.
    pub pacer: String,
}

/// The counts of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MessageCounts {
    /// Messages that the schedule wanted sent; in a closed loop, those that were sent.
    pub due: u64,
    /// Of those, the ones that were never sent.
    pub unsent: u64,
    /// Of the `due`, those that were due in a ramp: the latency ranks the others.
    #[serde(default)]
    pub untimed_due: u64,
    /// Of the answered, those that were due in a ramp.
    #[serde(default)]
    pub untimed_answered: u64,
    /// The classes of what was sent, and of what came back.
    #[serde(flatten)]
    pub counts: Counts,
    /// By how many sequences the most displaced answer came behind.
    pub reorder_distance_max: u64,
    /// The first ids of lost messages, at most 100.
    pub missing_ids: Vec<String>,
    /// Those whose answers came behind that to a later message, at most 10 of a connection and 100 in all, like the following.
    #[serde(default)]
    pub reordered_ids: Vec<String>,
    /// Those that were answered more often than they were sent.
    #[serde(default)]
    pub duplicate_ids: Vec<String>,
    /// Those that were answered and never sent, where the answer names a connection of ours; else it is in `unmatched`.
    #[serde(default)]
    pub foreign_ids: Vec<String>,
    /// Those whose answer has not their content; answers without a form that tells of which are in `unmatched`.
    #[serde(default)]
    pub corrupted_ids: Vec<String>,
}

/// Sends that had to wait because the socket was full, as the server did not read, or because a lost connection was not
/// there again yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct BlockedSends {
    /// Messages that waited, of those due outside the ramps.
    pub messages: u64,
    /// The longest wait of one message.
    pub max_us: f64,
    /// How long connections stood blocked, added up over all of them, the ramps included.
    pub connection_s: f64,
}

/// The histograms of a run. In JSON each is an HdrHistogram V2 (deflate) in base64, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histograms {
    /// From due to answer.
    #[serde(with = "hdr_base64")]
    pub latency: LatencyHistogram,
    /// From send to answer.
    #[serde(with = "hdr_base64")]
    pub service_latency: LatencyHistogram,
    /// From due to the attempt to send.
    #[serde(with = "hdr_base64")]
    pub send_lateness: LatencyHistogram,
    /// From send to refusal.
    #[serde(with = "hdr_base64")]
    pub refusal_latency: LatencyHistogram,
}

/// What became of the connections.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ConnectionCounts {
    /// How many were to be opened.
    pub requested: u64,
    /// How many were, handshake included.
    pub established: u64,
    /// How many the target refused.
    pub refused: u64,
    /// How many ended for good before the load was over; those that were opened again did not.
    pub dropped: u64,
    /// How often a lost one was opened again.
    pub reconnects: u64,
    /// What ended or refused them, or kept them from being opened, with how often.
    pub reasons: std::collections::BTreeMap<String, u64>,
    /// Those that the generator itself could not open, which are not among the refused.
    #[serde(default)]
    pub unopened: Unopened,
    /// How long opening one took.
    pub setup_us: Option<LatencyMeasurement>,
    /// Of that, TCP.
    #[serde(default)]
    pub connect_us: Option<LatencyMeasurement>,
    /// Of that, the TLS handshake; null without TLS.
    #[serde(default)]
    pub tls_us: Option<LatencyMeasurement>,
    /// Of that, the handshake of the WebSocket.
    #[serde(default)]
    pub upgrade_us: Option<LatencyMeasurement>,
    /// How long it took until the last was open or had failed, seconds.
    #[serde(default)]
    pub opening_s: Option<f64>,
}

/// When what first happened, in seconds since the start of the load (below 0 in the ramp before it); null where it never
/// did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Moments {
    /// The first refusal (`queue_full`).
    pub first_refusal_s: Option<f64>,
    /// The first signal of backpressure, which may be about no message in particular.
    pub first_backpressure_s: Option<f64>,
    /// The last answer or refusal that gave a message its class: with `offered_for_s`, how long it took to drain.
    pub last_answer_s: Option<f64>,
}

impl Moments {
    /// Of two parts of one load, the first of the firsts and the last of the lasts.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let of = |a: Option<f64>, b: Option<f64>, pick: fn(f64, f64) -> f64| match (a, b) {
            (Some(a), Some(b)) => Some(pick(a, b)),
            (one, other) => one.or(other),
        };
        Self {
            first_refusal_s: of(self.first_refusal_s, other.first_refusal_s, f64::min),
            first_backpressure_s: of(self.first_backpressure_s, other.first_backpressure_s, f64::min),
            last_answer_s: of(self.last_answer_s, other.last_answer_s, f64::max),
        }
    }
}

/// One cut of a connection that was to be opened again. Times are seconds after the start of the load, below 0 in the
/// ramp before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    /// The connection's index over all shards.
    pub connection: u32,
    /// When it was lost; below 0 where that was before the load began.
    pub lost_at_s: f64,
    /// When it was open again; null where it was not.
    pub reconnected_at_s: Option<f64>,
    /// When everything that was unanswered when it was lost had been answered; null where something never was.
    pub recovered_at_s: Option<f64>,
    /// What ended it.
    pub reason: String,
    /// Messages that had been sent and were unanswered when it was lost.
    pub unanswered: u64,
    /// Sends again until it was lost once more.
    pub resent: u64,
}

impl Outage {
    /// Leaves the first [`OUTAGES_KEPT`] by when they began; how many others there were.
    pub fn keep_first(outages: &mut Vec<Self>) -> u64 {
        outages.sort_by(|a, b| a.lost_at_s.total_cmp(&b.lost_at_s).then(a.connection.cmp(&b.connection)));
        let more = outages.len().saturating_sub(OUTAGES_KEPT) as u64;
        outages.truncate(OUTAGES_KEPT);
        more
    }
}

/// One connection's own account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionSummary {
    /// Its index over all shards.
    pub connection: u32,
    /// Messages due on it.
    pub due: u64,
    /// Its counts.
    #[serde(flatten)]
    pub counts: Counts,
    /// Its answers that came by the end of the load plus 500 ms.
    #[serde(default)]
    pub achieved: u64,
    /// Upper bound of its 95th percentile from due (or from send in a closed loop), by coarse buckets, censored
    /// messages above all.
    pub latency_p95_at_most_us: Option<f64>,
}

/// What a message and a connection cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Client CPU microseconds an answered message.
    pub client_cpu_us_per_message: Option<f64>,
    /// Server CPU microseconds an answered message.
    pub server_cpu_us_per_message: Option<f64>,
    /// By how much the client's resident memory grew from before the first connection was opened to the most under load,
    /// divided by the connections. What a load takes whatever their number is part of it, so it tells of a connection
    /// where there are thousands.
    #[serde(default)]
    pub client_bytes_per_connection: Option<f64>,
    /// The same of the server.
    #[serde(default)]
    pub server_bytes_per_connection: Option<f64>,
}

/// CPU and memory of both sides.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// This process.
    pub client: Option<ProcessSummary>,
    /// The server's process, where it is on this machine.
    pub server: Option<ProcessSummary>,
    /// Cores that other processes took, the hypervisor included; null where it cannot be known.
    pub foreign_cpu_cores: Option<f64>,
    /// The part of it that the hypervisor withheld.
    pub stolen_cpu_cores: Option<f64>,
    /// The share of a core that the busiest worker of the generator took during the load, without the ramps.
    pub busiest_worker_cores: Option<f64>,
    /// Both over time; like the windows' their time counts from the start of the load, and is below 0 in the ramp before
    /// it.
    pub samples: Vec<Sample>,
}

/// Everything that one run of a load found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadTestResults {
    /// [`RUN_SCHEMA`].
    pub schema: String,
    /// How the run ended.
    pub verdict: Verdict,
    /// Why it did not simply pass.
    pub reasons: Vec<String>,
    /// Whether it was ended early.
    pub interrupted: bool,
    /// Distinguishes this run's ids from any other's.
    pub run_id: String,
    /// Which part of the load this is.
    pub shard: Shard,
    /// When the load started: after the ramp, where it has one.
    pub started_at_unix_ns: u64,
    /// For how long load was really offered, without the ramps, seconds.
    pub offered_for_s: f64,
    /// What was offered.
    pub workload: WorkloadSummary,
    /// Offered against achieved.
    #[serde(flatten)]
    pub throughput: ThroughputMetrics,
    /// When what first happened.
    #[serde(flatten)]
    pub moments: Moments,
    /// The counts.
    pub messages: MessageCounts,
    /// What became of the copies, where messages went to several connections; null otherwise.
    #[serde(default)]
    pub fan_out: Option<FanOut>,
    /// From due to answer, all messages ranked that were due outside the ramps; null in a closed loop, where nothing is due.
    pub latency_us: Option<LatencyMeasurement>,
    /// From send to answer, of what was answered.
    pub service_latency_us: Option<LatencyMeasurement>,
    /// From due to the attempt to send; null in a closed loop.
    pub send_lateness_us: Option<LatencyMeasurement>,
    /// From send to refusal; null where nothing was refused.
    pub refusal_latency_us: Option<LatencyMeasurement>,
    /// Sends that waited for a full socket.
    pub blocked_sends: BlockedSends,
    /// The distributions themselves.
    pub histograms: Histograms,
    /// One entry a second.
    pub windows: Vec<WindowSummary>,
    /// What became of the connections.
    pub connections: ConnectionCounts,
    /// Each connection's own account.
    pub per_connection: Vec<ConnectionSummary>,
    /// The first cuts, at most [`OUTAGES_KEPT`], of connections that were to be opened again.
    #[serde(default)]
    pub outages: Vec<Outage>,
    /// How many more there were.
    #[serde(default)]
    pub outages_not_listed: u64,
    /// The first messages, at most [`UNMATCHED_KEPT`], that were counted as foreign, corrupted or unattributed, as they came.
    #[serde(default)]
    pub unmatched: Vec<Unmatched>,
    /// CPU and memory.
    pub resources: Resources,
    /// CPU cost of a message.
    pub cost: Cost,
    /// What was checked.
    pub criteria: Vec<CriterionOutcome>,
    /// What the generator can do on this machine; null where it was not calibrated.
    #[serde(default)]
    pub calibration: Option<Box<calibration::Calibration>>,
    /// Where it ran.
    pub environment: Environment,
}

impl LoadTestResults {
    /// Takes the latency measurements anew from the histograms and the counts.
    pub fn measure(&mut self) {
        let MessageCounts { due, untimed_due, untimed_answered, counts, .. } = &self.messages;
        let histograms = &self.histograms;
        let open_loop = self.workload.rate.is_some();
        let some = |histogram: &LatencyHistogram| {
            (!histogram.is_empty()).then(|| LatencyMeasurement::of(histogram, 0))
        };
        // Every due message ranks but those of the ramps; whatever has no answer ranks above all answers.
        let (due, answered) =
            (due.saturating_sub(*untimed_due), counts.answered.saturating_sub(*untimed_answered));
        let censored = due.saturating_sub(answered);
        self.latency_us = open_loop.then(|| LatencyMeasurement::of(&histograms.latency, censored));
        self.service_latency_us = some(&histograms.service_latency);
        self.send_lateness_us = some(&histograms.send_lateness).filter(|_| open_loop);
        self.refusal_latency_us = some(&histograms.refusal_latency);
    }
}

#[cfg(test)]
pub(crate) mod example;

#[cfg(test)]
mod tests;
