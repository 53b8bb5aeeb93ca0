//! What the fuzzers of `fuzz/` see of the server's decoder. It is there only where cargo-fuzz builds.

#![allow(missing_docs, reason = "nobody but the fuzzers sees it")]

use tokio::io::AsyncReadExt;

use super::handshake;

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
