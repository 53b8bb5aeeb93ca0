//! A summary that a person reads at a glance: the verdict, what was offered and achieved, the counts, the latencies, who
//! paid for it.

use std::fmt::Write as _;
use std::time::Duration;

use super::calibration;
use crate::client::LoadProgress;
use crate::clock::unix_now_ns;
use crate::result::{LatencyMeasurement, LoadTestResults, Verdict};
use crate::sampler::ProcessSummary;
use crate::units;

/// The summary of a run, several lines.
#[must_use]
pub fn summary(results: &LoadTestResults) -> String {
    let mut out = String::new();
    verdict(&mut out, results);
    offered(&mut out, results);
    counts(&mut out, results);
    fan_out(&mut out, results);
    unmatched(&mut out, results);
    latencies(&mut out, results);
    resources(&mut out, results);
    out
}

/// One line of progress, without a line break.
#[must_use]
pub fn progress(progress: &LoadProgress) -> String {
    let mut line = format!("{:>4} s", progress.elapsed.as_secs());
    if let Some(window) = &progress.window {
        let _ = write!(line, "  {}", units::per_second(window.answered as f64));
        if let Some(p50) = window.latency_p50_us.or(window.service_latency_p50_us) {
            let _ = write!(line, "  p50 {}", units::latency_us(p50));
        }
        if let Some(p99) = window.latency_p99_us.or(window.service_latency_p99_us) {
            let _ = write!(line, "  p99 {}", units::latency_us(p99));
        }
    }
    let _ = write!(line, "  {} answered", units::count(progress.answered));
    let _ = match progress.left {
        Duration::ZERO => write!(line, "  waiting for answers"),
        left => write!(line, "  {} s left", left.as_secs_f64().ceil()),
    };
    line
}

fn verdict(out: &mut String, results: &LoadTestResults) {
    let word = match results.verdict {
        Verdict::Pass => "PASS",
        Verdict::Fail => "FAIL",
        Verdict::Inconclusive => "INCONCLUSIVE",
        Verdict::Skipped => "SKIPPED",
    };
    let early = if results.interrupted { "  (ended early)" } else { "" };
    let _ = writeln!(out, "{word}{early}");
    for reason in &results.reasons {
        let _ = writeln!(out, "  {reason}");
    }
}

fn offered(out: &mut String, results: &LoadTestResults) {
    let workload = &results.workload;
    let target = workload.target.as_deref().unwrap_or("own server");
    let ramps = match workload.ramp_s {
        0.0 => String::new(),
        ramp_s => format!(" between ramps of {}", units::latency_us(ramp_s * 1e6)),
    };
    let _ = writeln!(
        out,
        "\n{target}, dialect {}, {} connections, {} payload, {:.1} s{ramps}",
        workload.dialect,
        units::count(u64::from(workload.connections)),
        units::bytes(workload.payload_bytes as u64),
        results.offered_for_s
    );
    if workload.tls.as_ref().is_some_and(|tls| !tls.verified) {
        let _ =
            writeln!(out, "  INSECURE  the server's certificate was not checked: anybody may have answered");
    }
    let achieved = results.throughput.achieved_rate;
    let _ = match results.throughput.offered_rate {
        None if workload.rate.is_some() => writeln!(out, "  ended while the rate still rose"),
        Some(offered) => writeln!(
            out,
            "  offered   {}\n  achieved  {}  ({})",
            units::per_second(offered),
            units::per_second(achieved),
            units::percent(achieved / offered)
        ),
        None => writeln!(
            out,
            "  closed loop, {} unanswered a connection\n  achieved  {}",
            workload.window,
            units::per_second(achieved)
        ),
    };
}

fn counts(out: &mut String, results: &LoadTestResults) {
    let messages = &results.messages;
    let counts = &messages.counts;
    let _ = writeln!(
        out,
        "\nmessages    due {} = sent {} + unsent {}",
        units::count(messages.due),
        units::count(counts.sent),
        units::count(messages.unsent)
    );
    let _ = writeln!(
        out,
        "            sent {} = answered {} + refused {} + lost {}",
        units::count(counts.sent),
        units::count(counts.answered),
        units::count(counts.refused),
        units::count(counts.lost)
    );
    if messages.untimed_due > 0 {
        let untimed = units::count(messages.untimed_due);
        let _ = writeln!(out, "            {untimed} of the due in ramps, which are not timed");
    }
    let oddities = [
        ("late", counts.late),
        ("resent", counts.resent),
        ("duplicates", counts.duplicates),
        ("repeated", counts.repeated),
        ("reordered", counts.reordered),
        ("foreign", counts.foreign),
        ("corrupted", counts.corrupted),
        ("unattributed", counts.unattributed),
    ];
    let seen: Vec<String> = oddities
        .iter()
        .filter(|(_, n)| *n > 0)
        .map(|(name, n)| format!("{name} {}", units::count(*n)))
        .collect();
    let _ = writeln!(
        out,
        "            {}",
        if seen.is_empty() { "nothing else".to_owned() } else { seen.join(", ") }
    );
    let connections = &results.connections;
    let reconnects = match connections.reconnects {
        0 => String::new(),
        n => format!(", {} opened again", units::count(n)),
    };
    let unopened = match connections.unopened.connections.len() as u64 {
        0 => String::new(),
        n => format!(", {} not opened by the generator", units::count(n)),
    };
    let _ = writeln!(
        out,
        "connections {} of {} established, {} refused, {} dropped{unopened}{reconnects}",
        units::count(connections.established),
        units::count(connections.requested),
        units::count(connections.refused),
        units::count(connections.dropped)
    );
    for (reason, count) in &connections.reasons {
        let _ = writeln!(out, "            {} × {reason}", units::count(*count));
    }
    // Of a plain connection the handshake is one round trip, which says little.
    if let Some(tls) = &connections.tls_us {
        let p50 = |part: &Option<LatencyMeasurement>| {
            part.as_ref().and_then(|part| part.p50).map_or_else(|| "-".to_owned(), units::latency_us)
        };
        let (connect, upgrade) = (p50(&connections.connect_us), p50(&connections.upgrade_us));
        let tls = p50(&Some(tls.clone()));
        let _ =
            writeln!(out, "            opened in {connect} TCP + {tls} TLS + {upgrade} handshake (medians)");
    }
}

