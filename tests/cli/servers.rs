//! Servers of other people's, in this process: good, bad and silent ones.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::{Message, accept, accept_hdr};

use crate::process::wait_until;

/// A listener that treats each connection alike, on threads that end with the test.
pub struct TestServer {
    pub url: String,
    connections: Arc<AtomicU64>,
    messages: Arc<AtomicU64>,
}

impl TestServer {
    fn start(serve: impl Fn(TcpStream, &AtomicU64) + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let (connections, messages) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let server = Self { url, connections: Arc::clone(&connections), messages: Arc::clone(&messages) };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                connections.fetch_add(1, Ordering::SeqCst);
                let (serve, messages) = (serve.clone(), Arc::clone(&messages));
                std::thread::spawn(move || serve(stream, &messages));
            }
        });
        server
    }

    /// Sends each message back.
    pub fn echo() -> Self {
        Self::start(|stream, messages| serve_websocket(stream, messages, true))
    }

    /// Sends each message back; of requests for its statistics it answers so many on a connection, then it closes it.
    pub fn echo_with_statistics(times: usize) -> Self {
        Self::start(move |stream, messages| {
            stream.set_nodelay(true).unwrap();
            let Ok(mut socket) = accept(stream) else { return };
            let mut left = times;
            while let Ok(message) = socket.read() {
                let asked = matches!(message.to_text(), Ok(text)
                    if text.contains("get_performance_stats") || text.contains(r#""purge""#));
                let answer = match message {
                    Message::Text(_) if asked && left == 0 => return,
                    Message::Text(_) if asked => {
                        left -= 1;
                        Message::text(statistics(messages.load(Ordering::SeqCst)))
                    }
                    Message::Text(_) | Message::Binary(_) => {
                        messages.fetch_add(1, Ordering::SeqCst);
                        message
                    }
                    _ => continue,
                };
                if socket.send(answer).is_err() {
                    return;
                }
            }
        })
    }

    /// Sends each message back, and behind it the first one of its connection again.
    pub fn remembers() -> Self {
        Self::start(|stream, _| {
            stream.set_nodelay(true).unwrap();
            let Ok(mut socket) = accept(stream) else { return };
            let mut first = None;
            while let Ok(message) = socket.read() {
                if !matches!(message, Message::Text(_)) {
                    continue;
                }
                let again = first.clone();
                first.get_or_insert_with(|| message.clone());
                if [Some(message), again].into_iter().flatten().any(|message| socket.send(message).is_err()) {
                    return;
                }
            }
        })
    }

    /// Completes the handshake, reads, and never answers.
    pub fn silent() -> Self {
        Self::start(|stream, messages| serve_websocket(stream, messages, false))
    }

    /// Answers as a web server does.
    pub fn http() -> Self {
        Self::start(|mut stream, _| {
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        })
    }

    /// Closes as soon as somebody connects.
    pub fn closes() -> Self {
        Self::start(|stream, _| drop(stream))
    }

    /// Accepts and says nothing, ever.
    pub fn mute() -> Self {
        Self::start(|mut stream, _| {
            let mut buffer = [0; 4_096];
            while stream.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
        })
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until so many messages have come in over all connections.
    pub fn await_messages(&self, count: u64) {
        wait_until("messages", || (self.messages.load(Ordering::SeqCst) >= count).then_some(()));
    }

    /// Waits until so many connections have come in.
    pub fn await_connections(&self, count: u64) {
        wait_until("connections", || (self.connections() >= count).then_some(()));
    }
}

/// The statistics of a server that has processed so many messages and uses the same memory all the time.
fn statistics(processed: u64) -> String {
    json!({"type": "performance_stats", "uptime": 1.0, "message_count": processed, "connection_count": 5,
        "queue_depth": 0, "error_count": 0, "memory_usage_mb": 10.0, "memory_growth_mb": 0.0,
        "messages_per_second": 1.0, "timestamp": 1.5, "received": processed, "admitted": processed,
        "processed": processed, "refused": 0, "answered": processed, "live_bytes": 1_000_000,
        "resident_bytes": 10_000_000})
    .to_string()
}

fn serve_websocket(stream: TcpStream, messages: &AtomicU64, answer: bool) {
    stream.set_nodelay(true).unwrap();
    // Whatever subprotocol the client asks for, it is agreed to.
    #[allow(clippy::result_large_err, reason = "the signature is tungstenite's")]
    let agree = |request: &Request, mut response: Response| {
        let asked = request.headers().get(SEC_WEBSOCKET_PROTOCOL).cloned();
        response.headers_mut().extend(asked.map(|asked| (SEC_WEBSOCKET_PROTOCOL, asked)));
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr(stream, agree) else { return };
    while let Ok(message) = socket.read() {
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            messages.fetch_add(1, Ordering::SeqCst);
            if answer && socket.send(message).is_err() {
                return;
            }
        }
    }
}
