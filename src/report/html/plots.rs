//! What of a case is plotted.

use std::fmt::Write as _;

use super::escape;
use crate::report::plot::{Axis, Plot, SERIES_COLOURS, Series};
use crate::result::{CaseResults, LoadTestResults, PhaseRun};
use crate::units;

const SECONDS: Axis =
    Axis { label: "seconds after the start of the load", logarithmic: false, format: |s| format!("{s}") };
const LATENCY: Axis = Axis {
    label: "latency",
    logarithmic: true,
    // Ticks are round numbers.
    format: |us| units::latency_us((us * 1e3).round() / 1e3).replace(".00", "").replace(".0 ", " "),
};
const RATE: Axis = Axis {
    label: "messages per second",
    logarithmic: false,
    format: |rate| units::count(rate.max(0.0) as u64),
};
const CORES: Axis = Axis { label: "cores", logarithmic: false, format: |cores| format!("{cores:.1}") };
const MEMORY: Axis = Axis {
    label: "resident, MB",
    logarithmic: false,
    // A tick, which is round in powers of ten.
    format: |bytes| format!("{}", (bytes / 1e5).round() / 10.0),
};

/// The plots over all loads of a case, then those of each.
pub(super) fn of_case(out: &mut String, case: &CaseResults) {
    let runs = &case.runs;
    figures(out, &drawn([by_percentile(runs), offered_against_achieved(runs)]));
    for (index, PhaseRun { phase, run }) in runs.iter().enumerate() {
        let marks: Vec<f64> = case
            .incidents
            .iter()
            .filter(|incident| phase.starts_with(&incident.phase))
            .map(|incident| incident.at_s)
            .collect();
        let figures_of_run = drawn([
            over_time(run, &marks),
            rates(run, &marks),
            queue(run, &marks),
            cpu(run),
            memory(run),
            spread(run),
        ]);
        if figures_of_run.is_empty() {
            continue;
        }
        // The last load is the largest of most cases, and the one that shows whether all is well again.
        let open = if index + 1 == runs.len() { " open" } else { "" };
        let _ = writeln!(out, "<details{open}><summary>{} over time</summary>", escape(phase));
        figures(out, &figures_of_run);
        out.push_str("</details>\n");
    }
}

/// Those plots that have something to draw, with their drawings.
fn drawn<const N: usize>(plots: [Plot; N]) -> Vec<(Plot, String)> {
    plots.into_iter().filter_map(|plot| plot.svg().map(|svg| (plot, svg))).collect()
}

fn figures(out: &mut String, drawn: &[(Plot, String)]) {
    if drawn.is_empty() {
        return;
    }
    out.push_str("<div class=\"plots\">\n");
    for (plot, svg) in drawn {
        let _ = write!(out, "<figure><h3>{}</h3>\n{svg}<figcaption>", escape(&plot.title));
        for (index, series) in plot.series.iter().enumerate().filter(|(_, series)| !series.points.is_empty())
        {
            let colour = index % SERIES_COLOURS;
            let name = escape(&series.name);
            let _ = write!(out, "<span class=\"key\" style=\"color: var(--series-{colour})\">{name}</span>");
        }
        if !plot.marks.is_empty() {
            out.push_str("<span class=\"key\" style=\"color: var(--mark)\">done on purpose</span>");
        }
        out.push_str("</figcaption></figure>\n");
    }
    out.push_str("</div>\n");
}

fn series(name: &str, points: impl IntoIterator<Item = (f64, f64)>) -> Series {
    Series { name: name.to_owned(), points: points.into_iter().collect(), dots: false }
}

/// Latency by percentile on the axis of the HdrHistogram plots: equal steps are tenths of what is still above.
fn by_percentile(runs: &[PhaseRun]) -> Plot {
    let x = Axis {
        label: "percentile",
        logarithmic: false,
        // Between two of them there is no round percentage.
        format: |nines| {
            let whole = (nines - nines.round()).abs() < 1e-9;
            if whole { format!("{} %", 100.0 - 100.0 / 10_f64.powf(nines.round())) } else { String::new() }
        },
    };
    let curve = |run: &LoadTestResults| -> Vec<(f64, f64)> {
        let open_loop = run.latency_us.is_some();
        let histogram = if open_loop { &run.histograms.latency } else { &run.histograms.service_latency };
        let measured = run.latency_us.as_ref().or(run.service_latency_us.as_ref());
        let censored = measured.map_or(0, |latency| latency.censored);
        let all = histogram.len() + censored;
        // From the median (0.3 on this axis) to the last message that a percentile can tell from the one before.
        let last = (all.max(2) as f64).log10().min(5.0);
        let steps = (last * 20.0) as u32;
        let nines = (6..=steps).map(|step| f64::from(step) / 20.0);
        let value = |nines: f64| {
            let ns = histogram.quantile(1.0 - 10_f64.powf(-nines), censored)?;
            Some((nines, ns as f64 / 1e3))
        };
        nines.filter_map(value).collect()
    };
    let of_run = |PhaseRun { phase, run }: &PhaseRun| series(phase, curve(run));
    Plot {
        title: "Latency by percentile".to_owned(),
        x,
        y: LATENCY,
        series: runs.iter().map(of_run).collect(),
        marks: Vec::new(),
    }
}

