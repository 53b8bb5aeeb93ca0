//! The search for the highest rate that holds: which rate to try next, given how the ones before it ended. No clock, no
//! load: whoever runs it tries a rate and says how that went.
//!
//! Ramp: from the start rate, doubled while it holds, up to the ceiling; where the start itself does not hold, halved
//! until a rate does. Bisect: between the highest rate that held and the lowest that did not, at their geometric mean,
//! until they are as near as the resolution asks for.
//!
//! A rate that did not hold is tried once more before the search believes it, so that one hiccup of the machine does not
//! end the ramp far below the truth. This favours `held`: a rate at the edge gets two chances. It cannot raise the figure
//! that is reported, because the search only proposes: what is reported must hold in each of the confirming runs, none of
//! which is tried again.

use thiserror::Error;

/// Halvings below the start rate before the search gives up: a thousandth of it is no rate anybody asked about.
const HALVINGS: u32 = 10;

/// How one try of a rate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryOutcome {
    /// The rate held.
    Held,
    /// It did not.
    NotHeld,
    /// It did not, but the generator or the machine may be why. The search goes on below it as if it had not held, for no
    /// higher rate can be offered better.
    Inconclusive,
}

/// Where to search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SearchRange {
    /// The rate to begin with.
    pub start: f64,
    /// No rate above it is tried.
    pub ceiling: f64,
    /// The search ends where `lowest not held ≤ (1 + resolution) × highest held`.
    pub resolution: f64,
}

/// A range that cannot be searched.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum SearchError {
    /// A rate is not finite or not above 0, or the start is above the ceiling.
    #[error("cannot search from {start} up to {ceiling} msg/s")]
    Range {
        /// The start.
        start: f64,
        /// The ceiling.
        ceiling: f64,
    },
    /// Two rates are never nearer than that.
    #[error("the resolution of the search must be above 0, not {resolution}")]
    Resolution {
        /// What was given.
        resolution: f64,
    },
}

/// A search under way, or at its end.
#[derive(Debug, Clone, PartialEq)]
pub struct RateSearch {
    range: SearchRange,
    highest_held: Option<f64>,
    lowest_not_held: Option<f64>,
    /// The rate to try next; `None` where the search is over.
    next: Option<f64>,
    /// Whether `next` has been tried once, in vain.
    again: bool,
}

impl RateSearch {
    /// A search that has tried nothing yet.
    ///
    /// # Errors
    /// Where the range has no rate to try, or no end.
    pub fn new(range: SearchRange) -> Result<Self, SearchError> {
        let SearchRange { start, ceiling, resolution } = range;
        if !(start > 0.0 && start <= ceiling && ceiling.is_finite()) {
            return Err(SearchError::Range { start, ceiling });
        }
        if !(resolution.is_finite() && resolution > 0.0) {
            return Err(SearchError::Resolution { resolution });
        }
        Ok(Self { range, highest_held: None, lowest_not_held: None, next: Some(start), again: false })
    }

    /// The rate to try next; `None` where the search is over.
    #[must_use]
    pub fn next_rate(&self) -> Option<f64> {
        self.next
    }

    /// How the try of [`next_rate`](Self::next_rate) ended. Does nothing where the search is over.
    pub fn record(&mut self, outcome: TryOutcome) {
        let Some(rate) = self.next else { return };
        let held = outcome == TryOutcome::Held;
        if !held && !self.again {
            self.again = true;
            return;
        }
        self.again = false;
        // Every rate after the first lies strictly between the two, so both only move towards each other.
        if held {
            self.highest_held = Some(rate);
        } else {
            self.lowest_not_held = Some(rate);
        }
        self.next = self.after();
    }

    /// The highest rate that held; every rate above it that was tried did not, twice. `None` where none held.
    #[must_use]
    pub fn highest_held(&self) -> Option<f64> {
        self.highest_held
    }

    /// The lowest rate that did not hold, above [`highest_held`](Self::highest_held). `None` where the search never met
    /// one: then the ceiling is all that ended it.
    #[must_use]
    pub fn lowest_not_held(&self) -> Option<f64> {
        self.lowest_not_held
    }

