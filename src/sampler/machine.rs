//! CPU time of the whole machine, from which follows what other processes took.

use std::time::{Duration, Instant};

/// The machine's CPU counters at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineReading {
    at: Instant,
    cores: u32,
    /// Summed over the cores: with nothing to run, whether or not waiting for a disk.
    idle: Duration,
    /// Summed over the cores: found in use at the timer ticks, or stolen; without what counts under `interrupts`.
    used: Duration,
    /// Summed over the cores: ready to run, while the hypervisor ran someone else.
    stolen: Duration,
    /// Summed over the cores: in interrupts, where the kernel keeps that apart from the processes' time.
    interrupts: Duration,
}

/// What the machine did between two readings. Times are summed over its cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineInterval {
    /// How long the interval was.
    pub wall: Duration,
    /// CPU time in use by processes, the kernel's threads among them, or stolen: see [`MachineProbe`].
    pub busy: Duration,
    /// CPU time that the hypervisor gave to someone else.
    pub stolen: Duration,
}

/// Reads the machine's CPU counters: `/proc/stat` on Linux, nothing elsewhere.
///
/// There are two ways to tell the CPU time in use, each of which says too much under one kind of load, so the lower one
/// is taken:
///
/// - *Not idle*: cores × wall − idle − iowait. A kernel with tickless idle (`NO_HZ`, all distributions) clocks the idle
///   time and only shows it in units of 10 ms. What it takes to enter and leave the idle state counts as use, which is
///   felt at tens of thousands of switches a second.
/// - *Ticks*: user + nice + system + …, the state found at each timer tick. Work at fixed instants, such as paced load,
///   keeps its place between the ticks, and so is seen always or never.
///
/// Measured in cores on a quiet 2-core virtual machine (Linux 6.18, 250 Hz, 3 to 5 s each):
///
/// | load | own processes | not idle | ticks |
/// |---|---|---|---|
/// | none | 0.00 | 0.01 | 0.01 |
/// | 1 ms of work every 4 ms, 2 ms after the full 4 ms | 0.26 | 0.27 | 0.01 |
/// | the same, 3 ms after | 0.26 | 0.27 | 1.01 |
/// | loopback flood | 1.47 | 1.70 | 1.48 |
/// | two threads, 25,000 round trips/s | 0.82 | 1.00 | 0.56 |
///
/// So the foreign CPU is, if anything, told too low: by the own processes' use at most. The counters are right to some
/// 30 ms of CPU time an interval, and ticks to `sqrt(cores / (4 × 250 Hz × wall))` cores (a sampled share's standard
/// deviation at its worst): together 0.2 of a core over 250 ms, 0.02 over 10 s.
///
/// `/proc/schedstat` is not used: many kernels lack it, and a task's time enters it only when the task leaves the CPU,
/// so one that spins alone stays unseen.
#[derive(Debug)]
pub struct MachineProbe {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    stat: std::fs::File,
    #[cfg(any(target_os = "linux", target_os = "android"))]
    text: String,
}

impl MachineProbe {
    /// A probe; `None` where the system has no such counters.
    #[must_use]
    pub fn open() -> Option<Self> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            Some(Self { stat: std::fs::File::open("/proc/stat").ok()?, text: String::new() })
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        None
    }

    /// Reads once; `None` where the counters can't be read.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn read(&mut self) -> Option<MachineReading> {
        use std::io::{Read, Seek};

        self.text.clear();
        self.stat.rewind().ok()?;
        self.stat.read_to_string(&mut self.text).ok()?;
        parse(&self.text, Instant::now())
    }

    /// Reads once; `None` where the counters can't be read.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub fn read(&mut self) -> Option<MachineReading> {
        None
    }
}

impl MachineReading {
    /// What happened since `earlier`; `None` where a core was added or removed between.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Option<MachineInterval> {
        let wall = self.at.checked_duration_since(earlier.at)?;
        let idle = self.idle.saturating_sub(earlier.idle);
        let interrupts = self.interrupts.saturating_sub(earlier.interrupts);
        let not_idle = (wall * self.cores).saturating_sub(idle).saturating_sub(interrupts);
        (self.cores == earlier.cores).then(|| MachineInterval {
            wall,
            busy: not_idle.min(self.used.saturating_sub(earlier.used)),
            stolen: self.stolen.saturating_sub(earlier.stolen),
        })
    }
}

impl MachineInterval {
    /// The cores' worth of CPU that neither the own processes nor an idle machine had, never below 0; `None` for an
    /// interval of no length.
    ///
    /// It is the busy time (see [`MachineProbe`]) without `own_cpu`, which holds the stolen time too: a kernel that accounts for it
    /// (`PARAVIRT_TIME_ACCOUNTING`, all distributions) leaves it out of a process's CPU time. Where one does not, the
    /// stolen time is the least that was foreign, and adding it always would count it twice.
    ///
    /// Interrupts are no process's. Most of them are the run's own network traffic, which must not count as foreign.
    #[must_use]
    pub fn foreign_cpu_cores(&self, own_cpu: Duration) -> Option<f64> {
        let unexplained = self.busy.saturating_sub(own_cpu).max(self.stolen);
        (!self.wall.is_zero()).then(|| unexplained.as_secs_f64() / self.wall.as_secs_f64())
    }