/// Where several rates were offered: what came back of each.
fn offered_against_achieved(runs: &[PhaseRun]) -> Plot {
    let points = |of: fn(&LoadTestResults) -> Option<(f64, f64)>| {
        let mut points: Vec<(f64, f64)> = runs.iter().filter_map(|run| of(&run.run)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup();
        points
    };
    let achieved = points(|run| Some((run.throughput.offered_rate?, run.throughput.achieved_rate)));
    let offered = points(|run| run.throughput.offered_rate.map(|rate| (rate, rate)));
    let several = offered.len() >= 3;
    let series = if several {
        let dots = Series { dots: true, ..series("achieved", achieved) };
        vec![series("as offered", offered), dots]
    } else {
        Vec::new()
    };
    Plot {
        title: "Offered against achieved".to_owned(),
        x: Axis { label: "messages offered per second", ..RATE },
        y: RATE,
        series,
        marks: Vec::new(),
    }
}

fn windows(
    run: &LoadTestResults,
    of: impl Fn(&crate::record::WindowSummary) -> Option<f64>,
) -> Vec<(f64, f64)> {
    run.windows.iter().filter_map(|window| Some((window.t_s as f64, of(window)?))).collect()
}

fn plot(title: &str, y: Axis, marks: &[f64], series: Vec<Series>) -> Plot {
    Plot { title: title.to_owned(), x: SECONDS, y, series, marks: marks.to_vec() }
}

fn over_time(run: &LoadTestResults, marks: &[f64]) -> Plot {
    let lines = vec![
        series("P50", windows(run, |window| window.latency_p50_us)),
        series("P95", windows(run, |window| window.latency_p95_us)),
        series("P99", windows(run, |window| window.latency_p99_us)),
        series("max", windows(run, |window| window.latency_max_us)),
        series("send lateness P99", windows(run, |window| window.send_lateness_p99_us)),
    ];
    plot("Latency in each second", LATENCY, marks, lines)
}

fn rates(run: &LoadTestResults, marks: &[f64]) -> Plot {
    let refused = windows(run, |window| (run.messages.counts.refused > 0).then_some(window.refused as f64));
    let lines = vec![
        series("sent", windows(run, |window| Some(window.sent as f64))),
        series("answered", windows(run, |window| Some(window.answered as f64))),
        series("refused", refused),
    ];
    plot("Messages in each second", RATE, marks, lines)
}

fn queue(run: &LoadTestResults, marks: &[f64]) -> Plot {
    let depth = windows(run, |window| window.queue_depth_max.map(|depth| depth as f64));
    // A queue that never held more than a handful tells nothing.
    let told = depth.iter().any(|(_, depth)| *depth >= 10.0);
    let y = Axis { label: "messages waiting", ..RATE };
    plot(
        "Deepest queue in each second",
        y,
        marks,
        vec![series("queue", if told { depth } else { Vec::new() })],
    )
}

fn cpu(run: &LoadTestResults) -> Plot {
    let samples = &run.resources.samples;
    let cores = |of: fn(&crate::sampler::Sample) -> Option<f64>| -> Vec<(f64, f64)> {
        let steps = samples.windows(2).filter_map(|pair| {
            let [before, after] = pair else { return None };
            let span = after.t_s - before.t_s;
            // Over a shorter time a tick of the clock is most of what is seen.
            let spent = of(after)? - of(before)?;
            (span >= 0.05).then_some((after.t_s, spent.max(0.0) / span))
        });
        steps.collect()
    };
    let lines = vec![
        series("client", cores(|sample| sample.client.cpu_s)),
        series("server", cores(|sample| sample.server?.cpu_s)),
        series("other processes", samples.iter().filter_map(|s| Some((s.t_s, s.foreign_cpu_cores?)))),
    ];
    plot("CPU", CORES, &[], lines)
}

fn memory(run: &LoadTestResults) -> Plot {
    let samples = &run.resources.samples;
    let resident = |of: fn(&crate::sampler::Sample) -> Option<u64>| {
        samples.iter().filter_map(move |sample| Some((sample.t_s, of(sample)? as f64)))
    };
    let lines = vec![
        series("client", resident(|sample| sample.client.rss_bytes)),
        series("server", resident(|sample| sample.server?.rss_bytes)),
    ];
    plot("Memory", MEMORY, &[], lines)
}

/// Each connection's 95th percentile, in ascending order.
fn spread(run: &LoadTestResults) -> Plot {
    let mut each: Vec<f64> = run.per_connection.iter().filter_map(|c| c.latency_p95_at_most_us).collect();
    each.sort_by(f64::total_cmp);
    let points = if each.len() < 2 { Vec::new() } else { each };
    let points = points.into_iter().enumerate().map(|(rank, us)| (rank as f64 + 1.0, us));
    Plot {
        title: "P95 of each connection, at most".to_owned(),
        x: Axis {
            label: "connections, the fastest first",
            logarithmic: false,
            format: |n| format!("{n:.0}"),
        },
        y: LATENCY,
        series: vec![series("P95 (upper bound of its bucket)", points)],
        marks: Vec::new(),
    }
}
