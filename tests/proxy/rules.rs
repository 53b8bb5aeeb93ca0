//! Which connections a rule meets, when, and how it is undone.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::Duration;

use floodline::fault::Rule;
use floodline::proxy::Action;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{Setup, is_reset, nothing_arrives, pattern, receive, send, soon};

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
    let mut guards = VecDeque::new();
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
