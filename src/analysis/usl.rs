//! The Universal Scalability Law: what contention and coherency cost as a service is given more to do at once.

use thiserror::Error;

/// A scalability curve cannot be fitted.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum UslError {
    /// Three unknowns need three different loads.
    #[error("{distinct} different loads given, the law needs at least 3")]
    TooFewLoads {
        /// How many different loads there were.
        distinct: usize,
    },
    /// A load is below 1, a throughput not above 0, or one of them not finite.
    #[error(
        "point {index} is (load {load}, throughput {throughput}); a load is at least 1, a throughput above 0"
    )]
    NoPoint {
        /// Its place, from 0.
        index: usize,
        /// The load.
        load: f64,
        /// The throughput.
        throughput: f64,
    },
    /// Throughput falls so fast that the throughput of one alone would be infinite.
    #[error("throughput falls too fast from the lowest load on; measure nearer to a load of 1")]
    NoBase,
}

/// X(N) = λN / (1 + σ(N − 1) + κN(N − 1)).
///
/// Source: N. J. Gunther, "Guerrilla Capacity Planning", Springer 2007, chapters 4 to 6; there relative to the measured X(1), here
/// with λ fitted like the others, so that no single point decides the scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usl {
    /// λ: the throughput of a load of 1, in the unit of the throughputs given; above 0.
    pub lambda: f64,
    /// σ: contention, the share of the work that is serial; at least 0, without a unit.
    pub sigma: f64,
    /// κ: coherency, the cost of each pair that must agree; at least 0, without a unit.
    pub kappa: f64,
    /// Root mean square of `measured ÷ fitted − 1`: how far the law is from what was measured.
    pub rms_relative_error: f64,
    /// How many points the curve rests on.
    pub points: usize,
}

impl Usl {
    /// The throughput at `load`, in the unit of λ.
    #[must_use]
    pub fn throughput(&self, load: f64) -> f64 {
        self.lambda * load / (1.0 + self.sigma * (load - 1.0) + self.kappa * load * (load - 1.0))
    }

    /// The load of the highest throughput, `sqrt((1 − σ) / κ)`, at least 1. `None` where more load never lowers throughput
    /// (κ = 0 and σ ≤ 1).
    #[must_use]
    pub fn peak_load(&self) -> Option<f64> {
        if self.sigma >= 1.0 && (self.kappa > 0.0 || self.sigma > 1.0) {
            return Some(1.0);
        }
        (self.kappa > 0.0).then(|| ((1.0 - self.sigma) / self.kappa).sqrt().max(1.0))
    }
}

/// Fits the Universal Scalability Law to `(load, throughput)` points, with σ and κ held at or above 0.
///
/// Least squares over `measured ÷ fitted − 1`, for a rate's noise is in proportion to the rate. That quantity is linear in 1/λ,
/// σ/λ and κ/λ, so the constrained optimum is unique and found directly: of the unconstrained optima over each set of
/// non-zero parameters, it is the best that is nowhere negative. No starting values, no iteration, no local optimum.
///
/// # Errors
/// With fewer than three different loads, a point that is none, or points that leave λ unbounded.
pub fn universal_scalability(points: &[(f64, f64)]) -> Result<Usl, UslError> {
    check(points)?;
    // In units of the best throughput per load, all coefficients are near 1 whatever the unit of the throughput.
    let unit = points.iter().map(|(load, throughput)| throughput / load).fold(0.0, f64::max);
    let rows: Vec<[f64; 3]> = points
        .iter()
        .map(|&(load, throughput)| {
            let weight = throughput / load / unit;
            [weight, weight * (load - 1.0), weight * load * (load - 1.0)]
        })
        .collect();
    let (parameters, squares) = non_negative_optimum(&rows).ok_or(UslError::NoBase)?;
    let [base, contention, coherency] = parameters;
    if base <= 0.0 {
        return Err(UslError::NoBase);
    }
    Ok(Usl {
        lambda: unit / base,
        sigma: contention / base,
        kappa: coherency / base,
        rms_relative_error: (squares / points.len() as f64).sqrt(),
        points: points.len(),
    })
}

/// The parameters at or above 0 that minimise the sum of `(row · parameters − 1)²`, and that sum.
fn non_negative_optimum(rows: &[[f64; 3]]) -> Option<([f64; 3], f64)> {
    /// Fewer parameters first, so that one whose only gain is rounding stays exactly 0.
    const SETS: [&[usize]; 7] = [&[0], &[0, 1], &[0, 2], &[0, 1, 2], &[1], &[2], &[1, 2]];
    /// Squared relative error per point that is rounding, not fit.
    const ROUNDING: f64 = 1e-22;
    let mut best: Option<([f64; 3], f64)> = None;
    for set in SETS {
        let Some(parameters) = least_squares_over(rows, set) else { continue };
        if parameters.iter().any(|&parameter| parameter < 0.0) {
            continue;
        }
        let squares = sum_of_squares(rows, &parameters);
        if best.is_none_or(|(_, least)| squares < least - ROUNDING * rows.len() as f64) {
            best = Some((parameters, squares));
        }
    }
    best
}

