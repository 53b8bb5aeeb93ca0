//! The cases: each a plan (phases as data) and a judge (criteria over the evidence).
//!
//! [`ALL`] names them; `floodline test`, the benches and the tests run them alike.

mod auth;
mod backpressure;
mod comparison;
mod connection_scaling;
mod criteria;
mod delivery;
mod latency;
pub mod load;
mod memory;
mod ordering;
pub mod peak;
mod rate_scaling;
mod recovery;

use crate::client::Stop;
use crate::config::HighVolumeConfig;
use crate::proxy::Injection;
use crate::result::peak::PeakResults;
use crate::result::{CaseResults, CriterionOutcome, Incident, PhaseRun, Verdict};
use crate::run::GuardError;
use crate::run::plan::{
    Action, Evidence, Phase, PhaseEvidence, Plan, PlanError, PlanObserver, Venue, execute,
};

#[cfg(test)]
pub(crate) use criteria::is_told;

/// One case.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name, as `floodline test` takes it.
    pub name: &'static str,
    /// The question that it answers.
    pub question: &'static str,
    /// What a target must be able to do for all of it; of what one cannot do, the criteria are skipped with the reason.
    pub needs: &'static [Need],
    /// What it does, and what must hold.
    body: Body,
}

/// What a target that is not our own server may be unable to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It tells its statistics on the wire (`get_performance_stats`).
    Statistics,
    /// It can be killed and started again.
    Restart,
    /// It keeps a journal of what it has processed.
    Journal,
    /// It has priorities.
    Priorities,
    /// It says what it refuses, and when its queue is full.
    Refusals,
    /// Its process is on this machine, and known.
    Process,
    /// It asks for tokens, and we have some.
    Tokens,
}

impl Need {
    /// What it takes, in a few words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Statistics => "statistics on the wire",
            Self::Restart => "--restart-command",
            Self::Journal => "a journal (our own server)",
            Self::Priorities => "priorities",
            Self::Refusals => "refusals and signals",
            Self::Process => "--pid",
            Self::Tokens => "--token-env or --token-file",
        }
    }
}

/// How a case is run.
#[derive(Debug, Clone, Copy)]
enum Body {
    /// Its phases are known beforehand, and judged when all are over.
    Planned {
        /// What it does.
        plan: fn(&HighVolumeConfig) -> Plan,
        /// What must hold.
        judge: fn(&HighVolumeConfig, &Evidence) -> Vec<CriterionOutcome>,
    },
    /// What it does next depends on what it found.
    Search {
        /// Searches.
        find: fn(&HighVolumeConfig, &Venue, &Stop, &mut dyn PlanObserver) -> Result<PeakResults, PlanError>,
        /// What must hold.
        judge: fn(&HighVolumeConfig, &mut PeakResults),
    },
}

/// What a case brought to light, before anybody judged it.
#[derive(Debug, Clone, PartialEq)]
pub enum Findings {
    /// Of a case whose phases are known beforehand.
    Phases(Evidence),
    /// Of the search for the peak.
    Search(Box<PeakResults>),
}

/// The cases that run where none is named, in that order.
pub const ALL: [&Case; 9] = [
    &rate_scaling::CASE,
    &ordering::CASE,
    &delivery::CASE,
    &backpressure::CASE,
    &latency::CASE,
    &connection_scaling::CASE,
    &memory::CASE,
    &recovery::CASE,
    &peak::CASE,
];

/// Cases that run only where they are named: they need something of the target that not every one has.
pub const BY_NAME_ONLY: [&Case; 1] = [&auth::CASE];

/// All cases that there are.
pub fn every() -> impl Iterator<Item = &'static Case> {
    ALL.into_iter().chain(BY_NAME_ONLY)
}

