//! What a test of several cases found.

use serde::{Deserialize, Serialize};

use super::peak::PeakResults;
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

impl TestResults {
    /// A single load as a test of one case, `load`, so that whatever shows tests shows loads too.
    #[must_use]
    pub fn of_load(run: LoadTestResults) -> Self {
        let case = CaseResults {
            name: "load".to_owned(),
            verdict: run.verdict,
            reasons: run.reasons.clone(),
            criteria: run.criteria.clone(),
            incidents: Vec::new(),
            runs: Vec::new(),
        };
        let (verdict, interrupted, environment) = (run.verdict, run.interrupted, run.environment.clone());
        let runs = vec![PhaseRun { phase: "load".to_owned(), run }];
        let cases = vec![CaseResults { runs, ..case }];
        Self::of_cases(verdict, interrupted, "load", cases, environment)
    }

    /// The search for the peak as a test of one case.
    #[must_use]
    pub fn of_peak(peak: PeakResults) -> Self {
        let (verdict, interrupted) = (peak.verdict, peak.interrupted);
        let (profile, environment) = (peak.profile.clone(), peak.environment.clone());
        Self::of_cases(verdict, interrupted, &profile, vec![peak.into()], environment)
    }

    fn of_cases(
        verdict: Verdict,
        interrupted: bool,
        profile: &str,
        cases: Vec<CaseResults>,
        environment: Environment,
    ) -> Self {
        let schema = TEST_SCHEMA.to_owned();
        Self { schema, verdict, interrupted, profile: profile.to_owned(), cases, error: None, environment }
    }
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