fn sum_of_squares(rows: &[[f64; 3]], parameters: &[f64; 3]) -> f64 {
    rows.iter().map(|row| (dot(row, parameters) - 1.0).powi(2)).sum()
}

/// Unconstrained least squares over the columns in `set`, the other parameters 0; `None` where the columns depend on each other.
///
/// Modified Gram–Schmidt with the right-hand side carried along, as stable as Householder (Å. Björck, BIT 7, 1967).
fn least_squares_over(rows: &[[f64; 3]], set: &[usize]) -> Option<[f64; 3]> {
    /// What is left of a column once the others are taken out; less than this is rounding.
    const DEPENDENT: f64 = 1e-12;
    let mut columns: Vec<Vec<f64>> =
        set.iter().map(|&column| rows.iter().map(|row| row[column]).collect()).collect();
    let lengths: Vec<f64> = columns.iter().map(|column| dot(column, column).sqrt()).collect();
    let mut rest = vec![1.0; rows.len()];
    let mut triangle = [[0.0; 3]; 3];
    let mut target = [0.0; 3];
    for place in 0..set.len() {
        let (done, later) = columns.split_at_mut(place + 1);
        let direction = &mut done[place];
        let length = dot(direction, direction).sqrt();
        if length <= DEPENDENT * lengths[place] {
            return None;
        }
        direction.iter_mut().for_each(|entry| *entry /= length);
        triangle[place][place] = length;
        for (offset, column) in later.iter_mut().enumerate() {
            triangle[place][place + 1 + offset] = take_out(direction, column);
        }
        target[place] = take_out(direction, &mut rest);
    }
    let mut parameters = [0.0; 3];
    for place in (0..set.len()).rev() {
        let known: f64 = (place + 1..set.len()).map(|k| triangle[place][k] * parameters[set[k]]).sum();
        parameters[set[place]] = (target[place] - known) / triangle[place][place];
    }
    Some(parameters)
}

