//! `floodline serve` as a process: what it prints, and how it ends.

use std::net::TcpStream;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use crate::process::{PATIENCE, Server};

/// A client of plain tungstenite.
struct Client(WebSocket<TcpStream>);

impl Client {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(client(&server.url, stream).unwrap().0)
    }

    fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).unwrap();
    }

    fn receive(&mut self) -> Value {
        match self.0.read().unwrap() {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("no answer but {other:?}"),
        }
    }

    fn stats(&mut self) -> Value {
        self.send(&json!({"type": "get_performance_stats"}));
        self.receive()
    }
}

#[test]
fn one_line_says_where_it_listens() {
    let server = Server::start(&[]);
    let (line, url, pid) = (server.line.clone(), server.url.clone(), server.running.pid());
    assert_eq!(line, format!("{{\"listening\":\"{url}\",\"pid\":{pid}}}\n"));
    assert!(url.starts_with("ws://127.0.0.1:") && url.ends_with("/ws"), "{url}");
    // Signals right behind the line are no surprise to it.
    server.running.signal(Signal::SIGTERM);
    let finished = server.running.wait().expect(0);
    assert_eq!((finished.stdout, &*finished.stderr), (line, ""));
}

#[test]
fn signals_end_it_once_it_has_answered_what_it_admitted() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let server = Server::start(&["--processing-delay", "400ms"]);
        let mut client = Client::connect(&server);
        for n in 0..20 {
            client.send(&json!({"type": "throughput_test", "message_id": format!("c-{n}"), "sequence_id": n,
                "content": "x", "client_id": "c", "send_time": 1.0}));
        }
        // Figures are told at once, outside the order of the answers, and in the order of the requests.
        let stats = client.stats();
        assert_eq!((&stats["type"], &stats["admitted"]), (&json!("performance_stats"), &json!(20)));
        server.running.signal(signal);
        for n in 0..20 {
            let answer = client.receive();
            assert_eq!((&answer["type"], &answer["sequence_id"]), (&json!("throughput_response"), &json!(n)));
        }
        match client.0.read().unwrap() {
            Message::Close(Some(close)) => assert_eq!(u16::from(close.code), 1_001),
            other => panic!("{other:?}"),
        }
        // The server waits a while for its peers to close after it.
        drop(client);
        let finished = server.running.wait().expect(0);
        assert_eq!(finished.stderr, "");
    }
}

#[test]
fn a_server_that_belongs_to_another_ends_with_its_input_and_not_by_ctrl_c() {
    let mut server = Server::start(&["--until-stdin-closes"]);
    let mut client = Client::connect(&server);
    for _ in 0..3 {
        server.running.signal(Signal::SIGINT);
        assert_eq!(client.stats()["type"], "performance_stats");
    }
    drop(client);
    assert!(!server.running.has_ended());
    server.running.close_stdin();
    server.running.wait().expect(0);
}
