//! The standard normal distribution, as far as the intervals of this folder need it.

/// Beyond this many standard deviations the distribution function is 0 or 1 to within 1e-15.
const FARTHEST: f64 = 8.0;

/// Φ(z): the share of a standard normal distribution that lies below `z`, to about 1e-15 (absolute).
///
/// Source: the Taylor series about 0 in G. Marsaglia, "Evaluating the Normal Distribution", Journal of Statistical
/// Software 11(4), 2004. The error is absolute, so far tails (below 1e-12) have few true digits.
pub(super) fn cdf(z: f64) -> f64 {
    if z.is_nan() {
        return f64::NAN;
    }
    if z.abs() >= FARTHEST {
        return if z > 0.0 { 1.0 } else { 0.0 };
    }
    let mut term = z;
    let mut sum = z;
    let mut odd = 1.0;
    loop {
        odd += 2.0;
        term *= z * z / odd;
        let next = sum + term;
        if next == sum {
            break;
        }
        sum = next;
    }
    let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
    (0.5 + sum * density).clamp(0.0, 1.0)
}

/// Φ⁻¹(p): the value below which a share `p` of a standard normal distribution lies, at most 8 in size.
///
/// By bisection of [`cdf`]: a handful of calls per result, so speed does not matter and no table of coefficients can be wrong.
pub(super) fn quantile(p: f64) -> f64 {
    let (mut below, mut above) = (-FARTHEST, FARTHEST);
    loop {
        let middle = f64::midpoint(below, above);
        if middle <= below || middle >= above {
            return middle;
        }
        if cdf(middle) < p {
            below = middle;
        } else {
            above = middle;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_distribution_function_matches_published_tables() {
        // Abramowitz & Stegun, table 26.1.
        for (z, share) in [
            (0.0, 0.5),
            (1.0, 0.841_344_746_068_543),
            (2.0, 0.977_249_868_051_821),
            (3.0, 0.998_650_101_968_370),
        ] {
            assert!((cdf(z) - share).abs() < 1e-14, "{z}: {}", cdf(z));
            assert!((cdf(-z) - (1.0 - share)).abs() < 1e-14);
        }
        assert_eq!((cdf(9.0), cdf(f64::NEG_INFINITY)), (1.0, 0.0));
        assert!(cdf(f64::NAN).is_nan());
    }

    #[test]
    fn the_quantiles_match_published_tables() {
        for (p, z) in [(0.975, 1.959_963_984_540_054), (0.95, 1.644_853_626_951_473), (0.5, 0.0)] {
            assert!((quantile(p) - z).abs() < 1e-12, "{p}: {}", quantile(p));
        }
    }

    proptest! {
        #[test]
        fn the_quantile_undoes_the_distribution_function(z in -4.0..4.0f64) {
            prop_assert!((quantile(cdf(z)) - z).abs() < 1e-9);
        }

        #[test]
        fn the_distribution_function_agrees_with_summing_the_density(z in 0.0..6.0f64) {
            const STEPS: u32 = 2_000;
            let width = z / f64::from(STEPS);
            let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let area: f64 = (0..STEPS).map(|i| density((f64::from(i) + 0.5) * width) * width).sum();
            prop_assert!((cdf(z) - 0.5 - area).abs() < 1e-6);
        }
    }
}
