//! The course of a load, as its coordinator follows it: where it runs, how far it is, and what it measured.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::conductor::Progress;
use super::shared::nanos;
use super::summary::Summed;
use super::worker::{Start, WorkerReport};
use super::{ClientError, LoadMeasurement, LoadProgress, Observer};
use crate::clock::Clock;
use crate::record::Collector;
use crate::result::ConnectionCounts;
use crate::schedule::mix;
use crate::workload::Workload;

/// A window is complete so long after its end, because every worker hands over within its housekeeping interval.
const SETTLE_NS: u64 = 300_000_000;

/// One run of a load.
pub(super) struct Run<C> {
    /// Distinguishes the run's ids.
    pub(super) id: String,
    pub(super) clock: C,
    /// What the wall clock says when the run's clock says 0.
    pub(super) unix_origin_ns: u64,
    /// What all workers add to.
    pub(super) progress: Arc<Progress>,
}

impl<C: Clock> Run<C> {
    /// A run whose id follows from the time of day and `salt`: eight hex digits that no other run has, for all that
    /// matters.
    pub(super) fn new(clock: C, unix_origin_ns: u64, salt: u64) -> Self {
        let id = format!("{:08x}", mix(unix_origin_ns, salt) as u32);
        Self { id, clock, unix_origin_ns, progress: Arc::default() }
    }
}

/// A load under way.
pub(super) struct Course<'a, C> {
    workload: &'a Workload,
    run: Run<C>,
    /// When the rate is reached, on the run's clock.
    start_ns: u64,
    connections: ConnectionCounts,
    collector: Collector,
    observer: &'a mut dyn Observer,
}

impl<'a, C: Clock> Course<'a, C> {
    /// The load begins: with what each of its workers is to be told.
    pub(super) fn begin(
        workload: &'a Workload,
        run: Run<C>,
        start_ns: u64,
        workers: usize,
        connections: ConnectionCounts,
        observer: &'a mut dyn Observer,
    ) -> (Self, Vec<Start>) {
        let (collector, recorders) = Collector::new(workers, start_ns);
        observer.started();
        let starts = recorders.into_iter().map(|recorder| Start { start_ns, recorder }).collect();
        (Self { workload, run, start_ns, connections, collector, observer }, starts)
    }

    /// Collects the windows that are complete, and shows where the load stands.
    pub(super) fn look(&mut self) {
        let Workload { duration, ramp, .. } = *self.workload;
        let now_ns = self.run.clock.now_ns();
        self.collector.collect(now_ns.saturating_sub(self.start_ns + SETTLE_NS) / 1_000_000_000);
        let elapsed = Duration::from_nanos(now_ns.saturating_sub(self.start_ns - nanos(ramp)));
        self.observer.progress(&LoadProgress {
            elapsed,
            left: duration.saturating_add(ramp.saturating_mul(2)).saturating_sub(elapsed),
            answered: self.run.progress.answered.load(Ordering::Relaxed),
            window: self.collector.latest().cloned(),
        });
    }

    /// Sums up what the workers found.
    pub(super) fn finish(
        self,
        reports: Vec<WorkerReport>,
        stopped: bool,
    ) -> Result<LoadMeasurement, ClientError> {
        let start_ns = self.start_ns;
        let ended_ns = reports.iter().map(|report| report.ended_ns).max().unwrap_or(start_ns);
        let offered_ns = ended_ns.saturating_sub(start_ns - nanos(self.workload.ramp));
        if offered_ns == 0 {
            return Err(ClientError::Stopped);
        }
        let held_ns = ended_ns.saturating_sub(start_ns).min(nanos(self.workload.duration));
        let offered_for = Duration::from_nanos(held_ns);
        let (total, windows) = self.collector.finish();
        let summed = Summed::of(self.workload, reports, offered_ns, offered_for, self.connections);
        Ok(LoadMeasurement {
            run_id: self.run.id,
            started_at_unix_ns: self.run.unix_origin_ns + start_ns,
            offered_for,
            stopped,
            messages: summed.messages,
            achieved: summed.achieved,
            moments: summed.moments,
            total,
            windows,
            connections: summed.connections,
            per_connection: summed.per_connection,
            outages: summed.outages,
            outages_not_listed: summed.outages_not_listed,
            unmatched: summed.unmatched,
            blocked_sends: summed.blocked_sends,
            busiest_worker_cores: summed.busiest_worker_cores,
        })
    }
}
