//! RFC 6455, section by section, in raw bytes: what a peer sends, and what we must do then, as server and as client.
//!
//! Each row is one case: the section, a name, the bytes, the reaction. A row with a `non_strict` reason is one where we
//! do something else than the letter of the RFC asks for, on purpose or because the WebSocket library does; it is
//! tested all the same, so that a change shows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "conformance/client_control.rs"]
mod client_control;
#[path = "conformance/client_frames.rs"]
mod client_frames;
#[path = "conformance/client_framing.rs"]
mod client_framing;
#[path = "conformance/client_handshake.rs"]
mod client_handshake;
#[path = "conformance/client_messages.rs"]
mod client_messages;
#[path = "conformance/codes.rs"]
mod codes;
#[path = "conformance/cuts.rs"]
mod cuts;
#[path = "conformance/raw.rs"]
mod raw;
#[path = "conformance/server_control.rs"]
mod server_control;
#[path = "conformance/server_frames.rs"]
mod server_frames;
#[path = "conformance/server_framing.rs"]
mod server_framing;
#[path = "conformance/server_handshake.rs"]
mod server_handshake;
#[path = "conformance/server_messages.rs"]
mod server_messages;
#[allow(dead_code, reason = "these tests share a part of what those of the client have")]
#[path = "client/support.rs"]
mod support;
