//! What gungraun prints with `--output-format=json`: an object a line, one for each benchmark.
//!
//! Of its schema (version 7) only the few fields are read that are wanted here. `gungraun-summary`, which has all of them,
//! would bring more crates than it saves lines.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// Instructions by benchmark, `group/function/id`.
pub type Counts = BTreeMap<String, u64>;

#[derive(Deserialize)]
struct Summary {
    /// `file::group::function`.
    module_path: String,
    id: Option<String>,
    profiles: Vec<Profile>,
}

#[derive(Deserialize)]
struct Profile {
    tool: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    total: Total,
}

#[derive(Deserialize)]
struct Total {
    metrics: Metrics,
}

#[derive(Deserialize)]
struct Metrics {
    /// Instructions read, which are those executed.
    #[serde(rename = "Ir")]
    instructions: Metric,
}

#[derive(Deserialize)]
struct Metric {
    values: Values,
}

#[derive(Deserialize)]
struct Values {
    new: u64,
}

/// Reads all of it.
///
/// # Errors
/// Where a line is no such object, a benchmark has no count of callgrind's or comes twice, or there is none at all.
pub fn read(printed: &str) -> Result<Counts> {
    let mut counts = Counts::new();
    for line in printed.lines().filter(|line| !line.trim().is_empty()) {
        let summary: Profiled = serde_json::from_str::<Summary>(line)
            .with_context(|| format!("not a summary of gungraun's: {line}"))?
            .try_into()?;
        if counts.insert(summary.name.clone(), summary.instructions).is_some() {
            bail!("benchmark {} came twice", summary.name);
        }
    }
    ensure!(!counts.is_empty(), "gungraun measured nothing");
    Ok(counts)
}

struct Profiled {
    name: String,
    instructions: u64,
}

impl TryFrom<Summary> for Profiled {
    type Error = anyhow::Error;

    fn try_from(summary: Summary) -> Result<Self> {
        let path = summary.module_path.split("::").skip(1).chain(summary.id.as_deref());
        let name = path.collect::<Vec<_>>().join("/");
        let profile = summary.profiles.iter().find(|profile| profile.tool == "Callgrind");
        let profile = profile.with_context(|| format!("benchmark {name} was not counted by callgrind"))?;
        let instructions = profile.data.total.metrics.instructions.values.new;
        Ok(Self { name, instructions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As gungraun 0.20.0 prints it, but for fields that nobody reads.
    fn line(module_path: &str, id: &str, tool: &str, values: &str) -> String {
        format!(
            r#"{{"version":"7","kind":"LibraryBenchmark","module_path":"{module_path}",{id}"profiles":[{{"tool":"{tool}",
            "data":{{"parts":[],"total":{{"metrics":{{"Ir":{{"values":{values}}}}},"regressions":[]}}}}}}]}}"#
        )
        .replace('\n', "")
    }

    #[test]
    fn each_benchmark_is_read_by_group_function_and_id() {
        let printed = [
            line("instructions::codec::encode", r#""id":"request","#, "Callgrind", r#"{"new":1234}"#),
            String::new(),
            // Gungraun tells the run before too, where there was one.
            line("instructions::schedule::due", "", "Callgrind", r#"{"new":7,"old":8}"#),
        ];
        let counts = read(&printed.join("\n")).unwrap();
        let expected = [("codec/encode/request".to_owned(), 1234), ("schedule/due".to_owned(), 7)];
        assert_eq!(counts, Counts::from(expected));
    }

    #[test]
    fn what_cannot_be_counted_is_an_error_that_says_so() {
        let counted = line("instructions::codec::encode", "", "Callgrind", r#"{"new":1}"#);
        let cases = [
            (String::new(), "gungraun measured nothing"),
            ("running 3 tests".to_owned(), "not a summary of gungraun's: running 3 tests"),
            (line("instructions::codec::encode", "", "DHAT", r#"{"new":1}"#), "codec/encode was not counted"),
            (
                line("instructions::codec::encode", "", "Callgrind", r#"{"old":1}"#),
                "not a summary of gungraun's",
            ),
            (format!("{counted}\n{counted}"), "benchmark codec/encode came twice"),
        ];
        for (printed, expected) in cases {
            let error = format!("{:#}", read(&printed).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
