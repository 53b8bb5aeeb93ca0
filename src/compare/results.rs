//! Comparing two results: two runs, measured when they were measured.

use super::CompareError;
use super::judge::{SIGNIFICANCE, conclude, decide, median};
use crate::analysis::{Bootstrap, Confidence};
use crate::record::WindowSummary;
use crate::result::compare::{COMPARE_SCHEMA, Change, CompareResults, MetricChange, RatioInterval, Side};
use crate::result::{CaseResults, LoadTestResults, PhaseRun, TestResults, Verdict, WorkloadSummary};
use crate::sampler::{ProcessSample, Sample};

/// Below so many seconds on either side there is no interval.
const LEAST_WINDOWS: usize = 5;

/// At most so many figures share the significance: the tail of one must still hold resamples.
const MOST_FIGURES: f64 = 100.0;

/// What is to be compared, and how strictly.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// Only this case; `None` for all.
    pub case: Option<&'a str>,
    /// A change up to this share is not one.
    pub threshold: f64,
    /// Whether different loads and machines may be compared.
    pub force: bool,
}

/// Compares every load that both have, with the intervals that the seconds of each allow.
///
/// What changes from one run to the next, and not from second to second, is in no interval: measure in turn where a small
/// change matters.
///
/// # Errors
/// Where machines or loads differ, unless forced, or nothing is in both.
pub fn compare(
    (a_name, a): (&str, &TestResults),
    (b_name, b): (&str, &TestResults),
    settings: Settings<'_>,
) -> Result<CompareResults, CompareError> {
    let mut notes = vec![
        "two single runs: what differs from one run to the next is in no interval; `floodline compare` measures two \
         executables or URLs in turn"
            .to_owned(),
    ];
    let fingerprints = (a.environment.fingerprint(), b.environment.fingerprint());
    if fingerprints.0 != fingerprints.1 {
        if !settings.force {
            return Err(CompareError::DifferentMachine { a: fingerprints.0, b: fingerprints.1 });
        }
        notes.push("the results are of different machines".to_owned());
    }
    let common = in_common(a, b, settings.case);
    if common.is_empty() {
        return Err(CompareError::NothingInCommon { case: settings.case.map(str::to_owned) });
    }
    let mut metrics = Vec::new();
    for (load, a, b) in &common {
        if let Some(field) = a.workload.difference(&b.workload) {
            if !settings.force {
                return Err(CompareError::DifferentWorkload { load: load.clone(), field });
            }
            notes.push(format!("{load}: the loads differ in `{field}`"));
        }
        metrics.extend(FIGURES.iter().filter_map(|figure| figure.compare(load, a, b, settings.threshold)));
    }
    let with_interval = metrics.iter().filter(|(_, of_a, _)| !of_a.is_empty()).count();
    let share = SIGNIFICANCE / (with_interval as f64).clamp(1.0, MOST_FIGURES);
    let metrics = metrics.into_iter().map(|metric| finish(metric, share)).collect();
    let mut results = CompareResults {
        schema: COMPARE_SCHEMA.to_owned(),
        verdict: Verdict::Pass,
        reasons: no_longer_passing(a, b, settings.case),
        notes,
        method: "results".to_owned(),
        a: side(a_name, common.iter().map(|load| load.1)),
        b: side(b_name, common.iter().map(|load| load.2)),
        pairs: 0,
        order: String::new(),
        workloads: Vec::new(),
        metrics,
        noise: None,
        foreign_cpu_cores: common
            .iter()
            .flat_map(|(_, a, b)| [a, b])
            .filter_map(|run| run.resources.foreign_cpu_cores)
            .max_by(f64::total_cmp),
        environment: b.environment.clone(),
    };
    decide(&mut results);
    Ok(results)
}

fn side<'a>(name: &str, runs: impl Iterator<Item = &'a LoadTestResults> + Clone) -> Side {
    let due = runs.clone().map(|run| run.messages.due).sum();
    Side { name: name.to_owned(), due, answered: runs.map(|run| run.messages.counts.answered).sum() }
}

