//! What the values of two come to.

use super::CompareError;
use super::measure::ComparePlan;
use super::noise::LEAST_THRESHOLD;
use super::turn::{LEAST_PAIRS, Measured, PairedFigure, SlowPairs, higher_is_better};
use crate::analysis::Bootstrap;
use crate::analysis::paired::{holm, paired_ratio};
use crate::environment::Environment;
use crate::result::Verdict;
use crate::result::compare::{
    COMPARE_SCHEMA, Change, CompareResults, MetricChange, Noise, RatioInterval, Side,
};
use crate::units;

/// The chance that any figure of two of the same is called better or worse, all figures together.
pub const SIGNIFICANCE: f64 = 0.05;

/// Compares what was measured in turn.
///
/// # Errors
/// Where no figure has values in two pairs or more.
pub fn judge(
    plan: &ComparePlan,
    (a, b): (&str, &str),
    measured: &Measured,
    noise: Option<Noise>,
) -> Result<CompareResults, CompareError> {
    let mut metrics = Vec::new();
    for PairedFigure { load, metric, pairs } in measured.values() {
        let change = paired_ratio(&pairs, &Bootstrap::default())?;
        let threshold = noise.as_ref().and_then(|noise| noise.threshold(load.name(), metric, pairs.len()));
        metrics.push(MetricChange {
            load: load.name().to_owned(),
            metric: metric.to_owned(),
            higher_is_better: higher_is_better(metric),
            a: median(pairs.iter().map(|pair| pair.0)),
            b: median(pairs.iter().map(|pair| pair.1)),
            ratio: change.ratio,
            interval: Some(RatioInterval { lower: change.interval.lower, upper: change.interval.upper }),
            p_value: Some(change.p_value),
            p_adjusted: None,
            threshold: threshold.unwrap_or(LEAST_THRESHOLD),
            largest_change: None,
            verdict: Change::Unknown,
            pairs,
        });
    }
    let p_values: Vec<f64> = metrics.iter().filter_map(|metric| metric.p_value).collect();
    for (metric, adjusted) in metrics.iter_mut().zip(holm(&p_values)) {
        metric.p_adjusted = Some(adjusted);
        conclude(metric, adjusted <= SIGNIFICANCE);
    }
    let (a, b) = (measured.side(a, |pair| &pair.0), measured.side(b, |pair| &pair.1));
    let mut results = CompareResults {
        schema: COMPARE_SCHEMA.to_owned(),
        verdict: Verdict::Pass,
        reasons: unanswered(&a, &b).into_iter().collect(),
        notes: notes(measured),
        method: "interleaved".to_owned(),
        a,
        b,
        pairs: plan.pairs,
        order: measured.order().to_owned(),
        workloads: measured.workloads(),
        metrics,
        noise,
        foreign_cpu_cores: measured.foreign_cpu_cores(),
        environment: Environment::detect(),
    };
    decide(&mut results);
    Ok(results)
}

/// What was left out, and what was not although it says less.
fn notes(measured: &Measured) -> Vec<String> {
    let count = measured.left_out.len();
    let disturbed = (count > 0)
        .then(|| format!("{count} pairs are left out, because other processes took a part of the machine"));
    disturbed.into_iter().chain(measured.slow_pairs().into_iter().map(slow)).collect()
}

fn slow(SlowPairs { load, slow, of, left_out }: SlowPairs) -> String {
    let load = load.name();
    if left_out == slow {
        return format!(
            "{load}: {slow} of {of} pairs are left out, because the machine was slow around them"
        );
    }
    format!(
        "{load}: the machine was slow in {slow} of {of} pairs, and only the {left_out} slowest are left out, as {LEAST_PAIRS} \
         are needed: measure more pairs, or in a calmer hour"
    )
}

/// Says what a figure's change is, where noise would not do as much (`real`).
pub(super) fn conclude(metric: &mut MetricChange, real: bool) {
    let Some(interval) = metric.interval else { return };
    let change = |ratio: f64| (ratio - 1.0).abs();
    metric.largest_change = Some(change(interval.lower).max(change(interval.upper)));
    // As far from 1 as a factor, in either direction.
    let beyond = metric.ratio.ln().abs() > metric.threshold.ln_1p();
    metric.verdict = match (real && beyond, (metric.ratio > 1.0) == metric.higher_is_better) {
        (false, _) => Change::NoChange,
        (true, true) => Change::Better,
        (true, false) => Change::Worse,
    };
}

