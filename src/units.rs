//! Quantities and the only place that formats them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A quantity given by a person could not be read.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum UnitError {
    /// The text is no number, or no number followed by a known unit.
    #[error("`{value}` is not {expected}")]
    Malformed {
        /// What was given.
        value: String,
        /// What would have been understood.
        expected: &'static str,
    },
    /// The number is readable, but outside what makes sense.
    #[error("`{value}` is out of range: {expected}")]
    OutOfRange {
        /// What was given.
        value: String,
        /// The range.
        expected: &'static str,
    },
}

/// Messages per second, finite and above 0, at most a thousand million (one a nanosecond).
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Rate(f64);

impl Rate {
    /// The highest rate that the nanosecond time line can tell apart.
    pub const MAX_PER_SECOND: f64 = 1e9;

    /// A rate of `per_second` messages a second.
    ///
    /// # Errors
    /// Where it is not a number, not above 0, or above [`Rate::MAX_PER_SECOND`].
    pub fn per_second(per_second: f64) -> Result<Self, UnitError> {
        if per_second.is_finite() && per_second > 0.0 && per_second <= Self::MAX_PER_SECOND {
            Ok(Self(per_second))
        } else {
            Err(UnitError::OutOfRange {
                value: per_second.to_string(),
                expected: "a rate is above 0 and at most 1e9 messages per second",
            })
        }
    }

    /// Messages per second.
    #[must_use]
    pub fn as_per_second(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Rate {
    type Error = UnitError;
    fn try_from(value: f64) -> Result<Self, UnitError> {
        Self::per_second(value)
    }
}

impl From<Rate> for f64 {
    fn from(rate: Rate) -> f64 {
        rate.0
    }
}

impl FromStr for Rate {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let malformed =
            || UnitError::Malformed { value: text.to_owned(), expected: "a number of messages per second" };
        let number: f64 = text.trim().parse().map_err(|_| malformed())?;
        Self::per_second(number).map_err(|_| UnitError::OutOfRange {
            value: text.to_owned(),
            expected: "a rate is above 0 and at most 1e9 messages per second",
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&per_second(self.0))
    }
}

/// Reads a duration: a number with the unit `ns`, `us`, `ms`, `s`, `m` or `h`, or a bare `0`.
///
/// # Errors
/// Where the text has no known unit, or the number is negative, not finite, or beyond a year.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    const EXPECTED: &str = "a duration such as 500ms, 10s or 5m";
    const YEAR_S: f64 = 365.0 * 86_400.0;
    let malformed = || UnitError::Malformed { value: text.to_owned(), expected: EXPECTED };
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| c.is_ascii_alphabetic() || c == 'µ').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let number: f64 = number.trim().parse().map_err(|_| malformed())?;
    let unit_s = match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "" if number == 0.0 => 1.0,
        _ => return Err(malformed()),
    };
    let seconds = number * unit_s;
    if !(0.0..=YEAR_S).contains(&seconds) {
        return Err(UnitError::OutOfRange {
            value: text.to_owned(),
            expected: "a duration is between 0 and a year",
        });
    }
    Ok(Duration::from_nanos((seconds * 1e9).round() as u64))
}

/// Reads a byte count: a whole number, with `B`, `KiB`, `MiB` or `GiB` or nothing behind it.
///
/// # Errors
/// Where the text is no whole number of bytes, or more than 2^63.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let malformed =
        || UnitError::Malformed { value: text.to_owned(), expected: "a size such as 64, 1KiB or 16MiB" };
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let number: u64 = number.trim().parse().map_err(|_| malformed())?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" | "k" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return Err(malformed()),
    };
    number.checked_mul(factor).filter(|&bytes| bytes < 1 << 63).ok_or_else(malformed)
}

/// A latency for people: three significant digits, the unit that fits.
#[must_use]
pub fn latency_us(microseconds: f64) -> String {
    let (value, unit) = match microseconds.abs() {
        us if us < 1_000.0 => (microseconds, "µs"),
        us if us < 1_000_000.0 => (microseconds / 1e3, "ms"),
        _ => (microseconds / 1e6, "s"),
    };
    format!("{} {unit}", three_digits(value))
}

/// A span of time for people: `0.5 s`, `10 s`, `5 min 10 s`.
#[must_use]
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 120.0 {
        return latency_us(seconds * 1e6);
    }
    let whole = duration.as_secs();
    match (whole / 3_600, whole % 3_600 / 60, whole % 60) {
        (0, minutes, 0) => format!("{minutes} min"),
        (0, minutes, rest) => format!("{minutes} min {rest} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// How long ago something was, for people: in one unit, rounded down.
#[must_use]
pub fn age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// A message rate for people, with thousands set apart.
#[must_use]
pub fn per_second(rate: f64) -> String {
    if rate < 100.0 && rate.fract() != 0.0 {
        return format!("{} msg/s", three_digits(rate));
    }
    format!("{} msg/s", count(rate.round() as u64))
}

/// A count for people, with thousands set apart.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A byte count for people, in powers of 1024.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{} {}", three_digits(value), UNITS[unit]) }
}

/// A share between 0 and 1 as per cent.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_that_make_no_sense_are_refused() {
        for text in ["0", "-1", "NaN", "1e309", "inf", "fast", "", "1e10"] {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
        assert_eq!("2500".parse::<Rate>().unwrap().as_per_second(), 2500.0);
        assert_eq!("0.5".parse::<Rate>().unwrap().to_string(), "0.50 msg/s");
    }

    #[test]
    fn durations_read_as_written() {
        assert_eq!(parse_duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(parse_duration("1.5 s").unwrap(), Duration::from_millis(1500));
        assert_eq!(parse_duration("0").unwrap(), Duration::ZERO);
        assert_eq!(parse_duration("2h").unwrap(), Duration::from_secs(7200));
        for text in ["10", "-1s", "10 parsecs", "s", "1e300h", "NaNs", "infs"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_as_written() {
        assert_eq!(parse_bytes("64").unwrap(), 64);
        assert_eq!(parse_bytes("1KiB").unwrap(), 1024);
        for text in ["-1", "1.5MiB", "1 KB?", "", "9999999999GiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quantities_are_written_for_people() {
        assert_eq!(latency_us(0.0), "0.00 µs");
        assert_eq!(latency_us(999.4), "999 µs");
        assert_eq!(latency_us(41_230.0), "41.2 ms");
        assert_eq!(latency_us(2_500_000.0), "2.50 s");
        assert_eq!(per_second(9_999.7), "10,000 msg/s");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(bytes(5_000_000), "4.77 MiB");
        assert_eq!(span(Duration::from_secs(310)), "5 min 10 s");
        let ages = [59, 60, 7_199, 7_200, 172_799, 172_800].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["59 s", "1 min", "1 h", "2 h", "47 h", "2 days"]);
    }
}
