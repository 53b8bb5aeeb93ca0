//! The file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};
use serde::Serialize;
use serde_json::Value;

use super::{HistoryError, MetricSeries, SeriesPoint, StoredRun};
use crate::clock::unix_now_ns;
use crate::environment::Environment;
use crate::record::LatencyHistogram;
use crate::result::peak::PeakResults;
use crate::result::{LoadTestResults, TestResults, Verdict};

/// "fldl": tells a history from other SQLite files.
const APPLICATION_ID: i32 = 0x666c_646c;
const VERSION: i32 = 1;

const TABLES: &str = "
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        command TEXT NOT NULL,
        measured_at_unix_ns INTEGER NOT NULL,
        commit_id TEXT,
        fingerprint TEXT NOT NULL,
        verdict TEXT NOT NULL,
        environment TEXT NOT NULL
    ) STRICT;
    CREATE TABLE loads (
        id INTEGER PRIMARY KEY,
        run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        verdict TEXT NOT NULL,
        workload TEXT NOT NULL
    ) STRICT;
    CREATE INDEX loads_of_run ON loads (run_id);
    CREATE TABLE metrics (
        load_id INTEGER NOT NULL REFERENCES loads (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        value REAL NOT NULL,
        PRIMARY KEY (load_id, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE histograms (
        load_id INTEGER NOT NULL REFERENCES loads (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        v2_deflate BLOB NOT NULL,
        PRIMARY KEY (load_id, name)
    ) STRICT, WITHOUT ROWID;
";

/// Of a run's JSON, what is no figure of the whole load, or is kept apart.
const NO_FIGURES: [&str; 12] = [
    "calibration",
    "criteria",
    "environment",
    "histograms",
    "outages",
    "per_connection",
    "runs",
    "shard",
    "started_at_unix_ns",
    "tries",
    "windows",
    "workload",
];

/// Several processes may append at once; each waits its turn for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A history in a file.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    connection: Connection,
}

impl History {
    /// Opens the file to append to it; makes it where there is none.
    ///
    /// # Errors
    /// Where it cannot be opened or is no history.
    pub fn append_to(path: &Path) -> Result<Self, HistoryError> {
        let history = Self::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        history.sql(|connection| {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            let tables: i64 =
                connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            if tables == 0 {
                connection.execute_batch(TABLES)?;
                connection.pragma_update(None, "application_id", APPLICATION_ID)?;
                connection.pragma_update(None, "user_version", VERSION)?;
            }
            connection.execute_batch("COMMIT")
        })?;
        history.checked()
    }

    /// Opens the file to read it.
    ///
    /// # Errors
    /// Where there is none, it cannot be opened or is no history.
    pub fn read(path: &Path) -> Result<Self, HistoryError> {
        if !path.exists() {
            return Err(HistoryError::Missing { path: path.to_owned() });
        }
        Self::open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?.checked()
    }

    /// Appends a load; its number in the file.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn append_load(&mut self, run: &LoadTestResults, commit: Option<&str>) -> Result<i64, HistoryError> {
        self.append("load", (run.verdict, &run.environment), commit, &[("load".to_owned(), run)], None)
    }

    /// Appends a test, each load as `case.phase`.
    ///
    /// # Errors
    /// As for [`History::append_load`].
    pub fn append_test(&mut self, test: &TestResults, commit: Option<&str>) -> Result<i64, HistoryError> {
        self.append("test", (test.verdict, &test.environment), commit, &loads(test), None)
    }

    /// Appends a search for the peak: its figures as the load `peak`, and each load of its own.
    ///
    /// # Errors
    /// As for [`History::append_load`].
    pub fn append_peak(&mut self, peak: &PeakResults, commit: Option<&str>) -> Result<i64, HistoryError> {
        let test = TestResults::of_peak(peak.clone());
        let figures =
            (figures(peak)?, serde_json::json!({ "profile": peak.profile, "connections": peak.connections }));
        self.append("peak", (peak.verdict, &peak.environment), commit, &loads(&test), Some(figures))
    }

    /// All runs, the oldest first.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn runs(&self) -> Result<Vec<StoredRun>, HistoryError> {
        self.sql(|connection| {
            let mut select = connection.prepare(
                "SELECT id, command, measured_at_unix_ns, commit_id, fingerprint, verdict,
                        (SELECT count(*) FROM loads WHERE run_id = runs.id)
                 FROM runs ORDER BY measured_at_unix_ns, id",
            )?;
            let rows = select.query_map([], |row| {
                Ok(StoredRun {
                    id: row.get(0)?,
                    command: row.get(1)?,
                    measured_at_unix_ns: unsigned(row.get(2)?),
                    commit: row.get(3)?,
                    fingerprint: row.get(4)?,
                    verdict: row.get(5)?,
                    loads: unsigned(row.get(6)?),
                })
            })?;
            rows.collect()
        })
    }

    /// Each figure for which `wanted` (load, metric) says so, from run to run; no changes are looked for yet.
    ///
    /// # Errors
    /// As for [`History::runs`].
    pub fn series(&self, wanted: impl Fn(&str, &str) -> bool) -> Result<Vec<MetricSeries>, HistoryError> {
        let mut all: Vec<MetricSeries> = Vec::new();
        self.sql(|connection| {
            let mut select = connection.prepare(
                "SELECT fingerprint, loads.name, workload, metrics.name, runs.id, measured_at_unix_ns, commit_id, value
                 FROM metrics JOIN loads ON loads.id = load_id JOIN runs ON runs.id = run_id
                 ORDER BY fingerprint, loads.name, workload, metrics.name, measured_at_unix_ns, runs.id",
            )?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let (load, metric): (String, String) = (row.get(1)?, row.get(3)?);
                if !wanted(&load, &metric) {
                    continue;
                }
                let (fingerprint, workload): (String, String) = (row.get(0)?, row.get(2)?);
                let workload = serde_json::from_str(&workload).unwrap_or_default();
                let point = SeriesPoint {
                    run: row.get(4)?,
                    measured_at_unix_ns: unsigned(row.get(5)?),
                    commit: row.get(6)?,
                    value: row.get(7)?,
                };
                let goes_on = |last: &&mut MetricSeries| {
                    last.fingerprint == fingerprint
                        && last.load == load
                        && last.workload == workload
                        && last.metric == metric
                };
                match all.last_mut().filter(goes_on) {
                    Some(last) => last.points.push(point),
                    None => all.push(MetricSeries {
                        fingerprint,
                        load,
                        workload,
                        metric,
                        points: vec![point],
                        changes: Vec::new(),
                    }),
                }
            }
            Ok(())
        })?;
        Ok(all)
    }

    fn append(
        &mut self,
        command: &str,
        (verdict, environment): (Verdict, &Environment),
        commit: Option<&str>,
        loads: &[(String, &LoadTestResults)],
        of_all: Option<(Vec<(String, f64)>, Value)>,
    ) -> Result<i64, HistoryError> {
        let started = loads.iter().map(|(_, run)| run.started_at_unix_ns).min().unwrap_or_else(unix_now_ns);
        let described = serde_json::to_string(environment)?;
        let path = self.path.clone();
        let failed = |cause| HistoryError::Sqlite { path: path.clone(), cause };
        let whole =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        whole
            .execute(
                "INSERT INTO runs (command, measured_at_unix_ns, commit_id, fingerprint, verdict, environment)
                 VALUES (?, ?, ?, ?, ?, ?)",
                params![
                    command,
                    signed(started),
                    commit,
                    environment.fingerprint(),
                    verdict.as_str(),
                    described
                ],
            )
            .map_err(failed)?;
        let id = whole.last_insert_rowid();
        if let Some((figures, workload)) = of_all {
            insert_load(&whole, id, (command, verdict, &workload.to_string()), &figures).map_err(failed)?;
        }
        for (name, run) in loads {
            let workload = serde_json::to_string(&run.workload)?;
            let load =
                insert_load(&whole, id, (name, run.verdict, &workload), &figures(run)?).map_err(failed)?;
            insert_histograms(&whole, load, run, &path)?;
        }
        whole.commit().map_err(failed)?;
        Ok(id)
    }

    fn open(path: &Path, flags: OpenFlags) -> Result<Self, HistoryError> {
        let failed = |cause| HistoryError::Sqlite { path: path.to_owned(), cause };
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(PATIENCE).map_err(failed)?;
        Ok(Self { path: path.to_owned(), connection })
    }

    fn checked(self) -> Result<Self, HistoryError> {
        let pragma = |name: &str| -> Result<i32, HistoryError> {
            self.sql(|connection| connection.pragma_query_value(None, name, |row| row.get(0)))
        };
        if (pragma("application_id")?, pragma("user_version")?) != (APPLICATION_ID, VERSION) {
            return Err(HistoryError::Foreign { path: self.path });
        }
        Ok(self)
    }

    fn sql<T>(&self, run: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, HistoryError> {
        run(&self.connection).map_err(|cause| HistoryError::Sqlite { path: self.path.clone(), cause })
    }
}

fn loads(test: &TestResults) -> Vec<(String, &LoadTestResults)> {
    let of_case = test.cases.iter().flat_map(|case| case.runs.iter().map(move |run| (&case.name, run)));
    of_case.map(|(case, run)| (format!("{case}.{}", run.phase), &run.run)).collect()
}

fn insert_load(
    whole: &Transaction<'_>,
    run: i64,
    (name, verdict, workload): (&str, Verdict, &str),
    figures: &[(String, f64)],
) -> rusqlite::Result<i64> {
    whole.execute(
        "INSERT INTO loads (run_id, name, verdict, workload) VALUES (?, ?, ?, ?)",
        params![run, name, verdict.as_str(), workload],
    )?;
    let load = whole.last_insert_rowid();
    let mut insert = whole.prepare_cached("INSERT INTO metrics (load_id, name, value) VALUES (?, ?, ?)")?;
    for (metric, value) in figures {
        insert.execute(params![load, metric, value])?;
    }
    Ok(load)
}

fn insert_histograms(
    whole: &Transaction<'_>,
    load: i64,
    run: &LoadTestResults,
    path: &Path,
) -> Result<(), HistoryError> {
    for (name, histogram) in [
        ("latency", &run.histograms.latency),
        ("service_latency", &run.histograms.service_latency),
        ("send_lateness", &run.histograms.send_lateness),
        ("refusal_latency", &run.histograms.refusal_latency),
    ] {
        if !histogram.is_empty() {
            let insert = "INSERT INTO histograms (load_id, name, v2_deflate) VALUES (?, ?, ?)";
            let inserted = whole.execute(insert, params![load, name, deflated(histogram)?]);
            inserted.map_err(|cause| HistoryError::Sqlite { path: path.to_owned(), cause })?;
        }
    }
    Ok(())
}

/// Every number of a result's JSON, by its path.
fn figures(result: &impl Serialize) -> Result<Vec<(String, f64)>, HistoryError> {
    fn gather(path: &str, value: &Value, out: &mut Vec<(String, f64)>) {
        match value {
            Value::Number(number) => out.extend(number.as_f64().map(|number| (path.to_owned(), number))),
            Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                gather(&path, value, out);
            }),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(result)?;
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|name, _| !NO_FIGURES.contains(&&**name));
    }
    let mut out = Vec::new();
    gather("", &value, &mut out);
    Ok(out)
}

