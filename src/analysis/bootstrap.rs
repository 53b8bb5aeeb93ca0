//! Intervals for figures that come from a few repeats, without a guess at their distribution.

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use thiserror::Error;

use super::interval::{Confidence, Interval};
use super::normal;
use super::paired;
use super::spread::{SampleError, check_finite, mean_of, median_in_place};

/// How the interval is read off the resampled figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The percentiles of the resampled figures (B. Efron, 1981).
    Percentile,
    /// Bias-corrected and accelerated (B. Efron, "Better Bootstrap Confidence Intervals", JASA 82, 1987): as above, with
    /// the percentiles moved to make up for bias and skewness.
    Bca,
}

/// How to bootstrap. Same settings and values, same interval, on every machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// How often the repeats are drawn anew.
    pub resamples: usize,
    /// The two-sided confidence of the interval.
    pub confidence: Confidence,
    /// Seeds the draws; to be reported with the interval.
    pub seed: u64,
    /// How the interval is read off.
    pub method: Method,
}

impl Default for Bootstrap {
    /// 10,000 resamples, at which the ends of a 95 % interval no longer move visibly (Davison & Hinkley 1997 advise 1,000 and
    /// more; BCa needs more than the percentile method), BCa, 95 %, seed 0.
    fn default() -> Self {
        Self { resamples: 10_000, confidence: Confidence::P95, seed: 0, method: Method::Bca }
    }
}

/// A figure and the interval it comes with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The figure of the repeats themselves.
    pub value: f64,
    /// Where the true figure lies, with the confidence asked for.
    pub interval: Interval,
}

/// An interval cannot be had.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum BootstrapError {
    /// A tail of the interval would hold no resample.
    #[error("{given} resamples are too few for this confidence, at least {needed} needed")]
    TooFewResamples {
        /// How many were asked for.
        given: usize,
        /// How many the confidence needs.
        needed: usize,
    },
    /// The repeats are too few or not finite.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// A ratio needs values above 0.
    #[error("value {index} is {value}; a ratio needs values above 0")]
    NoDivisor {
        /// Its place, from 0.
        index: usize,
        /// Its value.
        value: f64,
    },
}

/// The figure of one sample, of values or of pairs; may put them in another order.
type Location<T> = fn(&mut [T]) -> f64;

impl Bootstrap {
    /// The mean of `values` and its interval.
    ///
    /// Repeats should be independent runs. With fewer than about ten of them, every bootstrap interval is somewhat too narrow.
    ///
    /// # Errors
    /// With fewer than two values, one that is not finite, or too few resamples.
    pub fn mean(&self, values: &[f64]) -> Result<Estimate, BootstrapError> {
        self.of_values(&[values], |values| mean_of(values))
    }

    /// The median of `values` and its interval.
    ///
    /// # Errors
    /// As for [`Bootstrap::mean`].
    pub fn median(&self, values: &[f64]) -> Result<Estimate, BootstrapError> {
        self.of_values(&[values], median_in_place)
    }

    /// By how much the seconds lie above the firsts ([`paired::shift`]), and its interval: pairs are drawn
    /// whole.
    ///
    /// # Errors
    /// As for [`Bootstrap::mean`].
    pub fn shift(&self, pairs: &[(f64, f64)]) -> Result<Estimate, BootstrapError> {
        if pairs.len() < 2 {
            return Err(SampleError::TooFew { given: pairs.len(), needed: 2 }.into());
        }
        if let Some(index) = pairs.iter().position(|(a, b)| !a.is_finite() || !b.is_finite()) {
            return Err(SampleError::NotFinite { index, value: pairs[index].0 + pairs[index].1 }.into());
        }
        self.estimate(&[pairs], |pairs| paired::shift(pairs))
    }

