//! Case 9: what is the highest rate that holds the limits, and what becomes of a burst?
//!
//! The rates to try depend on how the ones before them ended, so this is no plan: [`run`] searches with short loads
//! ([`RateSearch`]), confirms what it found with long ones, and offers the burst, all to one server.
//!
//! A service's scalability law ([`crate::analysis::usl`]) is not fitted here: it is about throughput over concurrency, and
//! in an open loop the concurrency is an outcome. What the table of rates does show is the [capacity](ThroughputAnalyzer::calculate_capacity).

mod judge;
mod step;

use std::sync::Arc;
use std::time::Duration;

use super::criteria::{excuse, unopened};
use super::load::reason;
use super::{Body, Case, workload};
use crate::analysis::{Bootstrap, RateSearch, RateStep, SearchRange, ThroughputAnalyzer, TryOutcome, spread};
use crate::client::{ClientError, Stop};
use crate::config::HighVolumeConfig;
use crate::environment::Environment;
use crate::result::peak::{BurstResults, PEAK_SCHEMA, PeakRate, PeakResults, RateTry, RepeatInterval};
use crate::result::{CriterionOutcome, LoadTestResults, PhaseRun, Verdict};
use crate::run::plan::{PlanError, PlanObserver, Venue};
use crate::run::{LoadPlan, Peer, RunError, ServerCommand, ServerProcess, run_load};
use crate::schedule::Arrival;
use crate::units::Rate;
use crate::workload::{Offered, Target, Workload};

pub(super) const CASE: Case = Case {
    name: "peak",
    question: "what is the highest rate that holds the limits, and what becomes of a burst?",
    needs: &[],
    body: Body::Search { find, judge: conclude },
};

/// "As fast as possible": all of the burst is due before the first answer can come.
const BURST_PER_SECOND: f64 = 1e6;
/// The phase of the burst.
const BURST: &str = "burst";
/// What the phases of the confirming runs begin with.
const CONFIRM: &str = "confirm";
/// Rates that are tried to be confirmed, each lower than the one before by the resolution at least. A short load flatters
/// a rate somewhat; a search that is off by more than a third (1.05⁸) measured something else.
const ROUNDS: u32 = 9;
/// From so many repeats on their median has a bootstrap interval worth its name; with fewer it is too narrow.
const BOOTSTRAP_FROM: usize = 10;

/// The load of the burst.
#[must_use]
pub fn burst(config: &HighVolumeConfig) -> Workload {
    // Slowed to what is allowed, where that is less.
    let per_second = BURST_PER_SECOND.min(config.guard.max_rate.as_per_second());
    Workload {
        offered: Offered::Rate(Rate::per_second(per_second).unwrap_or(config.peak.ceiling_rate)),
        connections: config.peak.connections,
        duration: Duration::from_secs_f64(config.peak.burst_messages as f64 / per_second),
        // Exactly as many messages as were asked for.
        arrival: Arrival::Uniform,
        // However long the server takes to read it all.
        send_grace: config.load.answer_timeout,
        ramp: Duration::ZERO,
        ..workload(config)
    }
}

/// Searches for the peak, confirms it, offers the burst, and judges what was found. Ended early, it gives what was
/// measured until then.
///
/// # Errors
/// Where a load could not be offered at all.
pub fn run(
    config: &HighVolumeConfig,
    venue: &Venue,
    stop: &Stop,
    observer: &mut dyn PlanObserver,
) -> Result<PeakResults, PlanError> {
    let mut found = find(config, venue, stop, observer)?;
    conclude(config, &mut found);
    Ok(found)
}

