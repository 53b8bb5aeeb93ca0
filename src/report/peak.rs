//! The search for the peak at a glance: every rate that was tried, and what it came to.

use std::fmt::Write as _;

use crate::result::Verdict;
use crate::result::peak::{PeakResults, RateTry};
use crate::units;

/// One line for each rate that was tried.
#[must_use]
pub fn tries(results: &PeakResults) -> String {
    let mut out = format!(
        "{} connections\n\n  {:<26}{:>12}{:>12}{:>10}{:>10}{:>10}{:>8}{:>8}{:>8}{:>10}  verdict\n",
        units::count(u64::from(results.connections)),
        "try",
        "offered",
        "served",
        "p50",
        "p99",
        "backlog",
        "client",
        "server",
        "others",
        "lateness"
    );
    results.tries.iter().for_each(|tried| row(&mut out, tried));
    out
}

/// What the search came to, in a line.
#[must_use]
pub fn last_line(results: &PeakResults) -> String {
    let found = match &results.peak {
        Some(peak) => format!("peak {peak}"),
        None if results.interrupted => "ended before a peak was confirmed".to_owned(),
        None => "no rate was confirmed".to_owned(),
    };
    let side = results.limiting_side.map(|side| format!(", limited by the {side}")).unwrap_or_default();
    format!("\n{}: {found}{side} (profile {})\n", results.verdict.as_str().to_uppercase(), results.profile)
}

fn row(out: &mut String, tried: &RateTry) {
    let latency = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), units::latency_us);
    let cores = |cores: Option<f64>| cores.map_or_else(|| "-".to_owned(), |cores| format!("{cores:.2}"));
    let whole = |rate: f64| units::count(rate.round() as u64);
    let verdict = match tried.verdict {
        Verdict::Pass => "held".to_owned(),
        Verdict::Skipped => "ended early".to_owned(),
        Verdict::Fail | Verdict::Inconclusive => {
            let side = tried.limiting_side.map(|side| format!(", {side}")).unwrap_or_default();
            format!("not held{side}")
        }
    };
    let _ = writeln!(
        out,
        "  {:<26}{:>12}{:>12}{:>10}{:>10}{:>10}{:>8}{:>8}{:>8}{:>10}  {verdict}",
        tried.phase,
        whole(tried.rate),
        whole(tried.served_rate),
        latency(tried.latency_p50_us),
        latency(tried.latency_p99_us),
        latency(tried.backlog_s.map(|seconds| seconds * 1e6)),
        cores(tried.client_cores),
        cores(tried.server_cores),
        cores(tried.foreign_cores),
        latency(tried.send_lateness_p99_us),
    );
    // The others are in the JSON.
    if let Some(reason) = tried.reasons.first() {
        let _ = writeln!(out, "  {:<26}{reason}", "");
    }
}
