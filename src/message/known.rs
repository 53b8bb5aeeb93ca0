//! What is known of the next message before it comes: mostly its number is the one after the last, and its time that of
//! the last. Where that is so it is compared and not read.

use bytes::BytesMut;

use super::WallTime;

/// A number as text, which mostly is the next: then little of the text changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counter {
    n: u64,
    /// Its digits, the first in the lowest byte, where they are no more than eight.
    text: u64,
    /// How many they are; 0, where they are more.
    len: usize,
}

impl Counter {
    pub(super) fn at(n: u64) -> Self {
        let (text, len) = if n < E8 { short(n) } else { (0, 0) };
        Self { n, text, len }
    }

    #[inline]
    pub(super) fn move_to(&mut self, n: u64) {
        if self.n == n {
            return;
        }
        let last_at = 8 * self.len.saturating_sub(1);
        let last = (self.text >> last_at) as u8;
        if self.n.checked_add(1) == Some(n) && (b'0'..=b'8').contains(&last) {
            self.text += 1 << last_at;
            self.n = n;
        } else {
            *self = Self::at(n);
        }
    }

    #[inline]
    pub(super) fn append_to(&self, out: &mut BytesMut) {
        match self.len {
            0 => append_integer(out, self.n),
            len => append_start(out, &self.text.to_le_bytes(), len),
        }
    }

    /// The number and how many digits it has, where `bytes` start with them, and it is not too long to be compared at once.
    #[inline]
    pub(super) fn starts(&self, bytes: &[u8]) -> Option<(u64, usize)> {
        let there = u64::from_le_bytes(*bytes.first_chunk()?);
        let same = self.len > 0 && (there ^ self.text) << (64 - 8 * self.len) == 0;
        same.then_some((self.n, self.len))
    }
}

/// The last time, with its text of ten digits, a point and six.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnownTime {
    pub(super) text: [u8; 17],
    pub(super) time: WallTime,
}

impl Default for KnownTime {
    /// A time like any other: whatever is known must be true.
    fn default() -> Self {
        Self { text: *b"1000000000.000000", time: WallTime::from_unix_ns(1_000_000_000 * 1_000_000_000) }
    }
}

/// Appends the first `len` bytes of `text`. All are copied, and the rest cut off again: copies of a fixed length are cheap.
#[inline]
pub(super) fn append_start<const N: usize>(out: &mut BytesMut, text: &[u8; N], len: usize) {
    let end = out.len() + len;
    out.extend_from_slice(text);
    out.truncate(end);
}

const E8: u64 = 100_000_000;

/// Appends a number.
///
/// Eight digits at a time, in a register: what is written byte by byte and then copied as a whole waits until all bytes have
/// arrived in the cache.
#[inline]
pub(super) fn append_integer(out: &mut BytesMut, n: u64) {
    if n >= E8 {
        append_integer_above(out, n / E8);
        out.extend_from_slice(&(digits(n % E8) | ZEROS).to_le_bytes());
    } else {
        let (text, len) = short(n);
        append_start(out, &text.to_le_bytes(), len);
    }
}

/// What stands before the last eight digits.
fn append_integer_above(out: &mut BytesMut, n: u64) {
    append_integer(out, n);
}

const ZEROS: u64 = 0x3030_3030_3030_3030;

/// The text of a number below 10^8 without zeros in front, its first digit in the lowest byte, and its length.
#[inline]
fn short(n: u64) -> (u64, usize) {
    let digits = digits(n);
    let zeros = (digits.trailing_zeros() as usize / 8).min(7);
    ((digits | ZEROS) >> (8 * zeros), 8 - zeros)
}

/// The eight digits of a number below 10^8, the first in the lowest byte: halves of four digits, quarters of two and single
/// ones are parted by multiplications with inverses of 100 and 10 (Mula, "SSE: conversion integers to decimal
/// representation", in one register).
#[inline]
fn digits(n: u64) -> u64 {
    let halves = (n / 10_000) | (n % 10_000) << 32;
    let hundreds = ((halves * 10_486) >> 20) & 0x7f_0000_007f;
    let quarters = ((halves - 100 * hundreds) << 16) + hundreds;
    let tens = ((quarters * 103) >> 10) & 0x000f_000f_000f_000f;
    tens + ((quarters - 10 * tens) << 8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_counter_counts() {
        let mut counter = Counter::at(0);
        for n in (0..2_000).chain([9_999, 10_000, 3, u64::MAX, u64::MAX - 1, u64::MAX, 0]) {
            counter.move_to(n);
            let mut out = BytesMut::from(&b"x"[..]);
            counter.append_to(&mut out);
            assert_eq!(out, format!("x{n}").as_bytes());
        }
    }

    proptest! {
        #[test]
        fn what_starts_with_the_number_is_known(n in 0_u64..2_000_000_000, other: u32, behind in "[\",}]{8}") {
            let counter = Counter::at(n);
            let text = n.to_string();
            let expected = (text.len() <= 8).then_some((n, text.len()));
            prop_assert_eq!(counter.starts(format!("{n}{behind}").as_bytes()), expected);
            let other = format!("{other}{behind}");
            prop_assert_eq!(counter.starts(other.as_bytes()).is_some(), expected.is_some() && other.starts_with(&text));
        }

        #[test]
        fn integers_are_those_of_the_standard_library(n: u64, shift in 0..64_u32) {
            let n = n >> shift;
            let mut out = BytesMut::new();
            append_integer(&mut out, n);
            let expected = n.to_string();
            prop_assert_eq!(&out[..], expected.as_bytes());
        }
    }
}
