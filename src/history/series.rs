//! From what is kept to what is told: which figures, and where they changed.

use super::{HISTORY_SCHEMA, History, HistoryError, HistoryResults, LevelChange, MetricSeries};
use crate::analysis::change_point::change_points;

/// What is looked at where nothing else is asked for.
pub const USUAL_METRICS: [&str; 9] = [
    "achieved_rate",
    "latency_us.p50",
    "latency_us.p99",
    "service_latency_us.p50",
    "cost.client_cpu_us_per_message",
    "cost.server_cpu_us_per_message",
    "resources.client.peak_rss_bytes",
    "resources.server.peak_rss_bytes",
    "peak.achieved_rate",
];

/// A smaller change is not told: what keeps a fixed rate differs by a message or two, and every time the same way.
const LEAST_CHANGE: f64 = 0.01;

/// Reads a history: all its runs, and the series of the `metrics` (the usual ones where there are none) of `load` (of all
/// where it is none), with their changes.
///
/// # Errors
/// Where the file cannot be read.
pub fn results(
    history: &History,
    load: Option<&str>,
    metrics: &[String],
) -> Result<HistoryResults, HistoryError> {
    let asked = |metric: &str| match metrics {
        [] => USUAL_METRICS.contains(&metric),
        some => some.iter().any(|name| name == metric),
    };
    let wanted = |of: &str, metric: &str| load.is_none_or(|load| load == of) && asked(metric);
    let mut series = history.series(wanted)?;
    series.retain(|series| series.points.len() > 1);
    series.iter_mut().for_each(look_for_changes);
    Ok(HistoryResults { schema: HISTORY_SCHEMA.to_owned(), runs: history.runs()?, series })
}

fn look_for_changes(series: &mut MetricSeries) {
    let values: Vec<f64> = series.points.iter().map(|point| point.value).collect();
    // Same file, same changes. What is kept is finite: JSON knows nothing else.
    let changes = change_points(&values, 0).unwrap_or_default();
    let told = changes
        .into_iter()
        .filter(|change| (change.after - change.before).abs() >= LEAST_CHANGE * change.before.abs());
    series.changes = told
        .map(|change| LevelChange {
            run: series.points[change.index].run,
            index: change.index,
            before: change.before,
            after: change.after,
        })
        .collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    #[test]
    fn a_change_is_found_where_it_began_and_never_across_machines() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::append_to(&dir.path().join("history.db")).unwrap();
        for n in 0..40_u64 {
            let mut run = example::clean();
            run.started_at_unix_ns = n;
            let rate = |level: f64| level * (1.0 + 0.002 * (n % 5) as f64);
            run.throughput.achieved_rate = rate(if n < 20 { 1_000.0 } else { 1_200.0 });
            // Never changes.
            run.cost.client_cpu_us_per_message = Some(rate(1.0));
            history.append_load(&run, Some(&format!("commit-{n}"))).unwrap();
            // As much faster as the first is after its change, and as many runs: the two together would change often.
            run.environment.cores = Some(1_000);
            run.throughput.achieved_rate = rate(1_200.0);
            history.append_load(&run, None).unwrap();
        }
        let found = results(&history, None, &[]).unwrap();
        assert_eq!(found.runs.len(), 80);
        let changes: Vec<(&str, &str, usize)> = found
            .series
            .iter()
            .flat_map(|s| {
                s.changes.iter().map(|change| {
                    (&*s.metric, s.points[change.index].commit.as_deref().unwrap_or(""), change.index)
                })
            })
            .collect();
        assert_eq!(changes, [("achieved_rate", "commit-20", 20)]);
        let metrics = ["messages.due".to_owned()];
        let due = results(&history, Some("load"), &metrics).unwrap();
        assert!(due.series.len() == 2 && due.series.iter().all(|series| series.metric == "messages.due"));
        assert!(results(&history, Some("none"), &metrics).unwrap().series.is_empty());
    }
}
