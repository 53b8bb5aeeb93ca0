//! Location, spread and fairness of a handful of numbers.
//!
//! Values are taken to be below 1e150 in size, as every measured quantity is, so that their squares do not overflow.

use thiserror::Error;

/// A statistic of a sample does not exist.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SampleError {
    /// There is no data, or too little for this statistic.
    #[error("{given} values given, at least {needed} needed")]
    TooFew {
        /// How many values there were.
        given: usize,
        /// How many the statistic needs.
        needed: usize,
    },
    /// A value is infinite or not a number.
    #[error("value {index} is {value}, not a finite number")]
    NotFinite {
        /// Its place, from 0.
        index: usize,
        /// The value.
        value: f64,
    },
    /// A value is negative where only amounts make sense.
    #[error("value {index} is {value}, below 0")]
    Negative {
        /// Its place, from 0.
        index: usize,
        /// The value.
        value: f64,
    },
    /// A ratio was asked for, and what should divide is not above 0.
    #[error("the {what} is {value}, which can't divide")]
    ZeroDivisor {
        /// What should have divided.
        what: &'static str,
        /// Its value.
        value: f64,
    },
}

/// The arithmetic mean. Exact for values that are all the same.
///
/// # Errors
/// Without values, or with one that is not finite.
pub fn mean(values: &[f64]) -> Result<f64, SampleError> {
    check_finite(values, 1)?;
    Ok(mean_of(values))
}

/// The median: the middle value, or midway between the two middle ones.
///
/// # Errors
/// Without values, or with one that is not finite.
pub fn median(values: &[f64]) -> Result<f64, SampleError> {
    check_finite(values, 1)?;
    Ok(median_in_place(&mut values.to_vec()))
}

/// The sample standard deviation: the sum of squared deviations is divided by `n - 1` (Bessel's correction).
///
/// # Errors
/// With fewer than two values, or with one that is not finite.
pub fn standard_deviation(values: &[f64]) -> Result<f64, SampleError> {
    check_finite(values, 2)?;
    let centre = mean_of(values);
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    Ok((squares / (values.len() - 1) as f64).sqrt())
}

/// The coefficient of variation with a floor: `standard deviation ÷ max(mean, mean_floor)`, without a unit.
///
/// The floor keeps a spread that nobody would notice (0.1 ms around 0.2 ms) from being called unstable; with a floor of 0
/// this is Pearson's coefficient of variation (1896).
///
/// # Errors
/// With fewer than two values, with one that is not finite, or where neither the mean nor the floor is above 0.
pub fn coefficient_of_variation(values: &[f64], mean_floor: f64) -> Result<f64, SampleError> {
    let deviation = standard_deviation(values)?;
    let divisor = mean_of(values).max(mean_floor);
    if divisor > 0.0 && divisor.is_finite() {
        Ok(deviation / divisor)
    } else {
        Err(SampleError::ZeroDivisor { what: "larger of mean and floor", value: divisor })
    }
}

/// The value above which a measurement is an outlier: `max(factor × median, floor)`, in the unit of `median` and `floor`.
#[must_use]
pub fn outlier_threshold(median: f64, factor: f64, floor: f64) -> f64 {
    (factor * median).max(floor)
}

/// The share of `outliers` among `total` counted values, between 0 and 1; `None` where nothing was counted, or where
/// there are more outliers than values, which no count can mean.
#[must_use]
pub fn outlier_share(outliers: u64, total: u64) -> Option<f64> {
    (total > 0 && outliers <= total).then(|| outliers as f64 / total as f64)
}

/// Jain's fairness index, `(Σx)² ÷ (n Σx²)`: 1 where all get the same, `1/n` where one gets everything.
///
/// Source: R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness and Discrimination for Resource Allocation in Shared
/// Computer Systems", DEC-TR-301, 1984.
///
/// # Errors
/// Without values, with one that is negative or not finite, or where all are 0 (then nothing was shared out).
pub fn jain_index(values: &[f64]) -> Result<f64, SampleError> {
    check_amounts(values)?;
    let highest = values.iter().copied().fold(0.0, f64::max);
    if highest == 0.0 {
        return Err(SampleError::ZeroDivisor { what: "highest value", value: highest });
    }
    // Relative to the highest, no square can overflow or vanish, and equal shares give exactly 1.
    let (sum, squares) = values
        .iter()
        .map(|value| value / highest)
        .fold((0.0, 0.0), |(sum, squares), share| (sum + share, squares + share * share));
    Ok((sum * sum / (values.len() as f64 * squares)).min(1.0))
}

