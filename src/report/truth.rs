//! Expected against reported, for people.

use std::fmt::Write as _;

use crate::result::truth::{TruthResults, TruthRow};
use crate::units;

/// The heading of the table.
#[must_use]
pub fn head() -> String {
    format!(
        "{:<44}{:>10}{:>12}{:>12}{:>12}{:>12}  agrees\n",
        "server", "", "expected", "reported", "difference", "tolerance"
    )
}

/// The rows of one case.
#[must_use]
pub fn rows(rows: &[TruthRow]) -> String {
    let latency = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), units::latency_us);
    let mut out = String::new();
    for (place, row) in rows.iter().enumerate() {
        let case = if place == 0 { &*row.case } else { "" };
        let agrees = match row.agrees() {
            None => "floor",
            Some(true) => "yes",
            Some(false) if row.is_beyond_the_machine() => "unsure",
            Some(false) => "NO",
        };
        let tolerance = row.expected_us.map(|_| row.tolerance_us);
        let _ = writeln!(
            out,
            "{case:<44}{:>10}{:>12}{:>12}{:>12}{:>12}  {agrees}",
            row.percentile,
            latency(row.expected_us),
            latency(row.reported_us),
            latency(row.difference_us()),
            latency(tolerance),
        );
    }
    out
}

/// The line that sums it up.
#[must_use]
pub fn last_line(results: &TruthResults) -> String {
    let (agreeing, compared) = results.agreeing();
    format!("{}: {agreeing} of {compared} percentiles agree\n", results.verdict.as_str().to_uppercase())
}