/// The case of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Case> {
    every().find(|case| case.name == name)
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
        Ok(self.conclude(config, self.find(config, venue, stop, observer)?))
    }

    /// Executes the case without judging it.
    ///
    /// # Errors
    /// Where a phase could not take place.
    pub fn find(
        &self,
        config: &HighVolumeConfig,
        venue: &Venue,
        stop: &Stop,
        observer: &mut dyn PlanObserver,
    ) -> Result<Findings, PlanError> {
        match self.body {
            Body::Planned { plan, .. } => execute(&plan(config), venue, stop, observer).map(Findings::Phases),
            Body::Search { find, .. } => {
                find(config, venue, stop, observer).map(|found| Findings::Search(Box::new(found)))
            }
        }
    }

    /// Judges what the case brought to light.
    #[must_use]
    pub fn conclude(&self, config: &HighVolumeConfig, findings: Findings) -> CaseResults {
        let evidence = match (findings, self.body) {
            (Findings::Search(mut found), Body::Search { judge, .. }) => {
                judge(config, &mut found);
                return CaseResults::from(*found);
            }
            (Findings::Phases(evidence), _) => evidence,
            // Another case's findings show nothing of this one.
            (Findings::Search(_), Body::Planned { .. }) => Evidence::default(),
        };
        let criteria = self.assess(config, &evidence);
        CaseResults {
            name: self.name.to_owned(),
            verdict: Verdict::of_all(criteria.iter().map(|criterion| criterion.verdict)),
            reasons: criteria.iter().filter_map(load::reason).collect(),
            criteria,
            incidents: incidents(&evidence),
            runs: evidence
                .runs()
                .map(|(name, run)| PhaseRun { phase: name.to_owned(), run: run.clone() })
                .collect(),
        }
    }

    /// Whether its loads are within what `guard` allows, as far as they are known beforehand: a search is held to it while it
    /// lasts.
    ///
    /// # Errors
    /// What of it goes beyond.
    pub fn within_guard(&self, config: &HighVolumeConfig) -> Result<(), GuardError> {
        let guard = &config.guard;
        match self.plan(config) {
            Some(plan) => guard.check_time(self.name, guard.check_plan(self.name, &plan)?),
            None => guard.check_load(self.name, &peak::burst(config)),
        }
    }

    /// Its phases; `None` where they depend on what is found.
    #[must_use]
    pub fn plan(&self, config: &HighVolumeConfig) -> Option<Plan> {
        match self.body {
            Body::Planned { plan, .. } => Some(plan(config)),
            Body::Search { .. } => None,
        }
    }

    /// The criteria over `evidence`. Evidence that lacks a phase of the plan fails by that alone: what was not looked at
    /// does not pass.
    #[must_use]
    pub fn assess(&self, config: &HighVolumeConfig, evidence: &Evidence) -> Vec<CriterionOutcome> {
        let Body::Planned { plan, judge } = self.body else {
            let why = "a search judges its own tries, not evidence of phases".to_owned();
            return vec![criteria::none_of("missing_phases", 1, [why])];
        };
        let plan = plan(config);
        let missing = plan.phases.iter().filter(|phase| !is_there(phase, evidence));
        let missing: Vec<String> =
            missing.map(|phase| format!("no evidence of phase `{}`", phase.name)).collect();
        let mut criteria = judge(config, evidence);
        let doubts: Vec<String> = evidence
            .runs()
            .filter_map(|(name, run)| Some(format!("at {name}: {}", criteria::unopened(run)?)))
            .collect();
        if !doubts.is_empty() {
            let mut opened = evidence.clone();
            opened.runs_mut().for_each(|(_, run)| *run = run.as_opened());
            criteria::excuse(&mut criteria, &judge(config, &opened), &doubts);
        }
        if !missing.is_empty() {
            let count = missing.len() as u64;
            let why =
                evidence.gone.iter().map(|why| format!("the server was there, and then it was not: {why}"));
            criteria.push(criteria::none_of("missing_phases", count, why.chain(missing)));
        }
        criteria
    }
}

/// A flag of `floodline serve` with a duration.
fn flag(name: &str, span: std::time::Duration) -> String {
    format!("--{name}={}ns", span.as_nanos())
}

/// What was done to the server and its connections, in the order of the phases and of the time.
fn incidents(evidence: &Evidence) -> Vec<Incident> {
    let of_phase = |phase: &PhaseEvidence| {
        let at = |at_s, what| Incident { phase: phase.name.clone(), at_s, what };
        let mut all = Vec::new();
        if let Some(scene) = &phase.scene {
            all.extend(scene.kills.iter().map(|kill| {
                at(kill.at_s, format!("server killed, listening again at {:.3} s", kill.back_at_s))
            }));
            all.extend(scene.injections.iter().map(|injected| {
                let Injection { rule, connection, action, .. } = &injected.injection;
                at(injected.at_s, format!("{rule}: connection {connection}: {action:?}"))
            }));
        }
        all.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        all
    };
    evidence.phases.iter().flat_map(of_phase).collect()
}

