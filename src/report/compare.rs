//! A comparison for people: a table, and the same in Markdown for a comment at a pull request.

use std::fmt::Write as _;

use super::markdown::escape;
use crate::result::Verdict;
use crate::result::compare::{Change, CompareResults, MetricChange};
use crate::units;

/// The table, the verdict, and what limits it.
#[must_use]
pub fn summary(results: &CompareResults) -> String {
    let mut out = format!("A  {}\nB  {}\n", results.a.name, results.b.name);
    let head = ["load", "figure", "A", "B", "B ÷ A", "interval", "p", "verdict"].map(str::to_owned);
    let rows: Vec<[String; 8]> = std::iter::once(head).chain(results.metrics.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 8] = std::array::from_fn(width);
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let blanks = " ".repeat(widths[column] - cell.chars().count());
            // Words to the left, numbers to the right.
            let _ = match column {
                0 | 1 | 7 => write!(line, "  {cell}{blanks}"),
                _ => write!(line, "  {blanks}{cell}"),
            };
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    let _ = writeln!(out, "\n{}", headline(results));
    results.reasons.iter().for_each(|reason| {
        let _ = writeln!(out, "  {reason}");
    });
    results.notes.iter().for_each(|note| {
        let _ = writeln!(out, "note: {note}");
    });
    out
}

/// The same in Markdown.
#[must_use]
pub fn markdown(results: &CompareResults) -> String {
    let mut out = format!("**{}**\n\n", escape(&headline(results)));
    let _ = writeln!(out, "A: {}, B: {}\n", escape(&results.a.name), escape(&results.b.name));
    out.push_str(
        "| load | figure | A | B | B ÷ A | interval | p | verdict |\n|---|---|--:|--:|--:|--:|--:|---|\n",
    );
    for metric in &results.metrics {
        let cells: Vec<String> = row(metric).iter().map(|cell| escape(cell)).collect();
        let verdict = if metric.verdict == Change::Worse { "**" } else { "" };
        let _ = writeln!(out, "| {} | {verdict}{}{verdict} |", cells[..7].join(" | "), cells[7]);
    }
    for reason in &results.reasons {
        let _ = write!(out, "\n- {}", escape(reason));
    }
    for note in &results.notes {
        let _ = write!(out, "\n- note: {}", escape(note));
    }
    out.push('\n');
    out
}

fn headline(results: &CompareResults) -> String {
    let count = |verdict| results.metrics.iter().filter(|metric| metric.verdict == verdict).count();
    let verdict = match results.verdict {
        Verdict::Fail => "WORSE",
        Verdict::Pass if count(Change::Better) > 0 => "BETTER",
        Verdict::Pass => "NO CHANGE",
        Verdict::Inconclusive | Verdict::Skipped => "INCONCLUSIVE",
    };
    let how = match results.pairs {
        0 => "two results".to_owned(),
        pairs => format!("{pairs} pairs in turn"),
    };
    format!(
        "{verdict}: {} worse, {} better, {} without a change, {} not judged ({how})",
        count(Change::Worse),
        count(Change::Better),
        count(Change::NoChange),
        count(Change::Unknown)
    )
}

fn row(metric: &MetricChange) -> [String; 8] {
    let none = || "–".to_owned();
    let interval = metric
        .interval
        .map_or_else(none, |interval| format!("{:.3} to {:.3}", interval.lower, interval.upper));
    let verdict = match (metric.verdict, metric.largest_change) {
        (Change::NoChange, Some(largest)) => {
            format!("no change larger than {}", short_percent(largest.max(metric.threshold)))
        }
        (Change::Better | Change::Worse, _) => {
            format!("{} (noise {})", metric.verdict.as_str(), short_percent(metric.threshold))
        }
        (verdict, _) => verdict.as_str().to_owned(),
    };
    [
        metric.load.clone(),
        metric.metric.clone(),
        shown(metric, metric.a),
        shown(metric, metric.b),
        format!("{:.3}", metric.ratio),
        interval,
        metric.p_adjusted.map_or_else(none, |p| format!("{p:.3}")),
        verdict,
    ]
}

/// A value in the unit that its figure's name ends with.
fn shown(metric: &MetricChange, value: f64) -> String {
    match &*metric.metric {
        name if name.ends_with("_us") || name.ends_with("_us_per_message") => units::latency_us(value),
        name if name.contains("_bytes_") => units::bytes(value.round() as u64),
        _ => units::per_second(value),
    }
}

fn short_percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
