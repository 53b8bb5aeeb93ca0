//! Where a service stops following the rate that is offered to it.

use thiserror::Error;

/// One step of a rate table, both in messages per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateStep {
    /// The rate that was offered.
    pub offered: f64,
    /// The rate that was achieved.
    pub achieved: f64,
}

/// The lowest offered rate that the service did not follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knee {
    /// Its place in the table that was given, from 0.
    pub index: usize,
    /// The step itself.
    pub step: RateStep,
    /// The highest rate offered below it, which was followed; `None` where even the lowest was not.
    pub followed_up_to: Option<f64>,
}

/// A rate table cannot be read.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum KneeError {
    /// The table is empty.
    #[error("the rate table has no steps")]
    NoSteps,
    /// A rate is not finite, an offered one not above 0, or an achieved one below 0.
    #[error("step {index} offers {offered} msg/s and achieves {achieved} msg/s: these are no rates")]
    NoRate {
        /// Its place, from 0.
        index: usize,
        /// The offered rate.
        offered: f64,
        /// The achieved rate.
        achieved: f64,
    },
    /// The share that counts as following is not between 0 and 1.
    #[error("a service follows from a share between 0 and 1 on, not from {ratio}")]
    Ratio {
        /// What was given.
        ratio: f64,
    },
}

/// The first step, by ascending offered rate, where `achieved < ratio × offered`; `None` where every step is followed.
///
/// The order of the table does not matter. A step above the knee that is followed again does not move it: the knee is the
/// lowest rate that cannot be relied on.
///
/// # Errors
/// For an empty table, a rate that is none, or a `ratio` outside 0 to 1.
pub fn knee(steps: &[RateStep], ratio: f64) -> Result<Option<Knee>, KneeError> {
    let ascending = ascending(steps)?;
    if !(0.0..=1.0).contains(&ratio) {
        return Err(KneeError::Ratio { ratio });
    }
    let found = ascending.iter().position(|(_, step)| step.achieved < ratio * step.offered);
    Ok(found.map(|place| {
        let (index, step) = ascending[place];
        let below = ascending[..place].iter().rev().find(|(_, lower)| lower.offered < step.offered);
        Knee { index, step, followed_up_to: below.map(|(_, lower)| lower.offered) }
    }))
}

/// The capacity C in messages per second of a service that achieves `min(offered, C)`: the least-squares fit of that broken
/// line to the table. `None` where no bend fits better than none, so the capacity lies beyond the table.
///
/// The knee is one of the steps that were tried; this figure may lie between two of them. Source: a two-phase regression with known
/// lines (D. Hudson, "Fitting Segmented Curves Whose Join Points Have to Be Estimated", JASA 61, 1966): for each set of
/// saturated steps the best level is their mean, held between the neighbouring offered rates.
///
/// # Errors
/// For an empty table or a rate that is none.
pub fn fitted_capacity(steps: &[RateStep]) -> Result<Option<f64>, KneeError> {
    let ascending: Vec<RateStep> = ascending(steps)?.into_iter().map(|(_, step)| step).collect();
    let mut best = (broken_line_error(&ascending, f64::INFINITY), None);
    for (place, step) in ascending.iter().enumerate() {
        let saturated = &ascending[place..];
        let level = saturated.iter().map(|step| step.achieved).sum::<f64>() / saturated.len() as f64;
        let lowest = if place == 0 { 0.0 } else { ascending[place - 1].offered };
        let capacity = level.clamp(lowest, step.offered);
        let error = broken_line_error(&ascending, capacity);
        if error < best.0 {
            best = (error, Some(capacity));
        }
    }
    Ok(best.1)
}

fn broken_line_error(steps: &[RateStep], capacity: f64) -> f64 {
    steps.iter().map(|step| (step.achieved - step.offered.min(capacity)).powi(2)).sum()
}

