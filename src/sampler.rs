//! What a run costs: memory and CPU of the client and the server, and what the rest of the machine took.

mod machine;
mod process;
mod series;
mod track;

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use machine::{MachineInterval, MachineProbe, MachineReading};
pub use process::{ProcessProbe, ProcessReading};
use series::Thinning;
use track::Track;

/// The time between two samples that suits a run of seconds to minutes: fine enough to place a spike, and at some
/// 40 µs a sample it takes less than a thousandth of a core.
pub const DEFAULT_PERIOD: Duration = Duration::from_millis(250);

/// Samples kept at most: four minutes at the default period, some 180 KiB in memory, and as many as a plot is wide; a longer
/// run is sampled less often. Four times as many were most of what an hour of load made the client grow by.
const CAPACITY: usize = 1_024;

/// The shortest period: below it the sampler would itself be the load.
const MIN_PERIOD: Duration = Duration::from_millis(1);

/// The shortest interval over which foreign CPU is worth telling: the machine's counters are right to some 30 ms.
const MIN_FOREIGN_INTERVAL: Duration = Duration::from_millis(100);

/// How many samples back the start of such an interval can be: all of it at the shortest period.
const NEIGHBOURS: usize = 101;

/// The resources of a run over time, and what they come to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SampleSeries {
    /// The time between samples at the end, in seconds: what was asked for, doubled each time the series was full.
    pub period_s: f64,
    /// The samples, oldest first: the first from the start, the last from the stop, whatever the period.
    pub samples: Vec<Sample>,
    /// The whole interval.
    pub summary: ResourceSummary,
}

/// The resources at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since the start.
    pub t_s: f64,
    /// The process that offers the load.
    pub client: ProcessSample,
    /// The process under load; `None` while none was named.
    pub server: Option<ProcessSample>,
    /// Cores' worth of CPU that neither had, on average since the sample before, or over 100 ms where that one is
    /// nearer; `None` where there is none. Over a short period it is coarse: [`MachineProbe`] tells how much.
    pub foreign_cpu_cores: Option<f64>,
}

/// One side at one instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessSample {
    /// Resident memory; `None` while there is no process.
    pub rss_bytes: Option<u64>,
    /// CPU seconds since the start, added up over all processes that this side had; it stands still while there is
    /// none. What a killed process used after the last look at it is missing.
    pub cpu_s: Option<f64>,
}

/// The resources of the whole interval.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ResourceSummary {
    /// Seconds from start to stop.
    pub duration_s: f64,
    /// The process that offers the load.
    pub client: ProcessSummary,
    /// The process under load; `None` where none was ever named.
    pub server: Option<ProcessSummary>,
    /// Cores' worth of CPU that neither had, on average: the machine's less theirs, stolen time included.
    pub foreign_cpu_cores: Option<f64>,
    /// The part of it that the hypervisor withheld.
    pub stolen_cpu_cores: Option<f64>,
}

/// One side over the whole interval.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessSummary {
    /// CPU seconds, added up over all processes that this side had.
    pub cpu_s: Option<f64>,
    /// The most that was resident. Exact where it exceeds all that the process had before the start (the kernel keeps
    /// that peak); else the highest sample.
    pub peak_rss_bytes: Option<u64>,
    /// Resident memory at the start; `None` where the process came later.
    pub rss_start_bytes: Option<u64>,
    /// Resident memory at the stop; `None` where the process was gone.
    pub rss_end_bytes: Option<u64>,
    /// Open files at the stop.
    pub open_files_end: Option<u64>,
    /// The most open files in any sample.
    pub open_files_max: Option<u64>,
    /// The most threads in any sample.
    pub threads_max: Option<u64>,
}

/// The sampler could not start.
#[derive(Debug, Error)]
pub enum SamplerError {
    /// The system gave no thread.
    #[error("no thread for the resource sampler: {0}")]
    Thread(#[source] io::Error),
}

/// Samples the resources of a run on a thread of its own until stopped or dropped.
///
/// ```
/// use floodline::sampler::{DEFAULT_PERIOD, Sampler};
///
/// let sampler = Sampler::start(std::process::id(), None, DEFAULT_PERIOD)?;
/// // … the run …
/// let series = sampler.stop();
/// println!("client: {:?} CPU seconds", series.summary.client.cpu_s);
/// # assert!(series.samples.len() >= 2);
/// # Ok::<(), floodline::sampler::SamplerError>(())
/// ```
#[derive(Debug)]
pub struct Sampler {
    commands: Sender<Command>,
    thread: JoinHandle<SampleSeries>,
}

#[derive(Debug)]
enum Command {
    ServerPid(Option<u32>),
    Stop,
}

impl Sampler {
    /// Takes the first sample and goes on every `period` (1 ms at least) for the client and, where its process is
    /// known, the server. The same process on both sides counts once.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(client_pid: u32, server_pid: Option<u32>, period: Duration) -> Result<Self, SamplerError> {
        let recorder = Recorder::start(client_pid, server_pid, period, CAPACITY);
        let (commands, inbox) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("floodline-sampler".to_owned())
            .spawn(move || record(recorder, &inbox))
            .map_err(SamplerError::Thread)?;
        Ok(Self { commands, thread })
    }

