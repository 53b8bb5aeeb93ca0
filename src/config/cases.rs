//! The load of each case and the limits that are its own.
//!
//! A number that a case shares with others stands once, in [`Limits`](super::Limits); the case names it.
//! What must be zero
//! (a reordered, lost or altered message) is no setting. Loads are those of the profile `full`; what a
//! profile scales is listed in
//! `profile.rs`, and no `limits` table is.

use std::time::Duration;

use super::section::{rate, section};
use super::text;
use crate::units::Rate;

section! {
    /// `[rate_scaling]`: does the service follow each rate of the table `rates`?
    ///
    /// Shared: achieved ≥ `limits.achieved_ratio`, P95 < `limits.p95`, delivery ≥ `limits.delivery_ratio`.
    RateScalingConfig {
        /// Connections that share each rate.
        #[serde(with = "text::count")]
        connections: u32 = 100,
        /// How long each rate is held. Scaled by the profile.
        #[serde(with = "text::duration")]
        hold: Duration = Duration::from_secs(30),
        /// What it must hold.
        limits: RateScalingLimits = RateScalingLimits::default(),
    }
}

section! {
    /// `[rate_scaling.limits]`
    RateScalingLimits {
        /// Slope and R² of achieved against offered rate are judged over the rates up to here.
        linear_up_to: Rate = rate(5_000),
        /// P95 is judged at the rates up to here.
        timed_up_to: Rate = rate(5_000),
        /// Nothing may be lost at the rates up to here; above, `limits.delivery_ratio` holds.
        lossless_up_to: Rate = rate(7_500),
        /// How far the slope may be from 1.
        #[serde(with = "text::ratio")]
        slope_tolerance_ratio: f64 = 0.02,
        /// The coefficient of determination that the fit must reach.
        #[serde(with = "text::ratio")]
        r_squared: f64 = 0.99,
    }
}

section! {
    /// `[ordering]`: does each connection keep its order? All its criteria are zeros.
    OrderingConfig {
        /// Messages on the one connection, once paced and once unpaced. Scaled by the profile.
        #[serde(with = "text::count")]
        messages: u64 = 10_000,
        /// The rate of the paced phase.
        rate: Rate = rate(1_000),
        /// Connections of the parallel phase.
        #[serde(with = "text::count")]
        parallel_connections: u32 = 10,
        /// Messages on each of them. Scaled by the profile.
        #[serde(with = "text::count")]
        messages_per_connection: u64 = 1_000,
    }
}

section! {
    /// `[delivery]`: is every message processed exactly once, whatever is cut or killed?
    ///
    /// Shared: duplicates ≤ `limits.duplicate_ratio`.
    DeliveryConfig {
        /// `user_message`s to deliver. Scaled by the profile.
        #[serde(with = "text::count")]
        messages: u64 = 5_000,
        /// Connections that share the rate.
        #[serde(with = "text::count")]
        connections: u32 = 20,
        /// Messages per second over all connections.
        rate: Rate = rate(50),
        /// What the service takes for one message.
        #[serde(with = "text::duration")]
        processing: Duration = Duration::from_millis(100),
        /// The share of the connections that is cut at random moments.
        #[serde(with = "text::ratio")]
        cut_ratio: f64 = 0.1,
        /// The server is killed (SIGKILL) and restarted after each such span. Scaled by the profile.
        #[serde(with = "text::duration")]
        kill_period: Duration = Duration::from_secs(30),
        /// How often it is killed. Scaled by the profile, never below 1.
        #[serde(with = "text::count")]
        kills: u32 = 3,
        /// What it must hold.
        limits: DeliveryLimits = DeliveryLimits::default(),
    }
}

section! {
    /// `[delivery.limits]`
    DeliveryLimits {
        /// From a cut to the connection's next answer, at most.
        #[serde(with = "text::duration")]
        recovery_within: Duration = Duration::from_secs(5),
    }
}

