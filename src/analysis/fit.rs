//! A straight line through points, by ordinary least squares.

use thiserror::Error;

/// No line can be fitted.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum FitError {
    /// A line needs two points.
    #[error("{given} points given, a line needs at least 2")]
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
    /// The squares overflow or vanish in floating point.
    #[error(
        "the points are too far apart or too close together to be squared: x spans {x_span}, y spans {y_span}"
    )]
    OutOfRange {
        /// Highest minus lowest x.
        x_span: f64,
        /// Highest minus lowest y.
        y_span: f64,
    },
}

/// The line `y = intercept + slope × x` with the least sum of squared vertical distances.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Change of y per unit of x.
    pub slope: f64,
    /// y at x = 0.
    pub intercept: f64,
    /// Pearson's correlation of x and y, −1 to 1; `None` where all y are the same and it does not exist.
    pub correlation: Option<f64>,
    /// The share of the variance of y that the line explains, 0 to 1; `None` where all y are the same: there is
    /// no variance to explain.
    pub r_squared: Option<f64>,
    /// How many points the line rests on.
    pub points: usize,
}

impl Line {
    /// y on the line at `x`.
    #[must_use]
    pub fn at(&self, x: f64) -> f64 {
        self.intercept + self.slope * x
    }
}

/// Fits a line to `(x, y)` points by ordinary least squares.
///
/// Source: A.-M. Legendre, "Nouvelles méthodes pour la détermination des orbites des comètes", 1805; K. Pearson (1895) for the
/// correlation. Sums are taken about the means (two passes), so large offsets cost no digits.
///
/// # Errors
/// With fewer than two points, a coordinate that is not finite, all x the same, or squares beyond floating point.
pub fn least_squares(points: &[(f64, f64)]) -> Result<Line, FitError> {
    if points.len() < 2 {
        return Err(FitError::TooFewPoints { given: points.len() });
    }
    if let Some(index) = points.iter().position(|(x, y)| !x.is_finite() || !y.is_finite()) {
        let (x, y) = points[index];
        return Err(FitError::NotFinite { index, x, y });
    }
    let x_span = span(points.iter().map(|p| p.0));
    let y_span = span(points.iter().map(|p| p.1));
    if x_span == 0.0 {
        return Err(FitError::SameX { x: points[0].0 });
    }
    fit(points, y_span == 0.0).ok_or(FitError::OutOfRange { x_span, y_span })
}

/// The line through at least two finite points whose x differ; `None` where the sums overflow or vanish.
fn fit(points: &[(f64, f64)], flat: bool) -> Option<Line> {
    let count = points.len() as f64;
    // About the first point, so that equal coordinates have exactly themselves as their mean.
    let (x_first, y_first) = points[0];
    let x_mean = x_first + points.iter().map(|p| p.0 - x_first).sum::<f64>() / count;
    let y_mean = y_first + points.iter().map(|p| p.1 - y_first).sum::<f64>() / count;
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in points {
        let (dx, dy) = (x - x_mean, y - y_mean);
        xx += dx * dx;
        xy += dx * dy;
        yy += dy * dy;
    }
    if !xx.is_normal() || !xy.is_finite() || !(flat || yy.is_normal()) {
        return None;
    }
    let slope = xy / xx;
    let correlation = (!flat).then(|| (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0));
    Some(Line {
        slope,
        intercept: y_mean - slope * x_mean,
        correlation,
        r_squared: correlation.map(|r| r * r),
        points: points.len(),
    })
}

