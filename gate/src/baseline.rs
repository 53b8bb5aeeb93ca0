//! The committed file.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::counts::Counts;
use crate::environment::Environment;

/// Counts to hold others against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Where they were taken.
    pub environment: Environment,
    /// Instructions by benchmark, over all its messages.
    pub instructions: Counts,
}

impl Baseline {
    /// Reads it from a file.
    ///
    /// # Errors
    /// Where the file cannot be read, or is none that [`Self::write`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let place = || format!("baseline {}", path.display());
        serde_json::from_str(&std::fs::read_to_string(path).with_context(place)?).with_context(place)
    }

    /// Writes it to a file, a line a benchmark, so that a commit shows what changed.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("a baseline is plain JSON")?;
        std::fs::write(path, text + "\n").with_context(|| format!("baseline {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_one_is_as_it_would_be_written() {
        let committed = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.json"));
        let baseline = Baseline::read(committed).unwrap();
        assert!(!baseline.instructions.is_empty());
        let again = std::env::temp_dir().join(format!("floodline-gate-{}.json", std::process::id()));
        baseline.write(&again).unwrap();
        let written = std::fs::read_to_string(&again).unwrap();
        std::fs::remove_file(&again).unwrap();
        assert_eq!(written, std::fs::read_to_string(committed).unwrap());
    }

    #[test]
    fn a_file_that_is_none_is_named() {
        let error = Baseline::read(Path::new("no/such.json")).unwrap_err();
        assert!(format!("{error:#}").starts_with("baseline no/such.json: "), "{error:#}");
    }
}
