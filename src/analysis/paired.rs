//! What changed between two things that were measured in turn, pair by pair: by which factor, how surely, and whether
//! noise alone would do as much.

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::bootstrap::{Bootstrap, BootstrapError};
use super::interval::Interval;
use super::spread::median_in_place;

/// By which factor the second of each pair differs from the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedRatio {
    /// The factor: the Hodges–Lehmann [`shift`] of the [`aligned`] logarithms. Without a unit.
    pub ratio: f64,
    /// Where it lies, by the bootstrap over pairs.
    pub interval: Interval,
    /// How often pairs without a difference would look at least as different ([`swapped_ranks`]).
    pub p_value: f64,
}

/// The factor from the first to the second of each of `pairs`, its interval and its p-value.
///
/// Logarithms make a doubling and a halving equally far from no change; what the machine did to all pairs of some minutes is
/// taken from them ([`aligned`]).
///
/// # Errors
/// With fewer than two pairs, or a value that is not above 0.
pub fn paired_ratio(pairs: &[(f64, f64)], bootstrap: &Bootstrap) -> Result<PairedRatio, BootstrapError> {
    let aligned = aligned(pairs)?;
    let estimate = bootstrap.shift(&aligned)?;
    let interval = Interval { lower: estimate.interval.lower.exp(), upper: estimate.interval.upper.exp() };
    Ok(PairedRatio { ratio: estimate.value.exp(), interval, p_value: swapped_ranks(&aligned) })
}

/// So many pairs on either side say what the machine was like around a pair: enough that a few disturbed ones among them do
/// not, and little of the minute that a comparison takes.
const AROUND: usize = 3;

/// The natural logarithms of both of each pair, less the median of all in the pairs around it: what drifts slowly is gone, and
/// a disturbed value stays with itself, where the logarithm of a pair's own ratio would hand it on to the other.
///
/// Which of a pair is the first has no part in that, so what holds of swaps within pairs still does. Source: J. L. Hodges,
/// E. L. Lehmann, "Rank methods for combination of independent experiments in analysis of variance", Annals of Mathematical
/// Statistics 33, 1962.
///
/// # Errors
/// Where a value is not finite and above 0.
pub fn aligned(pairs: &[(f64, f64)]) -> Result<Vec<(f64, f64)>, BootstrapError> {
    let usable = |value: f64| value > 0.0 && value.is_finite();
    for (index, &(a, b)) in pairs.iter().enumerate() {
        if let Some(value) = [a, b].into_iter().find(|&value| !usable(value)) {
            return Err(BootstrapError::NoDivisor { index, value });
        }
    }
    let logs: Vec<(f64, f64)> = pairs.iter().map(|&(a, b)| (a.ln(), b.ln())).collect();
    let width = logs.len().min(2 * AROUND + 1);
    let around = |index: usize| {
        let first = index.saturating_sub(AROUND).min(logs.len() - width);
        let mut near: Vec<f64> = logs[first..first + width].iter().flat_map(|&(a, b)| [a, b]).collect();
        median_in_place(&mut near)
    };
    Ok(logs
        .iter()
        .enumerate()
        .map(|(index, &(a, b))| {
            let centre = around(index);
            (a - centre, b - centre)
        })
        .collect())
}

/// By how much the seconds lie above the firsts: the median of the differences of each second to every first. Nearly as sure
/// as the difference of the means where the noise is normal, and hardly moved by values that something disturbed. `NaN` of no
/// pair.
///
/// Source: J. L. Hodges, E. L. Lehmann, "Estimates of location based on rank tests", Annals of Mathematical Statistics 34,
/// 1963.
#[must_use]
pub fn shift(pairs: &[(f64, f64)]) -> f64 {
    let mut differences: Vec<f64> =
        pairs.iter().flat_map(|(_, b)| pairs.iter().map(move |(a, _)| b - a)).collect();
    if differences.is_empty() { f64::NAN } else { median_in_place(&mut differences) }
}

