//! What the generator can do, for people.

use std::fmt::Write as _;

use crate::result::calibration::Calibration;
use crate::units;

/// A worker that used less of a core than this was not at its limit.
const AT_ITS_LIMIT_CORES: f64 = 0.9;

/// All that was measured, several lines.
#[must_use]
pub fn summary(calibration: &Calibration) -> String {
    let latency = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), units::latency_us);
    let cores =
        |cores: Option<f64>| cores.map_or_else(|| "-".to_owned(), |cores| format!("{cores:.2} cores"));
    let (timer, floor) = (&calibration.timer, calibration.latency_floor_us);
    let mut out = format!(
        "generator on {}, {} cores, {} workers\n",
        calibration.generator.cpu.as_deref().unwrap_or("an unknown processor"),
        calibration.generator.cores.map_or_else(|| "?".to_owned(), units::count),
        calibration.workers,
    );
    let _ = writeln!(
        out,
        "  ceiling        {}  ({}, {} payload, {} unanswered each; busiest worker {})",
        units::per_second(calibration.ceiling_per_second),
        connections(calibration),
        units::bytes(calibration.payload_bytes as u64),
        calibration.window,
        cores(calibration.ceiling_busiest_worker_cores),
    );
    if !generator_was_the_limit(calibration) {
        let _ = writeln!(out, "                 the server was the limit: the generator can do more");
    }
    let _ = writeln!(
        out,
        "  cost           {} a message, of the server {}",
        latency(calibration.client_cpu_us_per_message),
        latency(calibration.server_cpu_us_per_message),
    );
    let _ = writeln!(
        out,
        "  timer error    p50 {}, p99 {}, max {}  (pacer {}, {})",
        latency(timer.p50_us),
        latency(timer.p99_us),
        latency(timer.max_us),
        timer.pacer,
        units::per_second(timer.rate),
    );
    let _ = writeln!(out, "  latency floor  p50 {}, p99 {}", latency(floor.p50), latency(floor.p99));
    let _ = writeln!(out, "  others         {}", cores(calibration.foreign_cpu_cores));
    out
}

/// What matters beside a result, in a line.
#[must_use]
pub fn line(calibration: &Calibration, now_unix_ns: u64) -> String {
    let latency = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), units::latency_us);
    let more = if generator_was_the_limit(calibration) { "" } else { "at least " };
    format!(
        "generator   ceiling {more}{} ({}, {}), timer error p99 {}, {} a message (calibrated {} ago)\n",
        units::per_second(calibration.ceiling_per_second),
        connections(calibration),
        units::bytes(calibration.payload_bytes as u64),
        latency(calibration.timer.p99_us),
        latency(calibration.client_cpu_us_per_message),
        units::age(calibration.age(now_unix_ns)),
    )
}

fn connections(calibration: &Calibration) -> String {
    let plural = if calibration.connections == 1 { "" } else { "s" };
    format!("{} connection{plural}", units::count(u64::from(calibration.connections)))
}

fn generator_was_the_limit(calibration: &Calibration) -> bool {
    calibration.ceiling_busiest_worker_cores.is_none_or(|cores| cores >= AT_ITS_LIMIT_CORES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::calibration::tests::example;

    #[test]
    fn the_line_tells_ceiling_error_cost_and_age() {
        let calibration = example();
        let later = calibration.measured_at_unix_ns + 7_300_000_000_000;
        assert_eq!(
            line(&calibration, later),
            "generator   ceiling 1,000,000 msg/s (10 connections, 64 B), timer error p99 90.0 µs, 1.00 µs a message \
             (calibrated 2 h ago)\n"
        );
    }

    #[test]
    fn a_ceiling_of_the_peers_is_said_to_be_a_lower_bound() {
        let idle = Calibration { ceiling_busiest_worker_cores: Some(0.5), ..example() };
        assert!(line(&idle, 0).contains("ceiling at least 1,000,000 msg/s"), "{}", line(&idle, 0));
        assert!(summary(&idle).contains("the server was the limit"));
        assert!(!summary(&example()).contains("the server was the limit"));
    }
}
