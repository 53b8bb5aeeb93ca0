//! The histogram of latencies: the buckets of HdrHistogram, of which only those octaves are touched that were ever hit.
//!
//! A whole one of three digits up to an hour takes 270 KiB, and clearing it touches all of them. Latencies of one service
//! stay within some octaves, 8 KiB each, so that the four histograms of a window fit the second-level cache, and the system
//! need not give memory for the others.

use std::fmt;

use hdrhistogram::Histogram;

use super::{HIGHEST_NS, Moments};

/// Buckets an octave: as many as give three digits.
const BUCKETS: usize = 1_024;
/// What is below 1,024 ns, and then every octave up to [`HIGHEST_NS`].
const OCTAVES: usize = HIGHEST_NS.ilog2() as usize - 8;

/// A histogram of nanoseconds, three significant digits from 1 ns to 1 h.
pub struct LatencyHistogram {
    /// Octave by octave. The first counts single nanoseconds below 1,024, the one at `n` the range from 2^(n + 9) to
    /// 2^(n + 10) in steps of 2^(n - 1). All of it is there from the start, so that what is allocated does not grow by
    /// what comes.
    counts: Vec<u64>,
    /// A bit for each octave that was hit.
    hit: u64,
    len: u64,
    saturated: u64,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self { counts: vec![0; OCTAVES * BUCKETS], hit: 0, len: 0, saturated: 0 }
    }
}

impl Clone for LatencyHistogram {
    /// Without touching what was not hit.
    fn clone(&self) -> Self {
        let mut clone = Self::default();
        clone.add(self);
        clone
    }
}

impl LatencyHistogram {
    /// A histogram read back from its parts; `counts` is brought to this histogram's bounds.
    #[must_use]
    pub fn from_counts(counts: &Histogram<u64>, saturated: u64) -> Self {
        let mut histogram = Self { saturated, ..Self::default() };
        for bucket in counts.iter_recorded() {
            histogram.count(bucket.value_iterated_to(), bucket.count_at_value());
        }
        histogram
    }

    /// Counts one value.
    #[inline]
    pub fn record(&mut self, value_ns: u64) {
        if value_ns > HIGHEST_NS {
            self.saturated += 1;
        }
        self.count(value_ns, 1);
    }

    #[inline]
    fn count(&mut self, value_ns: u64, times: u64) {
        let (octave, bucket) = place(value_ns);
        if let Some(count) = self.counts.get_mut(octave * BUCKETS + bucket) {
            *count += times;
            self.hit |= 1 << octave;
            self.len += times;
        }
    }

    /// Adds all of another histogram's counts.
    pub fn add(&mut self, other: &Self) {
        self.saturated += other.saturated;
        self.len += other.len;
        self.hit |= other.hit;
        let octaves = self.counts.chunks_exact_mut(BUCKETS).zip(other.counts.chunks_exact(BUCKETS));
        for (octave, (mine, others)) in octaves.enumerate() {
            if other.is_hit(octave) {
                mine.iter_mut().zip(others).for_each(|(mine, others)| *mine += others);
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        for (octave, counts) in self.counts.chunks_exact_mut(BUCKETS).enumerate() {
            if self.hit & (1 << octave) != 0 {
                counts.fill(0);
            }
        }
        (self.hit, self.len, self.saturated) = (0, 0, 0);
    }

    fn is_hit(&self, octave: usize) -> bool {
        self.hit & (1 << octave) != 0
    }

    /// How many values were counted.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many values were longer than [`HIGHEST_NS`].
    #[must_use]
    pub fn saturated(&self) -> u64 {
        self.saturated
    }

    /// The value at a rank, the smallest having rank 1; `None` where fewer values were counted. It is the largest of those
    /// that its bucket cannot tell apart.
    #[must_use]
    pub fn value_at_rank(&self, rank: u64) -> Option<u64> {
        let mut below = 0;
        let reached = |bucket: &Bucket| {
            below += bucket.count;
            below >= rank
        };
        self.buckets().filter(|_| rank > 0).find(reached).map(|bucket| bucket.highest_ns)
    }

    /// The `quantile` (0 to 1) by nearest rank over the counted values and `censored` more that rank above them all;
    /// `None` where there is no value, or where the rank falls among the censored ones.
    #[must_use]
    pub fn quantile(&self, quantile: f64, censored: u64) -> Option<u64> {
        let all = self.len() + censored;
        let rank = ((quantile * all as f64 - 1e-9).ceil() as u64).clamp(1, all.max(1));
        self.value_at_rank(rank)
    }

    /// How many values were above `value_ns`, to the histogram's three digits.
    #[must_use]
    pub fn count_above(&self, value_ns: u64) -> u64 {
        if value_ns >= HIGHEST_NS {
            return self.saturated;
        }
        self.buckets().filter(|bucket| bucket.lowest_ns > value_ns).map(|bucket| bucket.count).sum()
    }

    /// Smallest, mean, standard deviation and largest, in nanoseconds; `None` where nothing was counted. Each value
    /// counts as the middle of its bucket.
    #[must_use]
    pub fn moments(&self) -> Option<Moments> {
        let mean_ns = self.buckets().map(|bucket| bucket.middle_ns() * bucket.count as f64).sum::<f64>()
            / self.len as f64;
        let squares = |bucket: Bucket| (bucket.middle_ns() - mean_ns).powi(2) * bucket.count as f64;
        Some(Moments {
            min_ns: self.buckets().next()?.lowest_ns,
            mean_ns,
            stddev_ns: (self.buckets().map(squares).sum::<f64>() / self.len as f64).sqrt(),
            max_ns: self.buckets().last()?.highest_ns,
        })
    }

    /// The counts themselves, for serialisation.
    #[must_use]
    #[allow(clippy::expect_used, reason = "the bounds are constants, and valid ones: no input reaches them")]
    pub fn counts(&self) -> Histogram<u64> {
        let mut counts = Histogram::new_with_bounds(1, HIGHEST_NS, 3).expect("constant bounds are valid");
        self.buckets().for_each(|bucket| counts.saturating_record_n(bucket.lowest_ns, bucket.count));
        counts
    }

    /// All buckets that are not empty, from the lowest up.
    fn buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        let octaves = self.counts.chunks_exact(BUCKETS).enumerate();
        octaves.filter(move |&(octave, _)| self.is_hit(octave)).flat_map(|(octave, counts)| {
            let counts = counts.iter().enumerate().filter(|&(_, &count)| count > 0);
            counts.map(move |(bucket, &count)| Bucket::at(octave, bucket, count))
        })
    }
}

impl PartialEq for LatencyHistogram {
    /// What was never hit need not be compared.
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.saturated == other.saturated && self.buckets().eq(other.buckets())
    }
}

