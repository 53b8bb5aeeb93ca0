//! What two of the same differ by on this machine, kept between comparisons: the measure of what a difference says.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::turn::{Measured, PairedFigure};
use crate::analysis::paired::{aligned, noise_of_the_same};
use crate::calibration::cache::{CacheError, KEPT_FOR, write_whole};
use crate::result::calibration::Generator;
use crate::result::compare::{MetricNoise, Noise};
use crate::units;

const FILE: &str = "comparisons.json";
const SCHEMA: &str = "floodline.comparisons/2";
/// So many are kept, over all builds, machines and loads: the latest.
const KEPT: usize = 32;

/// A change below this share is not called one, however quiet the machine: what a build draws by the luck of its layout is
/// of this size (T. Mytkowicz et al., "Producing wrong data without doing anything obviously wrong!", ASPLOS 2009).
pub const LEAST_THRESHOLD: f64 = 0.02;

/// What is known of the noise.
#[derive(Debug, Clone, PartialEq)]
pub enum KnownNoise {
    /// It was never measured for these loads.
    Nothing,
    /// It was, but that does not hold any more: why, in words.
    Outdated(String),
    /// It is this.
    Valid(Box<Noise>),
}

/// The noise from what was measured of two of the same.
#[must_use]
pub fn noise_of(measured: &Measured, signature: String, generator: Generator, now_unix_ns: u64) -> Noise {
    let figures = measured.values().into_iter().map(|PairedFigure { load, metric, pairs }| MetricNoise {
        load: load.name().to_owned(),
        metric: metric.to_owned(),
        pairs,
    });
    Noise {
        measured_at_unix_ns: now_unix_ns,
        generator,
        plan: signature,
        metrics: figures.collect(),
        foreign_cpu_cores: measured.foreign_cpu_cores(),
    }
}

impl Noise {
    /// Up to which share a change of this figure, over so many pairs, is noise. `None` where that was not measured.
    #[must_use]
    pub fn threshold(&self, load: &str, metric: &str, pairs: usize) -> Option<f64> {
        let known = self.metrics.iter().find(|known| known.load == load && known.metric == metric)?;
        let noise = noise_of_the_same(&aligned(&known.pairs).ok()?, pairs, SEED)?;
        Some((noise.exp() - 1.0).max(LEAST_THRESHOLD))
    }
}

/// Same noise, same threshold.
const SEED: u64 = 1;

/// A directory with what was measured.
#[derive(Debug, Clone)]
pub struct NoiseCache {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    schema: String,
    comparisons: Vec<Noise>,
}

impl NoiseCache {
    /// The cache in `directory`, which need not exist.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self { path: directory.join(FILE) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is known of `generator` with the loads of this signature.
    #[must_use]
    pub fn look_up(&self, generator: &Generator, signature: &str, now_unix_ns: u64) -> KnownNoise {
        let kept = match self.read() {
            Ok(kept) => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return KnownNoise::Nothing,
            Err(error) => {
                return KnownNoise::Outdated(format!("{} cannot be read: {error}", self.path.display()));
            }
        };
        let why_not = |noise: &Noise| {
            let age_ns = now_unix_ns.saturating_sub(noise.measured_at_unix_ns);
            let age = std::time::Duration::from_nanos(age_ns);
            let old = || (age > KEPT_FOR).then(|| format!("it was measured {} ago", units::age(age)));
            generator.difference(&noise.generator).or_else(old)
        };
        let latest = |noise: &&Noise| noise.measured_at_unix_ns;
        let alike = || kept.iter().filter(|noise| noise.plan == signature);
        match alike().filter(|noise| why_not(noise).is_none()).max_by_key(latest) {
            Some(noise) => KnownNoise::Valid(Box::new(noise.clone())),
            None => {
                alike().max_by_key(latest).and_then(why_not).map_or(KnownNoise::Nothing, KnownNoise::Outdated)
            }
        }
    }

    /// Keeps it, in place of an earlier one of the same generator and loads.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn keep(&self, noise: &Noise) -> Result<(), CacheError> {
        // What cannot be read is of no use to anybody, and makes room.
        let mut comparisons = self.read().unwrap_or_default();
        comparisons.retain(|known| known.plan != noise.plan || known.generator != noise.generator);
        comparisons.push(noise.clone());
        comparisons.sort_by_key(|known| std::cmp::Reverse(known.measured_at_unix_ns));
        comparisons.truncate(KEPT);
        write_whole(&self.path, &Kept { schema: SCHEMA.to_owned(), comparisons })
    }

    fn read(&self) -> io::Result<Vec<Noise>> {
        let kept: Kept = serde_json::from_slice(&fs::read(&self.path)?)?;
        if kept.schema == SCHEMA { Ok(kept.comparisons) } else { Err(io::Error::other("another format")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::calibration::tests::example;

    const DAY_NS: u64 = 86_400_000_000_000;

    fn noise(plan: &str, measured_at_unix_ns: u64) -> Noise {
        let metrics = vec![MetricNoise {
            load: "paced".to_owned(),
            metric: "latency_p50_us".to_owned(),
            pairs: vec![(100.0, 110.0), (100.0, 90.0), (100.0, 105.0), (100.0, 98.0)],
        }];
        let generator = example().generator;
        Noise { measured_at_unix_ns, generator, plan: plan.to_owned(), metrics, foreign_cpu_cores: None }
    }

    #[test]
    fn what_is_of_other_loads_old_or_another_build_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let cache = NoiseCache::at(&dir.path().join("new"));
        let here = example().generator;
        assert_eq!(cache.look_up(&here, "x", 0), KnownNoise::Nothing);
        cache.keep(&noise("x", DAY_NS)).unwrap();
        cache.keep(&noise("x", 2 * DAY_NS)).unwrap();
        assert_eq!(cache.read().unwrap().len(), 1);
        assert!(
            matches!(cache.look_up(&here, "x", 3 * DAY_NS), KnownNoise::Valid(found) if found.measured_at_unix_ns == 2 * DAY_NS)
        );
        assert_eq!(cache.look_up(&here, "y", 3 * DAY_NS), KnownNoise::Nothing);
        assert!(
            matches!(cache.look_up(&here, "x", 10 * DAY_NS), KnownNoise::Outdated(why) if why.contains("8 days"))
        );
        let rebuilt = Generator { executable_crc32: 1, ..here };
        assert!(
            matches!(cache.look_up(&rebuilt, "x", 3 * DAY_NS), KnownNoise::Outdated(why) if why.contains("build"))
        );
        fs::write(cache.path(), "{").unwrap();
        assert!(matches!(cache.look_up(&rebuilt, "x", 0), KnownNoise::Outdated(why) if why.contains("read")));
    }

    #[test]
    fn the_threshold_is_the_noise_and_never_less_than_two_per_cent() {
        let noise = noise("x", 0);
        let threshold = |pairs| noise.threshold("paced", "latency_p50_us", pairs).unwrap();
        assert!(threshold(2) > 0.09 && threshold(20) < 0.07, "{} {}", threshold(2), threshold(20));
        let mut quiet = noise.clone();
        quiet.metrics[0].pairs = vec![(100.0, 100.1), (100.0, 99.8), (100.0, 100.1)];
        assert_eq!(quiet.threshold("paced", "latency_p50_us", 10), Some(LEAST_THRESHOLD));
        assert_eq!(noise.threshold("closed", "latency_p50_us", 2), None);
    }
}
