//! What is kept of earlier runs: as a table, and as a page with a plot a figure.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use super::html::{document, escape};
use super::plot::{Axis, Plot, Series};
use crate::history::{HistoryResults, LevelChange, MetricSeries, StoredRun};
use crate::units;

/// The runs, and where something changed.
#[must_use]
pub fn summary(history: &HistoryResults) -> String {
    let mut out = format!("{:<20}  {:<8}  {:<5}  {:<16}  commit\n", "run", "command", "loads", "machine");
    for run in &history.runs {
        let _ = writeln!(
            out,
            "{:<20}  {:<8}  {:>5}  {:<16}  {}  {}",
            time(run.measured_at_unix_ns),
            run.command,
            run.loads,
            run.fingerprint,
            shown_commit(run.commit.as_deref()),
            run.verdict
        );
    }
    let changed = history.series.iter().filter(|series| !series.changes.is_empty());
    let points: usize = history.series.iter().map(|series| series.points.len()).sum();
    let _ = writeln!(out, "\n{} series, {} values", history.series.len(), units::count(points as u64));
    let mut none = true;
    for series in changed {
        for change in &series.changes {
            none = false;
            let _ = writeln!(out, "  {}", told(series, change));
        }
    }
    if none {
        out.push_str("  no change of level\n");
    }
    out
}

/// A page that needs nothing else: the changes first, then each series.
#[must_use]
pub fn page(history: &HistoryResults) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<header>\n<div>\n<h1>{} runs, {} changes of level</h1>\n</div>\n</header>",
        history.runs.len(),
        history.series.iter().map(|series| series.changes.len()).sum::<usize>()
    );
    changes(&mut out, &history.series);
    out.push_str("<div class=\"plots\">\n");
    for series in &history.series {
        let Some(svg) = plot(series).svg() else { continue };
        let machine = format!("machine {}", series.fingerprint);
        let _ = writeln!(
            out,
            "<figure><h3>{} {}</h3>\n{svg}<figcaption>{}</figcaption></figure>",
            escape(&series.load),
            escape(&series.metric),
            escape(&machine)
        );
    }
    out.push_str("</div>\n");
    runs(&mut out, &history.runs);
    document("floodline history", &out)
}

fn changes(out: &mut String, series: &[MetricSeries]) {
    out.push_str("<table class=\"overview\"><thead><tr><th>load</th><th>figure</th><th>from run</th><th>commit</th><th class=\"number\">before</th><th class=\"number\">after</th><th class=\"number\">change</th></tr></thead><tbody>\n");
    for series in series {
        for change in &series.changes {
            let point = &series.points[change.index];
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{:+.1} %</td></tr>",
                escape(&series.load),
                escape(&series.metric),
                time(point.measured_at_unix_ns),
                escape(&shown_commit(point.commit.as_deref())),
                shown(series, change.before),
                shown(series, change.after),
                percent(change)
            );
        }
    }
    out.push_str("</tbody></table>\n");
}

fn runs(out: &mut String, runs: &[StoredRun]) {
    let _ = writeln!(
        out,
        "<details><summary>All runs ({})</summary>\n<table><thead><tr><th>run</th><th>command</th><th>verdict</th><th>machine</th><th>commit</th></tr></thead><tbody>",
        runs.len()
    );
    for run in runs {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            time(run.measured_at_unix_ns),
            escape(&run.command),
            escape(&run.verdict),
            escape(&run.fingerprint),
            escape(&shown_commit(run.commit.as_deref()))
        );
    }
    out.push_str("</tbody></table></details>\n");
}

/// The values in their order, a line at each change.
fn plot(series: &MetricSeries) -> Plot {
    let points = series.points.iter().enumerate().map(|(index, point)| (index as f64, point.value));
    Plot {
        title: format!("{} {}", series.load, series.metric),
        x: Axis {
            label: "runs, the oldest first",
            logarithmic: false,
            format: |index| format!("{index:.0}"),
        },
        y: Axis { label: "", logarithmic: false, format: tick },
        series: vec![Series { name: series.metric.clone(), points: points.collect(), dots: true }],
        marks: series.changes.iter().map(|change| change.index as f64 - 0.5).collect(),
    }
}

fn tick(value: f64) -> String {
    if value >= 1e6 {
        format!("{}M", (value / 1e4).round() / 100.0)
    } else {
        format!("{}", (value * 1e3).round() / 1e3)
    }
}

fn told(series: &MetricSeries, change: &LevelChange) -> String {
    let point = &series.points[change.index];
    format!(
        "{} {}: {} → {} ({:+.1} %) from {}, commit {}",
        series.load,
        series.metric,
        shown(series, change.before),
        shown(series, change.after),
        percent(change),
        time(point.measured_at_unix_ns),
        shown_commit(point.commit.as_deref())
    )
}

fn percent(change: &LevelChange) -> f64 {
    (change.after / change.before - 1.0) * 100.0
}

/// A value in the unit that is in its figure's name.
fn shown(series: &MetricSeries, value: f64) -> String {
    match &*series.metric {
        name if name.contains("_us") => units::latency_us(value),
        name if name.ends_with("_bytes") => units::bytes(value.max(0.0).round() as u64),
        name if name.ends_with("_rate") => units::per_second(value),
        _ => format!("{value}"),
    }
}

fn shown_commit(commit: Option<&str>) -> String {
    let Some(commit) = commit else { return "–".to_owned() };
    let dirty = if commit.ends_with("-dirty") { "-dirty" } else { "" };
    let short: String = commit.chars().take(10).collect();
    format!("{short}{dirty}")
}

fn time(unix_ns: u64) -> String {
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_nanos(unix_ns));
    time.to_string()
}
