//! A result for people and for machines; one file a format.

pub mod calibration;
pub mod compare;
pub mod csv;
pub mod hdr_log;
pub mod history;
pub mod html;
pub mod json;
pub mod junit;
pub mod markdown;
pub mod peak;
pub mod plot;
pub mod selftest;
pub mod table;
pub mod terminal;
pub mod truth;

/// A result made by hand, for the tests of the formats.
#[cfg(test)]
mod testing {
    use crate::result::{CriterionOutcome, TestResults, Verdict, example};

    /// A load with a criterion of each verdict, named `a_pass` and so on.
    pub(super) fn one_of_each_verdict() -> TestResults {
        let outcome = |verdict: Verdict| CriterionOutcome {
            name: format!("a_{}", verdict.as_str()),
            limit: "0".to_owned(),
            measured: "2 < 3".to_owned(),
            verdict,
            evidence: vec!["on connections 1 & 2".to_owned()],
        };
        let mut run = example::clean();
        run.verdict = Verdict::Fail;
        run.criteria =
            [Verdict::Pass, Verdict::Fail, Verdict::Inconclusive, Verdict::Skipped].map(outcome).to_vec();
        let mut results = TestResults::of_load(run);
        results.profile = "smoke".to_owned();
        results.cases[0].name = "backpressure".to_owned();
        results
    }
}
