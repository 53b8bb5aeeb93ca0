//! The mock server, seen by an independent client: plain tokio-tungstenite, and JSON by serde_json.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "server/faults.rs"]
mod faults;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use floodline::server::{
    HighVolumeWebSocketServer, MemoryProbe, ProcessedIds, RecordError, Recorded, Recording, Secret,
    ServerConfig, ServerFault, ServerHandle,
};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Long enough for a machine under load; a test that needs it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client that fails the test where an answer does not come.
struct Client(WebSocketStream<TcpStream>);

impl Client {
    async fn connect(server: &ServerHandle) -> Self {
        let stream = TcpStream::connect(server.address()).await.unwrap();
        Self(tokio_tungstenite::client_async(server.url(), stream).await.unwrap().0)
    }

    async fn send(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    /// Sends all in one write, so that the server has them at once.
    async fn send_together(&mut self, messages: impl IntoIterator<Item = Value>) {
        for message in messages {
            self.0.feed(Message::text(message.to_string())).await.unwrap();
        }
        self.0.flush().await.unwrap();
    }

    async fn frame(&mut self) -> Option<Message> {
        tokio::time::timeout(PATIENCE, self.0.next()).await.unwrap().map(Result::unwrap)
    }

    async fn receive(&mut self) -> Value {
        match self.frame().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("no answer but {other:?}"),
        }
    }

    async fn ask(&mut self, message: Value) -> Value {
        self.send(message).await;
        self.receive().await
    }

    /// The code with which the server closes, after whatever else it sends.
    async fn close_code(&mut self) -> u16 {
        loop {
            match self.frame().await {
                Some(Message::Close(Some(close))) => return close.code.into(),
                Some(_) => {}
                None => panic!("closed without a code"),
            }
        }
    }
}

fn spawn(config: ServerConfig) -> ServerHandle {
    HighVolumeWebSocketServer::spawn(config).unwrap()
}

