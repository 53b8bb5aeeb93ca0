//! A test as one HTML file: the verdict, the table of cases, and for each case its criteria, loads and plots.
//!
//! The file needs nothing else: no script, no font, no request. It follows the reader's light or dark setting and prints.

mod plots;
mod trust;

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use super::plot::COLOURS;
use crate::result::{
    CaseResults, CriterionOutcome, LatencyMeasurement, LoadTestResults, TestResults, Verdict,
};
use crate::units;

const STYLE: &str = include_str!("html/style.css");

/// The page of a test. `question` tells what a case of that name asks, where there is such a case.
#[must_use]
pub fn page(results: &TestResults, question: impl Fn(&str) -> Option<&'static str>) -> String {
    let mut out = String::new();
    head(&mut out, results);
    overview(&mut out, &results.cases);
    results.cases.iter().for_each(|case| section(&mut out, case, question(&case.name)));
    trust::section(&mut out, results);
    let verdict = results.verdict.as_str().to_uppercase();
    document(&format!("{verdict}: floodline {}", results.profile), &out)
}

/// A page of this style that needs nothing else.
pub(super) fn document(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{STYLE}{}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        escape(title),
        colours()
    )
}

/// Text as it may stand in an element or a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// Gives each colour that a plot names the value of the page's variable for it.
fn colours() -> String {
    const NAMES: [&str; 3] = ["text", "grid", "mark"];
    let mut out = String::new();
    for (index, colour) in COLOURS.iter().enumerate() {
        let name = NAMES.get(index).map_or_else(|| format!("series-{}", index - 3), |&name| name.to_owned());
        let hex = format!("#{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2);
        let _ = writeln!(
            out,
            "svg [stroke=\"{hex}\"] {{ stroke: var(--{name}); }} svg [fill=\"{hex}\"] {{ fill: var(--{name}); }}"
        );
    }
    out
}

fn head(out: &mut String, results: &TestResults) {
    let verdict = results.verdict;
    let passed = results.cases.iter().filter(|case| case.verdict == Verdict::Pass).count();
    let _ = write!(
        out,
        "<header>\n<p class=\"verdict {0}\">{1}</p>\n<div>\n<h1>{passed} of {2} cases passed</h1>\n",
        verdict.as_str(),
        verdict.as_str().to_uppercase(),
        results.cases.len()
    );
    let mut facts = vec![format!("profile {}", results.profile)];
    facts.extend(started(results));
    let environment = &results.environment;
    facts.extend([&environment.cpu, &environment.os].into_iter().flatten().cloned());
    facts.extend(environment.cores.map(|cores| format!("{cores} cores")));
    facts.extend(environment.kernel.as_ref().map(|kernel| format!("kernel {kernel}")));
    facts.extend(environment.memory_bytes.map(units::bytes));
    facts.push(format!("floodline {}", environment.floodline));
    facts.extend(environment.rustc.clone());
    let _ = writeln!(out, "<p class=\"facts\">{}</p>", escape(&facts.join(" · ")));
    if results.interrupted {
        out.push_str("<p class=\"fail\">Ended early: cases are missing.</p>\n");
    }
    if let Some(error) = &results.error {
        let _ = writeln!(out, "<p class=\"fail\">A case could not be run: {}</p>", escape(error));
    }
    out.push_str("</div>\n</header>\n");
}

/// When the first load started.
fn started(results: &TestResults) -> Option<String> {
    let runs = results.cases.iter().flat_map(|case| &case.runs);
    let first_ns = runs.map(|run| run.run.started_at_unix_ns).min()?;
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_nanos(first_ns));
    Some(time.to_string().replace('T', " ").replace('Z', " UTC"))
}

fn overview(out: &mut String, cases: &[CaseResults]) {
    out.push_str(
        "<table class=\"overview\">\n<thead><tr><th>case</th><th>verdict</th><th>why, or what was seen</th></tr></thead>\n<tbody>\n",
    );
    for case in cases {
        let why = case.reasons.first().cloned().unwrap_or_else(|| seen(case));
        let _ = writeln!(
            out,
            "<tr><td><a href=\"#{0}\">{0}</a></td><td>{1}</td><td>{2}</td></tr>",
            escape(&case.name),
            badge(case.verdict),
            escape(&why)
        );
    }
    out.push_str(
        "</tbody>\n</table>\n<p class=\"legend\"><a href=\"#trust\">How far to trust the figures</a></p>\n",
    );
}

