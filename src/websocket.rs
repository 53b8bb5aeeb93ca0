//! WebSocket framing (RFC 6455), for both sides: pure functions over bytes, no I/O.
//!
//! tungstenite does the handshakes but not the framing: it keeps and zero-fills a read buffer a connection, and takes
//! and gives back a reference count for every message. Here one buffer serves all connections of a worker, a message is
//! unmasked, checked and read where it lies, and what is sent is encoded and masked where it is sent from.

mod frame;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod masks;
mod reader;
mod violation;

pub use frame::{Header, Opcode, Sender, append, append_close, append_control, apply_mask};
pub use masks::Masks;
pub use reader::{Event, Reader};
pub use violation::{CloseCode, Violation};