/// The steps by ascending offered rate, each with its place in the table.
fn ascending(steps: &[RateStep]) -> Result<Vec<(usize, RateStep)>, KneeError> {
    if steps.is_empty() {
        return Err(KneeError::NoSteps);
    }
    let sound = |step: &RateStep| {
        step.offered.is_finite() && step.offered > 0.0 && step.achieved.is_finite() && step.achieved >= 0.0
    };
    if let Some(index) = steps.iter().position(|step| !sound(step)) {
        let RateStep { offered, achieved } = steps[index];
        return Err(KneeError::NoRate { index, offered, achieved });
    }
    let mut ascending: Vec<_> = steps.iter().copied().enumerate().collect();
    ascending.sort_by(|(_, a), (_, b)| a.offered.total_cmp(&b.offered));
    Ok(ascending)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const RATES: [f64; 7] = [100.0, 500.0, 1000.0, 2500.0, 5000.0, 7500.0, 10_000.0];

    fn table(achieved: impl Fn(f64) -> f64) -> Vec<RateStep> {
        RATES.iter().map(|&offered| RateStep { offered, achieved: achieved(offered) }).collect()
    }

    fn rate() -> impl Strategy<Value = RateStep> {
        (1.0..1e4f64, 0.0..1.2f64)
            .prop_map(|(offered, share)| RateStep { offered, achieved: offered * share })
    }

    #[test]
    fn a_table_that_can_not_be_read_is_refused() {
        assert_eq!(knee(&[], 0.99), Err(KneeError::NoSteps));
        assert_eq!(fitted_capacity(&[]), Err(KneeError::NoSteps));
        for (offered, achieved) in
            [(0.0, 0.0), (-1.0, 1.0), (1.0, -1.0), (f64::NAN, 1.0), (1.0, f64::INFINITY)]
        {
            let steps = [RateStep { offered: 1.0, achieved: 1.0 }, RateStep { offered, achieved }];
            assert!(matches!(knee(&steps, 0.99), Err(KneeError::NoRate { index: 1, .. })), "{steps:?}");
        }
        for ratio in [-0.1, 1.1, f64::NAN] {
            assert!(matches!(knee(&table(|r| r), ratio), Err(KneeError::Ratio { .. })), "{ratio}");
        }
    }

    #[test]
    fn a_service_that_can_do_3000_and_no_more_stops_following_at_5000() {
        let steps = table(|rate| rate.min(3000.0));
        let knee = knee(&steps, 0.99).unwrap().unwrap();
        assert_eq!((knee.index, knee.step.offered, knee.step.achieved), (4, 5000.0, 3000.0));
        assert_eq!(knee.followed_up_to, Some(2500.0));
        assert_eq!(fitted_capacity(&steps), Ok(Some(3000.0)));
    }

    #[test]
    fn a_service_that_follows_has_no_knee() {
        assert_eq!(knee(&table(|rate| rate * 0.99), 0.99), Ok(None));
        assert_eq!(fitted_capacity(&table(|rate| rate)), Ok(None));
        let knee = knee(&table(|_| 0.0), 0.99).unwrap().unwrap();
        assert_eq!((knee.index, knee.followed_up_to), (0, None));
    }

    #[test]
    fn a_rate_followed_only_once_of_twice_is_not_followed() {
        let steps = [(100.0, 100.0), (200.0, 200.0), (200.0, 150.0)]
            .map(|(offered, achieved)| RateStep { offered, achieved });
        let knee = knee(&steps, 0.99).unwrap().unwrap();
        assert_eq!((knee.index, knee.followed_up_to), (2, Some(100.0)));
    }

    proptest! {
        #[test]
        fn the_knee_is_the_lowest_rate_not_followed(steps in vec(rate(), 1..20), ratio in 0.0..=1.0f64) {
            let lowest = steps
                .iter()
                .filter(|step| step.achieved < ratio * step.offered)
                .map(|step| step.offered)
                .fold(f64::INFINITY, f64::min);
            match knee(&steps, ratio).unwrap() {
                None => prop_assert!(lowest.is_infinite()),
                Some(found) => {
                    prop_assert_eq!(found.step.offered, lowest);
                    prop_assert_eq!(found.step, steps[found.index]);
                    let below = steps.iter().map(|s| s.offered).filter(|&o| o < lowest).fold(0.0, f64::max);
                    prop_assert_eq!(found.followed_up_to.unwrap_or(0.0), below);
                }
            }
        }

        #[test]
        fn the_capacity_is_found_wherever_the_table_reaches_beyond_it(capacity in 50.0..9_999.0f64) {
            let fitted = fitted_capacity(&table(|rate| rate.min(capacity))).unwrap().unwrap();
            prop_assert!((fitted - capacity).abs() < 1e-6 * capacity);
        }

        #[test]
        fn no_other_capacity_lies_closer(steps in vec(rate(), 1..12)) {
            let fitted = fitted_capacity(&steps).unwrap().unwrap_or(f64::INFINITY);
            let least = broken_line_error(&steps, fitted);
            for tried in (0..=1_000).map(|i| f64::from(i) * 10.0) {
                let other = broken_line_error(&steps, tried);
                prop_assert!(least <= other * (1.0 + 1e-12) + 1e-6, "{tried} fits better than {fitted}");
            }
        }
    }
}
