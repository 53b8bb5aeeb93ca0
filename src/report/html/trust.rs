//! How far the figures can be trusted: was the generator on time, had it CPU left, who else took the machine, and what the
//! generator itself can do there.

use std::fmt::Write as _;

use super::{badge, escape};
use crate::config::Limits;
use crate::report::calibration;
use crate::result::calibration::Calibration;
use crate::result::{CaseResults, LoadTestResults, TestResults, Verdict};
use crate::units;

/// A worker that used more of its core than this may have been the limit.
const NEAR_A_CORE: f64 = 0.9;

/// The section. Nothing where there is no load.
pub(super) fn section(out: &mut String, results: &TestResults) {
    let loads: Vec<(String, &LoadTestResults)> = results.cases.iter().flat_map(named_loads).collect();
    if loads.is_empty() {
        return;
    }
    out.push_str("<section id=\"trust\">\n<h2>How far to trust the figures</h2>\n<table>\n<tbody>\n");
    let doubts = doubts(&results.cases);
    let _ = writeln!(
        out,
        "<tr><th>verdicts left in doubt</th><td>{}</td><td>{}</td></tr>",
        badge(if doubts.is_empty() { Verdict::Pass } else { Verdict::Inconclusive }),
        if doubts.is_empty() { "none".to_owned() } else { doubts.join("<br>") }
    );
    row(out, "latest sends", &loads, lateness_p99, |us| {
        (None, format!("{} at the P99", units::latency_us(us)))
    });
    row(
        out,
        "busiest worker of the generator",
        &loads,
        |run| run.resources.busiest_worker_cores,
        |cores| (Some(cores < NEAR_A_CORE), format!("{cores:.2} of its core")),
    );
    row(
        out,
        "other processes",
        &loads,
        |run| run.resources.foreign_cpu_cores,
        |cores| (Some(cores <= Limits::default().foreign_cpu_cores), format!("{cores:.2} cores")),
    );
    let known = loads.iter().find_map(|(_, run)| Some((run.calibration.as_deref()?, run.started_at_unix_ns)));
    let told = known.map_or_else(not_calibrated, |(calibration, at)| calibrated(calibration, at));
    let _ = writeln!(out, "<tr><th>the generator by itself</th><td></td><td>{told}</td></tr>");
    out.push_str("</tbody>\n</table>\n");
    each(out, &loads);
    out.push_str("</section>\n");
}

fn named_loads(case: &CaseResults) -> impl Iterator<Item = (String, &LoadTestResults)> {
    case.runs.iter().map(|run| {
        let same = case.name == run.phase;
        let name = if same { run.phase.clone() } else { format!("{} {}", case.name, run.phase) };
        (name, &run.run)
    })
}

/// Each criterion in doubt, with the first of its reasons.
fn doubts(cases: &[CaseResults]) -> Vec<String> {
    let criteria = cases.iter().flat_map(|case| case.criteria.iter().map(move |criterion| (case, criterion)));
    criteria
        .filter(|(_, criterion)| criterion.verdict == Verdict::Inconclusive)
        .map(|(case, criterion)| {
            let why = criterion.evidence.first().map(|why| format!(": {why}")).unwrap_or_default();
            escape(&format!("{} {}{why}", case.name, criterion.name))
        })
        .collect()
}

/// The worst load by one figure.
fn row(
    out: &mut String,
    what: &str,
    loads: &[(String, &LoadTestResults)],
    of: fn(&LoadTestResults) -> Option<f64>,
    told: impl Fn(f64) -> (Option<bool>, String),
) {
    let worst =
        loads.iter().filter_map(|(name, run)| Some((name, of(run)?))).max_by(|a, b| a.1.total_cmp(&b.1));
    let (good, text) = match worst {
        Some((name, value)) => {
            let (good, text) = told(value);
            (good, format!("at most {text}, in {}", escape(name)))
        }
        None => (None, "not known".to_owned()),
    };
    let verdict = match good {
        Some(true) => badge(Verdict::Pass),
        Some(false) => badge(Verdict::Inconclusive),
        None => String::new(),
    };
    let _ = writeln!(out, "<tr><th>{what}</th><td>{verdict}</td><td>{text}</td></tr>");
}

