//! Loads that are stopped, that cannot connect, and that are parts of one.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use floodline::client::{
    Access, ClientError, Connect, ConnectError, HighVolumeThroughputClient, LoadMeasurement, LoadProgress,
    NetStream, Observer, Stop, TcpConnect, Token, Tokens,
};
use floodline::dialect::{DialectKind, Floodline, RequestKind};
use floodline::pacer::PacerKind;
use floodline::result::LoadTestResults;
use floodline::retry::RetryPolicy;
use floodline::run::{LoadPlan, Peer as RunPeer, run_load};
use floodline::server::{KnownToken, Secret, ServerConfig};
use floodline::workload::{Offered, Shard, Workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::handshake::client::Request;

use crate::clean::server;
use crate::support::{
    Act, Peer, StopAtStart, assert_accounted, client, offer, open_loop, target, try_offer, twenty,
    within_patience,
};

/// Stops after a while; again, where that is wanted.
pub struct StopAfter {
    pub stop: Stop,
    pub elapsed: Duration,
    pub stops: usize,
}

impl Observer for StopAfter {
    fn progress(&mut self, progress: &LoadProgress) {
        if self.stops > 0 && progress.elapsed >= self.elapsed {
            self.stops -= 1;
            self.stop.stop();
        }
    }
}

#[test]
fn a_stop_ends_the_load_early_with_everything_accounted_for() {
    within_patience(|| {
        let server = server(ServerConfig::default());
        for (offered_max, pacer) in
            [(false, PacerKind::Timer), (true, PacerKind::Timer), (false, PacerKind::Spin)]
        {
            let mut workload = Workload { payload_bytes: 64, pacer, ..open_loop(1_000.0, 4, 50.0) };
            if offered_max {
                workload.offered = Offered::Max;
            }
            let stop = Stop::default();
            let mut observer =
                StopAfter { stop: stop.clone(), elapsed: Duration::from_millis(200), stops: 1 };
            let measured =
                client(workload, &target(server.address())).workers(2).run(&stop, &mut observer).unwrap();
            assert_accounted(&measured);
            assert!(measured.stopped && stop.is_stopped());
            assert!(measured.offered_for < Duration::from_secs(40), "{:?}", measured.offered_for);
            let messages = &measured.messages;
            assert_eq!((messages.unsent, messages.counts.lost), (0, 0), "{messages:?}");
            assert!(messages.counts.answered > 0);
            if !offered_max {
                // Each worker ends its share at its own instant; what came due by the last of them bounds the sum.
                assert!(messages.due as f64 <= measured.offered_for.as_secs_f64() * 1_000.0 + 4.0);
            }
        }
    });
}

#[test]
fn a_second_stop_gives_up_waiting_for_a_peer_that_never_answers() {
    within_patience(|| {
        let peer = Peer::scripted(|| Box::new(|_| Vec::new()));
        // Without the second stop this would wait for the answer time-out, far beyond the test's patience.
        let workload =
            Workload { answer_timeout: Duration::from_secs(3_600), ..open_loop(1_000.0, 4, 3_600.0) };
        let stop = Stop::default();
        let mut observer = StopAfter { stop: stop.clone(), elapsed: Duration::from_millis(200), stops: 2 };
        let measured = client(workload, &peer.target()).run(&stop, &mut observer).unwrap();
        assert_accounted(&measured);
        let counts = measured.messages.counts;
        assert!(counts.sent > 0);
        assert_eq!((counts.answered, counts.lost), (0, counts.sent));
    });
}

#[test]
fn a_stop_before_the_load_begins_means_no_load() {
    within_patience(|| {
        let server = server(ServerConfig::default());
        let begun = Instant::now();
        let in_an_hour = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3_600);
        for start_at in [None, Some(in_an_hour.as_nanos() as u64)] {
            let stop = Stop::default();
            let mut client = client(open_loop(1_000.0, 4, 3_600.0), &target(server.address())).workers(2);
            if let Some(start_at) = start_at {
                client = client.start_at_unix_ns(start_at);
            }
            let outcome = client.run(&stop, &mut StopAtStart(stop.clone()));
            assert!(matches!(outcome, Err(ClientError::Stopped)), "{outcome:?}");
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
    });
}

#[test]
fn a_stop_does_not_wait_for_handshakes() {
    within_patience(|| {
        let (sender, accepted) = mpsc::channel();
        let peer = Peer::start(move |stream, _| {
            sender.send(()).unwrap();
            async move {
                let _held = stream;
                std::future::pending::<()>().await;
            }
        });
        let stop = Stop::default();
        let stopping = stop.clone();
        let stopper = std::thread::spawn(move || {
            accepted.recv().unwrap();
            stopping.stop();
            // Kept, because the peer says it of every connection.
            accepted
        });
        let workload = Workload { connect_timeout: Duration::from_secs(3_600), ..twenty() };
        let outcome = client(workload, &peer.target()).run(&stop, &mut ());
        let _accepted = stopper.join().unwrap();
        assert!(matches!(outcome, Err(ClientError::Stopped)), "{outcome:?}");
    });
}

#[test]
fn a_ramp_up_spreads_the_handshakes() {
    within_patience(|| {
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&arrivals);
        let peer = Peer::start(move |stream, _| {
            seen.lock().unwrap().push(Instant::now());
            crate::support::converse(stream, Box::new(|asked| vec![Act::Text(asked.answer())]))
        });
        let workload = Workload { connections: 10, ramp_up: Duration::from_secs(1), ..twenty() };
        assert_eq!(offer(workload, &peer.target()).messages.counts.answered, 20);
        let arrivals = arrivals.lock().unwrap();
        let spread = *arrivals.last().unwrap() - arrivals[0];
        // The last is due 0.9 s after the first. Only a pause of half a second at the very beginning could hide it.
        assert!(spread > Duration::from_millis(450), "{spread:?}");
    });
}

