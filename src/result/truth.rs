//! What was reported of a latency whose truth is known.

use serde::{Deserialize, Serialize};

/// What was expected and reported of one percentile, microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TruthRow {
    /// The case, for people.
    pub case: String,
    /// Which percentile.
    pub percentile: String,
    /// The truth; `None` for the floor.
    pub expected_us: Option<f64>,
    /// What was reported; `None` where the percentile fell among messages without an answer.
    pub reported_us: Option<f64>,
    /// By how much they may differ.
    pub tolerance_us: f64,
    /// CPU that other processes took meanwhile, in cores.
    pub foreign_cpu_cores: Option<f64>,
}

impl TruthRow {
    /// Reported less expected, microseconds.
    #[must_use]
    pub fn difference_us(&self) -> Option<f64> {
        Some(self.reported_us? - self.expected_us?)
    }

    /// Whether they agree; a percentile that was not reported does not. `None` where there is no truth: the floor.
    #[must_use]
    pub fn agrees(&self) -> Option<bool> {
        self.expected_us?;
        Some(self.difference_us().is_some_and(|difference| difference.abs() <= self.tolerance_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_by_more_than_its_tolerance_does_not_agree() {
        let row = |expected_us, reported_us| TruthRow {
            case: String::new(),
            percentile: "p50".to_owned(),
            expected_us,
            reported_us,
            tolerance_us: 150.0,
            foreign_cpu_cores: None,
        };
        assert_eq!(row(Some(1_000.0), Some(1_150.0)).agrees(), Some(true));
        assert_eq!(row(Some(1_000.0), Some(849.0)).agrees(), Some(false));
        assert_eq!(row(Some(1_000.0), None).agrees(), Some(false));
        assert_eq!(row(None, Some(60.0)).agrees(), None);
    }
}
