//! A client that survives cuts, through the public API: against the project's own server behind the fault proxy, against
//! one that is killed and started again, and against peers that the test scripts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "retry/cuts.rs"]
mod cuts;
#[path = "retry/peers.rs"]
mod peers;
#[path = "client/support.rs"]
#[allow(dead_code, reason = "the tests of the client use the rest")]
mod support;