/// A peer that reads the handshake's request and gives these bytes for an answer.
fn speaks(answer: &'static [u8]) -> Peer {
    Peer::start(move |mut stream, _| async move {
        let mut request = [0; 4_096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(answer).await;
    })
}

#[test]
fn why_nothing_could_be_opened_is_said() {
    within_patience(|| {
        let nobody = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            target(listener.local_addr().unwrap())
        };
        let silent = Peer::start(|stream, _| async move {
            let _held = stream;
            std::future::pending::<()>().await;
        });
        let page = speaks(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        let garbage = speaks(b"SSH-2.0-OpenSSH_9.6\r\n");
        let closing = speaks(b"");
        let wrong_key = speaks(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
        );
        let guarded = server(ServerConfig { token: Some(Secret::new("right")), ..ServerConfig::default() });
        type Check = fn(&ConnectError) -> bool;
        let rows: [(_, Check); 7] = [
            (
                nobody,
                |e| matches!(e, ConnectError::Tcp { cause, .. } if cause.kind() == std::io::ErrorKind::ConnectionRefused),
            ),
            (page.target(), |e| matches!(e, ConnectError::Refused { status: 200 })),
            (target(guarded.address()), |e| matches!(e, ConnectError::Refused { status: 401 })),
            (garbage.target(), |e| matches!(e, ConnectError::NotWebSocket { .. })),
            (closing.target(), |e| matches!(e, ConnectError::NotWebSocket { .. })),
            (wrong_key.target(), |e| matches!(e, ConnectError::NotWebSocket { .. })),
            (silent.target(), |e| matches!(e, ConnectError::TimedOut { .. })),
        ];
        for (place, (target, is_expected)) in rows.iter().enumerate() {
            let connect_timeout = Duration::from_millis(if place == 6 { 300 } else { 10_000 });
            let workload = Workload { connections: 3, connect_timeout, ..twenty() };
            match try_offer(workload, target) {
                Err(ClientError::Unreachable { failed: 3, first }) if is_expected(&first) => {}
                other => panic!("row {place}: {other:?}"),
            }
        }
    });
}

#[test]
fn a_token_opens_the_door_and_is_not_printed() {
    within_patience(|| {
        let server = server(ServerConfig { token: Some(Secret::new("right")), ..ServerConfig::default() });
        let target = target(server.address());
        let run = |token: &str| {
            let connect = TcpConnect::new(target.clone(), Some(Token::new(token))).unwrap();
            assert!(!format!("{connect:?}").contains(token));
            let dialect = Floodline::new(1, 64, RequestKind::UserMessage, None);
            HighVolumeThroughputClient::new(twenty(), connect, dialect).run(&Stop::default(), &mut ())
        };
        assert_eq!(run("right").unwrap().messages.counts.answered, 20);
        let refused = run("wrong").unwrap_err();
        assert!(
            matches!(refused, ClientError::Unreachable { first: ConnectError::Refused { status: 401 }, .. }),
            "{refused:?}"
        );
        assert!(!refused.to_string().contains("wrong"));
    });
}

#[test]
fn a_client_whose_token_has_expired_comes_back_with_the_next_one() {
    within_patience(|| {
        let soon = KnownToken::new("soon", "alice", Some(Duration::from_millis(300)));
        let tokens = vec![soon, KnownToken::new("later", "alice", None)];
        let server = server(ServerConfig { tokens, ..ServerConfig::default() });
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "soon").unwrap();
        let access = Access { tokens: Tokens::of_file(file.path()).unwrap(), ..Access::default() };
        let connect = TcpConnect::new(target(server.address()), access).unwrap();
        let retry = Some(RetryPolicy::default());
        let workload = Workload { payload_bytes: 64, retry, ..open_loop(200.0, 4, 1.5) };
        let load = std::thread::spawn(move || {
            let dialect = Floodline::new(1, 64, RequestKind::UserMessage, None);
            HighVolumeThroughputClient::new(workload, connect, dialect).run(&Stop::default(), &mut ())
        });
        // All have come in by the first token when the first message is there.
        while server.stats().message_count == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::fs::write(file.path(), "later").unwrap();
        let measured = load.join().unwrap().unwrap();
        assert_accounted(&measured);
        assert_eq!((measured.messages.due, measured.messages.counts.answered), (300, 300));
        assert_eq!((measured.connections.reconnects, measured.connections.dropped), (4, 0));
        let expired = "closed by the server: 1008 The token has expired";
        assert!(measured.outages.iter().all(|outage| outage.reason == expired), "{:?}", measured.outages);
    });
}

