//! Markdown, for a comment at a pull request: the verdict, a line a case, and what did not pass.

use std::fmt::Write as _;

use crate::result::{CaseResults, LatencyMeasurement, TestResults, Verdict};
use crate::units;

/// The text.
#[must_use]
pub fn summary(results: &TestResults) -> String {
    let mut out = String::new();
    let passed = results.cases.iter().filter(|case| case.verdict == Verdict::Pass).count();
    let _ = writeln!(
        out,
        "**{}**: {passed} of {} cases passed (profile {})\n",
        results.verdict.as_str().to_uppercase(),
        results.cases.len(),
        escape(&results.profile)
    );
    if let Some(error) = &results.error {
        let _ = writeln!(out, "A case could not be run: {}\n", escape(error));
    }
    out.push_str(
        "| case | verdict | answered | P50 of the slowest load | its P99 |\n|---|---|--:|--:|--:|\n",
    );
    for case in &results.cases {
        let sum = |of: fn(&crate::result::MessageCounts) -> u64| -> u64 {
            case.runs.iter().map(|run| of(&run.run.messages)).sum()
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} of {} | {} | {} |",
            escape(&case.name),
            case.verdict.as_str(),
            units::count(sum(|messages| messages.counts.answered)),
            units::count(sum(|messages| messages.due)),
            of_slowest(case, |latency| latency.p50),
            of_slowest(case, |latency| latency.p99),
        );
    }
    for case in &results.cases {
        not_passed(&mut out, case);
    }
    let environment = &results.environment;
    let machine = [&environment.cpu, &environment.kernel].into_iter().flatten().cloned();
    let machine: Vec<String> = machine.chain([format!("floodline {}", environment.floodline)]).collect();
    let _ = writeln!(out, "\n<sub>{}</sub>", escape(&machine.join(" · ")));
    out
}

fn of_slowest(case: &CaseResults, of: fn(&LatencyMeasurement) -> Option<f64>) -> String {
    super::slowest(case).and_then(of).map_or_else(|| "–".to_owned(), units::latency_us)
}

fn not_passed(out: &mut String, case: &CaseResults) {
    let bad = |verdict| matches!(verdict, Verdict::Fail | Verdict::Inconclusive);
    for criterion in case.criteria.iter().filter(|criterion| bad(criterion.verdict)) {
        let _ = write!(
            out,
            "\n- **{} / {}** {}: {} (limit: {})",
            escape(&case.name),
            escape(&criterion.name),
            criterion.verdict.as_str(),
            escape(&criterion.measured),
            escape(&criterion.limit)
        );
        for line in &criterion.evidence {
            let _ = write!(out, "\n  - {}", escape(line));
        }
        out.push('\n');
    }
}

/// Text that Markdown takes for nothing else: it comes from servers as well.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\r' => out.push(' '),
            '\\' | '`' | '*' | '_' | '|' | '[' | ']' | '<' | '>' | '#' | '@' | '&' => {
                out.push('\\');
                out.push(letter);
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::testing::one_of_each_verdict;
    use super::*;

    #[test]
    fn what_did_not_pass_is_said_and_nothing_is_taken_for_markup() {
        let text = summary(&one_of_each_verdict());
        assert!(text.starts_with("**FAIL**: 0 of 1 cases passed (profile smoke)\n"), "{text}");
        assert!(text.contains("| backpressure | fail | 10,000 of 10,000 | 1.00 ms | 1.00 ms |"), "{text}");
        assert!(text.contains("- **backpressure / a\\_fail** fail: 2 \\< 3 (limit: 0)\n"), "{text}");
        assert!(text.contains("  - on connections 1 \\& 2\n"), "{text}");
        assert_eq!(text.matches("\n- **").count(), 2, "{text}");
    }
}
