//! A level of confidence and the interval that it belongs to.

/// How sure an interval is to hold the true value: a share strictly between 0 and 1, both tails together.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Confidence(f64);

impl Confidence {
    /// The usual 95 %.
    pub const P95: Self = Self(0.95);
    /// 99 %, where many intervals are looked at together.
    pub const P99: Self = Self(0.99);

    /// A two-sided confidence of `share`, or `None` where that is not strictly between 0 and 1.
    #[must_use]
    pub fn new(share: f64) -> Option<Self> {
        (share > 0.0 && share < 1.0).then_some(Self(share))
    }

    /// The share, between 0 and 1.
    #[must_use]
    pub fn share(self) -> f64 {
        self.0
    }

    /// The share that lies beyond either end of the interval: 0.025 for 95 %.
    #[must_use]
    pub fn tail(self) -> f64 {
        (1.0 - self.0) / 2.0
    }
}

/// A closed interval, `lower ≤ upper`, in the unit of what was estimated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub lower: f64,
    /// The upper end.
    pub upper: f64,
}

impl Interval {
    /// Whether `value` lies inside; the ends do.
    #[must_use]
    pub fn contains(&self, value: f64) -> bool {
        self.lower <= value && value <= self.upper
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confidence_lies_strictly_between_0_and_1() {
        for share in [0.0, 1.0, -0.1, 95.0, f64::NAN] {
            assert_eq!(Confidence::new(share), None, "{share}");
        }
        assert_eq!(Confidence::new(0.95), Some(Confidence::P95));
        assert!((Confidence::P95.tail() - 0.025).abs() < 1e-15);
        assert_eq!((Confidence::P95.share(), Confidence::P99.share()), (0.95, 0.99));
    }

    #[test]
    fn an_interval_contains_its_ends() {
        let interval = Interval { lower: -1.0, upper: 2.0 };
        assert!(interval.contains(-1.0) && interval.contains(2.0));
        assert!(!interval.contains(2.1) && !interval.contains(f64::NAN));
    }
}
