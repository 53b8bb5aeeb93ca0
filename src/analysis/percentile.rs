//! Percentiles that loss and refusal cannot improve.
//!
//! Every message that was due takes part in the ranking. What was answered ranks by its latency; what was refused, lost or never
//! sent is *censored*: its latency is unknown but worse than any answer, so it ranks above all of them. A percentile that
//! falls among the censored has no value.

/// A share of a ranking, kept to nine decimals so that ranks are computed in whole numbers.
///
/// In floating point 0.07 × 100 is 7.000000000000001, whose ceiling is 8; as 70,000,000 parts of a thousand million it is 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percentile {
    parts_per_billion: u64,
}

impl Percentile {
    /// The median.
    pub const P50: Self = Self { parts_per_billion: 500_000_000 };
    /// Nine in ten.
    pub const P90: Self = Self { parts_per_billion: 900_000_000 };
    /// Nineteen in twenty.
    pub const P95: Self = Self { parts_per_billion: 950_000_000 };
    /// Ninety-nine in a hundred.
    pub const P99: Self = Self { parts_per_billion: 990_000_000 };
    /// Nine hundred and ninety-nine in a thousand.
    pub const P999: Self = Self { parts_per_billion: 999_000_000 };

    /// The percentile of `share`, rounded to nine decimals; `None` outside 0 to 1.
    #[must_use]
    pub fn from_share(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then(|| Self { parts_per_billion: (share * 1e9).round() as u64 })
    }

    /// The share, between 0 and 1.
    #[must_use]
    pub fn share(self) -> f64 {
        self.parts_per_billion as f64 / 1e9
    }

    /// The nearest rank among `total` ordered values, from 1 to `total`: `ceil(share × total)`, at least 1. `None` where
    /// there are no values.
    ///
    /// Source: the nearest-rank definition, type 1 in R. Hyndman, Y. Fan, "Sample Quantiles in Statistical Packages",
    /// The American Statistician 50(4), 1996. It always names a value that was measured.
    #[must_use]
    pub fn rank(self, total: u64) -> Option<u64> {
        if total == 0 {
            return None;
        }
        // The share is at most 1, so the rank is at most `total` and fits again.
        let rank = (u128::from(self.parts_per_billion) * u128::from(total)).div_ceil(1_000_000_000);
        Some((rank as u64).max(1))
    }
}

/// The percentile over `answered` values and `censored` ones above them all, where `value_at_rank` gives the answered value
/// of a rank from 1 (the lowest) to `answered`. `None` where nothing was due, or where the rank falls among the censored.
///
/// For an HDR histogram: `censored_percentile(p, h.len(), censored, |rank| value of the first bucket that reaches rank)`.
#[must_use]
pub fn censored_percentile<T>(
    percentile: Percentile,
    answered: u64,
    censored: u64,
    value_at_rank: impl FnOnce(u64) -> T,
) -> Option<T> {
    let rank = percentile.rank(answered.saturating_add(censored))?;
    (rank <= answered).then(|| value_at_rank(rank))
}

/// The percentile over the answered values `sorted` (ascending) and `censored` ones above them all.
///
/// `None` where nothing was due, or where the rank falls among the censored.
#[must_use]
pub fn percentile_of_sorted<T: Copy + PartialOrd>(
    percentile: Percentile,
    sorted: &[T],
    censored: u64,
) -> Option<T> {
    debug_assert!(sorted.is_sorted(), "the ranks of an unsorted slice mean nothing");
    let rank = percentile.rank((sorted.len() as u64).saturating_add(censored))?;
    sorted.get(usize::try_from(rank - 1).ok()?).copied()
}

