//! The command from outside: the built binary, its exit codes, what it prints and what it leaves behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
// Signals, descriptors and process tables: the command is complete on Unix only.
#![cfg(unix)]

mod access;
mod brokers;
mod cases;
mod contract;
mod dialects;
mod faults;
#[cfg(feature = "criterion")]
mod harness;
mod interrupt;
mod load;
mod peak;
mod process;
mod proxy;
mod report;
mod review;
mod schema;
mod serve;
mod servers;
mod store;
mod target;
mod third_party;
mod trust;
mod usage;
