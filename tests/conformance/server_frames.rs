//! Sections 5 to 8 against the server: how a row is tried. The rows stand beside this, by section.

use std::net::TcpStream;
use std::time::Duration;

use floodline::server::{HighVolumeWebSocketServer, ServerConfig, ServerHandle};
use serde_json::Value;

use crate::raw::{CLOSE, PING, PONG, Seen, TEXT, masked, read_frame, read_head, send};
use crate::{server_control, server_framing, server_messages};

/// Far longer than any answer takes on a slow machine; a test that needs it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// The largest message of the server under test: enough for a length of 64 bits.
pub const MAX_MESSAGE_BYTES: usize = 70_000;

/// What the server does, after which it either goes on or has closed.
#[derive(Debug, PartialEq, Clone)]
pub enum Reaction {
    /// It understood a text: it sends it back inside its answer.
    Echo(Value),
    /// It read a message that is no JSON text: it answers `error`.
    Error,
    Pong(Vec<u8>),
    /// It closes with this code, and ends the stream.
    Close(u16),
}
use Reaction::{Close, Echo, Error, Pong};

pub struct Row {
    section: &'static str,
    name: String,
    sent: Vec<u8>,
    expected: Vec<Reaction>,
}

pub fn row(section: &'static str, name: impl Into<String>, sent: Vec<u8>, expected: Vec<Reaction>) -> Row {
    Row { section, name: name.into(), sent, expected }
}

pub fn fails(section: &'static str, name: impl Into<String>, sent: Vec<u8>, code: u16) -> Row {
    row(section, name, sent, vec![Close(code)])
}

pub fn text(payload: &str) -> Vec<u8> {
    masked(TEXT, format!("\"{payload}\"").as_bytes())
}

pub fn echo(payload: &str) -> Reaction {
    Echo(payload.into())
}

fn rows() -> Vec<Row> {
    [server_framing::rows(), server_messages::rows(), server_control::rows()].into_iter().flatten().collect()
}

#[test]
fn the_server_reacts_to_every_frame_as_the_rfc_says() {
    let config = ServerConfig { max_message_bytes: MAX_MESSAGE_BYTES, ..ServerConfig::default() };
    let server = HighVolumeWebSocketServer::spawn(config).unwrap();
    let rows = rows();
    let failures: Vec<_> = rows.iter().filter_map(|row| check(&server, row).err()).collect();
    assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n"));
    assert!(rows.len() > 1_800, "{} rows", rows.len());
}

fn check(server: &ServerHandle, row: &Row) -> Result<(), String> {
    let mut stream = connect(server);
    send(&mut stream, &row.sent);
    let ends = matches!(row.expected.last(), Some(Close(_)));
    let mut expected = row.expected.clone();
    if !ends {
        // That it goes on shows in an answer to what comes next, in order behind all others.
        send(&mut stream, &masked(PING, b"still there?"));
        expected.push(Pong(b"still there?".to_vec()));
    }
    let mut seen = Vec::new();
    while seen.len() < expected.len() || ends {
        let Some(frame) = read_frame(&mut stream) else { break };
        seen.push(reaction(&frame)?);
    }
    if seen == expected {
        return Ok(());
    }
    let (section, name) = (row.section, &row.name);
    Err(format!("{section} {name}: {}, not {}", shortened(&seen), shortened(&expected)))
}

fn reaction(frame: &Seen) -> Result<Reaction, String> {
    if frame.mask.is_some() {
        return Err(format!("a masked frame from the server: {frame:?}"));
    }
    match frame.first {
        PONG => Ok(Pong(frame.payload.clone())),
        CLOSE => frame.close_code().map(Close).ok_or_else(|| "a close without a code".to_owned()),
        TEXT => {
            let answer: Value = serde_json::from_slice(&frame.payload).map_err(|error| error.to_string())?;
            match answer["type"].as_str() {
                Some("generic_response") => Ok(Echo(answer["echo"].clone())),
                Some("error") => Ok(Error),
                _ => Err(format!("an answer of another type: {frame:?}")),
            }
        }
        _ => Err(format!("a frame of another kind: {frame:?}")),
    }
}

fn shortened(reactions: &[Reaction]) -> String {
    let mut text = format!("{reactions:?}");
    if let Some((end, _)) = text.char_indices().nth(200) {
        text.replace_range(end.., "…");
    }
    text
}

/// A connection whose handshake is done.
fn connect(server: &ServerHandle) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    send(&mut stream, crate::server_handshake::REQUEST.as_bytes());
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}
