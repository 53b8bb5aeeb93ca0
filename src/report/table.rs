//! One table of a test: case, criterion, limit, measured, verdict.

use std::fmt::Write as _;

use crate::result::{CaseResults, TestResults, Verdict};

/// The columns' widths, at most; what is longer is not cut, it only moves what follows.
const WIDTHS: [usize; 3] = [34, 34, 38];

/// What a whole test came to, in a line.
#[must_use]
pub fn last_line(results: &TestResults) -> String {
    let counts = |verdict: Verdict| results.cases.iter().filter(|case| case.verdict == verdict).count();
    format!(
        "\n{}: {} of {} cases passed, {} failed, {} inconclusive, {} skipped (profile {})\n",
        results.verdict.as_str().to_uppercase(),
        counts(Verdict::Pass),
        results.cases.len(),
        counts(Verdict::Fail),
        counts(Verdict::Inconclusive),
        counts(Verdict::Skipped),
        results.profile
    )
}

/// The rows of one case.
#[must_use]
pub fn case(case: &CaseResults) -> String {
    let mut out = String::new();
    case_rows(&mut out, case);
    out
}

fn case_rows(out: &mut String, case: &CaseResults) {
    let [name, limit, measured] = WIDTHS;
    let _ = writeln!(out, "\n{}: {}", case.name, case.verdict.as_str().to_uppercase());
    let _ = writeln!(out, "  {:<name$} {:<limit$} {:<measured$} verdict", "criterion", "limit", "measured");
    for criterion in &case.criteria {
        let _ = writeln!(
            out,
            "  {:<name$} {:<limit$} {:<measured$} {}",
            criterion.name,
            criterion.limit,
            criterion.measured,
            criterion.verdict.as_str()
        );
        for line in &criterion.evidence {
            let _ = writeln!(out, "  {:<name$} {line}", "");
        }
    }
}