/// A case that passed, in a line: its messages and the latency of its slowest load.
fn seen(case: &CaseResults) -> String {
    let due: u64 = case.runs.iter().map(|run| run.run.messages.due).sum();
    let answered: u64 = case.runs.iter().map(|run| run.run.messages.counts.answered).sum();
    let mut seen = format!("{} of {} messages answered", units::count(answered), units::count(due));
    if let Some(latency) = super::slowest(case) {
        let of = |name, value: Option<f64>| {
            value.map_or_else(|| format!("no {name}"), |us| format!("{name} {}", units::latency_us(us)))
        };
        let which = if case.runs.len() > 1 { "slowest load " } else { "" };
        let _ = write!(seen, ", {which}{}, {}", of("P50", latency.p50), of("P99", latency.p99));
    }
    seen
}

fn badge(verdict: Verdict) -> String {
    format!("<span class=\"badge {0}\">{0}</span>", verdict.as_str())
}

fn section(out: &mut String, case: &CaseResults, question: Option<&str>) {
    let name = escape(&case.name);
    let _ = writeln!(out, "<section id=\"{name}\">\n<h2>{name} {}</h2>", badge(case.verdict));
    if let Some(question) = question {
        let _ = writeln!(out, "<p>{}</p>", escape(question));
    }
    criteria(out, &case.criteria);
    loads(out, case);
    plots::of_case(out, case);
    if !case.incidents.is_empty() {
        let _ = writeln!(
            out,
            "<details><summary>What was done meanwhile ({})</summary>\n<table><thead><tr><th>phase</th><th>at</th><th>what</th></tr></thead><tbody>",
            units::count(case.incidents.len() as u64)
        );
        for incident in &case.incidents {
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td class=\"number\">{:.3} s</td><td>{}</td></tr>",
                escape(&incident.phase),
                incident.at_s,
                escape(&incident.what)
            );
        }
        out.push_str("</tbody></table></details>\n");
    }
    out.push_str("</section>\n");
}

fn criteria(out: &mut String, criteria: &[CriterionOutcome]) {
    out.push_str(
        "<table>\n<thead><tr><th>criterion</th><th>limit</th><th>measured</th><th>verdict</th></tr></thead>\n<tbody>\n",
    );
    for criterion in criteria {
        let evidence: String =
            criterion.evidence.iter().map(|line| format!("<br><small>{}</small>", escape(line))).collect();
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}{evidence}</td><td>{}</td></tr>",
            escape(&criterion.name),
            escape(&criterion.limit),
            escape(&criterion.measured),
            badge(criterion.verdict)
        );
    }
    out.push_str("</tbody>\n</table>\n");
}

/// The headings of the table of loads, and what stands under each.
type Column = (&'static str, fn(&LoadTestResults) -> Option<String>);

const COLUMNS: [Column; 13] = [
    ("offered", |run| run.throughput.offered_rate.map(rate)),
    ("achieved", |run| Some(rate(run.throughput.achieved_rate))),
    ("due", |run| Some(units::count(run.messages.due))),
    ("answered", |run| Some(units::count(run.messages.counts.answered))),
    ("refused", |run| Some(units::count(run.messages.counts.refused))),
    ("lost, unsent", |run| Some(units::count(run.messages.counts.lost + run.messages.unsent))),
    ("P50", |run| latency(run)?.p50.map(units::latency_us)),
    ("P95", |run| latency(run)?.p95.map(units::latency_us)),
    ("P99", |run| latency(run)?.p99.map(units::latency_us)),
    ("P99.9", |run| latency(run)?.p999.map(units::latency_us)),
    ("max", |run| latency(run)?.max.map(units::latency_us)),
    ("send lateness P99", |run| run.send_lateness_us.as_ref()?.p99.map(units::latency_us)),
    ("other processes", |run| run.resources.foreign_cpu_cores.map(|cores| format!("{cores:.2} cores"))),
];

/// From the due instant; in a closed loop, where nothing is due, from the send.
fn latency(run: &LoadTestResults) -> Option<&LatencyMeasurement> {
    run.latency_us.as_ref().or(run.service_latency_us.as_ref())
}

fn rate(per_second: f64) -> String {
    units::per_second(per_second).replace(" msg/s", "")
}

fn loads(out: &mut String, case: &CaseResults) {
    if case.runs.is_empty() {
        return;
    }
    out.push_str("<div class=\"wide\"><table>\n<thead><tr><th>load</th>");
    COLUMNS.iter().for_each(|(heading, _)| {
        let _ = write!(out, "<th class=\"number\">{heading}</th>");
    });
    out.push_str("</tr></thead>\n<tbody>\n");
    for run in &case.runs {
        let _ = write!(out, "<tr><td>{}</td>", escape(&run.phase));
        for (_, cell) in COLUMNS {
            let text = cell(&run.run).unwrap_or_else(|| "–".to_owned());
            let _ = write!(out, "<td class=\"number\">{}</td>", escape(&text));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div>\n<p class=\"legend\">Rates in messages per second; latency from the due instant, whatever has no answer ranked above all answers.</p>\n");
}
