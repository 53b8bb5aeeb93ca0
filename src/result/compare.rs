//! What a comparison of two found: `floodline.compare/1`.

use serde::{Deserialize, Serialize};

use super::calibration::Generator;
use super::{Verdict, WorkloadSummary};
use crate::environment::Environment;

/// The version of the JSON of a comparison. Fields are only ever added.
pub const COMPARE_SCHEMA: &str = "floodline.compare/1";

/// What a comparison says of one figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// B is better than A, by more than the machine's noise.
    Better,
    /// B is worse than A, by more than the machine's noise.
    Worse,
    /// No change larger than [`MetricChange::largest_change`] is there.
    NoChange,
    /// There is too little to judge by: a ratio, but no interval.
    Unknown,
}

impl Change {
    /// The words for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NoChange => "no change",
            Self::Unknown => "unknown",
        }
    }
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// The file, executable or URL.
    pub name: String,
    /// Messages that were due, over all its loads.
    pub due: u64,
    /// Of those, the ones that were answered.
    pub answered: u64,
}

/// Where a ratio lies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RatioInterval {
    /// The lower end.
    pub lower: f64,
    /// The upper end.
    pub upper: f64,
}

/// One figure of both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricChange {
    /// Of which load: `paced` or `closed`, or the case and load of a result.
    pub load: String,
    /// Which figure, with its unit in the name.
    pub metric: String,
    /// Whether more of it is better.
    pub higher_is_better: bool,
    /// A's: the median of its runs.
    pub a: f64,
    /// B's.
    pub b: f64,
    /// B over A: by pairs where they were measured in turn.
    pub ratio: f64,
    /// Where the ratio lies; null where the data tell nothing of their spread.
    pub interval: Option<RatioInterval>,
    /// How often two of the same would look at least as different; null where they were not measured in turn.
    pub p_value: Option<f64>,
    /// The same, with all figures judged together (Holm).
    pub p_adjusted: Option<f64>,
    /// A change up to this share is the machine's noise: 0.02 is 2 %.
    pub threshold: f64,
    /// The largest change that the interval holds, as a share.
    pub largest_change: Option<f64>,
    /// What that comes to.
    pub verdict: Change,
    /// A's and B's value of each pair, in the order in which they were measured.
    #[serde(default)]
    pub pairs: Vec<(f64, f64)>,
}

/// What two of the same differ by on this machine, and so what a difference is measured against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// When it was measured.
    pub measured_at_unix_ns: u64,
    /// By which executable, on which machine.
    pub generator: Generator,
    /// Of which loads, and of which A: it holds for the same ones only.
    pub plan: String,
    /// What pairs of the same thing measured, for each figure.
    pub metrics: Vec<MetricNoise>,
    /// What other processes took meanwhile, in cores.
    pub foreign_cpu_cores: Option<f64>,
}

/// The noise of one figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricNoise {
    /// As in [`MetricChange::load`].
    pub load: String,
    /// As in [`MetricChange::metric`].
    pub metric: String,
    /// Both values of each pair, in the order in which they were measured.
    pub pairs: Vec<(f64, f64)>,
}

/// Everything that a comparison found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompareResults {
    /// [`COMPARE_SCHEMA`].
    pub schema: String,
    /// `fail` where a figure is worse, or B left unanswered what A did not; `inconclusive` where there was nothing to
    /// judge by.
    pub verdict: Verdict,
    /// Why it did not simply pass.
    pub reasons: Vec<String>,
    /// What limits what it says.
    pub notes: Vec<String>,
    /// `interleaved` or `results`.
    pub method: String,
    /// What B is compared with.
    pub a: Side,
    /// What is judged.
    pub b: Side,
    /// How many pairs were measured, those that are left out too; 0 for results.
    pub pairs: u32,
    /// Which of the two came first in each of them, drawn by lot: `AB BA …`; empty for results.
    #[serde(default)]
    pub order: String,
    /// The loads of each; empty for results, which name their own.
    pub workloads: Vec<WorkloadSummary>,
    /// The figures.
    pub metrics: Vec<MetricChange>,
    /// The machine's noise; null where it was not measured.
    pub noise: Option<Noise>,
    /// What other processes took, in cores; of two results, the most in any load.
    pub foreign_cpu_cores: Option<f64>,
    /// Where it ran.
    pub environment: Environment,
}