/// The copies of messages that went to several connections.
fn fan_out(out: &mut String, results: &LoadTestResults) {
    let Some(fan_out) = &results.fan_out else { return };
    let _ = writeln!(
        out,
        "fan-out     {} of {} copies came, reach {}",
        units::count(fan_out.received),
        units::count(fan_out.expected),
        fan_out.reach.map_or_else(|| "-".to_owned(), units::percent)
    );
}

/// What the server said that nobody expected. A line a message, whatever it holds.
fn unmatched(out: &mut String, results: &LoadTestResults) {
    if results.unmatched.is_empty() {
        return;
    }
    let _ = writeln!(out, "\nmessages that match none of ours, the first {}", results.unmatched.len());
    for seen in &results.unmatched {
        let text = seen.line();
        let (kind, connection) = (seen.kind.name(), seen.connection);
        let _ = writeln!(out, "  {:>8.3} s  connection {connection:<4} {kind:<13} {text}", seen.t_s);
    }
}

fn latencies(out: &mut String, results: &LoadTestResults) {
    let _ = writeln!(
        out,
        "\n{:<24}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "latency", "p50", "p90", "p95", "p99", "p99.9", "max"
    );
    let skew = results.fan_out.as_ref().map_or(&None, |fan_out| &fan_out.skew_us);
    let rows = [
        ("from due", &results.latency_us),
        ("from send", &results.service_latency_us),
        ("to refusal", &results.refusal_latency_us),
        ("send lateness", &results.send_lateness_us),
        ("fan-out skew", skew),
    ];
    for (name, measurement) in rows {
        if let Some(measurement) = measurement {
            row(out, name, measurement);
        }
    }
    if results.blocked_sends.messages > 0 {
        let _ = writeln!(
            out,
            "{} sends waited for a full socket, up to {} (the server did not read)",
            units::count(results.blocked_sends.messages),
            units::latency_us(results.blocked_sends.max_us)
        );
    }
}

fn row(out: &mut String, name: &str, m: &LatencyMeasurement) {
    let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), units::latency_us);
    let _ = write!(out, "  {name:<22}");
    for value in [m.p50, m.p90, m.p95, m.p99, m.p999, m.max] {
        let _ = write!(out, "{:>10}", cell(value));
    }
    let _ = writeln!(out);
    if m.censored > 0 {
        let _ = writeln!(
            out,
            "  {:<22}{} of {} have no answer and rank above all others",
            "",
            units::count(m.censored),
            units::count(m.count)
        );
    }
}

fn resources(out: &mut String, results: &LoadTestResults) {
    let resources = &results.resources;
    let loaded_s = results.offered_for_s + 2.0 * results.workload.ramp_s;
    let _ = writeln!(out);
    let cost = &results.cost;
    let client = (cost.client_cpu_us_per_message, cost.client_bytes_per_connection);
    let server = (cost.server_cpu_us_per_message, cost.server_bytes_per_connection);
    side(out, "client", resources.client.as_ref(), client, loaded_s);
    side(out, "server", resources.server.as_ref(), server, loaded_s);
    if let Some(foreign) = resources.foreign_cpu_cores {
        let _ = writeln!(out, "others      {foreign:.2} cores");
    }
    if let Some(calibration) = &results.calibration {
        out.push_str(&calibration::line(calibration, unix_now_ns()));
    }
}

/// What one side took, and what a message and a connection cost it.
fn side(
    out: &mut String,
    name: &str,
    process: Option<&ProcessSummary>,
    (message_us, connection_bytes): (Option<f64>, Option<f64>),
    loaded_s: f64,
) {
    let Some(process) = process else {
        return;
    };
    let mut parts = Vec::new();
    if let Some(cpu_s) = process.cpu_s {
        parts.push(format!("{:.2} cores", cpu_s / loaded_s.max(1e-9)));
    }
    if let Some(cost_us) = message_us {
        parts.push(format!("{} a message", units::latency_us(cost_us)));
    }
    if let Some(bytes) = connection_bytes {
        parts.push(format!("{} a connection", units::bytes(bytes as u64)));
    }
    if let Some(peak) = process.peak_rss_bytes {
        parts.push(format!("peak {}", units::bytes(peak)));
    }
    let _ = writeln!(out, "{name:<12}{}", parts.join(", "));
}
