//! One connection: reads all that is there, answers it, writes once.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;

use super::fault::Mishap;
use super::hold::Released;
use super::session::Session;
use super::worker::{Scratch, Worker};
use crate::clock::unix_now_ns;
use crate::message::{INVALID_JSON, WallTime};
use crate::websocket::{CloseCode, Event, Opcode, Reader, Sender, append_close, append_control};

/// While so many bytes of answers wait for a client that does not read, nothing more is read from it: then TCP
/// pushes back, and a connection's memory is bounded by this and the answers to one batch.
const MAX_UNSENT_BYTES: usize = 1 << 20;

/// After so many reads other connections have their turn.
const READS_PER_TURN: usize = 4;

/// How long a peer may take to close after us.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Who comes, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visit<'a> {
    /// The connection's number, from 1.
    pub(super) number: u64,
    /// Whose token it brought; empty where that is nobody's.
    pub(super) whose: &'a str,
    /// When that is good no more.
    pub(super) expires_at: Option<Instant>,
}

/// Serves a connection after its handshake until it ends. `stop` turning true ends it once all is answered.
pub(super) async fn serve<S>(stream: S, worker: Rc<Worker>, visit: Visit<'_>, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let number = visit.number;
    let session = Session::new(Rc::clone(&worker), number, visit.whose);
    let reader = Reader::new(Sender::Client, worker.shared.config.max_message_bytes);
    let mut connection =
        Connection { stream, worker, session, reader, unsent: BytesMut::new(), flushing: false, mute: false };
    let mut expiry = visit.expires_at.map(|at| Box::pin(tokio::time::sleep_until(at.into())));
    let mishap = connection.worker.shared.planted.befalls_connection(number);
    let mut mishap = mishap.map(|(after, mishap)| (Box::pin(tokio::time::sleep(after)), mishap));
    let mut draining = *stop.borrow_and_update();
    let ending = loop {
        tokio::select! {
            biased;
            ending = poll_fn(|cx| connection.poll(cx, draining)) => break ending,
            // Where the sender is gone, so is the server.
            _ = stop.changed(), if !draining => draining = true,
            () = expired(&mut expiry), if expiry.is_some() => {
                break Ending::Violated(CloseCode::PolicyViolation);
            }
            what = befallen(&mut mishap), if mishap.is_some() => {
                mishap = None;
                match what {
                    Some(Mishap::HalfClose) => connection.mute().await,
                    Some(Mishap::Silence) => return keep_silent(connection, stop).await,
                    None => {}
                }
            }
        }
    };
    let Connection { stream, unsent, reader, worker, .. } = connection;
    match ending {
        Ending::Gone => worker.shared.planted.connection_lost(),
        Ending::ClosedByPeer(code) => close(stream, unsent, code, "", Farewell::Heard).await,
        Ending::Violated(code) => close(stream, unsent, code.number(), code.reason(), Farewell::Deaf).await,
        Ending::Stopped => {
            let code = CloseCode::GoingAway;
            close(stream, unsent, code.number(), code.reason(), Farewell::Awaited(reader)).await;
        }
    }
}

/// Waits until a token is good no more.
async fn expired(expiry: &mut Option<Pin<Box<tokio::time::Sleep>>>) {
    match expiry {
        Some(sleep) => sleep.await,
        None => std::future::pending().await,
    }
}

/// Waits for what befalls a connection.
async fn befallen(mishap: &mut Option<(Pin<Box<tokio::time::Sleep>>, Mishap)>) -> Option<Mishap> {
    let (sleep, what) = mishap.as_mut()?;
    sleep.await;
    Some(*what)
}

/// Keeps the connection open, and does nothing with it until the server shuts down.
async fn keep_silent<S>(connection: Connection<S>, mut stop: watch::Receiver<bool>) {
    // What is processed for it has nowhere to go.
    let Connection { stream, .. } = connection;
    let _ = stop.wait_for(|&stopped| stopped).await;
    drop(stream);
}

/// Refuses a connection whose handshake is done.
pub(super) async fn turn_away<S>(stream: S, max_message_bytes: usize)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let code = CloseCode::TryAgainLater;
    let farewell = Farewell::Awaited(Reader::new(Sender::Client, max_message_bytes));
    close(stream, BytesMut::new(), code.number(), code.reason(), farewell).await;
}

/// What is to be waited for from the peer, when it has been sent a close frame.
enum Farewell {
    /// Nothing: it closed first.
    Heard,
    /// Its close frame, behind whatever else it was sending.
    Awaited(Reader),
    /// The end of its stream: nothing that it sends can be understood any more.
    Deaf,
}

/// Sends the last answers and the close frame, and waits a while for the peer to close, too: closing a socket with
/// bytes unread would reset it, and the peer might never see why.
async fn close<S>(mut stream: S, mut unsent: BytesMut, code: u16, reason: &str, mut farewell: Farewell)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    append_close(&mut unsent, None, code, reason);
    // On the heap: an array would be part of every open connection's task.
    let mut input = vec![0; 4096];
    let closing = async {
        stream.write_all(&unsent).await?;
        stream.shutdown().await?;
        loop {
            if matches!(farewell, Farewell::Heard) {
                return Ok::<(), io::Error>(());
            }
            let filled = stream.read(&mut input).await?;
            if filled == 0 {
                return Ok(());
            }
            farewell = farewell.hear(input.get_mut(..filled).unwrap_or_default());
        }
    };
    // Whatever goes wrong now, the connection is over.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
}

