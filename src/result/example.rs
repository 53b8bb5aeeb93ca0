//! A spotless result, for the tests of those who judge or show one.

use super::*;

/// 10,000 messages at 1,000 msg/s over 10 connections, each answered 1 ms after it was due and 0.9 ms after it was
/// sent.
pub(crate) fn clean() -> LoadTestResults {
    let mut histograms = Histograms::default();
    for _ in 0..10_000 {
        histograms.latency.record(1_000_000);
        histograms.service_latency.record(900_000);
        histograms.send_lateness.record(10_000);
    }
    let counts = Counts { sent: 10_000, answered: 10_000, ..Counts::default() };
    let mut results = LoadTestResults {
        schema: RUN_SCHEMA.to_owned(),
        verdict: Verdict::Pass,
        reasons: Vec::new(),
        interrupted: false,
        run_id: "0".to_owned(),
        shard: Shard::default(),
        started_at_unix_ns: 1,
        offered_for_s: 10.0,
        workload: WorkloadSummary {
            tls: None,
            target: None,
            dialect: "floodline".to_owned(),
            rate: Some(1_000.0),
            connections: 10,
            duration_s: 10.0,
            ramp_s: 0.0,
            payload_bytes: 64,
            request: None,
            priority: None,
            arrival: "uniform".to_owned(),
            window: 32,
            seed: 1,
            pacer: "timer".to_owned(),
        },
        throughput: ThroughputMetrics { offered_rate: Some(1_000.0), achieved_rate: 1_000.0 },
        messages: MessageCounts { due: 10_000, counts, ..MessageCounts::default() },
        fan_out: None,
        latency_us: None,
        service_latency_us: None,
        send_lateness_us: None,
        refusal_latency_us: None,
        blocked_sends: BlockedSends::default(),
        histograms,
        moments: Moments { last_answer_s: Some(10.0), ..Moments::default() },
        windows: Vec::new(),
        connections: ConnectionCounts { requested: 10, established: 10, ..ConnectionCounts::default() },
        per_connection: Vec::new(),
        outages: Vec::new(),
        outages_not_listed: 0,
        unmatched: Vec::new(),
        resources: Resources::default(),
        cost: Cost::default(),
        criteria: Vec::new(),
        calibration: None,
        environment: Environment::detect(),
    };
    results.measure();
    results
}

/// Takes from a run the last `missing` of its connections, as if the generator had had no open files for them: what was due on
/// them is unsent.
pub(crate) fn starve(run: &mut LoadTestResults, missing: u32) {
    let requested = run.connections.requested as u32;
    let due = run.messages.due * u64::from(missing) / u64::from(requested);
    let connections: Vec<u32> = (requested - missing..requested).collect();
    for idle in run.per_connection.iter_mut().filter(|idle| connections.contains(&idle.connection)) {
        (idle.counts, idle.achieved, idle.latency_p95_at_most_us) = (Counts::default(), 0, None);
    }
    run.connections.established -= u64::from(missing);
    let lacked = "the generator ran out of open files (EMFILE)".to_owned();
    let reasons = [(lacked, u64::from(missing))].into();
    run.connections.unopened = Unopened { connections, reasons, due, untimed_due: 0 };
    run.messages.unsent += due;
    run.messages.counts.sent -= due;
    run.messages.counts.answered -= due;
    run.throughput.achieved_rate *= 1.0 - f64::from(missing) / f64::from(requested);
    run.histograms.latency = LatencyHistogram::default();
    (0..run.messages.counts.answered).for_each(|_| run.histograms.latency.record(1_000_000));
    run.measure();
}