    /// The mean of `numerators` over the mean of `denominators`, two independent samples: after against before. Without a unit.
    ///
    /// # Errors
    /// As for [`Bootstrap::mean`], and where a denominator is not above 0.
    pub fn ratio_of_means(
        &self,
        numerators: &[f64],
        denominators: &[f64],
    ) -> Result<Estimate, BootstrapError> {
        check_divisors(denominators)?;
        self.of_values(&[numerators, denominators], |values| mean_of(values))
    }

    /// The median of `numerators` over the median of `denominators`, two independent samples. Without a unit.
    ///
    /// # Errors
    /// As for [`Bootstrap::ratio_of_means`].
    pub fn ratio_of_medians(
        &self,
        numerators: &[f64],
        denominators: &[f64],
    ) -> Result<Estimate, BootstrapError> {
        check_divisors(denominators)?;
        self.of_values(&[numerators, denominators], median_in_place)
    }

    fn of_values(&self, samples: &[&[f64]], location: Location<f64>) -> Result<Estimate, BootstrapError> {
        samples.iter().try_for_each(|sample| check_finite(sample, 2))?;
        self.estimate(samples, location)
    }

    fn estimate<T: Copy>(&self, samples: &[&[T]], location: Location<T>) -> Result<Estimate, BootstrapError> {
        // At least one resample must be expected beyond either end.
        let needed = (1.0 / self.confidence.tail()).ceil() as usize;
        if self.resamples < needed {
            return Err(BootstrapError::TooFewResamples { given: self.resamples, needed });
        }
        let mut copies: Vec<Vec<T>> = samples.iter().map(|sample| sample.to_vec()).collect();
        let value = figure(&mut copies, location);
        let resampled = self.resampled(samples, &mut copies, location);
        let tail = self.confidence.tail();
        let (lower, upper) = match self.method {
            Method::Percentile => (tail, 1.0 - tail),
            Method::Bca => {
                let bias = bias(&resampled, value);
                let acceleration = acceleration(samples, location);
                (adjusted(tail, bias, acceleration), adjusted(1.0 - tail, bias, acceleration))
            }
        };
        // The ordered value (B + 1) × share (Davison & Hinkley 1997, section 5.3), rounded outwards.
        let at = |rank: f64| resampled[(rank as usize).clamp(1, resampled.len()) - 1];
        let ranks = (resampled.len() + 1) as f64;
        let interval = Interval { lower: at((ranks * lower).floor()), upper: at((ranks * upper).ceil()) };
        Ok(Estimate { value, interval })
    }

    /// The figures of all resamples, ascending. Overwrites `drawn`.
    fn resampled<T: Copy>(&self, samples: &[&[T]], drawn: &mut [Vec<T>], location: Location<T>) -> Vec<f64> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.seed);
        let mut figures: Vec<f64> = (0..self.resamples)
            .map(|_| {
                for (sample, drawn) in samples.iter().zip(drawn.iter_mut()) {
                    drawn.iter_mut().for_each(|value| *value = sample[rng.random_range(0..sample.len())]);
                }
                figure(drawn, location)
            })
            .collect();
        figures.sort_by(f64::total_cmp);
        figures
    }
}

/// The location of one sample, or the ratio of the locations of two.
fn figure<T>(samples: &mut [Vec<T>], location: Location<T>) -> f64 {
    samples
        .iter_mut()
        .map(|sample| location(sample))
        .reduce(|ratio, divisor| ratio / divisor)
        .unwrap_or(f64::NAN)
}

/// BCa's z₀: how far, in standard deviations, the median of the resampled figures lies from the figure itself. Those equal to it
/// count half, so that figures with few different values (medians) get no bias out of nothing.
fn bias(ascending: &[f64], value: f64) -> f64 {
    let below = ascending.partition_point(|&figure| figure < value) as f64;
    let up_to = ascending.partition_point(|&figure| figure <= value) as f64;
    // Half a resample is kept on either side, for z₀ must be finite.
    let count = ascending.len() as f64;
    normal::quantile(f64::midpoint(below, up_to).clamp(0.5, count - 0.5) / count)
}