section! {
    /// `[backpressure]`: does an overloaded service say so, refuse in order, and recover?
    ///
    /// Shared: signal within `limits.backpressure_within`, queue empty within `limits.queue_recovery_within`. High
    /// priority is judged against the normal messages, without a number.
    BackpressureConfig {
        /// Normal messages of the overload. Scaled by the profile together with the queue.
        #[serde(with = "text::count")]
        messages: u64 = 15_000,
        /// Normal messages per second.
        rate: Rate = rate(2_000),
        /// Connections that share the rate.
        #[serde(with = "text::count")]
        connections: u32 = 100,
        /// What the service takes for one message …
        #[serde(with = "text::duration")]
        processing: Duration = Duration::from_millis(100),
        /// … and how many it has in work at once: it can do `concurrency ÷ processing` a second.
        #[serde(with = "text::count")]
        concurrency: u32 = 50,
        /// The depth from which normal messages are refused. Scaled by the profile.
        #[serde(with = "text::count")]
        queue_threshold: u64 = 10_000,
        /// High-priority messages per second, beside the normal ones …
        priority_rate: Rate = rate(100),
        /// … on so many connections of their own.
        #[serde(with = "text::count")]
        priority_connections: u32 = 10,
        /// The rate of the phases before and after the overload: half of what the service can do.
        baseline_rate: Rate = rate(250),
        /// How long each of them lasts. Scaled by the profile.
        #[serde(with = "text::duration")]
        baseline: Duration = Duration::from_secs(10),
        /// In place of `load.answer_timeout`: a message may wait for the whole queue before it.
        #[serde(with = "text::duration")]
        answer_timeout: Duration = Duration::from_secs(60),
        /// What it must hold.
        limits: BackpressureLimits = BackpressureLimits::default(),
    }
}

section! {
    /// `[backpressure.limits]`
    BackpressureLimits {
        /// From the instant at which sent − answered − refused reaches threshold + concurrency
        /// to the first refusal.
        #[serde(with = "text::duration")]
        overflow_within: Duration = Duration::from_millis(500),
        /// From the first refusal to the `backpressure` signal.
        #[serde(with = "text::duration")]
        signal_within: Duration = Duration::from_millis(100),
        /// How far the achieved rate afterwards may be from that before.
        #[serde(with = "text::ratio")]
        achieved_change_ratio: f64 = 0.05,
        /// P95 afterwards must be under this many times that before …
        #[serde(with = "text::positive")]
        p95_factor: f64 = 2.0,
        /// … or under this, whichever is more.
        #[serde(with = "text::duration")]
        p95_floor: Duration = Duration::from_millis(10),
    }
}

section! {
    /// `[latency]`: does latency stay under its limits for as long as the load lasts?
    ///
    /// Shared: `limits.p50`, `limits.p95`, `limits.p99`, in every window of a second.
    LatencyConfig {
        /// Messages per second.
        rate: Rate = rate(5_000),
        /// Connections that share the rate.
        #[serde(with = "text::count")]
        connections: u32 = 100,
        /// How long the load lasts. Scaled by the profile.
        #[serde(with = "text::duration")]
        duration: Duration = Duration::from_secs(300),
        /// What it must hold.
        limits: LatencyLimits = LatencyLimits::default(),
    }
}

section! {
    /// `[latency.limits]`
    LatencyLimits {
        /// The windows' medians may vary so much: standard deviation ÷ max(mean, `variation_floor`).
        #[serde(with = "text::positive")]
        variation: f64 = 0.3,
        /// Below this mean, variation is that of the clock and the scheduler.
        #[serde(with = "text::duration")]
        variation_floor: Duration = Duration::from_millis(5),
        /// An outlier is above so many medians …
        #[serde(with = "text::positive")]
        outlier_factor: f64 = 10.0,
        /// … and above this.
        #[serde(with = "text::duration")]
        outlier_floor: Duration = Duration::from_millis(10),
        /// Outliers must be a smaller share than this.
        #[serde(with = "text::ratio")]
        outlier_ratio: f64 = 0.01,
        /// Lower bound of the robust slope × duration: latency may not have grown by more.
        #[serde(with = "text::duration")]
        trend: Duration = Duration::from_millis(5),
    }
}

section! {
    /// `[connection_scaling]`: does every connection of the table `connections` get its share?
    ConnectionScalingConfig {
        /// Messages per second on each connection, so 500 connections are 50,000.
        rate_per_connection: Rate = rate(100),
        /// How long each number of connections is held. Scaled by the profile.
        #[serde(with = "text::duration")]
        hold: Duration = Duration::from_secs(30),
        /// What it must hold.
        limits: ConnectionScalingLimits = ConnectionScalingLimits::default(),
    }
}

