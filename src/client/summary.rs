//! The reports of all workers in one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::outages::OutageLog;
use super::report::{ConnectionReport, count_reason};
use super::worker::WorkerReport;
use crate::ledger::{Counts, MISSING_KEPT, Wrong};
use crate::record::CoarseHistogram;
use crate::result::{
    BlockedSends, ConnectionCounts, ConnectionSummary, MessageCounts, Moments, Outage, Unmatched,
};
use crate::workload::Workload;

/// The reports of all workers in one.
pub(super) struct Summed {
    pub(super) messages: MessageCounts,
    pub(super) achieved: u64,
    pub(super) moments: Moments,
    pub(super) connections: ConnectionCounts,
    pub(super) per_connection: Vec<ConnectionSummary>,
    pub(super) outages: Vec<Outage>,
    pub(super) outages_not_listed: u64,
    pub(super) unmatched: Vec<Unmatched>,
    pub(super) blocked_sends: BlockedSends,
    pub(super) busiest_worker_cores: Option<f64>,
}

impl Summed {
    pub(super) fn of(
        workload: &Workload,
        reports: Vec<WorkerReport>,
        offered_ns: u64,
        offered_for: Duration,
        connections: ConnectionCounts,
    ) -> Self {
        let cores = |cpu_s: f64| cpu_s / offered_for.as_secs_f64().max(1e-9);
        let busiest_worker_cores =
            reports.iter().filter_map(|report| report.cpu_s).map(cores).max_by(f64::total_cmp);
        let mut summed = Self {
            messages: MessageCounts::default(),
            achieved: reports.iter().map(|report| report.achieved).sum(),
            moments: reports.iter().fold(Moments::default(), |all, report| all.with(report.moments)),
            connections,
            per_connection: Vec::new(),
            outages: Vec::new(),
            outages_not_listed: 0,
            unmatched: Vec::new(),
            blocked_sends: BlockedSends::default(),
            busiest_worker_cores,
        };
        let mut by_index: BTreeMap<u32, ConnectionReport> = BTreeMap::new();
        for report in reports {
            by_index.extend(report.connections.into_iter().map(|connection| (connection.index, connection)));
            summed.add_outages(report.outages);
            summed.unmatched.extend(report.unmatched);
        }
        Unmatched::keep_first(&mut summed.unmatched);
        summed.outages_not_listed += Outage::keep_first(&mut summed.outages);
        for index in workload.shard_connections() {
            match by_index.remove(&index) {
                Some(report) => summed.add(report),
                None => summed.add_unopened(workload, index, offered_ns),
            }
        }
        summed
    }

    fn add_outages(&mut self, log: OutageLog) {
        self.outages.extend(log.kept);
        self.outages_not_listed += log.more;
        for (reason, count) in log.reasons {
            count_reason(&mut self.connections.reasons, reason, count);
        }
    }

    fn add(&mut self, report: ConnectionReport) {
        let counts = *report.ledger.counts();
        self.messages.due += report.due;
        self.messages.unsent += report.due - counts.sent;
        self.messages.untimed_due += report.untimed.due;
        self.messages.untimed_answered += report.untimed.answered;
        self.messages.counts.add(&counts);
        self.messages.reorder_distance_max =
            self.messages.reorder_distance_max.max(report.ledger.reorder_distance_max());
        let name = |sequence: u64| format!("{}-{sequence}", report.client_id);
        let keep = |ids: &mut Vec<String>, more: &mut dyn Iterator<Item = u64>| {
            ids.extend(more.take(MISSING_KEPT.saturating_sub(ids.len())).map(name));
        };
        let (messages, ledger) = (&mut self.messages, &report.ledger);
        keep(&mut messages.missing_ids, &mut ledger.missing().iter().copied());
        keep(&mut messages.reordered_ids, &mut ledger.wrong(Wrong::Reordered));
        keep(&mut messages.duplicate_ids, &mut ledger.wrong(Wrong::Duplicate));
        keep(&mut messages.foreign_ids, &mut ledger.wrong(Wrong::Foreign));
        keep(&mut messages.corrupted_ids, &mut ledger.wrong(Wrong::Corrupted));
        self.blocked_sends.messages += report.blocked.messages;
        self.blocked_sends.max_us = self.blocked_sends.max_us.max(report.blocked.max_ns as f64 / 1e3);
        self.blocked_sends.connection_s += report.blocked.total_ns as f64 / 1e9;
        self.connections.reconnects += report.reconnects;
        if let Some(end) = report.end {
            if end.refused {
                self.connections.refused += 1;
                self.connections.established -= 1;
            } else {
                self.connections.dropped += 1;
            }
            count_reason(&mut self.connections.reasons, end.reason, 1);
        }
        let timed = report.due.max(counts.answered) - report.untimed.due;
        self.per_connection.push(ConnectionSummary {
            connection: report.index,
            due: report.due,
            counts,
            achieved: report.achieved,
            latency_p95_at_most_us: p95_at_most_us(&report.coarse, timed),
        });
    }

    /// A connection that was never open: what was due on it is unsent.
    fn add_unopened(&mut self, workload: &Workload, index: u32, offered_ns: u64) {
        let (mut due, mut untimed_due) = (0, 0);
        if let Some(schedule) = workload.schedule() {
            let held_ns = schedule.held_ns();
            let mut due_times = schedule.due_times(index);
            due_times.truncate(offered_ns);
            for due_ns in due_times {
                due += 1;
                untimed_due += u64::from(!held_ns.contains(&due_ns));
            }
        }
        self.messages.untimed_due += untimed_due;
        self.messages.due += due;
        self.messages.unsent += due;
        let unopened = &mut self.connections.unopened;
        if unopened.holds(index) {
            unopened.due += due;
            unopened.untimed_due += untimed_due;
        }
        self.per_connection.push(ConnectionSummary {
            connection: index,
            due,
            counts: Counts::default(),
            achieved: 0,
            latency_p95_at_most_us: None,
        });
    }
}

/// The upper bound of the bucket that holds the 95th percentile of `due` messages, the unanswered ones above all.
fn p95_at_most_us(coarse: &CoarseHistogram, due: u64) -> Option<f64> {
    let rank = (0.95 * due as f64 - 1e-9).ceil() as u64;
    let mut below = 0;
    for (upper_ns, count) in coarse.buckets() {
        below += u64::from(count);
        if below >= rank.max(1) {
            return upper_ns.map(|ns| ns as f64 / 1e3);
        }
    }
    None
}
