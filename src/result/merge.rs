//! One result from those of several shards.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{ConnectionCounts, Cost, LoadTestResults, MessageCounts, Outage, Resources, Unmatched, Verdict};
use crate::ledger::MISSING_KEPT;
use crate::record::WindowSummary;
use crate::workload::Shard;

/// Results that do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MergeError {
    /// Nothing to merge.
    #[error("no results to merge")]
    Empty,
    /// Two results are of different loads.
    #[error("these are results of different loads: `{field}` differs")]
    DifferentWorkload {
        /// The first field that differs.
        field: &'static str,
    },
    /// The same shard twice, or shards of different wholes.
    #[error("shard {shard} is there twice, or is of another whole")]
    ShardTwice {
        /// The shard.
        shard: String,
    },
    /// The others do not make a whole.
    #[error("shard {shard} is missing")]
    ShardMissing {
        /// The first that is.
        shard: String,
    },
}

impl LoadTestResults {
    /// One result from those of all shards of the same load. Percentiles are taken anew from the merged histograms;
    /// those of the windows, which carry none, become null. The verdict is the worst of all; judge anew for a better.
    ///
    /// # Errors
    /// Where the results are not shards of one load, or not all of them.
    pub fn merge(results: Vec<Self>) -> Result<Self, MergeError> {
        let mut rest = results.into_iter();
        let mut merged = rest.next().ok_or(MergeError::Empty)?;
        let mut seen = vec![merged.shard.index];
        for other in rest {
            merged.check_same_load(&other)?;
            if seen.contains(&other.shard.index) || other.shard.of != merged.shard.of {
                return Err(MergeError::ShardTwice { shard: other.shard.to_string() });
            }
            seen.push(other.shard.index);
            merged.absorb(other);
        }
        let of = merged.shard.of;
        if let Some(index) = (0..of).find(|index| !seen.contains(index)) {
            return Err(MergeError::ShardMissing { shard: Shard { index, of }.to_string() });
        }
        merged.shard = Shard::default();
        merged.measure();
        Ok(merged)
    }

    fn check_same_load(&self, other: &Self) -> Result<(), MergeError> {
        let (a, b) = (&self.workload, &other.workload);
        let same = [
            ("target", a.target == b.target),
            ("tls", a.tls == b.tls),
            ("dialect", a.dialect == b.dialect),
            ("rate", a.rate == b.rate),
            ("connections", a.connections == b.connections),
            ("duration_s", a.duration_s == b.duration_s),
            ("ramp_s", a.ramp_s == b.ramp_s),
            ("payload_bytes", a.payload_bytes == b.payload_bytes),
            ("request", a.request == b.request),
            ("priority", a.priority == b.priority),
            ("arrival", a.arrival == b.arrival),
            ("window", a.window == b.window),
            ("seed", a.seed == b.seed),
        ];
        match same.iter().find(|(_, same)| !same) {
            Some((field, _)) => Err(MergeError::DifferentWorkload { field }),
            None => Ok(()),
        }
    }

