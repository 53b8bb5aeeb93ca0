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

use crate::result::{CaseResults, LatencyMeasurement};

/// The latency of a case's slowest load, by the median; one without a median, as half of it was not answered, is slowest.
fn slowest(case: &CaseResults) -> Option<&LatencyMeasurement> {
    let each = case.runs.iter().filter_map(|run| run.run.latency_us.as_ref());
    let median = |latency: &LatencyMeasurement| latency.p50.unwrap_or(f64::INFINITY);
    each.max_by(|a, b| median(a).total_cmp(&median(b)))
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::TestResults;
    use crate::result::example;

    #[test]
    fn the_slowest_load_is_the_one_with_the_highest_median_or_none() {
        let mut case = TestResults::of_load(example::clean()).cases.remove(0);
        case.runs = vec![case.runs[0].clone(), case.runs[0].clone(), case.runs[0].clone()];
        let mut set = |at: usize, p50, p99| {
            let latency = case.runs[at].run.latency_us.as_mut().unwrap();
            (latency.p50, latency.p99) = (p50, p99);
            slowest(&case).map(|latency| (latency.p50, latency.p99)).unwrap()
        };
        set(0, Some(2.0), Some(900.0));
        set(1, Some(3.0), None);
        assert_eq!(set(2, Some(1.0), Some(4.0)), (Some(3.0), None));
        assert_eq!(set(0, None, None), (None, None));
    }
}
