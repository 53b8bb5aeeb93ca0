//! Histograms and windows: what is kept of each message is a count in a bucket.
//!
//! Each worker records into a window of its own, without a lock. At the end of every second it hands the window over and
//! takes an empty one; the [`Collector`] merges the windows of all workers before it takes any percentile. So memory
//! depends on how long a run lasts, never on how many messages it sends.

mod latency;
mod seconds;

pub use latency::LatencyHistogram;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};

use serde::{Deserialize, Serialize};

use self::seconds::Seconds;

/// The largest latency that is told apart: an hour. What is longer counts as an hour and is counted as saturated.
pub const HIGHEST_NS: u64 = 3_600_000_000_000;

/// The length of a window.
pub const WINDOW_NS: u64 = 1_000_000_000;

/// Below this many samples a window says nothing about its tail: its percentiles above P95 are null.
pub const TAIL_SAMPLES: u64 = 1_000;

/// What a histogram says beside its percentiles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moments {
    /// The smallest value.
    pub min_ns: u64,
    /// The arithmetic mean.
    pub mean_ns: f64,
    /// The standard deviation of the population.
    pub stddev_ns: f64,
    /// The largest value.
    pub max_ns: u64,
}

/// Sixty-four logarithmic buckets, two an octave, from a microsecond and a half up: a latency distribution of a quarter
/// of a kilobyte, of which every connection can have one. 100 ms, the limit of a connection's own P95, is the bound
/// between two buckets, so that limit is judged exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoarseHistogram {
    counts: Vec<u32>,
}

impl Default for CoarseHistogram {
    fn default() -> Self {
        Self { counts: vec![0; Self::BUCKETS] }
    }
}

impl CoarseHistogram {
    /// How many buckets there are.
    pub const BUCKETS: usize = 64;

    /// Buckets are powers of two of a unit of 100 ms / 2^26, about 1.49 ns.
    const UNITS_PER_NS: f64 = (1 << 26) as f64 / 1e8;

    /// Counts one value.
    #[inline]
    pub fn record(&mut self, value_ns: u64) {
        let count = &mut self.counts[Self::bucket(value_ns)];
        *count = count.saturating_add(1);
    }

    /// The upper bound of bucket `index` in nanoseconds, exclusive; the last bucket has none.
    #[must_use]
    pub fn upper_bound_ns(index: usize) -> Option<u64> {
        if index + 1 >= Self::BUCKETS {
            return None;
        }
        let octave = 1_024_u64 << (index / 2);
        let upper = if index.is_multiple_of(2) { octave + octave / 2 } else { octave * 2 };
        Some((upper as f64 / Self::UNITS_PER_NS).ceil() as u64)
    }

    /// `(upper bound in nanoseconds, count)` of every bucket.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u32)> + '_ {
        self.counts.iter().enumerate().map(|(index, &count)| (Self::upper_bound_ns(index), count))
    }

    fn bucket(value_ns: u64) -> usize {
        let value = ((value_ns as f64 * Self::UNITS_PER_NS) as u64).max(1_024);
        let octave = value.ilog2();
        let upper_half = (value >> (octave - 1)) & 1;
        (((octave - 10) * 2) as usize + upper_half as usize).min(Self::BUCKETS - 1)
    }
}

/// What a worker counted in one second.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// Which second of the load; a window is keyed by when an answer came, not by when it was due.
    pub index: u64,
    /// Messages sent.
    pub sent: u64,
    /// Messages answered.
    pub answered: u64,
    /// Messages refused.
    pub refused: u64,
    /// Messages whose sending waited for a full socket.
    pub blocked: u64,
    /// The deepest queue that an answer reported.
    pub queue_depth_max: Option<u64>,
    /// From due to answer.
    pub latency: LatencyHistogram,
    /// From send to answer.
    pub service_latency: LatencyHistogram,
    /// From due to the attempt to send.
    pub send_lateness: LatencyHistogram,
    /// From send to refusal.
    pub refusal_latency: LatencyHistogram,
}

