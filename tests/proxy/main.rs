//! The fault proxy between a client and a server that the test both holds: what arrives, what does not, and
//! what is recorded.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking; so do their helpers")]

mod faults;
mod plain;
mod rules;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use floodline::proxy::{Action, FaultProxy, Injection, ProxyHandle, RuleGuard};
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
