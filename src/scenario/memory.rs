//! Case 7: is memory flat under load, and given back after it?

use super::criteria::{counted, shown};
use super::load::{connections, counting};
use super::{Case, workload};
use crate::analysis::{Confidence, ThroughputAnalyzer};
use crate::config::HighVolumeConfig;
use crate::result::{CriterionOutcome, Verdict};
use crate::run::plan::{Action, Evidence, MemorySample, Phase, Plan};
use crate::units;
use crate::workload::{Offered, Workload};

pub(super) const CASE: Case =
    Case { name: "memory", question: "is memory flat under load, and given back after it?", plan, judge };

fn plan(config: &HighVolumeConfig) -> Plan {
    let case = &config.memory;
    let load = Workload {
        offered: Offered::Rate(case.rate),
        connections: case.connections,
        duration: case.duration,
        ..workload(config)
    };
    // The same load, short: buffers and pools are then as large as they get.
    let warm = Workload { duration: case.warm_up.max(case.duration / 60), ..load.clone() };
    Plan {
        phases: vec![
            Phase::new("fill", Action::Load(warm)),
            Phase::new("before", Action::Purge),
            Phase::new("load", Action::WatchedLoad(load)),
            Phase::new("loaded", Action::Stats),
            Phase::new("idle", Action::Idle(case.idle)),
            Phase::new("idled", Action::Stats),
            Phase::new("purged", Action::Purge),
        ],
        ..Plan::default()
    }
}

/// One side's live bytes in a sample.
type Live = fn(&MemorySample) -> Option<u64>;

fn judge(config: &HighVolumeConfig, evidence: &Evidence) -> Vec<CriterionOutcome> {
    let sides: [(&str, Live); 2] =
        [("client", |sample| sample.client_live_bytes), ("server", |sample| sample.server_live_bytes)];
    let mut criteria = Vec::new();
    for (side, live) in sides {
        criteria.push(growth(config, evidence, side));
        criteria.push(given_back(config, evidence, side, live));
        criteria.push(leak(config, evidence, side, live));
    }
    if let Some(run) = evidence.run("load") {
        criteria.extend(counting(run));
        criteria.push(connections(run));
    }
    criteria.push(resident(evidence));
    criteria
}

/// How much resident memory grew over the load.
fn growth(config: &HighVolumeConfig, evidence: &Evidence, side: &str) -> CriterionOutcome {
    let limit = config.limits.memory_growth_bytes;
    let process = evidence.run("load").and_then(|run| match side {
        "client" => run.resources.client.as_ref(),
        _ => run.resources.server.as_ref(),
    });
    let grown =
        process.and_then(|process| Some(process.peak_rss_bytes?.saturating_sub(process.rss_start_bytes?)));
    or_skipped(
        &format!("{side}_growth"),
        format!("at most {}", units::bytes(limit)),
        grown,
        units::bytes,
        |&grown| grown <= limit,
    )
}

/// Of what the load added to live bytes, how much is gone after the idle time.
fn given_back(config: &HighVolumeConfig, evidence: &Evidence, side: &str, live: Live) -> CriterionOutcome {
    let limits = &config.memory.limits;
    let at = |phase: &str| evidence.phase(phase).and_then(|phase| live(phase.memory.first()?));
    let peak = evidence.phase("load").and_then(|phase| phase.memory.iter().filter_map(live).max());
    let grown = peak.zip(at("before")).map(|(peak, before)| peak.saturating_sub(before));
    let kept = at("idled").zip(at("before")).map(|(after, before)| after.saturating_sub(before));
    let name = format!("{side}_given_back");
    let limit = format!(
        "at least {} of growth above {}",
        units::percent(limits.given_back_ratio),
        units::bytes(limits.judged_above_bytes)
    );
    match grown.zip(kept) {
        Some((grown, _)) if grown <= limits.judged_above_bytes => {
            let measured = format!("grew by {} only", units::bytes(grown));
            counted(&name, limit, measured, true, [])
        }
        both => {
            let share = both.map(|(grown, kept)| 1.0 - kept as f64 / grown.max(1) as f64);
            or_skipped(&name, limit, share, units::percent, |&share| share >= limits.given_back_ratio)
        }
    }
}

/// The slope of live bytes over messages, after the warm-up, while the rate is held: a ramp needs fewer buffers.
fn leak(config: &HighVolumeConfig, evidence: &Evidence, side: &str, live: Live) -> CriterionOutcome {
    let limit = config.memory.limits.leak_bytes_per_message;
    let held_from_s = config.load.ramp.as_secs_f64();
    let judged_s =
        held_from_s + config.memory.warm_up.as_secs_f64()..held_from_s + config.memory.duration.as_secs_f64();
    let points: Vec<(f64, f64)> = evidence
        .phase("load")
        .map(|phase| &*phase.memory)
        .unwrap_or_default()
        .iter()
        .filter(|sample| judged_s.contains(&sample.t_s))
        .filter_map(|sample| Some((sample.processed? as f64, live(sample)? as f64)))
        .collect();
    let trend = ThroughputAnalyzer::calculate_leak(&points, Confidence::P95).ok();
    let text = |trend: &crate::analysis::Trend| match trend.interval {
        Some(interval) => format!("{:.3} ({:.3} to {:.3})", trend.slope, interval.lower, interval.upper),
        None => format!("{:.3}", trend.slope),
    };
    or_skipped(
        &format!("{side}_leak"),
        format!("under {limit} bytes a message"),
        trend,
        |trend| text(&trend),
        |trend| trend.slope < limit,
    )
}

