//! What changed between two things that were measured in turn, pair by pair: by which factor, how surely, and whether
//! noise alone would do as much.

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::bootstrap::{Bootstrap, BootstrapError};
use super::interval::Interval;
use super::spread::{check_finite, median_in_place};

/// By which factor the second of each pair differs from the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedRatio {
    /// The factor: the Hodges–Lehmann estimate of the logarithms' ratios. Without a unit.
    pub ratio: f64,
    /// Where it lies, by the bootstrap over pairs.
    pub interval: Interval,
    /// How often pairs without a difference would look at least as different ([`signed_rank`]).
    pub p_value: f64,
}

/// The factor from the first to the second of each of `pairs`, its interval and its p-value.
///
/// Pairs that were measured one right after the other share what the machine did at that time, so their ratio is steadier
/// than the ratio of two means; logarithms make a doubling and a halving equally far from no change.
///
/// # Errors
/// With fewer than two pairs, or a value that is not above 0.
pub fn paired_ratio(pairs: &[(f64, f64)], bootstrap: &Bootstrap) -> Result<PairedRatio, BootstrapError> {
    let logs = log_ratios(pairs)?;
    let estimate = bootstrap.hodges_lehmann(&logs)?;
    let interval = Interval { lower: estimate.interval.lower.exp(), upper: estimate.interval.upper.exp() };
    Ok(PairedRatio { ratio: estimate.value.exp(), interval, p_value: signed_rank(&logs) })
}

/// The natural logarithm of second over first, for each of `pairs`.
///
/// # Errors
/// Where a value is not finite and above 0.
pub fn log_ratios(pairs: &[(f64, f64)]) -> Result<Vec<f64>, BootstrapError> {
    let usable = |value: f64| value > 0.0 && value.is_finite();
    pairs
        .iter()
        .enumerate()
        .map(|(index, &(a, b))| match [a, b].into_iter().find(|&value| !usable(value)) {
            None => Ok((b / a).ln()),
            Some(value) => Err(BootstrapError::NoDivisor { index, value }),
        })
        .collect()
}

/// The median of the means of all two of the values, each with itself included: nearly as sure as the mean where the
/// noise is normal, and hardly moved by a pair that something disturbed. `NaN` of no value.
///
/// Source: J. L. Hodges, E. L. Lehmann, "Estimates of location based on rank tests", Annals of Mathematical Statistics 34,
/// 1963.
#[must_use]
pub fn hodges_lehmann(values: &[f64]) -> f64 {
    let mut means: Vec<f64> = values
        .iter()
        .enumerate()
        .flat_map(|(index, &one)| values[index..].iter().map(move |&other| f64::midpoint(one, other)))
        .collect();
    if means.is_empty() { f64::NAN } else { median_in_place(&mut means) }
}

