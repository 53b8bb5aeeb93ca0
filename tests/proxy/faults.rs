//! What each kind of fault does to the bytes, exactly.

use std::time::{Duration, Instant};

use floodline::proxy::Action;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{Setup, is_reset, nothing_arrives, pattern, receive, rest, send, soon};

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
    // Nothing of the first latency is left to confuse a second.
    let _guard = setup.hold("latency=1ms", 1).await;
    send(&mut client, b"again").await;
    assert_eq!(receive(&mut server, 5).await, b"again");
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
    // A reset behind the FIN would stand as the socket's error.
    assert!(client.take_error().unwrap().is_none());
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
    let sent = pattern(10_000);
    let (arrived, recorded) = corrupted(&sent, 9).await;
    let altered: Vec<usize> = (0..sent.len()).filter(|&at| sent[at] != arrived[at]).collect();
    assert_eq!(altered.len(), 3);
    let expected = altered.iter().map(|&at| Action::Corrupted {
        offset_bytes: at as u64,
        before: sent[at],
        after: arrived[at],
    });
    assert_eq!(recorded, expected.collect::<Vec<_>>());
    assert_eq!(corrupted(&sent, 9).await, (arrived.clone(), recorded), "the seed decides");
    assert_ne!(corrupted(&sent, 10).await.0, arrived);
}

/// What arrives at the client of what the server sends through a corruption, and what is recorded of it.
async fn corrupted(sent: &[u8], seed: u64) -> (Vec<u8>, Vec<Action>) {
    let setup = Setup::start().await;
    let (mut client, mut server) = setup.pair().await;
    let _guard = setup.inject(&format!("corrupt=3,spacing=100B,seed={seed}"));
    let _barrier = setup.hold("latency=0", 1).await;
    send(&mut server, sent).await;
    let arrived = receive(&mut client, sent.len()).await;
    send(&mut client, sent).await;
    assert_eq!(receive(&mut server, sent.len()).await, sent, "the other direction is left alone");
    let actions = setup.record().into_iter().map(|(_, action, _)| action);
    (arrived, actions.filter(|action| matches!(action, Action::Corrupted { .. })).collect())
}