impl Window {
    /// Adds another window's counts; the index stays.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.refused += other.refused;
        self.blocked += other.blocked;
        self.queue_depth_max = self.queue_depth_max.max(other.queue_depth_max);
        self.latency.add(&other.latency);
        self.service_latency.add(&other.service_latency);
        self.send_lateness.add(&other.send_lateness);
        self.refusal_latency.add(&other.refusal_latency);
    }

    fn clear(&mut self, index: u64) {
        self.index = index;
        (self.sent, self.answered, self.refused, self.blocked) = (0, 0, 0, 0);
        self.queue_depth_max = None;
        self.latency.clear();
        self.service_latency.clear();
        self.send_lateness.clear();
        self.refusal_latency.clear();
    }
}

/// One second of a run, over all workers. What was due in a ramp counts in none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowSummary {
    /// Start of the second, in seconds after the start of the load.
    pub t_s: u64,
    /// Messages sent in it.
    pub sent: u64,
    /// Messages answered in it.
    pub answered: u64,
    /// Messages refused in it.
    pub refused: u64,
    /// Messages sent in it whose sending had to wait for a full socket.
    pub blocked: u64,
    /// First percentile of the latency from due to answer, of the answers that came in it.
    #[serde(default)]
    pub latency_p01_us: Option<f64>,
    /// Median of the same.
    pub latency_p50_us: Option<f64>,
    /// 95th percentile of the same.
    pub latency_p95_us: Option<f64>,
    /// 99th percentile of the same; null below [`TAIL_SAMPLES`] answers.
    pub latency_p99_us: Option<f64>,
    /// Largest of the same.
    pub latency_max_us: Option<f64>,
    /// Median latency from send to answer.
    pub service_latency_p50_us: Option<f64>,
    /// 99th percentile of the same; null below [`TAIL_SAMPLES`] answers.
    pub service_latency_p99_us: Option<f64>,
    /// 99th percentile of the send lateness; null below [`TAIL_SAMPLES`] sends.
    pub send_lateness_p99_us: Option<f64>,
    /// The deepest queue that an answer reported.
    pub queue_depth_max: Option<u64>,
}

impl WindowSummary {
    /// The summary of a window that all workers have been merged into.
    #[must_use]
    pub fn of(window: &Window) -> Self {
        let us = |histogram: &LatencyHistogram, quantile: f64| {
            let enough = quantile <= 0.95 || histogram.len() >= TAIL_SAMPLES;
            histogram.quantile(quantile, 0).filter(|_| enough).map(|ns| ns as f64 / 1e3)
        };
        Self {
            t_s: window.index,
            sent: window.sent,
            answered: window.answered,
            refused: window.refused,
            blocked: window.blocked,
            latency_p01_us: us(&window.latency, 0.01),
            latency_p50_us: us(&window.latency, 0.5),
            latency_p95_us: us(&window.latency, 0.95),
            latency_p99_us: us(&window.latency, 0.99),
            latency_max_us: window.latency.moments().map(|moments| moments.max_ns as f64 / 1e3),
            service_latency_p50_us: us(&window.service_latency, 0.5),
            service_latency_p99_us: us(&window.service_latency, 0.99),
            send_lateness_p99_us: us(&window.send_lateness, 0.99),
            queue_depth_max: window.queue_depth_max,
        }
    }
}

/// The worker's side: the window that it records into now.
#[derive(Debug)]
pub struct Recorder {
    current: Box<Window>,
    start_ns: u64,
    current_ends_ns: u64,
    full: Sender<Box<Window>>,
    empty: Receiver<Box<Window>>,
}

impl Recorder {
    /// The window of the second that `now_ns` lies in. A time before the current window counts into the current one.
    #[inline]
    pub fn window_at(&mut self, now_ns: u64) -> &mut Window {
        if now_ns >= self.current_ends_ns {
            self.roll(now_ns);
        }
        &mut self.current
    }

    /// Hands over the last window; what is recorded afterwards is lost.
    pub fn finish(&mut self) {
        // The collector is gone only when nobody wants the result any more.
        let _ = self.full.send(std::mem::take(&mut self.current));
    }

    #[cold]
    fn roll(&mut self, now_ns: u64) {
        let mut next = self.empty.try_recv().unwrap_or_default();
        let index = now_ns.saturating_sub(self.start_ns) / WINDOW_NS;
        next.clear(index);
        self.current_ends_ns = self.start_ns + (index + 1) * WINDOW_NS;
        let full = std::mem::replace(&mut self.current, next);
        let _ = self.full.send(full);
    }
}

