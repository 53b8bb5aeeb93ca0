//! The latency histograms as an HdrHistogram interval log, which the tools around HdrHistogram read: an interval a load, its
//! tag `case.load`, values in nanoseconds, the column of the largest in milliseconds.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError, Tag};
use thiserror::Error;

use crate::result::{PhaseRun, TestResults};

/// The log could not be put together.
#[derive(Debug, Error)]
#[error("cannot write the histograms: {0}")]
pub struct HdrLogError(String);

/// The log. A load without an answer has no histogram and is left out.
///
/// # Errors
/// Where a histogram does not serialise.
pub fn intervals(results: &TestResults) -> Result<String, HdrLogError> {
    let begun = |run: &PhaseRun| UNIX_EPOCH + Duration::from_nanos(run.run.started_at_unix_ns);
    let mut runs: Vec<(&str, &PhaseRun)> =
        results.cases.iter().flat_map(|case| case.runs.iter().map(|run| (&*case.name, run))).collect();
    // Readers expect the intervals in the order of their starts.
    runs.sort_by_key(|(_, run)| run.run.started_at_unix_ns);
    let first = runs.first().map_or(UNIX_EPOCH, |(_, run)| begun(run));
    let mut out = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .with_start_time(first)
        .with_base_time(first)
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut out, &mut serializer)
        .map_err(|error: io::Error| HdrLogError(format!("{error:?}")))?;
    for (case, run) in runs {
        let open_loop = run.run.latency_us.is_some();
        let histograms = &run.run.histograms;
        let histogram = if open_loop { &histograms.latency } else { &histograms.service_latency };
        if histogram.is_empty() {
            continue;
        }
        let name: String =
            format!("{case}.{}", run.phase).chars().map(|c| if tag_safe(c) { c } else { '_' }).collect();
        let after = begun(run).duration_since(first).unwrap_or_default();
        let lasted = Duration::try_from_secs_f64(run.run.offered_for_s).unwrap_or_default();
        log.write_histogram(&histogram.counts(), after, lasted, Tag::new(&name))
            .map_err(|error: IntervalLogWriterError<_>| HdrLogError(format!("{error:?}")))?;
    }
    String::from_utf8(out).map_err(|error| HdrLogError(io::Error::other(error).to_string()))
}

/// A tag ends at a comma, white space or a line's end.
fn tag_safe(letter: char) -> bool {
    letter.is_ascii_graphic() && letter != ','
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::super::testing::one_of_each_verdict;
    use super::*;

    #[test]
    fn a_log_holds_each_load_with_its_tag() {
        let mut results = one_of_each_verdict();
        let mut later = results.cases[0].runs[0].clone();
        later.phase = "over, load".to_owned();
        later.run.started_at_unix_ns += 2_500_000_000;
        // Found first, and started last.
        results.cases[0].runs.insert(0, later);
        let text = intervals(&results).unwrap();
        let entries = IntervalLogIterator::new(text.as_bytes()).map(Result::unwrap);
        let found: Vec<(String, f64, u64)> = entries
            .filter_map(|entry| match entry {
                LogEntry::Interval(interval) => {
                    let bytes = BASE64.decode(interval.encoded_histogram()).unwrap();
                    let counts: hdrhistogram::Histogram<u64> =
                        Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
                    let tag = interval.tag().unwrap().as_str().to_owned();
                    Some((tag, interval.start_timestamp().as_secs_f64(), counts.len()))
                }
                _ => None,
            })
            .collect();
        let expected = [
            ("backpressure.load".to_owned(), 0.0, 10_000),
            ("backpressure.over__load".to_owned(), 2.5, 10_000),
        ];
        assert_eq!(found, expected);
    }
}