/// Removes the part of `column` along the unit vector `direction` and returns how long it was.
fn take_out(direction: &[f64], column: &mut [f64]) -> f64 {
    let along = dot(direction, column);
    column.iter_mut().zip(direction).for_each(|(entry, unit)| *entry -= along * unit);
    along
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn check(points: &[(f64, f64)]) -> Result<(), UslError> {
    let sound = |&(load, throughput): &(f64, f64)| {
        load.is_finite() && load >= 1.0 && throughput.is_finite() && throughput > 0.0
    };
    if let Some(index) = points.iter().position(|point| !sound(point)) {
        let (load, throughput) = points[index];
        return Err(UslError::NoPoint { index, load, throughput });
    }
    let mut loads: Vec<f64> = points.iter().map(|point| point.0).collect();
    loads.sort_by(f64::total_cmp);
    loads.dedup();
    if loads.len() < 3 {
        return Err(UslError::TooFewLoads { distinct: loads.len() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const LOADS: [f64; 6] = [1.0, 10.0, 50.0, 100.0, 250.0, 500.0];

    fn law(lambda: f64, sigma: f64, kappa: f64) -> Usl {
        Usl { lambda, sigma, kappa, rms_relative_error: 0.0, points: 0 }
    }

    fn relative_squares(points: &[(f64, f64)], usl: &Usl) -> f64 {
        points.iter().map(|&(load, throughput)| (throughput / usl.throughput(load) - 1.0).powi(2)).sum()
    }

    fn near(found: f64, true_value: f64) -> bool {
        (found - true_value).abs() <= 1e-6 * true_value + 1e-11
    }

    #[test]
    fn what_can_not_be_fitted_is_named() {
        assert_eq!(universal_scalability(&[]), Err(UslError::TooFewLoads { distinct: 0 }));
        let twice = [(1.0, 5.0), (2.0, 9.0), (2.0, 9.1)];
        assert_eq!(universal_scalability(&twice), Err(UslError::TooFewLoads { distinct: 2 }));
        for point in [(0.5, 1.0), (1.0, 0.0), (1.0, -1.0), (f64::NAN, 1.0), (2.0, f64::INFINITY)] {
            let points = [(1.0, 1.0), point, (3.0, 3.0)];
            assert!(matches!(universal_scalability(&points), Err(UslError::NoPoint { index: 1, .. })));
        }
        // Throughput falls with the square of the load: without a load of 1, λ could be anything.
        let falling = [(10.0, 1000.0), (20.0, 100.0), (40.0, 10.0)];
        assert_eq!(universal_scalability(&falling), Err(UslError::NoBase));
    }

    #[test]
    fn perfect_scaling_has_no_contention_no_coherency_and_no_peak() {
        let points = LOADS.map(|load| (load, 100.0 * load));
        let usl = universal_scalability(&points).unwrap();
        assert!(near(usl.lambda, 100.0));
        assert_eq!((usl.sigma, usl.kappa, usl.peak_load()), (0.0, 0.0, None));
        assert_eq!(usl.points, 6);
    }

    #[test]
    fn better_than_perfect_scaling_is_held_at_perfect() {
        let points = LOADS.map(|load| (load, load * (100.0 + load / 10.0)));
        let usl = universal_scalability(&points).unwrap();
        assert_eq!((usl.sigma, usl.kappa), (0.0, 0.0));
        assert!(usl.rms_relative_error > 0.01);
    }

    #[test]
    fn the_peak_is_where_throughput_falls_on_either_side() {
        for (sigma, kappa) in [(0.02, 0.0001), (0.0, 0.01), (0.9, 0.01), (0.999, 0.5)] {
            let usl = law(1000.0, sigma, kappa);
            let peak = usl.peak_load().unwrap();
            let best = usl.throughput(peak);
            assert!(best >= usl.throughput(peak * 1.01), "{usl:?}");
            assert!(best >= usl.throughput((peak * 0.99).max(1.0)), "{usl:?}");
        }
        assert_eq!(law(1.0, 0.3, 0.0).peak_load(), None);
        assert_eq!(law(1.0, 1.0, 0.0).peak_load(), None);
        assert_eq!(law(1.0, 1.5, 0.0).peak_load(), Some(1.0));
        assert_eq!(law(1.0, 1.5, 0.1).peak_load(), Some(1.0));
    }

    /// 0 in one case of four: the boundary is where fits go wrong.
    fn coefficient(powers: std::ops::Range<f64>) -> impl Strategy<Value = f64> {
        prop_oneof![1 => Just(0.0), 3 => powers.prop_map(|power| 10f64.powf(power))]
    }

    proptest! {
        #[test]
        fn known_parameters_are_recovered_from_noiseless_data(
            lambda in 0.1..1e6f64, sigma in coefficient(-4.0..0.0), kappa in coefficient(-6.0..-1.0),
        ) {
            let truth = law(lambda, sigma, kappa);
            let usl = universal_scalability(&LOADS.map(|load| (load, truth.throughput(load)))).unwrap();
            prop_assert!(near(usl.lambda, lambda), "{usl:?}");
            prop_assert!(near(usl.sigma, sigma), "{usl:?}");
            prop_assert!(near(usl.kappa, kappa), "{usl:?}");
            prop_assert!(usl.rms_relative_error < 1e-9);
        }

        #[test]
        fn small_noise_moves_the_curve_little(
            lambda in 0.1..1e6f64, sigma in coefficient(-3.0..-0.5), kappa in coefficient(-6.0..-3.0),
            noise in vec(-0.01..0.01f64, 6),
        ) {
            let truth = law(lambda, sigma, kappa);
            let points: Vec<_> =
                LOADS.iter().zip(&noise).map(|(&load, e)| (load, truth.throughput(load) * (1.0 + e))).collect();
            let usl = universal_scalability(&points).unwrap();
            prop_assert!(usl.sigma >= 0.0 && usl.kappa >= 0.0);
            // The truth itself is at most 1 % away from every point, so the best curve can't be farther on average;
            // at any one load it then differs from the truth by a few times the noise at most.
            prop_assert!(usl.rms_relative_error <= 0.01 + 1e-9);
            for load in LOADS {
                let ratio = usl.throughput(load) / truth.throughput(load);
                prop_assert!((ratio - 1.0).abs() < 0.04, "at {load}: {ratio}, {usl:?}");
            }
        }

        #[test]
        fn no_other_curve_lies_closer(
            shares in vec(0.2..1.2f64, 6),
            others in vec((0.0..3.0f64, 0.0..1.0f64, 0.0..0.1f64), 50),
            nudges in vec((-1.0..1.0f64, -1.0..1.0f64, -1.0..1.0f64), 50),
        ) {
            // Any table at all, however unlike the law; the optimum is convex, so near and far tries settle it.
            let points: Vec<_> = LOADS.iter().zip(&shares).map(|(&load, share)| (load, load * share)).collect();
            let usl = universal_scalability(&points).unwrap();
            let least = relative_squares(&points, &usl);
            prop_assert!((least / 6.0 - usl.rms_relative_error.powi(2)).abs() < 1e-9 * (1.0 + least));
            let far = others.iter().map(|&(lambda, sigma, kappa)| law(lambda + 0.01, sigma, kappa));
            let near = nudges.iter().map(|&(l, s, k)| {
                law(usl.lambda * (1.0 + 0.01 * l), (usl.sigma + 0.001 * s).max(0.0), (usl.kappa + 1e-5 * k).max(0.0))
            });
            for other in far.chain(near) {
                let squares = relative_squares(&points, &other);
                prop_assert!(least <= squares * (1.0 + 1e-9) + 1e-12, "{other:?} beats {usl:?}");
            }
        }
    }
}
