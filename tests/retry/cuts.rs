//! Cuts of the network, deaths of the server: in the end every message has its answer.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use floodline::client::{
    HighVolumeThroughputClient, LoadMeasurement, LoadProgress, Observer, Stop, TcpConnect,
};
use floodline::dialect::{Floodline, RequestKind};
use floodline::proxy::ProxyThread;
use floodline::result::Outage;
use floodline::retry::{PingPolicy, RetryPolicy};
use floodline::run::Listening;
use floodline::server::{HighVolumeWebSocketServer, ServerConfig, ServerHandle};
use floodline::workload::{Offered, Target, Workload};

use crate::support::{assert_accounted, open_loop, target, within_patience};

/// A proxy in front of the server.
fn proxy_before(server: &ServerHandle) -> ProxyThread {
    ProxyThread::start("127.0.0.1:0".parse().unwrap(), server.address()).unwrap()
}

/// Puts a rule into force at the start of the load.
struct InjectAtStart<'a> {
    proxy: &'a ProxyThread,
    rule: &'a str,
}

impl Observer for InjectAtStart<'_> {
    fn started(&mut self) {
        self.proxy.handle().inject(self.rule.parse().unwrap()).keep();
    }
}

fn offer(workload: Workload, target: &Target, observer: &mut dyn Observer) -> LoadMeasurement {
    let workload = workload.validated().unwrap();
    let dialect = Floodline::new(workload.seed, workload.payload_bytes, RequestKind::UserMessage, None);
    let connect = TcpConnect::new(target.clone(), None).unwrap();
    let client = HighVolumeThroughputClient::new(workload, connect, dialect);
    let measured = client.run(&Stop::default(), observer).unwrap();
    assert_accounted(&measured);
    measured
}

fn surviving(workload: Workload) -> Workload {
    Workload { retry: Some(RetryPolicy::default()), payload_bytes: 64, ..workload }
}

/// A server at which there is always something unanswered.
fn slow_server() -> ServerHandle {
    let processing_delay = Duration::from_millis(20);
    HighVolumeWebSocketServer::spawn(ServerConfig { processing_delay, ..ServerConfig::default() }).unwrap()
}

/// Everything was answered, once, and every cut was survived and told.
fn assert_survived(measured: &LoadMeasurement) {
    let messages = &measured.messages;
    let counts = &messages.counts;
    assert_eq!((counts.answered, messages.unsent), (messages.due, 0), "{messages:?}");
    assert_eq!((counts.lost, counts.duplicates, counts.reordered), (0, 0, 0), "{messages:?}");
    assert_eq!((counts.foreign, counts.corrupted, counts.unattributed), (0, 0, 0), "{messages:?}");
    let connections = &measured.connections;
    let outages = &measured.outages;
    assert_eq!((connections.dropped, connections.refused), (0, 0), "{connections:?}");
    assert!(!outages.is_empty());
    assert_eq!(connections.reconnects, outages.len() as u64, "{outages:#?}");
    assert_eq!(connections.reasons.values().sum::<u64>(), outages.len() as u64, "{connections:?}");
    for Outage { lost_at_s, reconnected_at_s, recovered_at_s, .. } in outages {
        let (reconnected, recovered) = (reconnected_at_s.unwrap(), recovered_at_s.unwrap());
        assert!(*lost_at_s <= reconnected && reconnected <= recovered, "{outages:#?}");
    }
    // What was sent again are the messages that were unanswered at a cut, less those that a further cut kept from it.
    assert_eq!(outages.iter().map(|outage| outage.resent).sum::<u64>(), counts.resent);
    assert!(counts.resent <= outages.iter().map(|outage| outage.unanswered).sum());
}

#[test]
fn every_message_survives_the_cuts() {
    within_patience(|| {
        for (kind, seed) in [("fin", 1), ("rst", 2), ("mid-frame", 3)] {
            let server = slow_server();
            let proxy = proxy_before(&server);
            // A third of the connections, six times; each has some message unanswered for 20 ms of every 20 ms.
            let rule = format!("drop={kind},share=0.33,from=150ms,every=200ms,times=6,seed={seed}");
            let mut inject = InjectAtStart { proxy: &proxy, rule: &rule };
            let measured =
                offer(surviving(open_loop(1_000.0, 20, 1.5)), &target(proxy.address()), &mut inject);
            assert_survived(&measured);
            assert!(measured.messages.counts.resent > 0, "{rule}: {:?}", measured.messages);
            assert_eq!(measured.messages.due, 1_500, "{rule}");
        }
    });
}

