//! JUnit XML, for CI servers: a suite a case, a test a criterion.
//!
//! `fail` is a failure; `inconclusive` an error, because nothing was found out; `skipped` is skipped.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::result::{CaseResults, CriterionOutcome, TestResults, Verdict};

/// The document.
///
/// # Errors
/// Where XML cannot hold it, which no text of ours is known to bring about.
pub fn document(results: &TestResults) -> Result<String, quick_junit::SerializeError> {
    let mut report = Report::new("floodline");
    report.add_test_suites(results.cases.iter().map(suite));
    if let Some(error) = &results.error {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_message(error);
        let mut suite = TestSuite::new("floodline");
        suite.add_test_case(TestCase::new("a case could not be run", status));
        report.add_test_suite(suite);
    }
    report.to_string()
}

fn suite(case: &CaseResults) -> TestSuite {
    let mut suite = TestSuite::new(&case.name);
    let offered_s = case.runs.iter().map(|run| run.run.offered_for_s).sum::<f64>();
    suite.set_time(Duration::try_from_secs_f64(offered_s).unwrap_or_default());
    suite.add_test_cases(case.criteria.iter().map(|criterion| test(&case.name, criterion)));
    suite
}

fn test(case: &str, criterion: &CriterionOutcome) -> TestCase {
    let mut status = match criterion.verdict {
        Verdict::Pass => TestCaseStatus::success(),
        Verdict::Fail => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Verdict::Inconclusive => TestCaseStatus::non_success(NonSuccessKind::Error),
        Verdict::Skipped => TestCaseStatus::skipped(),
    };
    if criterion.verdict != Verdict::Pass {
        status.set_message(format!("{} (limit: {})", criterion.measured, criterion.limit));
        status.set_type(criterion.verdict.as_str());
        status.set_description(criterion.evidence.join("\n"));
    }
    let mut test = TestCase::new(&criterion.name, status);
    test.set_classname(format!("floodline.{case}"));
    test
}

#[cfg(test)]
mod tests {
    use super::super::testing::one_of_each_verdict;
    use super::*;

    #[test]
    fn each_verdict_has_its_element() {
        let xml = document(&one_of_each_verdict()).unwrap();
        for part in [
            "<testsuite name=\"backpressure\" tests=\"4\"",
            "failures=\"1\"",
            "errors=\"1\"",
            "<failure message=\"2 &lt; 3 (limit: 0)\" type=\"fail\">on connections 1 &amp; 2</failure>",
            "<error message=\"2 &lt; 3 (limit: 0)\" type=\"inconclusive\">",
            "<skipped message=\"2 &lt; 3 (limit: 0)\" type=\"skipped\">",
            "classname=\"floodline.backpressure\"",
        ] {
            assert!(xml.contains(part), "{part}: {xml}");
        }
    }
}