impl Farewell {
    fn hear(self, input: &mut [u8]) -> Self {
        let Self::Awaited(mut reader) = self else { return self };
        let mut closed = false;
        let fed = reader.feed(input, |event| closed |= matches!(event, Event::Close(..)));
        match fed {
            _ if closed => Self::Heard,
            Ok(()) => Self::Awaited(reader),
            Err(_) => Self::Deaf,
        }
    }
}

/// How a connection ends.
#[derive(Debug)]
enum Ending {
    /// The peer is gone.
    Gone,
    /// The peer closed, with this code.
    ClosedByPeer(u16),
    /// The peer broke the protocol.
    Violated(CloseCode),
    /// The server shuts down.
    Stopped,
}

#[derive(Debug)]
struct Connection<S> {
    stream: S,
    worker: Rc<Worker>,
    session: Session,
    reader: Reader,
    /// Answers that the socket did not take yet.
    unsent: BytesMut,
    /// Whether the stream may hold bytes that it took and has not passed on, as one that encrypts does.
    flushing: bool,
    /// The sending side is shut down, by a fault: answers go nowhere.
    mute: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Does all there is to do; ready when the connection has ended and nothing but the close frame is to be sent.
    fn poll(&mut self, cx: &mut Context<'_>, draining: bool) -> Poll<Ending> {
        if self.poll_unsent(cx).is_err() {
            return Poll::Ready(Ending::Gone);
        }
        if self.unsent.len() >= MAX_UNSENT_BYTES {
            return Poll::Pending;
        }
        let mut scratch = self.worker.scratch.take();
        let mut ending = self.fill(cx, &mut scratch, draining);
        if self.send(cx, &scratch.out).is_err() {
            ending = Some(Ending::Gone);
        }
        scratch.recycle();
        self.worker.scratch.set(scratch);
        match ending {
            Some(ending) => Poll::Ready(ending),
            None if draining && self.is_settled() => Poll::Ready(Ending::Stopped),
            None => Poll::Pending,
        }
    }

    /// Collects answers: to what was processed meanwhile, then to what there is to read.
    fn fill(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch, draining: bool) -> Option<Ending> {
        if let Some(outbox) = self.session.outbox() {
            outbox.waker.register(cx.waker());
            self.session.delayed_answers(&mut scratch.out);
        }
        if let Some(released) = self.session.released() {
            released.waker.register(cx.waker());
            released.take(&mut scratch.out);
        }
        if draining {
            return None;
        }
        for _ in 0..READS_PER_TURN {
            let mut buffer = ReadBuf::new(&mut scratch.input);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => return None,
                Poll::Ready(Err(_)) => return Some(Ending::Gone),
                Poll::Ready(Ok(())) => {}
            }
            let filled = buffer.filled().len();
            if filled == 0 {
                return Some(Ending::Gone);
            }
            self.worker.spinner.batch_came();
            let input = scratch.input.get_mut(..filled).unwrap_or_default();
            if let Some(ending) = handle(&mut self.reader, &mut self.session, input, &mut scratch.out) {
                return Some(ending);
            }
        }
        cx.waker().wake_by_ref();
        None
    }

    /// Sends nothing more, and tells the peer so.
    async fn mute(&mut self) {
        self.unsent = BytesMut::new();
        self.mute = true;
        // Where that fails, the connection is over, and reading tells.
        let _ = self.stream.shutdown().await;
    }

    /// Writes `out`, behind what is unsent; keeps what the socket does not take.
    fn send(&mut self, cx: &mut Context<'_>, out: &[u8]) -> io::Result<()> {
        if self.mute {
            return Ok(());
        }
        let mut rest = out;
        while self.unsent.is_empty() && !rest.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, rest)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => rest = rest.get(written..).unwrap_or_default(),
                Poll::Pending => break,
            }
        }
        self.unsent.extend_from_slice(rest);
        self.flushing |= !out.is_empty();
        self.poll_flush(cx)
    }

    /// Has the stream pass on what it took, as far as it can.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.flushing && self.unsent.is_empty() {
            self.flushing = Pin::new(&mut self.stream).poll_flush(cx)?.is_pending();
        }
        Ok(())
    }

    /// Writes what is unsent, as far as the socket takes it.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.unsent)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => self.unsent.advance(written),
                Poll::Pending => return Ok(()),
            }
        }
        // An idle connection keeps no buffer.
        self.unsent = BytesMut::new();
        self.poll_flush(cx)
    }

    /// Whether everything admitted is answered and sent.
    fn is_settled(&self) -> bool {
        self.unsent.is_empty()
            && !self.flushing
            && self.session.outbox().is_none_or(|outbox| outbox.in_flight() == 0)
            && self.session.released().is_none_or(Released::is_settled)
    }
}

/// Answers what `input` completes; says how the connection ends, where it does.
fn handle(
    reader: &mut Reader,
    session: &mut Session,
    input: &mut [u8],
    out: &mut BytesMut,
) -> Option<Ending> {
    // One look at the clock a read: what is read together was received together.
    let now = WallTime::from_unix_ns(unix_now_ns());
    let mut closed = None;
    let fed = reader.feed(input, |event| match event {
        Event::Text(text) => session.text(text, now, out),
        Event::Binary(_) => session.error(INVALID_JSON, now, out),
        Event::Ping(payload) => append_control(out, Opcode::Pong, None, payload),
        Event::Pong => {}
        Event::Close(code, _) => {
            closed = Some(Ending::ClosedByPeer(code.unwrap_or(CloseCode::Normal.number())))
        }
    });
    fed.err()
        .map(|violation| Ending::Violated(violation.code()))
        .or(closed)
        .or_else(|| session.is_cut().then_some(Ending::Gone))
}
