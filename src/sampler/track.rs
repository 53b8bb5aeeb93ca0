//! One side of a run, followed over restarts of its process.

use std::time::Duration;

use super::process::{ProcessProbe, ProcessReading};
use super::{ProcessSample, ProcessSummary};

/// The client or the server: a process at a time, and the sums over all that there were.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// The process of now; none where it is gone or was never named.
    probe: Option<ProcessProbe>,
    /// CPU time that the process of now had used before the run.
    before: Duration,
    /// CPU time in the run of the process of now, as last seen.
    current: Option<Duration>,
    /// CPU time in the run of the processes before it, each as last seen; none where none was ever seen.
    former: Option<Duration>,
    /// The kernel's peak when the process of now was first seen: what is no higher may be from before the run.
    peak_before_bytes: u64,
    /// The reading that the run began with.
    first: ProcessReading,
    /// The latest reading, empty where the process was gone.
    last: ProcessReading,
    /// The highest of each over the run.
    peak_rss_bytes: Option<u64>,
    open_files_max: Option<u64>,
    threads_max: Option<u64>,
}

impl Track {
    /// Follows `pid`, which may have run for long: what it did before does not count.
    pub(super) fn start(pid: Option<u32>) -> Self {
        let mut track = Self { probe: pid.and_then(ProcessProbe::open), ..Self::default() };
        if let Some(reading) = track.probe.as_mut().and_then(ProcessProbe::read) {
            track.before = reading.cpu.unwrap_or_default();
            track.peak_before_bytes = reading.peak_rss_bytes.unwrap_or_default();
            track.first = reading;
            track.take_in(reading);
        }
        track
    }

    /// Follows `pid` from now on, as a process that began within the run: all its CPU time counts.
    pub(super) fn replace(&mut self, pid: Option<u32>) {
        self.read();
        if pid.is_some() && self.probe.as_ref().map(ProcessProbe::pid) == pid && self.last.rss_bytes.is_some()
        {
            return;
        }
        self.former = self.cpu();
        self.current = None;
        self.before = Duration::ZERO;
        self.peak_before_bytes = 0;
        self.last = ProcessReading::default();
        self.probe = pid.and_then(ProcessProbe::open);
        self.read();
    }

    /// Looks at the process of now.
    pub(super) fn read(&mut self) {
        match self.probe.as_mut().and_then(ProcessProbe::read) {
            Some(reading) => self.take_in(reading),
            None => self.last = ProcessReading::default(),
        }
    }

    /// CPU time in the run of all processes, each as last seen; none where none was ever seen.
    pub(super) fn cpu(&self) -> Option<Duration> {
        match (self.former, self.current) {
            (Some(former), Some(current)) => Some(former + current),
            (former, current) => former.or(current),
        }
    }

    pub(super) fn sample(&self) -> ProcessSample {
        ProcessSample { rss_bytes: self.last.rss_bytes, cpu_s: self.cpu().map(|cpu| cpu.as_secs_f64()) }
    }

    pub(super) fn summary(&self) -> ProcessSummary {
        ProcessSummary {
            cpu_s: self.cpu().map(|cpu| cpu.as_secs_f64()),
            peak_rss_bytes: self.peak_rss_bytes,
            rss_start_bytes: self.first.rss_bytes,
            rss_end_bytes: self.last.rss_bytes,
            open_files_end: self.last.open_files,
            open_files_max: self.open_files_max,
            threads_max: self.threads_max,
        }
    }

    fn take_in(&mut self, reading: ProcessReading) {
        if let Some(cpu) = reading.cpu {
            self.current = Some(cpu.saturating_sub(self.before));
        }
        let new_peak = reading.peak_rss_bytes.filter(|&peak| peak > self.peak_before_bytes);
        // `None` is below every number.
        self.peak_rss_bytes = self.peak_rss_bytes.max(reading.rss_bytes).max(new_peak);
        self.open_files_max = self.open_files_max.max(reading.open_files);
        self.threads_max = self.threads_max.max(reading.threads);
        self.last = reading;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(rss: u64, peak: u64, cpu_ms: u64) -> ProcessReading {
        ProcessReading {
            rss_bytes: Some(rss),
            peak_rss_bytes: Some(peak),
            cpu: Some(Duration::from_millis(cpu_ms)),
            open_files: Some(rss / 10),
            threads: Some(1),
        }
    }

    #[test]
    fn a_peak_from_before_the_run_is_not_the_run_s() {
        let mut track = Track { peak_before_bytes: 900, ..Track::default() };
        track.take_in(reading(100, 900, 0));
        track.take_in(reading(300, 900, 0));
        track.take_in(reading(200, 900, 0));
        assert_eq!(track.summary().peak_rss_bytes, Some(300));
        // Above what was: between two looks, and so in the run.
        track.take_in(reading(200, 950, 0));
        assert_eq!(track.summary().peak_rss_bytes, Some(950));
        assert_eq!(track.summary().rss_end_bytes, Some(200));
        assert_eq!((track.summary().open_files_max, track.summary().open_files_end), (Some(30), Some(20)));
    }

    #[test]
    fn cpu_time_adds_up_over_processes_and_leaves_out_what_was_before() {
        let mut track = Track { before: Duration::from_millis(400), ..Track::default() };
        track.take_in(reading(1, 1, 1_000));
        assert_eq!(track.sample().cpu_s, Some(0.6));
        track.replace(None);
        assert_eq!(track.sample(), ProcessSample { rss_bytes: None, cpu_s: Some(0.6) });
        track.take_in(reading(1, 1, 250));
        track.take_in(reading(1, 1, 300));
        assert_eq!(track.sample().cpu_s, Some(0.9));
        track.read();
        assert_eq!(track.sample(), ProcessSample { rss_bytes: None, cpu_s: Some(0.9) });
    }

    #[test]
    fn what_was_never_seen_is_null() {
        let mut track = Track::start(None);
        track.read();
        track.replace(Some(u32::MAX));
        assert_eq!(track.sample(), ProcessSample::default());
        assert_eq!(track.summary(), ProcessSummary::default());
    }
}
