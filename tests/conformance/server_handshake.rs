//! Section 4.2: the opening handshake, as the server reads and answers it.

use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use floodline::server::{HighVolumeWebSocketServer, ServerConfig};

use crate::raw::{read_head, send};

/// The request of section 1.3.
pub const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\nSec-WebSocket-Version: 13\r\n\r\n";

struct Row {
    section: &'static str,
    name: &'static str,
    request: String,
    status: u16,
    /// A header that the answer must have.
    header: &'static str,
}

/// The good request with one thing replaced.
fn row(section: &'static str, name: &'static str, (old, new): (&str, &str), status: u16) -> Row {
    assert!(REQUEST.contains(old), "{name}: {old}");
    let header = if status == 101 { "Upgrade: websocket" } else { "Connection: close" };
    Row { section, name, request: REQUEST.replacen(old, new, 1), status, header }
}

fn with_header(row: Row, header: &'static str) -> Row {
    Row { header, ..row }
}

const HOST: &str = "Host: server.example.com\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\n";
const CONNECTION: &str = "Connection: Upgrade\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";

fn accepted() -> Vec<Row> {
    let good = |name, change| row("4.2.1", name, change, 101);
    vec![
        with_header(
            good("the request of the RFC", ("", "")),
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        ),
        good("names in lower case", ("Upgrade: websocket\r\nConnection", "upgrade: websocket\r\nconnection")),
        good("names in upper case", (VERSION, "SEC-WEBSOCKET-VERSION: 13\r\n")),
        good("Upgrade in upper case", (UPGRADE, "Upgrade: WEBSOCKET\r\n")),
        good("Upgrade in mixed case", (UPGRADE, "Upgrade: WebSocket\r\n")),
        good("Upgrade as the first of a list", (UPGRADE, "Upgrade: websocket, h2c\r\n")),
        good("Upgrade as the last of a list", (UPGRADE, "Upgrade: h2c, websocket\r\n")),
        good("Upgrade as a list without spaces", (UPGRADE, "Upgrade: h2c,websocket\r\n")),
        good("Upgrade as a list with holes", (UPGRADE, "Upgrade: ,, WebSocket,\t,\r\n")),
        good("Upgrade in a second header", (UPGRADE, "Upgrade: h2c\r\nUpgrade: websocket\r\n")),
        good("Connection in lower case", (CONNECTION, "Connection: upgrade\r\n")),
        good("Connection as a list, as Firefox has it", (CONNECTION, "Connection: keep-alive, Upgrade\r\n")),
        good("Connection as a list without spaces", (CONNECTION, "Connection: keep-alive,Upgrade\r\n")),
        good("Connection as a list with more behind", (CONNECTION, "Connection: Upgrade , keep-alive\r\n")),
        good("Connection as a list with holes", (CONNECTION, "Connection: ,, Upgrade,\t,\r\n")),
        good("Connection in two headers", (CONNECTION, "Connection: keep-alive\r\nConnection: Upgrade\r\n")),
        good("no space behind the colon", (VERSION, "Sec-WebSocket-Version:13\r\n")),
        good("spaces around a value", (VERSION, "Sec-WebSocket-Version: \t 13 \t\r\n")),
        good("the key first", (HOST, "X-First: yes\r\nHost: server.example.com\r\n")),
        good("no Origin, as who is no browser", ("Origin: http://example.com\r\n", "")),
        good("another path", ("/chat", "/a/b/../c%20d")),
        good("a query", ("/chat", "/chat?room=1&x=%2F")),
        good("a whole URL for a path", ("/chat", "http://server.example.com/chat")),
        good("a header that nobody knows", (HOST, "Host: server.example.com\r\nX-Unknown: \u{1f30a}\r\n")),
        good("an empty header", (HOST, "Host: server.example.com\r\nX-Empty:\r\n")),
        good(
            "subprotocols on offer",
            (VERSION, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, x\r\n"),
        ),
        good(
            "extensions on offer",
            (VERSION, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"),
        ),
        good("another key", ("dGhlIHNhbXBsZSBub25jZQ==", "AAAAAAAAAAAAAAAAAAAAAA==")),
    ]
}

fn refused() -> Vec<Row> {
    let bad = |name, change| row("4.2.1", name, change, 400);
    let version =
        |name, header| with_header(row("4.2.2", name, (VERSION, header), 426), "Sec-WebSocket-Version: 13");
    let upgrade =
        |name, header| with_header(row("4.2.1", name, (UPGRADE, header), 426), "Upgrade: websocket");
    vec![
        with_header(row("4.2.1", "POST", ("GET", "POST"), 405), "Allow: GET"),
        with_header(row("4.2.1", "get", ("GET", "get"), 405), "Allow: GET"),
        bad("HTTP/1.0", ("HTTP/1.1", "HTTP/1.0")),
        bad("HTTP/2.0", ("HTTP/1.1", "HTTP/2.0")),
        bad("no HTTP", ("GET /chat HTTP/1.1", "SSH-2.0-OpenSSH")),
        bad("a control character in the path", ("/chat", "/ch\u{1}at")),
        bad("a line without a colon", (HOST, "Host: server.example.com\r\nnonsense\r\n")),
        bad("a space before the colon", (HOST, "Host : server.example.com\r\n")),
        bad("no Host", (HOST, "")),
        bad("two Hosts", (HOST, "Host: server.example.com\r\nHost: other.example.com\r\n")),
        upgrade("no Upgrade: a browser's visit", ""),
        upgrade("an empty Upgrade", "Upgrade:\r\n"),
        upgrade("Upgrade to something else", "Upgrade: h2c\r\n"),
        upgrade("Upgrade to something similar", "Upgrade: websockets\r\n"),
        upgrade("Upgrade as a list without it", "Upgrade: h2c, websockets, web socket\r\n"),
        bad("no Connection", (CONNECTION, "")),
        bad("Connection without Upgrade", (CONNECTION, "Connection: keep-alive\r\n")),
        bad("Connection with something similar", (CONNECTION, "Connection: Upgrades, Up grade\r\n")),
        version("no version", ""),
        version("version 8", "Sec-WebSocket-Version: 8\r\n"),
        version("version 0", "Sec-WebSocket-Version: 0\r\n"),
        version("version 14", "Sec-WebSocket-Version: 14\r\n"),
        version("version 013", "Sec-WebSocket-Version: 013\r\n"),
        version("a list of versions", "Sec-WebSocket-Version: 13, 8\r\n"),
        version("two versions", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8\r\n"),
        bad("no key", (KEY, "")),
        bad("an empty key", (KEY, "Sec-WebSocket-Key:\r\n")),
        bad("a key of 15 bytes", (KEY, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA\r\n")),
        bad("a key of 17 bytes", (KEY, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA=\r\n")),
        bad("a key without padding", (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n")),
        bad("a key that is not base64", (KEY, "Sec-WebSocket-Key: ????????????????????????\r\n")),
        bad("two keys", (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n")),
        row("4.1", "a frame that does not wait for the answer", ("13\r\n\r\n", "13\r\n\r\n\u{1}"), 400),
        Row { request: REQUEST.replace("Origin", &"X: y\r\n".repeat(200)), ..row("10.4", "200 headers", ("", ""), 431) },
        Row { request: REQUEST.replace("http:", &"x".repeat(80_000)), ..row("10.4", "a header of 80,000 bytes", ("", ""), 431) },
    ]
    .into_iter()
    .map(|row| if row.status == 431 { with_header(row, "Connection: close") } else { row })
    .collect()
}

#[test]
fn the_server_lets_in_who_asks_as_the_rfc_says_and_tells_the_others_why_not() {
    let server = HighVolumeWebSocketServer::spawn(ServerConfig::default()).unwrap();
    let rows: Vec<_> = accepted().into_iter().chain(refused()).collect();
    assert!(rows.len() > 60, "{} rows", rows.len());
    for row in rows {
        let name = format!("{} {}", row.section, row.name);
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        send(&mut stream, row.request.as_bytes());
        let head = read_head(&mut stream);
        assert!(head.starts_with(&format!("HTTP/1.1 {} ", row.status)), "{name}: {head}");
        assert!(head.contains(&format!("\r\n{}", row.header)), "{name}: {head}");
        // What is not chosen must not be named (section 4.2.2, point 5).
        assert!(!head.contains("-Protocol") && !head.contains("-Extensions"), "{name}: {head}");
        // Whoever is refused sees the end, and no frame; whoever is let in sees the answer to its own.
        send(&mut stream, &crate::raw::masked(crate::raw::PING, b"in?"));
        let _ = stream.shutdown(Shutdown::Write);
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut rest).unwrap();
        if row.status == 101 {
            assert!(rest.starts_with(&crate::raw::plain(crate::raw::PONG, b"in?")), "{name}: {rest:?}");
        } else {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            assert_eq!(length, rest.len().to_string(), "{name}: {head}");
        }
    }
}
