//! When a series is back to normal after a fault, and where it leaps out of it.

use thiserror::Error;

use super::spread::{SampleError, check_finite, median_in_place};

/// One step of a series. `None` says that the step has no value: no answer arrived in that window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SeriesStep {
    /// The instant, in seconds on the clock of the phase.
    pub t_s: f64,
    /// The value then, in whatever unit the band has.
    pub value: Option<f64>,
}

/// The values that count as normal, ends included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    /// The lowest normal value.
    pub lowest: f64,
    /// The highest normal value.
    pub highest: f64,
}

impl Band {
    /// Within `tolerance` (0.05 for 5 %) of `baseline` on either side.
    #[must_use]
    pub fn around(baseline: f64, tolerance: f64) -> Self {
        let reach = (baseline * tolerance).abs();
        Self { lowest: baseline - reach, highest: baseline + reach }
    }

    /// Anything up to `limit`: for a latency, which may be as low as it likes.
    #[must_use]
    pub fn up_to(limit: f64) -> Self {
        Self { lowest: f64::NEG_INFINITY, highest: limit }
    }

    /// Anything from `limit` on: for a throughput, which may overshoot while a backlog drains.
    #[must_use]
    pub fn at_least(limit: f64) -> Self {
        Self { lowest: limit, highest: f64::INFINITY }
    }

    /// Whether `step` is normal; one without a value is not.
    #[must_use]
    pub fn holds(&self, step: &SeriesStep) -> bool {
        step.value.is_some_and(|value| self.lowest <= value && value <= self.highest)
    }
}

/// How a series came back to normal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recovery {
    /// The instant of the first of the steps that stayed normal, in seconds.
    pub at_s: f64,
    /// The time from the end of the fault to that instant, in seconds; as fine as the steps are.
    pub after_s: f64,
    /// How many later steps left the band again: a recovery that did not last shows here.
    pub relapsed_steps: usize,
}

/// A series cannot be judged.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SeriesError {
    /// The instants must be finite and ascend.
    #[error("step {index} is at {t_s} s, which is not after the step before it")]
    NotAscending {
        /// Its place, from 0.
        index: usize,
        /// Its instant.
        t_s: f64,
    },
    /// A value is infinite or not a number; a step without one has `None`.
    #[error("step {index} has the value {value}, which is not finite")]
    NotFinite {
        /// Its place, from 0.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// The end of the fault or the band is not a number, or the band is empty.
    #[error("a fault that ends at {fault_end_s} s and a band from {lowest} to {highest} can't be judged")]
    NoBand {
        /// The end of the fault.
        fault_end_s: f64,
        /// The lowest normal value.
        lowest: f64,
        /// The highest normal value.
        highest: f64,
    },
    /// The threshold of a spike is not a number.
    #[error("nothing can be above a threshold of {threshold}")]
    NoThreshold {
        /// What was given.
        threshold: f64,
    },
    /// Staying normal for no steps means nothing.
    #[error("a series recovers over at least 1 step, not over 0")]
    NoSteps,
}

/// The first instant at or after `fault_end_s` from which `steady` steps in a row lie in `band`; `None` where that never happens,
/// also where the series ends too soon to tell.
///
/// Steps are in a row where they follow each other in `series`: a window in which nothing arrived must be given, with `None`.
///
/// # Errors
/// Where the instants do not ascend, a value is not finite, the band is empty, or `steady` is 0.
pub fn recovery(
    series: &[SeriesStep],
    fault_end_s: f64,
    band: Band,
    steady: usize,
) -> Result<Option<Recovery>, SeriesError> {
    check_series(series)?;
    if steady == 0 {
        return Err(SeriesError::NoSteps);
    }
    if !fault_end_s.is_finite() || band.lowest.is_nan() || band.highest.is_nan() || band.lowest > band.highest
    {
        let Band { lowest, highest } = band;
        return Err(SeriesError::NoBand { fault_end_s, lowest, highest });
    }
    let after = &series[series.partition_point(|step| step.t_s < fault_end_s)..];
    let mut in_a_row = 0;
    let last = after.iter().position(|step| {
        in_a_row = if band.holds(step) { in_a_row + 1 } else { 0 };
        in_a_row == steady
    });
    Ok(last.map(|last| {
        let at_s = after[last + 1 - steady].t_s;
        let relapsed_steps = after[last + 1..].iter().filter(|step| !band.holds(step)).count();
        Recovery { at_s, after_s: at_s - fault_end_s, relapsed_steps }
    }))
}

/// A stretch of steps above a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spike {
    /// The instant of its first step, in seconds.
    pub start_s: f64,
    /// The instant of its last step, in seconds.
    pub end_s: f64,
    /// The instant of its highest step, in seconds.
    pub peak_at_s: f64,
    /// The highest value.
    pub peak: f64,
    /// How many steps it lasted.
    pub steps: usize,
}

