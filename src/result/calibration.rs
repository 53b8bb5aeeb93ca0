//! What the load generator itself can do on this machine: the measure of what it may say of a server.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::WorkloadSummary;
use crate::units;

/// The version of the JSON of a calibration. Fields are only ever added.
pub const CALIBRATION_SCHEMA: &str = "floodline.calibration/1";

/// Of the ceiling, so much can be offered without a doubt. The ceiling is that of a closed loop, which sends in full
/// batches and has no timer to serve: an open loop pays for both, a tenth at most where neither is idle.
pub const CEILING_SHARE: f64 = 0.9;

/// What the generator can do against our own server without processing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// [`CALIBRATION_SCHEMA`].
    pub schema: String,
    /// When it was measured.
    pub measured_at_unix_ns: u64,
    /// Of which generator, on which machine.
    pub generator: Generator,
    /// Bytes of content a message.
    pub payload_bytes: usize,
    /// Connections of the ceiling and of the timer.
    pub connections: u32,
    /// Unanswered messages a connection, at the ceiling.
    pub window: usize,
    /// Worker threads.
    pub workers: usize,
    /// The most messages a second that it sent and had answered, in a closed loop: the best of several loads, since
    /// whatever disturbs one can only make it less.
    pub ceiling_per_second: f64,
    /// Cores that its busiest worker used then; well under 1, the server was the limit, and the ceiling is higher.
    pub ceiling_busiest_worker_cores: Option<f64>,
    /// CPU microseconds a message then, of the generator.
    pub client_cpu_us_per_message: Option<f64>,
    /// The same of the server.
    pub server_cpu_us_per_message: Option<f64>,
    /// How late messages leave at a rate that is no trouble.
    pub timer: TimerError,
    /// From send to answer with one message under way on one connection: below it nothing can be measured.
    pub latency_floor_us: Floor,
    /// The most that other processes took in any of the loads, in cores.
    pub foreign_cpu_cores: Option<f64>,
}

/// The generator and the machine that a calibration holds for. What could not be found out is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generator {
    /// The machine itself: 16 hexadecimal digits that [`machine_id`](crate::environment::machine_id) gives. Two of a kind
    /// may share a home.
    #[serde(default)]
    pub machine: Option<String>,
    /// The processor.
    pub cpu: Option<String>,
    /// Logical processors that the process may use.
    pub cores: Option<u64>,
    /// The kernel's whole version.
    pub kernel: Option<String>,
    /// This crate's version.
    pub floodline: String,
    /// The size of the executable.
    pub executable_bytes: u64,
    /// The CRC-32 of its content: a build with another compiler or profile is another generator.
    pub executable_crc32: u32,
}

/// Send lateness at a low rate: the error of the timer, and of the scheduler behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimerError {
    /// At which rate.
    pub rate: f64,
    /// With which pacer.
    pub pacer: String,
    /// Median, microseconds.
    pub p50_us: Option<f64>,
    /// 99th percentile, microseconds.
    pub p99_us: Option<f64>,
    /// Largest, microseconds.
    pub max_us: Option<f64>,
}

/// The shortest latencies that can be measured, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// Median.
    pub p50: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
}

impl Generator {
    /// The first thing in which `self`, which is here, is another than the one `measured`, in words.
    #[must_use]
    pub fn difference(&self, measured: &Self) -> Option<String> {
        let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        let differs = |what: &str, here: String, there: String| {
            (here != there).then(|| format!("the {what} is {here}, it was measured with {there}"))
        };
        let cores = |cores: Option<u64>| shown(&cores.map(|cores| cores.to_string()));
        let machine = (self.machine != measured.machine).then(|| match &measured.machine {
            Some(_) => "it was measured on another machine".to_owned(),
            None => "it does not say on which machine it was measured".to_owned(),
        });
        differs("processor", shown(&self.cpu), shown(&measured.cpu))
            .or_else(|| differs("number of cores", cores(self.cores), cores(measured.cores)))
            .or_else(|| differs("kernel", shown(&self.kernel), shown(&measured.kernel)))
            .or(machine)
            .or_else(|| differs("version", self.floodline.clone(), measured.floodline.clone()))
            .or_else(|| (self != measured).then(|| "the executable is another build".to_owned()))
    }
}

impl Calibration {
    /// How long ago it was measured; nothing where the clock has been set back since.
    #[must_use]
    pub fn age(&self, now_unix_ns: u64) -> Duration {
        Duration::from_nanos(now_unix_ns.saturating_sub(self.measured_at_unix_ns))
    }