section! {
    /// `[connection_scaling.limits]`
    ConnectionScalingLimits {
        /// Every single connection's P95 must stay under it …
        #[serde(with = "text::duration")]
        p95: Duration = Duration::from_millis(100),
        /// … at so many connections, which must be one of the table `connections`.
        #[serde(with = "text::count")]
        p95_at_connections: u32 = 250,
        /// Jain's fairness index must reach it.
        #[serde(with = "text::ratio")]
        fairness: f64 = 0.99,
        /// No connection may achieve less than this share of the median.
        #[serde(with = "text::ratio")]
        median_ratio: f64 = 0.9,
        /// Throughput is linear in connections where the slope is so near to 1 …
        #[serde(with = "text::ratio")]
        slope_tolerance_ratio: f64 = 0.02,
        /// … and the fit reaches this coefficient of determination.
        #[serde(with = "text::ratio")]
        r_squared: f64 = 0.99,
    }
}

section! {
    /// `[memory]`: is memory flat under load and given back after it?
    ///
    /// Shared: growth ≤ `limits.memory_growth_bytes` on either side.
    MemoryConfig {
        /// Messages per second.
        rate: Rate = rate(10_000),
        /// Connections that share the rate.
        #[serde(with = "text::count")]
        connections: u32 = 100,
        /// `user_message`s sent before the measurement, so that the idempotency memory is full.
        /// Scaled by the profile.
        #[serde(with = "text::count")]
        fill_messages: u64 = 100_000,
        /// How long the load lasts. Scaled by the profile.
        #[serde(with = "text::duration")]
        duration: Duration = Duration::from_secs(600),
        /// The first part of it, which the leak's slope leaves out. Scaled by the profile.
        #[serde(with = "text::duration_or_zero")]
        warm_up: Duration = Duration::from_secs(60),
        /// The silence afterwards, by whose end memory must have been given back. Scaled by the profile.
        #[serde(with = "text::duration")]
        idle: Duration = Duration::from_secs(120),
        /// What it must hold.
        limits: MemoryLimits = MemoryLimits::default(),
    }
}

section! {
    /// `[memory.limits]`
    MemoryLimits {
        /// The share of the growth in live bytes that must be given back.
        #[serde(with = "text::ratio")]
        given_back_ratio: f64 = 0.95,
        /// Judged only where growth is above this (16 MB, powers of 1000): below it is the allocator's noise.
        #[serde(with = "text::size")]
        judged_above_bytes: u64 = 16_000_000,
        /// The slope of live bytes over messages must be under it.
        #[serde(with = "text::positive")]
        leak_bytes_per_message: f64 = 1.0,
    }
}

section! {
    /// `[recovery]`: does a fault stay where it is, and is it gone when it ends?
    RecoveryConfig {
        /// Messages per second.
        rate: Rate = rate(3_000),
        /// Connections that share the rate.
        #[serde(with = "text::count")]
        connections: u32 = 50,
        /// What our own service takes for one message …
        #[serde(with = "text::duration")]
        processing: Duration = Duration::from_millis(10),
        /// … and how many it has in work at once: its capacity is `concurrency ÷ processing` a second, which the
        /// overload is a multiple of, on whatever service.
        #[serde(with = "text::count")]
        concurrency: u32 = 120,
        /// How long the baseline before, and the comparison after, last. Scaled by the profile.
        #[serde(with = "text::duration")]
        baseline: Duration = Duration::from_secs(30),
        /// How long each fault lasts. Scaled by the profile, never below `peer_dead_after`.
        #[serde(with = "text::duration")]
        fault: Duration = Duration::from_secs(10),
        /// Share of the connections that are dropped.
        #[serde(with = "text::ratio")]
        drop_ratio: f64 = 0.05,
        /// Share of the fault's time in which the service is overloaded …
        #[serde(with = "text::ratio")]
        overload_time_ratio: f64 = 0.1,
        /// … at so many times its capacity.
        #[serde(with = "text::positive")]
        overload_factor: f64 = 2.0,
        /// Share of the connections that are partitioned.
        #[serde(with = "text::ratio")]
        partition_ratio: f64 = 0.15,
        /// Share of the connections whose peer goes silent.
        #[serde(with = "text::ratio")]
        silence_ratio: f64 = 0.1,
        /// The client pings so often …
        #[serde(with = "text::duration")]
        ping_every: Duration = Duration::from_secs(1),
        /// … and holds a peer for dead after so long without a word.
        #[serde(with = "text::duration")]
        peer_dead_after: Duration = Duration::from_secs(3),
        /// What it must hold.
        limits: RecoveryLimits = RecoveryLimits::default(),
    }
}

