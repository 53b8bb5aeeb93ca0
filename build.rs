//! Captures, for the `environment` of a result, what only the build knows: the compiler's version and tokio's.

#![allow(clippy::print_stdout, reason = "a build script speaks to cargo on standard output")]

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=RUSTC");
    // Not `FLOODLINE_…`: cargo shows these to what it runs, too, where an unknown setting is refused.
    if let Some(version) = rustc_version() {
        println!("cargo:rustc-env=BUILT_WITH_RUSTC={version}");
    }
    // As a dependency the crate may come without a lock file. Naming a file that is absent would rerun the
    // script on every build.
    let lock = Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("Cargo.lock");
    if let Ok(text) = std::fs::read_to_string(&lock) {
        println!("cargo:rerun-if-changed={}", lock.display());
        if let Some(version) = locked_version(&text, "tokio") {
            println!("cargo:rustc-env=BUILT_WITH_TOKIO={version}");
        }
    }
}

/// What `rustc --version` says on its first line, such as `rustc 1.95.0 (…)`.
fn rustc_version() -> Option<String> {
    let output = Command::new(env::var_os("RUSTC")?).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}

/// The version of `package` in the text of a lock file; none where it is absent or locked at several versions.
fn locked_version(lock: &str, package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"");
    let mut versions = lock.split("[[package]]").filter(|entry| entry.lines().any(|line| line == name));
    let (only, None) = (versions.next()?, versions.next()) else { return None };
    let version = only.lines().find_map(|line| line.strip_prefix("version = "))?;
    Some(version.trim_matches('"').to_owned())
}