/// Whether there is evidence of a phase: of one that offers load, its result.
fn is_there(phase: &Phase, evidence: &Evidence) -> bool {
    let Some(seen) = evidence.phase(&phase.name) else { return false };
    match &phase.action {
        Action::Load(_) | Action::WatchedLoad(_) => seen.run.is_some(),
        Action::Scene(scene) => scene.loads.iter().all(|load| evidence.run(&load.name).is_some()),
        Action::Idle(_) | Action::Stats | Action::Purge => true,
    }
}

/// The load that all cases have in common, as configured.
fn workload(config: &HighVolumeConfig) -> crate::workload::Workload {
    let load = &config.load;
    crate::workload::Workload {
        payload_bytes: usize::try_from(load.payload_bytes).unwrap_or(usize::MAX),
        answer_timeout: load.answer_timeout,
        ramp: load.ramp,
        seed: load.seed,
        // The configuration has checked these words.
        arrival: load.arrival.parse().unwrap_or_default(),
        pacer: load.pacer.parse().unwrap_or_default(),
        ..crate::workload::Workload::default()
    }
}

/// Evidence made by hand, for the tests of the judges.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::result::{LoadTestResults, example};
    use crate::run::scene::{NamedRun, SceneEvidence};
    use crate::workload::Workload;

    /// Every criterion that `case` judges, whatever its verdict: over evidence of all of its loads, and of none.
    pub(crate) fn every_criterion(case: &Case, profile: crate::config::Profile) -> Vec<CriterionOutcome> {
        let config = HighVolumeConfig::for_profile(profile);
        let Some(plan) = case.plan(&config) else { return peak::testing::every_criterion(&config) };
        let evidence = evidence_of(&plan, |_| run(100.0, 10));
        let mut criteria = case.assess(&config, &evidence);
        assert!(criteria.iter().all(|criterion| criterion.name != "missing_phases"), "{criteria:#?}");
        criteria.extend(case.assess(&config, &Evidence::default()));
        criteria
    }

    /// Evidence of all loads of a plan, each as `run` makes it.
    pub(super) fn evidence_of(plan: &Plan, run: impl Fn(&Workload) -> LoadTestResults) -> Evidence {
        let of_phase = |phase: &Phase| match &phase.action {
            Action::Load(load) | Action::WatchedLoad(load) => loaded(&phase.name, run(load)),
            Action::Scene(scene) => {
                let named = scene
                    .loads
                    .iter()
                    .map(|load| NamedRun { name: load.name.clone(), run: Box::new(run(&load.workload)) });
                let scene = SceneEvidence { runs: named.collect(), ..SceneEvidence::default() };
                PhaseEvidence { scene: Some(scene), ..PhaseEvidence::of(&phase.name) }
            }
            Action::Idle(_) | Action::Stats | Action::Purge => PhaseEvidence::of(&phase.name),
        };
        Evidence {
            journal: Some(std::collections::BTreeMap::new()),
            ..seen(plan.phases.iter().map(of_phase).collect())
        }
    }

    /// A spotless load at `rate` over `connections`, for 10 s.
    pub(super) fn run(rate: f64, connections: u32) -> LoadTestResults {
        let mut run = example::clean();
        run.throughput.offered_rate = Some(rate);
        run.throughput.achieved_rate = rate;
        run.workload.rate = Some(rate);
        run.workload.connections = connections;
        run.connections.requested = u64::from(connections);
        run.connections.established = u64::from(connections);
        run
    }

    pub(super) fn loaded(name: impl Into<String>, run: LoadTestResults) -> PhaseEvidence {
        PhaseEvidence { run: Some(Box::new(run)), ..PhaseEvidence::of(name) }
    }

    /// Evidence of these phases, of our own server.
    pub(super) fn seen(phases: Vec<PhaseEvidence>) -> Evidence {
        Evidence { own_server: true, phases, ..Evidence::default() }
    }

    /// Judges `evidence`, at the size `full`.
    pub(super) fn judged(case: &Case, evidence: &Evidence) -> Vec<CriterionOutcome> {
        let Body::Planned { judge, .. } = case.body else { panic!("{} judges its own tries", case.name) };
        judge(&HighVolumeConfig::for_profile(crate::config::Profile::Full), evidence)
    }

    /// The names of the criteria that ended so.
    pub(super) fn named(criteria: &[CriterionOutcome], verdict: Verdict) -> Vec<&str> {
        criteria
            .iter()
            .filter(|criterion| criterion.verdict == verdict)
            .map(|criterion| &*criterion.name)
            .collect()
    }

    /// Asserts that exactly the criteria `names` fail, and nothing is in doubt.
    pub(super) fn assert_fails(criteria: &[CriterionOutcome], names: &[&str]) {
        assert_eq!(named(criteria, Verdict::Fail), names, "{criteria:#?}");
        assert_eq!(named(criteria, Verdict::Inconclusive), [""; 0], "{criteria:#?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Profile;
    use crate::result::{LoadTestResults, example};
    use crate::run::scene::{Kill, SceneEvidence};
    use crate::workload::{Offered, Workload};
    use std::collections::BTreeSet;

    #[test]
    fn every_case_is_found_by_its_name() {
        assert!(every().all(|case| by_name(case.name).is_some_and(|found| found.name == case.name)));
        assert!(by_name("").is_none());
    }

    #[test]
    fn nothing_seen_is_never_a_pass() {
        for case in every() {
            let criteria = case.assess(&HighVolumeConfig::default(), &Evidence::default());
            assert!(testing::named(&criteria, Verdict::Fail).contains(&"missing_phases"), "{criteria:#?}");
            let verdict = Verdict::of_all(criteria.iter().map(|criterion| criterion.verdict));
            assert_ne!(verdict, Verdict::Pass, "{}: {criteria:#?}", case.name);
        }
    }

    #[test]
    fn a_load_without_a_result_is_missing() {
        let config = HighVolumeConfig::default();
        for case in every() {
            let Some(plan) = case.plan(&config) else { continue };
            let named = |phase: &Phase| PhaseEvidence::of(&phase.name);
            let phases: Vec<PhaseEvidence> = plan.phases.iter().map(named).collect();
            let loads = plan
                .phases
                .iter()
                .filter(|phase| !matches!(phase.action, Action::Idle(_) | Action::Stats | Action::Purge));
            let names: Vec<String> =
                loads.map(|phase| format!("no evidence of phase `{}`", phase.name)).collect();
            let criteria = case.assess(&config, &testing::seen(phases));
            let missing = criteria.iter().find(|criterion| criterion.name == "missing_phases").unwrap();
            assert_eq!((missing.verdict, &missing.evidence), (Verdict::Fail, &names), "{}", case.name);
        }
    }

    #[test]
    fn what_was_done_is_told_in_the_order_of_phases_and_time() {
        let kill = |at_s: f64| Kill { at_s, back_at_s: at_s + 0.1 };
        let phase = |name: &str, kills: Vec<Kill>| {
            let scene = SceneEvidence { kills, ..SceneEvidence::default() };
            PhaseEvidence { scene: Some(scene), ..PhaseEvidence::of(name) }
        };
        let phases = vec![phase("first", vec![kill(2.0), kill(1.0)]), phase("second", vec![kill(0.5)])];
        let told: Vec<(String, f64, String)> = incidents(&Evidence { phases, ..Evidence::default() })
            .into_iter()
            .map(|incident| (incident.phase, incident.at_s, incident.what))
            .collect();
        let of = |phase: &str, at_s, back| {
            (phase.to_owned(), at_s, format!("server killed, listening again at {back} s"))
        };
        assert_eq!(told, [of("first", 1.0, "1.100"), of("first", 2.0, "2.100"), of("second", 0.5, "0.600")]);
    }

    /// Each load spotless, and then without a fifth of its connections.
    #[test]
    fn what_the_generator_did_not_open_makes_nothing_fail_in_any_case() {
        let config = HighVolumeConfig::for_profile(Profile::Full);
        let spotless = |load: &Workload| {
            let rate = load.offered.rate().map_or(1_000.0, |rate| rate.as_per_second());
            testing::run(rate, load.connections)
        };
        let starved = |load: &Workload| {
            let mut run = spotless(load);
            example::starve(&mut run, load.connections / 5);
            run
        };
        let refused = |load: &Workload| {
            let mut run = starved(load);
            (run.connections.established, run.connections.refused) = (run.connections.established - 1, 1);
            run
        };
        type Load<'a> = &'a dyn Fn(&Workload) -> LoadTestResults;
        let ended = |case: &Case, plan: &Plan, load: Load<'_>, verdict| -> BTreeSet<String> {
            let criteria = case.assess(&config, &testing::evidence_of(plan, load));
            testing::named(&criteria, verdict).into_iter().map(str::to_owned).collect()
        };
        for case in every() {
            let Some(plan) = case.plan(&config) else { continue };
            // What needs more than a load that went well fails without it, in this evidence.
            let before = ended(case, &plan, &spotless, Verdict::Fail);
            let after = ended(case, &plan, &starved, Verdict::Fail);
            assert!(after.is_subset(&before), "{}: {:?}", case.name, after.difference(&before));
            // `recovery` judges no connections: it cuts them itself.
            if case.name != "recovery" {
                let doubted = ended(case, &plan, &starved, Verdict::Inconclusive);
                assert!(doubted.contains("connections"), "{}: {doubted:?}", case.name);
                assert!(ended(case, &plan, &refused, Verdict::Fail).contains("connections"), "{}", case.name);
            }
        }
    }

    #[test]
    fn phases_have_names_of_their_own_at_every_size() {
        for (case, profile) in every().flat_map(|case| Profile::ALL.map(|profile| (case, profile))) {
            let Some(plan) = case.plan(&HighVolumeConfig::for_profile(profile)) else { continue };
            let names: BTreeSet<&str> = plan.phases.iter().map(|phase| &*phase.name).collect();
            assert_eq!(names.len(), plan.phases.len(), "{} at {profile}", case.name);
        }
    }

    #[test]
    fn the_default_guard_leaves_room_for_every_case_at_every_size() {
        for profile in Profile::ALL {
            let config = HighVolumeConfig::for_profile(profile);
            let plans = every().filter_map(|case| Some((case.name, case.plan(&config)?)));
            let takes: std::time::Duration =
                plans.map(|(name, plan)| config.guard.check_plan(name, &plan).unwrap()).sum();
            // The search for the peak and all waiting come on top.
            assert!(2 * takes < config.guard.time_limit, "{profile}: {takes:?}");
        }
    }

    /// The loads of the requirements: rate, connections, seconds.
    #[test]
    fn the_full_size_is_that_of_the_requirements() {
        let loads = |name: &str| -> Vec<(f64, u32, f64)> {
            let full = HighVolumeConfig::for_profile(Profile::Full);
            let plan = by_name(name).unwrap().plan(&full).unwrap();
            let load = |action: &Action| match action {
                Action::Load(load) | Action::WatchedLoad(load) => match load.offered {
                    Offered::Rate(rate) => {
                        Some((rate.as_per_second(), load.connections, load.duration.as_secs_f64()))
                    }
                    Offered::Max => None,
                },
                _ => None,
            };
            plan.phases.iter().filter_map(|phase| load(&phase.action)).collect()
        };
        let rates = [100.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 7_500.0, 10_000.0];
        assert_eq!(loads("rate_scaling"), rates.map(|rate| (rate, 100, 30.0)));
        assert_eq!(loads("ordering"), [(1_000.0, 1, 10.0), (1e6, 1, 0.01), (10_000.0, 10, 1.0)]);
        assert_eq!(loads("latency"), [(5_000.0, 100, 300.0)]);
        let connections = [1, 10, 50, 100, 250, 500];
        assert_eq!(loads("connection_scaling"), connections.map(|n| (f64::from(n) * 100.0, n, 30.0)));
        assert_eq!(loads("memory").last(), Some(&(10_000.0, 100, 600.0)));
    }

    /// 10 s up and down where something is timed over a load; not where each message has its number, or an overload its
    /// moment.
    #[test]
    fn timed_loads_have_the_ramps_of_the_requirements() {
        for case in every() {
            let Some(plan) = case.plan(&HighVolumeConfig::for_profile(Profile::Full)) else { continue };
            let ramp_s = if ["ordering", "backpressure"].contains(&case.name) { 0 } else { 10 };
            for phase in plan.phases {
                if let Action::Load(load) | Action::WatchedLoad(load) = phase.action {
                    assert_eq!(load.ramp.as_secs(), ramp_s, "{}, {}", case.name, phase.name);
                }
            }
        }
    }
}