/// An upper bound of the percentile from a histogram: `buckets` are `(upper bound, count)`, ascending, with `censored` values above
/// them all. The bound is that of the bucket that holds the rank, so the true value is at most this.
///
/// `None` where nothing was due, or where the rank falls among the censored.
#[must_use]
pub fn percentile_upper_bound<T: Copy + PartialOrd>(
    percentile: Percentile,
    buckets: &[(T, u64)],
    censored: u64,
) -> Option<T> {
    debug_assert!(buckets.is_sorted_by(|a, b| a.0 < b.0), "buckets ascend");
    let answered = buckets.iter().fold(0u64, |sum, &(_, count)| sum.saturating_add(count));
    let rank = percentile.rank(answered.saturating_add(censored))?;
    let mut seen = 0u64;
    buckets.iter().find_map(|&(upper_bound, count)| {
        seen = seen.saturating_add(count);
        (seen >= rank).then_some(upper_bound)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// The definition taken literally: every due message in one list, the censored as `None` at its end.
    fn by_definition(parts_per_billion: u64, answered: &[u64], censored: u64) -> Option<u64> {
        let mut ranking: Vec<Option<u64>> = answered.iter().copied().map(Some).collect();
        ranking.sort_unstable();
        ranking.extend((0..censored).map(|_| None));
        // The first place at which at least the share of all values has been passed.
        let total = ranking.len() as u128;
        (1..=total)
            .find(|rank| rank * 1_000_000_000 >= u128::from(parts_per_billion) * total)
            .and_then(|rank| ranking[(rank - 1) as usize])
    }

    #[test]
    fn no_data_has_no_percentile() {
        assert_eq!(Percentile::P50.rank(0), None);
        assert_eq!(percentile_of_sorted::<u64>(Percentile::P50, &[], 0), None);
        assert_eq!(percentile_of_sorted::<u64>(Percentile::P50, &[], 5), None);
        assert_eq!(percentile_upper_bound::<u64>(Percentile::P50, &[], 0), None);
        assert_eq!(percentile_upper_bound(Percentile::P50, &[(10u64, 0)], 0), None);
        assert_eq!(censored_percentile(Percentile::P50, 0, 0, |rank| rank), None);
    }

    #[test]
    fn shares_outside_0_to_1_are_no_percentiles() {
        for share in [-0.01, 1.000_001, 95.0, f64::NAN] {
            assert_eq!(Percentile::from_share(share), None, "{share}");
        }
        assert_eq!(Percentile::from_share(0.999), Some(Percentile::P999));
        assert_eq!(Percentile::P95.share(), 0.95);
    }

    #[test]
    fn ranks_are_exact_where_floating_point_is_not() {
        assert!((0.07f64 * 100.0).ceil() > 7.0, "else this test proves nothing");
        assert_eq!(Percentile::from_share(0.07).unwrap().rank(100), Some(7));
        assert_eq!(Percentile::P99.rank(100), Some(99));
        assert_eq!(Percentile::P99.rank(101), Some(100));
        assert_eq!(Percentile::from_share(0.0).unwrap().rank(10), Some(1));
        assert_eq!(Percentile::from_share(1.0).unwrap().rank(u64::MAX), Some(u64::MAX));
    }

    #[test]
    fn dropping_the_slowest_messages_can_not_improve_a_percentile() {
        let all: Vec<u64> = (1..=1000).collect();
        assert_eq!(percentile_of_sorted(Percentile::P99, &all, 0), Some(990));
        // The slowest 9 dropped: still the 990th of 1000. The slowest 11 dropped: it falls among the lost.
        assert_eq!(percentile_of_sorted(Percentile::P99, &all[..991], 9), Some(990));
        assert_eq!(percentile_of_sorted(Percentile::P99, &all[..989], 11), None);
    }

    proptest! {
        #[test]
        fn the_rank_follows_the_definition(
            parts in 0u64..=1_000_000_000,
            mut answered in vec(0u64..1_000, 0..200),
            censored in 0u64..50,
        ) {
            let expected = by_definition(parts, &answered, censored);
            answered.sort_unstable();
            let percentile = Percentile { parts_per_billion: parts };
            prop_assert_eq!(percentile_of_sorted(percentile, &answered, censored), expected);
            let by_closure = censored_percentile(percentile, answered.len() as u64, censored, |rank| answered[rank as usize - 1]);
            prop_assert_eq!(by_closure, expected);
        }

        #[test]
        fn the_bucket_bound_is_that_of_the_bucket_of_the_exact_value(
            parts in 0u64..=1_000_000_000,
            mut answered in vec(1u64..1_000_000, 0..200),
            censored in 0u64..50,
        ) {
            // 64 logarithmic buckets: bucket i holds the values up to 2^i.
            let bucket_of = |value: u64| u64::BITS - (value - 1).leading_zeros();
            let mut buckets: Vec<(u64, u64)> = (0..64).map(|i| (1u64 << i, 0)).collect();
            for &value in &answered {
                buckets[bucket_of(value) as usize].1 += 1;
            }
            answered.sort_unstable();
            let percentile = Percentile { parts_per_billion: parts };
            let exact = percentile_of_sorted(percentile, &answered, censored);
            let bound = percentile_upper_bound(percentile, &buckets, censored);
            prop_assert_eq!(bound, exact.map(|value| 1u64 << bucket_of(value)));
            prop_assert!(exact <= bound);
        }

        #[test]
        fn more_loss_never_lowers_a_percentile(
            share in 0.0..=1.0f64,
            mut answered in vec(0u64..1_000, 1..200),
            censored in 0u64..50,
        ) {
            answered.sort_unstable();
            let percentile = Percentile::from_share(share).unwrap();
            let before = percentile_of_sorted(percentile, &answered, censored);
            let after = percentile_of_sorted(percentile, &answered, censored + 1);
            prop_assert!(after.is_none() || before.is_some_and(|before| after >= Some(before)));
        }
    }
}
