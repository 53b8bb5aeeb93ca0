//! How a peer can break the protocol, and what it is told.

use std::fmt;

/// Why a connection is closed, as the peer is told (RFC 6455, section 7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// The connection has done what it was opened for.
    Normal = 1000,
    /// The server shuts down.
    GoingAway = 1001,
    /// The peer broke the protocol.
    ProtocolError = 1002,
    /// A text that is not UTF-8.
    InvalidData = 1007,
    /// The token that let the peer in is good no more.
    PolicyViolation = 1008,
    /// A message over the limit.
    TooBig = 1009,
    /// The server has as many connections as it may have.
    TryAgainLater = 1013,
}

impl CloseCode {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16
    }

    /// What the peer is told beside the number.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Normal => "",
            Self::GoingAway => "The server shuts down",
            Self::ProtocolError => "Protocol error",
            Self::InvalidData => "A text must be UTF-8",
            Self::PolicyViolation => "The token has expired",
            Self::TooBig => "The message is too long",
            Self::TryAgainLater => "Too many connections",
        }
    }
}

/// What a peer did wrong. It prints as what that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// A reserved bit is set, though no extension was agreed on (section 5.2).
    ReservedBit,
    /// An opcode without a meaning (section 5.2).
    ReservedOpcode(u8),
    /// A masked frame from a server (section 5.1).
    Masked,
    /// A frame from a client without a mask (section 5.1).
    Unmasked,
    /// A control frame in fragments (section 5.5).
    FragmentedControl,
    /// A control frame of more than 125 bytes (section 5.5).
    LongControl,
    /// A length in more bytes than it needs, or with the top bit set (section 5.2).
    LengthForm,
    /// A continuation of nothing (section 5.4).
    NothingToContinue,
    /// A new message within the fragments of another (section 5.4).
    Interrupted,
    /// A close frame of one byte (section 5.5.1).
    HalfCloseCode,
    /// A close code that must not be on the wire (section 7.4).
    CloseCode(u16),
    /// A text, or a reason to close, that is not UTF-8 (section 8.1).
    NotUtf8,
    /// A message longer than the limit (section 10.4).
    TooBig {
        /// How long, as far as it is known.
        bytes: u64,
        /// The limit.
        limit: usize,
    },
}

impl Violation {
    /// The code to close with.
    #[must_use]
    pub fn code(self) -> CloseCode {
        match self {
            Self::NotUtf8 => CloseCode::InvalidData,
            Self::TooBig { .. } => CloseCode::TooBig,
            _ => CloseCode::ProtocolError,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedBit => f.write_str("a reserved bit is set"),
            Self::ReservedOpcode(opcode) => write!(f, "opcode {opcode} has no meaning"),
            Self::Masked => f.write_str("a masked frame from a server"),
            Self::Unmasked => f.write_str("a frame without a mask from a client"),
            Self::FragmentedControl => f.write_str("a control frame in fragments"),
            Self::LongControl => f.write_str("a control frame of more than 125 bytes"),
            Self::LengthForm => f.write_str("a length that is not in its shortest form"),
            Self::NothingToContinue => f.write_str("a continuation of nothing"),
            Self::Interrupted => f.write_str("a new message within the fragments of another"),
            Self::HalfCloseCode => f.write_str("a close frame of one byte"),
            Self::CloseCode(code) => write!(f, "the close code {code} must not be sent"),
            Self::NotUtf8 => f.write_str("text that is not UTF-8"),
            Self::TooBig { bytes, limit } => {
                write!(f, "a message of {bytes} bytes, over the limit of {limit}")
            }
        }
    }
}