    /// Names the server's process anew, after a restart (which began within the run, so all its CPU time counts), or
    /// says that there is none. To be called before a known kill too, where the last CPU time matters.
    pub fn set_server_pid(&self, pid: Option<u32>) {
        // The thread ends before the sender only by a panic, which `stop` shows as an empty series.
        let _ = self.commands.send(Command::ServerPid(pid));
    }

    /// Takes the last sample, ends the thread and returns what was gathered.
    #[must_use]
    pub fn stop(self) -> SampleSeries {
        let _ = self.commands.send(Command::Stop);
        self.thread.join().unwrap_or_default()
    }
}

fn record(mut recorder: Recorder, inbox: &Receiver<Command>) -> SampleSeries {
    loop {
        match inbox.recv_timeout(recorder.due.saturating_duration_since(Instant::now())) {
            Ok(Command::ServerPid(pid)) => recorder.set_server_pid(pid),
            Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return recorder.finish(),
            Err(RecvTimeoutError::Timeout) => recorder.sample(),
        }
    }
}

/// Counters since the start at one instant; foreign CPU is the difference of two of these.
#[derive(Debug, Clone, Copy)]
struct Point {
    t: Duration,
    client: ProcessSample,
    server: Option<ProcessSample>,
    own_cpu: Option<Duration>,
    machine: Option<MachineReading>,
}

/// The state of a recording, apart from the thread that drives it.
#[derive(Debug)]
struct Recorder {
    started: Instant,
    /// When the next sample is to be taken.
    due: Instant,
    period: Duration,
    machine: Option<MachineProbe>,
    client_pid: u32,
    client: Track,
    /// None until a server was named, which keeps "no server" apart from "not running".
    server: Option<Track>,
    /// Whether the server is the client's process, so that its CPU time must not be subtracted twice.
    server_is_client: bool,
    points: Thinning<Point>,
}

impl Recorder {
    fn start(client_pid: u32, server_pid: Option<u32>, period: Duration, capacity: usize) -> Self {
        let started = Instant::now();
        let mut recorder = Self {
            started,
            due: started,
            period: period.max(MIN_PERIOD),
            machine: MachineProbe::open(),
            client_pid,
            client: Track::start(Some(client_pid)),
            server: server_pid.map(|pid| Track::start(Some(pid))),
            server_is_client: server_pid == Some(client_pid),
            points: Thinning::with_capacity(capacity),
        };
        // The tracks have just looked, and what they saw is where the run's CPU time counts from.
        recorder.push_point();
        recorder.due += recorder.period;
        recorder
    }

    fn set_server_pid(&mut self, pid: Option<u32>) {
        self.server_is_client |= pid == Some(self.client_pid);
        self.server.get_or_insert_default().replace(pid);
    }

    /// Takes the sample that is due and sets when the next one is: on the grid of the period, skipping what was missed.
    fn sample(&mut self) {
        self.take_point();
        let now = Instant::now();
        while self.due <= now {
            self.due += self.period;
        }
    }

    /// Looks at all there is, whether or not it is due.
    fn take_point(&mut self) {
        self.client.read();
        if let Some(server) = &mut self.server {
            server.read();
        }
        self.push_point();
    }

    fn push_point(&mut self) {
        let server_cpu = self.server.as_ref().filter(|_| !self.server_is_client).and_then(Track::cpu);
        let point = Point {
            t: self.started.elapsed(),
            client: self.client.sample(),
            server: self.server.as_ref().map(Track::sample),
            own_cpu: self.client.cpu().map(|client| client + server_cpu.unwrap_or_default()),
            machine: self.machine.as_mut().and_then(MachineProbe::read),
        };
        if self.points.push(point) {
            self.period *= 2;
        }
    }