/// The same, not judged yet.
fn find(
    config: &HighVolumeConfig,
    venue: &Venue,
    stop: &Stop,
    observer: &mut dyn PlanObserver,
) -> Result<PeakResults, PlanError> {
    let mut hunt = Hunt::begin(config, venue, stop, observer)?;
    let peak = match hunt.search()? {
        Some(rate) => hunt.confirm(rate)?,
        None => None,
    };
    let ended_early = stop.is_stopped();
    let burst = hunt.offer(BURST, burst(config))?.then(|| hunt.runs.last()).flatten();
    let burst = burst.map(|burst| burst_results(&burst.run));
    let Hunt { tries, runs, .. } = hunt;
    let interrupted = stop.is_stopped();
    Ok(PeakResults {
        schema: PEAK_SCHEMA.to_owned(),
        verdict: Verdict::Pass,
        reasons: Vec::new(),
        interrupted,
        profile: config.profile.to_string(),
        connections: config.peak.connections,
        limiting_side: judge::limiting_side(&tries, peak.map(|peak| peak.rate), ended_early),
        peak,
        fitted_capacity: fitted_capacity(&tries),
        tries,
        burst,
        criteria: Vec::new(),
        runs,
        environment: Environment::detect(),
    })
}

/// Writes criteria, verdict and reasons into what was found.
fn conclude(config: &HighVolumeConfig, found: &mut PeakResults) {
    found.criteria = criteria(config, found);
    found.verdict = Verdict::of_all(found.criteria.iter().map(|criterion| criterion.verdict));
    found.reasons = found.criteria.iter().filter_map(reason).collect();
}

/// The criteria, and in doubt what fails only for want of connections that the generator itself did not open.
fn criteria(config: &HighVolumeConfig, found: &PeakResults) -> Vec<CriterionOutcome> {
    let mut criteria = judge::criteria(config, found);
    let doubt = |run: &PhaseRun| Some(format!("at {}: {}", run.phase, unopened(&run.run)?));
    let doubts: Vec<String> = found.runs.iter().filter_map(doubt).collect();
    if !doubts.is_empty() {
        let mut opened = found.clone();
        opened.runs.iter_mut().for_each(|run| run.run = run.run.as_opened());
        excuse(&mut criteria, &judge::criteria(config, &opened), &doubts);
    }
    criteria
}

/// The search under way.
struct Hunt<'a> {
    config: &'a HighVolumeConfig,
    venue: &'a Venue,
    stop: &'a Stop,
    observer: &'a mut dyn PlanObserver,
    target: Target,
    pid: Option<u32>,
    /// Our own, which lives as long as this does.
    _server: Option<ServerProcess>,
    tries: Vec<RateTry>,
    runs: Vec<PhaseRun>,
}

impl<'a> Hunt<'a> {
    fn begin(
        config: &'a HighVolumeConfig,
        venue: &'a Venue,
        stop: &'a Stop,
        observer: &'a mut dyn PlanObserver,
    ) -> Result<Self, PlanError> {
        let (server, target, pid) = match &venue.peer {
            Peer::Own(command) => {
                let server = ServerProcess::start(&with_room_for(config.peak.connections, command))?;
                let (target, pid) = (server.target().clone(), Some(server.pid()));
                (Some(server), target, pid)
            }
            Peer::At { target, pid } => (None, target.clone(), *pid),
        };
        let (tries, runs) = (Vec::new(), Vec::new());
        Ok(Self { config, venue, stop, observer, target, pid, _server: server, tries, runs })
    }

    /// The highest rate that held in a short load; `None` where none did, or it was ended early.
    fn search(&mut self) -> Result<Option<f64>, PlanError> {
        let case = &self.config.peak;
        let ceiling = case.ceiling_rate.as_per_second().min(self.config.guard.max_rate.as_per_second());
        let mut search = RateSearch::new(SearchRange {
            start: case.start_rate.as_per_second().min(ceiling),
            ceiling,
            resolution: case.resolution_ratio,
        })?;
        while let Some(rate) = search.next_rate() {
            let phase = format!("search-{:02}-{rate:.0}", self.tries.len() + 1);
            match self.attempt(&phase, rate, case.hold)? {
                Verdict::Pass => search.record(TryOutcome::Held),
                Verdict::Fail => search.record(TryOutcome::NotHeld),
                Verdict::Inconclusive => search.record(TryOutcome::Inconclusive),
                Verdict::Skipped => return Ok(None),
            }
        }
        Ok(search.highest_held())
    }

