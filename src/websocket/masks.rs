//! The keys by which a client masks its frames.

use std::hash::{BuildHasher, Hasher, RandomState};

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// A new key for each frame.
///
/// Section 5.3 of RFC 6455 wants keys that whoever supplies the payload cannot foresee, so that it cannot choose what
/// stands on the wire. Here nobody but the load generator supplies any, so a fast generator will do that is seeded by the
/// system, and is not made to withstand an attack on its state.
#[derive(Debug, Clone)]
pub struct Masks {
    random: Xoshiro256PlusPlus,
    /// The half of the last 64 random bits that is not used yet.
    spare: Option<u32>,
}

impl Masks {
    /// Keys that no other run has.
    #[must_use]
    pub fn from_system() -> Self {
        // The standard library seeds its hashers by the system's random numbers.
        Self::seeded(RandomState::new().build_hasher().finish())
    }

    /// The keys that follow from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { random: Xoshiro256PlusPlus::seed_from_u64(seed), spare: None }
    }

    /// The next key.
    #[inline]
    pub fn next_key(&mut self) -> [u8; 4] {
        let key = self.spare.take().unwrap_or_else(|| {
            let bits = self.random.next_u64();
            self.spare = Some((bits >> 32) as u32);
            bits as u32
        });
        key.to_ne_bytes()
    }
}