/// BCa's acceleration from the jackknife; 0 where leaving a value out changes nothing.
///
/// Source: A. C. Davison, D. V. Hinkley, "Bootstrap Methods and their Application", 1997, section 5.3.2, over several samples k
/// of sizes n: `Σ_k n⁻³ Σ l³ ÷ 6 (Σ_k n⁻² Σ l²)^(3/2)`, where l is the influence of each value by the jackknife.
fn acceleration<T: Copy>(samples: &[&[T]], location: Location<T>) -> f64 {
    let (mut cubes, mut squares) = (0.0, 0.0);
    for (place, sample) in samples.iter().enumerate() {
        let left_out: Vec<f64> = (0..sample.len())
            .map(|index| {
                let mut copies: Vec<Vec<T>> = samples.iter().map(|sample| sample.to_vec()).collect();
                copies[place].swap_remove(index);
                figure(&mut copies, location)
            })
            .collect();
        let centre = mean_of(&left_out);
        let count = sample.len() as f64;
        for figure in left_out {
            let influence = (count - 1.0) * (centre - figure) / count;
            cubes += influence.powi(3);
            squares += influence.powi(2);
        }
    }
    if squares > 0.0 { cubes / (6.0 * squares.powf(1.5)) } else { 0.0 }
}

/// The share at which BCa reads the end that the plain method reads at `share`.
fn adjusted(share: f64, bias: f64, acceleration: f64) -> f64 {
    let shifted = bias + normal::quantile(share);
    let stretch = 1.0 - acceleration * shifted;
    // At and beyond its pole the formula would turn round and name the other end.
    if stretch <= 0.0 {
        return if shifted > 0.0 { 1.0 } else { 0.0 };
    }
    normal::cdf(bias + shifted / stretch)
}

