//! A benchmark harness for high-volume message throughput over WebSockets: load at a known rate, every message
//! accounted for.
//!
//! Modules by floor; each imports only from lower floors, or from its own folder. How a message travels: `schedule` says
//! when it is due, `pacer` wakes the worker, a `client` connection sends it in its `dialect` and finds it again in the
//! `ledger` when the answer comes, `record` counts it, and `result` says what it all came to.
//!
//! | floor | modules |
//! |---|---|
//! | 8 | the command (`main.rs`, `cli/`) |
//! | 5 | [`run`]: one load phase from start to result |
//! | 5 | [`report`]: a result for people and for machines |
//! | 4 | [`client`]: the load generator · [`server`]: the mock server · [`analysis`]: pure functions over numbers |
//! | 3 | [`result`], [`dialect`] |
//! | 2 | [`workload`], [`schedule`], [`pacer`], [`ledger`], [`record`], [`sampler`], [`environment`], [`limits`], [`fault`] |
//! | 1 | [`clock`], [`message`], [`config`], [`units`], [`allocator`] |

pub mod allocator;
pub mod analysis;
pub mod client;
pub mod clock;
pub mod config;
pub mod dialect;
pub mod environment;
pub mod fault;
pub mod ledger;
pub mod limits;
pub mod message;
pub mod pacer;
pub mod proxy;
pub mod record;
pub mod result;
pub mod run;
pub mod sampler;
pub mod schedule;
pub mod server;
pub mod units;
pub mod workload;