fn span(values: impl Iterator<Item = f64>) -> f64 {
    let (lowest, highest) = values
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    highest - lowest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn squares(points: &[(f64, f64)], slope: f64, intercept: f64) -> f64 {
        points.iter().map(|(x, y)| (y - intercept - slope * x).powi(2)).sum()
    }

    #[test]
    fn what_has_no_line_is_named() {
        assert_eq!(least_squares(&[]), Err(FitError::TooFewPoints { given: 0 }));
        assert_eq!(least_squares(&[(1.0, 1.0)]), Err(FitError::TooFewPoints { given: 1 }));
        assert_eq!(least_squares(&[(0.1, 1.0), (0.1, 2.0), (0.1, 4.0)]), Err(FitError::SameX { x: 0.1 }));
        assert!(matches!(
            least_squares(&[(0.0, 1.0), (1.0, f64::NAN)]),
            Err(FitError::NotFinite { index: 1, .. })
        ));
        assert!(matches!(
            least_squares(&[(f64::INFINITY, 1.0), (1.0, 0.0)]),
            Err(FitError::NotFinite { index: 0, .. })
        ));
        assert!(matches!(least_squares(&[(0.0, 0.0), (1e200, 1.0)]), Err(FitError::OutOfRange { .. })));
        assert!(matches!(least_squares(&[(0.0, 0.0), (1e-200, 1.0)]), Err(FitError::OutOfRange { .. })));
    }

    #[test]
    fn a_flat_line_has_a_slope_but_no_correlation() {
        let line = least_squares(&[(100.0, 0.1), (500.0, 0.1), (1000.0, 0.1)]).unwrap();
        assert_eq!((line.slope, line.intercept), (0.0, 0.1));
        assert_eq!((line.correlation, line.r_squared), (None, None));
    }

    #[test]
    fn a_line_is_read_at_any_x() {
        let line = least_squares(&[(0.0, 5.0), (1.0, 7.0), (2.0, 9.0)]).unwrap();
        assert!((line.at(10.0) - 25.0).abs() < 1e-9 && (line.at(-1.0) - 3.0).abs() < 1e-9, "{line:?}");
    }

    #[test]
    fn a_published_data_set_is_fitted_as_published() {
        // F. Anscombe, "Graphs in Statistical Analysis", The American Statistician 27(1), 1973, set I.
        let points = [
            (10.0, 8.04),
            (8.0, 6.95),
            (13.0, 7.58),
            (9.0, 8.81),
            (11.0, 8.33),
            (14.0, 9.96),
            (6.0, 7.24),
            (4.0, 4.26),
            (12.0, 10.84),
            (7.0, 4.82),
            (5.0, 5.68),
        ];
        let line = least_squares(&points).unwrap();
        assert!((line.slope - 0.500_090_909).abs() < 1e-9);
        assert!((line.intercept - 3.000_090_909).abs() < 1e-8);
        assert!((line.correlation.unwrap() - 0.816_420_516).abs() < 1e-9);
        assert!((line.r_squared.unwrap() - 0.666_542_459).abs() < 1e-8);
        assert_eq!(line.points, 11);
    }

    proptest! {
        #[test]
        fn points_on_a_line_give_that_line(
            slope in -1e3..1e3f64, intercept in -1e6..1e6f64, xs in vec(-1e4..1e4f64, 2..50),
        ) {
            prop_assume!(span(xs.iter().copied()) > 1.0);
            let points: Vec<_> = xs.iter().map(|&x| (x, intercept + slope * x)).collect();
            let line = least_squares(&points).unwrap();
            prop_assert!((line.slope - slope).abs() < 1e-6, "{line:?}");
            prop_assert!((line.at(0.0) - intercept).abs() < 1e-2, "{line:?}");
            prop_assume!(slope.abs() > 0.1);
            prop_assert!((line.correlation.unwrap() - slope.signum()).abs() < 1e-6, "{line:?}");
        }

        #[test]
        fn no_other_line_lies_closer(
            points in vec((-1e3..1e3f64, -1e3..1e3f64), 3..40),
            others in vec((-1.0..1.0f64, -1e3..1e3f64), 20),
        ) {
            let line = least_squares(&points).unwrap();
            let least = squares(&points, line.slope, line.intercept);
            for (turn, shift) in others {
                // Far away and close by.
                for near in [1.0, 1e-3] {
                    let other = squares(&points, line.slope + near * turn, line.intercept + near * shift);
                    prop_assert!(least <= other * (1.0 + 1e-12) + 1e-9, "{least} > {other}");
                }
            }
        }

        #[test]
        fn r_squared_is_the_share_of_the_variance_explained(points in vec((-1e3..1e3f64, -1e3..1e3f64), 3..40)) {
            let line = least_squares(&points).unwrap();
            let mean = points.iter().map(|p| p.1).sum::<f64>() / points.len() as f64;
            let explained = 1.0 - squares(&points, line.slope, line.intercept) / squares(&points, 0.0, mean);
            prop_assert!((line.r_squared.unwrap() - explained).abs() < 1e-9);
        }
    }
}