    /// The figure: at `rate`, or the first one below it that holds in each of the repeats.
    fn confirm(&mut self, mut rate: f64) -> Result<Option<PeakRate>, PlanError> {
        let case = &self.config.peak;
        for round in 1..=ROUNDS {
            let mut achieved = Vec::new();
            for repeat in 1..=case.repeats {
                let phase = format!("{CONFIRM}-{round}-{repeat}-{rate:.0}");
                match self.attempt(&phase, rate, case.confirm)? {
                    Verdict::Pass => achieved.extend(self.tries.last().map(|tried| tried.achieved_rate)),
                    Verdict::Skipped => return Ok(None),
                    Verdict::Fail | Verdict::Inconclusive => break,
                }
            }
            if achieved.len() == case.repeats as usize {
                return Ok(figure(rate, &achieved, &self.tries));
            }
            let served = self.tries.last().map_or(rate, |tried| tried.served_rate);
            rate = below(rate, served, self.config.peak.resolution_ratio);
        }
        Ok(None)
    }

    /// Tries one rate; `skipped` where it was ended early.
    fn attempt(&mut self, phase: &str, rate: f64, hold: Duration) -> Result<Verdict, PlanError> {
        let case = &self.config.peak;
        let load = Workload {
            // Between 0 and the ceiling, which is a rate.
            offered: Offered::Rate(Rate::per_second(rate).unwrap_or(case.ceiling_rate)),
            connections: case.connections,
            duration: hold,
            // Whether a rate holds shows by what is left over at its end, which a fall would serve.
            ramp: Duration::ZERO,
            ..workload(self.config)
        };
        if !self.offer(phase, load)? {
            return Ok(Verdict::Skipped);
        }
        let tried = self.runs.last().map(|run| step::tried(&self.config.limits, phase, rate, &run.run));
        let verdict = tried.as_ref().map_or(Verdict::Skipped, |tried| tried.verdict);
        self.tries.extend(tried);
        Ok(verdict)
    }

    /// Offers a load and keeps its result; `false` where it was ended before there was one.
    fn offer(&mut self, phase: &str, workload: Workload) -> Result<bool, PlanError> {
        if self.stop.is_stopped() {
            return Ok(false);
        }
        self.observer.phase(phase);
        let peer = Peer::At { target: self.target.clone(), pid: self.pid };
        let plan = LoadPlan {
            dialect: self.venue.dialect,
            access: self.venue.access.clone(),
            dialect_settings: Arc::clone(&self.venue.dialect_settings),
            calibration: self.venue.calibration.clone(),
            ..LoadPlan::new(workload, peer)
        };
        match run_load(&plan, self.stop, self.observer) {
            Ok(mut run) => {
                if matches!(self.venue.peer, Peer::Own(_)) {
                    run.workload.target = None;
                }
                self.runs.push(PhaseRun { phase: phase.to_owned(), run });
                Ok(true)
            }
            Err(RunError::Client(ClientError::Stopped)) => Ok(false),
            Err(source) => Err(PlanError::Run { phase: phase.to_owned(), source }),
        }
    }
}

/// One load follows the other, so a server must have room for the connections of two: those of the last may not be gone.
fn with_room_for(connections: u32, command: &ServerCommand) -> ServerCommand {
    const DEFAULT: u32 = 1_100;
    let room = format!("--max-connections={}", connections.saturating_mul(2).max(DEFAULT));
    let args = command.args.iter().cloned().chain([room]).collect();
    ServerCommand { executable: command.executable.clone(), args }
}

/// The rate to confirm after `rate` has failed: lower by the resolution, and no higher than what was served in the run
/// that failed, which spares the rounds in between. Half of it at least, whatever became of that run.
fn below(rate: f64, served: f64, resolution_ratio: f64) -> f64 {
    (rate / (1.0 + resolution_ratio)).min(served.max(rate / 2.0))
}

