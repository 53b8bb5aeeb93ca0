//! What the search for the peak found: `floodline.peak/1`.
//!
//! ```text
//! schema, verdict, reasons, interrupted, profile, connections
//! peak: {rate, achieved_rate, interval: {lower, upper, confidence}, repeats, not_held_rate} or null
//! limiting_side: "server" | "generator" | "machine" | "ceiling" or null
//! fitted_capacity: messages per second or null
//! tries: [{phase, rate, verdict, reasons, limiting_side, achieved_rate, served_rate, latency_p50_us, latency_p99_us,
//!          backlog_s, client_cores, busiest_worker_cores, server_cores, foreign_cores, send_lateness_p99_us}]
//! burst: {due, answered, refused, lost, unsent, offered_s, drain_s, rate} or null
//! criteria, runs: [{phase, run: floodline.run/1}], environment
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{CaseResults, CriterionOutcome, PhaseRun, Verdict};
use crate::environment::Environment;
use crate::units;

/// The version of the JSON of a search for the peak. Fields are only ever added.
pub const PEAK_SCHEMA: &str = "floodline.peak/1";

/// What kept a rate from holding, or the search from going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitingSide {
    /// The server: the generator was on time and had CPU left, and nobody else took any.
    Server,
    /// The generator: it was late, or its busiest worker had no CPU left.
    Generator,
    /// The machine: other processes took CPU, or both sides together took all that there is.
    Machine,
    /// None of them: the search was to go no higher.
    Ceiling,
}

impl LimitingSide {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Generator => "generator",
            Self::Machine => "machine",
            Self::Ceiling => "ceiling",
        }
    }
}

impl fmt::Display for LimitingSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One try of a rate, by the search or to confirm it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateTry {
    /// Names its load among the runs.
    pub phase: String,
    /// Messages per second that were offered.
    pub rate: f64,
    /// `pass` where it held, `fail` where it did not, `inconclusive` where the generator or the machine may be why, and
    /// `skipped` where it was ended early.
    pub verdict: Verdict,
    /// Why it did not hold.
    pub reasons: Vec<String>,
    /// What kept it from holding; null where it held.
    pub limiting_side: Option<LimitingSide>,
    /// Messages per second that were answered, up to 500 ms after the load.
    pub achieved_rate: f64,
    /// Answers ÷ (the load's time + its backlog): what the server can do, where it was offered more.
    pub served_rate: f64,
    /// Median latency from the due instant.
    pub latency_p50_us: Option<f64>,
    /// 99th percentile of it.
    pub latency_p99_us: Option<f64>,
    /// How long the server went on answering after the load, beyond its shortest latency; null where none came.
    pub backlog_s: Option<f64>,
    /// Cores that the generator's process took.
    pub client_cores: Option<f64>,
    /// Of its busiest worker.
    pub busiest_worker_cores: Option<f64>,
    /// Cores that the server's process took; null where its process is not known.
    pub server_cores: Option<f64>,
    /// Cores that all other processes took.
    pub foreign_cores: Option<f64>,
    /// 99th percentile of how late the generator sent.
    pub send_lateness_p99_us: Option<f64>,
}

/// Where the figure lies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RepeatInterval {
    /// The lower end.
    pub lower: f64,
    /// The upper end.
    pub upper: f64,
    /// The confidence with which it holds the median of what such repeats achieve. A few repeats allow no more than
    /// their own range, which holds it with 1 − 2^(1 − n): 75 % with three.
    pub confidence: f64,
}

/// The highest rate that held in every confirming run. What holds in an open loop is achieved, so the repeats differ by
/// what fell behind only; what the search leaves open lies between `rate` and `not_held_rate`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PeakRate {
    /// The rate that was offered, messages per second.
    pub rate: f64,
    /// The median over the repeats of what was achieved.
    pub achieved_rate: f64,
    /// Where that lies, over the repeats.
    pub interval: RepeatInterval,
    /// How many confirming runs there were.
    pub repeats: u32,
    /// The lowest rate above it that did not hold, so the peak of this search lies between the two; null where the ceiling
    /// ended it.
    pub not_held_rate: Option<f64>,
}

impl fmt::Display for PeakRate {
    /// `98,000 msg/s (97,990 to 98,000 over 3 repeats, 75 % confidence)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |rate: f64| units::count(rate.round() as u64);
        write!(
            f,
            "{} ({} to {} over {} repeats, {:.0} % confidence)",
            units::per_second(self.achieved_rate),
            whole(self.interval.lower),
            whole(self.interval.upper),
            self.repeats,
            self.interval.confidence * 100.0
        )
    }
}

/// What became of the burst. Times are seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BurstResults {
    /// Messages, all due at once for all that matters.
    pub due: u64,
    /// Of those, answered.
    pub answered: u64,
    /// Refused.
    pub refused: u64,
    /// Without an answer.
    pub lost: u64,
    /// Never sent.
    pub unsent: u64,
    /// From the first due instant to the last.
    pub offered_s: f64,
    /// From the last due instant to the last answer or refusal; null where none came.
    pub drain_s: Option<f64>,
    /// Answers and refusals a second, from the first due instant on.
    pub rate: Option<f64>,
}

/// Everything that a search for the peak found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeakResults {
    /// [`PEAK_SCHEMA`].
    pub schema: String,
    /// How it ended: fail before inconclusive before pass.
    pub verdict: Verdict,
    /// Why it did not simply pass.
    pub reasons: Vec<String>,
    /// Whether it was ended early; what was not yet measured is then null or missing.
    pub interrupted: bool,
    /// The size: `smoke`, `quick` or `full`.
    pub profile: String,
    /// Connections that shared each rate.
    pub connections: u32,
    /// The figure; null where no rate was confirmed.
    pub peak: Option<PeakRate>,
    /// What kept the peak from being higher; null where nothing was found out about it.
    pub limiting_side: Option<LimitingSide>,
    /// The rate above which nothing more is achieved, by a fit over all tries; null where they show none.
    pub fitted_capacity: Option<f64>,
    /// Every rate that was tried, in order.
    pub tries: Vec<RateTry>,
    /// The burst; null where it did not take place.
    pub burst: Option<BurstResults>,
    /// What was checked.
    pub criteria: Vec<CriterionOutcome>,
    /// The loads, one for each try and the burst's.
    pub runs: Vec<PhaseRun>,
    /// Where it ran.
    pub environment: Environment,
}

impl From<PeakResults> for CaseResults {
    fn from(peak: PeakResults) -> Self {
        let PeakResults { verdict, reasons, criteria, runs, .. } = peak;
        Self { name: "peak".to_owned(), verdict, reasons, criteria, incidents: Vec::new(), runs }
    }
}