/// Merges the windows of all workers.
#[derive(Debug)]
pub struct Collector {
    full: Receiver<Box<Window>>,
    /// To give an emptied window back to any worker: whoever rolls next takes it.
    recycle: Vec<Sender<Box<Window>>>,
    /// Windows that some workers have yet to hand over.
    open: BTreeMap<u64, Box<Window>>,
    /// The totals of the run.
    total: Window,
    summaries: Seconds,
    turn: usize,
}

impl Collector {
    /// A collector and the recorders of `workers` workers, for a load that starts at `start_ns` of their clock.
    #[must_use]
    pub fn new(workers: usize, start_ns: u64) -> (Self, Vec<Recorder>) {
        let (full_sender, full) = channel();
        let mut recycle = Vec::with_capacity(workers);
        let mut recorders = Vec::with_capacity(workers);
        for _ in 0..workers {
            let (sender, empty) = channel();
            recycle.push(sender);
            recorders.push(Recorder {
                current: Box::default(),
                start_ns,
                current_ends_ns: start_ns + WINDOW_NS,
                full: full_sender.clone(),
                empty,
            });
        }
        let total = Window::default();
        (
            Self { full, recycle, open: BTreeMap::new(), total, summaries: Seconds::default(), turn: 0 },
            recorders,
        )
    }

    /// Takes in what the workers have handed over so far. Windows that end before `settled_s` can have no more
    /// contributors and are summarised.
    pub fn collect(&mut self, settled_s: u64) {
        while let Ok(window) = self.full.try_recv() {
            self.absorb(window);
        }
        while let Some(entry) = self.open.first_entry()
            && *entry.key() < settled_s
        {
            let window = entry.remove();
            self.summarise(window);
        }
    }

    /// The latest second that has been summarised.
    #[must_use]
    pub fn latest(&self) -> Option<&WindowSummary> {
        self.summaries.latest()
    }

    /// After all recorders have finished: the totals, and a summary a second in order of time.
    #[must_use]
    pub fn finish(mut self) -> (Window, Vec<WindowSummary>) {
        self.collect(u64::MAX);
        (self.total, self.summaries.into_vec())
    }

