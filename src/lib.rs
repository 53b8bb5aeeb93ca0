//! floodline.

pub mod clock;
pub mod pacer;
pub mod units;
