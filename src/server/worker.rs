//! One thread that serves the connections dealt to it.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::fault::{Burn, ServerFault};
use super::hold::Hold;
use super::shared::{OpenConnection, Shared};
use super::spinner::Spinner;
use super::stats::Counters;
use super::tokens::KnownToken;
use super::{connection, handshake};
use crate::pacer::Sleeper;

/// What the connections of one worker share. It never leaves its thread.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    /// Only this worker writes them.
    pub(super) counters: Arc<Counters>,
    /// Taken by the connection whose turn it is, and put back at the turn's end.
    pub(super) scratch: Cell<Scratch>,
    /// Whether a fault may do something with each message.
    watches_messages: bool,
    /// Whether the first message was announced.
    first_announced: Cell<bool>,
    /// Keeps the worker awake while requests keep coming.
    pub(super) spinner: Spinner,
    /// Where a fault holds answers back.
    pub(super) hold: Option<Hold>,
    /// What [`ServerFault::BurnCpu`] wastes.
    burn: Option<Burn>,
    /// What [`ServerFault::Leak`] has taken.
    leaked: RefCell<Vec<Vec<u8>>>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// Buffers that serve every connection in turn, so that an idle connection needs none.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// What was read.
    pub(super) input: Vec<u8>,
    /// What is to be written.
    pub(super) out: BytesMut,
}

impl Scratch {
    /// Empties it for the next, and gives back what only an unusual batch needs.
    pub(super) fn recycle(&mut self) {
        const USUAL_BYTES: usize = 1 << 20;
        self.out.clear();
        if self.out.capacity() > USUAL_BYTES {
            self.out = BytesMut::new();
        }
    }
}

impl Worker {
    /// Does what faults do with each message, and tells those who wait for the server's first.
    pub(super) fn message_seen(&self) {
        if !self.watches_messages {
            return;
        }
        let planted = &self.shared.planted;
        if !self.first_announced.replace(true) {
            self.shared.first_message.send_replace(true);
        }
        if let Some(burn) = &self.burn {
            burn.message_seen();
        }
        planted.grow();
        let leak_bytes = planted.leak_bytes();
        if leak_bytes > 0 {
            // Not zero, else the system would give no memory before it is written to.
            self.leaked.borrow_mut().push(vec![1; leak_bytes]);
        }
    }
}

/// Serves what comes from `sockets` until that ends and all is answered, or the grace is over.
///
/// Returns how many connections were cut off then.
///
/// # Errors
/// Where the thread's runtime cannot be built.
pub(super) fn run(
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    sockets: mpsc::UnboundedReceiver<StdTcpStream>,
    stop: watch::Receiver<bool>,
) -> io::Result<usize> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    let scratch = Scratch { input: vec![0; shared.config.read_buffer_bytes], out: BytesMut::new() };
    let worker = Rc::new(Worker {
        watches_messages: !shared.planted.is_empty(),
        hold: shared.planted.holds_answers().then(|| Hold::new(shared.planted.releases_exactly())),
        burn: shared.planted.burns_cpu().map(Burn::new),
        shared,
        counters,
        scratch: Cell::new(scratch),
        spinner: Spinner::default(),
        first_announced: Cell::new(false),
        leaked: RefCell::default(),
    });
    Ok(runtime.block_on(serve(worker, sockets, stop)))
}

