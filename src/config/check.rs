//! What no single value can tell: keys that contradict each other.

use std::time::Duration;

use super::HighVolumeConfig;
use crate::units::Rate;

/// The span whose percentiles a result holds one by one.
const WINDOW: Duration = Duration::from_secs(1);

/// Keys that cannot all hold as they are, and why.
pub(super) struct Conflict {
    pub(super) keys: &'static [&'static str],
    pub(super) cause: &'static str,
}

/// The first contradiction, in the order of the sections.
pub(super) fn first_conflict(config: &HighVolumeConfig) -> Option<Conflict> {
    let broken = checks(config).find(|(holds, ..)| !holds)?;
    Some(Conflict { keys: broken.1, cause: broken.2 })
}

/// How many checks there are, so that a test can hold one case for each.
#[cfg(test)]
pub(super) fn count() -> usize {
    checks(&HighVolumeConfig::default()).count()
}

fn checks(config: &HighVolumeConfig) -> impl Iterator<Item = Check> {
    [shared(config), counting(config), backpressure(config), timing(config), recovery(config)]
        .into_iter()
        .flatten()
}

/// Whether it holds, all keys that it depends on (the one to look at first), and what is wrong where it
/// does not.
type Check = (bool, &'static [&'static str], &'static str);

fn shared(c: &HighVolumeConfig) -> Vec<Check> {
    let limits = &c.limits;
    let linear = &c.rate_scaling.limits;
    let lowest = c.rates.first().copied();
    let two_rates = c.rates.iter().filter(|rate| **rate <= linear.linear_up_to).count() >= 2;
    vec![
        (
            c.target.token_env.is_none() || c.target.token_file.is_none(),
            &["target.token_env", "target.token_file"],
            "the token has one place",
        ),
        (
            c.target.client_cert.is_some() == c.target.client_key.is_some(),
            &["target.client_cert", "target.client_key"],
            "a certificate and its key go together",
        ),
        (limits.p50 <= limits.p95, &["limits.p50", "limits.p95"], "no P50 is above its P95"),
        (limits.p95 <= limits.p99, &["limits.p95", "limits.p99"], "no P95 is above its P99"),
        (
            linear.linear_up_to <= linear.lossless_up_to,
            &["rate_scaling.limits.linear_up_to", "rate_scaling.limits.lossless_up_to"],
            "a rate that loses messages is not linear",
        ),
        (two_rates, &["rate_scaling.limits.linear_up_to", "rates"], "a slope needs two rates up to there"),
        (
            lowest.is_none_or(|rate| rate <= linear.timed_up_to),
            &["rate_scaling.limits.timed_up_to", "rates"],
            "no rate of the table would be judged",
        ),
    ]
}

fn counting(c: &HighVolumeConfig) -> Vec<Check> {
    let delivery = &c.delivery;
    let load = seconds(delivery.messages, delivery.rate);
    let kills = delivery.kill_period.as_secs_f64() * f64::from(delivery.kills);
    let week_s = 7.0 * 86_400.0;
    let too_long = "this load would take more than a week";
    vec![
        (load <= week_s, &["delivery.messages", "delivery.rate"], too_long),
        (
            seconds(c.memory.fill_messages, c.memory.rate) <= week_s,
            &["memory.fill_messages", "memory.rate"],
            too_long,
        ),
        (
            delivery.processing < delivery.limits.recovery_within,
            &["delivery.processing", "delivery.limits.recovery_within"],
            "no client would have its answer in time after a cut",
        ),
        (
            kills < load,
            &["delivery.kill_period", "delivery.kills", "delivery.messages", "delivery.rate"],
            "the last kill comes after the load has ended",
        ),
        (
            delivery.cut_ratio * f64::from(delivery.connections) >= 1.0 - 1e-9,
            &["delivery.cut_ratio", "delivery.connections"],
            "not one connection would be cut",
        ),
    ]
}

fn backpressure(c: &HighVolumeConfig) -> Vec<Check> {
    let case = &c.backpressure;
    let service = f64::from(case.concurrency) / case.processing.as_secs_f64();
    let overload = seconds(case.messages, case.rate);
    let admitted = case.queue_threshold as f64 + f64::from(case.concurrency) + service * overload;
    let drain = case.queue_threshold as f64 / service;
    vec![
        (
            case.rate.as_per_second() > service,
            &["backpressure.rate", "backpressure.concurrency", "backpressure.processing"],
            "the service (concurrency ÷ processing) is faster than the load",
        ),
        (
            case.messages as f64 > admitted,
            &[
                "backpressure.messages",
                "backpressure.queue_threshold",
                "backpressure.rate",
                "backpressure.concurrency",
                "backpressure.processing",
            ],
            "too few messages to fill the queue",
        ),
        (
            case.baseline_rate.as_per_second() < service,
            &["backpressure.baseline_rate", "backpressure.concurrency", "backpressure.processing"],
            "the baseline would overload the service (concurrency ÷ processing)",
        ),
        (
            drain < case.answer_timeout.as_secs_f64(),
            &[
                "backpressure.answer_timeout",
                "backpressure.queue_threshold",
                "backpressure.concurrency",
                "backpressure.processing",
            ],
            "the last of a full queue would be lost before its turn",
        ),
        (
            drain < c.limits.queue_recovery_within.as_secs_f64(),
            &[
                "limits.queue_recovery_within",
                "backpressure.queue_threshold",
                "backpressure.concurrency",
                "backpressure.processing",
            ],
            "a full queue takes longer to drain (threshold × processing ÷ concurrency)",
        ),
        (
            case.limits.overflow_within <= c.limits.backpressure_within,
            &["backpressure.limits.overflow_within", "limits.backpressure_within"],
            "the case is stricter than the shared limit, never laxer",
        ),
    ]
}

