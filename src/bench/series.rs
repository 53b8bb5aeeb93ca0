//! Benchmarks whose values come out of a case or a plan, not out of the windows of a cell.

use std::process::ExitCode;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput};

use super::arguments::Mode;
use super::{RESAMPLES, SAMPLES, Settings, Suite, say};

/// A benchmark that is to be had: the two parts of its id behind the bench's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id {
    /// What is measured.
    pub measure: &'static str,
    /// Of what.
    pub parameter: &'static str,
    /// In what.
    pub unit: Unit,
}

/// What the values of a benchmark are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

impl Id {
    /// A benchmark of times.
    #[must_use]
    pub const fn of_time(measure: &'static str, parameter: &'static str) -> Self {
        Self { measure, parameter, unit: Unit::Seconds }
    }

    /// A benchmark of bytes, which the measure's name should say.
    #[must_use]
    pub const fn of_bytes(measure: &'static str, parameter: &'static str) -> Self {
        Self { measure, parameter, unit: Unit::Bytes }
    }
}

/// The values of one benchmark.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Whose values these are.
    pub id: Id,
    /// At least eleven of them, one for the warm-up; one where every benchmark is only to run once.
    pub values: Vec<f64>,
}

/// Values in the order in which they came, dealt in turn to as many groups as Criterion takes samples, and one for its
/// warm-up; the mean of each group. A series shorter than that stays as it is.
#[must_use]
pub fn dealt(values: &[f64]) -> Vec<f64> {
    let groups = SAMPLES + 1;
    let dealt = (0..groups.min(values.len())).map(|group| {
        let mine: Vec<f64> = values.iter().copied().skip(group).step_by(groups).collect();
        mine.iter().sum::<f64>() / mine.len() as f64
    });
    dealt.collect()
}

/// Runs a bench from its `main` that has the benchmarks `ids`: `measure` gives their values, or `None` where it has already
/// told the suite why not.
pub fn run_series(
    name: &'static str,
    executable: &str,
    ids: &[Id],
    measure: impl FnOnce(&mut Suite) -> Option<Vec<Series>>,
) -> ExitCode {
    match Settings::read(executable) {
        Ok(settings) => measured(Suite::new(name, settings), ids, measure),
        Err(error) => refused(&error),
    }
}

pub(crate) fn refused(error: &dyn std::fmt::Display) -> ExitCode {
    say(&format!("error: {error}"));
    ExitCode::from(2)
}

fn measured(
    mut suite: Suite,
    ids: &[Id],
    measure: impl FnOnce(&mut Suite) -> Option<Vec<Series>>,
) -> ExitCode {
    let wanted: Vec<Id> = ids.iter().copied().filter(|&id| suite.wants(id)).collect();
    if wanted.is_empty() {
        return suite.finish();
    }
    if suite.settings.arguments.mode == Mode::NoRun {
        wanted.iter().for_each(|&id| suite.hand_over_series(id, &[]));
        return suite.finish();
    }
    let Some(series) = measure(&mut suite) else {
        if suite.failed.is_empty() {
            suite.fail("measure", "it gave no values");
        }
        return suite.finish();
    };
    for id in wanted {
        let values = series.iter().find(|series| series.id == id).map_or(&[][..], |series| &series.values);
        match lacking(values, suite.values_needed()) {
            None => suite.hand_over_series(id, values),
            // Whether that server did what it should was the case's to say; what only ours can do is not to be measured.
            Some(why) if suite.is_on_target() => {
                suite.leave_out(&format!("{}/{}", id.measure, id.parameter), &why)
            }
            Some(why) => suite.fail(&format!("{}/{}", id.measure, id.parameter), &why),
        }
    }
    suite.finish()
}

/// Why these values are no benchmark; `None` where they are one.
fn lacking(values: &[f64], needed: usize) -> Option<String> {
    if values.iter().any(|value| *value <= 0.0) {
        // Criterion drops a benchmark with a zero sample in silence.
        return Some("a value of nothing".to_owned());
    }
    (values.len() < needed).then(|| format!("{} values of {needed}", values.len()))
}

impl Suite {
    fn wants(&self, id: Id) -> bool {
        let text = format!("{}/{}/{}", self.name, id.measure, id.parameter);
        self.settings.arguments.filter.accepts(&text)
    }

    /// How many values a benchmark must have.
    #[must_use]
    pub fn values_needed(&self) -> usize {
        if self.settings.arguments.mode == Mode::Test { 1 } else { SAMPLES + 1 }
    }