/// The two-sided p-value of pairs whose values could as well be swapped, exactly: how often the ranks of the seconds among all
/// values come to as extreme a sum, over all swaps within pairs.
///
/// Source of the sum: F. Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1(6), 1945 (equal values
/// share the mean of their ranks); of counting through what could as well have been: R. A. Fisher, "The Design of
/// Experiments", 1935. Against the ranks of the pairs' differences, also Wilcoxon's, a disturbed value counts as one among the
/// largest, and not as the pair that says the most.
#[must_use]
pub fn swapped_ranks(pairs: &[(f64, f64)]) -> f64 {
    let gains = rank_gains(pairs);
    let most: usize = gains.iter().map(|gain| gain.unsigned_abs()).sum();
    let seen = gains.iter().sum::<isize>().unsigned_abs();
    // The share of all swaps that come to each sum, from -most to most.
    let mut shares = vec![0.0; 2 * most + 1];
    shares[most] = 1.0;
    for gain in gains.iter().map(|gain| gain.unsigned_abs()) {
        let at = |index: Option<usize>| index.and_then(|index| shares.get(index)).copied().unwrap_or(0.0);
        shares = (0..shares.len())
            .map(|sum| 0.5 * (at(sum.checked_sub(gain)) + at(sum.checked_add(gain))))
            .collect();
    }
    let extreme = |&(sum, _): &(usize, &f64)| sum.abs_diff(most) >= seen;
    shares.iter().enumerate().filter(extreme).map(|(_, share)| share).sum::<f64>().min(1.0)
}

/// By how much the second's rank among all values lies above the first's, for each pair, and twice that: whole numbers also
/// where some share a rank.
fn rank_gains(pairs: &[(f64, f64)]) -> Vec<isize> {
    let mut ascending: Vec<f64> = pairs.iter().flat_map(|&(a, b)| [a, b]).collect();
    ascending.sort_by(f64::total_cmp);
    let rank = |value: f64| {
        let below = ascending.partition_point(|&other| other < value);
        let up_to = ascending.partition_point(|&other| other <= value);
        isize::try_from(below + up_to).unwrap_or(isize::MAX)
    };
    pairs.iter().map(|&(a, b)| rank(b) - rank(a)).collect()
}

/// The p-values as they are when all are judged together: with each at most α, the chance that any of them is there by
/// noise alone is at most α.
///
/// Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6(2), 1979.
#[must_use]
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![1.0; p_values.len()];
    let mut least = 0.0_f64;
    for (place, &index) in order.iter().enumerate() {
        least = least.max(((p_values.len() - place) as f64 * p_values[index]).min(1.0));
        adjusted[index] = least;
    }
    adjusted
}

