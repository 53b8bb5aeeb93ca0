//! The fault proxy between a client and a server that the test both holds: what arrives, what does not, and
//! what is recorded.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking; so do their helpers")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use floodline::fault::Rule;
use floodline::proxy::{Action, FaultProxy, Injection, ProxyError, ProxyHandle, RuleGuard};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running proxy, and the listener that it carries connections to.
struct Setup {
    server: TcpListener,
    address: SocketAddr,
    proxy: ProxyHandle,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Setup {
    async fn start() -> Self {
        let server = TcpListener::bind(loopback()).await.unwrap();
        let proxy = FaultProxy::bind(loopback(), server.local_addr().unwrap()).await.unwrap();
        let (address, handle) = (proxy.local_addr(), proxy.handle());
        let (stop, stopped) = oneshot::channel();
        Self { server, address, proxy: handle, stop, running: tokio::spawn(proxy.run(stopped)) }
    }

    /// Both ends of a new connection through the proxy.
    async fn pair(&self) -> (TcpStream, TcpStream) {
        let client = soon(TcpStream::connect(self.address)).await.unwrap();
        let (server, _) = soon(self.server.accept()).await.unwrap();
        (client, server)
    }

    fn inject(&self, rule: &str) -> RuleGuard {
        self.proxy.inject(rule.parse().unwrap())
    }

    /// Injects, and waits until so many connections are held by it.
    async fn hold(&self, rule: &str, connections: usize) -> RuleGuard {
        let guard = self.inject(rule);
        let id = guard.id();
        self.recorded(connections, |event| event.rule_id == id).await;
        guard
    }

    async fn recorded(&self, count: usize, which: impl Fn(&Injection) -> bool) {
        soon(self.proxy.until(|events| events.iter().filter(|event| which(event)).count() >= count)).await;
    }

    /// What was recorded: connection, action, bytes.
    fn record(&self) -> Vec<(u64, Action, u64)> {
        self.proxy.events().iter().map(|event| (event.connection, event.action, event.bytes)).collect()
    }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A bound that only a hang reaches.
async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("hangs")
}

async fn send(stream: &mut TcpStream, bytes: &[u8]) {
    soon(stream.write_all(bytes)).await.unwrap();
}

async fn receive(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    soon(stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    soon(stream.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

/// That nothing arrives can't be waited for: long enough for the proxy to do wrong, were it to. A machine too
/// slow for that makes the check weaker, never fail.
async fn nothing_arrives(stream: &TcpStream) {
    let readable = tokio::time::timeout(Duration::from_millis(50), stream.peek(&mut [0])).await;
    assert!(readable.is_err(), "{readable:?} arrived");
}

async fn is_reset(stream: &mut TcpStream) {
    let error = soon(stream.read(&mut [0; 64])).await.expect_err("no reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[tokio::test]
async fn without_faults_bytes_and_ends_pass_both_ways() {
    let setup = Setup::start().await;
    let (mut client, mut server) = setup.pair().await;
    let sent = pattern(3 << 20);
    let (back, forth) = (sent.clone(), sent.clone());
    let serving = tokio::spawn(async move {
        assert_eq!(rest(&mut server).await, forth);
        send(&mut server, &back).await;
    });
    send(&mut client, &sent).await;
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, sent, "the half that the server keeps open still carries");
    soon(serving).await.unwrap();
    assert_eq!(setup.record(), []);
    assert_eq!((setup.proxy.accepted(), setup.proxy.upstream_failures()), (1, 0));
}

#[tokio::test]
async fn a_reset_passes_both_ways() {
    let setup = Setup::start().await;
    let (client, mut server) = setup.pair().await;
    client.set_zero_linger().unwrap();
    drop(client);
    is_reset(&mut server).await;
    let (mut client, server) = setup.pair().await;
    server.set_zero_linger().unwrap();
    drop(server);
    is_reset(&mut client).await;
}

#[tokio::test]
async fn latency_delays_each_way_and_keeps_the_order() {
    let setup = Setup::start().await;
    let (mut client, mut server) = setup.pair().await;
    let guard = setup.hold("latency=30ms", 1).await;
    let start = Instant::now();
    send(&mut client, b"ping").await;
    assert_eq!(receive(&mut server, 4).await, b"ping");
    send(&mut server, b"pong!").await;
    assert_eq!(receive(&mut client, 5).await, b"pong!");
    assert!(start.elapsed() >= Duration::from_millis(60), "{:?}", start.elapsed());
    drop(guard);
    setup.recorded(2, |_| true).await;
    assert_eq!(setup.record(), [(0, Action::Began, 0), (0, Action::Ended, 9)]);

    let _guard = setup.hold("latency=5ms,jitter=5ms,direction=to-server", 1).await;
    let sent = pattern(4_000);
    for piece in sent.chunks(40) {
        send(&mut client, piece).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(receive(&mut server, sent.len()).await, sent);
}

#[tokio::test]
async fn delayed_bytes_leave_at_once_when_the_latency_is_undone() {
    let setup = Setup::start().await;
    let (mut client, mut server) = setup.pair().await;
    let guard = setup.hold("latency=1h", 1).await;
    send(&mut client, b"delayed").await;
    nothing_arrives(&server).await;
    drop(guard);
    assert_eq!(receive(&mut server, 7).await, b"delayed");
}

#[tokio::test]
async fn bandwidth_paces_the_bytes() {
    let setup = Setup::start().await;
    let (mut client, mut server) = setup.pair().await;
    let guard = setup.hold("bandwidth=100KiB/s", 1).await;
    let start = Instant::now();
    let sent = pattern(20 << 10);
    send(&mut client, &sent).await;
    assert_eq!(receive(&mut server, sent.len()).await, sent);
    // 20 KiB at 100 KiB/s, less one burst (10 ms).
    assert!(start.elapsed() >= Duration::from_millis(190), "{:?}", start.elapsed());
    drop(guard);
    setup.recorded(2, |_| true).await;
    assert_eq!(setup.record(), [(0, Action::Began, 0), (0, Action::Ended, 20 << 10)]);
}

#[tokio::test]
async fn a_slow_reader_fills_its_peers_socket() {
    // More than the four socket buffers between client and server can grow to.
    const FLOOD: usize = 64 << 20;
    let setup = Setup::start().await;
    let (mut client, mut server) = setup.pair().await;
    let guard = setup.hold("slow-reader=10KiB/s,direction=to-server", 1).await;
    let start = Instant::now();
    let flooding = tokio::spawn(async move {
        client.write_all(&vec![7; FLOOD]).await.unwrap();
    });
    receive(&mut server, 1 << 10).await;
    // 1 KiB at 10 KiB/s, less one burst (10 ms).
    assert!(start.elapsed() >= Duration::from_millis(90), "{:?}", start.elapsed());
    assert!(!flooding.is_finished(), "the client must wait for the slow reader");
    drop(guard);
    assert_eq!(rest(&mut server).await.len(), FLOOD - (1 << 10));
    soon(flooding).await.unwrap();
}

#[tokio::test]
async fn a_dropped_connection_ends_in_order_for_both() {
    let setup = Setup::start().await;
    let (mut client, mut server) = setup.pair().await;
    let _guard = setup.hold("drop=fin", 1).await;
    assert_eq!(rest(&mut client).await, b"");
    assert_eq!(rest(&mut server).await, b"");
    // A drop is a moment, not a state: who comes later is served.
    let (mut client, mut server) = setup.pair().await;
    send(&mut client, b"again").await;
    assert_eq!(receive(&mut server, 5).await, b"again");
    assert_eq!(setup.record(), [(0, Action::Closed, 0)]);
}

#[tokio::test]
async fn a_fin_arrives_as_a_fin_even_over_unread_bytes() {
    let setup = Setup::start().await;
    let (mut client, mut server) = setup.pair().await;
    let _partition = setup.hold("partition", 1).await;
    send(&mut client, &pattern(100_000)).await;
    let _drop = setup.hold("drop=fin", 1).await;
    assert_eq!(rest(&mut client).await, b"");
    assert_eq!(rest(&mut server).await, b"");
    setup.recorded(3, |_| true).await;
    assert_eq!(setup.record(), [(0, Action::Began, 0), (0, Action::Closed, 0), (0, Action::Ended, 0)]);
}

#[tokio::test]
async fn a_reset_connection_is_reset_for_both() {
    let setup = Setup::start().await;
    let (mut client, mut server) = setup.pair().await;
    let _guard = setup.hold("drop=rst", 1).await;
    is_reset(&mut client).await;
    is_reset(&mut server).await;
    assert_eq!(setup.record(), [(0, Action::Reset, 0)]);
}

#[tokio::test]
async fn a_cut_leaves_a_part_of_what_was_sent() {
    let setup = Setup::start().await;
    let (mut client, mut server) = setup.pair().await;
    send(&mut client, b"before").await;
    assert_eq!(receive(&mut server, 6).await, b"before");
    let _guard = setup.inject("drop=mid-frame,direction=to-client,seed=3");
    // Armed for the server's bytes only: the client's still pass. A rule takes hold in the order of injection,
    // so once this one is recorded the cut is armed as well.
    let _barrier = setup.hold("latency=0", 1).await;
    send(&mut client, b"passes").await;
    assert_eq!(receive(&mut server, 6).await, b"passes");
    let sent = pattern(1_000);
    send(&mut server, &sent).await;
    let arrived = rest(&mut client).await;
    assert!(!arrived.is_empty() && arrived.len() < sent.len(), "{} of 1000", arrived.len());
    assert!(sent.starts_with(&arrived));
    assert_eq!(rest(&mut server).await, b"");
    setup.recorded(3, |_| true).await;
    assert_eq!(setup.record()[1], (0, Action::Cut, arrived.len() as u64));
}

#[tokio::test]
async fn half_open_tells_one_side_only() {
    for (closed, swallowed) in [("server", 1_000), ("client", 2_000)] {
        let setup = Setup::start().await;
        let (client, server) = setup.pair().await;
        let (mut told, mut kept) = if closed == "server" { (server, client) } else { (client, server) };
        let guard = setup.hold(&format!("half-open={closed}"), 1).await;
        assert_eq!(rest(&mut told).await, b"");
        send(&mut kept, &pattern(swallowed)).await;
        nothing_arrives(&kept).await;
        // Later connections are not met.
        let (mut other_client, mut other_server) = setup.pair().await;
        send(&mut other_client, b"hello").await;
        assert_eq!(receive(&mut other_server, 5).await, b"hello");
        drop(guard);
        is_reset(&mut kept).await;
        assert_eq!(setup.record(), [(0, Action::HalfOpened, 0), (0, Action::Reset, swallowed as u64)]);
    }
}

#[tokio::test]
async fn a_partition_holds_and_then_delivers_in_order() {
    for (direction, to_server_held, to_client_held) in
        [("both", true, true), ("to-server", true, false), ("to-client", false, true)]
    {
        let setup = Setup::start().await;
        let (mut client, mut server) = setup.pair().await;
        let guard = setup.hold(&format!("partition={direction}"), 1).await;
        send(&mut client, b"first ").await;
        send(&mut server, b"answer ").await;
        for (held, receiver, expected) in
            [(to_server_held, &mut server, b"first ".as_slice()), (to_client_held, &mut client, b"answer ")]
        {
            if held {
                nothing_arrives(receiver).await;
            } else {
                assert_eq!(receive(receiver, expected.len()).await, expected);
            }
        }
        send(&mut client, b"second").await;
        send(&mut server, b"again").await;
        client.shutdown().await.unwrap();
        server.shutdown().await.unwrap();
        drop(guard);
        let to_server: &[u8] = if to_server_held { b"first second" } else { b"second" };
        let to_client: &[u8] = if to_client_held { b"answer again" } else { b"again" };
        assert_eq!(rest(&mut server).await, to_server);
        assert_eq!(rest(&mut client).await, to_client);
    }
}

#[tokio::test]
async fn a_new_connection_reaches_no_server_through_a_partition() {
    let setup = Setup::start().await;
    let guard = setup.inject("partition=to-server");
    let mut client = soon(TcpStream::connect(setup.address)).await.unwrap();
    send(&mut client, b"held").await;
    setup.recorded(1, |_| true).await;
    let accepted = tokio::time::timeout(Duration::from_millis(50), setup.server.accept()).await;
    assert!(accepted.is_err(), "a connection came through the partition");
    drop(guard);
    let (mut server, _) = soon(setup.server.accept()).await.unwrap();
    assert_eq!(receive(&mut server, 4).await, b"held");
    assert_eq!(setup.record(), [(0, Action::Began, 0), (0, Action::Ended, 0)]);
}

#[tokio::test]
async fn silence_loses_what_is_sent_meanwhile() {
    let setup = Setup::start().await;
    let (mut client, mut server) = setup.pair().await;
    let guard = setup.hold("silence=to-server", 1).await;
    send(&mut client, b"lost").await;
    send(&mut server, b"heard").await;
    assert_eq!(receive(&mut client, 5).await, b"heard");
    nothing_arrives(&server).await;
    drop(guard);
    setup.recorded(2, |_| true).await;
    send(&mut client, b"kept").await;
    assert_eq!(receive(&mut server, 4).await, b"kept");
    assert_eq!(setup.record(), [(0, Action::Began, 0), (0, Action::Ended, 4)]);
}

#[tokio::test]
async fn silence_hides_an_end_until_it_is_over() {
    let setup = Setup::start().await;
    let (mut client, mut server) = setup.pair().await;
    let guard = setup.hold("silence", 1).await;
    client.shutdown().await.unwrap();
    nothing_arrives(&server).await;
    drop(guard);
    assert_eq!(rest(&mut server).await, b"");
}

#[tokio::test]
async fn as_many_bytes_are_altered_as_asked_for() {
    let setup = Setup::start().await;
    let (mut client, mut server) = setup.pair().await;
    let _guard = setup.inject("corrupt=3,spacing=100B,seed=9");
    let _barrier = setup.hold("latency=0", 1).await;
    let sent = pattern(10_000);
    send(&mut server, &sent).await;
    let arrived = receive(&mut client, sent.len()).await;
    let altered: Vec<usize> = (0..sent.len()).filter(|&at| sent[at] != arrived[at]).collect();
    let recorded: Vec<(usize, u8, u8)> = setup
        .proxy
        .events()
        .iter()
        .filter_map(|event| match event.action {
            Action::Corrupted { offset_bytes, before, after } => Some((offset_bytes as usize, before, after)),
            _ => None,
        })
        .collect();
    let expected: Vec<(usize, u8, u8)> = altered.iter().map(|&at| (at, sent[at], arrived[at])).collect();
    assert_eq!(altered.len(), 3);
    assert_eq!(recorded, expected);
    send(&mut client, &sent).await;
    assert_eq!(receive(&mut server, sent.len()).await, sent, "the other direction is left alone");
}

#[tokio::test]
async fn a_share_meets_the_connections_that_the_rule_foretells_and_no_others() {
    let setup = Setup::start().await;
    let mut pairs = Vec::new();
    for _ in 0..20 {
        pairs.push(setup.pair().await);
    }
    let rule: Rule = "partition=both,share=0.25,seed=5".parse().unwrap();
    let foretold: Vec<u64> = (0..20).filter(|&number| rule.verdict(number, 0, None).is_some()).collect();
    assert_eq!(foretold.len(), 5);
    let guard = setup.hold(&rule.to_string(), foretold.len()).await;
    for (number, (client, server)) in pairs.iter_mut().enumerate() {
        send(client, b"x").await;
        if !foretold.contains(&(number as u64)) {
            assert_eq!(receive(server, 1).await, b"x");
        }
    }
    for &number in &foretold {
        assert!(pairs[number as usize].1.try_read(&mut [0]).is_err());
    }
    drop(guard);
    setup.recorded(10, |_| true).await;
    for number in &foretold {
        assert_eq!(receive(&mut pairs[*number as usize].1, 1).await, b"x");
    }
    let mut met: Vec<u64> = setup.record().iter().map(|&(connection, _, _)| connection).collect();
    met.sort_unstable();
    met.dedup();
    assert_eq!(met, foretold);
}

#[tokio::test]
async fn a_schedule_begins_and_ends_faults_by_itself() {
    let setup = Setup::start().await;
    let (mut client, mut server) = setup.pair().await;
    let guard = setup.inject("partition=both,from=20ms,for=30ms,every=60ms,times=2");
    setup.recorded(4, |_| true).await;
    send(&mut client, b"after").await;
    assert_eq!(receive(&mut server, 5).await, b"after");
    drop(guard);
    let events = setup.proxy.events();
    let actions: Vec<Action> = events.iter().map(|event| event.action).collect();
    assert_eq!(actions, [Action::Began, Action::Ended, Action::Began, Action::Ended]);
    // Never early; the other bound would be the machine's.
    let since_first_ns: Vec<u64> = events.iter().map(|event| event.at_ns - events[0].at_ns).collect();
    assert!(events[0].at_ns >= 20_000_000 && since_first_ns[2] > since_first_ns[1], "{since_first_ns:?}");
    let epochs: Vec<u64> = events.iter().map(|event| event.unix_ns - event.at_ns).collect();
    assert!(epochs.iter().all(|&epoch| epoch == epochs[0]), "one epoch for all: {epochs:?}");
}

#[tokio::test]
async fn drops_repeat_as_often_as_asked_for() {
    let setup = Setup::start().await;
    // Open before the rule is injected, so it meets the first drop; each later one may be opened before the
    // next drop or, on a slow machine, miss some. The proxy must reset none but by a drop.
    let mut client = soon(TcpStream::connect(setup.address)).await.unwrap();
    let _guard = setup.inject("drop=rst,from=100ms,every=100ms,times=3");
    let mut resets = 0;
    while let Ok(read) = tokio::time::timeout(Duration::from_millis(400), client.read(&mut [0])).await {
        assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
        resets += 1;
        client = soon(TcpStream::connect(setup.address)).await.unwrap();
    }
    assert!((1..=3).contains(&resets), "{resets}");
    assert_eq!(setup.record().len(), resets);
    assert!(setup.record().iter().all(|&(_, action, _)| action == Action::Reset));
}

#[tokio::test]
async fn a_rule_may_count_from_an_instant_that_has_passed() {
    let setup = Setup::start().await;
    let (mut client, mut server) = setup.pair().await;
    let over = setup.proxy.inject_at("silence,for=1ms".parse().unwrap(), 0);
    let drop_within = setup.proxy.inject_at("drop=rst,for=1h".parse().unwrap(), setup.proxy.now_ns());
    is_reset(&mut client).await;
    is_reset(&mut server).await;
    // With a length, a drop also meets those that come within it.
    let mut late = soon(TcpStream::connect(setup.address)).await.unwrap();
    is_reset(&mut late).await;
    drop((over, drop_within));
    let drops = setup.proxy.events().iter().filter(|event| event.action == Action::Reset).count();
    assert_eq!(drops, 2);
}

#[tokio::test]
async fn a_kept_rule_outlives_its_guard() {
    let setup = Setup::start().await;
    setup.inject("silence,connections=1").keep();
    let (mut client, mut server) = setup.pair().await;
    send(&mut client, b"heard").await;
    assert_eq!(receive(&mut server, 5).await, b"heard");
    let (mut client, server) = setup.pair().await;
    send(&mut client, b"lost").await;
    nothing_arrives(&server).await;
    assert_eq!(setup.record(), [(1, Action::Began, 0)]);
}

#[tokio::test]
async fn the_upstream_can_move() {
    let setup = Setup::start().await;
    let (mut client, mut server) = setup.pair().await;
    let elsewhere = TcpListener::bind(loopback()).await.unwrap();
    setup.proxy.set_upstream(elsewhere.local_addr().unwrap());
    let mut moved = soon(TcpStream::connect(setup.address)).await.unwrap();
    let (mut moved_server, _) = soon(elsewhere.accept()).await.unwrap();
    send(&mut moved, b"new").await;
    assert_eq!(receive(&mut moved_server, 3).await, b"new");
    send(&mut client, b"old").await;
    assert_eq!(receive(&mut server, 3).await, b"old", "open connections stay where they are");

    drop(elsewhere);
    let mut refused = soon(TcpStream::connect(setup.address)).await.unwrap();
    is_reset(&mut refused).await;
    assert_eq!(setup.proxy.upstream_failures(), 1);
}

#[tokio::test]
async fn the_callers_signal_ends_it() {
    let setup = Setup::start().await;
    let (mut client, mut server) = setup.pair().await;
    setup.stop.send(()).unwrap();
    soon(setup.running).await.unwrap();
    assert_eq!(rest(&mut client).await, b"");
    assert_eq!(rest(&mut server).await, b"");
    let refused = soon(TcpStream::connect(setup.address)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let setup = Setup::start().await;
    let error = FaultProxy::bind(setup.address, loopback()).await.unwrap_err();
    assert!(matches!(error, ProxyError::Listen { address, .. } if address == setup.address));
    assert!(error.to_string().contains(&setup.address.to_string()), "{error}");
}

/// Faults that lose nothing come and go at all moments, also in the middle of reads and writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lossless_faults_lose_nothing_however_they_come_and_go() {
    const RULES: [&str; 6] = [
        "latency=2ms,jitter=2ms",
        "bandwidth=4MiB/s",
        "slow-reader=4MiB/s,direction=both",
        "partition=to-client",
        "partition,share=0.5",
        "latency=1ms,share=0.5",
    ];
    let setup = Setup::start().await;
    let mut echoes = Vec::new();
    for _ in 0..4 {
        let (client, server) = setup.pair().await;
        let (mut from_client, mut to_client) = server.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_client).await });
        let (mut answers, mut requests) = client.into_split();
        tokio::spawn(async move {
            for piece in pattern(1 << 20).chunks(1_000) {
                requests.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        echoes.push(tokio::spawn(async move {
            let mut bytes = vec![0; 1 << 20];
            answers.read_exact(&mut bytes).await.unwrap();
            bytes
        }));
    }
    let mut guards = std::collections::VecDeque::new();
    for round in 0.. {
        if echoes.iter().all(JoinHandle::is_finished) {
            break;
        }
        guards.push_back(setup.inject(RULES[round % RULES.len()]));
        if guards.len() > 2 {
            guards.pop_front();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for echo in echoes {
        assert!(soon(echo).await.unwrap() == pattern(1 << 20), "the echo differs");
    }
    assert!(!setup.record().is_empty());
}