    /// Whether it is of messages and connections like this load's (a shard's are its share), so that its ceiling is
    /// this load's too.
    #[must_use]
    pub fn fits(&self, workload: &WorkloadSummary, shards: u32) -> bool {
        self.payload_bytes == workload.payload_bytes
            && self.connections == workload.connections.div_ceil(shards.max(1))
            && workload.dialect == "floodline"
    }

    /// Why a load of `shards` like this one may be more than the generator can offer; `None` where it is not.
    #[must_use]
    pub fn exceeded_by(&self, workload: &WorkloadSummary, shards: u32) -> Option<String> {
        let rate = workload.rate? / f64::from(shards.max(1));
        let exceeded = self.fits(workload, shards) && rate > CEILING_SHARE * self.ceiling_per_second;
        exceeded.then(|| {
            format!(
                "{} is more than {} of the generator's own ceiling, {}",
                units::per_second(rate),
                units::percent(CEILING_SHARE),
                units::per_second(self.ceiling_per_second)
            )
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::example;
    use super::*;

    /// A calibration of the example load, with a ceiling of a million messages a second.
    pub(crate) fn example() -> Calibration {
        Calibration {
            schema: CALIBRATION_SCHEMA.to_owned(),
            measured_at_unix_ns: 1_000_000_000_000_000_000,
            generator: Generator {
                machine: Some("0123456789abcdef".to_owned()),
                cpu: Some("Example CPU".to_owned()),
                cores: Some(2),
                kernel: Some("6.18.44".to_owned()),
                floodline: "0.1.0".to_owned(),
                executable_bytes: 10,
                executable_crc32: 7,
            },
            payload_bytes: 64,
            connections: 10,
            window: 32,
            workers: 1,
            ceiling_per_second: 1e6,
            ceiling_busiest_worker_cores: Some(1.0),
            client_cpu_us_per_message: Some(1.0),
            server_cpu_us_per_message: Some(0.5),
            timer: TimerError {
                rate: 10_000.0,
                pacer: "timer".to_owned(),
                p50_us: Some(40.0),
                p99_us: Some(90.0),
                max_us: Some(2_000.0),
            },
            latency_floor_us: Floor { p50: Some(20.0), p99: Some(50.0) },
            foreign_cpu_cores: Some(0.01),
        }
    }

    #[test]
    fn a_rate_beyond_nine_tenths_of_the_ceiling_is_in_doubt_where_the_load_is_alike() {
        let calibration = example();
        let workload = |rate: Option<f64>| WorkloadSummary { rate, ..example::clean().workload };
        assert!(calibration.exceeded_by(&workload(Some(900_000.0)), 1).is_none());
        let why = calibration.exceeded_by(&workload(Some(900_001.0)), 1).unwrap();
        assert!(why.contains("900,001 msg/s") && why.contains("ceiling, 1,000,000 msg/s"), "{why}");
        // Nothing is offered in a closed loop.
        assert!(calibration.exceeded_by(&workload(None), 1).is_none());
        // Another load has another ceiling.
        let other = WorkloadSummary { payload_bytes: 65, ..workload(Some(1e9)) };
        assert!(calibration.exceeded_by(&other, 1).is_none());
        let other = WorkloadSummary { connections: 11, ..workload(Some(1e9)) };
        assert!(calibration.exceeded_by(&other, 1).is_none());
        // Each of two shards offers half of the rate on half of the connections.
        let whole = |rate| WorkloadSummary { connections: 20, ..workload(Some(rate)) };
        assert!(calibration.exceeded_by(&whole(1.8e6), 2).is_none());
        assert!(calibration.exceeded_by(&whole(1.9e6), 2).is_some());
    }

    #[test]
    fn the_first_difference_is_named() {
        type Edit = fn(&mut Generator);
        let edits: [(Edit, &str); 7] = [
            (|g| g.cpu = None, "processor is unknown, it was measured with Example CPU"),
            (|g| g.cores = Some(4), "number of cores is 4, it was measured with 2"),
            (|g| g.kernel = Some("6.19".to_owned()), "kernel is 6.19, it was measured with 6.18.44"),
            (|g| g.machine = None, "measured on another machine"),
            (|g| g.floodline = "0.2.0".to_owned(), "version is 0.2.0"),
            (|g| g.executable_crc32 = 8, "another build"),
            (|g| g.executable_bytes = 11, "another build"),
        ];
        let measured = example().generator;
        assert_eq!(measured.difference(&measured), None);
        for (edit, expected) in edits {
            let mut here = measured.clone();
            edit(&mut here);
            let difference = here.difference(&measured).unwrap();
            assert!(difference.contains(expected), "{difference}");
        }
    }
}
