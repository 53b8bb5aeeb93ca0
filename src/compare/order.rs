//! Which of the two comes first in each pair.
//!
//! It is drawn by lot, half of the pairs either way (R. A. Fisher, "The Design of Experiments", 1935, on randomisation): in a
//! strict A B, B A, A B … whatever comes round on the machine every fourth turn falls on the same one each time, and two of
//! the same differ.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;

/// Who comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// A, then B.
    Ab,
    /// B, then A.
    Ba,
}

impl Order {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ab => "AB",
            Self::Ba => "BA",
        }
    }
}

/// The order of so many pairs; of an odd number one more begins with the one that the seed says.
pub(super) fn drawn(pairs: u32, seed: u64) -> Vec<Order> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut two = [Order::Ab, Order::Ba];
    two.shuffle(&mut random);
    let mut order: Vec<Order> = two.into_iter().cycle().take(pairs as usize).collect();
    order.shuffle(&mut random);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn half_of_the_pairs_begin_with_either(pairs in 0_u32..200, seed: u64) {
            let order = drawn(pairs, seed);
            let a_first = order.iter().filter(|&&order| order == Order::Ab).count();
            prop_assert_eq!(order.len(), pairs as usize);
            prop_assert!(a_first.abs_diff(order.len() - a_first) <= 1);
        }
    }

    /// Something that makes every fourth turn and the one after it slow falls on one of the two in every pair where they take
    /// turns strictly, and never in so many when drawn.
    #[test]
    fn what_comes_round_every_fourth_turn_falls_on_both() {
        let slower = |order: &[Order]| {
            let slow_is_b = |(pair, order): (usize, &Order)| (*order == Order::Ab) == (pair % 2 == 0);
            order.iter().enumerate().filter(|&pair| slow_is_b(pair)).count()
        };
        let strict: Vec<Order> = [Order::Ab, Order::Ba].into_iter().cycle().take(15).collect();
        assert_eq!(slower(&strict), 15);
        let seeds = 0..1_000;
        let counts: Vec<usize> = seeds.map(|seed| slower(&drawn(15, seed))).collect();
        assert!(counts.iter().filter(|&&count| !(3..=12).contains(&count)).count() < 50, "{counts:?}");
        let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
        assert!((7.0..8.0).contains(&mean), "{mean}");
    }
}
