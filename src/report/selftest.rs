//! The table of a self-test: fault, what had to fail, what failed, how it ended, how long it took.

use std::fmt::Write as _;

use crate::result::CriterionOutcome;
use crate::result::selftest::{ExpectedResult, Outcome, RowResult, SelftestResults};

/// The columns' widths, at most; what is longer is not cut, it only moves what follows.
const WIDTHS: [usize; 3] = [30, 40, 40];

/// What a whole self-test came to, in a line.
#[must_use]
pub fn last_line(results: &SelftestResults) -> String {
    format!(
        "\n{}: {} faults caught, {} missed, {} cases clean, {} false alarms, {} inconclusive, in {:.0} s\n",
        results.verdict.as_str().to_uppercase(),
        results.count(Outcome::Caught),
        results.count(Outcome::Missed),
        results.count(Outcome::Clean),
        results.count(Outcome::FalseAlarm),
        results.count(Outcome::Inconclusive),
        results.took_s
    )
}

/// One fault, below the head of its case where it is the `first`.
#[must_use]
pub fn row(result: &RowResult, first: bool) -> String {
    let [fault, expected, seen] = WIDTHS;
    let mut out = String::new();
    if first {
        let _ = writeln!(out, "\n{}", result.case);
        let _ = writeln!(out, "  {:<fault$} {:<expected$} {:<seen$} outcome", "fault", "expected", "seen");
    }
    let _ = writeln!(
        out,
        "  {:<fault$} {:<expected$} {:<seen$} {} ({:.1} s)",
        result.name,
        named(&result.expected),
        failed(result),
        result.outcome.as_str(),
        result.took_s
    );
    for complaint in &result.complaints {
        let _ = writeln!(out, "  {:<fault$} {complaint}", "");
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