fn deflated(histogram: &LatencyHistogram) -> Result<Vec<u8>, HistoryError> {
    let mut bytes = Vec::new();
    let serialized = V2DeflateSerializer::new().serialize(&histogram.counts(), &mut bytes);
    serialized.map_err(|error| HistoryError::Histogram(format!("{error:?}")))?;
    Ok(bytes)
}

/// SQLite's integers are signed; times and counts fit.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;

    use super::*;
    use crate::result::example;

    fn scratch() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.db");
        (dir, path)
    }

    fn run(started_at_unix_ns: u64, cores: u64) -> LoadTestResults {
        let mut run = example::clean();
        run.started_at_unix_ns = started_at_unix_ns;
        run.environment.cores = Some(cores);
        run
    }

    #[test]
    fn what_is_appended_is_found_by_machine_load_and_figure_in_the_order_of_time() {
        let (_dir, path) = scratch();
        let mut history = History::append_to(&path).unwrap();
        history.append_load(&run(30, 2), Some("c")).unwrap();
        history.append_load(&run(10, 2), Some("a")).unwrap();
        history.append_load(&run(20, 4), None).unwrap();
        let mut other = run(40, 2);
        other.workload.payload_bytes += 1;
        // Opened again, it goes on.
        let mut history = History::append_to(&path).unwrap();
        history.append_test(&TestResults::of_load(other), Some("d")).unwrap();
        let history = History::read(&path).unwrap();
        let runs = history.runs().unwrap();
        assert_eq!(
            runs.iter().map(|run| run.commit.as_deref()).collect::<Vec<_>>(),
            [Some("a"), None, Some("c"), Some("d")]
        );
        assert!(runs.iter().all(|run| run.loads == 1 && run.verdict == "pass"), "{runs:?}");
        let series = history.series(|_, metric| metric == "latency_us.p99").unwrap();
        let mut found: Vec<(String, Vec<u64>)> = series
            .iter()
            .map(|series| {
                (series.load.clone(), series.points.iter().map(|p| p.measured_at_unix_ns).collect())
            })
            .collect();
        found.sort();
        // Another machine and another load are series of their own.
        let expected = [("load", vec![10, 30]), ("load", vec![20]), ("load.load", vec![40])];
        assert_eq!(found, expected.map(|(load, times)| (load.to_owned(), times)));
        assert!(series.iter().flat_map(|series| &series.points).all(|point| point.value > 999.0));
    }

    #[test]
    fn every_number_and_every_histogram_of_a_load_is_kept() {
        let (_dir, path) = scratch();
        let mut history = History::append_to(&path).unwrap();
        let run = run(1, 2);
        history.append_load(&run, None).unwrap();
        let names: Vec<String> = history.series(|_, _| true).unwrap().into_iter().map(|s| s.metric).collect();
        for name in ["achieved_rate", "messages.answered", "send_lateness_us.max", "connections.established"]
        {
            assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
        }
        let select = "SELECT v2_deflate FROM histograms WHERE name = 'latency'";
        let bytes: Vec<u8> = history.connection.query_row(select, [], |row| row.get(0)).unwrap();
        let counts: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
        assert_eq!(LatencyHistogram::from_counts(&counts, 0), run.histograms.latency);
    }

    #[test]
    fn another_file_is_left_alone() {
        let (_dir, path) = scratch();
        assert!(matches!(History::read(&path), Err(HistoryError::Missing { .. })));
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE other (x)").unwrap();
        assert!(matches!(History::append_to(&path), Err(HistoryError::Foreign { .. })));
        assert!(matches!(History::read(&path), Err(HistoryError::Foreign { .. })));
        std::fs::write(&path, "no database at all, but a text of some length".repeat(50)).unwrap();
        assert!(matches!(History::append_to(&path), Err(HistoryError::Sqlite { .. })));
    }
}