/// Resident memory before and after it was given back; told, never failed.
fn resident(evidence: &Evidence) -> CriterionOutcome {
    let at = |phase: &str| {
        evidence.phase(phase).and_then(|phase| phase.memory.first()?.server_resident_bytes).map(units::bytes)
    };
    let text = |value: Option<String>| shown(value, |text| text);
    CriterionOutcome {
        name: "server_resident".to_owned(),
        limit: "told".to_owned(),
        measured: format!(
            "{} before, {} loaded, {} idled, {} purged",
            text(at("before")),
            text(at("loaded")),
            text(at("idled")),
            text(at("purged"))
        ),
        verdict: Verdict::Pass,
        evidence: Vec::new(),
    }
}

/// A criterion over something that the target may not be able to tell: then it is skipped, with the reason.
fn or_skipped<T>(
    name: &str,
    limit: String,
    value: Option<T>,
    show: impl FnOnce(T) -> String,
    holds: impl FnOnce(&T) -> bool,
) -> CriterionOutcome {
    match value {
        Some(value) => {
            let holds = holds(&value);
            counted(name, limit, show(value), holds, [])
        }
        None => CriterionOutcome {
            name: name.to_owned(),
            limit,
            measured: "none".to_owned(),
            verdict: Verdict::Skipped,
            evidence: vec!["this target does not tell its memory".to_owned()],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_fails, judged, loaded, named, run};
    use super::*;
    use crate::result::LoadTestResults;
    use crate::run::plan::PhaseEvidence;
    use crate::sampler::ProcessSummary;

    const MB: u64 = 1_000_000;

    /// Evidence of a load in which each side's live bytes go from 10 MB to `peak`, and to `idled` when it is over.
    fn evidence(peak: u64, idled: u64, edit: impl Fn(&mut LoadTestResults)) -> Evidence {
        let sample = |t_s: f64, processed: u64, live: u64| MemorySample {
            t_s,
            processed: Some(processed),
            client_live_bytes: Some(live),
            server_live_bytes: Some(live),
            server_resident_bytes: Some(live + MB),
        };
        let at = |name: &str, live| PhaseEvidence {
            memory: vec![sample(0.0, 0, live)],
            ..PhaseEvidence::of(name)
        };
        let side = ProcessSummary {
            peak_rss_bytes: Some(20 * MB),
            rss_start_bytes: Some(15 * MB),
            ..ProcessSummary::default()
        };
        let mut load = run(10_000.0, 100);
        load.resources.client = Some(side.clone());
        load.resources.server = Some(side);
        edit(&mut load);
        let mut loaded = loaded("load", load);
        // Flat at the peak after the warm-up of 60 s.
        loaded.memory =
            (0..100_u32).map(|n| sample(60.0 + f64::from(n), u64::from(n) * 10_000, peak)).collect();
        Evidence {
            phases: vec![
                at("before", 10 * MB),
                loaded,
                at("loaded", peak),
                at("idled", idled),
                at("purged", idled),
            ],
            ..Evidence::default()
        }
    }

    #[test]
    fn flat_memory_passes_everything() {
        let criteria = judged(&CASE, &evidence(12 * MB, 12 * MB, |_| {}));
        assert_eq!(named(&criteria, Verdict::Pass).len(), criteria.len(), "{criteria:#?}");
    }

    #[test]
    fn either_side_may_grow_by_200_mb() {
        let grown = |client: u64, server: u64| {
            judged(
                &CASE,
                &evidence(12 * MB, 12 * MB, move |run| {
                    run.resources.client.as_mut().unwrap().peak_rss_bytes = Some(15 * MB + client);
                    run.resources.server.as_mut().unwrap().peak_rss_bytes = Some(15 * MB + server);
                }),
            )
        };
        assert_fails(&grown(200 * MB, 200 * MB), &[]);
        assert_fails(&grown(200 * MB + 1, 200 * MB), &["client_growth"]);
        assert_fails(&grown(200 * MB, 200 * MB + 1), &["server_growth"]);
    }

    #[test]
    fn growth_above_16_mb_must_be_given_back_to_95_percent() {
        let kept = |peak, idled| judged(&CASE, &evidence(10 * MB + peak, 10 * MB + idled, |_| {}));
        assert_fails(&kept(16 * MB, 16 * MB), &[]);
        assert_fails(&kept(100 * MB, 5 * MB), &[]);
        assert_fails(&kept(100 * MB, 5 * MB + 1), &["client_given_back", "server_given_back"]);
    }

    #[test]
    fn live_bytes_may_grow_by_less_than_a_byte_a_message() {
        let leaking = |bytes_per_message: f64| {
            let mut evidence = evidence(12 * MB, 12 * MB, |_| {});
            let load = evidence.phases.iter_mut().find(|phase| phase.name == "load").unwrap();
            for sample in &mut load.memory {
                let leaked = (sample.processed.unwrap() as f64 * bytes_per_message) as u64;
                sample.server_live_bytes = Some(12 * MB + leaked);
            }
            judged(&CASE, &evidence)
        };
        assert_fails(&leaking(0.99), &[]);
        assert_fails(&leaking(1.01), &["server_leak"]);
    }

    #[test]
    fn a_target_that_does_not_tell_its_memory_is_skipped_with_the_reason() {
        let mut evidence = evidence(12 * MB, 12 * MB, |run| run.resources.server = None);
        for sample in evidence.phases.iter_mut().flat_map(|phase| &mut phase.memory) {
            sample.server_live_bytes = None;
        }
        let criteria = judged(&CASE, &evidence);
        assert_eq!(named(&criteria, Verdict::Skipped), ["server_growth", "server_given_back", "server_leak"]);
        assert!(criteria.iter().filter(|c| c.verdict == Verdict::Skipped).all(|c| !c.evidence.is_empty()));
    }
}
