//! What the fuzzers of `fuzz/` see of the server's decoder. It is there only where cargo-fuzz builds.

#![allow(missing_docs, reason = "nobody but the fuzzers sees it")]

use tokio::io::AsyncReadExt;

use super::handshake;
use super::reader::Reader;

/// What a connection is understood to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Understood {
    /// Each event, in words.
    pub events: Vec<String>,
    /// The code by which the server would close for a violation.
    pub violation: Option<u16>,
}

/// Reads what a client sends behind its handshake, in pieces of `piece_bytes`.
pub fn read(input: &[u8], piece_bytes: usize, max_message_bytes: usize) -> Understood {
    let mut reader = Reader::default();
    let mut understood = Understood::default();
    for piece in input.chunks(piece_bytes.max(1)) {
        let events = &mut understood.events;
        let fed =
            reader.feed(&mut piece.to_vec(), max_message_bytes, |event| events.push(format!("{event:?}")));
        if let Err(code) = fed {
            understood.violation = Some(code.number());
            break;
        }
    }
    understood
}

/// Answers a handshake whose bytes come in pieces of `piece_bytes`; with what, and whether the client is in.
pub async fn shake_hands(request: &[u8], piece_bytes: usize) -> (Vec<u8>, bool) {
    let (client, server) = tokio::io::duplex(piece_bytes.max(1));
    let (mut from_server, mut to_server) = tokio::io::split(client);
    let asking = async {
        // A server that has read enough hangs up.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut to_server, request).await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut to_server).await;
    };
    let hearing = async {
        let mut answer = Vec::new();
        let _ = from_server.read_to_end(&mut answer).await;
        answer
    };
    let serving = async { handshake::accept(server, handshake::Door::default()).await.is_ok() };
    let ((), answer, is_in) = tokio::join!(asking, hearing, serving);
    (answer, is_in)
}
