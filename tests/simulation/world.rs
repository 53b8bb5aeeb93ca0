//! Runs one scenario: the client's whole load, the server and the network between them, in simulated time on one thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use floodline::client::{ClientError, HighVolumeThroughputClient, LoadMeasurement, Observer, Stop};
use floodline::dialect::Floodline;
use floodline::schedule::mix;
use turmoil::{Builder, Sim};

use crate::network::{CLIENT, SERVER, SimulatedConnect};
use crate::scenario::{Fault, Scenario};
use crate::server::{self, Truth};
use crate::witness::{Transcripts, Witness};

/// A load that has not ended in so much simulated time hangs.
const PATIENCE: Duration = Duration::from_secs(90);

/// By then the server listens, whichever host the simulator runs first.
const SERVER_STARTS: Duration = Duration::from_millis(5);

/// Simulated time begins here, long after the epoch, so that all times on the wire have the same length.
const BEGINS: Duration = Duration::from_secs(1_700_000_000);

/// What came out of a scenario.
pub struct Outcome {
    pub scenario: Scenario,
    /// What the client says.
    pub measured: Result<LoadMeasurement, ClientError>,
    /// What the client encoded and decoded.
    pub transcripts: Transcripts,
    /// What the server did.
    pub truth: Rc<Truth>,
}

/// Is told when the load begins.
struct Started(Rc<Cell<bool>>);

impl Observer for Started {
    fn started(&mut self) {
        self.0.set(true);
    }
}

/// Runs it; an error where it does not end.
pub fn run(scenario: Scenario, trace: bool) -> Result<Outcome, String> {
    let truth = Rc::new(Truth::new(&scenario, trace));
    let workload = scenario.workload.clone().validated().map_err(|error| error.to_string())?;
    let dialect = Floodline::new(workload.seed, workload.payload_bytes, scenario.request, None);
    let witness = Witness::new(dialect);
    let transcripts = Arc::clone(&witness.transcripts);
    let connect = SimulatedConnect::new(mix(scenario.seed, 2), scenario.chop);
    let client = HighVolumeThroughputClient::new(workload, connect, witness).workers(scenario.workers);

    let mut sim = network(&scenario);
    let served = Rc::clone(&truth);
    sim.host(SERVER, move || server::run(Rc::clone(&served)));
    let (started, measured) = (Rc::new(Cell::new(scenario.harsh_start)), Rc::new(RefCell::new(None)));
    let (begun, result) = (Rc::clone(&started), Rc::clone(&measured));
    let (stop, harsh_start) = (scenario.stop, scenario.harsh_start);
    sim.client(CLIENT, async move {
        let stopper = Stop::default();
        if let Some((after, twice)) = stop {
            let stopper = stopper.clone();
            tokio::task::spawn_local(async move {
                tokio::time::sleep(after).await;
                stopper.stop();
                if twice {
                    stopper.stop();
                }
            });
        }
        if !harsh_start {
            tokio::time::sleep(SERVER_STARTS).await;
        }
        let origin_ns = turmoil::since_epoch().unwrap_or_default().as_nanos() as u64;
        let mut observer = Started(begun);
        let measured = client.run_in_virtual_time(origin_ns, &stopper, &mut observer).await;
        *result.borrow_mut() = Some(measured);
        Ok(())
    });
    drive(&mut sim, &scenario, &truth, &started)?;
    drop(sim);
    let measured = measured.take().ok_or("the client ended without a result")?;
    let transcripts = transcripts.lock().unwrap().clone();
    Ok(Outcome { scenario, measured, transcripts, truth })
}

fn network(scenario: &Scenario) -> Sim<'static> {
    let ms = Duration::from_millis;
    Builder::new()
        .rng_seed(mix(scenario.seed, 3))
        .epoch(UNIX_EPOCH + BEGINS)
        .simulation_duration(PATIENCE)
        .min_message_latency(ms(scenario.latency_ms.start))
        .max_message_latency(ms(scenario.latency_ms.end))
        .tcp_capacity(scenario.tcp_capacity)
        .enable_random_order()
        .build()
}

/// Steps through the simulation, and lets each fault begin and end in its time.
fn drive(sim: &mut Sim<'_>, scenario: &Scenario, truth: &Truth, started: &Cell<bool>) -> Result<(), String> {
    let mut faults = scenario.faults.iter().copied().peekable();
    let (mut started_at, mut current) = (None, None::<(Duration, Fault)>);
    loop {
        if sim.step().map_err(|error| error.to_string())? {
            return Ok(());
        }
        let now = sim.elapsed();
        if started.get() {
            started_at.get_or_insert(now);
        }
        let Some(since) = started_at.map(|at| now - at) else { continue };
        if let Some((ends, fault)) = current
            && since >= ends
        {
            end(sim, fault, truth);
            current = None;
        }
        if let Some(&(begins, fault)) = faults.peek()
            && since >= begins
            && current.is_none()
        {
            faults.next();
            begin(sim, fault, truth);
            current = Some((since + fault.lasts(), fault));
        }
    }
}

fn begin(sim: &mut Sim<'_>, fault: Fault, truth: &Truth) {
    match fault {
        Fault::Partition(_) => sim.partition(CLIENT, SERVER),
        Fault::Deaf(_) => sim.partition_oneway(CLIENT, SERVER),
        Fault::Mute(_) => sim.partition_oneway(SERVER, CLIENT),
        Fault::Hold(_) => sim.hold(CLIENT, SERVER),
        Fault::Crash(_) => {
            sim.crash(SERVER);
            truth.crashed();
        }
    }
    truth.event(sim.elapsed(), name(fault), None);
}

fn end(sim: &mut Sim<'_>, fault: Fault, truth: &Truth) {
    match fault {
        Fault::Partition(_) => sim.repair(CLIENT, SERVER),
        Fault::Deaf(_) => sim.repair_oneway(CLIENT, SERVER),
        Fault::Mute(_) => sim.repair_oneway(SERVER, CLIENT),
        Fault::Hold(_) => sim.release(CLIENT, SERVER),
        Fault::Crash(_) => sim.bounce(SERVER),
    }
    truth.event(sim.elapsed(), "fault ended", None);
}

fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Partition(_) => "partition",
        Fault::Deaf(_) => "partition towards the server",
        Fault::Mute(_) => "partition towards the client",
        Fault::Hold(_) => "hold",
        Fault::Crash(_) => "crash",
    }
}
