//! The second floor: frames that are built once, before the load, and sent again and again, as the `load_test` of
//! uWebSockets does. What it takes is what the frames' boundaries and the calls of the socket take; a line's distance
//! from it is what encoding, decoding, checking, accounting and timing cost.
//!
//! A request is one that the line sends, masked, and an answer is what the mock server says to it, so the bytes are those
//! of the line, and so are connections, windows and batches. The server reads how long each frame is and answers as many
//! as have ended, in one write, from one block of answers; the client does the same the other way round. No payload is
//! unmasked or looked at, no clock is read during the load, and there is no handshake, which is over before a load begins.
//!
//! Boundaries are found by the length alone, and not by [`floodline::websocket`]: its `Header` also refuses what breaks the
//! protocol, its `Reader` unmasks and checks UTF-8, and a floor must lie below all that. For the same reason one buffer and
//! one block of frames serve all connections of a side, and stay in its cache.
//!
//! That nothing was left out is checked once, at the end: as many answers came as requests left, the server saw as many,
//! and the bytes on both sides are so many times a frame's.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Write};
use std::pin::Pin;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::BytesMut;
use floodline::dialect::{Dialect, Floodline, Identity, RequestKind, Session};
use floodline::message::{Request, ThroughputResponse, WallTime, decode_request_text};
use floodline::websocket::{Masks, Opcode, append};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::peer::{self, Peer, READ_BYTES};

/// Turns this program into the server of this floor.
pub(super) const SERVER: &str = "--frame-server";

/// As in the lines.
const PAYLOAD_BYTES: usize = 64;
/// So many digits as a connection's messages have through most of three seconds of a line.
const SEQUENCE: u64 = 123_456;
/// So many digits as today's times have.
const NOW_NS: u64 = 1_790_000_000_123_456_789;

/// Round trips a second.
pub(super) fn measure(connections: usize, window: usize, duration: Duration) -> anyhow::Result<f64> {
    let frames = Frames::build()?;
    let requests: Rc<[u8]> = frames.request.repeat(window).into();
    let mut server = Peer::start(SERVER, connections)?;
    let (asked, seconds) = LocalSet::new().block_on(&peer::runtime()?, async {
        let streams = server.connect(connections).await?;
        let input = Input::default();
        // A thread that sleeps, so that nobody else needs a clock.
        let over = Arc::new(AtomicBool::new(false));
        let signal = Arc::clone(&over);
        let begun = Instant::now();
        std::thread::spawn(move || {
            std::thread::sleep(duration);
            signal.store(true, Ordering::Relaxed);
        });
        let tasks: Vec<_> = streams
            .into_iter()
            .map(|stream| {
                let asking = ask(stream, Rc::clone(&requests), window, input.clone(), Arc::clone(&over));
                tokio::task::spawn_local(asking)
            })
            .collect();
        let mut asked = Vec::with_capacity(connections);
        for task in tasks {
            asked.push(task.await??);
        }
        anyhow::Ok((asked, begun.elapsed().as_secs_f64()))
    })?;
    let (mut sent, mut answers, mut requests) = (0, Count::default(), Count::default());
    for (some, count) in asked {
        sent += some;
        answers.add(count);
        requests.add(server.line()?.parse()?);
    }
    let expected = |frame: &[u8]| Count { frames: sent, bytes: sent * frame.len() as u64 };
    let (requested, answered) = (expected(&frames.request), expected(&frames.answer));
    ensure!(requests == requested, "the server saw {requests:?} of {requested:?}");
    ensure!(answers == answered, "the client saw {answers:?} of {answered:?}");
    Ok(sent as f64 / seconds)
}

/// Keeps `window` requests under way until the load is over, and waits for the rest of the answers; how many requests
/// left, and what came.
async fn ask(
    mut stream: TcpStream,
    requests: Rc<[u8]>,
    window: usize,
    input: Input,
    over: Arc<AtomicBool>,
) -> anyhow::Result<(u64, Count)> {
    let frame_bytes = requests.len() / window;
    let mut boundaries = Boundaries::default();
    stream.write_all(&requests).await?;
    let mut sent = window as u64;
    while boundaries.count.frames < sent {
        let Some(ended) = input.read(&mut stream, &mut boundaries).await? else {
            bail!("the server hung up")
        };
        if ended > 0 && !over.load(Ordering::Relaxed) {
            let more = requests.get(..ended * frame_bytes).context("more answers than requests")?;
            stream.write_all(more).await?;
            sent += ended as u64;
        }
    }
    Ok((sent, boundaries.count))
}