    fn after(&self) -> Option<f64> {
        let SearchRange { start, ceiling, resolution } = self.range;
        match (self.highest_held, self.lowest_not_held) {
            (None, None) => Some(start),
            (Some(held), None) => (held < ceiling).then(|| (2.0 * held).min(ceiling)),
            (None, Some(not_held)) => {
                let half = not_held / 2.0;
                (half >= start / f64::from(1_u32 << HALVINGS)).then_some(half)
            }
            (Some(held), Some(not_held)) => {
                // Two roots, for the product of two rates may be out of range.
                let middle = held.sqrt() * not_held.sqrt();
                // At the limit of doubles the middle is one of the two, and there is nothing left to try.
                let between = held < middle && middle < not_held;
                (between && not_held > (1.0 + resolution) * held).then_some(middle)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Searches to the end against `server`; every try with its outcome.
    fn search(
        range: SearchRange,
        mut server: impl FnMut(f64) -> TryOutcome,
    ) -> (RateSearch, Vec<(f64, TryOutcome)>) {
        let mut search = RateSearch::new(range).unwrap();
        let mut tries = Vec::new();
        while let Some(rate) = search.next_rate() {
            let outcome = server(rate);
            search.record(outcome);
            tries.push((rate, outcome));
            assert!(tries.len() <= most_tries(range), "{tries:?}");
        }
        (search, tries)
    }

    /// By construction: the ramp up or down, then halvings of the distance on a logarithmic scale; each rate twice.
    fn most_tries(range: SearchRange) -> usize {
        let doublings = (range.ceiling / range.start).log2().ceil() as u32;
        let bisections = (2.0_f64.ln() / range.resolution.ln_1p()).log2().ceil().max(0.0) as u32;
        // One more of each for rounding.
        2 * (1 + doublings.max(HALVINGS) + 1 + bisections + 1) as usize
    }

    fn threshold(capacity: f64) -> impl FnMut(f64) -> TryOutcome {
        move |rate| if rate <= capacity { TryOutcome::Held } else { TryOutcome::NotHeld }
    }

    const RANGE: SearchRange = SearchRange { start: 1_000.0, ceiling: 1e6, resolution: 0.05 };

    fn range() -> impl Strategy<Value = SearchRange> {
        (0.0..6.0f64, 0.0..4.0f64, -4.0..0.0f64).prop_map(|(start, above, resolution)| SearchRange {
            start: 10f64.powf(start),
            ceiling: 10f64.powf(start + above),
            resolution: 10f64.powf(resolution),
        })
    }

    fn outcome() -> impl Strategy<Value = TryOutcome> {
        prop_oneof![Just(TryOutcome::Held), Just(TryOutcome::NotHeld), Just(TryOutcome::Inconclusive)]
    }

    #[test]
    fn it_doubles_while_the_rate_holds_and_then_bisects() {
        let (found, tries) = search(RANGE, threshold(3_000.0));
        let rates: Vec<f64> = tries.iter().map(|(rate, _)| rate.round()).collect();
        assert_eq!(
            rates,
            [1_000.0, 2_000.0, 4_000.0, 4_000.0, 2_828.0, 3_364.0, 3_364.0, 3_084.0, 3_084.0, 2_954.0]
        );
        assert_eq!(found.highest_held().map(f64::round), Some(2_954.0));
        assert_eq!(found.lowest_not_held().map(f64::round), Some(3_084.0));
    }

    #[test]
    fn it_halves_where_the_start_does_not_hold_and_gives_up_at_a_thousandth() {
        let (found, _) = search(RANGE, threshold(100.0));
        let held = found.highest_held().unwrap();
        assert!((100.0 / 1.05..=100.0).contains(&held), "{held}");
        let (found, tries) = search(RANGE, |_| TryOutcome::NotHeld);
        assert_eq!(found.highest_held(), None);
        assert_eq!(tries.len(), 2 * 11);
        assert_eq!(found.lowest_not_held(), Some(1_000.0 / 1_024.0));
    }

    #[test]
    fn it_ends_at_the_ceiling() {
        let (found, tries) = search(RANGE, |_| TryOutcome::Held);
        assert_eq!((found.highest_held(), found.lowest_not_held()), (Some(1e6), None));
        assert_eq!(tries.iter().map(|(rate, _)| *rate).fold(0.0, f64::max), 1e6);
    }

    #[test]
    fn one_hiccup_is_forgiven_and_two_are_not() {
        let hiccups = |count: usize| {
            let mut left = count;
            let mut at_2000 = move |rate: f64| {
                let hiccup = rate == 2_000.0 && left > 0;
                left -= usize::from(hiccup);
                hiccup
            };
            move |rate: f64| if at_2000(rate) { TryOutcome::Inconclusive } else { threshold(8_000.0)(rate) }
        };
        assert!(search(RANGE, hiccups(1)).0.highest_held().unwrap() >= 8_000.0 / 1.05);
        assert!(search(RANGE, hiccups(2)).0.highest_held().unwrap() < 2_000.0);
    }

    #[test]
    fn what_cannot_be_searched_is_refused() {
        for (start, ceiling) in
            [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (f64::NAN, 1.0), (1.0, f64::NAN), (1.0, f64::INFINITY)]
        {
            let error = RateSearch::new(SearchRange { start, ceiling, ..RANGE }).unwrap_err();
            assert!(matches!(error, SearchError::Range { .. }), "{error}");
        }
        for resolution in [0.0, -0.1, f64::NAN, f64::INFINITY] {
            let error = RateSearch::new(SearchRange { resolution, ..RANGE }).unwrap_err();
            assert!(matches!(error, SearchError::Resolution { .. }), "{error}");
        }
    }

    #[test]
    fn a_search_that_is_over_stays_over() {
        let (mut found, _) = search(RANGE, threshold(3_000.0));
        let before = found.clone();
        found.record(TryOutcome::Held);
        assert_eq!(found, before);
    }

    proptest! {
        #[test]
        fn a_threshold_is_found_to_the_resolution(range in range(), position in 0.0..1.0f64) {
            // Anywhere from below the lowest rate that is tried to above the ceiling.
            let lowest = range.start / 1_024.0;
            let capacity = lowest / 2.0 * (range.ceiling * 4.0 / lowest).powf(position);
            let (found, _) = search(range, threshold(capacity));
            match found.highest_held() {
                Some(held) => {
                    prop_assert!(held <= capacity);
                    // The brute-force answer: the highest rate up to the ceiling that holds.
                    prop_assert!(held >= capacity.min(range.ceiling) / (1.0 + range.resolution) * (1.0 - 1e-12));
                }
                None => prop_assert!(capacity < lowest),
            }
        }

        #[test]
        fn on_any_server_it_ends_and_names_only_rates_that_held(
            range in range(), outcomes in proptest::collection::vec(outcome(), 200),
        ) {
            let mut coming = outcomes.iter().copied().cycle();
            let (found, tries) = search(range, |_| coming.next().unwrap());
            let held = |rate: f64| tries.contains(&(rate, TryOutcome::Held));
            let failed = |rate: f64| tries.iter().filter(|(tried, outcome)| *tried == rate && *outcome != TryOutcome::Held).count();
            if let Some(rate) = found.highest_held() {
                prop_assert!(held(rate));
                prop_assert_eq!(
                    tries.iter().filter(|(_, o)| *o == TryOutcome::Held).map(|(r, _)| *r).fold(0.0, f64::max), rate
                );
                prop_assert!(rate <= range.ceiling);
            }
            if let Some(rate) = found.lowest_not_held() {
                prop_assert_eq!(failed(rate), 2);
                prop_assert!(found.highest_held().is_none_or(|held| held < rate));
            }
        }

        #[test]
        fn a_noisy_server_is_never_credited_above_its_noise(
            range in range(), position in 0.0..1.0f64, luck in proptest::collection::vec(0.7..1.3f64, 200),
        ) {
            // Each try meets a capacity of its own, up to 30 % off.
            let capacity = range.start * (range.ceiling / range.start).powf(position);
            let mut luck = luck.iter().cycle();
            let (found, _) = search(range, |rate| threshold(capacity * luck.next().unwrap())(rate));
            let best = 1.3 * capacity;
            prop_assert!(found.highest_held().is_none_or(|held| held <= best));
        }
    }
}