#[test]
fn a_closed_loop_survives_the_cuts() {
    within_patience(|| {
        let server = slow_server();
        let proxy = proxy_before(&server);
        let mut inject =
            InjectAtStart { proxy: &proxy, rule: "drop=rst,share=0.5,from=100ms,every=200ms,times=3,seed=4" };
        let workload = Workload { offered: Offered::Max, window: 8, ..open_loop(1.0, 6, 1.0) };
        let measured = offer(surviving(workload), &target(proxy.address()), &mut inject);
        assert_survived(&measured);
        assert!(measured.messages.counts.resent > 0);
    });
}

#[test]
fn without_a_policy_a_lost_connection_stays_lost() {
    within_patience(|| {
        let server = slow_server();
        let proxy = proxy_before(&server);
        let mut inject = InjectAtStart { proxy: &proxy, rule: "drop=rst,connections=0,from=200ms" };
        let measured = offer(
            Workload { retry: None, ..surviving(open_loop(400.0, 2, 0.5)) },
            &target(proxy.address()),
            &mut inject,
        );
        assert_eq!((measured.connections.dropped, measured.connections.reconnects), (1, 0));
        assert!(measured.outages.is_empty());
        assert_eq!((measured.messages.counts.resent, proxy.handle().accepted()), (0, 2));
        assert!(measured.messages.unsent > 0, "{:?}", measured.messages);
    });
}

/// A second of silence is far longer than an idle server takes to answer a ping on a busy machine.
const PING: PingPolicy = PingPolicy { every: Duration::from_millis(100), dead_after: Duration::from_secs(1) };

#[test]
fn a_silent_peer_is_found_out_by_pings() {
    within_patience(|| {
        for retry in [None, Some(RetryPolicy::default())] {
            let server = slow_server();
            let proxy = proxy_before(&server);
            let mut inject = InjectAtStart { proxy: &proxy, rule: "silence=both,connections=0,from=100ms" };
            let workload = Workload {
                retry,
                ping: Some(PING),
                answer_timeout: Duration::from_secs(20),
                ..surviving(open_loop(100.0, 1, 2.0))
            };
            let measured = offer(workload, &target(proxy.address()), &mut inject);
            let reasons: Vec<&String> = measured.connections.reasons.keys().collect();
            assert_eq!(reasons, ["no sign of life for 1.00 s"]);
            if retry.is_some() {
                assert_survived(&measured);
                assert_eq!(measured.outages.len(), 1);
            } else {
                assert_eq!(measured.connections.dropped, 1);
            }
        }
    });
}

#[test]
fn a_peer_that_answers_pings_and_nothing_else_is_alive() {
    within_patience(|| {
        let server = slow_server();
        // Two messages, a second and a half apart: but for pongs there is silence.
        let workload = Workload { ping: Some(PING), ..open_loop(2.0 / 3.0, 1, 3.0) };
        let measured = offer(workload, &target(server.address()), &mut ());
        assert_eq!((measured.messages.counts.answered, measured.connections.dropped), (2, 0));
    });
}

/// The server as a process of its own, at a port that stays.
struct Process(Child);

impl Process {
    fn serve(listen: SocketAddr) -> (Self, SocketAddr) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_floodline"))
            .args(["serve", "--until-stdin-closes", "--listen", &listen.to_string()])
            .args(["--processing-delay", "20ms"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listening: Listening = serde_json::from_str(&line).unwrap();
        let address = listening.listening.strip_prefix("ws://").unwrap().strip_suffix("/ws").unwrap();
        (Self(child), address.parse().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL: what was in work is gone.
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Kills the server once it has answered something, and starts it again.
struct KillOnce {
    server: Option<Process>,
    address: SocketAddr,
    killed: bool,
}

impl Observer for KillOnce {
    fn progress(&mut self, progress: &LoadProgress) {
        if progress.answered > 0 && !self.killed {
            self.killed = true;
            drop(self.server.take());
            self.server = Some(Process::serve(self.address).0);
        }
    }
}

#[test]
fn every_message_survives_the_death_of_the_server() {
    within_patience(|| {
        let (server, address) = Process::serve("127.0.0.1:0".parse().unwrap());
        let mut observer = KillOnce { server: Some(server), address, killed: false };
        let measured = offer(surviving(open_loop(500.0, 5, 2.0)), &target(address), &mut observer);
        assert!(observer.killed);
        assert_survived(&measured);
        assert_eq!(measured.outages.len(), 5);
        assert!(measured.messages.counts.resent > 0);
    });
}
