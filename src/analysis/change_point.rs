//! Where a series of measurements moved to another level and stayed there.
//!
//! E-divisive: D. S. Matteson, N. A. James, "A nonparametric approach for multiple change point analysis of multivariate
//! data", Journal of the American Statistical Association 109, 2014; for benchmark results as in D. Daly et al., "The use of
//! change point detection to identify software performance regressions in a continuous integration system", ICPE 2020.
//! It knows no distribution: the split is where the values on either side are farthest from each other and closest among
//! themselves, and it stands where shuffled values hardly ever divide as well.

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::spread::{SampleError, check_finite, median_in_place};

/// Fewer values than this have no level of their own: one odd run, or two, are no change.
pub const LEAST_LEVEL: usize = 4;

/// A split must be better than all but so many of [`SHUFFLES`]: 1 %, for each of the splits that are tried.
const AS_GOOD: usize = 1;
const SHUFFLES: usize = 199;

/// A change of the level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChangePoint {
    /// The first value of the new level, from 0.
    pub index: usize,
    /// The median of the level before.
    pub before: f64,
    /// The median of the level from here on.
    pub after: f64,
}

/// All changes of the level, in order. Same values and seed, same changes.
///
/// Values should be of independent runs: a slow wander of the machine looks like changes.
///
/// # Errors
/// Where a value is not finite. A series too short for two levels has no change.
pub fn change_points(values: &[f64], seed: u64) -> Result<Vec<ChangePoint>, SampleError> {
    check_finite(values, 0)?;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut splits = Vec::new();
    divide(values, 0, &mut rng, &mut splits);
    splits.sort_unstable();
    let ends = splits.iter().copied().chain([values.len()]);
    let levels: Vec<(usize, f64)> = std::iter::once(0)
        .chain(splits.iter().copied())
        .zip(ends)
        .map(|(begin, end)| (begin, median_in_place(&mut values[begin..end].to_vec())))
        .collect();
    let changes =
        levels.windows(2).map(|pair| ChangePoint { index: pair[1].0, before: pair[0].1, after: pair[1].1 });
    Ok(changes.collect())
}

/// Finds the best split of `values`, which begin at `offset`, and if it stands, those of either side.
fn divide(values: &[f64], offset: usize, rng: &mut Xoshiro256PlusPlus, splits: &mut Vec<usize>) {
    let Some((at, divergence)) = best_split(values) else { return };
    let mut shuffled = values.to_vec();
    let mut as_good = 0;
    for _ in 0..SHUFFLES {
        shuffle(&mut shuffled, rng);
        as_good += usize::from(best_split(&shuffled).is_some_and(|(_, other)| other >= divergence));
        if as_good > AS_GOOD {
            return;
        }
    }
    splits.push(offset + at);
    divide(&values[..at], offset, rng, splits);
    divide(&values[at..], offset + at, rng, splits);
}

/// The split with the greatest divergence, and that. `None` where there is no room for two levels, or nothing differs.
fn best_split(values: &[f64]) -> Option<(usize, f64)> {
    let count = values.len();
    if count < 2 * LEAST_LEVEL {
        return None;
    }
    let distance =
        |one: usize, others: &[f64]| -> f64 { others.iter().map(|other| (values[one] - other).abs()).sum() };
    // Sums of distances: within the left, within the right, and between; all is to the right at first.
    let mut right: f64 = (0..count).map(|one| distance(one, &values[one + 1..])).sum();
    let (mut left, mut between) = (0.0, 0.0);
    let mut best: Option<(usize, f64)> = None;
    for at in 1..=count - LEAST_LEVEL {
        let moved = at - 1;
        let (to_left, to_right) = (distance(moved, &values[..moved]), distance(moved, &values[at..]));
        left += to_left;
        right -= to_right;
        between += to_right - to_left;
        if at < LEAST_LEVEL {
            continue;
        }
        let (m, n) = (at as f64, (count - at) as f64);
        let pairs = |k: f64| k * (k - 1.0) / 2.0;
        let energy = 2.0 * between / (m * n) - left / pairs(m) - right / pairs(n);
        let divergence = m * n / (m + n) * energy;
        if divergence > best.map_or(0.0, |(_, known)| known) {
            best = Some((at, divergence));
        }
    }
    best
}

