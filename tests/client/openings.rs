//! What a dialect says before the load and beside it: logins, subscriptions, pongs, and byte streams cut anywhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use floodline::client::{
    Access, ClientError, ConnectError, HighVolumeThroughputClient, LoadMeasurement, Stop, TcpConnect, Token,
};
use floodline::config::{DialectConfig, JsonConfig};
use floodline::dialect::{DialectKind, DialectSettings};
use floodline::retry::RetryPolicy;
use floodline::workload::Workload;
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, accept_async, accept_hdr_async};

use crate::support::{Peer, assert_accounted, open_loop, twenty, within_patience};

fn json() -> DialectConfig {
    let json = JsonConfig {
        request: r#"{"id":"{id}"}"#.to_owned(),
        id: "/id".to_owned(),
        login: r#"{"login":"me"}"#.to_owned(),
        login_ok: "/welcome".to_owned(),
        ..JsonConfig::default()
    };
    DialectConfig { json, ..DialectConfig::default() }
}

fn offer(
    kind: DialectKind,
    config: DialectConfig,
    workload: Workload,
    peer: &Peer,
) -> Result<LoadMeasurement, ClientError> {
    let workload = workload.validated().unwrap();
    let settings = DialectSettings::new(config, |_| None).unwrap();
    let dialect = settings.dialect(kind, workload.seed, workload.payload_bytes).unwrap();
    let connect = TcpConnect::new(peer.target(), None).unwrap();
    let measured = HighVolumeThroughputClient::new(workload, connect, dialect).run(&Stop::default(), &mut ());
    measured.inspect(assert_accounted)
}