/// What all figures come to.
pub(super) fn decide(results: &mut CompareResults) {
    for metric in results.metrics.iter().filter(|metric| metric.verdict == Change::Worse) {
        let more = if metric.ratio > 1.0 { "more" } else { "less" };
        results.reasons.push(format!(
            "{} {}: {} {more}, where {} is noise",
            metric.load,
            metric.metric,
            units::percent((metric.ratio - 1.0).abs()),
            units::percent(metric.threshold)
        ));
    }
    let judged = results.metrics.iter().any(|metric| metric.verdict != Change::Unknown);
    results.verdict = match (results.reasons.is_empty(), judged) {
        (false, _) => Verdict::Fail,
        (true, true) => Verdict::Pass,
        (true, false) => Verdict::Inconclusive,
    };
}

/// Latencies rank what has no answer above all else, and where it is too much there is no latency to compare.
fn unanswered(a: &Side, b: &Side) -> Option<String> {
    let missing = |side: &Side| side.due.saturating_sub(side.answered);
    let share = |side: &Side| missing(side) as f64 / side.due.max(1) as f64;
    (share(b) > share(a)).then(|| {
        format!(
            "{} messages of B without an answer, {} of A",
            units::count(missing(b)),
            units::count(missing(a))
        )
    })
}

pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match (values.get(values.len().saturating_sub(1) / 2), values.get(values.len() / 2)) {
        (Some(&below), Some(&above)) => f64::midpoint(below, above),
        _ => f64::NAN,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::compare::turn::LoadKind;

    /// A figure of which less is better, with this ratio, give or take 1 %.
    pub(crate) fn figure(ratio: f64, threshold: f64) -> MetricChange {
        MetricChange {
            load: "closed".to_owned(),
            metric: "server_cpu_us_per_message".to_owned(),
            higher_is_better: false,
            a: 2.0,
            b: 2.0 * ratio,
            ratio,
            interval: Some(RatioInterval { lower: ratio - 0.01, upper: ratio + 0.01 }),
            p_value: Some(0.001),
            p_adjusted: Some(0.008),
            threshold,
            largest_change: None,
            verdict: Change::Unknown,
            pairs: vec![(2.0, 2.0 * ratio); 12],
        }
    }

    #[test]
    fn only_what_is_real_and_beyond_the_noise_is_a_change() {
        let verdict = |ratio, threshold, real, higher_is_better| {
            let mut figure = MetricChange { higher_is_better, ..figure(ratio, threshold) };
            conclude(&mut figure, real);
            (figure.verdict, figure.largest_change.map(|change| (change * 1e4).round() / 1e4))
        };
        assert_eq!(verdict(1.05, 0.02, true, false), (Change::Worse, Some(0.06)));
        assert_eq!(verdict(1.05, 0.02, true, true), (Change::Better, Some(0.06)));
        assert_eq!(verdict(0.95, 0.02, true, false), (Change::Better, Some(0.06)));
        assert_eq!(verdict(0.95, 0.02, true, true), (Change::Worse, Some(0.06)));
        assert_eq!(verdict(1.05, 0.06, true, false), (Change::NoChange, Some(0.06)));
        assert_eq!(verdict(1.05, 0.02, false, false), (Change::NoChange, Some(0.06)));
    }

    #[test]
    fn a_median_of_an_even_number_is_between() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert!(median([].into_iter()).is_nan());
    }

    #[test]
    fn more_without_an_answer_is_a_reason_of_its_own() {
        let side = |due, answered| Side { name: String::new(), due, answered };
        assert_eq!(unanswered(&side(10, 10), &side(20, 20)), None);
        assert_eq!(unanswered(&side(10, 9), &side(20, 18)), None);
        let why = unanswered(&side(10, 10), &side(20, 18)).unwrap();
        assert_eq!(why, "2 messages of B without an answer, 0 of A");
    }

    #[test]
    fn where_the_machine_was_slow_is_said_and_whether_that_is_left_out() {
        let pairs = SlowPairs { load: LoadKind::Closed, slow: 4, of: 15, left_out: 4 };
        assert_eq!(
            slow(pairs),
            "closed: 4 of 15 pairs are left out, because the machine was slow around them"
        );
        assert!(
            slow(SlowPairs { slow: 6, left_out: 5, ..pairs })
                .contains("in 6 of 15 pairs, and only the 5 slowest are left out, as 10 are needed")
        );
    }
}
