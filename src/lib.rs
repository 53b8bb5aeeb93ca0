//! floodline.

pub mod clock;
pub mod units;