#[test]
fn a_load_goes_on_with_those_connections_that_were_let_in() {
    within_patience(|| {
        let server = server(ServerConfig { max_connections: 6, ..ServerConfig::default() });
        let workload = Workload { payload_bytes: 64, ..open_loop(1_000.0, 10, 0.2) };
        let measured = offer(workload, &target(server.address()));
        let (messages, connections) = (&measured.messages, &measured.connections);
        assert_eq!((connections.requested, connections.established), (10, 6), "{connections:?}");
        assert_eq!((connections.refused, connections.dropped), (4, 0));
        assert_eq!(connections.reasons.values().sum::<u64>(), 4);
        // The handshake was completed before the close, so a message may have left before the close was read.
        assert_eq!((messages.due, messages.counts.answered), (200, 120));
        assert_eq!(messages.unsent + messages.counts.lost, 80);
    });
}

/// TCP, where the first attempts fail as the system would have them fail.
#[derive(Clone)]
struct Starved {
    connect: TcpConnect,
    asked: Arc<AtomicUsize>,
    failure: fn(usize) -> Option<ConnectError>,
}

impl Connect for Starved {
    type Stream = NetStream;

    async fn open(&self) -> Result<NetStream, ConnectError> {
        match (self.failure)(self.asked.fetch_add(1, Ordering::Relaxed)) {
            Some(failure) => Err(failure),
            None => self.connect.open().await,
        }
    }

    fn request(&self, connection: u32) -> Result<Request, ConnectError> {
        self.connect.request(connection)
    }
}

fn starved(failure: fn(usize) -> Option<ConnectError>) -> Result<LoadMeasurement, ClientError> {
    let server = server(ServerConfig::default());
    let connect = TcpConnect::new(target(server.address()), None).unwrap();
    let connect = Starved { connect, asked: Arc::default(), failure };
    let workload = Workload { payload_bytes: 64, ..open_loop(1_000.0, 10, 0.2) };
    let dialect = Floodline::new(1, 64, RequestKind::default(), None);
    HighVolumeThroughputClient::new(workload, connect, dialect).run(&Stop::default(), &mut ())
}

fn no_files() -> ConnectError {
    ConnectError::NoFiles { address: "here".to_owned(), cause: io::Error::other("none left") }
}

#[test]
fn what_the_generator_could_not_open_is_told_from_what_the_target_refused() {
    within_patience(|| {
        let measured = starved(|place| match place {
            0..3 => Some(no_files()),
            3 => Some(ConnectError::NoPorts { address: "here".to_owned() }),
            4 => Some(ConnectError::Refused { status: 503 }),
            _ => None,
        });
        let measured = measured.unwrap();
        assert_accounted(&measured);
        let (messages, connections) = (&measured.messages, &measured.connections);
        assert_eq!((connections.requested, connections.established, connections.refused), (10, 5, 1));
        assert_eq!(connections.reasons.values().sum::<u64>(), 5);
        let unopened = &connections.unopened;
        assert_eq!((unopened.connections.len(), unopened.due, unopened.untimed_due), (4, 80, 0));
        let reasons: Vec<_> = unopened.reasons.iter().map(|(why, count)| (why.as_str(), *count)).collect();
        let expected = [
            ("the generator ran out of local ports", 1),
            ("the generator ran out of open files (none left)", 3),
        ];
        assert_eq!(reasons, expected);
        assert_eq!((messages.due, messages.unsent, messages.counts.answered), (200, 100, 100));
        let idle = |index: &u32| measured.per_connection[*index as usize].counts.sent == 0;
        assert!(unopened.connections.is_sorted() && unopened.connections.iter().all(idle));
    });
}

