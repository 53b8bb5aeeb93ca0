//! However the network cuts a conversation, the server says the same.

use std::net::TcpStream;
use std::time::Duration;

use floodline::server::{HighVolumeWebSocketServer, ServerConfig, ServerHandle};
use proptest::prelude::*;

use crate::raw::{CLOSE, FIRST, LAST, PING, Seen, TEXT, close_payload, masked, read_frame, read_head, send};
use crate::server_handshake::REQUEST;

/// All that a client says after the handshake: a text, one of 16 bits' length, one in fragments around a ping, goodbye.
fn conversation() -> Vec<u8> {
    let long = format!("\"{}\"", "é".repeat(70));
    [
        masked(TEXT, b"\"a\""),
        masked(TEXT, long.as_bytes()),
        masked(FIRST, b"\"\xc3"),
        masked(PING, b"between"),
        masked(LAST, b"\xa9\""),
        masked(CLOSE, &close_payload(3_001, b"bye")),
    ]
    .concat()
}

/// What the server says to a conversation that comes in the given pieces, each in a segment of its own.
fn said(server: &ServerHandle, pieces: &[&[u8]]) -> Vec<Seen> {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    send(&mut stream, REQUEST.as_bytes());
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 101 "));
    for piece in pieces {
        send(&mut stream, piece);
        // So that the server may read this piece before the next is there; it is right either way.
        std::thread::yield_now();
    }
    let mut seen = Vec::new();
    while let Some(frame) = read_frame(&mut stream) {
        seen.push(frame);
    }
    seen
}

/// The answers without their times, and the goodbye.
fn summary(seen: &[Seen]) -> Vec<String> {
    seen.iter()
        .map(|frame| match serde_json::from_slice::<serde_json::Value>(&frame.payload) {
            Ok(answer) => format!("{} {}", answer["type"], answer["echo"]),
            Err(_) => format!("{:#x} {:?}", frame.first, frame.payload),
        })
        .collect()
}

fn expected() -> Vec<String> {
    let long = "é".repeat(70);
    vec![
        "\"generic_response\" \"a\"".to_owned(),
        format!("\"generic_response\" \"{long}\""),
        format!("0x8a {:?}", b"between".to_vec()),
        "\"generic_response\" \"é\"".to_owned(),
        format!("0x88 {:?}", 3_001_u16.to_be_bytes()),
    ]
}

fn server() -> ServerHandle {
    HighVolumeWebSocketServer::spawn(ServerConfig::default()).unwrap()
}

#[test]
fn a_cut_at_any_byte_changes_nothing() {
    let (server, bytes) = (server(), conversation());
    for at in 0..=bytes.len() {
        let (first, last) = bytes.split_at(at);
        assert_eq!(summary(&said(&server, &[first, last])), expected(), "cut at {at}");
    }
    let singles: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(summary(&said(&server, &singles)), expected(), "single bytes");
}

#[test]
fn cuts_at_any_bytes_change_nothing() {
    let (server, bytes) = (server(), conversation());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(64));
    let cuts = proptest::collection::btree_set(0..bytes.len(), 0..20);
    let result = runner.run(&cuts, |cuts| {
        let places: Vec<_> = [0].into_iter().chain(cuts).chain([bytes.len()]).collect();
        let pieces: Vec<_> = places.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect();
        prop_assert_eq!(summary(&said(&server, &pieces)), expected());
        Ok(())
    });
    result.unwrap();
}
