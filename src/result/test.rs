//! What a test of several cases found.

use serde::{Deserialize, Serialize};

use super::{CriterionOutcome, LoadTestResults, Verdict};
use crate::environment::Environment;

/// The version of the JSON of a test. Fields are only ever added.
pub const TEST_SCHEMA: &str = "floodline.test/1";

/// Everything that a test of several cases found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestResults {
    /// [`TEST_SCHEMA`].
    pub schema: String,
    /// The worst of the cases'.
    pub verdict: Verdict,
    /// Whether it was ended early: the cases that did not run are missing.
    pub interrupted: bool,
    /// The size of the cases: `smoke`, `quick` or `full`.
    pub profile: String,
    /// The cases, in the order in which they ran.
    pub cases: Vec<CaseResults>,
    /// Why a case could not be run; it and those after it are missing.
    #[serde(default)]
    pub error: Option<String>,
    /// Where it ran.
    pub environment: Environment,
}

/// What one case found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseResults {
    /// The case.
    pub name: String,
    /// How it ended: fail before inconclusive before pass.
    pub verdict: Verdict,
    /// Why it did not simply pass.
    pub reasons: Vec<String>,
    /// What was checked.
    pub criteria: Vec<CriterionOutcome>,
    /// What was done to the server and its connections meanwhile, in order.
    #[serde(default)]
    pub incidents: Vec<Incident>,
    /// Its loads.
    pub runs: Vec<PhaseRun>,
}

/// Something that was done on purpose while a load was offered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// In which phase.
    pub phase: String,
    /// Seconds after the start of its first load.
    pub at_s: f64,
    /// What, by which rule, to which of the proxy's connections; or the death of the server.
    pub what: String,
}

/// The load of one phase of a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseRun {
    /// The phase.
    pub phase: String,
    /// Its result.
    pub run: LoadTestResults,
}