fn check_divisors(denominators: &[f64]) -> Result<(), BootstrapError> {
    match denominators.iter().position(|&value| value <= 0.0) {
        Some(index) => Err(BootstrapError::NoDivisor { index, value: denominators[index] }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn with(method: Method) -> Bootstrap {
        Bootstrap { method, resamples: 2_000, ..Bootstrap::default() }
    }

    /// The figures of every possible resample, ascending: what the draws are a sample of.
    fn all_resamples(values: &[f64], location: Location<f64>) -> Vec<f64> {
        let n = values.len();
        let mut figures: Vec<f64> = (0..n.pow(n as u32))
            .map(|code| {
                let mut drawn: Vec<f64> =
                    (0..n).map(|place| values[code / n.pow(place as u32) % n]).collect();
                location(&mut drawn)
            })
            .collect();
        figures.sort_by(f64::total_cmp);
        figures
    }

    #[test]
    fn what_has_no_interval_is_named() {
        let bootstrap = Bootstrap::default();
        let few = |given| Err(BootstrapError::Sample(SampleError::TooFew { given, needed: 2 }));
        assert_eq!(bootstrap.mean(&[]), few(0));
        assert_eq!(bootstrap.median(&[1.0]), few(1));
        assert_eq!(bootstrap.ratio_of_means(&[1.0, 2.0], &[1.0]), few(1));
        assert!(matches!(
            bootstrap.mean(&[1.0, f64::NAN]),
            Err(BootstrapError::Sample(SampleError::NotFinite { index: 1, .. }))
        ));
        assert_eq!(
            bootstrap.ratio_of_medians(&[1.0, 2.0], &[1.0, 0.0]),
            Err(BootstrapError::NoDivisor { index: 1, value: 0.0 })
        );
        assert_eq!(bootstrap.shift(&[(1.0, 2.0)]), few(1));
        assert!(bootstrap.shift(&[(1.0, 2.0), (1.0, 3.0)]).is_ok());
        assert_eq!(
            bootstrap.shift(&[(1.0, 2.0), (0.0, f64::INFINITY)]),
            Err(BootstrapError::Sample(SampleError::NotFinite { index: 1, value: f64::INFINITY }))
        );
        let few = Bootstrap { resamples: 10, ..bootstrap };
        assert!(matches!(few.mean(&[1.0, 2.0]), Err(BootstrapError::TooFewResamples { given: 10, .. })));
    }

    #[test]
    fn repeats_that_agree_leave_no_doubt() {
        for method in [Method::Percentile, Method::Bca] {
            let sure = Estimate { value: 0.1, interval: Interval { lower: 0.1, upper: 0.1 } };
            assert_eq!(with(method).mean(&[0.1; 5]), Ok(sure));
            assert_eq!(with(method).median(&[0.1; 5]), Ok(sure));
            let same = Estimate { value: 1.0, interval: Interval { lower: 1.0, upper: 1.0 } };
            assert_eq!(with(method).ratio_of_means(&[0.1; 5], &[0.1; 4]), Ok(same));
        }
    }

    #[test]
    fn the_percentile_interval_is_that_of_all_possible_resamples() {
        let values = [3.0, 4.0, 8.0, 15.0, 16.0];
        let locations: [Location<f64>; 2] = [|values| mean_of(values), median_in_place];
        for location in locations {
            let all = all_resamples(&values, location);
            let share = |below: usize| below as f64 / all.len() as f64;
            let Interval { lower, upper } =
                Bootstrap { method: Method::Percentile, resamples: 20_000, ..Bootstrap::default() }
                    .estimate(&[&values], location)
                    .unwrap()
                    .interval;
            // The exact share below each end brackets the tail, give or take the luck of 20,000 draws (sd 0.0011).
            for (end, tail) in [(lower, 0.025), (upper, 0.975)] {
                let below = share(all.partition_point(|&figure| figure < end - 1e-9));
                let up_to = share(all.partition_point(|&figure| figure <= end + 1e-9));
                assert!(below <= tail + 0.006 && tail - 0.006 <= up_to, "{end}: {below} to {up_to}");
            }
        }
    }

    #[test]
    fn the_upper_end_is_the_lower_end_of_what_is_turned_round() {
        // Skewed, so that BCa has something to shift; the draws differ, hence a tolerance of some of their steps.
        let values: Vec<f64> = (0..12).map(|n| 2.0_f64.powi(n)).collect();
        let turned: Vec<f64> = values.iter().map(|value| -value).collect();
        for method in [Method::Percentile, Method::Bca] {
            let bootstrap = Bootstrap { resamples: 20_000, ..with(method) };
            let plain = bootstrap.mean(&values).unwrap();
            let other = bootstrap.mean(&turned).unwrap();
            for (end, turned) in
                [(plain.interval.upper, other.interval.lower), (plain.interval.lower, other.interval.upper)]
            {
                assert!((end + turned).abs() < 0.05 * plain.value, "{method:?}: {end} and {turned}");
            }
            // Far from the ends of what can be drawn.
            assert!(plain.interval.lower > 2.0 && plain.interval.upper < 1_500.0, "{method:?}: {plain:?}");
        }
    }

    #[test]
    fn the_shift_of_bca_follows_its_formula() {
        // Without bias and skewness, nothing moves.
        assert!((adjusted(0.025, 0.0, 0.0) - 0.025).abs() < 1e-12);
        // Worked by hand: z₀ = 0.1, a = 0.05, z = −1.959964: Φ(0.1 + −1.859964 / 1.0929982) = Φ(−1.6017098).
        assert!((adjusted(0.025, 0.1, 0.05) - normal::cdf(-1.601_709_8)).abs() < 1e-6);
        // Beyond the pole the end is the farthest there is, never the opposite one.
        assert_eq!(adjusted(0.975, 1.0, 0.9), 1.0);
        assert_eq!(adjusted(0.025, -1.0, -0.9), 0.0);
    }

    #[test]
    fn the_interval_holds_the_truth_about_as_often_as_it_says() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1987);
        for method in [Method::Percentile, Method::Bca] {
            let bootstrap = Bootstrap { resamples: 400, ..with(method) };
            let held = (0..300)
                .filter(|_| {
                    let values: Vec<f64> = (0..25).map(|_| rng.random_range(0.0..2.0)).collect();
                    bootstrap.mean(&values).unwrap().interval.contains(1.0)
                })
                .count();
            // 95 % of 300 is 285 with a standard deviation of 3.8, a little less for 25 values; the seed is fixed.
            assert!((267..=297).contains(&held), "{method:?}: {held} of 300");
        }
    }

    proptest! {
        // Each case draws thousands of resamples.
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn the_acceleration_of_the_mean_is_its_skewness(values in vec(-1e3..1e3f64, 3..30)) {
            // For the mean: a = Σ d³ / (6 (Σ d²)^1.5) over the deviations d (Efron 1987).
            let mean = mean_of(&values);
            let power = |p: i32| values.iter().map(|x| (x - mean).powi(p)).sum::<f64>();
            let exact = power(3) / (6.0 * power(2).powf(1.5));
            prop_assert!((acceleration(&[&values], |v| mean_of(v)) - exact).abs() < 1e-9);
        }

        #[test]
        fn bias_is_the_normal_quantile_of_the_share_below(below in 1usize..50, equal in 0usize..50, above in 1usize..50) {
            let mut figures = vec![0.0; below];
            figures.extend(vec![1.0; equal]);
            figures.extend(vec![2.0; above]);
            let share = (below as f64 + equal as f64 / 2.0) / (below + equal + above) as f64;
            prop_assert!((normal::cdf(bias(&figures, 1.0)) - share).abs() < 1e-12);
        }

        #[test]
        fn the_interval_lies_within_the_values_and_repeats_itself(
            values in vec(0.0..1e3f64, 2..20), seed: u64, bca: bool,
        ) {
            let method = if bca { Method::Bca } else { Method::Percentile };
            let bootstrap = Bootstrap { seed, resamples: 500, ..with(method) };
            let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), &v| (l.min(v), h.max(v)));
            for estimate in [bootstrap.mean(&values).unwrap(), bootstrap.median(&values).unwrap()] {
                let Interval { lower, upper } = estimate.interval;
                prop_assert!(low - 1e-9 <= lower && lower <= upper && upper <= high + 1e-9);
            }
            prop_assert_eq!(bootstrap.mean(&values), bootstrap.mean(&values));
        }

        #[test]
        fn the_interval_follows_a_change_of_unit(values in vec(1.0..1e3f64, 3..15), bca: bool) {
            let method = if bca { Method::Bca } else { Method::Percentile };
            let bootstrap = Bootstrap { resamples: 500, ..with(method) };
            // A power of two, so that scaling is exact and no tie breaks.
            let scaled: Vec<f64> = values.iter().map(|x| x * 1024.0).collect();
            let (plain, large) = (bootstrap.median(&values).unwrap(), bootstrap.median(&scaled).unwrap());
            prop_assert_eq!(plain.interval.lower * 1024.0, large.interval.lower);
            prop_assert_eq!(plain.interval.upper * 1024.0, large.interval.upper);
            let ratio = bootstrap.ratio_of_medians(&scaled, &values).unwrap();
            prop_assert_eq!(ratio.value, 1024.0);
            prop_assert!(ratio.interval.contains(1024.0));
        }

        #[test]
        fn the_acceleration_of_a_ratio_over_a_fixed_divisor_is_that_of_the_mean(values in vec(1.0..1e3f64, 3..15)) {
            let alone = acceleration(&[&values], |v| mean_of(v));
            let ratio = acceleration(&[&values, &[4.0, 4.0, 4.0]], |v| mean_of(v));
            prop_assert!((alone - ratio).abs() < 1e-9);
        }
    }
}
