//! A benchmark harness for high-volume message throughput over WebSockets: load at a known rate, every message
//! accounted for.
//!
//! How a message travels: [`schedule`] says when it is due, [`pacer`] wakes the worker, a [`client`] connection sends it
//! in its [`dialect`] and finds it again in the [`ledger`] when the answer comes, [`record`] counts it, [`run`] gathers
//! what all workers found into a [`result`], [`scenario`] judges it and [`report`] shows it.
//!
//! Modules by floor; each imports only from lower floors, or from its own folder.
//!
//! | floor | modules |
//! |---|---|
//! | 8 | the command: `main.rs` and `cli/`, one file a subcommand · [`bench`](mod@bench): the Criterion glue · [`harness`]: other people's servers, in their own tests and benches |
//! | 7 | [`selftest`]: the proof that every check can fail |
//! | 6 | [`scenario`]: what must hold · [`calibration`]: what the generator itself can do · [`compare`]: two against each other |
//! | 5 | [`run`]: one load from start to result · [`report`]: a result for people and for machines · [`history`]: results kept from run to run |
//! | 4 | [`client`]: the load generator · [`server`]: the mock server · [`proxy`]: faults between the two · [`analysis`]: pure functions over numbers |
//! | 3 | [`result`]: what a run found · [`dialect`]: what to send, how an answer is recognised |
//! | 2 | [`workload`] · [`schedule`] · [`pacer`] · [`ledger`] · [`record`] · [`sampler`] · [`environment`] · [`limits`] · [`fault`] · [`retry`] |
//! | 1 | [`clock`] · [`message`] · [`config`] · [`units`] · [`allocator`] · [`pem`] · [`secrets`] · [`websocket`] |

pub mod allocator;
pub mod analysis;
#[cfg(feature = "criterion")]
pub mod bench;
pub mod calibration;
pub mod client;
pub mod clock;
pub mod compare;
pub mod config;
pub mod dialect;
pub mod environment;
pub mod fault;
pub mod harness;
pub mod history;
pub mod ledger;
pub mod limits;
pub mod message;
pub mod pacer;
pub mod pem;
pub mod proxy;
pub mod record;
pub mod report;
pub mod result;
pub mod retry;
pub mod run;
pub mod sampler;
pub mod scenario;
pub mod schedule;
pub mod secrets;
pub mod selftest;
pub mod server;
pub mod units;
pub mod websocket;
pub mod workload;
