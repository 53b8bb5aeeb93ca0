//! floodline.

pub mod clock;
pub mod pacer;
pub mod schedule;
pub mod units;
