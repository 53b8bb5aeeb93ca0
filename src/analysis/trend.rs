//! A trend that outliers cannot bend: the Theil–Sen slope with its confidence interval.
//!
//! Used for latency against time (is it getting slower?) and for live bytes against messages (does it leak?).

use thiserror::Error;

use super::interval::{Confidence, Interval};
use super::normal;
use super::spread::median_in_place;

/// The most points whose pairs are compared. Memory grows with the square: 2,048 points have 2.1 million slopes, 16 MiB, which
/// stays out of the way of a memory measurement in the same process; one point a second reaches this after 34 minutes.
pub const MAX_POINTS: usize = 2_048;

/// There is no trend to be found.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum TrendError {
    /// A slope needs two points.
    #[error("{given} points given, a trend needs at least 2")]
    TooFewPoints {
        /// How many there were.
        given: usize,
    },
    /// A coordinate is infinite or not a number.
    #[error("point {index} is ({x}, {y}), which is not finite")]
    NotFinite {
        /// Its place, from 0.
        index: usize,
        /// Its x.
        x: f64,
        /// Its y.
        y: f64,
    },
    /// All points lie above each other: any slope fits.
    #[error("all points have x = {x}, so they have no slope")]
    SameX {
        /// The x of all points.
        x: f64,
    },
    /// The slope of a pair, or the intercept, is beyond floating point.
    #[error("points are so far apart or so close together that a slope overflows")]
    OutOfRange,
}

/// A robust line through points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    /// Change of y per unit of x: the median of the slopes of all pairs of points.
    pub slope: f64,
    /// Where the true slope lies with the confidence asked for; `None` where the points are too few to say (fewer than 6 for 95 %).
    pub interval: Option<Interval>,
    /// `median(y) − slope × median(x)`: y at x = 0.
    pub intercept: f64,
    /// How many points were compared: those given, or the medians of groups of them above [`MAX_POINTS`].
    pub points: usize,
}

/// The Theil–Sen slope of `(x, y)` points, in any order, with its two-sided confidence interval.
///
/// Sources: P. K. Sen, "Estimates of the Regression Coefficient Based on Kendall's Tau", JASA 63, 1968; the interval as in
/// R. O. Gilbert, "Statistical Methods for Environmental Pollution Monitoring", 1987, chapter 16, with Kendall's variance corrected
/// for ties in x and in y. Ranks are rounded outwards, so that rounding never narrows the interval. It rests on a normal
/// approximation, good from about ten points on, and on errors that do not depend on each other: for windows that drag
/// their neighbours along it is too narrow.
///
/// Takes time and memory in the square of the points up to [`MAX_POINTS`]. Above that, runs of `ceil(n / MAX_POINTS)` points
/// neighbouring in x are each replaced by the point (median x, median y), which keeps points on a line on that line.
///
/// # Errors
/// With fewer than two points, a coordinate that is not finite, all x the same, or a slope beyond floating point.
pub fn theil_sen(points: &[(f64, f64)], confidence: Confidence) -> Result<Trend, TrendError> {
    check(points)?;
    let points = thin(points);
    let mut slopes = pairwise_slopes(&points);
    if slopes.is_empty() {
        return Err(TrendError::SameX { x: points[0].0 });
    }
    let slope = median_in_place(&mut slopes);
    let interval = interval(&mut slopes, kendall_variance(&points), confidence);
    let mut xs: Vec<f64> = points.iter().map(|point| point.0).collect();
    let mut ys: Vec<f64> = points.iter().map(|point| point.1).collect();
    let intercept = median_in_place(&mut ys) - slope * median_in_place(&mut xs);
    if !intercept.is_finite() || slopes.iter().any(|slope| !slope.is_finite()) {
        return Err(TrendError::OutOfRange);
    }
    Ok(Trend { slope, interval, intercept, points: points.len() })
}

