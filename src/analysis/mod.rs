//! What the numbers mean: pure functions over results, with no knowledge of where they come from.
//!
//! No data is never 0: every function answers `None` or an error that says what is missing.
//!
//! | question | file |
//! |---|---|
//! | Does achieved follow offered in a straight line? | [`fit`] |
//! | At which rate does the service stop following, and what is its capacity? | [`knee`] |
//! | Which rate to try next, on the way to the highest that holds? | [`search`] |
//! | What do contention and coherency cost as connections are added? | [`usl`] |
//! | Is it getting slower; does it leak? | [`trend`] |
//! | How steady is it, how fair? | [`spread`] |
//! | When was it back to normal, and when did it leap? | [`recovery`] |
//! | What did the slowest see, the lost included? | [`percentile`] |
//! | When did a series of runs move to another level? | [`change_point`] |
//! | How sure is a figure from a few repeats? | [`bootstrap`] |
//! | What changed between two that were measured in turn, and would noise do as much? | [`paired`] |

pub mod bootstrap;
pub mod change_point;
pub mod fit;
mod interval;
pub mod knee;
mod normal;
pub mod paired;
pub mod percentile;
pub mod recovery;
pub mod search;
pub mod spread;
pub mod trend;
pub mod usl;

pub use bootstrap::{Bootstrap, Estimate, Method};
pub use change_point::ChangePoint;
pub use fit::Line;
pub use interval::{Confidence, Interval};
pub use knee::{Knee, RateStep};
pub use paired::PairedRatio;
pub use percentile::Percentile;
pub use recovery::{Band, Recovery, SeriesStep, Spike};
pub use search::{RateSearch, SearchRange, TryOutcome};
pub use trend::Trend;
pub use usl::Usl;

/// One name for all of this folder, for those who look for an analyzer: each function is the one of the file it links to, where
/// its errors and sources are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThroughputAnalyzer;

impl ThroughputAnalyzer {
    /// The straight line through `(offered, achieved)` or any other points: [`fit::least_squares`].
    pub fn calculate_linear_fit(points: &[(f64, f64)]) -> Result<Line, fit::FitError> {
        fit::least_squares(points)
    }

    /// The step of a rate table where the service stops following: [`knee::knee`].
    pub fn calculate_knee(steps: &[RateStep], ratio: f64) -> Result<Option<Knee>, knee::KneeError> {
        knee::knee(steps, ratio)
    }

    /// The rate in messages per second above which nothing more is achieved: [`knee::fitted_capacity`].
    pub fn calculate_capacity(steps: &[RateStep]) -> Result<Option<f64>, knee::KneeError> {
        knee::fitted_capacity(steps)
    }

    /// The scalability curve through `(connections, throughput)` points: [`usl::universal_scalability`].
    pub fn calculate_scalability(points: &[(f64, f64)]) -> Result<Usl, usl::UslError> {
        usl::universal_scalability(points)
    }

    /// The robust trend of latency over time: [`trend::theil_sen`].
    pub fn calculate_trend(
        points: &[(f64, f64)],
        confidence: Confidence,
    ) -> Result<Trend, trend::TrendError> {
        trend::theil_sen(points, confidence)
    }

    /// The leak in bytes per message, from `(messages, live bytes)` points: [`trend::theil_sen`].
    pub fn calculate_leak(points: &[(f64, f64)], confidence: Confidence) -> Result<Trend, trend::TrendError> {
        trend::theil_sen(points, confidence)
    }

    /// Spread over the mean, which counts as at least `mean_floor`: [`spread::coefficient_of_variation`].
    pub fn calculate_variation(values: &[f64], mean_floor: f64) -> Result<f64, spread::SampleError> {
        spread::coefficient_of_variation(values, mean_floor)
    }

    /// The share of outliers among all values: [`spread::outlier_share`].
    #[must_use]
    pub fn calculate_outlier_share(outliers: u64, total: u64) -> Option<f64> {
        spread::outlier_share(outliers, total)
    }

    /// How evenly the connections were served: [`spread::jain_index`].
    pub fn calculate_fairness(served: &[f64]) -> Result<f64, spread::SampleError> {
        spread::jain_index(served)
    }

