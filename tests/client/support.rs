//! What all tests of the client share: hostile peers on threads of their own, and loads that cannot hang.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use floodline::client::{
    ClientError, HighVolumeThroughputClient, LoadMeasurement, Observer, Stop, TcpConnect,
};
use floodline::dialect::{Floodline, RequestKind};
use floodline::record::LatencyHistogram;
use floodline::workload::{Offered, Target, Workload};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async};

/// Far longer than any of these loads takes on a slow machine; what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `test` on a thread of its own, and fails where it does not end.
pub fn within_patience<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, result) = mpsc::channel();
    let thread = std::thread::spawn(move || sender.send(test()));
    match result.recv_timeout(PATIENCE) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("this hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().expect_err("it ended without a result"))
        }
    }
}

/// A peer on a thread of its own, which ends when this is dropped.
pub struct Peer {
    pub address: SocketAddr,
    _alive: oneshot::Sender<()>,
}

impl Peer {
    /// Serves every connection by `serve`, which is told how many came before.
    pub fn start<F, S>(serve: F) -> Self
    where
        F: Fn(TcpStream, usize) -> S + Send + 'static,
        S: Future<Output = ()> + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (alive, dropped) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let serving = async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                for place in 0.. {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::task::spawn_local(serve(stream, place));
                }
            };
            tokio::task::LocalSet::new().block_on(&runtime, async {
                tokio::select! {
                    () = serving => {}
                    _ = dropped => {}
                }
            });
        });
        Self { address, _alive: alive }
    }

    /// Acts on each request of each connection as a script of its own says.
    pub fn scripted(script: impl Fn() -> Script + Send + 'static) -> Self {
        Self::start(move |stream, _| converse(stream, script()))
    }

    pub fn target(&self) -> Target {
        target(self.address)
    }
}

pub fn target(address: SocketAddr) -> Target {
    format!("ws://{address}/ws").parse().unwrap()
}

/// A request as a peer that knows nothing of our code reads it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub id: String,
    pub sequence: u64,
    pub client: String,
    pub crc: u32,
}

impl Asked {
    fn read(text: &str) -> Self {
        let request: Value = serde_json::from_str(text).unwrap();
        assert_eq!(request["type"], "throughput_test");
        Self {
            id: request["message_id"].as_str().unwrap().to_owned(),
            sequence: request["sequence_id"].as_u64().unwrap(),
            client: request["client_id"].as_str().unwrap().to_owned(),
            crc: crc32fast::hash(request["content"].as_str().unwrap().as_bytes()),
        }
    }

    /// The right answer, with some fields replaced.
    pub fn answer_with(&self, fields: Value) -> String {
        let mut answer = json!({"type": "throughput_response", "message_id": self.id,
            "sequence_id": self.sequence, "server_time": 1.5, "queue_depth": 0, "content_crc32": self.crc});
        for (name, value) in fields.as_object().unwrap() {
            answer[name] = value.clone();
        }
        answer.to_string()
    }

    pub fn answer(&self) -> String {
        self.answer_with(json!({}))
    }

    /// The right answer to a request.
    pub fn read_answer(text: &str) -> String {
        Self::read(text).answer()
    }

    pub fn queue_full(&self) -> String {
        json!({"type": "queue_full", "message_id": self.id, "sequence_id": self.sequence,
            "queue_depth": 9, "max_queue": 9})
        .to_string()
    }
}