    fn finish(mut self) -> SampleSeries {
        self.take_point();
        let points = self.points.points();
        let whole = points.first().zip(points.last()).and_then(|(first, last)| last.machine_since(first));
        SampleSeries {
            period_s: self.period.as_secs_f64(),
            samples: samples(points),
            summary: ResourceSummary {
                duration_s: points.last().map_or(0.0, |last| last.t.as_secs_f64()),
                client: self.client.summary(),
                server: self.server.as_ref().map(Track::summary),
                foreign_cpu_cores: whole.and_then(|(machine, own)| machine.foreign_cpu_cores(own)),
                stolen_cpu_cores: whole.and_then(|(machine, _)| machine.stolen_cpu_cores()),
            },
        }
    }
}

impl Point {
    /// What the machine and the own processes did since `earlier`; none where that is too near or unknown.
    fn machine_since(&self, earlier: &Self) -> Option<(MachineInterval, Duration)> {
        let machine = self.machine?.since(&earlier.machine?)?;
        let own = self.own_cpu?.saturating_sub(earlier.own_cpu?);
        (machine.wall >= MIN_FOREIGN_INTERVAL).then_some((machine, own))
    }
}

fn samples(points: &[Point]) -> Vec<Sample> {
    let foreign_cpu_cores = |place: usize| {
        let later = &points[place];
        let near_enough = points[..place].iter().rev().take(NEIGHBOURS);
        let (machine, own) = near_enough.filter_map(|earlier| later.machine_since(earlier)).next()?;
        machine.foreign_cpu_cores(own)
    };
    points
        .iter()
        .enumerate()
        .map(|(place, point)| Sample {
            t_s: point.t.as_secs_f64(),
            client: point.client,
            server: point.server,
            foreign_cpu_cores: foreign_cpu_cores(place),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command as Process, Stdio};

    use super::*;

    fn spinning() -> Child {
        Process::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap()
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits until `child` has used `cpu` since its start. Returns what it had used then.
    fn wait_for_cpu(child: &Child, cpu: Duration) -> Duration {
        let mut probe = ProcessProbe::open(child.id()).unwrap();
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            let used = probe.read().unwrap().cpu.unwrap();
            if used >= cpu {
                return used;
            }
            assert!(Instant::now() < limit, "a spinning child got no CPU");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_run_without_a_server_has_a_first_and_a_last_sample() {
        let series = Sampler::start(std::process::id(), None, Duration::from_secs(3_600)).unwrap().stop();
        assert_eq!(series.samples.len(), 2);
        assert_eq!(series.summary.server, None);
        assert_eq!(series.period_s, 3_600.0);
        let (first, last) = (series.samples[0], series.samples[1]);
        assert!(first.t_s < last.t_s && last.t_s == series.summary.duration_s, "{series:?}");
        assert_eq!((first.client.cpu_s, first.foreign_cpu_cores), (Some(0.0), None));
        assert_eq!(last.client.cpu_s, series.summary.client.cpu_s);
        assert_eq!(last.client.rss_bytes, series.summary.client.rss_end_bytes);
        assert!(series.summary.client.peak_rss_bytes >= series.summary.client.rss_start_bytes);
    }

    #[test]
    fn the_server_s_cpu_adds_up_over_restarts() {
        let old = spinning();
        let before = wait_for_cpu(&old, Duration::from_millis(100));
        let sampler = Sampler::start(std::process::id(), Some(old.id()), Duration::from_millis(10)).unwrap();
        let old_used = wait_for_cpu(&old, before + Duration::from_millis(100));
        let new = spinning();
        sampler.set_server_pid(Some(new.id()));
        let new_used = wait_for_cpu(&new, Duration::from_millis(100));
        let series = sampler.stop();
        end(old);
        end(new);
        let cpu_s = series.summary.server.as_ref().unwrap().cpu_s.unwrap();
        // What the old one had used between its start and the sampler's may be a little more than `before`, hence 50 ms.
        let least = (old_used - before + new_used).as_secs_f64() - 0.05;
        assert!(cpu_s >= least, "{cpu_s} of {least}");
        let cpu: Vec<f64> =
            series.samples.iter().map(|sample| sample.server.unwrap().cpu_s.unwrap()).collect();
        assert!(cpu.is_sorted(), "{cpu:?}");
        assert_eq!(cpu[0], 0.0);
        assert!(cpu.len() >= 3, "{cpu:?}");
    }

    #[test]
    fn a_server_that_is_gone_is_null_and_its_cpu_stays() {
        let server = spinning();
        let sampler =
            Sampler::start(std::process::id(), Some(server.id()), Duration::from_millis(1)).unwrap();
        wait_for_cpu(&server, Duration::from_millis(50));
        sampler.set_server_pid(None);
        end(server);
        let series = sampler.stop();
        let summary = series.summary.server.unwrap();
        assert!(summary.rss_start_bytes.is_some() && summary.peak_rss_bytes.is_some());
        assert_eq!((summary.rss_end_bytes, summary.open_files_end), (None, None));
        let last = series.samples.last().unwrap().server.unwrap();
        assert_eq!((last.rss_bytes, last.cpu_s), (None, summary.cpu_s));
        // It began to count before the process had run for long.
        assert!(last.cpu_s.unwrap() > 0.0, "{last:?}");
    }

    #[test]
    fn a_server_named_later_counts_from_then() {
        let sampler = Sampler::start(std::process::id(), None, Duration::from_secs(3_600)).unwrap();
        let server = spinning();
        let used = wait_for_cpu(&server, Duration::from_millis(50));
        sampler.set_server_pid(Some(server.id()));
        let series = sampler.stop();
        end(server);
        assert_eq!(series.samples[0].server, None);
        let summary = series.summary.server.unwrap();
        assert_eq!(summary.rss_start_bytes, None);
        assert!(
            summary.rss_end_bytes.is_some() && summary.cpu_s.unwrap() >= used.as_secs_f64(),
            "{summary:?}"
        );
    }

    /// A full series is thinned, keeps its ends, and its period has doubled.
    #[test]
    fn a_long_run_stays_bounded() {
        let mut recorder = Recorder::start(std::process::id(), None, Duration::from_secs(10), 8);
        for _ in 0..100 {
            recorder.take_point();
            assert!(recorder.points.points().len() <= 8);
        }
        let started = recorder.points.points()[0].t;
        let series = recorder.finish();
        assert!((4..=9).contains(&series.samples.len()), "{}", series.samples.len());
        assert_eq!(series.samples[0].t_s, started.as_secs_f64());
        assert!(
            series.period_s >= 20.0 && (series.period_s / 10.0).log2().fract() == 0.0,
            "{}",
            series.period_s
        );
        assert_eq!(series.samples.last().unwrap().t_s, series.summary.duration_s);
    }

    /// The spinning child is foreign where it isn't named as the server.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_stranger_s_cpu_is_foreign() {
        let stranger = spinning();
        let sampler = Sampler::start(std::process::id(), None, Duration::from_millis(20)).unwrap();
        let before = wait_for_cpu(&stranger, Duration::ZERO);
        let used = wait_for_cpu(&stranger, before + Duration::from_millis(500)) - before;
        let series = sampler.stop();
        end(stranger);
        let foreign_s = series.summary.foreign_cpu_cores.unwrap() * series.summary.duration_s;
        // Half of it: ticks are a sample, and other tests may run at instants that they never see.
        assert!(foreign_s >= used.as_secs_f64() / 2.0, "{foreign_s} of {used:?}");
        let told: Vec<f64> = series.samples.iter().filter_map(|sample| sample.foreign_cpu_cores).collect();
        let cores = thread::available_parallelism().unwrap().get() as f64;
        assert!(!told.is_empty());
        // No sample claims more than the machine has, but for the rounding over 100 ms.
        assert!(told.iter().all(|&foreign| (0.0..=cores + 0.4).contains(&foreign)), "{told:?}");
    }

    #[test]
    fn no_data_is_null_in_json_and_it_comes_back() {
        let mut recorder = Recorder::start(u32::MAX, Some(u32::MAX), DEFAULT_PERIOD, 4);
        recorder.machine = None;
        let series = recorder.finish();
        assert_eq!(series.summary.client, ProcessSummary::default());
        let text = serde_json::to_string(&series).unwrap();
        for part in ["\"cpu_s\":null", "\"foreign_cpu_cores\":null", "\"rss_end_bytes\":null"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(serde_json::from_str::<SampleSeries>(&text).unwrap(), series);
    }

    #[test]
    #[ignore = "prints what one sample costs; run with --ignored --nocapture"]
    fn cost_of_a_sample() {
        let mut recorder = Recorder::start(std::process::id(), Some(1), DEFAULT_PERIOD, CAPACITY);
        let start = Instant::now();
        (0..1_000).for_each(|_| recorder.take_point());
        println!(
            "one sample of two processes: {:?}; a point is {} bytes",
            start.elapsed() / 1_000,
            size_of::<Point>()
        );
    }
}
