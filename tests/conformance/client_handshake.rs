//! Section 4.1: the client's request, and what it makes of each answer.

use std::collections::BTreeSet;
use std::net::{Shutdown, TcpListener};
use std::time::Duration;

use base64::Engine as _;
use floodline::client::{ClientError, ConnectError};
use floodline::workload::Workload;

use crate::client_frames::accept_of;
use crate::raw::{PING, PONG, TEXT, plain, read_frame, read_head, send};
use crate::support::{Asked, target, try_offer, twenty, within_patience};

/// The value of a header, whatever its name's case.
pub fn header(head: &str, name: &str) -> Option<String> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(given, _)| given.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
}

/// The answer of a server that lets the client in.
pub fn accepting(request: &str) -> String {
    let accept = accept_of(request);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

enum Outcome {
    Opens,
    /// Nothing is sent; the status says why.
    Refused(u16),
    /// Nothing is sent; the cause says why, in part.
    NotWebSocket(&'static str),
}
use Outcome::{NotWebSocket, Opens, Refused};

struct Row {
    section: &'static str,
    name: &'static str,
    /// Makes the answer of the good one.
    answer: Box<dyn Fn(String) -> Vec<u8> + Send>,
    expected: Outcome,
    /// Why this is not what the RFC asks for, where it is not.
    non_strict: Option<&'static str>,
}

/// The good answer with one thing replaced.
fn row(
    section: &'static str,
    name: &'static str,
    (old, new): (&'static str, &'static str),
    expected: Outcome,
) -> Row {
    let answer = Box::new(move |good: String| {
        assert!(good.contains(old), "{old}");
        good.replacen(old, new, 1).into_bytes()
    });
    Row { section, name, answer, expected, non_strict: None }
}

fn answers(section: &'static str, name: &'static str, answer: &'static str, expected: Outcome) -> Row {
    Row { section, name, answer: Box::new(|_| answer.into()), expected, non_strict: None }
}

const UPGRADE: &str = "Upgrade: websocket\r\n";
const CONNECTION: &str = "Connection: Upgrade\r\n";

fn rows() -> Vec<Row> {
    let opens = |name, change| row("4.1", name, change, Opens);
    let upgrade = |name, value| row("4.1", name, (UPGRADE, value), NotWebSocket("Upgrade: websocket"));
    let connection = |name, value| row("4.1", name, (CONNECTION, value), NotWebSocket("Connection: upgrade"));
    let accept = |name, change| row("4.1", name, change, NotWebSocket("Sec-WebSocket-Accept"));
    let status = |name, answer, status| answers("4.1", name, answer, Refused(status));
    let http = "HTTP/1.1 101 Switching Protocols\r\n";
    vec![
        opens("the answer of the RFC", ("", "")),
        opens("another phrase", ("Switching Protocols", "Sure")),
        opens("no phrase", (" Switching Protocols", "")),
        opens("names in lower case", (UPGRADE, "upgrade: websocket\r\n")),
        opens("Upgrade in mixed case", (UPGRADE, "Upgrade: WebSocket\r\n")),
        opens("Connection in lower case", (CONNECTION, "Connection: upgrade\r\n")),
        opens("names in upper case", (UPGRADE, "UPGRADE: websocket\r\n")),
        opens("no space behind the colon", (UPGRADE, "Upgrade:websocket\r\n")),
        opens("spaces around a value", (UPGRADE, "Upgrade: \t websocket \t\r\n")),
        opens("an empty header", (UPGRADE, "Upgrade: websocket\r\nX-Empty:\r\n")),
        opens("a header that nobody knows", (UPGRADE, "Upgrade: websocket\r\nServer: x\r\n")),
        Row {
            answer: Box::new(|good| [good.as_bytes(), &plain(PING, b"early")].concat()),
            ..opens("a frame in the same write", ("", ""))
        },
        Row {
            non_strict: Some(
                "tungstenite compares the whole header, where the RFC looks for a token of a list",
            ),
            ..connection("Connection as a list", "Connection: keep-alive, Upgrade\r\n")
        },
        upgrade("no Upgrade", ""),
        upgrade("Upgrade to something else", "Upgrade: h2c\r\n"),
        upgrade("an empty Upgrade", "Upgrade:\r\n"),
        // Of Connection one token of a list counts; Upgrade must be that word and no more.
        upgrade("Upgrade as the first of a list", "Upgrade: websocket, h2c\r\n"),
        upgrade("Upgrade as the last of a list", "Upgrade: h2c, websocket\r\n"),
        upgrade("Upgrade in a second header", "Upgrade: h2c\r\nUpgrade: websocket\r\n"),
        upgrade("Upgrade and a second header", "Upgrade: websocket\r\nUpgrade: h2c\r\n"),
        upgrade("Upgrade to something similar", "Upgrade: websockets\r\n"),
        connection("no Connection", ""),
        connection("Connection without Upgrade", "Connection: close\r\n"),
        accept("no Accept", ("Sec-WebSocket-Accept", "X-Accept")),
        accept("an empty Accept", ("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept:\r\nX: ")),
        accept(
            "the Accept of another key",
            ("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX: "),
        ),
        accept("an Accept with something before", ("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x")),
        row(
            "4.1",
            "a subprotocol that was not asked for",
            (UPGRADE, "Upgrade: websocket\r\nSec-WebSocket-Protocol: chat\r\n"),
            NotWebSocket("subprotocol"),
        ),
        row(
            "9.1",
            "an extension that was not asked for",
            (UPGRADE, "Upgrade: websocket\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"),
            NotWebSocket("permessage-deflate"),
        ),
        row("4.1", "HTTP/1.0", (http, "HTTP/1.0 101 Switching Protocols\r\n"), NotWebSocket("HTTP version")),
        row("4.1", "no HTTP", (http, "SSH-2.0-OpenSSH\r\n"), NotWebSocket("")),
        row(
            "4.1",
            "a line without a colon",
            (UPGRADE, "Upgrade: websocket\r\nnonsense\r\n"),
            NotWebSocket(""),
        ),
        row("4.1", "a space before the colon", (UPGRADE, "Upgrade : websocket\r\n"), NotWebSocket("")),
        row("4.1", "200", ("101 Switching Protocols", "200 OK"), Refused(200)),
        row("4.1", "100, which is not the answer", ("101 Switching Protocols", "100 Continue"), Refused(100)),
        status("a redirection", "HTTP/1.1 301 Moved\r\nLocation: ws://127.0.0.1:9/\r\n\r\n", 301),
        status("another redirection", "HTTP/1.1 307 See There\r\nLocation: /elsewhere\r\n\r\n", 307),
        status("bad request", "HTTP/1.1 400 Bad Request\r\n\r\n", 400),
        status("unauthorized", "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n\r\n", 401),
        status("forbidden, with a body", "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403),
        status("another version", "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 8\r\n\r\n", 426),
        status("too many requests", "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n\r\n", 429),
        status("an error", "HTTP/1.1 500 Internal Server Error\r\n\r\n", 500),
        status("a gateway's error", "HTTP/1.1 502 Bad Gateway\r\n\r\n", 502),
        status("no service", "HTTP/1.1 503 Service Unavailable\r\n\r\n", 503),
        answers("4.1", "nothing", "", NotWebSocket("")),
        answers(
            "4.1",
            "half an answer",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso",
            NotWebSocket(""),
        ),
        Row {
            answer: Box::new(|good| good.replace(UPGRADE, &"X: y\r\n".repeat(200)).into_bytes()),
            ..row("10.4", "200 headers", ("", ""), NotWebSocket("headers"))
        },
        Row {
            answer: Box::new(|good| good.replace("websocket", &"x".repeat(100_000)).into_bytes()),
            ..row("10.4", "a header of 100,000 bytes", ("", ""), NotWebSocket(""))
        },
    ]
}

#[test]
fn the_client_opens_only_what_the_rfc_lets_it() {
    let rows = rows();
    assert!(rows.len() > 45, "{} rows", rows.len());
    assert_eq!(rows.iter().filter(|row| row.non_strict.is_some()).count(), 1);
    for row in rows {
        within_patience(move || check(row));
    }
}

fn check(row: Row) {
    let name = format!("{} {}", row.section, row.name);
    let (address, peer) = serve(row.answer);
    let workload = Workload { connect_timeout: Duration::from_secs(20), ..twenty() };
    let outcome = try_offer(workload, &target(address));
    let (request, texts) = peer.join().unwrap();
    assert_request(&request);
    match (row.expected, outcome) {
        (Opens, Ok(measured)) => assert_eq!(measured.messages.counts.answered, 20, "{name}"),
        (
            Refused(status),
            Err(ClientError::Unreachable { first: ConnectError::Refused { status: given }, .. }),
        ) => {
            assert_eq!((given, texts), (status, 0), "{name}");
        }
        (
            NotWebSocket(cause),
            Err(ClientError::Unreachable { first: ConnectError::NotWebSocket { cause: given }, .. }),
        ) => {
            assert!(given.to_lowercase().contains(&cause.to_lowercase()), "{name}: {given}");
            assert_eq!(texts, 0, "{name}");
        }
        (_, outcome) => panic!("{name}: {outcome:?}"),
    }
}

/// A server for one connection: answers the handshake as told, then, where the client goes on, every message. Hands back
/// the request and how many messages came.
fn serve(
    answer: Box<dyn Fn(String) -> Vec<u8> + Send>,
) -> (std::net::SocketAddr, std::thread::JoinHandle<(String, u64)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let request = read_head(&mut stream);
        let bytes = answer(accepting(&request));
        send(&mut stream, &bytes);
        // An answer without its end is all there is: a client would wait for more.
        if !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let mut texts = 0;
        while let Some(frame) = read_frame(&mut stream) {
            match frame.first {
                TEXT => {
                    texts += 1;
                    let answer = Asked::read_answer(std::str::from_utf8(&frame.payload).unwrap());
                    send(&mut stream, &plain(TEXT, answer.as_bytes()));
                }
                PONG => assert_eq!(frame.payload, b"early"),
                _ => {}
            }
        }
        (request, texts)
    });
    (address, thread)
}

/// What section 4.1 asks of the request.
fn assert_request(request: &str) {
    assert!(request.starts_with("GET /ws HTTP/1.1\r\n") && request.ends_with("\r\n\r\n"), "{request}");
    let value = |name| header(request, name).unwrap_or_default();
    assert!(value("Host").starts_with("127.0.0.1:"), "{request}");
    assert_eq!(value("Upgrade").to_lowercase(), "websocket");
    assert_eq!(value("Connection").to_lowercase(), "upgrade");
    assert_eq!(value("Sec-WebSocket-Version"), "13");
    let key = base64::engine::general_purpose::STANDARD.decode(value("Sec-WebSocket-Key")).unwrap();
    assert_eq!(key.len(), 16);
    assert_eq!(
        (header(request, "Sec-WebSocket-Protocol"), header(request, "Sec-WebSocket-Extensions")),
        (None, None)
    );
}

#[test]
fn the_client_masks_each_frame_anew_and_makes_a_new_key_for_each_connection() {
    within_patience(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = target(listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut keys = BTreeSet::new();
            let mut masks = BTreeSet::new();
            let mut frames = 0;
            for _ in 0..3 {
                let (mut stream, _) = listener.accept().unwrap();
                let request = read_head(&mut stream);
                keys.insert(header(&request, "Sec-WebSocket-Key").unwrap());
                send(&mut stream, accepting(&request).as_bytes());
                while let Some(frame) = read_frame(&mut stream) {
                    assert!([TEXT, crate::raw::CLOSE].contains(&frame.first), "{frame:?}");
                    masks.insert(frame.mask.unwrap());
                    frames += 1;
                    if frame.first == TEXT {
                        let answer = Asked::read_answer(std::str::from_utf8(&frame.payload).unwrap());
                        send(&mut stream, &plain(TEXT, answer.as_bytes()));
                    }
                }
            }
            (keys.len(), masks.len(), frames)
        });
        for _ in 0..3 {
            assert_eq!(try_offer(twenty(), &target).unwrap().messages.counts.answered, 20);
        }
        let (keys, masks, frames) = server.join().unwrap();
        assert_eq!((keys, frames), (3, 63), "twenty messages and a goodbye on each");
        // Two of 63 masks of 32 random bits are equal once in two million runs; one may be.
        assert!(masks >= 62, "{masks} masks");
    });
}