fn check(points: &[(f64, f64)]) -> Result<(), TrendError> {
    if points.len() < 2 {
        return Err(TrendError::TooFewPoints { given: points.len() });
    }
    match points.iter().position(|(x, y)| !x.is_finite() || !y.is_finite()) {
        Some(index) => {
            let (x, y) = points[index];
            Err(TrendError::NotFinite { index, x, y })
        }
        None if points.iter().all(|point| point.0 == points[0].0) => {
            Err(TrendError::SameX { x: points[0].0 })
        }
        None => Ok(()),
    }
}

/// The points by ascending x, at most [`MAX_POINTS`] of them.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut ascending = points.to_vec();
    ascending.sort_by(|a, b| a.0.total_cmp(&b.0));
    if ascending.len() <= MAX_POINTS {
        return ascending;
    }
    ascending
        .chunks(ascending.len().div_ceil(MAX_POINTS))
        .map(|group| {
            let (mut xs, mut ys): (Vec<f64>, Vec<f64>) = group.iter().copied().unzip();
            (median_in_place(&mut xs), median_in_place(&mut ys))
        })
        .collect()
}

/// The slopes of all pairs with different x.
fn pairwise_slopes(ascending: &[(f64, f64)]) -> Vec<f64> {
    let mut slopes = Vec::with_capacity(ascending.len() * (ascending.len() - 1) / 2);
    for (place, (x, y)) in ascending.iter().enumerate() {
        let later = ascending[place + 1..].iter().filter(|other| other.0 != *x);
        slopes.extend(later.map(|(other_x, other_y)| (other_y - y) / (other_x - x)));
    }
    slopes
}

/// Gilbert's limits: the slopes ranked `(N − C) / 2` from either end, where `C = z × sqrt(variance)`.
fn interval(slopes: &mut [f64], variance: f64, confidence: Confidence) -> Option<Interval> {
    let reach = normal::quantile(1.0 - confidence.tail()) * variance.sqrt();
    let from_end = ((slopes.len() as f64 - reach) / 2.0).floor();
    if from_end < 1.0 {
        return None;
    }
    let place = from_end as usize - 1;
    let opposite = slopes.len() - 1 - place;
    let (_, &mut lower, _) = slopes.select_nth_unstable_by(place, f64::total_cmp);
    let (_, &mut upper, _) = slopes.select_nth_unstable_by(opposite, f64::total_cmp);
    Some(Interval { lower, upper })
}

/// The variance of Kendall's S where x and y are independent, corrected for ties in both.
///
/// Source: M. G. Kendall, "Rank Correlation Methods", 4th ed. 1970, chapter 4; also in Gilbert 1987, chapter 16.
fn kendall_variance(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let in_x = TieSums::of(points.iter().map(|point| point.0).collect());
    let in_y = TieSums::of(points.iter().map(|point| point.1).collect());
    let mut variance = (n * (n - 1.0) * (2.0 * n + 5.0) - in_x.weighted - in_y.weighted) / 18.0;
    variance += in_x.pairs * in_y.pairs / (2.0 * n * (n - 1.0));
    if n > 2.0 {
        variance += in_x.triples * in_y.triples / (9.0 * n * (n - 1.0) * (n - 2.0));
    }
    variance.max(0.0)
}

/// Sums over the groups of equal values, each of size t.
#[derive(Default)]
struct TieSums {
    /// Σ t(t − 1).
    pairs: f64,
    /// Σ t(t − 1)(t − 2).
    triples: f64,
    /// Σ t(t − 1)(2t + 5).
    weighted: f64,
}

