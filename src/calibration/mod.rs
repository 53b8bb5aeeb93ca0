//! Self-calibration: what the load generator itself can do on this machine, measured against the cheapest honest peer.
//!
//! That is our own server without processing, in a process of its own. In a closed loop of the two the generator's worker
//! is at its limit (0.98 of its core) while the server uses 0.5 to 0.8 of another, and both figures are part of the result,
//! so that this can be seen to hold. A null server that answered by id alone and skipped the content was tried: it saved a
//! seventh of the server's CPU, and the generator did *less* with it (620,000 against 810,000 msg/s at 1 KiB on 100
//! connections, 0.89 against 1.3 million at 64 B), because answers that say less are read and checked another way. A
//! ceiling must be that of the work that a measurement does.

pub mod cache;
pub mod truth;

use thiserror::Error;

use crate::client::{Observer, Stop, default_workers};
use crate::clock::unix_now_ns;
use crate::result::LoadTestResults;
use crate::result::calibration::{CALIBRATION_SCHEMA, Calibration, Floor, Generator, TimerError};
use crate::run::{LoadPlan, Peer, RunError, ServerCommand, run_load};
use crate::units::{Rate, UnitError};
use crate::workload::{Offered, Workload};

/// The ceiling is the best of so many loads.
const CEILING_LOADS: usize = 3;
/// The timer is judged at the rate that a service must at least sustain for `peak`: half a core for the generator.
const TIMER_RATE_PER_SECOND: f64 = 10_000.0;

/// What to calibrate for.
#[derive(Debug, Clone)]
pub struct CalibrationPlan {
    /// Payload, connections and window; and how long each of the five loads takes.
    pub workload: Workload,
    /// How to start our own server.
    pub server: ServerCommand,
    /// Whom it is about.
    pub generator: Generator,
}

/// The generator could not be calibrated.
#[derive(Debug, Error)]
pub enum CalibrationError {
    /// A load could not be offered.
    #[error("{stage}: {source}")]
    Run {
        /// Which.
        stage: &'static str,
        /// What went wrong.
        source: RunError,
    },
    /// It was ended before all was measured.
    #[error("stopped before the calibration was done")]
    Stopped,
    /// Not all messages were answered, by a server without limits.
    #[error("{stage}: {missing} messages were not answered")]
    Unanswered {
        /// Which load.
        stage: &'static str,
        /// How many.
        missing: u64,
    },
    /// A rate that is none.
    #[error(transparent)]
    Rate(#[from] UnitError),
}

/// Measures ceiling, timer and latency floor, one load after the other.
///
/// # Errors
/// Where a load cannot be offered, is not answered, or `stop` came first.
pub fn calibrate(
    plan: &CalibrationPlan,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Result<Calibration, CalibrationError> {
    let base = &plan.workload;
    let mut stage = |stage, workload: Workload| offer(plan, stage, workload, stop, observer);
    let mut ceilings = Vec::new();
    for _ in 0..CEILING_LOADS {
        ceilings.push(stage("ceiling", Workload { offered: Offered::Max, ..base.clone() })?);
    }
    let rate = Rate::per_second(TIMER_RATE_PER_SECOND)?;
    let timer = stage("timer", Workload { offered: Offered::Rate(rate), ..base.clone() })?;
    let floor =
        stage("floor", Workload { offered: Offered::Max, connections: 1, window: 1, ..base.clone() })?;
    let foreign = ceilings.iter().chain([&timer, &floor]).filter_map(|run| run.resources.foreign_cpu_cores);
    let foreign_cpu_cores = foreign.max_by(f64::total_cmp);
    let best =
        ceilings.iter().max_by(|a, b| a.throughput.achieved_rate.total_cmp(&b.throughput.achieved_rate));
    let Some(best) = best else { return Err(CalibrationError::Stopped) };
    Ok(Calibration {
        schema: CALIBRATION_SCHEMA.to_owned(),
        measured_at_unix_ns: unix_now_ns(),
        generator: plan.generator.clone(),
        payload_bytes: base.payload_bytes,
        connections: base.connections,
        window: base.window,
        workers: default_workers(),
        ceiling_per_second: best.throughput.achieved_rate,
        ceiling_busiest_worker_cores: best.resources.busiest_worker_cores,
        client_cpu_us_per_message: best.cost.client_cpu_us_per_message,
        server_cpu_us_per_message: best.cost.server_cpu_us_per_message,
        timer: timer_error(&timer),
        latency_floor_us: latency_floor(&floor),
        foreign_cpu_cores,
    })
}

fn offer(
    plan: &CalibrationPlan,
    stage: &'static str,
    workload: Workload,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Result<LoadTestResults, CalibrationError> {
    let peer = Peer::Own(plan.server.clone());
    let run = run_load(&LoadPlan::new(workload, peer), stop, observer);
    let run = run.map_err(|source| CalibrationError::Run { stage, source })?;
    if run.interrupted || stop.is_stopped() {
        return Err(CalibrationError::Stopped);
    }
    match run.messages.due - run.messages.counts.answered {
        0 => Ok(run),
        missing => Err(CalibrationError::Unanswered { stage, missing }),
    }
}

fn timer_error(run: &LoadTestResults) -> TimerError {
    let lateness = run.send_lateness_us.as_ref();
    TimerError {
        rate: TIMER_RATE_PER_SECOND,
        pacer: run.workload.pacer.clone(),
        p50_us: lateness.and_then(|lateness| lateness.p50),
        p99_us: lateness.and_then(|lateness| lateness.p99),
        max_us: lateness.and_then(|lateness| lateness.max),
    }
}

fn latency_floor(run: &LoadTestResults) -> Floor {
    let latency = run.service_latency_us.as_ref();
    Floor { p50: latency.and_then(|latency| latency.p50), p99: latency.and_then(|latency| latency.p99) }
}