#[test]
fn a_load_of_which_the_generator_opens_nothing_is_an_error_of_its_own() {
    within_patience(|| {
        let error = starved(|_| Some(no_files())).unwrap_err();
        assert!(
            matches!(&error, ClientError::Unreachable { failed: 10, first } if first.is_ours()),
            "{error:?}"
        );
    });
}

#[test]
fn a_handshake_that_fails_leaves_its_messages_unsent() {
    within_patience(|| {
        let peer = Peer::start(|stream, place| async move {
            if place % 2 == 1 {
                return;
            }
            let script = Box::new(|asked: crate::support::Asked| vec![Act::Text(asked.answer())]);
            crate::support::converse(stream, script).await;
        });
        let measured = offer(open_loop(1_000.0, 10, 0.2), &peer.target());
        let (messages, connections) = (&measured.messages, &measured.connections);
        assert_eq!((connections.requested, connections.established, connections.refused), (10, 5, 5));
        assert_eq!((messages.due, messages.unsent), (200, 100));
        assert_eq!(messages.counts.answered, 100);
        let idle = measured.per_connection.iter().filter(|connection| connection.counts.sent == 0);
        assert!(idle.clone().all(|connection| connection.due == 20));
        assert_eq!(idle.count(), 5);
    });
}

#[test]
fn a_peer_that_is_gone_between_handshake_and_load_drops_its_connection() {
    within_patience(|| {
        let peer = Peer::start(|stream, _| async move {
            drop(accept_async(stream).await.unwrap());
        });
        let measured = offer(Workload { connections: 2, ..twenty() }, &peer.target());
        assert_eq!((measured.connections.established, measured.connections.dropped), (2, 2));
        assert_eq!((measured.messages.due, measured.messages.counts.answered), (20, 0));
        assert!(measured.connections.reasons.keys().all(|reason| reason.contains("connection lost")));
    });
}

#[test]
fn shards_at_the_same_time_add_up_to_one_load() {
    within_patience(|| {
        let server = server(ServerConfig::default());
        let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_millis(300);
        let plan = |index| LoadPlan {
            workload: Workload {
                payload_bytes: 64,
                shard: Shard { index, of: 2 },
                ..open_loop(1_000.0, 5, 1.2)
            },
            peer: RunPeer::At { target: target(server.address()), pid: None },
            dialect: DialectKind::Floodline,
            dialect_settings: Arc::default(),
            request: RequestKind::default(),
            priority: None,
            access: Access::default(),
            workers: Some(1),
            start_at_unix_ns: Some(soon.as_nanos() as u64),
            together: None,
            via: None,
            in_flight: None,
            server_pid_now: None,
            calibration: None,
        };
        let shards: Vec<_> = [0, 1]
            .map(|index| {
                let plan = plan(index);
                std::thread::spawn(move || run_load(&plan, &Stop::default(), &mut ()).unwrap())
            })
            .into_iter()
            .map(|shard| shard.join().unwrap())
            .collect();
        assert_ne!(shards[0].run_id, shards[1].run_id, "ids of two shards must not meet");
        // By way of JSON, as from two machines.
        let read: Vec<_> = shards.iter().map(through_json).collect();
        let merged = LoadTestResults::merge(read).unwrap();
        let messages = &merged.messages;
        assert_eq!((messages.due, messages.unsent, messages.counts.answered), (1_200, 0, 1_200));
        assert_eq!(messages.counts.sent, 1_200);
        assert_eq!(merged.per_connection.iter().map(|c| c.connection).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!((merged.connections.requested, merged.connections.established), (5, 5));
        for length in [
            |r: &LoadTestResults| r.histograms.latency.len(),
            |r: &LoadTestResults| r.histograms.service_latency.len(),
            |r: &LoadTestResults| r.histograms.send_lateness.len(),
        ] {
            assert_eq!(length(&merged), 1_200);
            assert_eq!(shards.iter().map(length).sum::<u64>(), 1_200);
        }
        let latency = merged.latency_us.as_ref().unwrap();
        assert_eq!((latency.count, latency.censored), (1_200, 0));
        assert_eq!(merged.windows.iter().map(|window| window.answered).sum::<u64>(), 1_200);
        assert_eq!(merged.throughput.offered_rate, Some(1_000.0));
        through_json(&merged);
    });
}

/// The result read back from its JSON, which must be the same.
fn through_json(results: &LoadTestResults) -> LoadTestResults {
    let text = serde_json::to_string(results).unwrap();
    let read: LoadTestResults = serde_json::from_str(&text).unwrap();
    assert_eq!(read, *results);
    read
}