/// The stretches of neighbouring steps whose value lies above `threshold`, in order of time. A step without a value ends a stretch.
///
/// # Errors
/// Where the instants do not ascend, a value is not finite, or the threshold is not a number.
pub fn spikes(series: &[SeriesStep], threshold: f64) -> Result<Vec<Spike>, SeriesError> {
    check_series(series)?;
    if threshold.is_nan() {
        return Err(SeriesError::NoThreshold { threshold });
    }
    let mut found: Vec<Spike> = Vec::new();
    let mut inside = false;
    for &SeriesStep { t_s, value } in series {
        let Some(value) = value.filter(|&value| value > threshold) else {
            inside = false;
            continue;
        };
        match found.last_mut().filter(|_| inside) {
            None => found.push(Spike { start_s: t_s, end_s: t_s, peak_at_s: t_s, peak: value, steps: 1 }),
            Some(spike) => {
                spike.end_s = t_s;
                spike.steps += 1;
                if value > spike.peak {
                    (spike.peak, spike.peak_at_s) = (value, t_s);
                }
            }
        }
        inside = true;
    }
    Ok(found)
}

/// A threshold for [`spikes`] from the values themselves: `median + max(factor × 1.4826 × MAD, least_excess)`, in their unit.
///
/// MAD is the median absolute deviation; times 1.4826 it estimates a normal distribution's standard deviation, and half the
/// values would have to be spikes to move it. `least_excess` keeps a very quiet series from calling its own grain a
/// spike. Source: the Hampel identifier, L. Davies, U. Gather, "The Identification of Multiple Outliers", JASA 88, 1993; a `factor` of
/// 3 is usual.
///
/// # Errors
/// Without values, or with one that is not finite.
pub fn spike_threshold(values: &[f64], factor: f64, least_excess: f64) -> Result<f64, SampleError> {
    check_finite(values, 1)?;
    let mut values = values.to_vec();
    let median = median_in_place(&mut values);
    values.iter_mut().for_each(|value| *value = (*value - median).abs());
    let deviation = 1.4826 * median_in_place(&mut values);
    Ok(median + (factor * deviation).max(least_excess))
}