/// The lowest value as a share of the median: how far the worst-served falls behind the usual one, between 0 and 1.
///
/// # Errors
/// Without values, with one that is negative or not finite, or where the median is 0.
pub fn lowest_over_median(values: &[f64]) -> Result<f64, SampleError> {
    let median = median(values)?;
    check_amounts(values)?;
    if median == 0.0 {
        return Err(SampleError::ZeroDivisor { what: "median", value: median });
    }
    Ok(values.iter().copied().fold(f64::INFINITY, f64::min) / median)
}

pub(super) fn check_finite(values: &[f64], needed: usize) -> Result<(), SampleError> {
    if values.len() < needed {
        return Err(SampleError::TooFew { given: values.len(), needed });
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(SampleError::NotFinite { index, value: values[index] }),
        None => Ok(()),
    }
}

/// The mean of at least one finite value, taken about the first so that equal values give exactly themselves.
pub(super) fn mean_of(values: &[f64]) -> f64 {
    let Some(&first) = values.first() else { return f64::NAN };
    first + values.iter().map(|value| value - first).sum::<f64>() / values.len() as f64
}

/// The median of at least one finite value; puts the values in another order.
pub(super) fn median_in_place(values: &mut [f64]) -> f64 {
    let count = values.len();
    if count == 0 {
        return f64::NAN;
    }
    let (below, &mut upper, _) = values.select_nth_unstable_by(count / 2, f64::total_cmp);
    if count % 2 == 1 {
        return upper;
    }
    f64::midpoint(below.iter().copied().fold(f64::NEG_INFINITY, f64::max), upper)
}

