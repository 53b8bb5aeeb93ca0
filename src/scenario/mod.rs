//! What must hold: criteria over results.

pub mod load;
