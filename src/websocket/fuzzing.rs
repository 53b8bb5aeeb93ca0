//! What the fuzzers of `fuzz/` see of the decoder. It is there only where cargo-fuzz builds.

#![allow(missing_docs, reason = "nobody but the fuzzers sees it")]

use super::{Reader, Sender};

/// What a connection is understood to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Understood {
    /// Each event, in words.
    pub events: Vec<String>,
    /// The code to close with for a violation.
    pub violation: Option<u16>,
}

/// Reads what `sender` sends behind the handshake, in pieces of `piece_bytes`.
pub fn read(sender: Sender, input: &[u8], piece_bytes: usize, max_message_bytes: usize) -> Understood {
    let mut reader = Reader::new(sender, max_message_bytes);
    let mut understood = Understood::default();
    for piece in input.chunks(piece_bytes.max(1)) {
        let events = &mut understood.events;
        let fed = reader.feed(&mut piece.to_vec(), |event| events.push(format!("{event:?}")));
        if let Err(violation) = fed {
            understood.violation = Some(violation.code().number());
            break;
        }
    }
    understood
}
