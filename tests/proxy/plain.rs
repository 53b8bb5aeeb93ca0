//! The proxy itself: it carries, moves and stops.

use std::io::ErrorKind;

use floodline::proxy::{FaultProxy, ProxyError};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::{Setup, is_reset, loopback, pattern, receive, rest, send, soon};

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
