//! A result for people and for machines; one file a format.

pub mod json;
pub mod peak;
pub mod table;
pub mod terminal;
