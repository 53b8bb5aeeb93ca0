//! Results kept in a local SQLite file, and where a figure moved to another level from run to run.
//!
//! Four tables: `runs` (when, which commit, on which machine), `loads` of each run, and of each load `metrics` (every number
//! of its JSON by its path, such as `latency_us.p99`) and `histograms` (HdrHistogram V2, deflated, nanoseconds).

pub mod series;
mod store;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use store::History;

/// The version of the JSON of a history. Fields are only ever added.
pub const HISTORY_SCHEMA: &str = "floodline.history/1";

/// A history cannot be read or written.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// SQLite cannot do it.
    #[error("{path}: {cause}", path = path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        cause: rusqlite::Error,
    },
    /// The file is something else.
    #[error("{path} is no history of floodline, or of a later version", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// There is no such file.
    #[error("{path}: there is no such file", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A result has no JSON.
    #[error("a result cannot be kept: {0}")]
    Json(#[from] serde_json::Error),
    /// A histogram does not serialise.
    #[error("a histogram cannot be kept: {0}")]
    Histogram(String),
}

/// One run that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredRun {
    /// Its number in the file.
    pub id: i64,
    /// `load`, `test` or `peak`.
    pub command: String,
    /// When it began.
    pub measured_at_unix_ns: u64,
    /// The commit that was checked out where it ran, `-dirty` behind it where something was not committed.
    pub commit: Option<String>,
    /// The class of its machine ([`Environment::fingerprint`](crate::environment::Environment::fingerprint)).
    pub fingerprint: String,
    /// How it ended.
    pub verdict: String,
    /// Its loads.
    pub loads: u64,
}

/// A figure of one load from run to run, on machines of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricSeries {
    /// The class of the machines.
    pub fingerprint: String,
    /// The load.
    pub load: String,
    /// What it offered, as in the result: a load that offers something else is another series.
    pub workload: serde_json::Value,
    /// The figure, by its path in the JSON.
    pub metric: String,
    /// Its values, the oldest first.
    pub points: Vec<SeriesPoint>,
    /// Where it moved to another level.
    pub changes: Vec<LevelChange>,
}

/// A value of a series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesPoint {
    /// The run's number in the file.
    pub run: i64,
    /// When it began.
    pub measured_at_unix_ns: u64,
    /// Its commit.
    pub commit: Option<String>,
    /// The value.
    pub value: f64,
}

/// Where a series moved to another level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LevelChange {
    /// The first run at the new level.
    pub run: i64,
    /// Its place among the points, from 0.
    pub index: usize,
    /// The median before.
    pub before: f64,
    /// The median from here on.
    pub after: f64,
}

/// What `floodline history` tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryResults {
    /// [`HISTORY_SCHEMA`].
    pub schema: String,
    /// The runs, the oldest first.
    pub runs: Vec<StoredRun>,
    /// The series of two values or more.
    pub series: Vec<MetricSeries>,
}