/// The server: as many answers as requests have ended, and when a connection ends what has come on it.
pub(super) fn serve() -> anyhow::Result<()> {
    let frames = Frames::build()?;
    // One read can end the frame that the one before it began, and as many as it holds.
    let answers: Rc<[u8]> = frames.answer.repeat(READ_BYTES / frames.request.len() + 1).into();
    let frame_bytes = frames.answer.len();
    let input = Input::default();
    peer::serve(move |mut stream| {
        let (answers, input) = (Rc::clone(&answers), input.clone());
        async move {
            let mut boundaries = Boundaries::default();
            while let Ok(Some(ended)) = input.read(&mut stream, &mut boundaries).await
                && let Some(answers) = answers.get(..ended * frame_bytes)
                && stream.write_all(answers).await.is_ok()
            {}
            let Count { frames, bytes } = boundaries.count;
            // Where nobody reads it, the load is given up already.
            let _ = writeln!(io::stdout(), "{frames} {bytes}");
        }
    })
}

/// A request of the lines, and what the mock server answers to it, as they stand on the wire.
struct Frames {
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Frames {
    fn build() -> anyhow::Result<Self> {
        let identity = Identity { client_id: "0123abcd-0-17".to_owned(), connection: 17 };
        let mut session =
            Floodline::new(1, PAYLOAD_BYTES, RequestKind::ThroughputTest, None).session(identity);
        let now = WallTime::from_unix_ns(NOW_NS);
        let mut text = BytesMut::new();
        session.encode(SEQUENCE, now, &mut text);
        let Request::ThroughputTest(test) = decode_request_text(std::str::from_utf8(&text)?)? else {
            bail!("not the request that it should be");
        };
        let response = ThroughputResponse {
            message_id: test.message_id,
            sequence_id: test.sequence_id,
            server_time: now,
            queue_depth: 0,
            content_crc32: Some(crc32fast::hash(test.content.as_bytes())),
        };
        let (mut request, mut answer) = (BytesMut::new(), BytesMut::new());
        let key = Masks::from_system().next_key();
        append(&mut request, Opcode::Text, Some(key), |out| out.extend_from_slice(&text));
        append(&mut answer, Opcode::Text, None, |out| response.encode(out));
        Ok(Self { request: request.to_vec(), answer: answer.to_vec() })
    }
}

/// What all connections of a side read into: nothing of it is kept.
#[derive(Clone)]
struct Input(Rc<RefCell<Vec<u8>>>);

impl Default for Input {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(vec![0; READ_BYTES])))
    }
}

impl Input {
    /// Reads once; how many frames ended, or `None` at the end of the stream.
    async fn read(&self, stream: &mut TcpStream, boundaries: &mut Boundaries) -> io::Result<Option<usize>> {
        poll_fn(|cx| {
            let mut input = self.0.borrow_mut();
            let mut input = ReadBuf::new(&mut input);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut input))?;
            let bytes = input.filled();
            Poll::Ready(Ok((!bytes.is_empty()).then(|| boundaries.pass(bytes))))
        })
        .await
    }
}

/// What has come on a connection, or on several.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    /// That have ended.
    frames: u64,
    bytes: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
    }
}

impl FromStr for Count {
    type Err = anyhow::Error;

    /// From the line that the server writes.
    fn from_str(line: &str) -> anyhow::Result<Self> {
        let (frames, bytes) = line.trim().split_once(' ').context("not two numbers")?;
        Ok(Self { frames: frames.parse()?, bytes: bytes.parse()? })
    }
}

/// Finds where the frames of one connection end.
#[derive(Default)]
struct Boundaries {
    count: Count,
    /// What is still to come of the frame whose length was read last.
    missing: usize,
    /// The start of a header that a read cut before its length.
    cut: Vec<u8>,
}

impl Boundaries {
    /// How many frames end in the next bytes.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        self.count.bytes += bytes.len() as u64;
        let ended = if self.cut.is_empty() {
            self.find(bytes)
        } else {
            let mut whole = std::mem::take(&mut self.cut);
            whole.extend_from_slice(bytes);
            self.find(&whole)
        };
        self.count.frames += ended as u64;
        ended
    }

    fn find(&mut self, bytes: &[u8]) -> usize {
        let mut ended = 0;
        let mut at = self.missing;
        if at > 0 && at <= bytes.len() {
            ended += 1;
        }
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let Some(frame_bytes) = frame_bytes(rest) else {
                self.cut = rest.to_vec();
                at = bytes.len();
                break;
            };
            at += frame_bytes;
            if at <= bytes.len() {
                ended += 1;
            }
        }
        self.missing = at - bytes.len();
        ended
    }
}

/// How long the frame is that begins there, header included; `None` where its length is not there yet.
#[inline]
fn frame_bytes(bytes: &[u8]) -> Option<usize> {
    let &[_, second, ref rest @ ..] = bytes else { return None };
    let mask_bytes = if second & 0x80 == 0 { 0 } else { 4 };
    let (length_bytes, payload_bytes) = match second & 0x7f {
        126 => (2, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (8, u64::from_be_bytes(*rest.first_chunk()?) as usize),
        length => (0, usize::from(length)),
    };
    Some(2 + length_bytes + mask_bytes + payload_bytes)
}