fn check_amounts(values: &[f64]) -> Result<(), SampleError> {
    check_finite(values, 1)?;
    match values.iter().position(|&value| value < 0.0) {
        Some(index) => Err(SampleError::Negative { index, value: values[index] }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs()))
    }

    #[test]
    fn no_data_is_an_error_and_never_0() {
        let none = SampleError::TooFew { given: 0, needed: 1 };
        assert_eq!(mean(&[]), Err(none.clone()));
        assert_eq!(median(&[]), Err(none.clone()));
        assert_eq!(jain_index(&[]), Err(none.clone()));
        assert_eq!(lowest_over_median(&[]), Err(none));
        assert_eq!(standard_deviation(&[1.0]), Err(SampleError::TooFew { given: 1, needed: 2 }));
        assert_eq!(coefficient_of_variation(&[1.0], 5.0), Err(SampleError::TooFew { given: 1, needed: 2 }));
        assert_eq!(outlier_share(0, 0), None);
    }

    #[test]
    fn nonsense_is_named_with_its_place() {
        assert_eq!(
            mean(&[1.0, f64::INFINITY]),
            Err(SampleError::NotFinite { index: 1, value: f64::INFINITY })
        );
        assert!(matches!(median(&[f64::NAN]), Err(SampleError::NotFinite { index: 0, .. })));
        assert_eq!(jain_index(&[1.0, -2.0]), Err(SampleError::Negative { index: 1, value: -2.0 }));
        assert_eq!(lowest_over_median(&[-2.0, 1.0]), Err(SampleError::Negative { index: 0, value: -2.0 }));
        assert_eq!(outlier_share(3, 2), None);
    }

    #[test]
    fn nothing_is_divided_by_0() {
        assert!(matches!(jain_index(&[0.0, 0.0]), Err(SampleError::ZeroDivisor { .. })));
        assert!(matches!(lowest_over_median(&[0.0, 0.0, 5.0]), Err(SampleError::ZeroDivisor { .. })));
        assert!(matches!(coefficient_of_variation(&[0.0, 0.0], 0.0), Err(SampleError::ZeroDivisor { .. })));
        assert!(matches!(coefficient_of_variation(&[-3.0, 1.0], 0.0), Err(SampleError::ZeroDivisor { .. })));
    }

    #[test]
    fn the_floor_replaces_a_small_mean_only() {
        // Mean 2, deviation √2: against a floor of 5 the spread is small, against none it is not.
        assert!(close(coefficient_of_variation(&[1.0, 3.0], 5.0).unwrap(), 2f64.sqrt() / 5.0));
        assert!(close(coefficient_of_variation(&[1.0, 3.0], 0.0).unwrap(), 2f64.sqrt() / 2.0));
    }

    #[test]
    fn an_outlier_is_beyond_both_the_factor_and_the_floor() {
        assert_eq!(outlier_threshold(0.5, 10.0, 10.0), 10.0);
        assert_eq!(outlier_threshold(3.0, 10.0, 10.0), 30.0);
        assert_eq!(outlier_share(2, 200), Some(0.01));
        assert_eq!(outlier_share(0, 200), Some(0.0));
    }

    #[test]
    fn one_starved_connection_in_fifty_shows_in_both_measures() {
        let mut served = vec![100.0; 50];
        assert_eq!(jain_index(&served), Ok(1.0));
        served[7] = 20.0;
        assert!(jain_index(&served).unwrap() < 0.99);
        assert_eq!(lowest_over_median(&served), Ok(0.2));
    }

    proptest! {
        #[test]
        fn equal_values_have_no_spread_at_all(value in -1e12..1e12f64, count in 2usize..50) {
            let values = vec![value; count];
            prop_assert_eq!(mean(&values), Ok(value));
            prop_assert_eq!(standard_deviation(&values), Ok(0.0));
        }

        #[test]
        fn mean_and_deviation_follow_their_definitions(values in vec(-1e6..1e6f64, 2..100)) {
            let n = values.len() as f64;
            let by_sum = values.iter().sum::<f64>() / n;
            prop_assert!(close(mean(&values).unwrap(), by_sum));
            // The pairwise form needs no mean: Σ_{i<j} (x_i − x_j)² = n (n − 1) s².
            let pairs: f64 = (0..values.len())
                .flat_map(|i| (0..i).map(move |j| (i, j)))
                .map(|(i, j)| (values[i] - values[j]).powi(2))
                .sum();
            prop_assert!(close(standard_deviation(&values).unwrap(), (pairs / (n * (n - 1.0))).sqrt()));
        }

        #[test]
        fn the_median_is_the_middle_of_the_sorted_values(values in vec(-1e6..1e6f64, 1..100)) {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let n = sorted.len();
            let middle = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
            prop_assert!(close(median(&values).unwrap(), middle));
        }

        #[test]
        fn jain_follows_its_definition_and_its_bounds(values in vec(0.001..1e6f64, 1..100)) {
            let n = values.len() as f64;
            let sum: f64 = values.iter().sum();
            let squares: f64 = values.iter().map(|x| x * x).sum();
            let index = jain_index(&values).unwrap();
            prop_assert!(close(index, sum * sum / (n * squares)));
            prop_assert!(index <= 1.0 && index >= 1.0 / n - 1e-12);
        }

        #[test]
        fn jain_of_k_served_alike_out_of_n_is_k_over_n(served in 1usize..40, starved in 0usize..40) {
            // The paper's own example, which fixes what the index means.
            let mut values = vec![7.0; served];
            values.resize(served + starved, 0.0);
            prop_assert!(close(jain_index(&values).unwrap(), served as f64 / (served + starved) as f64));
        }

        #[test]
        fn the_lowest_share_is_at_most_1_and_free_of_the_unit(values in vec(0.001..1e6f64, 1..50), unit in 0.01..100.0f64) {
            let share = lowest_over_median(&values).unwrap();
            let scaled: Vec<f64> = values.iter().map(|x| x * unit).collect();
            prop_assert!(share <= 1.0);
            prop_assert!(close(share, lowest_over_median(&scaled).unwrap()));
        }
    }
}
