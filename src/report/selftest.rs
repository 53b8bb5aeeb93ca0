//! The table of a self-test: how a fault ended, how long it took, what was planted, what had to fail, what failed.

use std::fmt::Write as _;

use crate::result::CriterionOutcome;
use crate::result::selftest::{ExpectedResult, Outcome, RowResult, SelftestResults};

/// The columns' widths: rows are printed as they come, so what is longer is not cut, it only moves what follows. What
/// matters most stands first.
const WIDTHS: [usize; 3] = [12, 36, 40];

/// What a whole self-test came to: the rows that are not as they should be once more, because the table is longer than what
/// a terminal or a CI log keeps of it, and the counts in a line.
#[must_use]
pub fn summary(results: &SelftestResults) -> String {
    let mut out = String::from("\n");
    for row in &results.rows {
        if !matches!(row.outcome, Outcome::Caught | Outcome::Clean) {
            let complaints = row.complaints.join("; ");
            let _ = writeln!(out, "{}: {}, {}: {complaints}", row.outcome.as_str(), row.case, row.name);
        }
    }
    let _ = writeln!(
        out,
        "{}: {} faults caught, {} missed, {} cases clean, {} false alarms, {} inconclusive, in {:.0} s",
        results.verdict.as_str().to_uppercase(),
        results.count(Outcome::Caught),
        results.count(Outcome::Missed),
        results.count(Outcome::Clean),
        results.count(Outcome::FalseAlarm),
        results.count(Outcome::Inconclusive),
        results.took_s
    );
    out
}

/// One fault, below the head of its case where it is the `first`.
#[must_use]
pub fn row(result: &RowResult, first: bool) -> String {
    let [outcome, fault, expected] = WIDTHS;
    let mut out = String::new();
    if first {
        let _ = writeln!(out, "\n{}", result.case);
        let heading = ["outcome", "took", "fault", "expected", "seen"];
        let [a, b, c, d, e] = heading;
        let _ = writeln!(out, "  {a:<outcome$} {b:>6}  {c:<fault$}  {d:<expected$}  {e}");
    }
    let _ = writeln!(
        out,
        "  {:<outcome$} {:>4.1} s  {:<fault$}  {:<expected$}  {}",
        result.outcome.as_str(),
        result.took_s,
        result.name,
        named(&result.expected),
        failed(result)
    );
    for complaint in &result.complaints {
        let _ = writeln!(out, "  {:<outcome$} {:>6}  {complaint}", "", "");
    }
    out
}

/// The criteria that the fault is planted for; those that follow are counted.
fn named(expected: &[ExpectedResult]) -> String {
    let of = |role: &'static str| expected.iter().filter(move |expected| expected.role == role);
    let each = of("named").map(|expected| match &expected.measured {
        Some(measured) => format!("{}: {measured}", expected.criterion),
        None => expected.criterion.clone(),
    });
    let follow = of("follows").count();
    let more = (follow > 0).then(|| format!("{follow} that follow"));
    let all: Vec<String> = each.chain(more).collect();
    if all.is_empty() { "nothing fails".to_owned() } else { all.join(", ") }
}

/// What was measured of the named criteria; all that failed where there are none.
fn failed(result: &RowResult) -> String {
    let is_named = |seen: &&CriterionOutcome| {
        let mut named = result.expected.iter().filter(|expected| expected.role == "named");
        result.expected.is_empty() || named.any(|expected| expected.criterion == seen.name)
    };
    let each: Vec<String> =
        result.seen.iter().filter(is_named).map(|seen| format!("{}: {}", seen.name, seen.measured)).collect();
    if each.is_empty() { "nothing failed".to_owned() } else { each.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Verdict;

    fn example(outcome: Outcome) -> RowResult {
        let expected = |criterion: &str, role: &str| ExpectedResult {
            criterion: criterion.to_owned(),
            measured: (role == "named").then(|| "3".to_owned()),
            names: Vec::new(),
            role: role.to_owned(),
            why: None,
        };
        let seen = |name: &str| CriterionOutcome {
            name: name.to_owned(),
            limit: "0".to_owned(),
            measured: "3".to_owned(),
            verdict: Verdict::Fail,
            evidence: Vec::new(),
        };
        RowResult {
            case: "ordering".to_owned(),
            name: "loses-answers".to_owned(),
            wrong: Vec::new(),
            settings: Vec::new(),
            outcome,
            expected: vec![expected("lost", "named"), expected("unanswered", "follows")],
            seen: vec![seen("lost"), seen("unanswered")],
            complaints: vec!["something is not as it should be".to_owned()],
            took_s: 0.96,
        }
    }

    #[test]
    fn a_row_shows_what_was_planted_what_was_seen_and_what_is_wrong() {
        let text = row(&example(Outcome::Caught), true);
        let columns = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = text.lines().map(columns).collect();
        assert_eq!(
            lines,
            [
                "",
                "ordering",
                "outcome took fault expected seen",
                "caught 1.0 s loses-answers lost: 3, 1 that follow lost: 3",
                "something is not as it should be",
            ]
        );
        assert_eq!(row(&example(Outcome::Caught), false).lines().count(), 2);
    }

    #[test]
    fn the_summary_names_what_is_not_as_it_should_be_and_counts_each_outcome() {
        let of = |outcomes: &[Outcome]| {
            let rows = outcomes.iter().map(|&outcome| example(outcome)).collect();
            SelftestResults::of(rows, false)
        };
        use Outcome::{Caught, Clean, FalseAlarm, Inconclusive, Missed};
        let summary = summary(&of(&[Caught, Caught, Clean, Missed, FalseAlarm, Inconclusive]));
        let lines: Vec<&str> = summary.lines().collect();
        let counts = "FAIL: 2 faults caught, 1 missed, 1 cases clean, 1 false alarms, 1 inconclusive, in 6 s";
        assert_eq!(
            lines,
            [
                "",
                "MISSED: ordering, loses-answers: something is not as it should be",
                "FALSE ALARM: ordering, loses-answers: something is not as it should be",
                "inconclusive: ordering, loses-answers: something is not as it should be",
                counts,
            ]
        );
        assert_eq!(of(&[Caught, Clean]).verdict, Verdict::Pass);
        assert_eq!(of(&[Caught, Inconclusive]).verdict, Verdict::Inconclusive);
    }
}