    fn absorb(&mut self, window: Box<Window>) {
        match self.open.entry(window.index) {
            std::collections::btree_map::Entry::Occupied(mut merged) => {
                merged.get_mut().add(&window);
                self.give_back(window);
            }
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(window);
            }
        }
    }

    fn summarise(&mut self, window: Box<Window>) {
        self.total.add(&window);
        // A worker that was suspended may hand over a second that was already summed up: correct its counts.
        self.summaries.put(WindowSummary::of(&window), |known, late| {
            known.sent += late.sent;
            known.answered += late.answered;
            known.refused += late.refused;
            known.blocked += late.blocked;
        });
        self.give_back(window);
    }

    fn give_back(&mut self, window: Box<Window>) {
        if !self.recycle.is_empty() {
            self.turn = (self.turn + 1) % self.recycle.len();
            let _ = self.recycle[self.turn].send(window);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_beyond_an_hour_is_counted_as_saturated() {
        let mut histogram = LatencyHistogram::default();
        histogram.record(HIGHEST_NS);
        histogram.record(HIGHEST_NS + 1);
        assert_eq!((histogram.len(), histogram.saturated()), (2, 1));
    }

    #[test]
    fn no_data_is_none_and_never_zero() {
        let histogram = LatencyHistogram::default();
        assert_eq!(histogram.quantile(0.5, 0), None);
        assert_eq!(histogram.quantile(0.5, 10), None);
        assert_eq!(histogram.moments(), None);
        let summary = WindowSummary::of(&Window::default());
        assert_eq!((summary.latency_p50_us, summary.latency_max_us), (None, None));
    }

    #[test]
    fn a_small_window_has_no_tail() {
        let mut window = Window::default();
        (1..TAIL_SAMPLES).for_each(|n| window.latency.record(n * 1_000));
        assert!(WindowSummary::of(&window).latency_p95_us.is_some());
        assert_eq!(WindowSummary::of(&window).latency_p99_us, None);
        window.latency.record(TAIL_SAMPLES * 1_000);
        assert!(WindowSummary::of(&window).latency_p99_us.is_some());
    }

    #[test]
    fn windows_of_all_workers_are_merged_by_the_second_of_the_answer() {
        let (mut collector, mut recorders) = Collector::new(2, 500);
        for (worker, recorder) in recorders.iter_mut().enumerate() {
            for second in 0..3_u64 {
                let window = recorder.window_at(500 + second * WINDOW_NS);
                window.sent += 1 + worker as u64;
                window.latency.record(1_000);
            }
        }
        recorders.iter_mut().for_each(Recorder::finish);
        collector.collect(1);
        assert_eq!(collector.latest().map(|latest| latest.t_s), Some(0));
        let (total, summaries) = collector.finish();
        assert_eq!((total.sent, total.latency.len()), (9, 6));
        assert_eq!(summaries.iter().map(|s| (s.t_s, s.sent)).collect::<Vec<_>>(), [(0, 3), (1, 3), (2, 3)]);
    }

    #[test]
    fn coarse_buckets_hold_what_they_say() {
        let mut lower = 0;
        for index in 0..CoarseHistogram::BUCKETS {
            assert_eq!(CoarseHistogram::bucket(lower), index);
            let Some(upper) = CoarseHistogram::upper_bound_ns(index) else { break };
            assert_eq!(CoarseHistogram::bucket(upper - 1), index);
            lower = upper;
        }
        assert_eq!(CoarseHistogram::bucket(u64::MAX), CoarseHistogram::BUCKETS - 1);
        assert_eq!(CoarseHistogram::bucket(99_999_999) + 1, CoarseHistogram::bucket(100_000_000));
    }

    proptest! {
        #[test]
        fn what_is_above_is_counted(values in proptest::collection::vec(1_u64..10_000_000, 0..200), at in 1_u64..10_000_000) {
            let mut histogram = LatencyHistogram::default();
            values.iter().for_each(|&value| histogram.record(value));
            // The histogram cannot tell values of one bucket apart: those count as not above.
            let same = histogram.counts().highest_equivalent(at);
            let truth = values.iter().filter(|&&value| value > same).count() as u64;
            prop_assert_eq!(histogram.count_above(at), truth);
        }

        /// However the samples were shared out, their merged histograms are the histogram of all.
        #[test]
        fn merging_is_recording_all_in_one(
            samples in proptest::collection::vec((0_usize..4, 0_u64..2 * HIGHEST_NS), 0..200),
        ) {
            let mut parts = [(); 4].map(|()| LatencyHistogram::default());
            let mut all = LatencyHistogram::default();
            for &(part, value) in &samples {
                parts[part].record(value);
                all.record(value);
            }
            let mut merged = LatencyHistogram::default();
            parts.iter().for_each(|part| merged.add(part));
            prop_assert_eq!(merged.counts(), all.counts());
            prop_assert_eq!((merged.len(), merged.saturated()), (all.len(), all.saturated()));
            let beyond = samples.iter().filter(|&&(_, value)| value > HIGHEST_NS).count() as u64;
            prop_assert_eq!((all.len(), all.saturated()), (samples.len() as u64, beyond));
        }

        /// Against the sorted samples: nearest rank, the censored ones on top, within the histogram's three digits.
        #[test]
        fn quantiles_agree_with_sorted_samples(
            mut values in proptest::collection::vec(1_u64..10_000_000_000, 1..300),
            censored in 0_u64..50, quantile in 0.0_f64..=1.0
        ) {
            let mut histogram = LatencyHistogram::default();
            values.iter().for_each(|&value| histogram.record(value));
            values.sort_unstable();
            let all = values.len() as u64 + censored;
            let rank = ((quantile * all as f64 - 1e-9).ceil() as usize).max(1);
            match (histogram.quantile(quantile, censored), values.get(rank - 1)) {
                (Some(seen), Some(&truth)) => {
                    prop_assert!(seen.abs_diff(truth) as f64 <= truth as f64 * 0.001, "{seen} for {truth}");
                }
                (seen, truth) => prop_assert_eq!(seen, truth.copied()),
            }
        }
    }
}