fn check_series(series: &[SeriesStep]) -> Result<(), SeriesError> {
    let mut before_s = f64::NEG_INFINITY;
    for (index, &SeriesStep { t_s, value }) in series.iter().enumerate() {
        if !t_s.is_finite() || t_s <= before_s {
            return Err(SeriesError::NotAscending { index, t_s });
        }
        if let Some(value) = value.filter(|value| !value.is_finite()) {
            return Err(SeriesError::NotFinite { index, value });
        }
        before_s = t_s;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    fn series(values: &[f64]) -> Vec<SeriesStep> {
        values
            .iter()
            .enumerate()
            .map(|(i, &value)| SeriesStep { t_s: i as f64, value: Some(value) })
            .collect()
    }

    #[test]
    fn a_series_that_can_not_be_judged_is_refused() {
        let band = Band::up_to(1.0);
        let twice = [SeriesStep { t_s: 1.0, value: None }, SeriesStep { t_s: 1.0, value: None }];
        assert_eq!(recovery(&twice, 0.0, band, 1), Err(SeriesError::NotAscending { index: 1, t_s: 1.0 }));
        assert_eq!(spikes(&twice, 0.0), Err(SeriesError::NotAscending { index: 1, t_s: 1.0 }));
        assert!(matches!(spikes(&[], f64::NAN), Err(SeriesError::NoThreshold { .. })));
        let infinite = series(&[1.0, f64::INFINITY]);
        assert!(matches!(recovery(&infinite, 0.0, band, 1), Err(SeriesError::NotFinite { index: 1, .. })));
        assert_eq!(recovery(&series(&[1.0]), 0.0, band, 0), Err(SeriesError::NoSteps));
        let empty = Band { lowest: 2.0, highest: 1.0 };
        assert!(matches!(recovery(&series(&[1.0]), 0.0, empty, 1), Err(SeriesError::NoBand { .. })));
        assert!(matches!(recovery(&series(&[1.0]), f64::NAN, band, 1), Err(SeriesError::NoBand { .. })));
    }

    #[test]
    fn no_data_is_no_recovery() {
        assert_eq!(recovery(&[], 0.0, Band::up_to(1.0), 1), Ok(None));
        let silent: Vec<_> = (0..5).map(|i| SeriesStep { t_s: f64::from(i), value: None }).collect();
        assert_eq!(recovery(&silent, 0.0, Band::up_to(1.0), 1), Ok(None));
        assert_eq!(spikes(&[], 1.0), Ok(vec![]));
        assert!(spike_threshold(&[], 3.0, 1.0).is_err());
    }

    #[test]
    fn a_short_return_is_no_recovery() {
        //                     0      1    2    3     4    5     6     7
        let values = series(&[100.0, 0.0, 0.0, 98.0, 0.0, 97.0, 101.0, 99.0]);
        let band = Band::around(100.0, 0.05);
        let two = recovery(&values, 2.0, band, 2).unwrap().unwrap();
        assert_eq!((two.at_s, two.after_s, two.relapsed_steps), (5.0, 3.0, 0));
        let one = recovery(&values, 2.0, band, 1).unwrap().unwrap();
        assert_eq!((one.at_s, one.relapsed_steps), (3.0, 1));
        assert_eq!(recovery(&values, 2.0, band, 4), Ok(None));
        // Steps before the end of the fault do not count, however normal.
        assert_eq!(recovery(&values, 6.5, band, 2), Ok(None));
    }

    #[test]
    fn each_band_has_the_side_that_its_name_says() {
        let step = |value| SeriesStep { t_s: 0.0, value };
        assert!(Band::around(100.0, 0.05).holds(&step(Some(95.0))));
        assert!(!Band::around(100.0, 0.05).holds(&step(Some(106.0))));
        assert!(Band::around(-100.0, 0.05).holds(&step(Some(-104.0))));
        assert!(
            Band::at_least(95.0).holds(&step(Some(1e9))) && !Band::at_least(95.0).holds(&step(Some(94.0)))
        );
        assert!(Band::up_to(10.0).holds(&step(Some(0.0))) && !Band::up_to(10.0).holds(&step(Some(10.1))));
        assert!(!Band::up_to(10.0).holds(&step(None)));
    }

    #[test]
    fn spikes_are_placed_in_time() {
        let values = series(&[1.0, 1.0, 60.0, 80.0, 70.0, 1.0, 50.0, 1.0]);
        let found = spikes(&values, 10.0).unwrap();
        assert_eq!(
            found,
            [
                Spike { start_s: 2.0, end_s: 4.0, peak_at_s: 3.0, peak: 80.0, steps: 3 },
                Spike { start_s: 6.0, end_s: 6.0, peak_at_s: 6.0, peak: 50.0, steps: 1 },
            ]
        );
    }

    #[test]
    fn the_threshold_ignores_the_spikes_and_the_grain() {
        // Median 10, MAD 1.
        let values = [8.0, 9.0, 10.0, 11.0, 900.0];
        assert!((spike_threshold(&values, 3.0, 0.0).unwrap() - (10.0 + 3.0 * 1.4826)).abs() < 1e-12);
        // In another unit all of it is a hundred times as much.
        let finer = values.map(|value| value * 100.0);
        assert!((spike_threshold(&finer, 3.0, 0.0).unwrap() - (1_000.0 + 300.0 * 1.4826)).abs() < 1e-9);
        assert_eq!(spike_threshold(&values, 3.0, 50.0), Ok(60.0));
        assert_eq!(spike_threshold(&[2.0; 9], 3.0, 5.0), Ok(7.0));
    }

    fn any_series() -> impl Strategy<Value = Vec<SeriesStep>> {
        vec(option::of(0u32..4), 0..30).prop_map(|values| {
            let step =
                |(i, value): (usize, Option<u32>)| SeriesStep { t_s: i as f64, value: value.map(f64::from) };
            values.into_iter().enumerate().map(step).collect()
        })
    }

    proptest! {
        #[test]
        fn recovery_is_the_first_stretch_that_stays(series in any_series(), end in 0u32..20, steady in 1usize..5) {
            let (end, band) = (f64::from(end), Band { lowest: 1.0, highest: 2.0 });
            let normal = |s: &SeriesStep| matches!(s.value, Some(v) if (1.0..=2.0).contains(&v));
            let expected = (0..series.len())
                .filter(|&i| series[i].t_s >= end)
                .find(|&i| i + steady <= series.len() && series[i..i + steady].iter().all(normal));
            let found = recovery(&series, end, band, steady).unwrap();
            prop_assert_eq!(found.map(|r| r.at_s), expected.map(|i| series[i].t_s));
            if let (Some(found), Some(i)) = (found, expected) {
                prop_assert_eq!(found.after_s, series[i].t_s - end);
                prop_assert_eq!(found.relapsed_steps, series[i..].iter().filter(|s| !normal(s)).count());
            }
        }

        #[test]
        fn spikes_cover_what_lies_above_and_nothing_else(series in any_series(), threshold in 0u32..4) {
            let threshold = f64::from(threshold);
            let found = spikes(&series, threshold).unwrap();
            for step in &series {
                let above = step.value.is_some_and(|value| value > threshold);
                let covered = found.iter().filter(|s| s.start_s <= step.t_s && step.t_s <= s.end_s).count();
                prop_assert_eq!(covered, usize::from(above));
            }
            for spike in &found {
                let inside = || series.iter().filter(|s| spike.start_s <= s.t_s && s.t_s <= spike.end_s);
                prop_assert_eq!(spike.steps, inside().count());
                prop_assert_eq!(Some(spike.peak), inside().filter_map(|s| s.value).reduce(f64::max));
                prop_assert!(inside().any(|s| s.t_s == spike.peak_at_s && s.value == Some(spike.peak)));
            }
            // Neighbouring steps belong to one spike, so between two there is always a step that is none.
            for pair in found.windows(2) {
                prop_assert!(pair[1].start_s - pair[0].end_s > 1.5);
            }
        }
    }
}
