//! floodline.

pub mod allocator;
pub mod analysis;
pub mod client;
pub mod dialect;
pub mod environment;
pub mod limits;
pub mod result;
pub mod sampler;
pub mod workload;
pub mod clock;
pub mod config;
pub mod environment;
pub mod fault;
pub mod ledger;
pub mod limits;
pub mod message;
pub mod pacer;
pub mod record;
pub mod sampler;
pub mod schedule;
pub mod units;