/// The next text of a client.
async fn next(ws: &mut WebSocketStream<TcpStream>) -> Option<String> {
    loop {
        match ws.next().await? {
            Ok(Message::Text(text)) => return Some(text.to_string()),
            Ok(Message::Binary(bytes)) => return Some(String::from_utf8(bytes.to_vec()).unwrap()),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

#[test]
fn a_login_comes_first_on_each_connection_and_again_after_a_cut() {
    within_patience(|| {
        let logins = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&logins);
        let peer = Peer::start(move |stream, place| {
            let seen = Arc::clone(&seen);
            async move {
                let mut ws = accept_async(stream).await.unwrap();
                assert_eq!(next(&mut ws).await.as_deref(), Some(r#"{"login":"me"}"#));
                seen.fetch_add(1, Ordering::SeqCst);
                ws.send(Message::text(r#"{"welcome":true}"#)).await.unwrap();
                let mut answered = 0;
                while let Some(request) = next(&mut ws).await {
                    if place == 0 && answered == 3 {
                        return;
                    }
                    answered += 1;
                    let _ = ws.send(Message::text(request)).await;
                }
            }
        });
        let workload = Workload { retry: Some(RetryPolicy::default()), ..open_loop(100.0, 2, 0.5) };
        let measured = offer(DialectKind::Json, json(), workload, &peer).unwrap();
        assert_eq!((measured.messages.due, measured.messages.counts.answered), (50, 50));
        assert_eq!((measured.connections.reconnects, logins.load(Ordering::SeqCst)), (1, 3));
    });
}

#[test]
fn a_refused_opening_leaves_no_connection_and_says_what_the_server_said() {
    within_patience(|| {
        type Said = fn(&mut WebSocketStream<TcpStream>) -> Option<Message>;
        let refusals: [(Said, &str); 3] = [
            (|_| Some(Message::text(r#"{"error":"who are you?"}"#)), r#"it said: {"error":"who are you?"}"#),
            (|_| None, "it said: connection lost"),
            (|_| Some(Message::Close(None)), "it said: nothing"),
        ];
        for (said, expected) in refusals {
            let peer = Peer::start(move |stream, _| async move {
                let mut ws = accept_async(stream).await.unwrap();
                next(&mut ws).await;
                if let Some(message) = said(&mut ws) {
                    let _ = ws.send(message).await;
                    next(&mut ws).await;
                }
            });
            let error = offer(DialectKind::Json, json(), twenty(), &peer).unwrap_err();
            let ClientError::Unreachable { first: ConnectError::DialectRefused { dialect, .. }, .. } = &error
            else {
                panic!("{error:?}");
            };
            assert_eq!(*dialect, "json");
            assert!(error.to_string().contains(expected), "{error}, not {expected}");
        }
    });
}

#[test]
fn a_token_that_the_server_says_back_is_not_shown() {
    within_patience(|| {
        let peer = Peer::start(|stream, _| async move {
            let mut token = String::new();
            #[allow(clippy::result_large_err, reason = "the signature is tungstenite's")]
            let note = |request: &Request, response: Response| {
                token = request.headers()["Authorization"].to_str().unwrap().to_owned();
                Ok(response)
            };
            let mut ws = accept_hdr_async(stream, note).await.unwrap();
            let request = next(&mut ws).await.unwrap();
            for text in [token.clone(), request] {
                ws.send(Message::text(text)).await.unwrap();
            }
            let reason = format!("no more of {token}");
            let _ = ws.close(Some(CloseFrame { code: CloseCode::Policy, reason: reason.into() })).await;
            while next(&mut ws).await.is_some() {}
        });
        let workload = twenty().validated().unwrap();
        let settings = DialectSettings::default();
        let dialect = settings.dialect(DialectKind::Echo, workload.seed, workload.payload_bytes).unwrap();
        let access = Access::from(Some(Token::new("t0ken-5f2c91")));
        let connect = TcpConnect::new(peer.target(), access).unwrap();
        let client = HighVolumeThroughputClient::new(workload, connect, dialect);
        let measured = client.run(&Stop::default(), &mut ()).unwrap();
        assert_accounted(&measured);
        assert_eq!(measured.unmatched[0].text, "Bearer [secret]");
        let reasons: Vec<&String> = measured.connections.reasons.keys().collect();
        assert_eq!(reasons, ["closed by the server: 1008 no more of Bearer [secret]"]);
    });
}

#[test]
fn an_opening_that_nobody_answers_ends_with_the_time_for_a_connection() {
    within_patience(|| {
        for kind in [DialectKind::Json, DialectKind::Nats, DialectKind::Socketio] {
            let peer = Peer::start(|stream, _| async move {
                let mut ws = accept_async(stream).await.unwrap();
                while next(&mut ws).await.is_some() {}
            });
            let workload = Workload { connect_timeout: Duration::from_millis(300), ..twenty() };
            let error = offer(kind, json(), workload, &peer).unwrap_err().to_string();
            assert!(error.contains(&format!("dialect {kind}")) && error.contains("within 0.3 s"), "{error}");
        }
    });
}

#[test]
fn pings_of_a_dialect_are_answered_beside_the_load() {
    within_patience(|| {
        let said = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&said);
        let peer = Peer::start(move |stream, _| {
            let seen = Arc::clone(&seen);
            async move {
                let mut ws = accept_async(stream).await.unwrap();
                ws.send(Message::text(r#"0{"sid":"x"}"#)).await.unwrap();
                while let Some(text) = next(&mut ws).await {
                    let reply = match text.strip_prefix("42") {
                        Some(event) => {
                            let (id, _) = event.split_once('[').unwrap();
                            ws.feed(Message::text("2")).await.unwrap();
                            format!("43{id}[]")
                        }
                        None if text == "40" => r#"40{"sid":"y"}"#.to_owned(),
                        None => {
                            seen.lock().unwrap().push(text);
                            continue;
                        }
                    };
                    let _ = ws.send(Message::text(reply)).await;
                }
            }
        });
        let measured = offer(DialectKind::Socketio, DialectConfig::default(), twenty(), &peer).unwrap();
        assert_eq!(measured.messages.counts.answered, 20);
        assert_eq!(measured.unmatched, []);
        let said = said.lock().unwrap();
        // Several pings that come together are answered once.
        assert!((1..=20).contains(&said.len()) && said.iter().all(|text| text == "3"), "{said:?}");
    });
}

#[test]
fn a_byte_stream_may_be_cut_anywhere() {
    within_patience(|| {
        let peer = Peer::start(|stream, _| async move {
            let mut ws = accept_async(stream).await.unwrap();
            let mut out = b"INFO {}\r\n".to_vec();
            loop {
                // In pieces of 7 bytes, of which a few are kept for the next time.
                let whole = out.len() / 7 * 7;
                for piece in out.drain(..whole).collect::<Vec<_>>().chunks(7) {
                    let _ = ws.feed(Message::binary(piece.to_vec())).await;
                }
                if out.ends_with(b"\n") {
                    let _ = ws.feed(Message::binary(std::mem::take(&mut out))).await;
                }
                let _ = ws.flush().await;
                let Some(said) = next(&mut ws).await else { return };
                if said.starts_with("CONNECT") {
                    out.extend(b"PONG\r\n");
                } else if let Some(message) = said.strip_prefix("PUB ") {
                    let (subject, rest) = message.split_once(' ').unwrap();
                    // Two in a row, of which the first is for somebody else.
                    out.extend(format!("MSG other 1 2\r\nhi\r\nMSG {subject} 1 {rest}PING\r\n").into_bytes());
                }
            }
        });
        let measured = offer(DialectKind::Nats, DialectConfig::default(), twenty(), &peer).unwrap();
        let counts = measured.messages.counts;
        assert_eq!((counts.answered, counts.unattributed, counts.corrupted), (20, 20, 0));
    });
}

#[test]
fn a_subprotocol_is_asked_for_where_the_dialect_has_one() {
    within_patience(|| {
        for (kind, expected) in [
            (DialectKind::Mqtt, Some("mqtt")),
            (DialectKind::Stomp, Some("v12.stomp")),
            (DialectKind::Echo, None),
        ] {
            let asked = Arc::new(Mutex::new(None));
            let seen = Arc::clone(&asked);
            let peer = Peer::start(move |stream, _| {
                let seen = Arc::clone(&seen);
                async move {
                    #[allow(clippy::result_large_err, reason = "the signature is tungstenite's")]
                    let check = |request: &Request, response: Response| {
                        let header = request.headers().get("Sec-WebSocket-Protocol");
                        *seen.lock().unwrap() = Some(header.map(|name| name.to_str().unwrap().to_owned()));
                        Ok(response)
                    };
                    let _ = accept_hdr_async(stream, check).await;
                }
            });
            let workload = Workload { connect_timeout: Duration::from_secs(2), ..twenty() };
            let _ = offer(kind, DialectConfig::default(), workload, &peer);
            assert_eq!(asked.lock().unwrap().clone().unwrap().as_deref(), expected);
        }
    });
}
