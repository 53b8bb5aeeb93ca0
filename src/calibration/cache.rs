//! Where calibrations are kept between runs, and which of them still holds.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::environment::{Environment, machine_id};
use crate::result::calibration::{Calibration, Generator};
use crate::units;

/// A calibration holds for so long: updates of the machine, and its neighbours, change what it can do unseen.
pub const KEPT_FOR: Duration = Duration::from_secs(7 * 86_400);
/// So many are kept, over all builds, machines and loads: the latest.
const KEPT: usize = 32;
const FILE: &str = "calibrations.json";
const SCHEMA: &str = "floodline.calibrations/1";

/// A calibration could not be kept.
#[derive(Debug, Error)]
#[error("cannot keep what was measured in {path}: {cause}", path = path.display())]
pub struct CacheError {
    /// Where.
    pub path: PathBuf,
    /// What the system says.
    pub cause: io::Error,
}

/// What is known of a generator.
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    /// It was never calibrated.
    Nothing,
    /// It was, but that does not hold any more: why, in words.
    Outdated(String),
    /// What it can do.
    Valid(Box<Calibration>),
    /// What it can do with another load; and why what was measured with one like this does not hold any more, in words.
    OfAnotherLoad(Box<Calibration>, String),
}

/// A directory with calibrations.
#[derive(Debug, Clone)]
pub struct CalibrationCache {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    schema: String,
    calibrations: Vec<Calibration>,
}

impl CalibrationCache {
    /// The cache in `directory`, which need not exist.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self { path: directory.join(FILE) }
    }

    /// The user's, in [`user_directory`]. `None` where the environment names none.
    #[must_use]
    pub fn of_user(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<Self> {
        user_directory(variable).map(|directory| Self::at(&directory))
    }

    /// Where the calibrations are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is known of `generator`: its latest calibration, of messages and connections like these where one holds.
    #[must_use]
    pub fn look_up(
        &self,
        generator: &Generator,
        payload_bytes: usize,
        connections: u32,
        now_unix_ns: u64,
    ) -> Known {
        let kept = match self.read() {
            Ok(kept) => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Known::Nothing,
            Err(error) => return Known::Outdated(format!("{} cannot be read: {error}", self.path.display())),
        };
        let why_not = |calibration: &Calibration| {
            let age = calibration.age(now_unix_ns);
            let old = || (age > KEPT_FOR).then(|| format!("it was measured {} ago", units::age(age)));
            generator.difference(&calibration.generator).or_else(old)
        };
        let alike =
            |known: &&Calibration| (known.payload_bytes, known.connections) == (payload_bytes, connections);
        let latest = |known: &&Calibration| known.measured_at_unix_ns;
        let valid: Vec<&Calibration> = kept.iter().filter(|known| why_not(known).is_none()).collect();
        if let Some(of_load) = valid.iter().copied().filter(alike).max_by_key(latest) {
            return Known::Valid(Box::new(of_load.clone()));
        }
        let outdated = kept.iter().filter(alike).max_by_key(latest).and_then(why_not);
        match (valid.iter().copied().max_by_key(latest), outdated) {
            (Some(other), Some(why)) => Known::OfAnotherLoad(Box::new(other.clone()), why),
            (Some(other), None) => Known::Valid(Box::new(other.clone())),
            (None, _) => {
                kept.iter().max_by_key(latest).and_then(why_not).map_or(Known::Nothing, Known::Outdated)
            }
        }
    }

    /// Keeps a calibration, in place of an earlier one of the same generator and load.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn keep(&self, calibration: &Calibration) -> Result<(), CacheError> {
        // What cannot be read is of no use to anybody, and makes room.
        let mut calibrations = self.read().unwrap_or_default();
        let load = |known: &Calibration| (known.payload_bytes, known.connections, known.generator.clone());
        calibrations.retain(|known| load(known) != load(calibration));
        calibrations.push(calibration.clone());
        calibrations.sort_by_key(|known| std::cmp::Reverse(known.measured_at_unix_ns));
        calibrations.truncate(KEPT);
        write_whole(&self.path, &Kept { schema: SCHEMA.to_owned(), calibrations })
    }

    fn read(&self) -> io::Result<Vec<Calibration>> {
        let kept: Kept = serde_json::from_slice(&fs::read(&self.path)?)?;
        if kept.schema == SCHEMA { Ok(kept.calibrations) } else { Err(io::Error::other("another format")) }
    }
}