    /// The worst-served connection as a share of the usual one: [`spread::lowest_over_median`].
    pub fn calculate_lowest_share(served: &[f64]) -> Result<f64, spread::SampleError> {
        spread::lowest_over_median(served)
    }

    /// When a series was back to normal after a fault: [`recovery::recovery`].
    pub fn calculate_recovery(
        series: &[SeriesStep],
        fault_end_s: f64,
        band: Band,
        steady: usize,
    ) -> Result<Option<Recovery>, recovery::SeriesError> {
        recovery::recovery(series, fault_end_s, band, steady)
    }

    /// Where a series lies above a threshold: [`recovery::spikes`].
    pub fn detect_spikes(series: &[SeriesStep], threshold: f64) -> Result<Vec<Spike>, recovery::SeriesError> {
        recovery::spikes(series, threshold)
    }

    /// The median of a few repeats and how sure it is: [`Bootstrap::median`].
    pub fn calculate_median_interval(
        repeats: &[f64],
        settings: Bootstrap,
    ) -> Result<Estimate, bootstrap::BootstrapError> {
        settings.median(repeats)
    }

    /// A percentile of ascending values, with `censored` ones above them all: [`percentile::percentile_of_sorted`].
    #[must_use]
    pub fn calculate_percentile<T: Copy + PartialOrd>(
        percentile: Percentile,
        sorted: &[T],
        censored: u64,
    ) -> Option<T> {
        percentile::percentile_of_sorted(percentile, sorted, censored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_analyzer_answers_as_the_files_do() {
        let line: Vec<_> = (1..20).map(|i| (f64::from(i), 3.0 * f64::from(i))).collect();
        assert_eq!(ThroughputAnalyzer::calculate_linear_fit(&line), fit::least_squares(&line));
        assert_eq!(
            ThroughputAnalyzer::calculate_leak(&line, Confidence::P95).unwrap().interval,
            Some(Interval { lower: 3.0, upper: 3.0 })
        );
        assert_eq!(ThroughputAnalyzer::calculate_scalability(&line).unwrap().peak_load(), None);
        assert_eq!(ThroughputAnalyzer::calculate_percentile(Percentile::P50, &[1, 2, 3], 2), Some(3));
        // (1 + 2)² ÷ (2 × (1 + 4)).
        assert_eq!(ThroughputAnalyzer::calculate_fairness(&[1.0, 2.0]), Ok(0.9));
        assert_eq!(ThroughputAnalyzer::calculate_lowest_share(&[1.0, 2.0, 2.0]), Ok(0.5));
        assert_eq!(ThroughputAnalyzer::calculate_outlier_share(1, 4), Some(0.25));
        assert_eq!(ThroughputAnalyzer::calculate_variation(&[2.0, 4.0], 5.0), Ok(2.0_f64.sqrt() / 5.0));
        let sure = ThroughputAnalyzer::calculate_median_interval(&[7.0; 3], Bootstrap::default()).unwrap();
        assert_eq!(sure.interval, Interval { lower: 7.0, upper: 7.0 });

        let steps =
            [1000.0, 2000.0, 4000.0].map(|offered: f64| RateStep { offered, achieved: offered.min(3000.0) });
        assert_eq!(ThroughputAnalyzer::calculate_knee(&steps, 0.99).unwrap().map(|knee| knee.index), Some(2));
        assert_eq!(ThroughputAnalyzer::calculate_capacity(&steps), Ok(Some(3000.0)));

        let series: Vec<_> = [9.0, 1.0, 1.0]
            .iter()
            .zip(0u32..)
            .map(|(&v, t)| SeriesStep { t_s: t.into(), value: Some(v) })
            .collect();
        let back = ThroughputAnalyzer::calculate_recovery(&series, 0.0, Band::up_to(2.0), 2).unwrap();
        assert_eq!(back.map(|recovery| recovery.after_s), Some(1.0));
        assert_eq!(ThroughputAnalyzer::detect_spikes(&series, 2.0).map(|spikes| spikes.len()), Ok(1));
    }
}
