//! What the server can be told to do wrong, so that every check is proven able to fail.

use std::time::Duration;

use super::config::{ServerConfigError, up_to};

/// One thing to do wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ServerFault {
    /// The whole server stops reading and answering once.
    StallOnce {
        /// When, counted from the first message.
        at: Duration,
        /// For how long.
        duration: Duration,
    },
    /// Requests are processed, but their answers are never sent.
    DropAnswers {
        /// Which share of the messages, 0 to 1. Whether one is hit depends on its id and the seed only.
        share: f64,
        /// Which messages.
        seed: u64,
    },
}

impl ServerFault {
    pub(super) fn validate(&self) -> Result<(), ServerConfigError> {
        match *self {
            Self::StallOnce { at, duration } => {
                let hour = Duration::from_secs(3_600);
                up_to("at", at, Duration::ZERO, hour)?;
                up_to("duration", duration, Duration::ZERO, hour)
            }
            Self::DropAnswers { share, .. } if (0.0..=1.0).contains(&share) => Ok(()),
            Self::DropAnswers { share, .. } => Err(ServerConfigError::OutOfRange {
                setting: "share",
                value: share.to_string(),
                expected: "0 to 1".to_owned(),
            }),
        }
    }

    /// Whether the answer to the message of this id is dropped.
    pub(super) fn drops_answer(&self, message_id: &str) -> bool {
        match *self {
            Self::DropAnswers { share, seed } => unit(seed, message_id) < share,
            Self::StallOnce { .. } => false,
        }
    }
}

/// A number in [0, 1) that the seed and the text decide: FNV-1a, then the finalizer of SplitMix64 to spread the bits.
fn unit(seed: u64, text: &str) -> f64 {
    let mut hash = text.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    // The upper 53 bits are as many as a double holds.
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_the_seed_decides() {
        let hit = |seed| -> Vec<u32> {
            let fault = ServerFault::DropAnswers { share: 0.1, seed };
            (0..10_000).filter(|n| fault.drops_answer(&format!("run-0-0-{n}"))).collect()
        };
        let first = hit(1);
        // Binomial: 1,000 expected, standard deviation 30.
        assert!((850..1_150).contains(&first.len()), "{}", first.len());
        assert_eq!(first, hit(1));
        assert_ne!(first, hit(2));
    }

    #[test]
    fn all_and_nothing_are_shares_too() {
        for n in 0..1_000 {
            let id = n.to_string();
            assert!(ServerFault::DropAnswers { share: 1.0, seed: n }.drops_answer(&id));
            assert!(!ServerFault::DropAnswers { share: 0.0, seed: n }.drops_answer(&id));
        }
    }
}