    fn absorb(&mut self, other: Self) {
        self.verdict = Verdict::of_all([self.verdict, other.verdict]);
        self.reasons
            .extend(other.reasons.into_iter().map(|reason| format!("shard {}: {reason}", other.shard)));
        self.interrupted |= other.interrupted;
        self.started_at_unix_ns = self.started_at_unix_ns.min(other.started_at_unix_ns);
        self.offered_for_s = self.offered_for_s.max(other.offered_for_s);
        // Shards start together, and `None` is less than anything.
        self.throughput.achieved_rate += other.throughput.achieved_rate;
        self.throughput.offered_rate =
            self.throughput.offered_rate.zip(other.throughput.offered_rate).map(|(a, b)| a + b);
        self.messages.absorb(other.messages);
        self.blocked_sends.messages += other.blocked_sends.messages;
        self.blocked_sends.max_us = self.blocked_sends.max_us.max(other.blocked_sends.max_us);
        self.blocked_sends.connection_s += other.blocked_sends.connection_s;
        self.histograms.latency.add(&other.histograms.latency);
        self.histograms.service_latency.add(&other.histograms.service_latency);
        self.histograms.send_lateness.add(&other.histograms.send_lateness);
        self.histograms.refusal_latency.add(&other.histograms.refusal_latency);
        self.windows = merge_windows(std::mem::take(&mut self.windows), &other.windows);
        self.connections.absorb(other.connections);
        self.moments = self.moments.with(other.moments);
        self.per_connection.extend(other.per_connection);
        self.per_connection.sort_by_key(|connection| connection.connection);
        self.outages.extend(other.outages);
        self.outages_not_listed += other.outages_not_listed + Outage::keep_first(&mut self.outages);
        self.unmatched.extend(other.unmatched);
        Unmatched::keep_first(&mut self.unmatched);
        // What may have kept either generator back still counts; sums over machines say nothing.
        let most = |a: Option<f64>, b: Option<f64>| if b > a { b } else { a };
        let (mine, others) = (&mut self.resources, &other.resources);
        self.resources = Resources {
            server: mine.server.take(),
            foreign_cpu_cores: most(mine.foreign_cpu_cores, others.foreign_cpu_cores),
            stolen_cpu_cores: most(mine.stolen_cpu_cores, others.stolen_cpu_cores),
            busiest_worker_cores: most(mine.busiest_worker_cores, others.busiest_worker_cores),
            ..Resources::default()
        };
        self.cost = Cost::default();
        // Groups are of one process.
        self.fan_out = None;
        // Another machine's generator is another.
        self.calibration = None;
    }
}

impl MessageCounts {
    fn absorb(&mut self, other: Self) {
        self.due += other.due;
        self.unsent += other.unsent;
        self.untimed_due += other.untimed_due;
        self.untimed_answered += other.untimed_answered;
        self.counts.add(&other.counts);
        self.reorder_distance_max = self.reorder_distance_max.max(other.reorder_distance_max);
        for (ids, more) in [
            (&mut self.missing_ids, other.missing_ids),
            (&mut self.reordered_ids, other.reordered_ids),
            (&mut self.duplicate_ids, other.duplicate_ids),
            (&mut self.foreign_ids, other.foreign_ids),
            (&mut self.corrupted_ids, other.corrupted_ids),
        ] {
            ids.extend(more);
            ids.truncate(MISSING_KEPT);
        }
    }
}

impl ConnectionCounts {
    fn absorb(&mut self, other: Self) {
        self.requested += other.requested;
        self.established += other.established;
        self.refused += other.refused;
        self.dropped += other.dropped;
        self.reconnects += other.reconnects;
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
        self.unopened.absorb(other.unopened);
        (self.setup_us, self.connect_us, self.tls_us, self.upgrade_us) = (None, None, None, None);
        self.opening_s = self.opening_s.zip(other.opening_s).map(|(a, b)| a.max(b));
    }
}

/// Counts add up by the second; a percentile of two percentiles does not exist.
fn merge_windows(mine: Vec<WindowSummary>, other: &[WindowSummary]) -> Vec<WindowSummary> {
    let mut by_second: BTreeMap<u64, WindowSummary> =
        mine.into_iter().map(|window| (window.t_s, window)).collect();
    for window in other {
        by_second
            .entry(window.t_s)
            .and_modify(|known| {
                known.sent += window.sent;
                known.answered += window.answered;
                known.refused += window.refused;
                known.blocked += window.blocked;
                known.queue_depth_max = known.queue_depth_max.max(window.queue_depth_max);
                known.latency_max_us = match (known.latency_max_us, window.latency_max_us) {
                    (Some(a), Some(b)) => Some(a.max(b)),
                    (a, b) => a.or(b),
                };
                known.latency_p01_us = None;
                known.latency_p50_us = None;
                known.latency_p95_us = None;
                known.latency_p99_us = None;
                known.service_latency_p50_us = None;
                known.service_latency_p99_us = None;
                known.send_lateness_p99_us = None;
            })
            .or_insert_with(|| window.clone());
    }
    by_second.into_values().collect()
}