    fn hand_over_series(&mut self, Id { measure, parameter, unit }: Id, values: &[f64]) {
        let id = BenchmarkId::new(measure, parameter);
        match unit {
            Unit::Seconds => {
                let times = values.iter().map(|&s| Duration::from_secs_f64(s));
                let times_n = |time: Duration, n: u64| time.mul_f64(n as f64);
                hand_over(&mut self.criterion, self.name, id, None, &times.collect::<Vec<_>>(), times_n);
            }
            Unit::Bytes => {
                let mut criterion = Criterion::default().with_measurement(Bytes).configure_from_args();
                hand_over(&mut criterion, self.name, id, None, values, |bytes, n| bytes * n as f64);
            }
        }
    }
}

/// Hands recorded values to Criterion, one a call, times the iterations that it asks for.
pub(super) fn hand_over<M: Measurement>(
    criterion: &mut Criterion<M>,
    name: &str,
    id: BenchmarkId,
    throughput: Option<Throughput>,
    values: &[M::Value],
    times_n: impl Fn(M::Value, u64) -> M::Value,
) where
    M::Value: Copy + Default,
{
    let mut group: BenchmarkGroup<'_, M> = criterion.benchmark_group(name);
    group
        .sample_size(SAMPLES)
        .nresamples(RESAMPLES)
        .warm_up_time(Duration::from_nanos(1))
        .measurement_time(Duration::from_millis(1))
        .sampling_mode(SamplingMode::Flat);
    if let Some(throughput) = throughput {
        group.throughput(throughput);
    }
    let mut call = 0;
    group.bench_function(id, |bencher| {
        bencher.iter_custom(|iterations| {
            let value = values.get(call % values.len().max(1)).copied().unwrap_or_default();
            call += 1;
            times_n(value, iterations)
        });
    });
    group.finish();
}

/// Bytes in place of a wall clock. Values are only ever handed over: nothing is measured by it itself.
#[derive(Debug, Clone, Copy)]
struct Bytes;

impl Measurement for Bytes {
    type Intermediate = ();
    type Value = f64;

    fn start(&self) {}

    fn end(&self, (): ()) -> f64 {
        0.0
    }

    fn add(&self, a: &f64, b: &f64) -> f64 {
        a + b
    }

    fn zero(&self) -> f64 {
        0.0
    }

    fn to_f64(&self, value: &f64) -> f64 {
        *value
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &BytesFormatter
    }
}

#[derive(Debug)]
struct BytesFormatter;

impl ValueFormatter for BytesFormatter {
    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        let (factor, unit) = match typical {
            bytes if bytes < 1e3 => (1.0, "B"),
            bytes if bytes < 1e6 => (1e-3, "kB"),
            _ => (1e-6, "MB"),
        };
        values.iter_mut().for_each(|value| *value *= factor);
        unit
    }

    fn scale_throughputs(
        &self,
        _typical: f64,
        _throughput: &Throughput,
        _values: &mut [f64],
    ) -> &'static str {
        "B"
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "B"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_dealt_in_turn() {
        // 0 to 21 in eleven groups: each has n and n + 11.
        let values: Vec<f64> = (0..22).map(f64::from).collect();
        let expected: Vec<f64> = (0..11).map(|n| f64::from(n) + 5.5).collect();
        assert_eq!(dealt(&values), expected);
        assert_eq!(dealt(&[2.0]), [2.0]);
        assert_eq!(dealt(&[]), [0.0; 0]);
    }

    #[test]
    fn too_few_values_or_one_of_nothing_are_no_benchmark() {
        assert_eq!(lacking(&[1.0; 11], 11), None);
        assert_eq!(lacking(&[1.0; 10], 11).as_deref(), Some("10 values of 11"));
        assert_eq!(lacking(&[], 1).as_deref(), Some("0 values of 1"));
        assert_eq!(lacking(&[1.0, 0.0], 2).as_deref(), Some("a value of nothing"));
        assert_eq!(lacking(&[1.0, -0.1], 2).as_deref(), Some("a value of nothing"));
    }

    #[test]
    fn bytes_are_shown_in_the_unit_that_fits() {
        let shown = |bytes: f64| {
            let mut values = [bytes];
            let unit = BytesFormatter.scale_values(bytes, &mut values);
            (values[0], unit)
        };
        assert_eq!([shown(999.0), shown(2_500.0), shown(3e6)], [(999.0, "B"), (2.5, "kB"), (3.0, "MB")]);
    }
}