    /// The cores' worth of CPU that the hypervisor withheld; `None` for an interval of no length.
    #[must_use]
    pub fn stolen_cpu_cores(&self) -> Option<f64> {
        (!self.wall.is_zero()).then(|| self.stolen.as_secs_f64() / self.wall.as_secs_f64())
    }
}

/// The unit of `/proc/stat`: `USER_HZ` is 100 on every architecture that Rust's Linux targets have
/// (include/asm-generic/param.h), and part of the kernel's interface.
#[cfg(any(target_os = "linux", target_os = "android"))]
const TICK_MS: u64 = 10;

/// Reads the text of `/proc/stat` (proc_stat(5)): a line `cpu user nice system idle iowait irq softirq steal …` for
/// all cores, then one for each, `cpu0` and on.
///
/// Interrupt time is kept apart from the processes' where the kernel clocks it (`IRQ_TIME_ACCOUNTING`); else a process
/// is charged for the interrupts that hit it, and to subtract them again would count them twice. The column `irq`
/// tells which: where it is sampled at ticks it stays 0, since a tick can't interrupt an interrupt handler.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn parse(stat: &str, at: Instant) -> Option<MachineReading> {
    let mut lines = stat.lines();
    let total = lines.next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = total.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let time = |column: usize| Some(Duration::from_millis(ticks.get(column)?.checked_mul(TICK_MS)?));
    let (hard, soft) = (time(5)?, time(6)?);
    let clocked = !hard.is_zero();
    let cores = lines.take_while(|line| line.starts_with("cpu")).count();
    Some(MachineReading {
        at,
        cores: u32::try_from(cores).ok().filter(|&cores| cores > 0)?,
        idle: time(3)? + time(4)?,
        used: time(0)? + time(1)? + time(2)? + time(7)? + if clocked { Duration::ZERO } else { soft },
        stolen: time(7)?,
        interrupts: if clocked { hard + soft } else { Duration::ZERO },
    })
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::process::{Child, Command};
    use std::thread;

    use proptest::prelude::*;

    use super::super::process::ProcessProbe;
    use super::*;

    /// A child that takes one core until dropped.
    struct Spinner(Child);

    impl Spinner {
        fn start() -> Self {
            Self(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap())
        }
    }

    impl Drop for Spinner {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    const STAT: &str = "cpu  29869 0 3904 92742 266 0 25 17 0 0\n\
                        cpu0 14633 0 1740 46931 41 0 4 7 0 0\n\
                        cpu1 15235 0 2163 45810 225 0 21 9 0 0\n\
                        intr 123 0 0\n";

    #[test]
    fn the_columns_of_proc_stat_are_found() {
        let at = Instant::now();
        let reading = parse(STAT, at).unwrap();
        let idle = Duration::from_millis((92_742 + 266) * 10);
        let used = Duration::from_millis((29_869 + 3_904 + 25 + 17) * 10);
        let stolen = Duration::from_millis(170);
        assert_eq!(reading, MachineReading { at, cores: 2, idle, used, stolen, interrupts: Duration::ZERO });
        let clocked = parse(&STAT.replacen("266 0 25", "266 1 25", 1), at).unwrap();
        let interrupts = Duration::from_millis(260);
        assert_eq!(
            clocked,
            MachineReading { interrupts, used: used - Duration::from_millis(250), ..reading }
        );
        for broken in [
            "",
            "cpu",
            "cpu  1 2 3 4\ncpu0 1 2 3 4",
            "cpu  1 2 x 4 5 6 7 8\ncpu0 1",
            "cpu  1 2 3 4 5 6 7 8\n",
        ] {
            assert_eq!(parse(broken, at), None, "{broken}");
        }
    }

    #[test]
    fn a_change_of_cores_is_no_interval() {
        let earlier = parse(STAT, Instant::now()).unwrap();
        let later = MachineReading { cores: 3, ..earlier };
        assert_eq!(later.since(&earlier), None);
        assert_eq!(earlier.since(&earlier).unwrap().foreign_cpu_cores(Duration::ZERO), None);
    }

    proptest! {
        /// A machine built up from what each core did is taken apart again, also where one of the two ways to tell
        /// the use says too much.
        #[test]
        fn foreign_is_what_was_neither_idle_nor_own(
            cores in prop::collection::vec((0_u64..500, 0_u64..500, 0_u64..500, 0_u64..500), 1..8),
            rest in 1_u64..500,
            (too_much, by_ticks) in (0_u64..500, any::<bool>()),
        ) {
            // Per core (own, foreign, stolen, interrupts) in ms; the wall is longer than the fullest core needs, and
            // idle fills up.
            let wall_ms = cores.iter().map(|c| c.0 + c.1 + c.2 + c.3).max().unwrap_or(0) + rest;
            let sum = |f: fn(&(u64, u64, u64, u64)) -> u64| cores.iter().map(f).sum::<u64>();
            let (own, foreign, stolen, interrupts) = (sum(|c| c.0), sum(|c| c.1), sum(|c| c.2), sum(|c| c.3));
            let idle = wall_ms * cores.len() as u64 - own - foreign - stolen - interrupts;
            let (ticks_err, idle_err) = if by_ticks { (too_much, 0) } else { (0, too_much.min(idle)) };
            let earlier = MachineReading {
                at: Instant::now(),
                cores: cores.len() as u32,
                idle: Duration::from_secs(7),
                used: Duration::from_secs(5),
                stolen: Duration::from_secs(3),
                interrupts: Duration::from_secs(1),
            };
            let later = MachineReading {
                at: earlier.at + Duration::from_millis(wall_ms),
                idle: earlier.idle + Duration::from_millis(idle - idle_err),
                used: earlier.used + Duration::from_millis(own + foreign + stolen + ticks_err),
                stolen: earlier.stolen + Duration::from_millis(stolen),
                interrupts: earlier.interrupts + Duration::from_millis(interrupts),
                ..earlier
            };
            let interval = later.since(&earlier).unwrap();
            let found = interval.foreign_cpu_cores(Duration::from_millis(own)).unwrap();
            prop_assert!((found - (foreign + stolen) as f64 / wall_ms as f64).abs() < 1e-9);
            // Own time that holds the stolen time (no paravirtual accounting): at least what was stolen, never below 0.
            let own_with_stolen = Duration::from_millis(own + stolen + foreign + 1);
            let least = interval.foreign_cpu_cores(own_with_stolen).unwrap();
            prop_assert!((least - stolen as f64 / wall_ms as f64).abs() < 1e-9);
        }
    }

    /// Whatever else runs, a spinning child's time is in the machine's, on top of this process's own.
    #[test]
    fn a_spinning_process_is_foreign_unless_it_is_own() {
        let spinner = Spinner::start();
        let mut probes =
            [ProcessProbe::of_this_process().unwrap(), ProcessProbe::open(spinner.0.id()).unwrap()];
        let mut machine = MachineProbe::open().unwrap();
        let mut cpu = || probes.each_mut().map(|probe| probe.read().unwrap().cpu.unwrap());
        let earlier = machine.read().unwrap();
        let begun = cpu();
        let limit = Instant::now() + Duration::from_secs(60);
        while cpu()[1] - begun[1] < Duration::from_millis(500) {
            assert!(Instant::now() < limit, "a spinning child got no CPU");
            thread::sleep(Duration::from_millis(20));
        }
        let ended = cpu();
        let interval = machine.read().unwrap().since(&earlier).unwrap();
        let (own, child) = (ended[0] - begun[0], ended[1] - begun[1]);
        let foreign = interval.foreign_cpu_cores(own).unwrap();
        let others = interval.foreign_cpu_cores(own + child).unwrap();
        let child_cores = child.as_secs_f64() / interval.wall.as_secs_f64();
        // Half of it: ticks are a sample, and other tests may run at instants that they never see.
        assert!(foreign >= child_cores / 2.0, "{foreign} foreign, {child_cores} the child's");
        assert!(foreign - others >= child_cores / 2.0, "{foreign} and {others} without the child");
    }

    #[test]
    #[ignore = "prints the foreign CPU of this machine, quiet and with one busy core; run with --ignored --nocapture"]
    fn figures_of_this_machine() {
        let mut own = ProcessProbe::of_this_process().unwrap();
        let mut machine = MachineProbe::open().unwrap();
        let mut figures = |what: &str, seconds: f64| {
            let (earlier, begun) = (machine.read().unwrap(), own.read().unwrap().cpu.unwrap());
            thread::sleep(Duration::from_secs_f64(seconds));
            let interval = machine.read().unwrap().since(&earlier).unwrap();
            let used = own.read().unwrap().cpu.unwrap() - begun;
            println!("{what}, {seconds} s: {:.4} foreign cores", interval.foreign_cpu_cores(used).unwrap());
        };
        for seconds in [0.25, 0.25, 1.0, 1.0, 5.0] {
            figures("quiet", seconds);
        }
        let spinner = Spinner::start();
        for seconds in [0.25, 1.0, 5.0] {
            figures("one spinning", seconds);
        }
        drop(spinner);
        let start = Instant::now();
        (0..1_000).for_each(|_| assert!(machine.read().is_some()));
        println!("one reading: {:?}", start.elapsed() / 1_000);
    }
}