fn timing(c: &HighVolumeConfig) -> Vec<Check> {
    // Fewer than three windows have neither a variation nor a trend.
    let three_windows = c.latency.duration >= 3 * WINDOW;
    // A percentile above P95 of fewer samples is null, and a null fails its limit.
    let enough_for_p99 = c.latency.rate.as_per_second() * WINDOW.as_secs_f64() >= 1_000.0;
    vec![
        (
            enough_for_p99,
            &["latency.rate", "limits.p99"],
            "a window (a second) of fewer than 1,000 messages has no P99",
        ),
        (
            three_windows,
            &["latency.duration", "latency.limits.trend"],
            "fewer than three windows of a second have no trend",
        ),
        (
            c.connections.contains(&c.connection_scaling.limits.p95_at_connections),
            &["connection_scaling.limits.p95_at_connections", "connections"],
            "that count is not in the table, so nothing would be judged",
        ),
        (
            c.connections.len() >= 2,
            &["connections", "connection_scaling.limits.r_squared"],
            "a slope needs two counts",
        ),
        (
            c.memory.warm_up < c.memory.duration,
            &["memory.warm_up", "memory.duration"],
            "nothing is left to judge",
        ),
        (
            c.peak.start_rate <= c.peak.ceiling_rate,
            &["peak.start_rate", "peak.ceiling_rate"],
            "the search would begin above its end",
        ),
        (
            c.limits.peak_rate <= c.peak.ceiling_rate,
            &["limits.peak_rate", "peak.ceiling_rate"],
            "the search would never get there",
        ),
        (
            c.peak.resolution_ratio > 0.0,
            &["peak.resolution_ratio", "peak.hold"],
            "the search would never end",
        ),
    ]
}

fn recovery(c: &HighVolumeConfig) -> Vec<Check> {
    let case = &c.recovery;
    let touches_one = |ratio: f64| ratio * f64::from(case.connections) >= 1.0 - 1e-9;
    let none = "not one connection would be touched";
    let all = "not one connection would be left untouched";
    let leaves_one = |ratio: f64| (ratio * f64::from(case.connections)).ceil() < f64::from(case.connections);
    let capacity = f64::from(case.concurrency) / case.processing.as_secs_f64();
    vec![
        (
            case.ping_every < case.peer_dead_after,
            &["recovery.ping_every", "recovery.peer_dead_after"],
            "a peer would be dead before the answer to a ping",
        ),
        (
            case.peer_dead_after < case.fault,
            &["recovery.peer_dead_after", "recovery.fault"],
            "a silent peer would not be noticed before the fault ends",
        ),
        (touches_one(case.drop_ratio), &["recovery.drop_ratio", "recovery.connections"], none),
        (touches_one(case.partition_ratio), &["recovery.partition_ratio", "recovery.connections"], none),
        (touches_one(case.silence_ratio), &["recovery.silence_ratio", "recovery.connections"], none),
        (leaves_one(case.drop_ratio), &["recovery.drop_ratio", "recovery.connections"], all),
        (leaves_one(case.partition_ratio), &["recovery.partition_ratio", "recovery.connections"], all),
        (leaves_one(case.silence_ratio), &["recovery.silence_ratio", "recovery.connections"], all),
        (
            case.rate.as_per_second() < capacity,
            &["recovery.rate", "recovery.concurrency", "recovery.processing"],
            "the load alone would overload the service (concurrency ÷ processing)",
        ),
        (
            case.overload_factor > 1.0,
            &["recovery.overload_factor", "recovery.overload_time_ratio"],
            "up to its capacity a service is not overloaded",
        ),
        (
            case.fault.mul_f64(case.overload_time_ratio) >= Duration::from_millis(100),
            &["recovery.overload_time_ratio", "recovery.fault"],
            "an overload of less than 100 ms shows nothing",
        ),
        (
            case.overload_factor * capacity <= 1e6,
            &["recovery.overload_factor", "recovery.concurrency", "recovery.processing"],
            "no generator would offer more than a million messages a second",
        ),
    ]
}

/// How long `messages` take at `rate`.
fn seconds(messages: u64, rate: Rate) -> f64 {
    messages as f64 / rate.as_per_second()
}
