//! Serde for a histogram as base64 of its HdrHistogram V2 (deflate) form.

use super::*;
use serde::de::Error as _;
use serde::ser::Error as _;

pub(super) fn serialize<S: Serializer>(
    histogram: &LatencyHistogram,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(&histogram.counts(), &mut bytes)
        .map_err(|error| S::Error::custom(format!("a histogram does not serialise: {error:?}")))?;
    serializer.serialize_str(&BASE64.encode(bytes))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LatencyHistogram, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = BASE64.decode(text).map_err(|error| D::Error::custom(format!("not base64: {error}")))?;
    let counts = HdrDeserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| D::Error::custom(format!("not an HdrHistogram: {error:?}")))?;
    Ok(LatencyHistogram::from_counts(&counts, 0))
}
