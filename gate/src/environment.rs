//! What the counts depend on beside the code.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// Counts of two environments that differ say nothing about the code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// The compiler, as it names itself.
    pub rustc: String,
    /// The target triple that it compiles for.
    pub target: String,
    /// The C library, whose `malloc` and `memcpy` are counted too.
    pub libc: String,
    /// The vector instructions by which libraries choose their code; valgrind shows the program no more than AVX2.
    pub vectors: String,
    /// Valgrind, whose processor the program sees.
    pub valgrind: String,
}

impl Environment {
    /// That of this machine.
    ///
    /// # Errors
    /// Where `rustc` or `valgrind` cannot be run.
    pub fn here() -> Result<Self> {
        let about = output_of("rustc", &["-vV"])?;
        let target = about.lines().find_map(|line| line.strip_prefix("host: "));
        Ok(Self {
            rustc: about.lines().next().unwrap_or_default().to_owned(),
            target: target.context("rustc -vV names no host")?.to_owned(),
            // Not every C library is glibc, nor every system has `getconf`: then the target has to do.
            libc: output_of("getconf", &["GNU_LIBC_VERSION"]).unwrap_or_else(|_| "unknown".to_owned()),
            vectors: vectors().to_owned(),
            valgrind: output_of("valgrind", &["--version"])?,
        })
    }

    /// Each thing in which it differs from that of a baseline, in words.
    #[must_use]
    pub fn differences(&self, baseline: &Self) -> Vec<String> {
        let all = [
            ("compiler", &self.rustc, &baseline.rustc),
            ("target", &self.target, &baseline.target),
            ("C library", &self.libc, &baseline.libc),
            ("vector instructions", &self.vectors, &baseline.vectors),
            ("valgrind", &self.valgrind, &baseline.valgrind),
        ];
        let differing = all.into_iter().filter(|(_, here, there)| here != there);
        differing.map(|(what, here, there)| format!("{what}: {here}, in the baseline {there}")).collect()
    }
}

/// What a program prints, without the end of its last line.
///
/// # Errors
/// Where it cannot be started or does not end well.
pub fn output_of(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
    ensure!(output.status.success(), "{program} {} ended with {}", arguments.join(" "), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

#[cfg(target_arch = "x86_64")]
fn vectors() -> &'static str {
    if std::arch::is_x86_feature_detected!("avx2") { "avx2" } else { "less than avx2" }
}

#[cfg(not(target_arch = "x86_64"))]
fn vectors() -> &'static str {
    "those of the target"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_named() {
        let text = |text: &str| text.to_owned();
        let one = Environment {
            rustc: text("rustc 1.95.0"),
            target: text("x86_64-unknown-linux-gnu"),
            libc: text("glibc 2.36"),
            vectors: text("avx2"),
            valgrind: text("valgrind-3.19.0"),
        };
        assert!(one.differences(&one).is_empty());
        let other =
            Environment { rustc: text("rustc 1.96.0"), valgrind: text("valgrind-3.25.0"), ..one.clone() };
        assert_eq!(
            other.differences(&one),
            [
                "compiler: rustc 1.96.0, in the baseline rustc 1.95.0",
                "valgrind: valgrind-3.25.0, in the baseline valgrind-3.19.0"
            ]
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = output_of("no-such-program-as-this", &[]).unwrap_err();
        assert!(format!("{error:#}").starts_with("no-such-program-as-this: "), "{error:#}");
    }
}
