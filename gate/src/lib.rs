//! The gate of instruction counts: what `benches/instructions.rs` counts under callgrind, held against a committed baseline.
//!
//! [`counts`] reads what gungraun prints, [`baseline`] is the file, [`environment`] says whether its counts are of the same
//! compiler and machine, [`comparison`] tells what changed. `main.rs` runs it all.

pub mod baseline;
pub mod comparison;
pub mod counts;
pub mod environment;

/// How many messages each benchmark handles: so many that what it does once is lost in them, and no more than callgrind,
/// which takes fifty times as long, does in a moment.
pub const MESSAGES: u64 = 4_000;

/// The gungraun that `Cargo.toml` asks for; its runner must be of the same version.
pub const GUNGRAUN: &str = "0.20.0";

#[cfg(test)]
mod tests {
    #[test]
    fn the_runner_that_is_asked_for_is_that_of_the_manifest() {
        let wanted = format!("gungraun = {{ version = \"={}\"", super::GUNGRAUN);
        assert!(include_str!("../Cargo.toml").contains(&wanted), "{wanted}");
    }
}
