//! One table of a test: case, criterion, limit, measured, verdict.

use std::fmt::Write as _;

use crate::result::{CaseResults, CriterionOutcome, TestResults, Verdict};

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
    let _ = writeln!(out, "\n{}: {}", case.name, case.verdict.as_str().to_uppercase());
    case_rows(&mut out, case);
    out
}

fn case_rows(out: &mut String, case: &CaseResults) {
    const HEADINGS: [&str; 4] = ["criterion", "limit", "measured", "verdict"];
    let cells = |criterion: &CriterionOutcome| {
        let CriterionOutcome { name, limit, measured, .. } = criterion.clone();
        [name, limit, measured, criterion.verdict.as_str().to_owned()]
    };
    let rows: Vec<[String; 4]> = case.criteria.iter().map(cells).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEADINGS[column].len()]).max().unwrap_or_default()
    };
    let [name, limit, measured] = [0, 1, 2].map(width);
    let row = |[a, b, c, d]: [&str; 4]| format!("  {a:<name$}  {b:<limit$}  {c:<measured$}  {d}\n");
    out.push_str(&row(HEADINGS));
    for (criterion, cells) in case.criteria.iter().zip(&rows) {
        out.push_str(&row(cells.each_ref().map(String::as_str)));
        for line in &criterion.evidence {
            let _ = writeln!(out, "  {:<name$}  {line}", "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_stand_under_their_headings_however_long_a_cell_is() {
        let outcome = |limit: &str, measured: &str, evidence: &[&str]| CriterionOutcome {
            name: "signal".to_owned(),
            limit: limit.to_owned(),
            measured: measured.to_owned(),
            verdict: if evidence.is_empty() { Verdict::Pass } else { Verdict::Fail },
            evidence: evidence.iter().map(|&line| line.to_owned()).collect(),
        };
        let long = "at most 100 ms after the first refusal";
        let results = CaseResults {
            name: "backpressure".to_owned(),
            verdict: Verdict::Fail,
            reasons: Vec::new(),
            criteria: vec![outcome("0", "569 µs", &[]), outcome(long, "none", &["no `backpressure` came"])],
            incidents: Vec::new(),
            runs: Vec::new(),
        };
        let text = case(&results);
        let expected = "
backpressure: FAIL
  criterion  limit                                   measured  verdict
  signal     0                                       569 µs    pass
  signal     at most 100 ms after the first refusal  none      fail
             no `backpressure` came
";
        assert_eq!(text, expected);
    }
}
