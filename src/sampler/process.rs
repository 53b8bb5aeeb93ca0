//! Memory, CPU time, open files and threads of one process.

use std::time::Duration;

/// What one look at a process showed. What could not be had is `None`, never 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessReading {
    /// Resident memory now. `None` for a process that has ended and whose parent has not yet taken notice.
    pub rss_bytes: Option<u64>,
    /// The most that was ever resident, as the kernel kept it, to within some pages for each CPU. Linux.
    pub peak_rss_bytes: Option<u64>,
    /// CPU time of all threads, ended ones too, since the process began: to the nanosecond on Linux, else to 1 ms.
    pub cpu: Option<Duration>,
    /// Open file descriptors.
    pub open_files: Option<u64>,
    /// Threads alive. Linux.
    pub threads: Option<u64>,
}

/// Looks at one process again and again.
#[derive(Debug)]
pub struct ProcessProbe {
    pid: u32,
    source: platform::Source,
}

impl ProcessProbe {
    /// A probe for process `pid`; `None` where there is none.
    #[must_use]
    pub fn open(pid: u32) -> Option<Self> {
        Some(Self { pid, source: platform::Source::open(pid)? })
    }

    /// A probe for this process.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        Self::open(std::process::id())
    }

    /// The process looked at.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Looks once; `None` where the process is gone, also when another one has got its number since (Linux).
    ///
    /// Takes about 15 µs (Linux 6.18, measured in the tests below), whatever else the machine runs.
    pub fn read(&mut self) -> Option<ProcessReading> {
        self.source.read()
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod platform {
    use std::fs::{self, File};
    use std::io::{Read, Seek};
    use std::path::PathBuf;
    use std::time::Duration;

    use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
    use nix::unistd::Pid;

    use super::ProcessReading;

    /// The process's files under `/proc` (proc(5)) and its CPU clock.
    #[derive(Debug)]
    pub(super) struct Source {
        /// Kept open, since it stays bound to the process itself: once that is gone, reading fails even if a new
        /// process has the number.
        status: File,
        /// What `status` read last; kept for its capacity.
        text: String,
        /// Lists one entry per open file.
        fd_dir: PathBuf,
        /// The clock of the process's CPU time (clock_getcpuclockid(3)).
        cpu_clock: Option<ClockId>,
    }

    impl Source {
        pub(super) fn open(pid: u32) -> Option<Self> {
            Some(Self {
                status: File::open(format!("/proc/{pid}/status")).ok()?,
                text: String::new(),
                fd_dir: format!("/proc/{pid}/fd").into(),
                cpu_clock: clock_getcpuclockid(Pid::from_raw(i32::try_from(pid).ok()?)).ok(),
            })
        }

        pub(super) fn read(&mut self) -> Option<ProcessReading> {
            // The clock and the directory go by number, so they are asked before the status confirms that the number
            // still means this process.
            let cpu = self.cpu_clock.and_then(|clock| clock_gettime(clock).ok()).map(Duration::from);
            let open_files = self.open_files();
            self.text.clear();
            self.status.rewind().ok()?;
            self.status.read_to_string(&mut self.text).ok()?;
            let rss_bytes = kib_field(&self.text, "VmRSS:");
            Some(ProcessReading {
                rss_bytes,
                peak_rss_bytes: kib_field(&self.text, "VmHWM:"),
                cpu,
                // One that has ended still has an entry, with neither memory nor files.
                open_files: open_files.filter(|_| rss_bytes.is_some()),
                threads: field(&self.text, "Threads:").filter(|_| rss_bytes.is_some()),
            })
        }

        /// Since Linux 6.2 the directory's size is the count (proc_pid_fd(5)), which spares listing a thousand
        /// connections; before, it is 0.
        fn open_files(&self) -> Option<u64> {
            match fs::metadata(&self.fd_dir).ok()?.len() {
                0 => u64::try_from(fs::read_dir(&self.fd_dir).ok()?.count()).ok(),
                count => Some(count),
            }
        }
    }

    /// The number behind `name` in the text of `/proc/<pid>/status`.
    pub(super) fn field(status: &str, name: &str) -> Option<u64> {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        value.split_whitespace().next()?.parse().ok()
    }

    /// As [`field`], for a size, which the kernel gives in units of 1,024 bytes although it calls them kB.
    pub(super) fn kib_field(status: &str, name: &str) -> Option<u64> {
        field(status, name)?.checked_mul(1_024)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod platform {
    use std::time::Duration;

    use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

    use super::ProcessReading;

    /// What the portable library finds out, asked for one process only: all of them take a hundred times as long.
    #[derive(Debug)]
    pub(super) struct Source {
        pid: Pid,
        /// When the process began, in seconds since the epoch: tells it from a later one with its number.
        born_s: u64,
        system: System,
    }

    impl Source {
        pub(super) fn open(pid: u32) -> Option<Self> {
            let mut source = Self { pid: Pid::from_u32(pid), born_s: 0, system: System::new().ok()? };
            source.refresh();
            source.born_s = source.system.process(source.pid)?.start_time();
            Some(source)
        }

        pub(super) fn read(&mut self) -> Option<ProcessReading> {
            self.refresh();
            let process =
                self.system.process(self.pid).filter(|process| process.start_time() == self.born_s)?;
            Some(ProcessReading {
                rss_bytes: Some(process.memory()).filter(|&bytes| bytes > 0),
                peak_rss_bytes: None,
                cpu: Some(Duration::from_millis(process.accumulated_cpu_time())),
                open_files: process.open_files().and_then(|count| u64::try_from(count).ok()),
                threads: None,
            })
        }

        fn refresh(&mut self) {
            let wanted = ProcessRefreshKind::nothing().with_memory().with_cpu();
            self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[self.pid]), true, wanted);
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::fs;
    use std::hint::black_box;
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use nix::time::{ClockId, clock_gettime};

    use super::*;

    /// A shell that has run `script` when this returns, and then waits for its standard input to close.
    fn shell(script: &str) -> Child {
        let mut child = Command::new("sh")
            .args(["-c", &format!("{script}; echo ready; read line")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        child
    }

    #[test]
    fn this_process_is_seen_whole() {
        let mut probe = ProcessProbe::of_this_process().unwrap();
        let reading = probe.read().unwrap();
        assert_eq!(probe.pid(), std::process::id());
        assert!(reading.rss_bytes.unwrap() > 100 << 10, "{reading:?}");
        assert!(reading.peak_rss_bytes >= reading.rss_bytes, "{reading:?}");
        assert!(reading.open_files.unwrap() >= 3 && reading.threads.unwrap() >= 2, "{reading:?}");
    }

    #[test]
    fn resident_memory_and_its_peak_follow_what_was_touched() {
        let readings = [":", "x=$(head -c 16777216 /dev/zero | tr '\\0' a)"].map(|script| {
            let mut child = shell(script);
            let reading = ProcessProbe::open(child.id()).unwrap().read().unwrap();
            drop(child.stdin.take());
            child.wait().unwrap();
            reading
        });
        let [small, large] = &readings;
        // The kernel adds up what each core has counted, to within some pages a core.
        assert!(large.rss_bytes.unwrap() >= small.rss_bytes.unwrap() + (15 << 20), "{readings:?}");
        assert!(readings.iter().all(|reading| reading.peak_rss_bytes >= reading.rss_bytes), "{readings:?}");
        assert!(readings[0].peak_rss_bytes.unwrap() < 16 << 20, "{readings:?}");
    }

    /// The process's time covers this thread's, and is finer than the 10 ms ticks of `/proc/<pid>/stat`.
    #[test]
    fn cpu_time_covers_what_a_thread_used_to_the_nanosecond() {
        let thread_cpu = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
        let mut probe = ProcessProbe::of_this_process().unwrap();
        let before = probe.read().unwrap().cpu.unwrap();
        let begun = thread_cpu();
        while thread_cpu() - begun < Duration::from_millis(3) {
            black_box(0);
        }
        let used = thread_cpu() - begun;
        let after = probe.read().unwrap().cpu.unwrap();
        assert!(after - before >= used, "{before:?} {after:?} {used:?}");
        assert_ne!(after.as_nanos() % 10_000_000, 0, "{after:?}");
    }

    #[test]
    fn open_files_of_another_process_are_counted() {
        let mut child = shell("exec 7</dev/null 8</dev/null");
        let reading = ProcessProbe::open(child.id()).unwrap().read().unwrap();
        let listed = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().count();
        assert!(listed >= 5, "{listed}");
        assert_eq!(reading.open_files, Some(listed as u64));
        assert_eq!(reading.threads, Some(1));
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_is_gone_reads_as_none() {
        let mut child = shell(":");
        let mut probe = ProcessProbe::open(child.id()).unwrap();
        assert!(probe.read().is_some());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(probe.read(), None);
        assert!(ProcessProbe::open(child.id()).is_none());
        assert!(ProcessProbe::open(u32::MAX).is_none());
    }

    /// Between its end and the parent's wait a killed process still tells its CPU time, and nothing else.
    #[test]
    fn a_killed_process_keeps_its_cpu_time_until_waited_for() {
        let mut child = shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done");
        let mut probe = ProcessProbe::open(child.id()).unwrap();
        let alive = probe.read().unwrap();
        child.kill().unwrap();
        let waitid = nix::sys::wait::waitid(
            nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(child.id() as i32)),
            nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
        );
        waitid.unwrap();
        let ended = probe.read().unwrap();
        child.wait().unwrap();
        assert!(ended.cpu >= alive.cpu && alive.cpu.is_some(), "{alive:?} {ended:?}");
        assert_eq!(ProcessReading { cpu: None, ..ended }, ProcessReading::default());
    }

    #[test]
    fn status_fields_are_read_by_name() {
        let text = "Name:\tVmRSS: 5 kB\nVmHWM:\t    1732 kB\nVmRSS:\t    1000 kB\nThreads:\t12\nVmBad:\tx\n";
        assert_eq!(platform::kib_field(text, "VmRSS:"), Some(1_024_000));
        assert_eq!(platform::kib_field(text, "VmHWM:"), Some(1_773_568));
        assert_eq!(platform::field(text, "Threads:"), Some(12));
        assert_eq!(platform::field(text, "VmBad:"), None);
        assert_eq!(platform::field(text, "VmSwap:"), None);
    }

    #[test]
    #[ignore = "prints what one reading costs; run with --ignored --nocapture"]
    fn cost_of_a_reading() {
        let mut probe = ProcessProbe::of_this_process().unwrap();
        let start = std::time::Instant::now();
        for _ in 0..1_000 {
            black_box(probe.read());
        }
        println!("one reading: {:?}", start.elapsed() / 1_000);
    }
}
