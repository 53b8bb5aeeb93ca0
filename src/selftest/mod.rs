//! The proof that every check can fail: for each criterion of each case something that is done wrong on purpose, and what
//! must come of it.
//!
//! Every case runs once with nothing wrong, and nothing may fail. Then once for each fault of its [table](ALL): its
//! criteria must fail, with the count that was planted, and no other may. A fault is one of our own server, or, for what no
//! server can do wrong (a generator that offered too little, statistics with a gap), one of the evidence: that of the run
//! in which nothing was wrong, edited and judged again.

mod auth;
mod backpressure;
mod compare;
mod connection_scaling;
mod delivery;
mod latency;
mod matrix;
mod memory;
mod ordering;
mod peak;
mod planted;
mod rate_scaling;
mod recovery;

use std::path::PathBuf;
use std::time::Instant;

use thiserror::Error;

use crate::client::Stop;
use crate::config::{ConfigError, HighVolumeConfig, Profile};
use crate::result::selftest::{Outcome, RowResult};
use crate::result::{LoadTestResults, Verdict};
use crate::run::plan::{PlanError, PlanObserver, Venue};
use crate::run::{Peer, ServerCommand};
use crate::scenario::{self, Case, Findings};

use compare::Doubted;
pub use matrix::{Stray, strays};
pub use planted::{Expected, Planted, Proof, Role, Wrong};

/// The faults of each case, in the order of the cases.
pub const ALL: [&Proof; 10] = [
    &rate_scaling::PROOF,
    &ordering::PROOF,
    &delivery::PROOF,
    &backpressure::PROOF,
    &latency::PROOF,
    &connection_scaling::PROOF,
    &memory::PROOF,
    &recovery::PROOF,
    &peak::PROOF,
    &auth::PROOF,
];

/// One thing to show: of a case, with one fault or with none.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The case, with all its faults.
    pub proof: &'static Proof,
    /// What is done wrong.
    pub planted: &'static Planted,
}

/// All rows, those of each case with the healthy one first.
pub fn rows() -> impl Iterator<Item = Row> {
    ALL.into_iter().flat_map(|proof| {
        let planted = std::iter::once(&planted::HEALTHY).chain(proof.faults.iter().copied().flatten());
        planted.map(move |planted| Row { proof, planted })
    })
}

/// The rows whose case or fault has one of these names; all of them where no name is given.
///
/// # Errors
/// Where there is none of one of the names: that one.
pub fn selected(names: &[String]) -> Result<Vec<Row>, String> {
    let has = |row: &Row, name: &str| row.proof.case == name || row.planted.name == name;
    if let Some(unknown) = names.iter().find(|name| !rows().any(|row| has(&row, name))) {
        return Err(unknown.clone());
    }
    Ok(rows().filter(|row| names.is_empty() || names.iter().any(|name| has(row, name))).collect())
}