/// The loads of both, by case and phase.
fn in_common<'a>(
    a: &'a TestResults,
    b: &'a TestResults,
    case: Option<&str>,
) -> Vec<(String, &'a LoadTestResults, &'a LoadTestResults)> {
    let wanted = |found: &&CaseResults| case.is_none_or(|case| found.name == case);
    let mut common = Vec::new();
    for ours in a.cases.iter().filter(wanted) {
        let Some(theirs) = b.cases.iter().find(|theirs| theirs.name == ours.name) else { continue };
        for PhaseRun { phase, run } in &ours.runs {
            if let Some(other) = theirs.runs.iter().find(|other| other.phase == *phase) {
                let load = if ours.name == *phase { phase.clone() } else { format!("{}.{phase}", ours.name) };
                common.push((load, run, &other.run));
            }
        }
    }
    common
}

/// Cases that A passed and B did not.
fn no_longer_passing(a: &TestResults, b: &TestResults, case: Option<&str>) -> Vec<String> {
    let failed =
        |name: &str| b.cases.iter().find(|theirs| theirs.name == name && theirs.verdict == Verdict::Fail);
    a.cases
        .iter()
        .filter(|ours| case.is_none_or(|case| ours.name == case) && ours.verdict == Verdict::Pass)
        .filter_map(|ours| failed(&ours.name))
        .map(|theirs| {
            let why = theirs.reasons.first().map(|why| format!(": {why}")).unwrap_or_default();
            format!("{} passed, and fails now{why}", theirs.name)
        })
        .collect()
}

impl WorkloadSummary {
    /// The first field in which two loads differ that makes them incomparable: all but whom they go to.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        let (a, b) = (self, other);
        let same = [
            ("dialect", a.dialect == b.dialect),
            ("rate", a.rate == b.rate),
            ("connections", a.connections == b.connections),
            ("duration_s", a.duration_s == b.duration_s),
            ("ramp_s", a.ramp_s == b.ramp_s),
            ("payload_bytes", a.payload_bytes == b.payload_bytes),
            ("request", a.request == b.request),
            ("priority", a.priority == b.priority),
            ("arrival", a.arrival == b.arrival),
            ("window", a.window == b.window),
            ("pacer", a.pacer == b.pacer),
        ];
        same.iter().find(|(_, same)| !same).map(|(field, _)| *field)
    }
}

/// How a figure is read from a run as a whole, and from each of its seconds.
struct Figure {
    metric: &'static str,
    higher_is_better: bool,
    whole: fn(&LoadTestResults) -> Option<f64>,
    seconds: fn(&LoadTestResults) -> Vec<f64>,
}

const FIGURES: [Figure; 6] = [
    Figure {
        metric: "throughput_per_second",
        higher_is_better: true,
        whole: |run| Some(run.throughput.achieved_rate),
        seconds: |run| seconds(run, |window| Some(window.answered as f64)),
    },
    Figure {
        metric: "latency_p50_us",
        higher_is_better: false,
        whole: |run| run.latency_us.as_ref().or(run.service_latency_us.as_ref())?.p50,
        seconds: |run| seconds(run, |window| window.latency_p50_us.or(window.service_latency_p50_us)),
    },
    Figure {
        metric: "latency_p99_us",
        higher_is_better: false,
        whole: |run| run.latency_us.as_ref().or(run.service_latency_us.as_ref())?.p99,
        seconds: |run| seconds(run, |window| window.latency_p99_us.or(window.service_latency_p99_us)),
    },
    Figure {
        metric: "server_cpu_us_per_message",
        higher_is_better: false,
        whole: |run| run.cost.server_cpu_us_per_message,
        seconds: |run| cpu_of_seconds(run, |sample| sample.server),
    },
    Figure {
        metric: "client_cpu_us_per_message",
        higher_is_better: false,
        whole: |run| run.cost.client_cpu_us_per_message,
        seconds: |run| cpu_of_seconds(run, |sample| Some(sample.client)),
    },
    Figure {
        metric: "server_peak_bytes_per_connection",
        higher_is_better: false,
        whole: |run| {
            let peak = run.resources.server.as_ref()?.peak_rss_bytes?;
            Some(peak as f64 / run.connections.established.max(1) as f64)
        },
        seconds: |_| Vec::new(),
    },
];

/// A figure that is not judged yet, and its seconds on either side.
type Unjudged = (MetricChange, Vec<f64>, Vec<f64>);

