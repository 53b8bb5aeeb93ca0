//! Seeded draws.

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// A stream of draws that depends on nothing but the numbers that it is made from.
#[derive(Debug, Clone)]
pub(super) struct Draws(SplitMix64);

impl Draws {
    /// The stream that belongs to `key`: each number is stirred in by one SplitMix64 step, so that
    /// neighbouring keys (connection 7, occurrence 3) have unrelated streams.
    pub(super) fn new(key: &[u64]) -> Self {
        let stir = |state: u64, part: &u64| SplitMix64::from_seed((state ^ part).to_le_bytes()).next_u64();
        Self(SplitMix64::from_seed(key.iter().fold(0, stir).to_le_bytes()))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A draw from `0..bound`, uniform to within `bound / 2^64`: the high half of a product (Lemire, *Fast
    /// Random Integer Generation in an Interval*, 2019, without its rejection step). 0 where `bound` is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}