impl TieSums {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let mut sums = Self::default();
        for group in values.chunk_by(|a, b| a == b) {
            let t = group.len() as f64;
            sums.pairs += t * (t - 1.0);
            sums.triples += t * (t - 1.0) * (t - 2.0);
            sums.weighted += t * (t - 1.0) * (2.0 * t + 5.0);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    /// All slopes sorted, in the order of the definition.
    fn naive_slopes(points: &[(f64, f64)]) -> Vec<f64> {
        let mut slopes = Vec::new();
        for i in 0..points.len() {
            for j in 0..points.len() {
                if points[i].0 < points[j].0 {
                    slopes.push((points[j].1 - points[i].1) / (points[j].0 - points[i].0));
                }
            }
        }
        slopes.sort_by(f64::total_cmp);
        slopes
    }

    /// The variance of S over every order of the y: what the formula claims to be.
    fn variance_by_enumeration(xs: &[f64], ys: &mut [f64]) -> f64 {
        fn visit(xs: &[f64], ys: &mut [f64], fixed: usize, sums: &mut (f64, f64)) {
            if fixed == ys.len() {
                let mut s = 0.0;
                for i in 0..xs.len() {
                    for j in 0..i {
                        s += if xs[i] == xs[j] || ys[i] == ys[j] {
                            0.0
                        } else {
                            ((xs[i] - xs[j]) * (ys[i] - ys[j])).signum()
                        };
                    }
                }
                sums.0 += 1.0;
                sums.1 += s * s;
                return;
            }
            for place in fixed..ys.len() {
                ys.swap(fixed, place);
                visit(xs, ys, fixed + 1, sums);
                ys.swap(fixed, place);
            }
        }
        let mut sums = (0.0, 0.0);
        visit(xs, ys, 0, &mut sums);
        // The mean of S is 0.
        sums.1 / sums.0
    }

    #[test]
    fn what_has_no_trend_is_named() {
        let p95 = Confidence::P95;
        assert_eq!(theil_sen(&[], p95), Err(TrendError::TooFewPoints { given: 0 }));
        assert_eq!(theil_sen(&[(0.0, 1.0)], p95), Err(TrendError::TooFewPoints { given: 1 }));
        assert_eq!(theil_sen(&[(3.0, 1.0), (3.0, 2.0)], p95), Err(TrendError::SameX { x: 3.0 }));
        let hole = [(0.0, 1.0), (1.0, f64::NAN)];
        assert!(matches!(theil_sen(&hole, p95), Err(TrendError::NotFinite { index: 1, .. })));
        assert_eq!(theil_sen(&[(0.0, -1e308), (0.5, 1e308)], p95), Err(TrendError::OutOfRange));
    }

    #[test]
    fn too_few_points_have_a_slope_but_no_interval() {
        let five: Vec<_> = (0..5).map(|i| (f64::from(i), f64::from(i * i))).collect();
        let six: Vec<_> = (0..6).map(|i| (f64::from(i), f64::from(i * i))).collect();
        let few = theil_sen(&five, Confidence::P95).unwrap();
        assert_eq!((few.slope, few.interval), (4.0, None));
        assert!(theil_sen(&six, Confidence::P95).unwrap().interval.is_some());
    }

    #[test]
    fn sens_own_example_is_reproduced() {
        // Sen 1968, section 6. The limits published there use exact tables of S, so only the slope is compared.
        let x = [1.0, 2.0, 3.0, 4.0, 10.0, 12.0, 18.0];
        let y = [9.0, 15.0, 19.0, 20.0, 45.0, 55.0, 78.0];
        let points: Vec<_> = x.into_iter().zip(y).collect();
        let trend = theil_sen(&points, Confidence::new(0.93).unwrap()).unwrap();
        assert_eq!(trend.slope, 4.0);
        assert_eq!(trend.intercept, 4.0);
    }

    #[test]
    fn a_flat_series_has_a_slope_of_exactly_0() {
        let flat: Vec<_> = (0..50).map(|i| (f64::from(i) * 0.1, 0.3)).collect();
        let trend = theil_sen(&flat, Confidence::P95).unwrap();
        assert_eq!((trend.slope, trend.intercept), (0.0, 0.3));
        assert_eq!(trend.interval, Some(Interval { lower: 0.0, upper: 0.0 }));
    }

    #[test]
    fn the_slope_survives_outliers_in_a_quarter_of_the_points() {
        // The breakdown point is 1 − 1/√2, about 29 %.
        let points: Vec<_> =
            (0..100).map(|i| (f64::from(i), if i % 4 == 3 { 1e6 } else { 2.0 * f64::from(i) })).collect();
        let trend = theil_sen(&points, Confidence::P95).unwrap();
        assert!((trend.slope - 2.0).abs() < 1e-9, "{trend:?}");
    }

    #[test]
    fn more_points_than_the_bound_are_thinned_and_keep_their_line() {
        let points: Vec<_> = (0..5_000).map(|i| (f64::from(i), 7.0 + 64.0 * f64::from(i))).collect();
        let trend = theil_sen(&points, Confidence::P95).unwrap();
        assert_eq!((trend.slope, trend.intercept), (64.0, 7.0));
        assert_eq!(trend.interval, Some(Interval { lower: 64.0, upper: 64.0 }));
        assert_eq!(trend.points, 1_667);
        let just_fits: Vec<_> = (0..MAX_POINTS).map(|i| (i as f64, 0.0)).collect();
        assert_eq!(thin(&just_fits), just_fits);
    }

    #[test]
    fn the_interval_holds_the_truth_about_as_often_as_it_says() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1968);
        let rounds = 400;
        let held = (0..rounds)
            .filter(|_| {
                let points: Vec<_> = (0..30)
                    .map(|i| (f64::from(i), 0.5 * f64::from(i) + rng.random_range(-4.0..4.0)))
                    .collect();
                let interval = theil_sen(&points, Confidence::P95).unwrap().interval.unwrap();
                interval.contains(0.5)
            })
            .count();
        // 95 % of 400 is 380 with a standard deviation of 4.4; the seed is fixed, so this can't flicker.
        assert!((363..=397).contains(&held), "{held} of {rounds}");
    }

    proptest! {
        #[test]
        fn the_slope_and_its_limits_are_those_of_the_sorted_slopes(
            points in vec((0u32..12, 0u32..12), 2..40), share in 0.5..0.999f64,
        ) {
            // Small whole numbers, so that ties abound.
            let points: Vec<_> = points.iter().map(|&(x, y)| (f64::from(x), f64::from(y))).collect();
            let slopes = naive_slopes(&points);
            prop_assume!(!slopes.is_empty());
            let count = slopes.len();
            let trend = theil_sen(&points, Confidence::new(share).unwrap()).unwrap();
            prop_assert_eq!(trend.slope, (slopes[(count - 1) / 2] + slopes[count / 2]) / 2.0);

            let reach = normal::quantile(0.5 + share / 2.0) * kendall_variance(&points).sqrt();
            // The first slope, counted from 1, that lies within the limits.
            let rank = ((count as f64 - reach) / 2.0).floor();
            let expected = (rank >= 1.0)
                .then(|| Interval { lower: slopes[rank as usize - 1], upper: slopes[count - rank as usize] });
            prop_assert_eq!(trend.interval, expected);
            if let Some(interval) = expected {
                prop_assert!(interval.contains(trend.slope));
            }
        }

        #[test]
        fn kendalls_variance_is_that_over_all_orders(points in vec((0u32..4, 0u32..4), 2..7)) {
            let (xs, mut ys): (Vec<f64>, Vec<f64>) =
                points.iter().map(|&(x, y)| (f64::from(x), f64::from(y))).unzip();
            let points: Vec<_> = xs.iter().copied().zip(ys.iter().copied()).collect();
            let exact = variance_by_enumeration(&xs, &mut ys);
            prop_assert!((kendall_variance(&points) - exact).abs() < 1e-9 * (1.0 + exact));
        }

        #[test]
        fn the_order_of_the_points_does_not_matter(points in vec((0.0..1e3f64, -1e3..1e3f64), 2..40)) {
            let mut reversed = points.clone();
            reversed.reverse();
            prop_assert_eq!(theil_sen(&points, Confidence::P95), theil_sen(&reversed, Confidence::P95));
        }
    }
}