impl Figure {
    /// The figure of both, not yet judged, and its seconds on either side, none where they are too few. `None` where one of
    /// the two has no value.
    fn compare(
        &self,
        load: &str,
        a: &LoadTestResults,
        b: &LoadTestResults,
        threshold: f64,
    ) -> Option<Unjudged> {
        let (of_a, of_b) = ((self.seconds)(a), (self.seconds)(b));
        let enough = of_a.len().min(of_b.len()) >= LEAST_WINDOWS;
        let (of_a, of_b) = if enough { (of_a, of_b) } else { Default::default() };
        let (value_a, value_b) = if enough {
            (median(of_a.iter().copied()), median(of_b.iter().copied()))
        } else {
            ((self.whole)(a)?, (self.whole)(b)?)
        };
        let metric = MetricChange {
            load: load.to_owned(),
            metric: self.metric.to_owned(),
            higher_is_better: self.higher_is_better,
            a: value_a,
            b: value_b,
            ratio: value_b / value_a,
            interval: None,
            p_value: None,
            p_adjusted: None,
            threshold,
            largest_change: None,
            verdict: Change::Unknown,
            pairs: Vec::new(),
        };
        (value_a > 0.0 && value_b > 0.0).then_some((metric, of_a, of_b))
    }
}

/// The interval of the ratio of the medians, at a confidence that all figures share (Bonferroni), and the verdict.
fn finish((mut metric, a, b): Unjudged, share: f64) -> MetricChange {
    let bootstrap = Confidence::new(1.0 - share).map(|confidence| Bootstrap {
        confidence,
        resamples: 4_000,
        ..Bootstrap::default()
    });
    let estimate = bootstrap.and_then(|bootstrap| bootstrap.ratio_of_medians(&b, &a).ok());
    if let Some(estimate) = estimate {
        let interval = estimate.interval;
        metric.interval = Some(RatioInterval { lower: interval.lower, upper: interval.upper });
        conclude(&mut metric, !interval.contains(1.0));
    }
    metric
}

/// A figure of each whole second of the load.
fn seconds(run: &LoadTestResults, of: impl Fn(&WindowSummary) -> Option<f64>) -> Vec<f64> {
    let whole = |window: &&WindowSummary| (window.t_s + 1) as f64 <= run.offered_for_s;
    run.windows.iter().filter(whole).filter_map(of).collect()
}