impl fmt::Debug for LatencyHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { len, saturated, .. } = self;
        let buckets: Vec<Bucket> = self.buckets().collect();
        f.debug_struct("LatencyHistogram")
            .field("len", len)
            .field("saturated", saturated)
            .field("buckets", &buckets)
            .finish()
    }
}

/// A bucket: its bounds, both included, and what it counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    lowest_ns: u64,
    highest_ns: u64,
    count: u64,
}

impl Bucket {
    fn at(octave: usize, bucket: usize, count: u64) -> Self {
        let bucket = bucket as u64;
        match octave.checked_sub(1) {
            None => Self { lowest_ns: bucket, highest_ns: bucket, count },
            Some(shift) => {
                let lowest_ns = (BUCKETS as u64 + bucket) << shift;
                Self { lowest_ns, highest_ns: lowest_ns + (1 << shift) - 1, count }
            }
        }
    }

    fn middle_ns(&self) -> f64 {
        // As HdrHistogram has it: the upper one of the two in the middle.
        (self.lowest_ns + (self.highest_ns - self.lowest_ns).div_ceil(2)) as f64
    }
}

/// The octave and the bucket of a value; what is above the highest counts as that.
#[inline]
fn place(value_ns: u64) -> (usize, usize) {
    let value_ns = value_ns.min(HIGHEST_NS);
    let octave = (value_ns | (BUCKETS as u64 - 1)).ilog2() as usize - 9;
    let bucket = (value_ns >> octave.saturating_sub(1)) as usize % BUCKETS;
    (octave, bucket)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The buckets are those of the crate that others read our histograms with.
        #[test]
        fn it_agrees_with_hdrhistogram(
            values in proptest::collection::vec((0_u32..46).prop_flat_map(|bits| 0..1_u64 << bits), 1..200),
            quantile in 0.0_f64..=1.0,
        ) {
            let mut ours = LatencyHistogram::default();
            let mut theirs = Histogram::<u64>::new_with_bounds(1, HIGHEST_NS, 3).unwrap();
            for &value in &values {
                ours.record(value);
                theirs.saturating_record(value.min(HIGHEST_NS));
            }
            prop_assert_eq!(&ours.counts(), &theirs);
            prop_assert_eq!(LatencyHistogram::from_counts(&theirs, ours.saturated()), ours.clone());
            let moments = ours.moments().unwrap();
            let close = |ours: f64, theirs: f64| (ours - theirs).abs() <= 1e-9 * theirs.max(1.0);
            prop_assert!(close(moments.mean_ns, theirs.mean()), "{} {}", moments.mean_ns, theirs.mean());
            prop_assert!(close(moments.stddev_ns, theirs.stdev()), "{} {}", moments.stddev_ns, theirs.stdev());
            prop_assert_eq!((moments.min_ns, moments.max_ns), (theirs.min(), theirs.max()));
            let rank = ((quantile * values.len() as f64).ceil() as u64).max(1);
            let middle = (rank as f64 - 0.5) / values.len() as f64;
            prop_assert_eq!(ours.value_at_rank(rank), Some(theirs.value_at_quantile(middle)));
            ours.clear();
            prop_assert_eq!(ours, LatencyHistogram::default());
        }
    }
}
