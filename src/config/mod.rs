//! [`HighVolumeConfig`]: every number of the cases, as a default that a file or the environment can change.
//!
//! Layers, the later one wins: defaults, the profile's sizes, the file (`floodline.toml`), the
//! environment, and what the
//! caller sets in the public fields afterwards (followed by [`HighVolumeConfig::validate`]).
//!
//! In the file each section is a table, durations are text (`"10s"`), sizes are integers or text
//! (`"1KiB"`), and what is absent is `""`.
//! In the environment a key is `FLOODLINE_` and its path in capitals, joined with `_`:
//! `rate_scaling.limits.r_squared` is `FLOODLINE_RATE_SCALING_LIMITS_R_SQUARED`, a table is a list
//! (`FLOODLINE_RATES=100,500`).
//! Names are looked up whole in the list of all keys, never split, so an underscore is never ambiguous.
//! Short forms: `FLOODLINE_TARGET`, `FLOODLINE_DIALECT`, `FLOODLINE_TOKEN_ENV` set `target.url`,
//! `target.dialect`, `target.token_env`.

mod cases;
mod check;
mod dialect;
mod error;
mod limits;
mod load;
mod profile;
mod section;
mod suggest;
mod text;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use cases::{
    AuthConfig, AuthLimits, BackpressureConfig, BackpressureLimits, ConnectionScalingConfig,
    ConnectionScalingLimits, DeliveryConfig, DeliveryLimits, LatencyConfig, LatencyLimits, MemoryConfig,
    MemoryLimits, OrderingConfig, PeakConfig, RateScalingConfig, RateScalingLimits, RecoveryConfig,
    RecoveryLimits,
};
pub use dialect::{
    DialectConfig, EchoConfig, EchoFrames, JsonConfig, MqttConfig, NatsConfig, SocketioConfig, StompConfig,
};
pub use error::{ConfigError, Contradiction, Origin, Setting};
pub use limits::{GuardConfig, Limits, LoadConfig, TargetConfig};
pub use load::environment;
pub use profile::{Profile, UnknownProfile};

use crate::units::Rate;
use section::rate;

/// All settings, validated where they come from [`HighVolumeConfig::load`].
///
/// ```
/// use floodline::config::{HighVolumeConfig, Profile};
///
/// let env = [("FLOODLINE_LIMITS_P99".to_owned(), "400ms".to_owned())];
/// # let dir = tempfile::tempdir()?;
/// # let file = dir.path().join("floodline.toml");
/// # std::fs::write(&file, "[latency]\nrate = 2000\n")?;
/// let config = HighVolumeConfig::load(Some(&file), env.into_iter(), Some(Profile::Smoke))?;
/// assert_eq!(config.limits.p99.as_millis(), 400);
/// assert_eq!(config.latency.rate.as_per_second(), 2_000.0);
/// assert_eq!(config.latency.duration.as_secs(), 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HighVolumeConfig {
    /// The size of the cases.
    pub profile: Profile,
    /// Rates of `rate_scaling`, ascending.
    #[serde(with = "text::rates")]
    pub rates: Vec<Rate>,
    /// Connection counts of `connection_scaling`, ascending.
    #[serde(with = "text::connections")]
    pub connections: Vec<u32>,
    /// The service under test.
    pub target: TargetConfig,
    /// What no run goes beyond.
    pub guard: GuardConfig,
    /// The dialects, where there is a choice.
    pub dialect: DialectConfig,
    /// The load where nothing else is said.
    pub load: LoadConfig,
    /// Limits that cases share.
    pub limits: Limits,
    /// Case 1.
    pub rate_scaling: RateScalingConfig,
    /// Case 2.
    pub ordering: OrderingConfig,
    /// Case 3.
    pub delivery: DeliveryConfig,
    /// Case 4.
    pub backpressure: BackpressureConfig,
    /// Case 5.
    pub latency: LatencyConfig,
    /// Case 6.
    pub connection_scaling: ConnectionScalingConfig,
    /// Case 7.
    pub memory: MemoryConfig,
    /// Case 8.
    pub recovery: RecoveryConfig,
    /// The benchmark.
    pub peak: PeakConfig,
    /// The case beside these.
    pub auth: AuthConfig,
}

impl Default for HighVolumeConfig {
    /// The defaults at the sizes of the default profile, `quick`.
    fn default() -> Self {
        Self::for_profile(Profile::default())
    }
}

impl HighVolumeConfig {
    /// The effective configuration, every key, as a file that loads to the same value.
    ///
    /// # Errors
    /// Where a number is beyond TOML's 63 bits.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|cause| ConfigError::NotToml { cause: cause.to_string() })
    }

    fn full() -> Self {
        Self {
            profile: Profile::Full,
            rates: [100, 500, 1_000, 2_500, 5_000, 7_500, 10_000].map(rate).to_vec(),
            connections: vec![1, 10, 50, 100, 250, 500],
            target: TargetConfig::default(),
            guard: GuardConfig::default(),
            dialect: DialectConfig::default(),
            load: LoadConfig::default(),
            limits: Limits::default(),
            rate_scaling: RateScalingConfig::default(),
            ordering: OrderingConfig::default(),
            delivery: DeliveryConfig::default(),
            backpressure: BackpressureConfig::default(),
            latency: LatencyConfig::default(),
            connection_scaling: ConnectionScalingConfig::default(),
            memory: MemoryConfig::default(),
            recovery: RecoveryConfig::default(),
            peak: PeakConfig::default(),
            auth: AuthConfig::default(),
        }
    }
}
