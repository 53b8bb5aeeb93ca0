//! Protocols that are small enough to read by ourselves. Nothing that a peer sends is trusted: what is not whole yet is waited
//! for, within limits; what can never become whole is an error.

pub(super) mod engine;
pub(super) mod nats;
pub(super) mod stomp;