section! {
    /// `[recovery.limits]`
    RecoveryLimits {
        /// Throughput of the untouched connections must fall by less than this share.
        #[serde(with = "text::ratio")]
        untouched_drop_ratio: f64 = 0.05,
        /// For each kind of fault, from its end to the baseline, at most.
        #[serde(with = "text::duration")]
        recovery_within: Duration = Duration::from_secs(30),
        /// How far the achieved rate afterwards may be from the baseline.
        #[serde(with = "text::ratio")]
        achieved_change_ratio: f64 = 0.05,
        /// P95 of the untouched, and of all afterwards, must be under this many times the baseline …
        #[serde(with = "text::positive")]
        p95_factor: f64 = 2.0,
        /// … or under this, whichever is more.
        #[serde(with = "text::duration")]
        p95_floor: Duration = Duration::from_millis(10),
    }
}

section! {
    /// `[auth]`: are those without a good token kept out, and those with one left in peace?
    AuthConfig {
        /// Messages per second of those who are let in.
        rate: Rate = rate(5_000),
        /// Connections that share the rate.
        #[serde(with = "text::count")]
        connections: u32 = 20,
        /// Identities among which our own server's connections are dealt.
        #[serde(with = "text::count")]
        identities: u32 = 4,
        /// How long the load lasts with nobody else at the door. Scaled by the profile.
        #[serde(with = "text::duration")]
        baseline: Duration = Duration::from_secs(10),
        /// How long it lasts while others try to get in. Scaled by the profile.
        #[serde(with = "text::duration")]
        siege: Duration = Duration::from_secs(30),
        /// Handshakes per second without a token, as many with a wrong one, and as many with one that has expired.
        attempts: Rate = rate(100),
        /// What it must hold.
        limits: AuthLimits = AuthLimits::default(),
    }
}

section! {
    /// `[auth.limits]`
    AuthLimits {
        /// Throughput of those who are let in must fall by less than this share.
        #[serde(with = "text::ratio")]
        rate_drop_ratio: f64 = 0.05,
        /// Their P95 must be under this many times the one before …
        #[serde(with = "text::positive")]
        p95_factor: f64 = 2.0,
        /// … or under this, whichever is more.
        #[serde(with = "text::duration")]
        p95_floor: Duration = Duration::from_millis(10),
    }
}

section! {
    /// `[peak]`: the highest rate that holds the limits, and a burst.
    ///
    /// Shared: `limits.peak_rate` must be sustained for `confirm`.
    PeakConfig {
        /// Connections that share the rate.
        #[serde(with = "text::count")]
        connections: u32 = 100,
        /// The search begins here …
        start_rate: Rate = rate(10_000),
        /// … and never goes above this.
        ceiling_rate: Rate = rate(1_000_000),
        /// The search ends where the highest that held and the lowest that did not are so near.
        #[serde(with = "text::ratio")]
        resolution_ratio: f64 = 0.05,
        /// How long each rate of the search is held. Scaled by the profile.
        #[serde(with = "text::duration")]
        hold: Duration = Duration::from_secs(10),
        /// How long the found rate must be sustained. Scaled by the profile.
        #[serde(with = "text::duration")]
        confirm: Duration = Duration::from_secs(60),
        /// Confirming runs, over which the figure's interval is taken; up to nine, it is their range.
        #[serde(with = "text::count")]
        repeats: u32 = 3,
        /// Messages of the burst, sent as fast as possible. Scaled by the profile.
        #[serde(with = "text::count")]
        burst_messages: u64 = 50_000,
    }
}