async fn serve(
    worker: Rc<Worker>,
    mut sockets: mpsc::UnboundedReceiver<StdTcpStream>,
    stop: watch::Receiver<bool>,
) -> usize {
    let mut helpers = JoinSet::new();
    let spinning = Rc::clone(&worker);
    helpers.spawn_local(async move { spinning.spinner.run().await });
    if worker.hold.is_some() {
        let worker = Rc::clone(&worker);
        helpers.spawn_local(async move {
            if let Some(hold) = &worker.hold {
                hold.run().await;
            }
        });
    }
    for &fault in &worker.shared.config.faults {
        let first_message = worker.shared.first_message.subscribe();
        match fault {
            ServerFault::StallOnce { at, duration } => {
                helpers.spawn_local(stall(first_message, at, duration, false));
            }
            ServerFault::BadNeighbour { duration } => {
                helpers.spawn_local(stall_after_losses(worker.shared.planted.losses(), duration));
            }
            ServerFault::Pause { every, duration } => {
                helpers.spawn_local(stall(first_message, every, duration, true));
            }
            _ => {}
        }
    }
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            socket = sockets.recv() => match socket {
                Some(socket) => {
                    connections.spawn_local(connection(socket, Rc::clone(&worker), stop.clone()));
                }
                None => break,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    let all_ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(worker.shared.config.shutdown_grace, all_ended).await;
    connections.len()
}

/// One connection from its first byte to its last. Whatever goes wrong in it ends it, and nothing else.
async fn connection(socket: StdTcpStream, worker: Rc<Worker>, stop: watch::Receiver<bool>) {
    let Ok(stream) = TcpStream::from_std(socket) else { return };
    let _ = stream.set_nodelay(true);
    match worker.shared.config.tls.clone() {
        None => welcome(async { Ok(stream) }, worker, stop).await,
        // On the heap, so that a plain connection does not make room for it.
        Some(tls) => Box::pin(welcome(tls.acceptor().accept(stream), worker, stop)).await,
    }
}

/// Lets a peer in, or not, once its `stream` is there.
async fn welcome<S>(
    stream: impl Future<Output = io::Result<S>>,
    worker: Rc<Worker>,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let shared = Arc::clone(&worker.shared);
    let handshake = async { handshake::accept(stream.await?, shared.door()).await };
    let mut stopped = stop.clone();
    let (stream, guest) = tokio::select! {
        accepted = tokio::time::timeout(shared.config.handshake_timeout, handshake) => match accepted {
            Ok(Ok(accepted)) => accepted,
            _ => return,
        },
        // Nobody who is not in yet is waited for.
        _ = stopped.wait_for(|&stopped| stopped) => return,
    };
    let number = shared.planted.number_connection();
    let refused = shared.planted.refuses_connection(number);
    match OpenConnection::count(&shared).filter(|_| !refused) {
        Some(_open) => {
            let whose = guest.token.map_or("", KnownToken::identity);
            let guest = connection::Visit { number, whose, expires_at: guest.expires_at };
            connection::serve(stream, worker, guest, stop).await;
        }
        None => connection::turn_away(stream, shared.config.max_message_bytes).await,
    }
}

/// A stall ends to the microsecond: for the last part of it the clock is polled, longer than a timer is late.
const POLLED: Duration = Duration::from_millis(1);

/// Blocks the thread, and with it every connection of the worker: once, or again after each such while.
async fn stall(mut first_message: watch::Receiver<bool>, after: Duration, duration: Duration, again: bool) {
    if first_message.wait_for(|&seen| seen).await.is_err() {
        return;
    }
    // Of the pacer's precision: a measurement may be held against the instants. Where the system has no such timer left, a
    // coarse one is better than no fault.
    let mut sleeper = Sleeper::precise().unwrap_or_else(|_| Sleeper::coarse());
    let mut begins = Instant::now() + after;
    loop {
        let span = begins.saturating_duration_since(Instant::now());
        if sleeper.sleep(span.as_nanos().try_into().unwrap_or(u64::MAX)).await.is_err() {
            return;
        }
        let ends = begins + duration;
        std::thread::sleep(ends.saturating_duration_since(Instant::now() + POLLED));
        while Instant::now() < ends {
            std::hint::spin_loop();
        }
        if !again {
            return;
        }
        begins = Instant::now() + after;
    }
}

/// Blocks the thread until so long after each loss of a connection, wherever that was.
async fn stall_after_losses(mut losses: watch::Receiver<Option<Instant>>, duration: Duration) {
    while losses.changed().await.is_ok() {
        let lost_at = *losses.borrow_and_update();
        if let Some(lost_at) = lost_at {
            std::thread::sleep((lost_at + duration).saturating_duration_since(Instant::now()));
        }
    }
}
