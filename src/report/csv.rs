//! The windows as CSV: one row a second of each load, for spreadsheets and plots of one's own.

use crate::result::TestResults;

/// The headings; empty cells are what was not measured.
const HEADINGS: [&str; 16] = [
    "case",
    "load",
    "t_s",
    "sent",
    "answered",
    "refused",
    "blocked",
    "latency_p01_us",
    "latency_p50_us",
    "latency_p95_us",
    "latency_p99_us",
    "latency_max_us",
    "service_latency_p50_us",
    "service_latency_p99_us",
    "send_lateness_p99_us",
    "queue_depth_max",
];

/// The rows, by case, load and time, under a row of headings.
///
/// # Errors
/// Where memory runs out.
pub fn windows(results: &TestResults) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(HEADINGS)?;
    for case in &results.cases {
        for run in &case.runs {
            for w in &run.run.windows {
                let latencies = [
                    w.latency_p01_us,
                    w.latency_p50_us,
                    w.latency_p95_us,
                    w.latency_p99_us,
                    w.latency_max_us,
                    w.service_latency_p50_us,
                    w.service_latency_p99_us,
                    w.send_lateness_p99_us,
                ];
                let counts = [w.t_s, w.sent, w.answered, w.refused, w.blocked];
                let mut row = vec![case.name.clone(), run.phase.clone()];
                row.extend(counts.map(|count| count.to_string()));
                row.extend(latencies.map(|us| us.map(|us| us.to_string()).unwrap_or_default()));
                row.push(w.queue_depth_max.map(|depth| depth.to_string()).unwrap_or_default());
                writer.write_record(row)?;
            }
        }
    }
    let bytes = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::testing::one_of_each_verdict;
    use super::*;
    use crate::record::{Window, WindowSummary};

    #[test]
    fn every_window_is_a_row_and_what_is_not_there_is_empty() {
        let mut results = one_of_each_verdict();
        let window = Window { index: 3, sent: 7, answered: 5, ..Window::default() };
        results.cases[0].runs[0].run.windows = vec![WindowSummary::of(&window)];
        results.cases[0].runs[0].phase = "a, b".to_owned();
        let text = windows(&results).unwrap();
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows[0], HEADINGS.join(","));
        assert_eq!(rows[1..], ["backpressure,\"a, b\",3,7,5,0,0,,,,,,,,,"]);
        assert_eq!(rows[1].replace("a, b", "").matches(',').count() + 1, HEADINGS.len());
    }
}
