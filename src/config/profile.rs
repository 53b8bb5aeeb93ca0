//! The profiles: the same criteria at three sizes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::HighVolumeConfig;

/// How large the cases are. It scales durations, counts and capacities only, never a limit or a ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// All cases in about two minutes: for tests and `cargo bench -- --test`.
    Smoke,
    /// All cases in about six minutes: what `cargo bench` does.
    #[default]
    Quick,
    /// The sizes of the requirements: about 45 minutes.
    Full,
}

impl Profile {
    /// All profiles, the smallest first.
    pub const ALL: [Self; 3] = [Self::Smoke, Self::Quick, Self::Full];

    /// The name in files, flags and the environment.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Quick => "quick",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No profile has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected `smoke`, `quick` or `full`")]
pub struct UnknownProfile;

impl FromStr for Profile {
    type Err = UnknownProfile;
    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        Self::ALL.into_iter().find(|profile| profile.name() == name).ok_or(UnknownProfile)
    }
}

/// All that a profile may change. The sections' defaults are the sizes of `full`.
struct Sizes {
    ramp: Duration,
    rate_scaling_hold: Duration,
    ordering_messages: u64,
    ordering_messages_per_connection: u64,
    delivery_messages: u64,
    delivery_kill_period: Duration,
    delivery_kills: u32,
    backpressure_messages: u64,
    backpressure_queue: u64,
    backpressure_baseline: Duration,
    latency_duration: Duration,
    connection_scaling_hold: Duration,
    memory_fill_messages: u64,
    memory_duration: Duration,
    memory_warm_up: Duration,
    memory_idle: Duration,
    recovery_baseline: Duration,
    recovery_fault: Duration,
    peak_hold: Duration,
    peak_confirm: Duration,
    peak_burst_messages: u64,
    auth_baseline: Duration,
    auth_siege: Duration,
}

const QUICK: Sizes = Sizes {
    ramp: Duration::from_millis(500),
    rate_scaling_hold: Duration::from_secs(5),
    ordering_messages: 5_000,
    ordering_messages_per_connection: 500,
    // 30 s at 50 msg/s, killed at 8, 16 and 24 s: the 5 s that recovery may take end under load.
    delivery_messages: 1_500,
    delivery_kill_period: Duration::from_secs(8),
    delivery_kills: 3,
    // Messages and queue scale alike (by 0.45), so the queue is full after the same share of the load
    // (about 3 s).
    backpressure_messages: 6_750,
    backpressure_queue: 4_500,
    backpressure_baseline: Duration::from_secs(3),
    latency_duration: Duration::from_secs(30),
    connection_scaling_hold: Duration::from_secs(5),
    memory_fill_messages: 50_000,
    memory_duration: Duration::from_secs(30),
    memory_warm_up: Duration::from_secs(5),
    memory_idle: Duration::from_secs(10),
    recovery_baseline: Duration::from_secs(5),
    recovery_fault: Duration::from_secs(5),
    peak_hold: Duration::from_secs(2),
    peak_confirm: Duration::from_secs(10),
    peak_burst_messages: 50_000,
    auth_baseline: Duration::from_secs(3),
    auth_siege: Duration::from_secs(5),
};

const SMOKE: Sizes = Sizes {
    ramp: Duration::from_millis(100),
    // 100 messages at the lowest rate: 99 % is still a whole number of them.
    rate_scaling_hold: Duration::from_secs(1),
    ordering_messages: 2_000,
    ordering_messages_per_connection: 200,
    // 10 s at 50 msg/s, killed once, at 4 s.
    delivery_messages: 500,
    delivery_kill_period: Duration::from_secs(4),
    delivery_kills: 1,
    // By 0.225: full after about 1.5 s.
    backpressure_messages: 3_375,
    backpressure_queue: 2_250,
    backpressure_baseline: Duration::from_millis(1_500),
    // Five windows of 5,000 messages: enough for a percentile each and a slope over them.
    latency_duration: Duration::from_secs(5),
    connection_scaling_hold: Duration::from_secs(1),
    memory_fill_messages: 10_000,
    memory_duration: Duration::from_secs(5),
    memory_warm_up: Duration::from_secs(1),
    memory_idle: Duration::from_secs(2),
    recovery_baseline: Duration::from_millis(1_500),
    // A silent peer is noticed after 3 s, which no profile scales.
    recovery_fault: Duration::from_secs(4),
    peak_hold: Duration::from_millis(300),
    peak_confirm: Duration::from_secs(1),
    peak_burst_messages: 10_000,
    auth_baseline: Duration::from_millis(500),
    auth_siege: Duration::from_secs(1),
};

impl Sizes {
    fn apply(&self, config: &mut HighVolumeConfig) {
        config.load.ramp = self.ramp;
        config.rate_scaling.hold = self.rate_scaling_hold;
        config.ordering.messages = self.ordering_messages;
        config.ordering.messages_per_connection = self.ordering_messages_per_connection;
        config.delivery.messages = self.delivery_messages;
        config.delivery.kill_period = self.delivery_kill_period;
        config.delivery.kills = self.delivery_kills;
        config.backpressure.messages = self.backpressure_messages;
        config.backpressure.queue_threshold = self.backpressure_queue;
        config.backpressure.baseline = self.backpressure_baseline;
        config.latency.duration = self.latency_duration;
        config.connection_scaling.hold = self.connection_scaling_hold;
        config.memory.fill_messages = self.memory_fill_messages;
        config.memory.duration = self.memory_duration;
        config.memory.warm_up = self.memory_warm_up;
        config.memory.idle = self.memory_idle;
        config.recovery.baseline = self.recovery_baseline;
        config.recovery.fault = self.recovery_fault;
        config.peak.hold = self.peak_hold;
        config.peak.confirm = self.peak_confirm;
        config.peak.burst_messages = self.peak_burst_messages;
        config.auth.baseline = self.auth_baseline;
        config.auth.siege = self.auth_siege;
    }
}