fn calibrated(known: &Calibration, at_unix_ns: u64) -> String {
    let line = calibration::line(known, at_unix_ns);
    let floor = known.latency_floor_us;
    let latency = |us: Option<f64>| us.map_or_else(|| "–".to_owned(), units::latency_us);
    format!(
        "{}<br>shortest latency that it can measure here: P50 {}, P99 {}",
        escape(line.trim().trim_start_matches("generator").trim_start()),
        latency(floor.p50),
        latency(floor.p99)
    )
}

fn not_calibrated() -> String {
    "not calibrated: <code>floodline calibrate</code> measures its ceiling, its timer and the shortest latency".to_owned()
}

fn lateness_p99(run: &LoadTestResults) -> Option<f64> {
    run.send_lateness_us.as_ref()?.p99
}

/// The same for every load.
fn each(out: &mut String, loads: &[(String, &LoadTestResults)]) {
    let _ = writeln!(
        out,
        "<details><summary>Each load ({})</summary>\n<div class=\"wide\"><table><thead><tr><th>load</th>\
         <th class=\"number\">lateness P50</th><th class=\"number\">P99</th><th class=\"number\">max</th>\
         <th class=\"number\">blocked sends</th><th class=\"number\">busiest worker</th>\
         <th class=\"number\">other processes</th><th class=\"number\">stolen</th></tr></thead><tbody>",
        loads.len()
    );
    let cores = |cores: Option<f64>| cores.map(|cores| format!("{cores:.2}"));
    for (name, run) in loads {
        let lateness = run.send_lateness_us.as_ref();
        let us = |of: fn(&crate::result::LatencyMeasurement) -> Option<f64>| {
            lateness.and_then(of).map(units::latency_us)
        };
        let cells = [
            us(|lateness| lateness.p50),
            us(|lateness| lateness.p99),
            us(|lateness| lateness.max),
            Some(units::count(run.blocked_sends.messages)),
            cores(run.resources.busiest_worker_cores),
            cores(run.resources.foreign_cpu_cores),
            cores(run.resources.stolen_cpu_cores),
        ];
        let _ = write!(out, "<tr><td>{}</td>", escape(name));
        for cell in cells {
            let _ = write!(out, "<td class=\"number\">{}</td>", cell.unwrap_or_else(|| "–".to_owned()));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div></details>\n");
}

#[cfg(test)]
mod tests {
    use super::super::page;
    use super::*;
    use crate::result::example;

    fn with(edit: impl FnOnce(&mut LoadTestResults)) -> String {
        let mut run = example::clean();
        run.resources.foreign_cpu_cores = Some(0.02);
        run.resources.busiest_worker_cores = Some(0.4);
        edit(&mut run);
        page(&TestResults::of_load(run), |_| None)
    }

    #[test]
    fn what_may_have_spoilt_the_figures_is_named() {
        let quiet = with(|_| {});
        assert!(quiet.contains("at most 10.0 µs at the P99, in load"), "{quiet}");
        assert!(quiet.contains("not calibrated") && !quiet.contains("badge inconclusive"), "{quiet}");
        let busy = with(|run| run.resources.foreign_cpu_cores = Some(0.5));
        assert_eq!(busy.matches("badge inconclusive").count(), 1);
        let busy = with(|run| run.resources.busiest_worker_cores = Some(0.99));
        assert_eq!(busy.matches("badge inconclusive").count(), 1);
        let calibrated = with(|run| {
            let known = crate::result::calibration::tests::example();
            run.started_at_unix_ns = known.measured_at_unix_ns + 7_300_000_000_000;
            run.calibration = Some(Box::new(known));
        });
        assert!(calibrated.contains("ceiling 1,000,000 msg/s") && calibrated.contains("calibrated 2 h ago"));
        assert!(calibrated.contains("P50 20.0 µs, P99 50.0 µs"), "{calibrated}");
    }
}
