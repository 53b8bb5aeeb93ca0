//! How each kind of value is written in TOML and what is refused on the way in, as serde `with` modules.
//!
//! The checks of a single value sit here and nowhere else: a file, the environment and
//! [`validate`](super::HighVolumeConfig::validate) all pass through them.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::units::{self, Rate};

/// A duration above 0, as text: `500ms`, `10s`, `5m`.
pub(super) mod duration {
    use super::*;

    pub(crate) use super::duration_or_zero::serialize;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let duration = duration_or_zero::deserialize(from)?;
        if duration.is_zero() {
            return Err(de::Error::custom("must be above 0"));
        }
        Ok(duration)
    }
}

/// A duration that may be 0, as text.
pub(super) mod duration_or_zero {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&exact_duration(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Duration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration in quotes such as \"500ms\", \"10s\" or \"5m\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                units::parse_duration(text).map_err(E::custom)
            }
        }
        from.deserialize_any(Text)
    }
}

/// Bytes above 0, as an integer or as text: `1024`, `"1KiB"`.
pub(super) mod size {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(bytes: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(*bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        struct Size;
        impl Visitor<'_> for Size {
            type Value = u64;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size above 0 such as 64, \"1KiB\" or \"16MiB\"")
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<u64, E> {
                if bytes == 0 { Err(E::custom("must be above 0")) } else { Ok(bytes) }
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<u64, E> {
                match u64::try_from(bytes) {
                    Ok(bytes) => self.visit_u64(bytes),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(bytes), &self)),
                }
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
                self.visit_u64(units::parse_bytes(text).map_err(E::custom)?)
            }
        }
        from.deserialize_any(Size)
    }
}

/// A whole number above 0.
pub(super) mod count {
    use super::*;

    pub(crate) fn serialize<T: Serialize, S: Serializer>(count: &T, to: S) -> Result<S::Ok, S::Error> {
        count.serialize(to)
    }

    pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: Deserialize<'de> + Default + PartialEq,
        D: Deserializer<'de>,
    {
        let count = T::deserialize(from)?;
        if count == T::default() {
            return Err(de::Error::custom("must be above 0"));
        }
        Ok(count)
    }
}

/// A share of a whole: between 0 and 1.
pub(super) mod ratio {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(ratio: &f64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(*ratio)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        let ratio = f64::deserialize(from)?;
        if !(0.0..=1.0).contains(&ratio) {
            return Err(de::Error::custom("a ratio is between 0 and 1"));
        }
        Ok(ratio)
    }
}

/// A finite number above 0.
pub(super) mod positive {
    use super::*;

    pub(crate) use super::ratio::serialize;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        let number = f64::deserialize(from)?;
        if !(number.is_finite() && number > 0.0) {
            return Err(de::Error::custom("must be a finite number above 0"));
        }
        Ok(number)
    }
}

/// A text that may be absent, which TOML (it has no null) writes as `""`.
pub(super) mod optional {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(text: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text.as_deref().unwrap_or_default())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
        Ok(Some(String::deserialize(from)?).filter(|text| !text.is_empty()))
    }
}

/// A table of rates, strictly ascending and not empty.
pub(super) mod rates {
    use super::*;

    pub(crate) use super::count::serialize;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Rate>, D::Error> {
        ascending(Vec::deserialize(from)?)
    }
}

/// A table of connection counts, strictly ascending from at least 1 and not empty.
pub(super) mod connections {
    use super::*;

    pub(crate) use super::count::serialize;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u32>, D::Error> {
        let table = Vec::deserialize(from)?;
        if table.contains(&0) {
            return Err(de::Error::custom("a connection count must be above 0"));
        }
        ascending(table)
    }
}

fn ascending<T: PartialOrd, E: de::Error>(table: Vec<T>) -> Result<Vec<T>, E> {
    if table.is_empty() {
        return Err(E::custom("the table must not be empty"));
    }
    if !table.is_sorted_by(|earlier, later| earlier < later) {
        return Err(E::custom("the table must ascend, each value once"));
    }
    Ok(table)
}

/// The duration in the largest unit that leaves a whole number, so that it reads back unchanged.
pub(super) fn exact_duration(duration: Duration) -> String {
    const UNITS: [(u128, &str); 3] = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
    let ns = duration.as_nanos();
    let fitting = UNITS.iter().find(|(unit_ns, _)| ns.is_multiple_of(*unit_ns));
    fitting.map_or_else(|| format!("{ns}ns"), |(unit_ns, unit)| format!("{}{unit}", ns / unit_ns))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// `parse_duration` computes in `f64`, exact to the nanosecond for the weeks that a run may last.
        #[test]
        fn durations_read_back_unchanged(ns in 0u64..14 * 86_400 * 1_000_000_000, unit in prop::sample::select(vec![1u64, 1_000, 1_000_000, 1_000_000_000])) {
            let duration = Duration::from_nanos(ns / unit * unit);
            prop_assert_eq!(units::parse_duration(&exact_duration(duration)), Ok(duration));
        }
    }
}
