//! Case 7: is memory flat under load, and given back after it?

use std::time::Duration;

use super::criteria::{counted, shown, skipped, told};
use super::load::{connections, counting, delivery, unanswered, unanswered_over};
use super::{Body, Case, Need, workload};
use crate::analysis::{Confidence, ThroughputAnalyzer};
use crate::config::HighVolumeConfig;
use crate::dialect::RequestKind;
use crate::result::{CriterionOutcome, Resources, Verdict};
use crate::run::plan::{Action, Evidence, MemorySample, Phase, PhaseEvidence, Plan, WATCH_EVERY};
use crate::run::scene::{Load, Scene};
use crate::sampler::ProcessSummary;
use crate::units;
use crate::workload::{Offered, Workload};

pub(super) const CASE: Case = Case {
    name: "memory",
    question: "is memory flat under load, and given back after it?",
    needs: &[Need::Statistics, Need::Process],
    body: Body::Planned { plan, judge },
};

fn plan(config: &HighVolumeConfig) -> Plan {
    let case = &config.memory;
    let load = Workload {
        offered: Offered::Rate(case.rate),
        connections: case.connections,
        duration: case.duration,
        ..workload(config)
    };
    // As many ids as our own server is told to remember, and buffers and pools as large as they get.
    let filling = Workload {
        duration: Duration::from_secs_f64(case.fill_messages as f64 / case.rate.as_per_second()),
        ramp: Duration::ZERO,
        ..load.clone()
    };
    let fill = Load { request: RequestKind::UserMessage, ..Load::new("fill", filling) };
    Plan {
        server_args: vec![format!("--idempotency-ids={}", case.fill_messages)],
        phases: vec![
            Phase::new("fill", Action::Scene(Scene { loads: vec![fill], ..Scene::default() })),
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

/// The statistics must cover this share of the load after its warm-up: with less, what happened in the rest would be
/// judged by what happened before. A tenth is room for one answer that takes its time.
const COVERED_RATIO: f64 = 0.9;

/// One side of the wire.
struct Side {
    name: &'static str,
    live: fn(&MemorySample) -> Option<u64>,
    process: fn(&Resources) -> Option<&ProcessSummary>,
}

const CLIENT: Side = Side {
    name: "client",
    live: |sample| sample.client_live_bytes,
    process: |resources| resources.client.as_ref(),
};
const SERVER: Side = Side {
    name: "server",
    live: |sample| sample.server_live_bytes,
    process: |resources| resources.server.as_ref(),
};

fn judge(config: &HighVolumeConfig, evidence: &Evidence) -> Vec<CriterionOutcome> {
    let mut criteria = vec![statistics(config, evidence)];
    for side in [CLIENT, SERVER] {
        criteria.push(growth(config, evidence, &side));
        criteria.push(given_back(config, evidence, &side));
        criteria.push(leak(config, evidence, &side));
    }
    if let Some(fill) = evidence.run("fill") {
        criteria.push(unanswered_over("unfilled", &[("", fill)]));
    }
    if let Some(run) = evidence.run("load") {
        criteria.extend(counting(run));
        // Memory stays flat also where nothing is served.
        criteria.push(delivery("delivery", run, config.limits.delivery_ratio));
        criteria.push(connections(run));
    }
    criteria.push(resident(evidence));
    criteria
}

/// The samples of the watched load after its warm-up, while the rate is held: a ramp needs fewer buffers.
fn warm<'a>(config: &HighVolumeConfig, evidence: &'a Evidence) -> impl Iterator<Item = &'a MemorySample> {
    let warm_s = config.memory.warm_up.as_secs_f64()..config.memory.duration.as_secs_f64();
    let watched = evidence.phase("load").into_iter().flat_map(|phase| &phase.memory);
    watched.filter(move |sample| warm_s.contains(&sample.t_s))
}

/// The share of the load after its warm-up that samples stand for, each for the time until the next one is due: with none
/// of them missing, up to one such time is before the first, and up to one after the last.
fn covered(config: &HighVolumeConfig, evidence: &Evidence) -> Option<f64> {
    let load_s = evidence.run("load")?.offered_for_s - config.memory.warm_up.as_secs_f64();
    let first_s = warm(config, evidence).next()?.t_s;
    let last_s = warm(config, evidence).last()?.t_s;
    let seen_s = last_s - first_s + WATCH_EVERY.as_secs_f64();
    (load_s > 0.0).then(|| (seen_s / load_s).min(1.0))
}

/// What is missing of the statistics; empty where nothing is.
fn gaps(config: &HighVolumeConfig, evidence: &Evidence) -> Vec<String> {
    let error = |phase: &PhaseEvidence| Some(format!("in `{}`: {}", phase.name, phase.stats_error.as_ref()?));
    let mut gaps: Vec<String> = evidence.phases.iter().filter_map(error).collect();
    let covered = covered(config, evidence);
    if gaps.is_empty() && covered.is_none_or(|share| share < COVERED_RATIO) {
        gaps.push(format!("they cover {} of the load", shown(covered, units::percent)));
    }
    gaps
}

/// Whether the server told its statistics whenever it was asked. A server that is not our own need not be able to.
fn statistics(config: &HighVolumeConfig, evidence: &Evidence) -> CriterionOutcome {
    let (name, covered) = ("statistics", covered(config, evidence));
    let limit =
        format!("answered, over at least {} of the load after warm-up", units::percent(COVERED_RATIO));
    let gaps = gaps(config, evidence);
    match gaps.first() {
        Some(gap) if !evidence.own_server => skipped(name, limit, gap.clone()),
        _ => counted(name, limit, shown(covered, units::percent), gaps.is_empty(), gaps),
    }
}

/// How much resident memory grew over the load.
fn growth(config: &HighVolumeConfig, evidence: &Evidence, side: &Side) -> CriterionOutcome {
    let limit = config.limits.memory_growth_bytes;
    let process = evidence.run("load").and_then(|run| (side.process)(&run.resources));
    let grown =
        process.and_then(|process| Some(process.peak_rss_bytes?.saturating_sub(process.rss_start_bytes?)));
    let name = format!("{}_growth", side.name);
    let allowed = format!("at most {}", units::bytes(limit));
    match grown {
        Some(grown) => counted(&name, allowed, units::bytes(grown), grown <= limit, []),
        None if side.name == SERVER.name && !evidence.own_server => skipped(
            &name,
            allowed,
            "the process of this target is not known, or not on this machine".to_owned(),
        ),
        None => {
            counted(&name, allowed, "none".to_owned(), false, [format!("no memory of the {}", side.name)])
        }
    }
}

/// Of what the load added to live bytes, how much is gone after the idle time.
fn given_back(config: &HighVolumeConfig, evidence: &Evidence, side: &Side) -> CriterionOutcome {
    let limits = &config.memory.limits;
    let at = |phase: &str| evidence.phase(phase).and_then(|phase| (side.live)(phase.memory.first()?));
    let peak = evidence.phase("load").and_then(|phase| phase.memory.iter().filter_map(side.live).max());
    let grown = peak.zip(at("before")).map(|(peak, before)| peak.saturating_sub(before));
    let kept = at("idled").zip(at("before")).map(|(after, before)| after.saturating_sub(before));
    let limit = format!(
        "at least {} of growth above {}",
        units::percent(limits.given_back_ratio),
        units::bytes(limits.judged_above_bytes)
    );
    let seen = grown.zip(kept).map(|(grown, kept)| {
        if grown <= limits.judged_above_bytes {
            return (format!("grew by {} only", units::bytes(grown)), true);
        }
        let share = 1.0 - kept as f64 / grown as f64;
        (units::percent(share), share >= limits.given_back_ratio)
    });
    by_statistics(config, evidence, side, &format!("{}_given_back", side.name), limit, seen)
}

/// What the client keeps of a message that waits for its answer is less: an entry of the ledger, one of what is in flight, an id.
const KEPT_BYTES: f64 = 1_024.0;

/// The slope of live bytes over messages, after the warm-up. It must be above the limit beyond doubt.
fn leak(config: &HighVolumeConfig, evidence: &Evidence, side: &Side) -> CriterionOutcome {
    let limit = config.memory.limits.leak_bytes_per_message;
    let points: Vec<(f64, f64)> = warm(config, evidence)
        .filter_map(|sample| Some((sample.processed? as f64, (side.live)(sample)? as f64)))
        .collect();
    let trend = ThroughputAnalyzer::calculate_leak(&points, Confidence::P95).ok();
    let mut doubts = Vec::new();
    if trend.and_then(|trend| trend.interval).is_some_and(|interval| interval.lower < limit) {
        doubts.push("noise alone may rise like this: a longer load tells".to_owned());
    }
    let waiting = evidence.run("load").map_or(0, unanswered);
    let risen = trend.map_or(0.0, |trend| trend.slope * points.last().map_or(0.0, |last| last.0));
    if side.name == CLIENT.name && risen < waiting as f64 * KEPT_BYTES {
        let waiting = units::count(waiting);
        doubts.push(format!("{waiting} messages have no answer, and what waits for one is kept"));
    }
    let seen = trend.map(|trend| {
        let text = match trend.interval {
            Some(interval) => format!("{:.3} ({:.3} to {:.3})", trend.slope, interval.lower, interval.upper),
            None => format!("{:.3}", trend.slope),
        };
        (text, trend.slope < limit)
    });
    let allowed = format!("under {limit} bytes a message");
    let outcome = by_statistics(config, evidence, side, &format!("{}_leak", side.name), allowed, seen);
    match (trend, outcome.verdict) {
        (Some(_), Verdict::Fail) if !doubts.is_empty() => {
            CriterionOutcome { verdict: Verdict::Inconclusive, evidence: doubts, ..outcome }
        }
        _ => outcome,
    }
}

/// A criterion over what the statistics tell: the value seen, and whether it holds. Our own server must tell it. Another
/// may be unable to, and part of a series is not judged as the whole: then it is skipped, with the reason.
fn by_statistics(
    config: &HighVolumeConfig,
    evidence: &Evidence,
    side: &Side,
    name: &str,
    limit: String,
    seen: Option<(String, bool)>,
) -> CriterionOutcome {
    let gap = gaps(config, evidence).into_iter().next();
    let silent = format!("no live bytes of the {}, or not with what was processed", side.name);
    match (seen, gap) {
        (_, Some(gap)) if !evidence.own_server => skipped(name, limit, gap),
        (Some((measured, holds)), _) => counted(name, limit, measured, holds, []),
        (None, None) if !evidence.own_server && !tells(evidence, side) => skipped(name, limit, silent),
        (None, gap) => counted(name, limit, "none".to_owned(), false, [gap.unwrap_or(silent)]),
    }
}

/// Whether the server says what is needed of it to judge `side`: of the client that is only how far it has come.
fn tells(evidence: &Evidence, side: &Side) -> bool {
    let needed = |sample: &MemorySample| {
        sample.processed.is_some() && (side.name == CLIENT.name || sample.server_live_bytes.is_some())
    };
    evidence.phases.iter().flat_map(|phase| &phase.memory).all(needed)
}

/// Resident memory before and after it was given back; told, never failed.
fn resident(evidence: &Evidence) -> CriterionOutcome {
    let at = |phase: &str| evidence.phase(phase).and_then(|seen| seen.memory.first()?.server_resident_bytes);
    let phases = ["before", "loaded", "idled", "purged"];
    let missing: Vec<&str> = phases.into_iter().filter(|phase| at(phase).is_none()).collect();
    let measured = phases.map(|phase| format!("{} {phase}", shown(at(phase), units::bytes)));
    let why = || format!("the server does not tell it: {}", missing.join(", "));
    told("server_resident", measured.join(", "), (!missing.is_empty()).then(why))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_fails, judged, loaded, named, run, seen};
    use super::*;
    use crate::config::Profile;
    use crate::result::LoadTestResults;

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
        // A hundred seconds after the warm-up.
        load.offered_for_s = 160.0;
        load.resources.client = Some(side.clone());
        load.resources.server = Some(side);
        edit(&mut load);
        let mut loaded = loaded("load", load);
        // Flat at the peak after the warm-up of 60 s.
        loaded.memory =
            (0..100_u32).map(|n| sample(60.0 + f64::from(n), u64::from(n) * 10_000, peak)).collect();
        seen(vec![at("before", 10 * MB), loaded, at("loaded", peak), at("idled", idled), at("purged", idled)])
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
    fn a_rise_that_may_be_noise_is_in_doubt() {
        let mut evidence = flat();
        // Anywhere within 3 MB, and by little more than a byte a message on the whole.
        for (n, sample) in (0_u64..).zip(&mut phase(&mut evidence, "load").memory) {
            let anywhere = n * n * 7_919 % 101 * (3 * MB / 101);
            sample.server_live_bytes = Some(12 * MB + anywhere + sample.processed.unwrap() * 21 / 20);
        }
        let criteria = judged(&CASE, &evidence);
        assert_eq!(named(&criteria, Verdict::Fail), [""; 0]);
        assert_eq!(named(&criteria, Verdict::Inconclusive), ["server_leak"]);
    }

    #[test]
    fn what_waits_for_an_answer_is_no_leak_of_the_client() {
        // Of a million messages.
        let leaking = |unanswered: u64| {
            let mut evidence = evidence(12 * MB, 12 * MB, move |run| {
                run.messages.due = MB;
                run.messages.counts.answered = MB - unanswered;
            });
            for sample in &mut phase(&mut evidence, "load").memory {
                sample.client_live_bytes = Some(12 * MB + sample.processed.unwrap() * 2);
            }
            judged(&CASE, &evidence)
        };
        assert_fails(&leaking(0), &["client_leak"]);
        // Two bytes for each of all messages are more than ten that wait may take, and less than a tenth of all may.
        let of_ten = leaking(10);
        assert!(named(&of_ten, Verdict::Fail).contains(&"client_leak"), "{of_ten:#?}");
        assert_eq!(named(&leaking(MB / 10), Verdict::Inconclusive), ["client_leak"]);
    }

    fn flat() -> Evidence {
        evidence(12 * MB, 12 * MB, |_| {})
    }

    fn of_another(mut evidence: Evidence) -> Evidence {
        evidence.own_server = false;
        evidence
    }

    fn phase<'a>(evidence: &'a mut Evidence, name: &str) -> &'a mut PhaseEvidence {
        evidence.phases.iter_mut().find(|phase| phase.name == name).unwrap()
    }

    fn criterion<'a>(criteria: &'a [CriterionOutcome], name: &str) -> &'a CriterionOutcome {
        criteria.iter().find(|criterion| criterion.name == name).unwrap()
    }

    /// Evidence of a server that does not answer `get_performance_stats`, nor tells its process.
    fn mute() -> Evidence {
        let mut evidence = evidence(12 * MB, 12 * MB, |run| run.resources.server = None);
        for phase in &mut evidence.phases {
            phase.memory.clear();
            phase.stats_error = Some("it answers something else".to_owned());
        }
        evidence
    }

    const BY_STATISTICS: [&str; 6] = [
        "statistics",
        "client_given_back",
        "client_leak",
        "server_growth",
        "server_given_back",
        "server_leak",
    ];

    #[test]
    fn figures_that_our_own_server_does_not_give_fail_and_anothers_are_skipped() {
        let own = judged(&CASE, &mute());
        assert_fails(&own, &BY_STATISTICS);
        let another = judged(&CASE, &of_another(mute()));
        assert_fails(&another, &[]);
        let skipped = named(&another, Verdict::Skipped);
        assert_eq!(skipped, [&BY_STATISTICS[..], &["server_resident"]].concat());
        for name in ["statistics", "client_leak", "server_given_back"] {
            let why = &criterion(&another, name).evidence;
            assert_eq!(*why, ["in `before`: it answers something else"], "{name}");
        }
    }

    #[test]
    fn one_answer_that_did_not_come_is_enough() {
        for name in ["before", "load", "loaded", "idled", "purged"] {
            let mut evidence = flat();
            phase(&mut evidence, name).stats_error = Some("no answer within 10 s".to_owned());
            let own = judged(&CASE, &evidence);
            assert_fails(&own, &["statistics"]);
            let why = format!("in `{name}`: no answer within 10 s");
            assert_eq!(criterion(&own, "statistics").evidence, [why.as_str()]);
            let another = judged(&CASE, &of_another(evidence));
            assert_fails(&another, &[]);
            assert_eq!(criterion(&another, "server_leak").evidence, [why.as_str()]);
        }
    }

    #[test]
    fn the_series_must_cover_nine_tenths_of_the_load_after_warm_up() {
        let covering = |samples: usize| {
            let mut evidence = flat();
            // A sample a second, and the last stands for the quarter of a second after it.
            phase(&mut evidence, "load").memory.truncate(samples);
            evidence
        };
        assert_fails(&judged(&CASE, &covering(91)), &[]);
        let criteria = judged(&CASE, &covering(90));
        assert_fails(&criteria, &["statistics"]);
        let statistics = criterion(&criteria, "statistics");
        assert_eq!(
            (&*statistics.measured, &*statistics.evidence[0]),
            ("89.25 %", "they cover 89.25 % of the load")
        );
        // What came before the warm-up was over covers nothing of what is judged.
        let mut early = covering(100);
        phase(&mut early, "load").memory.iter_mut().for_each(|sample| sample.t_s -= 15.0);
        assert_fails(&judged(&CASE, &early), &["statistics"]);
        let skipped = judged(&CASE, &of_another(covering(90)));
        assert_fails(&skipped, &[]);
        assert!(named(&skipped, Verdict::Skipped).contains(&"server_leak"), "{skipped:#?}");
    }

    #[test]
    fn a_server_that_tells_all_but_its_memory() {
        let mut evidence = evidence(12 * MB, 12 * MB, |run| run.resources.server = None);
        for sample in evidence.phases.iter_mut().flat_map(|phase| &mut phase.memory) {
            (sample.server_live_bytes, sample.server_resident_bytes) = (None, None);
        }
        let of_server = ["server_growth", "server_given_back", "server_leak"];
        let own = judged(&CASE, &evidence);
        assert_fails(&own, &of_server);
        assert_eq!(named(&own, Verdict::Skipped), ["server_resident"]);
        let another = judged(&CASE, &of_another(evidence));
        assert_fails(&another, &[]);
        assert_eq!(named(&another, Verdict::Skipped), [&of_server[..], &["server_resident"]].concat());
        let skipped = another.iter().filter(|criterion| criterion.verdict == Verdict::Skipped);
        assert!(skipped.clone().all(|criterion| !criterion.evidence.is_empty()));
    }

    #[test]
    fn our_own_figures_must_be_there_whoever_serves() {
        let mut evidence = evidence(12 * MB, 12 * MB, |run| run.resources.client = None);
        for sample in evidence.phases.iter_mut().flat_map(|phase| &mut phase.memory) {
            sample.client_live_bytes = None;
        }
        let of_client = ["client_growth", "client_given_back", "client_leak"];
        assert_fails(&judged(&CASE, &evidence), &of_client);
        assert_fails(&judged(&CASE, &of_another(evidence)), &of_client);
    }

    #[test]
    fn a_server_that_tells_how_far_it_came_is_all_that_the_client_s_memory_needs() {
        let mut evidence = evidence(12 * MB, 12 * MB, |_| {});
        for sample in evidence.phases.iter_mut().flat_map(|phase| &mut phase.memory) {
            (sample.client_live_bytes, sample.server_live_bytes) = (None, None);
        }
        assert_fails(&judged(&CASE, &of_another(evidence)), &["client_given_back", "client_leak"]);
    }

    #[test]
    fn a_load_that_is_not_served_is_no_load() {
        let refused = |count: u64| {
            judged(
                &CASE,
                &evidence(12 * MB, 12 * MB, move |run| {
                    run.messages.counts.answered -= count;
                    run.messages.counts.refused = count;
                }),
            )
        };
        assert_fails(&refused(10), &[]);
        assert_fails(&refused(11), &["delivery"]);
    }

    #[test]
    fn a_doubtful_machine_excuses_no_memory() {
        let criteria = judged(
            &CASE,
            &evidence(110 * MB, 60 * MB, |run| {
                run.resources.foreign_cpu_cores = Some(2.0);
                run.resources.server.as_mut().unwrap().peak_rss_bytes = Some(300 * MB);
                run.messages.counts.duplicates = 1;
            }),
        );
        assert_fails(&criteria, &["client_given_back", "server_growth", "server_given_back", "duplicates"]);
    }

    #[test]
    fn memory_is_filled_before_it_is_measured_and_rests_before_it_is_measured_again() {
        for profile in Profile::ALL {
            let plan = plan(&HighVolumeConfig::for_profile(profile));
            let phases: Vec<(&str, &str)> = plan
                .phases
                .iter()
                .map(|phase| {
                    let action = match phase.action {
                        Action::Load(_) => "load",
                        Action::Scene(_) => "scene",
                        Action::WatchedLoad(_) => "watched load",
                        Action::Idle(_) => "idle",
                        Action::Stats => "stats",
                        Action::Purge => "purge",
                    };
                    (&*phase.name, action)
                })
                .collect();
            let expected = [
                ("fill", "scene"),
                ("before", "purge"),
                ("load", "watched load"),
                ("loaded", "stats"),
                ("idle", "idle"),
                ("idled", "stats"),
                ("purged", "purge"),
            ];
            assert_eq!(phases, expected, "{profile}");
        }
    }
}
