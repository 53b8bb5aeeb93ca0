//! The cases: each a plan (phases as data) and a judge (criteria over the evidence).
//!
//! [`ALL`] names them; `floodline test`, the benches and the tests run them alike.

mod connection_scaling;
mod criteria;
mod latency;
pub mod load;
mod memory;
mod ordering;
mod rate_scaling;

use crate::client::Stop;
use crate::config::HighVolumeConfig;
use crate::result::{CaseResults, CriterionOutcome, PhaseRun, Verdict};
use crate::run::plan::{Evidence, Plan, PlanError, PlanObserver, Venue, execute};

/// One case.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name, as `floodline test` takes it.
    pub name: &'static str,
    /// The question that it answers.
    pub question: &'static str,
    /// What it does.
    pub plan: fn(&HighVolumeConfig) -> Plan,
    /// What must hold.
    pub judge: fn(&HighVolumeConfig, &Evidence) -> Vec<CriterionOutcome>,
}

/// All cases, in the order in which they run.
pub const ALL: [&Case; 5] =
    [&rate_scaling::CASE, &ordering::CASE, &latency::CASE, &connection_scaling::CASE, &memory::CASE];

/// The case of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Case> {
    ALL.into_iter().find(|case| case.name == name)
}

impl Case {
    /// Executes the case and judges it.
    ///
    /// # Errors
    /// Where a phase could not take place.
    pub fn run(
        &self,
        config: &HighVolumeConfig,
        venue: &Venue,
        stop: &Stop,
        observer: &mut dyn PlanObserver,
    ) -> Result<CaseResults, PlanError> {
        let evidence = execute(&(self.plan)(config), venue, stop, observer)?;
        let criteria = (self.judge)(config, &evidence);
        Ok(CaseResults {
            name: self.name.to_owned(),
            verdict: Verdict::of_all(criteria.iter().map(|criterion| criterion.verdict)),
            reasons: criteria.iter().filter_map(load::reason).collect(),
            criteria,
            runs: evidence
                .phases
                .into_iter()
                .filter_map(|phase| Some(PhaseRun { phase: phase.name, run: *phase.run? }))
                .collect(),
        })
    }
}

/// The load that all cases have in common, as configured.
fn workload(config: &HighVolumeConfig) -> crate::workload::Workload {
    let load = &config.load;
    crate::workload::Workload {
        payload_bytes: usize::try_from(load.payload_bytes).unwrap_or(usize::MAX),
        answer_timeout: load.answer_timeout,
        seed: load.seed,
        // The configuration has checked these words.
        arrival: load.arrival.parse().unwrap_or_default(),
        pacer: load.pacer.parse().unwrap_or_default(),
        ..crate::workload::Workload::default()
    }
}
