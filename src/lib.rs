//! floodline.

pub mod allocator;
pub mod analysis;
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