/// CPU microseconds a message in each whole second of the load.
fn cpu_of_seconds(run: &LoadTestResults, side: fn(&Sample) -> Option<ProcessSample>) -> Vec<f64> {
    let spent: Vec<(f64, f64)> =
        run.resources.samples.iter().filter_map(|sample| Some((sample.t_s, side(sample)?.cpu_s?))).collect();
    let at = |t_s: f64| {
        let (&(t0, cpu0), &(t1, cpu1)) =
            spent.iter().zip(spent.iter().skip(1)).find(|(_, after)| after.0 >= t_s)?;
        (t0 <= t_s && t1 > t0).then(|| cpu0 + (cpu1 - cpu0) * (t_s - t0) / (t1 - t0))
    };
    seconds(run, |window| {
        let begin = window.t_s as f64;
        let answered = window.answered as f64;
        let spent = at(begin + 1.0)? - at(begin)?;
        (answered > 0.0 && spent > 0.0).then(|| spent * 1e6 / answered)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    /// Ten seconds with this P50 in each, give or take 1 %.
    fn load(p50_us: f64) -> LoadTestResults {
        let mut run = example::clean();
        run.windows = (0..10)
            .map(|t_s| {
                let p50_us = p50_us * (0.99 + 0.002 * t_s as f64);
                let window = serde_json::json!({
                    "t_s": t_s, "sent": 1_000, "answered": 1_000, "refused": 0, "blocked": 0,
                    "latency_p50_us": p50_us, "latency_p99_us": 2.0 * p50_us,
                });
                serde_json::from_value(window).unwrap()
            })
            .collect();
        let sample = |t: i32| {
            let cpu = |us: f64| Some(us * 1e-3 * f64::from(t) / 4.0);
            let client = ProcessSample { rss_bytes: None, cpu_s: cpu(40.0) };
            let server = Some(ProcessSample { rss_bytes: None, cpu_s: cpu(15.0) });
            Sample { t_s: f64::from(t) / 4.0, client, server, foreign_cpu_cores: None }
        };
        run.resources.samples = (0..=44).map(sample).collect();
        run
    }

    const SETTINGS: Settings<'_> = Settings { case: None, threshold: 0.1, force: false };

    fn compared(
        a: LoadTestResults,
        b: LoadTestResults,
        settings: Settings<'_>,
    ) -> Result<CompareResults, CompareError> {
        compare(("a", &TestResults::of_load(a)), ("b", &TestResults::of_load(b)), settings)
    }

    fn verdict(results: &CompareResults, metric: &str) -> (Change, f64) {
        let found = results.metrics.iter().find(|found| found.metric == metric).unwrap();
        (found.verdict, (found.ratio * 1e6).round() / 1e6)
    }

    #[test]
    fn a_figure_that_grew_in_every_second_is_worse() {
        let results = compared(load(100.0), load(125.0), SETTINGS).unwrap();
        assert_eq!(results.verdict, Verdict::Fail);
        assert_eq!(verdict(&results, "latency_p50_us"), (Change::Worse, 1.25));
        assert_eq!(verdict(&results, "throughput_per_second"), (Change::NoChange, 1.0));
        // 15 µs a message in each second.
        assert_eq!(verdict(&results, "server_cpu_us_per_message"), (Change::NoChange, 1.0));
        assert!(results.reasons[0].contains("latency_p50_us: 25.00 % more"), "{:?}", results.reasons);
        let results = compared(load(125.0), load(100.0), SETTINGS).unwrap();
        assert_eq!((results.verdict, verdict(&results, "latency_p50_us").0), (Verdict::Pass, Change::Better));
        let results = compared(load(100.0), load(105.0), SETTINGS).unwrap();
        assert_eq!(
            (results.verdict, verdict(&results, "latency_p50_us").0),
            (Verdict::Pass, Change::NoChange)
        );
    }

    #[test]
    fn a_run_without_seconds_has_a_ratio_and_no_verdict() {
        let results = compared(example::clean(), example::clean(), SETTINGS).unwrap();
        assert_eq!(verdict(&results, "latency_p99_us"), (Change::Unknown, 1.0));
        assert_eq!(results.verdict, Verdict::Inconclusive);
    }

    #[test]
    fn different_loads_and_machines_are_refused_unless_forced() {
        let mut other = load(100.0);
        other.workload.payload_bytes += 1;
        let refused = compared(load(100.0), other.clone(), SETTINGS).unwrap_err().to_string();
        assert!(refused.contains("payload_bytes") && refused.contains("--force"), "{refused}");
        let forced = compared(load(100.0), other, Settings { force: true, ..SETTINGS }).unwrap();
        assert!(forced.notes.iter().any(|note| note.contains("payload_bytes")), "{:?}", forced.notes);

        let mut elsewhere = load(100.0);
        elsewhere.environment.cores = Some(1_000);
        let refused = compared(load(100.0), elsewhere.clone(), SETTINGS).unwrap_err().to_string();
        assert!(refused.contains("different machines"), "{refused}");
        assert!(compared(load(100.0), elsewhere, Settings { force: true, ..SETTINGS }).is_ok());
    }

    #[test]
    fn what_is_not_in_both_is_not_compared() {
        let named = |name: &str| {
            let mut results = TestResults::of_load(load(100.0));
            results.cases[0].name = name.to_owned();
            results
        };
        let nothing = compare(("a", &named("x")), ("b", &named("y")), SETTINGS).unwrap_err().to_string();
        assert!(nothing.contains("no load in common"), "{nothing}");
        let case = Settings { case: Some("z"), ..SETTINGS };
        let nothing = compare(("a", &named("x")), ("b", &named("x")), case).unwrap_err().to_string();
        assert!(nothing.contains("in the case z"), "{nothing}");
    }

    #[test]
    fn a_case_that_fails_now_is_a_reason() {
        let mut failed = load(100.0);
        failed.verdict = Verdict::Fail;
        failed.reasons = vec!["lost: 3".to_owned()];
        let results = compared(load(100.0), failed, SETTINGS).unwrap();
        assert_eq!(
            (results.verdict, &*results.reasons[0]),
            (Verdict::Fail, "load passed, and fails now: lost: 3")
        );
    }
}
