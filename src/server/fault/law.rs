//! How long answers are held: the truth that a measured latency can be held against.

use std::f64::consts::TAU;
use std::str::FromStr;
use std::time::Duration;

use super::text::{ServerFaultError, decimal, time};
use super::{in_range, unit};
use crate::server::config::{ServerConfigError, up_to};

/// A distribution of delays. Its [`FromStr`] reads what each variant's doc shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DelayLaw {
    /// Always the same: `constant:5ms`.
    Constant(Duration),
    /// Each from the first up to the second equally likely: `uniform:1ms:9ms`.
    Uniform(Duration, Duration),
    /// The logarithm is normally distributed: `lognormal:5ms:0.5`.
    Lognormal {
        /// Half of the delays are shorter.
        median: Duration,
        /// The standard deviation of the natural logarithm, 0 to 3.
        sigma: f64,
    },
    /// One of two: `bimodal:1ms:100ms:0.001`.
    Bimodal {
        /// What most are.
        usual: Duration,
        /// What the others are.
        other: Duration,
        /// The share of the others, 0 to 1.
        share: f64,
    },
}

/// How a law is written, for the messages.
pub(super) const LAWS: &str =
    "constant:DURATION uniform:DURATION:DURATION lognormal:DURATION:SIGMA bimodal:DURATION:DURATION:SHARE";

/// No delay is longer, whatever a law's tail says.
const LONGEST: Duration = Duration::from_secs(3_600);

impl DelayLaw {
    /// The delay of one message: a pure function, so that whoever knows the ids knows the true distribution of just
    /// those messages, not only of the law. To the nanosecond; an hour at most.
    #[must_use]
    pub fn of(&self, seed: u64, message_id: &str) -> Duration {
        let nth_draw = |n| unit(seed, message_id, n);
        match *self {
            Self::Constant(always) => always,
            Self::Uniform(from, to) => from + to.saturating_sub(from).mul_f64(nth_draw(0)),
            Self::Lognormal { median, sigma } => {
                // G. E. P. Box and M. E. Muller, "A note on the generation of random normal deviates", Annals of
                // Mathematical Statistics 29(2), 1958. The first draw is below 1, so the logarithm is finite.
                let normal = (-2.0 * (1.0 - nth_draw(0)).ln()).sqrt() * (TAU * nth_draw(1)).cos();
                let seconds = median.as_secs_f64() * (sigma * normal).exp();
                Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64()))
            }
            Self::Bimodal { usual, other, share } => {
                if nth_draw(0) < share {
                    other
                } else {
                    usual
                }
            }
        }
    }

    pub(super) fn validate(&self) -> Result<(), ServerConfigError> {
        let delay = |value| up_to("delay", value, Duration::ZERO, LONGEST);
        match *self {
            Self::Constant(always) => delay(always),
            Self::Uniform(from, to) => {
                delay(to)?;
                up_to("delay", from, Duration::ZERO, to)
            }
            Self::Lognormal { median, sigma } => {
                delay(median)?;
                in_range("sigma", sigma, 0.0, 3.0)
            }
            Self::Bimodal { usual, other, share } => {
                delay(usual)?;
                delay(other)?;
                in_range("share", share, 0.0, 1.0)
            }
        }
    }
}

impl FromStr for DelayLaw {
    type Err = ServerFaultError;

    fn from_str(text: &str) -> Result<Self, ServerFaultError> {
        let items: Vec<&str> = text.split(':').collect();
        let law = match *items.as_slice() {
            ["constant", always] => Self::Constant(time("constant", always)?),
            ["uniform", from, to] => Self::Uniform(time("uniform", from)?, time("uniform", to)?),
            ["lognormal", median, sigma] => {
                Self::Lognormal { median: time("lognormal", median)?, sigma: decimal("lognormal", sigma)? }
            }
            ["bimodal", usual, other, share] => Self::Bimodal {
                usual: time("bimodal", usual)?,
                other: time("bimodal", other)?,
                share: decimal("bimodal", share)?,
            },
            _ => return Err(ServerFaultError::Law { text: text.to_owned() }),
        };
        law.validate()?;
        Ok(law)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The delays of 100,000 messages in microseconds, sorted.
    fn drawn(law: DelayLaw, seed: u64) -> Vec<f64> {
        let of = |n| law.of(seed, &format!("run-0-{}-{}", n % 100, n / 100)).as_secs_f64() * 1e6;
        let mut drawn: Vec<f64> = (0..100_000).map(of).collect();
        drawn.sort_by(f64::total_cmp);
        drawn
    }

    /// How far the share of `drawn` up to each of its values is from `cdf` at most (Kolmogorov and Smirnov).
    fn distance(drawn: &[f64], cdf: impl Fn(f64) -> f64) -> f64 {
        let count = drawn.len() as f64;
        let apart = |(at, value): (usize, &f64)| (cdf(*value) - (at as f64 + 0.5) / count).abs();
        drawn.iter().enumerate().map(apart).fold(0.0, f64::max)
    }

    #[test]
    fn the_delays_follow_the_law() {
        // 1.95 / sqrt(100,000): right laws are further away once in a thousand seeds.
        const FAR: f64 = 0.006_2;
        for seed in [0, 1, 99] {
            let uniform = drawn(DelayLaw::Uniform(MS, 9 * MS), seed);
            assert!(distance(&uniform, |us| (us - 1_000.0) / 8_000.0) < FAR);
            // The values that 2.5 %, 16 %, 50 %, 84 % and 97.5 % of a normal distribution lie below.
            let lognormal = drawn(DelayLaw::Lognormal { median: 5 * MS, sigma: 0.5 }, seed);
            for (deviations, share) in
                [(-1.96, 0.025), (-1.0, 0.158_66), (0.0, 0.5), (1.0, 0.841_34), (1.96, 0.975)]
            {
                let value = 5_000.0 * f64::exp(0.5 * deviations);
                let below = lognormal.partition_point(|&us| us < value) as f64 / lognormal.len() as f64;
                assert!((below - share).abs() < FAR, "{below} below {value}, not {share}");
            }
            let bimodal = drawn(DelayLaw::Bimodal { usual: MS, other: 100 * MS, share: 0.001 }, seed);
            let (usual, other) = bimodal.split_at(bimodal.partition_point(|&us| us < 50_000.0));
            assert!(usual.iter().all(|&us| us == 1_000.0) && other.iter().all(|&us| us == 100_000.0));
            // Binomial: 100 expected, standard deviation 10.
            assert!((60..140).contains(&other.len()), "{}", other.len());
        }
    }

    #[test]
    fn a_delay_is_decided_by_seed_and_id_and_never_out_of_bounds() {
        let law = DelayLaw::Lognormal { median: LONGEST, sigma: 3.0 };
        for n in 0..1_000 {
            let id = n.to_string();
            assert_eq!(law.of(7, &id), law.of(7, &id));
            assert!(law.of(7, &id) <= LONGEST);
        }
        assert_ne!(law.of(7, "a"), law.of(8, "a"));
        assert_eq!(DelayLaw::Constant(5 * MS).of(3, "a"), 5 * MS);
    }
}
