//! What was reported of a latency whose truth is known.

use serde::{Deserialize, Serialize};

use super::Verdict;

/// The version of the JSON of such results. Fields are only ever added.
pub const TRUTH_SCHEMA: &str = "floodline.truth/1";

/// All that was held against a truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TruthResults {
    /// [`TRUTH_SCHEMA`].
    pub schema: String,
    /// Whether all of it agrees.
    pub verdict: Verdict,
    /// Each percentile of each case.
    pub rows: Vec<TruthRow>,
}

impl TruthResults {
    /// What does not agree fails, unless others took more than `foreign_cpu_cores` of the machine meanwhile, or the machine's own
    /// hiccups move the percentile by more than it may be off.
    #[must_use]
    pub fn of(rows: Vec<TruthRow>, foreign_cpu_cores: f64) -> Self {
        let disturbed = |row: &TruthRow| {
            row.foreign_cpu_cores.is_some_and(|cores| cores > foreign_cpu_cores)
                || row.is_beyond_the_machine()
        };
        let wrong: Vec<_> = rows.iter().filter(|row| row.agrees() == Some(false)).collect();
        let verdict = match wrong.iter().filter(|row| disturbed(row)).count() {
            _ if wrong.is_empty() => Verdict::Pass,
            all if all == wrong.len() => Verdict::Inconclusive,
            _ => Verdict::Fail,
        };
        Self { schema: TRUTH_SCHEMA.to_owned(), verdict, rows }
    }

    /// How many percentiles agree, and how many have a truth.
    #[must_use]
    pub fn agreeing(&self) -> (usize, usize) {
        let compared = self.rows.iter().filter_map(TruthRow::agrees);
        (compared.clone().filter(|&agrees| agrees).count(), compared.count())
    }
}

/// What was expected and reported of one percentile, microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TruthRow {
    /// The case, for people.
    pub case: String,
    /// Which percentile; `worst p70` is, of all whole ones from the median up, the one that is furthest off for what it may be.
    pub percentile: String,
    /// The truth; `None` for the floor.
    pub expected_us: Option<f64>,
    /// What was reported; `None` where the percentile fell among messages without an answer.
    pub reported_us: Option<f64>,
    /// By how much they may differ.
    pub tolerance_us: f64,
    /// CPU that other processes took meanwhile, in cores.
    pub foreign_cpu_cores: Option<f64>,
    /// By how much what is expected differs between the floor right before and the one right after, or between one and another
    /// backlog that was worked off: what the machine itself does to this percentile. `None` where neither has a part in it.
    pub floors_differ_us: Option<f64>,
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

    /// Whether this machine cannot tell: two floors, or two backlogs worked off, that should be the same differ by more than what
    /// is allowed here.
    #[must_use]
    pub fn is_beyond_the_machine(&self) -> bool {
        self.floors_differ_us.is_some_and(|us| us > self.tolerance_us)
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
            floors_differ_us: None,
        };
        assert_eq!(row(Some(1_000.0), Some(1_150.0)).agrees(), Some(true));
        assert_eq!(row(Some(1_000.0), Some(849.0)).agrees(), Some(false));
        assert_eq!(row(Some(1_000.0), None).agrees(), Some(false));
        assert_eq!(row(None, Some(60.0)).agrees(), None);
    }

    #[test]
    fn one_row_that_does_not_agree_fails_unless_the_machine_was_disturbed() {
        let row = |reported_us, foreign| TruthRow {
            case: String::new(),
            percentile: "p50".to_owned(),
            expected_us: Some(1_000.0),
            reported_us: Some(reported_us),
            tolerance_us: 150.0,
            foreign_cpu_cores: Some(foreign),
            floors_differ_us: Some(10.0),
        };
        let floor = TruthRow { expected_us: None, ..row(60.0, 0.0) };
        let (right, wrong, disturbed) = (row(1_100.0, 0.0), row(1_200.0, 0.0), row(1_200.0, 0.2));
        let unsure = TruthRow { floors_differ_us: Some(151.0), ..wrong.clone() };
        for (rows, verdict, agreeing) in [
            (vec![floor.clone(), right.clone()], Verdict::Pass, (1, 1)),
            (vec![floor.clone(), right.clone(), disturbed.clone()], Verdict::Inconclusive, (1, 2)),
            (vec![right.clone(), unsure.clone()], Verdict::Inconclusive, (1, 2)),
            (vec![TruthRow { floors_differ_us: Some(151.0), ..right.clone() }], Verdict::Pass, (1, 1)),
            (vec![right.clone(), disturbed.clone(), wrong.clone(), unsure], Verdict::Fail, (1, 4)),
            (vec![wrong, disturbed, floor, right], Verdict::Fail, (1, 3)),
        ] {
            let results = TruthResults::of(rows, 0.1);
            assert_eq!((results.verdict, results.agreeing()), (verdict, agreeing));
        }
    }
}
