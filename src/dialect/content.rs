//! Message contents as a function of (seed, connection, sequence), so that an answer can be checked without keeping what
//! was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::schedule::mix;

/// How many different contents there are: enough that a neighbour's is practically never the same.
const OFFSETS: usize = 1 << 16;

/// Letters, digits and a few marks: 64 characters that JSON needs not escape.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 .";

/// Contents of one size. Each is a stretch of one random text, so making it costs nothing.
#[derive(Debug, Clone)]
pub struct Content {
    text: Arc<str>,
    /// The CRC-32 of the content at each offset, once it was asked for; before that, 0.
    checksums: Arc<[AtomicU32]>,
    bytes: usize,
    seed: u64,
}

impl Content {
    /// Contents of `bytes` bytes each.
    #[must_use]
    pub fn new(seed: u64, bytes: usize) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let length = if bytes == 0 { 0 } else { OFFSETS + bytes };
        let text: String =
            (0..length).map(|_| char::from(ALPHABET[(rng.next_u64() >> 58) as usize])).collect();
        let checksums = (0..length.min(OFFSETS)).map(|_| AtomicU32::new(0)).collect();
        Self { text: text.into(), checksums, bytes, seed }
    }

    /// The content of message `sequence` of `connection`.
    #[inline]
    #[must_use]
    pub fn of(&self, connection: u32, sequence: u64) -> &str {
        if self.bytes == 0 {
            return "";
        }
        let offset = self.offset(connection, sequence);
        // ASCII throughout, so every byte is a boundary.
        self.text.get(offset..offset + self.bytes).unwrap_or_default()
    }

    /// The CRC-32 (IEEE) of that content.
    #[inline]
    #[must_use]
    pub fn checksum_of(&self, connection: u32, sequence: u64) -> u32 {
        let checksum = || crc32fast::hash(self.of(connection, sequence).as_bytes());
        let Some(known) = self.checksums.get(self.offset(connection, sequence)) else {
            return checksum();
        };
        match known.load(Ordering::Relaxed) {
            0 => {
                let checksum = checksum();
                known.store(checksum, Ordering::Relaxed);
                checksum
            }
            known => known,
        }
    }

    #[inline]
    fn offset(&self, connection: u32, sequence: u64) -> usize {
        mix(self.seed ^ u64::from(connection), sequence) as usize % OFFSETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_repeat_and_differ() {
        let content = Content::new(1, 64);
        assert_eq!(content.of(3, 9).len(), 64);
        assert_eq!(content.of(3, 9), Content::new(1, 64).of(3, 9));
        assert_ne!(content.of(3, 9), content.of(3, 10));
        assert_ne!(content.of(3, 9), content.of(4, 9));
        assert_ne!(content.of(3, 9), Content::new(2, 64).of(3, 9));
        for bytes in [0, 64] {
            let content = Content::new(1, bytes);
            let checksum = crc32fast::hash(content.of(3, 9).as_bytes());
            assert_eq!([content.checksum_of(3, 9), content.checksum_of(3, 9)], [checksum; 2]);
        }
        assert_eq!(Content::new(1, 0).of(0, 0), "");
    }
}