impl HighVolumeConfig {
    /// The defaults at the sizes of `profile`.
    #[must_use]
    pub fn for_profile(profile: Profile) -> Self {
        let mut config = Self::full();
        config.profile = profile;
        match profile {
            Profile::Smoke => SMOKE.apply(&mut config),
            Profile::Quick => QUICK.apply(&mut config),
            Profile::Full => {}
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::leaves;

    /// Everything that a profile may scale. A key added to a table above must be added here by hand,
    /// after a look at what it is.
    const SCALED: [&str; 23] = [
        "auth.baseline",
        "auth.siege",
        "backpressure.baseline",
        "backpressure.messages",
        "backpressure.queue_threshold",
        "connection_scaling.hold",
        "delivery.kill_period",
        "delivery.kills",
        "delivery.messages",
        "latency.duration",
        "load.ramp",
        "memory.duration",
        "memory.fill_messages",
        "memory.idle",
        "memory.warm_up",
        "ordering.messages",
        "ordering.messages_per_connection",
        "peak.burst_messages",
        "peak.confirm",
        "peak.hold",
        "rate_scaling.hold",
        "recovery.baseline",
        "recovery.fault",
    ];

    fn keys(profile: Profile) -> Vec<(String, toml::Value)> {
        leaves(&toml::Table::try_from(HighVolumeConfig::for_profile(profile)).unwrap())
    }

    #[test]
    fn profiles_change_sizes_only_never_a_limit_or_a_ratio() {
        let full = keys(Profile::Full);
        let mut scaled = std::collections::BTreeSet::new();
        let mut limits = 0;
        for profile in [Profile::Quick, Profile::Smoke] {
            for ((key, value), (full_key, full_value)) in keys(profile).into_iter().zip(&full) {
                assert_eq!(key, *full_key);
                let limit = key.split('.').any(|part| part == "limits");
                let ratio = key.ends_with("_ratio") || key.ends_with("_factor");
                if limit || ratio || full_value.is_float() || full_value.is_array() {
                    limits += 1;
                    assert_eq!(value, *full_value, "{key} differs at {profile}");
                } else if value != *full_value && key != "profile" {
                    scaled.insert(key);
                }
            }
        }
        assert!(limits > 2 * 50, "only {limits} limits and ratios were compared");
        assert_eq!(scaled.into_iter().collect::<Vec<_>>(), SCALED);
    }

    #[test]
    fn every_profile_is_valid() {
        for profile in Profile::ALL {
            HighVolumeConfig::for_profile(profile).validate().unwrap();
        }
    }

    /// The load alone, without connecting, draining and waiting for recovery, for which a tenth to a
    /// quarter of the budget is left.
    #[test]
    fn profiles_keep_to_their_time() {
        assert!(offered(&HighVolumeConfig::for_profile(Profile::Smoke)) < Duration::from_secs(100));
        assert!(offered(&HighVolumeConfig::for_profile(Profile::Quick)) < Duration::from_secs(400));
    }

    fn offered(config: &HighVolumeConfig) -> Duration {
        let seconds = |messages: u64, rate: crate::units::Rate| {
            Duration::from_secs_f64(messages as f64 / rate.as_per_second())
        };
        let c = config;
        let ramps = 2 * c.load.ramp;
        let steps = |hold: Duration, count: usize| (hold + ramps) * u32::try_from(count).unwrap();
        let parallel = c.ordering.messages_per_connection * u64::from(c.ordering.parallel_connections);
        let service_s = f64::from(c.backpressure.concurrency) / c.backpressure.processing.as_secs_f64();
        let drain = Duration::from_secs_f64(c.backpressure.queue_threshold as f64 / service_s);
        let doublings = (c.peak.ceiling_rate.as_per_second() / c.peak.start_rate.as_per_second()).log2();
        let halvings = -c.peak.resolution_ratio.log2();
        // What does not hold is tried twice: the top of the ramp, and half of the rates between, or all.
        let search = doublings.ceil() as usize + 1 + 2 * halvings.ceil() as usize;
        [
            steps(c.rate_scaling.hold, c.rates.len()),
            seconds(c.ordering.messages, c.ordering.rate) + seconds(parallel, c.ordering.rate),
            seconds(c.delivery.messages, c.delivery.rate),
            2 * c.backpressure.baseline + seconds(c.backpressure.messages, c.backpressure.rate) + drain,
            steps(c.latency.duration, 1),
            steps(c.connection_scaling.hold, c.connections.len()),
            seconds(c.memory.fill_messages, c.memory.rate) + steps(c.memory.duration, 1) + c.memory.idle,
            2 * c.recovery.baseline + 6 * c.recovery.fault,
            steps(c.peak.hold, search) + steps(c.peak.confirm, c.peak.repeats as usize),
        ]
        .iter()
        .sum()
    }
}
