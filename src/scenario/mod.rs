//! What must hold: criteria over results.

mod criteria;
pub mod load;