/// A row could not be run.
#[derive(Debug, Error)]
pub enum SelftestError {
    /// The table names a case that there is not.
    #[error("no case is named `{0}`")]
    Case(&'static str),
    /// The settings of the table do not fit each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A phase could not take place.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Runs rows, one at a time, because what times something must be alone on the machine.
#[derive(Debug)]
pub struct Selftest {
    executable: PathBuf,
    /// To be edited by the faults of its evidence.
    healthy: Option<Healthy>,
}

/// What the last case brought to light with nothing wrong.
#[derive(Debug)]
struct Healthy {
    case: &'static str,
    findings: Findings,
    doubted: Doubted,
}

impl Selftest {
    /// One whose servers are started from this `floodline` executable.
    #[must_use]
    pub fn new(executable: PathBuf) -> Self {
        Self { executable, healthy: None }
    }

    /// Runs one row, and once more where the machine left the first try in doubt.
    ///
    /// # Errors
    /// Where the case could not take place.
    pub fn run(
        &mut self,
        row: Row,
        stop: &Stop,
        observer: &mut dyn PlanObserver,
    ) -> Result<RowResult, SelftestError> {
        let begun = Instant::now();
        let mut result = self.tried(row, stop, observer)?;
        if result.outcome == Outcome::Inconclusive && matches!(row.planted.wrong, Wrong::Server(_)) {
            result = self.tried(row, stop, observer)?;
        }
        result.took_s = begun.elapsed().as_secs_f64();
        Ok(result)
    }

    fn tried(
        &mut self,
        row: Row,
        stop: &Stop,
        observer: &mut dyn PlanObserver,
    ) -> Result<RowResult, SelftestError> {
        let case = row.case()?;
        let config = row.config()?;
        let criteria = |findings| case.conclude(&config, findings).criteria;
        let nothing = Doubted::default();
        Ok(match row.planted.wrong {
            Wrong::Server(args) => {
                let findings = case.find(&config, &self.venue(args), stop, observer)?;
                compare::judged(row, &criteria(findings), &nothing)
            }
            Wrong::Nothing => {
                let healthy = self.healthy(row, case, &config, stop, observer)?;
                compare::judged(row, &criteria(healthy.findings.clone()), &nothing)
            }
            evidence => {
                let healthy = self.healthy(row, case, &config, stop, observer)?;
                let mut findings = healthy.findings.clone();
                calm(&mut findings);
                edit(&mut findings, evidence);
                compare::judged(row, &criteria(findings), &healthy.doubted)
            }
        })
    }

    /// What the case of `row` brings to light with nothing wrong; run only where the last row did not need it too, and once
    /// more where the machine left something of it in doubt.
    fn healthy(
        &mut self,
        row: Row,
        case: &Case,
        config: &HighVolumeConfig,
        stop: &Stop,
        observer: &mut dyn PlanObserver,
    ) -> Result<&Healthy, SelftestError> {
        let healthy = match self.healthy.take().filter(|healthy| healthy.case == row.proof.case) {
            Some(healthy) => healthy,
            None => {
                let venue = self.venue(&[]);
                let mut find = || {
                    case.find(config, &venue, stop, observer).map(|found| Healthy::of(case, config, found))
                };
                let first = find()?;
                if first.doubted.is_empty() { first } else { find()? }
            }
        };
        Ok(self.healthy.insert(healthy))
    }

    fn venue(&self, args: &[&str]) -> Venue {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let peer = Peer::Own(ServerCommand { executable: self.executable.clone(), args });
        Venue { state_in: in_memory(), ..Venue::new(peer) }
    }
}

impl Healthy {
    fn of(case: &Case, config: &HighVolumeConfig, findings: Findings) -> Self {
        let criteria = case.conclude(config, findings.clone()).criteria;
        let in_doubt = criteria.into_iter().filter(|criterion| criterion.verdict == Verdict::Inconclusive);
        Self { case: case.name, findings, doubted: in_doubt.map(|criterion| criterion.name).collect() }
    }
}

impl Row {
    fn case(self) -> Result<&'static Case, SelftestError> {
        scenario::by_name(self.proof.case).ok_or(SelftestError::Case(self.proof.case))
    }

    /// The smallest size, and smaller still where that shows as much.
    fn config(self) -> Result<HighVolumeConfig, SelftestError> {
        let settings: Vec<(&str, &str)> =
            self.proof.settings.iter().chain(self.planted.settings).copied().collect();
        Ok(HighVolumeConfig::with(Profile::Smoke, &settings)?)
    }
}

/// A directory in memory, where the system has one. A server that is killed leaves behind there what it leaves on a disk,
/// and how long the disk takes to sync is not in the way of what is shown: one that others write to takes up to half a second,
/// and then nothing was committed that a server could forget.
fn in_memory() -> Option<PathBuf> {
    let shared = PathBuf::from("/dev/shm");
    tempfile::tempfile_in(&shared).ok().map(|_| shared)
}

/// Takes the noise of the machine out of evidence: of what is planted there, the machine is never the reason.
fn calm(findings: &mut Findings) {
    let calm = |run: &mut LoadTestResults| {
        (run.resources.foreign_cpu_cores, run.resources.busiest_worker_cores) = (Some(0.0), Some(0.0));
        run.send_lateness_us.iter_mut().for_each(|lateness| lateness.p99 = Some(0.0));
    };
    match findings {
        Findings::Phases(evidence) => evidence.runs_mut().for_each(|(_, run)| calm(run)),
        Findings::Search(found) => found.runs.iter_mut().for_each(|run| calm(&mut run.run)),
    }
}

/// Does the wrong thing to what was brought to light with nothing wrong.
fn edit(findings: &mut Findings, wrong: Wrong) {
    match (wrong, findings) {
        (Wrong::Phases(edit), Findings::Phases(evidence)) => edit(evidence),
        (Wrong::Search(edit), Findings::Search(found)) => edit(found),
        (Wrong::LastRun(edit), Findings::Phases(evidence)) => {
            let last = evidence.runs_mut().last();
            last.into_iter().for_each(|(_, run)| edit(run));
        }
        (Wrong::LastRun(edit), Findings::Search(found)) => {
            found.runs.last_mut().into_iter().for_each(|last| edit(&mut last.run));
        }
        (Wrong::Nothing | Wrong::Server(_), _)
        | (Wrong::Phases(_), Findings::Search(_))
        | (Wrong::Search(_), Findings::Phases(_)) => {}
    }
}

#[cfg(test)]
mod tests;