/// The median of the repeats, and where it lies. `None` where there are no repeats.
fn figure(rate: f64, achieved: &[f64], tries: &[RateTry]) -> Option<PeakRate> {
    let not_held = judge::bounding(tries, Some(rate)).first().map(|tried| tried.rate);
    Some(PeakRate {
        rate,
        achieved_rate: spread::median(achieved).ok()?,
        interval: interval(achieved),
        repeats: u32::try_from(achieved.len()).unwrap_or(u32::MAX),
        not_held_rate: not_held,
    })
}

/// Where the median of what such repeats achieve lies. The range of `n` of them misses it where all are above or all are
/// below, each with a chance of 2⁻ⁿ (H. A. David, H. N. Nagaraja, "Order Statistics", 2003, section 7.1): whatever their
/// distribution, and no resampling of so few says more.
fn interval(achieved: &[f64]) -> RepeatInterval {
    let bootstrap = Bootstrap::default();
    if achieved.len() >= BOOTSTRAP_FROM
        && let Ok(estimate) = ThroughputAnalyzer::calculate_median_interval(achieved, bootstrap)
    {
        let crate::analysis::Interval { lower, upper } = estimate.interval;
        return RepeatInterval { lower, upper, confidence: bootstrap.confidence.share() };
    }
    RepeatInterval {
        lower: achieved.iter().copied().fold(f64::INFINITY, f64::min),
        upper: achieved.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        confidence: 1.0 - 2.0_f64.powf(1.0 - achieved.len() as f64),
    }
}

/// The rate above which nothing more was achieved, over all tries that ran to their end.
fn fitted_capacity(tries: &[RateTry]) -> Option<f64> {
    let ended = tries.iter().filter(|tried| tried.verdict != Verdict::Skipped);
    // What held was served as offered: that the last answer comes a moment after the load is no limit.
    let served = |tried: &RateTry| match tried.verdict {
        Verdict::Pass => tried.rate,
        _ => tried.served_rate.min(tried.rate),
    };
    let table: Vec<RateStep> =
        ended.map(|tried| RateStep { offered: tried.rate, achieved: served(tried) }).collect();
    ThroughputAnalyzer::calculate_capacity(&table).ok().flatten()
}

fn burst_results(run: &LoadTestResults) -> BurstResults {
    let counts = &run.messages.counts;
    let told = counts.answered + counts.refused;
    BurstResults {
        due: run.messages.due,
        answered: counts.answered,
        refused: counts.refused,
        lost: counts.lost,
        unsent: run.messages.unsent,
        offered_s: run.offered_for_s,
        drain_s: run.moments.last_answer_s.map(|last_s| (last_s - run.offered_for_s).max(0.0)),
        rate: run.moments.last_answer_s.filter(|&last_s| last_s > 0.0).map(|last_s| told as f64 / last_s),
    }
}

