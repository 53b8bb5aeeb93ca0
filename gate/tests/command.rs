//! The command as a whole, with scripts in place of the programs that it calls: nothing is built or counted here.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

const COMPILER: &str = "printf 'rustc 1.95.0\\nhost: x86_64-unknown-linux-gnu\\n'";

/// A machine on which there is nothing but what is installed here.
struct Machine(TempDir);

impl Machine {
    /// Everything is there, and each of two benchmarks takes a million instructions.
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        machine.install("rustc", COMPILER);
        machine.install("valgrind", "echo valgrind-3.19.0");
        machine.install("gungraun-runner", "echo gungraun-runner 0.20.0");
        machine.counts(1_000_000, 1_000_000);
        machine
    }

    fn install(&self, program: &str, script: &str) {
        let path = self.0.path().join(program);
        // A script that runs cannot be written to.
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn remove(&self, program: &str) {
        fs::remove_file(self.0.path().join(program)).unwrap();
    }

    /// What `cargo bench` will print.
    fn counts(&self, encode: u64, decode: u64) {
        let line = |name: &str, count: u64| {
            format!(
                r#"{{"module_path":"instructions::codec::{name}","id":"it","profiles":[{{"tool":"Callgrind","data":{{"total":{{"metrics":{{"Ir":{{"values":{{"new":{count}}}}}}}}}}}}}]}}"#
            )
        };
        let printed = [line("encode", encode), line("decode", decode)].join("\n");
        self.install("cargo", &format!("/bin/cat <<'END'\n{printed}\nEND"));
    }

    /// The exit code, and what was printed.
    fn gate(&self, flags: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_floodline-gate"))
            .arg("--baseline")
            .arg(self.baseline())
            .args(flags)
            .env_clear()
            .env("PATH", self.0.path())
            .output()
            .unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(printed).unwrap())
    }

    fn baseline(&self) -> PathBuf {
        self.0.path().join("baseline.json")
    }
}

#[track_caller]
fn assert_gate(machine: &Machine, flags: &[&str], code: i32, words: &str) {
    let (found, printed) = machine.gate(flags);
    assert_eq!(found, Some(code), "{printed}");
    assert!(printed.contains(words), "{words} is not in: {printed}");
}

#[test]
fn it_fails_from_more_than_two_percent_on_and_either_way() {
    let machine = Machine::new();
    assert_gate(&machine, &["--bless"], 0, "Written: ");
    assert_gate(&machine, &[], 0, "No benchmark of 2 changed by more than 2 %.");
    machine.counts(1_020_000, 980_000);
    assert_gate(&machine, &[], 0, "No benchmark of 2 changed by more than 2 %.");
    machine.counts(1_020_001, 1_000_000);
    assert_gate(&machine, &[], 1, "FAILED: 1 of 2 changed by more than 2 %.");
    machine.counts(1_000_000, 979_999);
    assert_gate(&machine, &[], 1, "codec/decode/it             250.0      245.0   -2.00 %  FEWER");
    // What was meant is the baseline from then on, and what it was is shown.
    assert_gate(&machine, &["--bless"], 0, "-2.00 %");
    assert_gate(&machine, &[], 0, "No benchmark of 2 changed");
}

#[test]
fn another_compiler_is_never_a_failure() {
    let machine = Machine::new();
    assert_gate(&machine, &["--bless"], 0, "Written: ");
    machine.counts(2_000_000, 1_000_000);
    machine.install("rustc", &COMPILER.replace("1.95", "1.96"));
    assert_gate(&machine, &[], 3, "compiler: rustc 1.96.0, in the baseline rustc 1.95.0");
}

#[test]
fn it_skips_aloud_without_its_tools() {
    let machine = Machine::new();
    machine.install("gungraun-runner", "echo gungraun-runner 0.19.0");
    let install = "cargo install gungraun-runner --version 0.20.0 --locked";
    assert_gate(&machine, &[], 0, install);
    machine.remove("gungraun-runner");
    assert_gate(&machine, &[], 0, install);
    machine.remove("valgrind");
    assert_gate(&machine, &[], 0, "SKIPPED: valgrind is not installed. No instruction was counted.");
    // A baseline that was asked for is not there: that is no success.
    assert_gate(&machine, &["--bless"], 2, "valgrind is not installed");
    assert!(!machine.baseline().exists());
}

#[test]
fn what_cannot_be_counted_is_an_error() {
    let machine = Machine::new();
    assert_gate(&machine, &[], 2, "baseline.json: No such file");
    assert_gate(&machine, &["--bless"], 0, "Written: ");
    machine.install("cargo", "exit 101");
    assert_gate(&machine, &[], 2, "cargo bench ended with exit status: 101");
    assert_gate(&machine, &["--tolerance", "5"], 2, "--tolerance");
}
