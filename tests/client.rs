//! The load generator through the public API, against the project's own server and against peers that misbehave.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "client/answers.rs"]
mod answers;
#[path = "client/clean.rs"]
mod clean;
#[path = "client/control.rs"]
mod control;
#[path = "client/hostile.rs"]
mod hostile;
#[path = "client/openings.rs"]
mod openings;
#[path = "client/ramp.rs"]
mod ramp;
#[path = "client/stalls.rs"]
mod stalls;
#[path = "client/support.rs"]
mod support;
