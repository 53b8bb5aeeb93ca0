//! What a self-test found: `floodline.selftest/1`.
//!
//! ```text
//! schema, verdict: "pass"|"fail"|"inconclusive", interrupted, took_s
//! rows: [{case, name, wrong: [text], settings: [[key, value]], outcome: "caught"|"clean"|"missed"|"false_alarm"|"inconclusive",
//!         expected: [{criterion, measured or null, names: [text], role: "named"|"follows"|"may", why or null}],
//!         seen: [criterion outcome], complaints: [text], took_s}]
//! environment
//! ```

use serde::{Deserialize, Serialize};

use super::{CriterionOutcome, Verdict};
use crate::environment::Environment;

/// The version of the JSON of a self-test. Fields are only ever added.
pub const SELFTEST_SCHEMA: &str = "floodline.selftest/1";

/// How a row ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// What was done wrong made its criteria fail, as it should, and no other.
    Caught,
    /// Nothing was wrong, and nothing failed.
    Clean,
    /// What was done wrong was not seen as it should be.
    Missed,
    /// Something failed that nothing was wrong with.
    FalseAlarm,
    /// The machine or the generator left it in doubt.
    Inconclusive,
}

impl Outcome {
    /// The words for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caught => "caught",
            Self::Clean => "clean",
            Self::Missed => "MISSED",
            Self::FalseAlarm => "FALSE ALARM",
            Self::Inconclusive => "inconclusive",
        }
    }

    fn verdict(self) -> Verdict {
        match self {
            Self::Caught | Self::Clean => Verdict::Pass,
            Self::Missed | Self::FalseAlarm => Verdict::Fail,
            Self::Inconclusive => Verdict::Inconclusive,
        }
    }
}

/// What became of one row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowResult {
    /// The case.
    pub case: String,
    /// The fault.
    pub name: String,
    /// What our own server was told; empty where nothing or the evidence was wrong.
    pub wrong: Vec<String>,
    /// The keys of the configuration that were set on top of the profile `smoke`.
    pub settings: Vec<(String, String)>,
    /// How it ended.
    pub outcome: Outcome,
    /// What had to fail.
    pub expected: Vec<ExpectedResult>,
    /// What failed or was in doubt.
    pub seen: Vec<CriterionOutcome>,
    /// What was not as it should be, a line each.
    pub complaints: Vec<String>,
    /// How long it took.
    pub took_s: f64,
}

/// One criterion that had to fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedResult {
    /// Its name.
    pub criterion: String,
    /// Exactly what it had to measure; null where that depends on time.
    pub measured: Option<String>,
    /// What its evidence had to name.
    pub names: Vec<String>,
    /// `named`, `follows` or `may`.
    pub role: String,
    /// Why one that is not the named one fails.
    pub why: Option<String>,
}

/// What became of all rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SelftestResults {
    /// [`SELFTEST_SCHEMA`].
    pub schema: String,
    /// Fail where something was missed or nothing was wrong with what failed; inconclusive where only the machine was.
    pub verdict: Verdict,
    /// Whether it was ended early.
    pub interrupted: bool,
    /// How long all rows took.
    pub took_s: f64,
    /// In the order in which they ran.
    pub rows: Vec<RowResult>,
    /// Where it ran.
    pub environment: Environment,
}

impl SelftestResults {
    /// The whole of these rows.
    #[must_use]
    pub fn of(rows: Vec<RowResult>, interrupted: bool) -> Self {
        Self {
            schema: SELFTEST_SCHEMA.to_owned(),
            verdict: Verdict::of_all(rows.iter().map(|row| row.outcome.verdict())),
            interrupted,
            took_s: rows.iter().map(|row| row.took_s).sum(),
            rows,
            environment: Environment::detect(),
        }
    }

    /// How many rows ended so.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        self.rows.iter().filter(|row| row.outcome == outcome).count()
    }
}