/// The two-sided p-value of differences that are as likely above 0 as below, exactly.
///
/// Source: F. Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1(6), 1945. Differences of 0 are left
/// out, equal ones share the mean of their ranks; all signs are counted through, not approximated.
#[must_use]
pub fn signed_rank(differences: &[f64]) -> f64 {
    let mut kept: Vec<f64> = differences.iter().copied().filter(|&value| value != 0.0).collect();
    kept.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    // Twice the ranks, which are whole numbers also where some share one.
    let mut ranks = Vec::with_capacity(kept.len());
    while ranks.len() < kept.len() {
        let begin = ranks.len();
        let size = kept[begin].abs();
        let ties = kept[begin..].iter().take_while(|value| value.abs() == size).count();
        ranks.extend(std::iter::repeat_n(2 * begin + ties + 1, ties));
    }
    let total: usize = ranks.iter().sum();
    let above: usize = ranks.iter().zip(&kept).filter(|(_, value)| **value > 0.0).map(|(rank, _)| rank).sum();
    let extreme = above.min(total - above);
    // The share of all choices of signs that come to each sum.
    let mut shares = vec![0.0; total + 1];
    shares[0] = 1.0;
    for &rank in &ranks {
        for sum in (0..=total).rev() {
            let with = if sum >= rank { shares[sum - rank] } else { 0.0 };
            shares[sum] = 0.5 * (shares[sum] + with);
        }
    }
    (2.0 * shares[..=extreme].iter().sum::<f64>()).min(1.0)
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

/// What noise alone does: the change that `pairs` pairs of the same thing exceed once in a hundred times, as a logarithm of a
/// factor, by drawing from `log_ratios` of pairs of the same thing with either sign. `None` where there is nothing to
/// draw from.
#[must_use]
pub fn noise_of_the_same(log_ratios: &[f64], pairs: usize, seed: u64) -> Option<f64> {
    /// Twenty of them are beyond the hundredth.
    const DRAWS: usize = 2_000;
    check_finite(log_ratios, 2).ok()?;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut changes: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let drawn: Vec<f64> = (0..pairs.max(1))
                .map(|_| {
                    let value = log_ratios[rng.random_range(0..log_ratios.len())];
                    if rng.random_range(0..2) == 0 { value } else { -value }
                })
                .collect();
            hodges_lehmann(&drawn).abs()
        })
        .collect();
    changes.sort_by(f64::total_cmp);
    changes.get(DRAWS - DRAWS / 100).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// By trying every choice of signs.
    fn signed_rank_by_all_signs(differences: &[f64]) -> f64 {
        let kept: Vec<f64> = differences.iter().copied().filter(|&value| value != 0.0).collect();
        let rank = |value: f64| {
            let below = kept.iter().filter(|other| other.abs() < value.abs()).count() as f64;
            let equal = kept.iter().filter(|other| other.abs() == value.abs()).count() as f64;
            below + (equal + 1.0) / 2.0
        };
        let ranks: Vec<f64> = kept.iter().map(|&value| rank(value)).collect();
        let centre = ranks.iter().sum::<f64>() / 2.0;
        let seen: f64 =
            ranks.iter().zip(&kept).filter(|(_, value)| **value > 0.0).map(|(rank, _)| rank).sum();
        let all = 1_u32 << kept.len();
        let as_far = (0..all)
            .filter(|signs| {
                let sum: f64 =
                    (0..kept.len()).filter(|bit| signs >> bit & 1 == 1).map(|bit| ranks[bit]).sum();
                (sum - centre).abs() >= (seen - centre).abs() - 1e-9
            })
            .count();
        as_far as f64 / f64::from(all)
    }

    #[test]
    fn a_p_value_of_the_tables_is_met() {
        // n = 10, smaller sum 8: two-sided 0.048828125 (Wilcoxon's tables have 8 for 5 %).
        let differences = [1.0, 2.0, -3.0, 4.0, -5.0, 6.0, 7.0, 8.0, 9.0, 10.0];
        assert!((signed_rank(&differences) - 0.048_828_125).abs() < 1e-12);
        assert_eq!(signed_rank(&[]), 1.0);
        assert_eq!(signed_rank(&[0.0, 0.0]), 1.0);
        // All of 12 on one side: 2 of 4,096.
        assert!((signed_rank(&[0.5; 12]) - 2.0 / 4_096.0).abs() < 1e-15);
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

    #[test]
    fn what_has_no_ratio_is_named() {
        let bootstrap = Bootstrap::default();
        assert_eq!(
            paired_ratio(&[(1.0, 2.0), (0.0, 1.0)], &bootstrap),
            Err(BootstrapError::NoDivisor { index: 1, value: 0.0 })
        );
        assert!(paired_ratio(&[(1.0, 2.0)], &bootstrap).is_err());
        assert_eq!(noise_of_the_same(&[0.1], 12, 0), None);
    }

    #[test]
    fn more_pairs_leave_less_noise() {
        let ratios: Vec<f64> = (-10..=10).map(|n| f64::from(n) / 200.0).collect();
        let noise = |pairs| noise_of_the_same(&ratios, pairs, 1).unwrap();
        assert!(noise(12) < 0.8 * noise(3) && noise(48) < 0.6 * noise(12));
        // Uniform on ±0.05, sd 0.0303: the mean of 12 has 0.00874, and 2.576 of these are 0.0225; the estimate is a little less sure.
        assert!((0.021..0.031).contains(&noise(12)), "{}", noise(12));
    }

    proptest! {
        #[test]
        fn the_p_value_is_that_of_all_signs(values in vec(-3..=3_i8, 1..11)) {
            let differences: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
            let (fast, all) = (signed_rank(&differences), signed_rank_by_all_signs(&differences));
            prop_assert!((fast - all).abs() < 1e-12, "{fast} {all}");
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
        fn the_estimate_moves_and_stretches_with_the_values(
            values in vec(-1e3..1e3_f64, 1..20), shift in -1e3..1e3_f64, factor in -5.0..5.0_f64
        ) {
            let moved: Vec<f64> = values.iter().map(|value| value * factor + shift).collect();
            let (moved, expected) = (hodges_lehmann(&moved), hodges_lehmann(&values) * factor + shift);
            prop_assert!((moved - expected).abs() < 1e-6, "{moved} {expected}");
        }
    }
}
