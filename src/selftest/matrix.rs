//! Each fault of our own server against every other case: what fails there that the fault does not explain.

use std::collections::BTreeSet;

use super::planted::{HEALTHY, Wrong};
use super::{ALL, Row, Selftest, SelftestError, rows};
use crate::client::Stop;
use crate::result::{CriterionOutcome, Verdict};
use crate::run::plan::PlanObserver;

/// A fault of our own server, and a case that it was not planted for.
#[derive(Debug, Clone, Copy)]
pub struct Stray {
    /// What is done wrong, and what it was planted for.
    pub row: Row,
    /// The other case, with nothing else wrong.
    pub elsewhere: Row,
}

/// Those of these rows, each once: two rows may tell a server to do the same wrong.
#[must_use]
pub fn strays(rows: &[Row]) -> Vec<Stray> {
    let mut seen = BTreeSet::new();
    let mut strays = Vec::new();
    for &row in rows {
        let Wrong::Server(args) = row.planted.wrong else { continue };
        for proof in ALL.into_iter().filter(|proof| proof.case != row.proof.case) {
            if seen.insert((args, proof.case)) {
                strays.push(Stray { row, elsewhere: Row { proof, planted: &HEALTHY } });
            }
        }
    }
    strays
}

impl Stray {
    /// The criteria, by their [family], that this fault explains wherever there are such: all that any case expects
    /// to fail by it.
    fn explained(self) -> BTreeSet<&'static str> {
        let Wrong::Server(args) = self.row.planted.wrong else { return BTreeSet::new() };
        let same = |row: &Row| matches!(row.planted.wrong, Wrong::Server(other) if kind(other) == kind(args));
        rows()
            .filter(same)
            .flat_map(|row| row.planted.expected)
            .map(|expected| family(expected.criterion))
            .collect()
    }
}

impl Selftest {
    /// The criteria of the other case that failed by the fault, and that it does not explain.
    ///
    /// # Errors
    /// Where the case could not take place.
    pub fn run_stray(
        &self,
        stray: Stray,
        stop: &Stop,
        observer: &mut dyn PlanObserver,
    ) -> Result<Vec<CriterionOutcome>, SelftestError> {
        let Wrong::Server(args) = stray.row.planted.wrong else { return Ok(Vec::new()) };
        let (case, config) = (stray.elsewhere.case()?, stray.elsewhere.config()?);
        let explained = stray.explained();
        let found = case.run(&config, &self.venue(args), stop, observer)?;
        let failed = found.criteria.into_iter().filter(|criterion| criterion.verdict == Verdict::Fail);
        Ok(failed.filter(|criterion| !explained.contains(family(&criterion.name))).collect())
    }
}

/// What kind of thing the flags tell a server to do wrong: the name of its first fault, without how much of it.
fn kind(args: &[&'static str]) -> &'static str {
    let first = args.first().copied().unwrap_or_default();
    let fault = first.strip_prefix("--fault=").unwrap_or(first);
    fault.split(['=', ',']).next().unwrap_or_default()
}

/// A criterion's name without the step that it is of: `achieved_rate@5000` is the same check as `achieved_rate@100`.
pub(super) fn family(name: &str) -> &str {
    match name.split_once('@') {
        Some((family, step)) if step.starts_with(|first: char| first.is_ascii_digit()) => family,
        _ => name,
    }
}