/// Waits for what the server does on its own time.
async fn wait_while(condition: impl Fn() -> bool) {
    let waiting = async {
        while condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

fn test_message(n: u64, priority: Option<&str>) -> Value {
    json!({"type": "throughput_test", "message_id": format!("c-{n}"), "sequence_id": n, "content": "hello",
        "client_id": "c", "send_time": 1_700_000_000.25, "priority": priority})
}

fn user_message(n: u64) -> Value {
    json!({"type": "user_message", "message_id": format!("u-{n}"), "sequence_id": n, "content": "hé\"llo"})
}

fn delayed(delay: Duration, concurrency: usize, queue_capacity: usize) -> ServerConfig {
    ServerConfig {
        processing_delay: delay,
        concurrency: Some(concurrency),
        queue_capacity,
        ..ServerConfig::default()
    }
}

#[tokio::test]
async fn every_request_of_the_wire_has_its_answer() {
    let server = spawn(ServerConfig::default());
    let mut client = Client::connect(&server).await;

    let answer = client.ask(test_message(7, None)).await;
    assert_eq!(answer["type"], "throughput_response");
    assert_eq!((&answer["message_id"], &answer["sequence_id"]), (&json!("c-7"), &json!(7)));
    assert_eq!(answer["queue_depth"], 0);
    // CRC-32 (IEEE) of "hello", by another implementation.
    assert_eq!(answer["content_crc32"], 0x3610_a686);
    assert!(answer["server_time"].as_f64().unwrap() > 1.7e9);

    let answer = client
        .ask(json!({"type": "latency_probe", "message_id": "p", "send_time": 1_700_000_000.123456}))
        .await;
    assert_eq!((&answer["type"], &answer["message_id"]), (&json!("latency_response"), &json!("p")));
    assert_eq!(answer["client_send_time"], 1_700_000_000.123456);
    assert!(answer["server_send_time"].as_f64() >= answer["server_receive_time"].as_f64());
    assert_eq!(answer["queue_depth"], 0);

    let answer = client.ask(user_message(1)).await;
    assert_eq!((&answer["type"], &answer["message_id"]), (&json!("ai_response"), &json!("u-1")));
    assert_eq!((&answer["sequence_id"], &answer["content"]), (&json!(1), &json!("hé\"llo")));
    assert_eq!((&answer["processing_time"], &answer["queue_depth"]), (&json!(0), &json!(0)));
    assert!(answer["server_timestamp"].is_f64() && answer["timestamp"].is_f64());

    let again = client.ask(user_message(1)).await;
    assert_eq!((&again["type"], &again["message_id"]), (&json!("duplicate_rejected"), &json!("u-1")));
    assert_eq!(again["original_timestamp"], answer["server_timestamp"]);
    assert!(again["timestamp"].as_f64() >= again["original_timestamp"].as_f64());

    let odd = json!({"type": "hello", "message_id": "x", "deep": {"a": [1, "é", null]}});
    let answer = client.ask(odd.clone()).await;
    assert_eq!((&answer["type"], &answer["message_id"]), (&json!("generic_response"), &json!("x")));
    assert_eq!(answer["echo"], odd);
    assert_eq!(client.ask(json!([1, 2])).await["echo"], json!([1, 2]));

    let stats = client.ask(json!({"type": "get_performance_stats"})).await;
    assert_eq!(stats["type"], "performance_stats");
    for (field, count) in [
        ("message_count", 7),
        ("connection_count", 1),
        ("queue_depth", 0),
        ("error_count", 0),
        ("received", 4),
        ("admitted", 3),
        ("processed", 3),
        ("refused", 0),
        ("answered", 4),
    ] {
        assert_eq!(stats[field], count, "{field}");
    }
    for field in ["uptime", "messages_per_second", "timestamp"] {
        assert!(stats[field].as_f64().unwrap() > 0.0, "{field}");
    }
    for field in ["memory_usage_mb", "memory_growth_mb", "live_bytes", "resident_bytes"] {
        assert_eq!(stats.get(field), Some(&Value::Null), "{field}: nobody told the server where to look");
    }
    assert_eq!(client.ask(json!({"type": "purge"})).await["message_count"], 8);
    drop(client);
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_memory_comes_from_where_the_server_was_told_to_look() {
    static PURGES: AtomicU64 = AtomicU64::new(0);
    let memory = MemoryProbe {
        live_bytes: || Some(7),
        resident_bytes: || Some(50_000_000 - 10_000_000 * PURGES.load(Ordering::Relaxed)),
        purge: || {
            PURGES.fetch_add(1, Ordering::Relaxed);
        },
    };
    let server = spawn(ServerConfig { memory: Some(memory), ..ServerConfig::default() });
    let mut client = Client::connect(&server).await;
    for (request, resident_bytes, growth_mb) in
        [("get_performance_stats", 50_000_000, 0.0), ("purge", 40_000_000, -10.0)]
    {
        let stats = client.ask(json!({"type": request})).await;
        assert_eq!((&stats["live_bytes"], &stats["resident_bytes"]), (&json!(7), &json!(resident_bytes)));
        assert_eq!(stats["memory_growth_mb"].as_f64(), Some(growth_mb));
        assert_eq!(stats["memory_usage_mb"].as_f64(), Some(f64::from(resident_bytes) / 1e6));
    }
}

/// Remembers nothing, takes a while, and fails for one id.
#[derive(Debug)]
struct SlowStore;

impl ProcessedIds for SlowStore {
    fn lookup(&self, _: &str) -> Option<u64> {
        None
    }

    fn record(&self, id: &str, _: u64) -> Recording {
        let result = if id == "u-1" { Err(RecordError::Closed) } else { Ok(Recorded::First) };
        Recording::Pending(Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            result
        }))
    }

    fn is_durable(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn an_answer_waits_until_its_message_is_recorded() {
    let server = spawn(ServerConfig { store: Some(Arc::new(SlowStore)), ..ServerConfig::default() });
    let mut client = Client::connect(&server).await;
    client.send_together([user_message(0), test_message(5, None), user_message(1), user_message(2)]).await;
    let first = client.receive().await;
    assert_eq!((&first["type"], &first["message_id"]), (&json!("ai_response"), &json!("u-0")));
    assert_eq!(client.receive().await["message_id"], "c-5", "in order, although it needs no record");
    let failed = client.receive().await;
    assert_eq!(
        (&failed["type"], &failed["message"]),
        (&json!("error"), &json!("The message could not be recorded"))
    );
    assert_eq!(client.receive().await["message_id"], "u-2");
    let stats = server.stats();
    assert_eq!((stats.admitted, stats.processed, stats.answered), (Some(4), Some(3), Some(3)));
}

#[tokio::test]
async fn an_id_too_long_to_be_remembered_is_told_so() {
    for store in [None, Some(Arc::new(SlowStore) as Arc<dyn ProcessedIds>)] {
        let server = spawn(ServerConfig { store, ..ServerConfig::default() });
        let mut client = Client::connect(&server).await;
        let message = |bytes| json!({"type": "user_message", "message_id": "x".repeat(bytes)});
        assert_eq!(client.ask(message(256)).await["type"], "ai_response");
        let answer = client.ask(message(257)).await;
        assert_eq!(answer["type"], "error");
        let text = answer["message"].as_str().unwrap();
        assert!(["`message_id`", "257", "256"].iter().all(|part| text.contains(part)), "{text}");
        let stats = server.stats();
        assert_eq!((stats.received, stats.error_count), (Some(1), 1));
    }
}

#[tokio::test]
async fn what_cannot_be_read_gets_an_error_and_the_connection_lives_on() {
    let server = spawn(ServerConfig::default());
    let mut client = Client::connect(&server).await;
    for frame in [Message::text("not json"), Message::text("{\"type\":"), Message::binary(&b"{}"[..])] {
        client.0.send(frame).await.unwrap();
        let answer = client.receive().await;
        assert_eq!((&answer["type"], &answer["message"]), (&json!("error"), &json!("Invalid JSON format")));
    }
    let answer = client.ask(json!({"type": "throughput_test", "message_id": 7})).await;
    assert_eq!(answer["type"], "error");
    assert!(answer["message"].as_str().unwrap().starts_with("field `"), "{answer}");
    assert_eq!(client.ask(test_message(0, None)).await["type"], "throughput_response");
    assert_eq!(server.stats().error_count, 4);
}

#[tokio::test]
async fn pings_and_a_close_are_answered() {
    let server = spawn(ServerConfig::default());
    let mut client = Client::connect(&server).await;
    client.0.send(Message::Ping("are you there".into())).await.unwrap();
    assert_eq!(client.frame().await, Some(Message::Pong("are you there".into())));
    client.0.close(None).await.unwrap();
    assert!(matches!(client.frame().await, Some(Message::Close(_))));
    assert_eq!(client.frame().await, None);
}

#[tokio::test]
async fn each_violation_closes_with_its_code() {
    let server = spawn(ServerConfig { max_message_bytes: 1_000, ..ServerConfig::default() });
    let mut client = Client::connect(&server).await;
    client.send(test_message(0, None)).await;
    client.0.send(Message::text("x".repeat(5_000_000))).await.ok();
    assert_eq!(client.receive().await["type"], "throughput_response", "what came before is answered");
    assert_eq!(client.close_code().await, 1009);
    for (frame, code) in [
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff][..], 1007),
        (&[0x81, 0x01, b'x'][..], 1002),
        (&[0xf1, 0x80, 0, 0, 0, 0][..], 1002),
    ] {
        let mut client = Client::connect(&server).await;
        client.0.get_mut().write_all(frame).await.unwrap();
        assert_eq!(client.close_code().await, code);
    }
    let mut other = Client::connect(&server).await;
    assert_eq!(other.ask(test_message(0, None)).await["type"], "throughput_response");
}

#[tokio::test]
async fn only_the_token_opens() {
    let token = Some(Secret::new("s3cret"));
    let server = spawn(ServerConfig { token, ..ServerConfig::default() });
    for (header, status) in
        [(None, 401), (Some("Bearer wrong"), 401), (Some("Basic s3cret"), 401), (Some("Bearer s3cret"), 101)]
    {
        let mut request = server.url().into_client_request().unwrap();
        if let Some(header) = header {
            request.headers_mut().insert("Authorization", header.parse().unwrap());
        }
        let stream = TcpStream::connect(server.address()).await.unwrap();
        let answered = match tokio_tungstenite::client_async(request, stream).await {
            Ok((_, response)) => response.status(),
            Err(Error::Http(response)) => response.status(),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(answered, status, "{header:?}");
    }
}

#[tokio::test]
async fn one_connection_too_many_is_told_to_try_later() {
    let server = spawn(ServerConfig { max_connections: 2, ..ServerConfig::default() });
    let (mut first, mut second) = (Client::connect(&server).await, Client::connect(&server).await);
    for client in [&mut first, &mut second] {
        client.ask(test_message(0, None)).await;
    }
    assert_eq!(Client::connect(&server).await.close_code().await, 1013);
    first.0.close(None).await.unwrap();
    while first.frame().await.is_some() {}
    // The place is free when the server has seen the end.
    wait_while(|| server.stats().connection_count > 1).await;
    assert_eq!(
        Client::connect(&server).await.ask(test_message(0, None)).await["type"],
        "throughput_response"
    );
}

#[tokio::test]
async fn who_goes_without_a_word_frees_the_place() {
    let server = spawn(ServerConfig::default());
    let mut cut = Client::connect(&server).await;
    let mut half_closed = Client::connect(&server).await;
    for client in [&mut cut, &mut half_closed] {
        client.ask(test_message(0, None)).await;
    }
    // In the middle of a frame.
    cut.0.get_mut().write_all(&[0x81, 0xfe, 0xff]).await.unwrap();
    drop(cut);
    half_closed.0.get_mut().shutdown().await.unwrap();
    wait_while(|| server.stats().connection_count > 0).await;
}

#[tokio::test]
async fn who_does_not_shake_hands_is_dropped_and_disturbs_nobody() {
    let handshake_timeout = Duration::from_millis(50);
    let server = spawn(ServerConfig { handshake_timeout, ..ServerConfig::default() });
    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    let mut rude = TcpStream::connect(server.address()).await.unwrap();
    rude.write_all(b"SSH-2.0-OpenSSH\r\n\r\n").await.unwrap();
    let mut client = Client::connect(&server).await;
    assert_eq!(client.ask(test_message(0, None)).await["type"], "throughput_response");
    for stream in [&mut silent, &mut rude] {
        let mut rest = Vec::new();
        // Whether it ends or is reset does not matter.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
    }
}

#[tokio::test]
async fn answers_keep_the_order_of_a_connection() {
    for config in [ServerConfig::default(), delayed(Duration::from_millis(1), 7, 10_000)] {
        let server = spawn(config);
        let client = Client::connect(&server).await;
        let (mut sink, mut stream) = client.0.split();
        let sending = async {
            for n in 0..5_000 {
                sink.feed(Message::text(test_message(n, None).to_string())).await.unwrap();
            }
            sink.flush().await.unwrap();
        };
        let receiving = async {
            for n in 0..5_000_u64 {
                let frame = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
                let answer: Value = serde_json::from_str(frame.to_text().unwrap()).unwrap();
                assert_eq!(answer["sequence_id"], n);
            }
        };
        tokio::join!(sending, receiving);
        let stats = server.stats();
        assert_eq!(
            (stats.received, stats.processed, stats.answered),
            (Some(5_000), Some(5_000), Some(5_000))
        );
    }
}

#[tokio::test]
async fn high_priority_overtakes() {
    let server = spawn(delayed(Duration::from_millis(50), 1, 100));
    let mut client = Client::connect(&server).await;
    client.send_together((0..6).map(|n| test_message(n, (n >= 4).then_some("high")))).await;
    let mut order = Vec::new();
    for _ in 0..6 {
        order.push(client.receive().await["sequence_id"].as_u64().unwrap());
    }
    // The first was in work before the others came.
    assert_eq!(order, [0, 4, 5, 1, 2, 3]);
}

#[tokio::test]
async fn the_overflow_is_told_exactly() {
    // Nothing is ever completed: 1 in work, 20 waiting, a reserve of 2.
    let server = spawn(delayed(Duration::from_secs(3_600), 1, 20));
    let mut client = Client::connect(&server).await;
    for n in 0..30 {
        client.send(test_message(n, None)).await;
    }
    let mut refused = Vec::new();
    let first = client.receive().await;
    assert_eq!(
        (&first["type"], &first["message_id"], &first["sequence_id"]),
        (&json!("queue_full"), &json!("c-21"), &json!(21))
    );
    assert_eq!((&first["queue_depth"], &first["max_queue"]), (&json!(20), &json!(20)));
    let signal = client.receive().await;
    assert_eq!(signal["type"], "backpressure");
    assert_eq!((&signal["queue_depth"], &signal["max_queue"]), (&json!(20), &json!(20)));
    assert!(signal["message"].is_string() && signal["timestamp"].is_f64());
    for _ in 22..30 {
        let answer = client.receive().await;
        assert_eq!(answer["type"], "queue_full", "one signal an episode");
        refused.push(answer["sequence_id"].as_u64().unwrap());
    }
    assert_eq!(refused, (22..30).collect::<Vec<_>>());
    // The reserve, and no more.
    for n in 30..33 {
        client.send(test_message(n, Some("high"))).await;
    }
    assert_eq!(client.receive().await["sequence_id"], 32);
    let stats = server.stats();
    assert_eq!((stats.received, stats.admitted, stats.refused), (Some(33), Some(23), Some(10)));
    assert_eq!((stats.queue_depth, stats.processed), (22, Some(0)));

    // An episode of another connection has a signal of its own.
    let mut other = Client::connect(&server).await;
    assert_eq!(other.ask(test_message(0, None)).await["type"], "queue_full");
    assert_eq!(other.receive().await["type"], "backpressure");
}

#[tokio::test]
async fn an_episode_ends_with_the_next_admission() {
    let server = spawn(delayed(Duration::from_millis(100), 1, 1));
    let mut client = Client::connect(&server).await;
    for episode in 0..2 {
        client.send_together((0..3).map(|n| test_message(3 * episode + n, None))).await;
        let mut kinds = Vec::new();
        for _ in 0..4 {
            kinds.push(client.receive().await["type"].as_str().unwrap().to_owned());
        }
        kinds.sort();
        assert_eq!(kinds, ["backpressure", "queue_full", "throughput_response", "throughput_response"]);
    }
}

#[tokio::test]
async fn a_resend_of_what_is_in_work_is_answered_once_to_the_latest_sender() {
    // Long enough that the second client is heard while the first message is in work.
    let server = spawn(delayed(Duration::from_secs(1), 1, 10));
    let (mut first, mut second) = (Client::connect(&server).await, Client::connect(&server).await);
    // Number 1 is in work, number 2 waits.
    first.send(user_message(1)).await;
    first.send(user_message(2)).await;
    first.send(user_message(2)).await;
    wait_while(|| server.stats().received < Some(3)).await;
    second.send(user_message(1)).await;
    for (client, id) in [(&mut second, "u-1"), (&mut first, "u-2")] {
        let answer = client.receive().await;
        assert_eq!((&answer["type"], &answer["message_id"]), (&json!("ai_response"), &json!(id)));
        assert_eq!(answer["processing_time"], 1);
    }
    for client in [&mut first, &mut second] {
        let answer = client.ask(user_message(1)).await;
        assert_eq!(answer["type"], "duplicate_rejected", "and nothing else in between");
    }
    let stats = server.stats();
    assert_eq!((stats.received, stats.admitted, stats.processed), (Some(6), Some(2), Some(2)));
    assert_eq!(stats.answered, Some(4));
}

#[tokio::test]
async fn a_message_is_processed_once_whichever_worker_reads_it() {
    let server = spawn(ServerConfig { workers: 3, ..ServerConfig::default() });
    let clients = (0..6).map(|_| async {
        let mut client = Client::connect(&server).await;
        let mut processed = 0;
        for n in 0..200 {
            processed += u32::from(client.ask(user_message(n)).await["type"] == "ai_response");
        }
        processed
    });
    assert_eq!(futures::future::join_all(clients).await.iter().sum::<u32>(), 200);
    assert_eq!(server.stats().processed, Some(200));
}

#[tokio::test]
async fn a_shutdown_answers_all_that_was_admitted() {
    let server = spawn(ServerConfig { workers: 2, ..delayed(Duration::from_millis(5), 2, 1_000) });
    let mut clients = [Client::connect(&server).await, Client::connect(&server).await];
    for n in 0..100 {
        for client in &mut clients {
            client.send(test_message(n, None)).await;
        }
    }
    wait_while(|| server.stats().admitted < Some(200)).await;
    let address = server.address();
    let ending = tokio::spawn(server.shutdown());
    for client in &mut clients {
        for n in 0..100 {
            assert_eq!(client.receive().await["sequence_id"], n);
        }
        assert_eq!(client.close_code().await, 1001);
        while client.frame().await.is_some() {}
    }
    let summary = ending.await.unwrap().unwrap();
    assert_eq!((summary.stats.answered, summary.cut_off), (Some(200), 0));
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_grace_bounds_a_shutdown() {
    let config = delayed(Duration::from_secs(3_600), 1, 10);
    let server = spawn(ServerConfig { shutdown_grace: Duration::from_millis(50), ..config });
    let mut client = Client::connect(&server).await;
    client.send(test_message(0, None)).await;
    wait_while(|| server.stats().admitted < Some(1)).await;
    assert_eq!(server.shutdown().await.unwrap().cut_off, 1);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_from() {
    let server = spawn(ServerConfig::default());
    let mut deaf = Client::connect(&server).await;
    let echo = Message::text(json!({"type": "other", "content": "x".repeat(100_000)}).to_string());
    // More than the buffers of two sockets hold: the server stops reading, so at some point nothing more is taken.
    let mut sent = 0_u64;
    while let Ok(result) = tokio::time::timeout(Duration::from_millis(500), deaf.0.send(echo.clone())).await {
        result.unwrap();
        sent += 1;
        assert!(sent < 2_000, "200 MB taken from a client that reads nothing");
    }
    let mut other = Client::connect(&server).await;
    assert_eq!(other.ask(test_message(0, None)).await["type"], "throughput_response");
    for _ in 0..sent {
        assert_eq!(deaf.receive().await["type"], "generic_response");
    }
}

#[tokio::test]
async fn a_thousand_connections_come_at_once() {
    #[cfg(unix)]
    {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(8_192), hard).unwrap();
    }
    let server = spawn(ServerConfig::default());
    let clients = (0..1_000).map(|n| {
        let server = &server;
        async move {
            let mut client = Client::connect(server).await;
            assert_eq!(client.ask(test_message(n, None)).await["sequence_id"], n);
            client
        }
    });
    let clients = futures::future::join_all(clients).await;
    let stats = server.stats();
    assert_eq!((stats.connection_count, stats.answered), (1_000, Some(1_000)));
    drop(clients);
}

#[tokio::test]
async fn dropped_answers_are_processed_and_chosen_by_the_seed() {
    let mut runs = Vec::new();
    for seed in [1, 1, 2] {
        let faults = vec![ServerFault::DropAnswers { share: 0.2, seed }];
        let server = spawn(ServerConfig { faults, ..ServerConfig::default() });
        let mut client = Client::connect(&server).await;
        for n in 0..500 {
            client.send(test_message(n, None)).await;
        }
        client.send(json!({"type": "last"})).await;
        let mut answered = BTreeSet::new();
        while let Some(n) = client.receive().await["sequence_id"].as_u64() {
            answered.insert(n);
        }
        let stats = server.stats();
        assert_eq!((stats.processed, stats.answered), (Some(500), Some(answered.len() as u64)));
        assert!(answered.len() < 500);
        runs.push(answered);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn a_stall_holds_the_whole_server_once() {
    let duration = Duration::from_millis(400);
    let faults = vec![ServerFault::StallOnce { at: Duration::ZERO, duration }];
    let server = spawn(ServerConfig { workers: 2, faults, ..ServerConfig::default() });
    let (mut first, mut second) = (Client::connect(&server).await, Client::connect(&server).await);
    let mut longest = [Duration::ZERO; 2];
    let started = std::time::Instant::now();
    let mut n = 0;
    // The stall begins within a timer's tick of the first message; half a second later it is over.
    while started.elapsed() < duration + Duration::from_millis(500) {
        for (client, longest) in [&mut first, &mut second].into_iter().zip(&mut longest) {
            let asked = std::time::Instant::now();
            assert_eq!(client.ask(test_message(n, None)).await["sequence_id"], n);
            *longest = asked.elapsed().max(*longest);
        }
        n += 1;
    }
    // One of the two waits nearly all of it; the other is then past its own.
    assert!(longest[0].max(longest[1]) >= duration * 3 / 4, "{longest:?}");
    assert_eq!(server.stats().answered, Some(2 * n));
}

#[tokio::test]
async fn the_caller_may_own_the_socket_and_the_stop_signal() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(HighVolumeWebSocketServer::run(listener, ServerConfig::default(), async {
        stopped.await.ok();
    }));
    let stream = TcpStream::connect(address).await.unwrap();
    let mut client =
        Client(tokio_tungstenite::client_async(format!("ws://{address}/any"), stream).await.unwrap().0);
    assert_eq!(client.ask(test_message(3, None)).await["sequence_id"], 3);
    stop.send(()).unwrap();
    assert_eq!(client.close_code().await, 1001);
    while client.frame().await.is_some() {}
    assert_eq!(running.await.unwrap().unwrap().stats.processed, Some(1));
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_by_name() {
    let error =
        HighVolumeWebSocketServer::spawn(ServerConfig { workers: 0, ..ServerConfig::default() }).unwrap_err();
    assert_eq!(error.to_string(), "`workers` is 0, but must be 1 to 1024");
    let taken = spawn(ServerConfig::default());
    let config = ServerConfig { listen: taken.address(), ..ServerConfig::default() };
    let error = HighVolumeWebSocketServer::spawn(config).unwrap_err();
    assert!(error.to_string().contains(&taken.address().to_string()), "{error}");
}