/// Where the user's measurements of this machine are kept: `$FLOODLINE_CACHE`, else `floodline` under `$XDG_CACHE_HOME` or
/// `~/.cache` (XDG Base Directory Specification), or under `%LOCALAPPDATA%`. `variable` reads the environment. `None`
/// where it names none of them.
#[must_use]
pub fn user_directory(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // The specification has relative paths ignored.
    let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
    variable("FLOODLINE_CACHE").filter(|path| !path.as_os_str().is_empty()).or_else(|| {
        let base = absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .or_else(|| absolute("LOCALAPPDATA"));
        base.map(|base| base.join("floodline"))
    })
}

/// Writes a file whole or not at all: whoever reads meanwhile finds the old one or the new one.
pub(crate) fn write_whole(path: &Path, kept: &impl Serialize) -> Result<(), CacheError> {
    let write = || -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec_pretty(kept)?)?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|cause| CacheError { path: path.to_owned(), cause })
}

/// The generator that `executable` is, on this machine.
///
/// # Errors
/// Where the executable cannot be read.
pub fn generator_of(executable: &Path) -> io::Result<Generator> {
    let content = fs::read(executable)?;
    let Environment { cpu, cores, kernel, floodline, .. } = Environment::detect();
    let executable_crc32 = crc32fast::hash(&content);
    let (machine, executable_bytes) = (machine_id(), content.len() as u64);
    Ok(Generator { machine, cpu, cores, kernel, floodline, executable_bytes, executable_crc32 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::calibration::tests::example;

    const DAY_NS: u64 = 86_400_000_000_000;

    struct Scratch {
        _dir: tempfile::TempDir,
        cache: CalibrationCache,
    }

    fn scratch() -> Scratch {
        let dir = tempfile::tempdir().unwrap();
        // A directory that is not there yet.
        Scratch { cache: CalibrationCache::at(&dir.path().join("a/b")), _dir: dir }
    }

    fn at(measured_at_unix_ns: u64, connections: u32) -> Calibration {
        Calibration { measured_at_unix_ns, connections, ..example() }
    }

    #[test]
    fn nothing_is_known_before_something_is_kept() {
        let Scratch { cache, _dir } = scratch();
        assert_eq!(cache.look_up(&example().generator, 64, 10, 0), Known::Nothing);
    }

    #[test]
    fn the_latest_of_a_load_like_this_is_found_else_the_latest() {
        let Scratch { cache, _dir } = scratch();
        let of_ten = at(20, 10);
        for calibration in [&at(10, 10), &of_ten, &at(30, 50)] {
            cache.keep(calibration).unwrap();
        }
        let found = |payload_bytes, connections| match cache.look_up(
            &example().generator,
            payload_bytes,
            connections,
            40,
        ) {
            Known::Valid(found) => *found,
            other => panic!("{other:?}"),
        };
        assert_eq!(found(64, 10), of_ten);
        assert_eq!(found(64, 50), at(30, 50));
        assert_eq!(found(1_024, 10), at(30, 50));
        // The second of ten connections has replaced the first.
        assert_eq!(cache.read().unwrap().len(), 2);
    }

    #[test]
    fn what_is_old_or_of_another_generator_is_not_used_and_said_so() {
        let Scratch { cache, _dir } = scratch();
        let calibration = at(DAY_NS, 10);
        cache.keep(&calibration).unwrap();
        let known = |generator: &Generator, now_unix_ns| cache.look_up(generator, 64, 10, now_unix_ns);
        let here = &calibration.generator;
        assert!(matches!(known(here, 8 * DAY_NS), Known::Valid(_)));
        // A clock that was set back does not make it old.
        assert!(matches!(known(here, 0), Known::Valid(_)));
        assert_eq!(
            known(here, 8 * DAY_NS + 1_000_000_000),
            Known::Outdated("it was measured 7 days ago".to_owned())
        );
        let rebuilt = Generator { executable_crc32: 1, ..here.clone() };
        assert_eq!(known(&rebuilt, DAY_NS), Known::Outdated("the executable is another build".to_owned()));
        // A valid one beside it is found all the same.
        cache.keep(&Calibration { generator: rebuilt.clone(), ..calibration.clone() }).unwrap();
        assert!(matches!(known(&rebuilt, DAY_NS), Known::Valid(_)));
        assert!(matches!(known(here, DAY_NS), Known::Valid(_)));
    }

    #[test]
    fn another_loads_does_not_hide_that_this_ones_is_outdated() {
        let Scratch { cache, _dir } = scratch();
        let here = example().generator;
        let known = |connections, now| cache.look_up(&here, 64, connections, now);
        cache.keep(&at(DAY_NS, 10)).unwrap();
        cache.keep(&at(5 * DAY_NS, 50)).unwrap();
        assert_eq!(known(10, 8 * DAY_NS), Known::Valid(Box::new(at(DAY_NS, 10))));
        let why = "it was measured 8 days ago".to_owned();
        assert_eq!(known(10, 9 * DAY_NS), Known::OfAnotherLoad(Box::new(at(5 * DAY_NS, 50)), why));
        // One that never was cannot be outdated.
        assert_eq!(known(11, 9 * DAY_NS), Known::Valid(Box::new(at(5 * DAY_NS, 50))));
    }

    #[test]
    fn what_a_machine_of_the_same_kind_measured_is_not_used() {
        let Scratch { cache, _dir } = scratch();
        cache.keep(&example()).unwrap();
        let twin = Generator { machine: Some("0".to_owned()), ..example().generator };
        let known = cache.look_up(&twin, 64, 10, 0);
        assert_eq!(known, Known::Outdated("it was measured on another machine".to_owned()));
        // A file from before the machine was noted is read, and not used either.
        let text = fs::read_to_string(cache.path()).unwrap();
        let mut old: serde_json::Value = serde_json::from_str(&text).unwrap();
        let generator = old["calibrations"][0]["generator"].as_object_mut().unwrap();
        assert!(generator.remove("machine").is_some());
        fs::write(cache.path(), old.to_string()).unwrap();
        let known = cache.look_up(&twin, 64, 10, 0);
        let why = "it does not say on which machine it was measured".to_owned();
        assert_eq!(known, Known::Outdated(why));
        // The twin's own stands beside it.
        cache.keep(&Calibration { generator: twin.clone(), ..example() }).unwrap();
        assert!(matches!(cache.look_up(&twin, 64, 10, 0), Known::Valid(_)));
        assert_eq!(cache.read().unwrap().len(), 2);
    }

    #[test]
    fn what_cannot_be_read_is_said_and_replaced() {
        let Scratch { cache, _dir } = scratch();
        fs::create_dir_all(cache.path().parent().unwrap()).unwrap();
        fs::write(cache.path(), "{").unwrap();
        let known = cache.look_up(&example().generator, 64, 10, 0);
        assert!(matches!(&known, Known::Outdated(why) if why.contains("cannot be read")), "{known:?}");
        cache.keep(&example()).unwrap();
        assert!(matches!(cache.look_up(&example().generator, 64, 10, 0), Known::Valid(_)));
    }

    #[test]
    fn only_the_latest_are_kept() {
        let Scratch { cache, _dir } = scratch();
        (1..=40).for_each(|n| cache.keep(&at(u64::from(n), n)).unwrap());
        let kept: Vec<u32> = cache.read().unwrap().iter().map(|known| known.connections).collect();
        assert_eq!(kept, (9..=40).rev().collect::<Vec<_>>());
    }

    #[test]
    fn the_users_cache_is_where_the_environment_says() {
        let path = |variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| PathBuf::from(value))
            };
            CalibrationCache::of_user(variable).map(|cache| cache.path.display().to_string())
        };
        let all = [("FLOODLINE_CACHE", "/f"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(path(&all).unwrap(), "/f/calibrations.json");
        assert_eq!(path(&all[1..]).unwrap(), "/x/floodline/calibrations.json");
        assert_eq!(path(&all[2..]).unwrap(), "/h/.cache/floodline/calibrations.json");
        assert_eq!(
            path(&[("XDG_CACHE_HOME", "x"), ("HOME", "/h")]).unwrap(),
            "/h/.cache/floodline/calibrations.json"
        );
        assert_eq!(path(&[]), None);
    }

    #[test]
    fn a_generator_is_its_executable_on_this_machine() {
        let dir = tempfile::tempdir().unwrap();
        let executable = dir.path().join("x");
        fs::write(&executable, "123456789").unwrap();
        let generator = generator_of(&executable).unwrap();
        // The check value of CRC-32.
        assert_eq!((generator.executable_bytes, generator.executable_crc32), (9, 0xcbf4_3926));
        assert_eq!(generator.machine, machine_id());
        assert!(generator_of(&dir.path().join("absent")).is_err());
    }
}