/// What is judged, for the test that lists every criterion.
#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::result::{CriterionOutcome, example};

    /// Every criterion, whatever its verdict: over a search without, and with, all of its loads.
    pub(in crate::scenario) fn every_criterion(config: &HighVolumeConfig) -> Vec<CriterionOutcome> {
        let phase = format!("{CONFIRM}-1-1");
        let run = example::clean();
        let mut found = PeakResults {
            schema: PEAK_SCHEMA.to_owned(),
            verdict: Verdict::Pass,
            reasons: Vec::new(),
            interrupted: false,
            profile: config.profile.to_string(),
            connections: config.peak.connections,
            limiting_side: None,
            peak: None,
            fitted_capacity: None,
            tries: vec![step::tried(&config.limits, &phase, 1_000.0, &run)],
            burst: Some(burst_results(&run)),
            criteria: Vec::new(),
            runs: Vec::new(),
            environment: run.environment.clone(),
        };
        let mut criteria = judge::criteria(config, &found);
        found.runs =
            [&*phase, BURST].map(|phase| PhaseRun { phase: phase.to_owned(), run: run.clone() }).to_vec();
        criteria.extend(judge::criteria(config, &found));
        criteria
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_repeats_have_their_range_and_no_more() {
        let three = figure(10.0, &[9.9, 10.0, 9.8], &[]).unwrap();
        assert_eq!((three.achieved_rate, three.repeats, three.not_held_rate), (9.9, 3, None));
        assert_eq!(three.interval, RepeatInterval { lower: 9.8, upper: 10.0, confidence: 0.75 });
        let one = figure(10.0, &[9.9], &[]).unwrap();
        assert_eq!(one.interval, RepeatInterval { lower: 9.9, upper: 9.9, confidence: 0.0 });
        assert_eq!(figure(10.0, &[], &[]), None);
        assert_eq!(three.to_string(), "9.90 msg/s (10 to 10 over 3 repeats, 75 % confidence)");
    }

    #[test]
    fn many_repeats_have_a_bootstrap_interval() {
        let values: Vec<f64> = (0..20).map(|n| 1_000.0 + f64::from(n)).collect();
        let RepeatInterval { lower, upper, confidence } = interval(&values);
        assert_eq!(confidence, 0.95);
        assert!(
            1_000.0 < lower && lower < 1_009.5 && 1_009.5 < upper && upper < 1_019.0,
            "{lower} to {upper}"
        );
    }

    #[test]
    fn after_a_failure_a_lower_rate_is_confirmed() {
        // By the resolution, or as low as was served, or by half.
        assert_eq!(below(1_050.0, 1_040.0, 0.05), 1_000.0);
        assert_eq!(below(1_050.0, 700.0, 0.05), 700.0);
        assert_eq!(below(1_050.0, 0.0, 0.05), 525.0);
    }

    #[test]
    fn capacity_is_fitted_to_what_was_served_of_rates_that_did_not_hold() {
        let limits = HighVolumeConfig::default().limits;
        let tried = |rate: f64, verdict, served_rate| {
            let run = crate::result::example::clean();
            RateTry { verdict, served_rate, ..step::tried(&limits, "search-01", rate, &run) }
        };
        let table = [
            tried(500.0, Verdict::Pass, 499.0),
            tried(1_000.0, Verdict::Pass, 990.0),
            tried(2_000.0, Verdict::Fail, 1_200.0),
            tried(4_000.0, Verdict::Fail, 1_200.0),
            // Ended before it showed anything.
            tried(3_000.0, Verdict::Skipped, 1.0),
        ];
        let capacity = fitted_capacity(&table).unwrap();
        assert!((capacity - 1_200.0).abs() < 1.0, "{capacity}");
        assert_eq!(fitted_capacity(&[]), None);
        // Whose last answers come a moment after the load is served all the same.
        let held = [tried(500.0, Verdict::Pass, 300.0), tried(1_000.0, Verdict::Pass, 400.0)];
        assert_eq!(fitted_capacity(&held), None);
    }

    #[test]
    fn a_burst_is_as_fast_as_it_was_told_of() {
        let mut run = crate::result::example::clean();
        run.messages.counts.answered = 300;
        run.messages.counts.refused = 100;
        run.offered_for_s = 0.5;
        run.moments.last_answer_s = Some(2.0);
        let burst = burst_results(&run);
        assert_eq!((burst.rate, burst.drain_s), (Some(200.0), Some(1.5)));
        run.moments.last_answer_s = None;
        assert_eq!(burst_results(&run).rate, None);
    }

    #[test]
    fn the_burst_is_as_many_messages_as_were_asked_for() {
        let config = HighVolumeConfig::default();
        let load = burst(&config);
        let schedule = load.schedule().unwrap();
        let due: usize = (0..load.connections).map(|index| schedule.due_times(index).count()).sum();
        assert_eq!(due as u64, config.peak.burst_messages);
    }

    #[test]
    fn the_server_has_room_for_two_loads() {
        let command = ServerCommand { executable: "floodline".into(), args: vec!["--workers=1".to_owned()] };
        assert_eq!(with_room_for(100, &command).args, ["--workers=1", "--max-connections=1100"]);
        assert_eq!(with_room_for(1_000, &command).args[1], "--max-connections=2000");
    }
}