/// What noise alone does: the shift that so many pairs of the same thing exceed once in twenty times, as a logarithm of a
/// factor, by drawing from `pairs` of the same thing ([`aligned`]) either way round. `None` where there is nothing to draw
/// from.
#[must_use]
pub fn noise_of_the_same(pairs: &[(f64, f64)], count: usize, seed: u64) -> Option<f64> {
    /// A hundred of them are beyond it.
    const DRAWS: usize = 2_000;
    if pairs.len() < 2 {
        return None;
    }
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut changes: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let drawn: Vec<(f64, f64)> = (0..count.max(1))
                .map(|_| {
                    let (a, b) = pairs[rng.random_range(0..pairs.len())];
                    if rng.random_range(0..2) == 0 { (a, b) } else { (b, a) }
                })
                .collect();
            shift(&drawn).abs()
        })
        .collect();
    changes.sort_by(f64::total_cmp);
    changes.get(DRAWS - DRAWS / 20).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// By trying every choice of swaps, on ranks that are counted out.
    fn swapped_ranks_by_all_swaps(pairs: &[(f64, f64)]) -> f64 {
        let all: Vec<f64> = pairs.iter().flat_map(|&(a, b)| [a, b]).collect();
        let rank = |value: f64| {
            let below = all.iter().filter(|other| **other < value).count() as f64;
            let equal = all.iter().filter(|other| **other == value).count() as f64;
            below + (equal + 1.0) / 2.0
        };
        let sum = |swaps: u32| -> f64 {
            let second = |(index, &(a, b)): (usize, &(f64, f64))| if swaps >> index & 1 == 1 { a } else { b };
            pairs.iter().enumerate().map(second).map(rank).sum()
        };
        let centre = all.iter().map(|&value| rank(value)).sum::<f64>() / 2.0;
        let swaps = 1_u32 << pairs.len();
        let as_far = |&swaps: &u32| (sum(swaps) - centre).abs() >= (sum(0) - centre).abs() - 1e-9;
        (0..swaps).filter(as_far).count() as f64 / f64::from(swaps)
    }

    #[test]
    fn a_p_value_worked_by_hand_is_met() {
        // Ranks 1 to 6, seconds 2, 4, 6 against firsts 1, 3, 5: three gains of 1, so all or none of them swapped: 2 of 8.
        assert_eq!(swapped_ranks(&[(1.0, 2.0), (3.0, 4.0), (5.0, 6.0)]), 0.25);
        // Gains of 4, 1 and -2, which come to 3: of all eight sums, only 4 - 1 - 2 and its opposite are smaller.
        assert_eq!(swapped_ranks(&[(1.0, 5.0), (2.0, 3.0), (6.0, 4.0)]), 1.0 - 2.0 / 8.0);
        assert_eq!(swapped_ranks(&[]), 1.0);
        assert_eq!(swapped_ranks(&[(1.0, 1.0), (2.0, 2.0)]), 1.0);
        // All of 12 on one side: 2 of 4,096.
        assert!((swapped_ranks(&[(1.0, 2.0); 12]) - 2.0 / 4_096.0).abs() < 1e-15);
    }

    #[test]
    fn holm_goes_down_step_by_step() {
        // Worked by hand: 4 × 0.01, 3 × 0.02, 2 × 0.03 (not below the one before), 1 × 0.9.
        let adjusted = holm(&[0.03, 0.01, 0.9, 0.02]);
        for (adjusted, expected) in adjusted.iter().zip([0.06, 0.04, 0.9, 0.06]) {
            assert!((adjusted - expected).abs() < 1e-12, "{adjusted} {expected}");
        }
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn a_factor_is_found_in_spite_of_a_disturbed_pair() {
        let mut pairs: Vec<(f64, f64)> = (0..12)
            .map(|n| (100.0 + f64::from(n), (100.0 + f64::from(n)) * (1.05 + 0.001 * f64::from(n % 3))))
            .collect();
        pairs[4].1 *= 20.0;
        let found = paired_ratio(&pairs, &Bootstrap::default()).unwrap();
        assert!((found.ratio - 1.051).abs() < 0.002, "{found:?}");
        assert!(found.interval.lower > 1.04 && found.interval.contains(found.ratio), "{found:?}");
        assert!(found.p_value < 0.001, "{found:?}");
    }

    /// What one core's CPU time a message was in turn, of a build and of the same with 5 % more work: of the thirty turns, four
    /// were disturbed by up to a third.
    const DISTURBED: [(f64, f64); 15] = [
        (0.8433, 0.8481),
        (0.9302, 0.8306),
        (0.8145, 0.9104),
        (0.7722, 0.8527),
        (0.7947, 0.8511),
        (0.7929, 0.8509),
        (0.7924, 0.8276),
        (1.0280, 0.8355),
        (0.7971, 0.8475),
        (0.7972, 0.8615),
        (0.8137, 0.8603),
        (0.8348, 1.0530),
        (0.8103, 0.8618),
        (0.8023, 0.8441),
        (0.8084, 0.8487),
    ];

    #[test]
    fn a_change_is_found_where_pairs_were_disturbed_on_either_side() {
        let found = paired_ratio(&DISTURBED, &Bootstrap::default()).unwrap();
        assert!((found.ratio - 1.05).abs() < 0.01, "{found:?}");
        assert!(found.interval.lower > 1.0 && found.interval.contains(found.ratio), "{found:?}");
        // Eight figures are judged together.
        assert!(8.0 * found.p_value < 0.05, "{found:?}");
    }

    #[test]
    fn what_drifts_slowly_takes_nothing_away() {
        let drifting = |n: usize| 100.0 * (1.0 + 0.1 * n as f64);
        let noise = |n: usize| 1.0 + 0.002 * (n % 3) as f64;
        let pairs: Vec<(f64, f64)> =
            (0..16).map(|n| (drifting(n) * noise(n), 1.03 * drifting(n) * noise(n + 1))).collect();
        let found = paired_ratio(&pairs, &Bootstrap::default()).unwrap();
        assert!((found.ratio - 1.03).abs() < 0.005 && found.p_value < 0.001, "{found:?}");
    }

    #[test]
    fn what_has_no_ratio_is_named() {
        let bootstrap = Bootstrap::default();
        assert_eq!(
            paired_ratio(&[(1.0, 2.0), (0.0, 1.0)], &bootstrap),
            Err(BootstrapError::NoDivisor { index: 1, value: 0.0 })
        );
        assert!(paired_ratio(&[(1.0, 2.0)], &bootstrap).is_err());
        assert_eq!(noise_of_the_same(&[(0.0, 0.1)], 12, 0), None);
    }

    #[test]
    fn more_pairs_leave_less_noise() {
        let pairs: Vec<(f64, f64)> = (-10..=10).map(|n| (0.0, f64::from(n) / 200.0)).collect();
        let noise = |count| noise_of_the_same(&pairs, count, 1).unwrap();
        assert!(
            noise(12) < 0.8 * noise(3) && noise(48) < 0.6 * noise(12),
            "{} {} {}",
            noise(3),
            noise(12),
            noise(48)
        );
    }

    proptest! {
        #[test]
        fn the_p_value_is_that_of_all_swaps(pairs in vec((-3..=3_i8, -3..=3_i8), 1..9)) {
            let pairs: Vec<(f64, f64)> = pairs.iter().map(|&(a, b)| (f64::from(a), f64::from(b))).collect();
            let (fast, all) = (swapped_ranks(&pairs), swapped_ranks_by_all_swaps(&pairs));
            prop_assert!((fast - all).abs() < 1e-12, "{fast} {all}");
        }

        #[test]
        fn swapped_the_factor_is_the_inverse(pairs in vec((0.1..10.0_f64, 0.1..10.0_f64), 2..20)) {
            let swapped: Vec<(f64, f64)> = pairs.iter().map(|&(a, b)| (b, a)).collect();
            let (there, back) = (aligned(&pairs).unwrap(), aligned(&swapped).unwrap());
            prop_assert!((shift(&there) + shift(&back)).abs() < 1e-9);
            prop_assert!((swapped_ranks(&there) - swapped_ranks(&back)).abs() < 1e-12);
        }

        #[test]
        fn holm_rejects_what_its_own_words_reject(p_values in vec(0.0..1.0_f64, 1..12), alpha in 0.001..0.5_f64) {
            // "Reject the smallest while p ≤ α ÷ (how many are left)".
            let mut left: Vec<usize> = (0..p_values.len()).collect();
            left.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
            let mut rejected = vec![false; p_values.len()];
            while let Some(&first) = left.first() {
                if p_values[first] * left.len() as f64 > alpha { break }
                rejected[first] = true;
                left.remove(0);
            }
            let adjusted = holm(&p_values);
            for (index, adjusted) in adjusted.iter().enumerate() {
                prop_assert_eq!(*adjusted <= alpha, rejected[index]);
                prop_assert!(*adjusted >= p_values[index]);
            }
        }

        #[test]
        fn a_factor_on_all_seconds_is_found_exactly(
            firsts in vec(0.5..2.0_f64, 2..20), factor in 0.2..5.0_f64
        ) {
            let same: Vec<(f64, f64)> = firsts.iter().map(|&a| (a, a)).collect();
            let more: Vec<(f64, f64)> = firsts.iter().map(|&a| (a, a * factor)).collect();
            // Each value among its like: only the medians around differ between the two.
            let all_alike = |pairs: &[(f64, f64)]| pairs.iter().map(|&(a, b)| (a.ln(), b.ln())).collect::<Vec<_>>();
            prop_assert!((shift(&all_alike(&more)) - shift(&all_alike(&same)) - factor.ln()).abs() < 1e-9);
        }
    }
}