/// R. A. Fisher and F. Yates, as D. E. Knuth's algorithm P (The Art of Computer Programming 2, 3.4.2).
fn shuffle(values: &mut [f64], rng: &mut Xoshiro256PlusPlus) {
    for last in (1..values.len()).rev() {
        values.swap(last, rng.random_range(0..=last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::normal;
    use proptest::prelude::*;

    fn noise(rng: &mut Xoshiro256PlusPlus) -> f64 {
        normal::quantile(rng.random_range(1e-9..1.0))
    }

    /// Sixty runs of about 100, with 2 % noise; from `at` on, by `factor` more.
    fn series(rng: &mut Xoshiro256PlusPlus, at: usize, factor: f64) -> Vec<f64> {
        (0..60).map(|n| 100.0 * (1.0 + 0.02 * noise(rng)) * if n >= at { factor } else { 1.0 }).collect()
    }

    /// The requirement: of 100 series with a shift of 5 % under 2 % noise, at least 90 are found where they are; of 100
    /// without one, at most 5 are accused.
    #[test]
    fn shifts_of_five_per_cent_are_found_under_two_per_cent_of_noise() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(2014);
        let (mut found, mut exact, mut false_alarms) = (0, 0, 0);
        for number in 0..100 {
            let at = rng.random_range(10..=50);
            let factor = if number % 2 == 0 { 1.05 } else { 1.0 / 1.05 };
            let changes = change_points(&series(&mut rng, at, factor), number).unwrap();
            found += usize::from(changes.iter().any(|change| change.index.abs_diff(at) <= 3));
            exact += usize::from(changes.len() == 1);
            let quiet = series(&mut rng, 0, 1.0);
            false_alarms += usize::from(!change_points(&quiet, number).unwrap().is_empty());
        }
        assert!(found >= 90 && exact >= 85 && false_alarms <= 5, "{found} {exact} {false_alarms}");
    }

    #[test]
    fn several_changes_are_found_and_one_odd_run_is_none() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut values: Vec<f64> = [100.0, 110.0, 90.0]
            .iter()
            .flat_map(|&level| std::iter::repeat_n(level, 20))
            .map(|level| level * (1.0 + 0.01 * noise(&mut rng)))
            .collect();
        let changes = change_points(&values, 0).unwrap();
        assert_eq!(changes.iter().map(|change| change.index).collect::<Vec<_>>(), [20, 40]);
        assert!((changes[1].before - 110.0).abs() < 2.0 && (changes[1].after - 90.0).abs() < 2.0);
        values.truncate(20);
        values[10] *= 3.0;
        assert_eq!(change_points(&values, 0).unwrap(), []);
    }

    #[test]
    fn a_change_behind_another_is_placed_in_the_whole_series() {
        // The first stands out, so that the others are found in what lies behind it.
        let levels = [100.0, 200.0, 204.0, 212.0];
        let values: Vec<f64> = (0..80).map(|n| levels[n / 20] + f64::from(n as u32 % 2)).collect();
        let changes = change_points(&values, 0).unwrap();
        assert_eq!(changes.iter().map(|change| change.index).collect::<Vec<_>>(), [20, 40, 60]);
    }

    #[test]
    fn what_is_too_short_or_all_the_same_has_no_change() {
        assert_eq!(change_points(&[], 0).unwrap(), []);
        assert_eq!(change_points(&[1.0, 1.0, 1.0, 9.0, 9.0, 9.0], 0).unwrap(), []);
        assert_eq!(change_points(&[5.0; 40], 0).unwrap(), []);
        assert!(change_points(&[1.0, f64::NAN], 0).is_err());
    }

    /// The formula as it is printed, pair by pair.
    fn divergence_by_pairs(left: &[f64], right: &[f64]) -> f64 {
        let (m, n) = (left.len() as f64, right.len() as f64);
        let within = |side: &[f64]| -> f64 {
            let k = side.len() as f64;
            let all: f64 = side.iter().flat_map(|a| side.iter().map(move |b| (a - b).abs())).sum();
            all / 2.0 / (k * (k - 1.0) / 2.0)
        };
        let between: f64 = left.iter().flat_map(|a| right.iter().map(move |b| (a - b).abs())).sum();
        m * n / (m + n) * (2.0 * between / (m * n) - within(left) - within(right))
    }

    proptest! {
        #[test]
        fn the_best_split_is_the_best_of_all_by_the_formula(values in prop::collection::vec(-100.0..100.0_f64, 8..30)) {
            let all = (LEAST_LEVEL..=values.len() - LEAST_LEVEL)
                .map(|at| divergence_by_pairs(&values[..at], &values[at..]));
            let most = all.fold(0.0, f64::max);
            let (at, found) = best_split(&values).unwrap_or((0, 0.0));
            prop_assert!((found - most).abs() < 1e-6, "{found} {most}");
            if at > 0 {
                prop_assert!((divergence_by_pairs(&values[..at], &values[at..]) - most).abs() < 1e-6);
            }
        }

        #[test]
        fn a_shuffle_keeps_the_values(values in prop::collection::vec(-9..9_i8, 0..30), seed: u64) {
            let mut sorted: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
            let mut shuffled = sorted.clone();
            shuffle(&mut shuffled, &mut Xoshiro256PlusPlus::seed_from_u64(seed));
            sorted.sort_by(f64::total_cmp);
            shuffled.sort_by(f64::total_cmp);
            prop_assert_eq!(sorted, shuffled);
        }
    }
}