/// What a peer does.
#[derive(Debug, Clone)]
pub enum Act {
    Text(String),
    Binary(Vec<u8>),
    /// Bytes past the WebSocket layer.
    Raw(Vec<u8>),
    Close(u16, &'static str),
    /// An orderly end of TCP, of our direction only.
    HalfClose,
    /// The connection is dropped: FIN, nothing else.
    Cut,
    /// RST.
    Reset,
}

pub type Script = Box<dyn FnMut(Asked) -> Vec<Act>>;

pub async fn converse(stream: TcpStream, mut script: Script) {
    stream.set_nodelay(true).unwrap();
    let Ok(mut ws) = accept_async(stream).await else { return };
    while let Some(Ok(message)) = ws.next().await {
        let Message::Text(text) = message else { continue };
        for act in script(Asked::read(&text)) {
            if !perform(&mut ws, act).await {
                return;
            }
        }
    }
}

/// Does it; whether the connection goes on.
async fn perform(ws: &mut WebSocketStream<TcpStream>, act: Act) -> bool {
    // Where the client has gone, so be it: what it counted is what a test looks at.
    match act {
        Act::Text(text) => ws.send(Message::text(text)).await.is_ok(),
        Act::Binary(bytes) => ws.send(Message::binary(bytes)).await.is_ok(),
        Act::Raw(bytes) => ws.get_mut().write_all(&bytes).await.is_ok(),
        Act::Close(code, reason) => {
            let frame = CloseFrame { code: code.into(), reason: reason.into() };
            ws.send(Message::Close(Some(frame))).await.is_ok()
        }
        Act::HalfClose => ws.get_mut().shutdown().await.is_ok(),
        Act::Cut => false,
        Act::Reset => {
            let socket = socket2::SockRef::from(ws.get_ref());
            socket.set_linger(Some(Duration::ZERO)).unwrap();
            false
        }
    }
}

/// A frame as it stands on the wire; `first` holds the final bit and the opcode. Never masked.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length @ 0..=125) => bytes.push(length as u8),
        Ok(length) => {
            bytes.push(126);
            bytes.extend(length.to_be_bytes());
        }
        Err(_) => {
            bytes.push(127);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

/// Twenty messages in a tenth of a second on one connection.
pub fn twenty() -> Workload {
    Workload { payload_bytes: 64, ..open_loop(200.0, 1, 0.1) }
}

pub fn open_loop(rate: f64, connections: u32, seconds: f64) -> Workload {
    Workload {
        offered: Offered::Rate(floodline::units::Rate::per_second(rate).unwrap()),
        connections,
        duration: Duration::from_secs_f64(seconds),
        ..Workload::default()
    }
}

pub fn client(workload: Workload, target: &Target) -> HighVolumeThroughputClient<TcpConnect, Floodline> {
    let workload = workload.validated().unwrap();
    let dialect = Floodline::new(workload.seed, workload.payload_bytes, RequestKind::ThroughputTest, None);
    HighVolumeThroughputClient::new(workload, TcpConnect::new(target.clone(), None).unwrap(), dialect)
}

pub fn try_offer(workload: Workload, target: &Target) -> Result<LoadMeasurement, ClientError> {
    client(workload, target).run(&Stop::default(), &mut ())
}

pub fn offer(workload: Workload, target: &Target) -> LoadMeasurement {
    let measured = try_offer(workload, target).unwrap();
    assert_accounted(&measured);
    measured
}

/// Stops the load once its connections are open, before the first message is due.
pub struct StopAtStart(pub Stop);

impl Observer for StopAtStart {
    fn started(&mut self) {
        self.0.stop();
    }
}

/// What holds for every load, whatever the peer did.
pub fn assert_accounted(measured: &LoadMeasurement) {
    let messages = &measured.messages;
    let counts = &messages.counts;
    assert_eq!(messages.due, counts.sent + messages.unsent, "{messages:?}");
    assert_eq!(counts.sent, counts.answered + counts.refused + counts.lost, "{messages:?}");
    let total = &measured.total;
    let answered = counts.answered - messages.untimed_answered;
    assert!(messages.untimed_answered <= messages.untimed_due && messages.untimed_due <= messages.due);
    assert_eq!((total.answered, total.service_latency.len()), (answered, answered));
    assert!(total.sent <= messages.due - messages.untimed_due && total.sent <= counts.sent);
    assert!(total.refused <= counts.refused);
    if messages.untimed_due == 0 {
        assert_eq!((total.sent, total.refused), (counts.sent, counts.refused));
    }
    let of_windows = |count: fn(&floodline::record::WindowSummary) -> u64| -> u64 {
        measured.windows.iter().map(count).sum()
    };
    assert_eq!(of_windows(|window| window.sent), total.sent);
    assert_eq!(of_windows(|window| window.answered), total.answered);
    assert_eq!(of_windows(|window| window.refused), total.refused);
    let mut summed = floodline::ledger::Counts::default();
    measured.per_connection.iter().for_each(|connection| summed.add(&connection.counts));
    assert_eq!(summed, *counts);
    assert_eq!(measured.per_connection.iter().map(|c| c.due).sum::<u64>(), messages.due);
    assert!(measured.achieved <= answered);
    assert!(measured.per_connection.iter().all(|c| c.achieved <= c.counts.answered));
    assert_eq!(measured.per_connection.iter().map(|c| c.achieved).sum::<u64>(), measured.achieved);
    assert_eq!(messages.missing_ids.len() as u64, counts.lost.min(100));
    // Every message is attempted at most once, so nothing that waits behind a full socket is late twice.
    assert!(total.send_lateness.len() <= messages.due - messages.untimed_due);
    let connections = &measured.connections;
    let unopened = connections.unopened.connections.len() as u64;
    let opened = connections.requested - unopened;
    assert_eq!(opened, connections.established + connections.refused, "{connections:?}");
    assert!(connections.dropped <= connections.established);
}

/// How many values are above `limit`.
pub fn above(histogram: &LatencyHistogram, limit: Duration) -> u64 {
    histogram.len() - histogram.counts().count_between(0, limit.as_nanos() as u64)
}
