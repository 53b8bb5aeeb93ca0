//! The simulated server: our wire, a bounded queue, one worker, and a store of what it has processed that survives a
//! crash. What it does is written down, as the truth that the client's account is compared with.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use floodline::message::{
    AiResponse, Backpressure, DuplicateRejected, MessageId, QueueFull, Request, ThroughputResponse, WallTime,
    decode_request_text,
};
use floodline::schedule::mix;
use futures::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async};
use turmoil::net::TcpListener;

use crate::network::{Chopped, PORT};
use crate::scenario::{Act, Bug, Dice, Scenario, ServerPlan};

/// Which message: its connection and sequence.
pub type Key = (u32, u64);

/// What really happened, over all lives of the server.
pub struct Truth {
    pub plan: ServerPlan,
    chop: Option<u64>,
    dice: RefCell<Dice>,
    /// What survives a crash: the ids that were processed.
    store: RefCell<BTreeSet<Key>>,
    /// How often each message was received, was processed, and had an answer leave for it.
    pub received: RefCell<BTreeMap<Key, u64>>,
    pub executed: RefCell<BTreeMap<Key, u64>>,
    /// The contents, by the first request of each message.
    pub contents: RefCell<BTreeMap<Key, String>>,
    /// Messages that came again with another content.
    pub changed: RefCell<Vec<Key>>,
    /// What happened, with how often.
    pub events: RefCell<BTreeMap<&'static str, u64>>,
    acts: Cell<u64>,
    bugs: Cell<u64>,
    /// Everything that happened and when, in a number.
    digest: RefCell<DefaultHasher>,
    /// Whether to tell it as well.
    trace: bool,
}

impl Truth {
    pub fn new(scenario: &Scenario, trace: bool) -> Self {
        let plan = scenario.server.clone();
        Self {
            chop: scenario.chop,
            dice: RefCell::new(Dice::new(mix(scenario.seed, 1))),
            store: RefCell::default(),
            received: RefCell::default(),
            executed: RefCell::default(),
            contents: RefCell::default(),
            changed: RefCell::default(),
            events: RefCell::default(),
            acts: Cell::new(plan.acts),
            bugs: Cell::new(plan.bug.map_or(0, |(_, times)| times)),
            digest: RefCell::default(),
            plan,
            trace,
        }
    }

    /// Something happened at this simulated time.
    pub fn event(&self, at: Duration, what: &'static str, key: Option<Key>) {
        *self.events.borrow_mut().entry(what).or_default() += 1;
        (at.as_nanos(), what, key).hash(&mut *self.digest.borrow_mut());
        if self.trace {
            println!("{:>10.3} ms  {what}{}", at.as_secs_f64() * 1e3, shown(key));
        }
    }

    pub fn happened(&self, what: &str) -> u64 {
        self.events.borrow().get(what).copied().unwrap_or(0)
    }

    pub fn digest(&self) -> u64 {
        self.digest.borrow().finish()
    }

    /// How often the bug has struck.
    pub fn bugs_struck(&self) -> u64 {
        self.plan.bug.map_or(0, |(_, times)| times) - self.bugs.get()
    }

    fn note(&self, what: &'static str, key: Option<Key>) {
        self.event(turmoil::sim_elapsed().unwrap_or_default(), what, key);
    }

    fn wait(&self, range: &std::ops::Range<u64>) -> Duration {
        self.dice.borrow_mut().ms(range.clone())
    }

    /// What this request meets with, where it is its turn.
    fn act(&self) -> Option<Act> {
        let mut dice = self.dice.borrow_mut();
        if self.acts.get() == 0 || !dice.once_in(self.plan.act_every) {
            return None;
        }
        self.acts.set(self.acts.get() - 1);
        Some(dice.pick(&Act::ALL))
    }

    /// Whether the bug strikes now: in one of three cases, as often as it may.
    fn strikes(&self, bug: Bug) -> bool {
        let is_planted = self.plan.bug.is_some_and(|(planted, _)| planted == bug);
        let strikes = is_planted && self.bugs.get() > 0 && self.dice.borrow_mut().once_in(3);
        self.bugs.set(self.bugs.get() - u64::from(strikes));
        strikes
    }

    /// Notes that a request came, and what it says.
    fn receive(&self, text: &str) -> Received {
        let (id, content, once) = match decode_request_text(text).unwrap() {
            Request::UserMessage(message) => (message.message_id, message.content, true),
            Request::ThroughputTest(test) => (test.message_id, Some(test.content), false),
            other => panic!("the client sent {other:?}"),
        };
        let (key, content) = (key(&id), content.unwrap_or_default().into_owned());
        *self.received.borrow_mut().entry(key).or_default() += 1;
        self.note("received", Some(key));
        let mut contents = self.contents.borrow_mut();
        if *contents.entry(key).or_insert_with(|| content.clone()) != content {
            self.changed.borrow_mut().push(key);
        }
        Received { key, id: id.into_owned(), content, once }
    }

    /// Says goodbye, and waits for the peer's; what still comes is received, and goes no further.
    async fn close(&self, ws: &mut WebSocketStream<Chopped>, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        let _ = ws.send(Message::Close(Some(frame))).await;
        while let Some(Ok(message)) = ws.next().await {
            if let Message::Text(text) = message {
                self.receive(&text);
                self.note("received after goodbye", None);
            }
        }
    }

    /// It crashed.
    pub fn crashed(&self) {
        if self.plan.bug.is_some_and(|(bug, _)| bug == Bug::ForgetsItsStore) {
            self.store.borrow_mut().clear();
        }
    }
}

fn shown(key: Option<Key>) -> String {
    key.map(|(connection, sequence)| format!("  {connection}-{sequence}")).unwrap_or_default()
}

/// What goes to a connection.
enum Out {
    Text(String),
    Half(String),
    Close,
    Cut,
    Silence,
}

type Line = mpsc::UnboundedSender<Out>;

/// What a request says.
struct Received {
    key: Key,
    id: String,
    content: String,
    /// Whether its kind is processed once for an id.
    once: bool,
}

/// A request that waits.
struct Job {
    key: Key,
    id: String,
    content: String,
    once: bool,
    act: Option<Act>,
    line: Line,
    /// Whether it has its answer already.
    answered: bool,
}

/// One life of the server: what a crash takes away.
struct Life {
    truth: Rc<Truth>,
    queue: RefCell<VecDeque<Job>>,
    work: Notify,
    /// Where the answer to an id that is queued or in work goes.
    under_way: RefCell<BTreeMap<Key, Line>>,
    /// Answers that a swap holds back, by connection.
    held_back: RefCell<BTreeMap<u32, Out>>,
}

/// Runs the server until it is crashed.
pub async fn run(truth: Rc<Truth>) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    truth.note("server started", None);
    let life = Rc::new(Life {
        truth,
        queue: RefCell::default(),
        work: Notify::new(),
        under_way: RefCell::default(),
        held_back: RefCell::default(),
    });
    tokio::task::spawn_local(work(Rc::clone(&life)));
    for place in 0_u64.. {
        let (stream, _) = listener.accept().await?;
        let stream = Chopped::new(stream, life.truth.chop, mix(place, 7));
        tokio::task::spawn_local(serve(Rc::clone(&life), stream));
    }
    Ok(())
}

/// Serves one connection until it ends.
async fn serve(life: Rc<Life>, stream: Chopped) {
    let truth = &life.truth;
    let Ok(mut ws) = accept_async(stream).await else { return truth.note("handshake failed", None) };
    truth.note("connection accepted", None);
    let busy = truth.acts.get() > 0 && truth.dice.borrow_mut().once_in(12);
    if busy {
        truth.acts.set(truth.acts.get() - 1);
        truth.note("refused as busy", None);
        return truth.close(&mut ws, 1013, "full").await;
    }
    let (line, mut outs) = mpsc::unbounded_channel();
    loop {
        let goes_on = tokio::select! {
            biased;
            Some(out) = outs.recv() => life.give(&mut ws, out).await,
            read = ws.next() => match read {
                Some(Ok(Message::Text(text))) => life.take(&text, &line),
                Some(Ok(Message::Close(_))) | None => false,
                Some(Ok(_)) => true,
                Some(Err(_)) => {
                    truth.note("connection broken", None);
                    false
                }
            },
        };
        if !goes_on {
            return;
        }
    }
}

impl Life {
    /// Sends it; whether the connection goes on.
    async fn give(&self, ws: &mut WebSocketStream<Chopped>, out: Out) -> bool {
        match out {
            Out::Text(text) => ws.send(Message::text(text)).await.is_ok(),
            Out::Half(text) => {
                let frame = crate::support::frame(0x81, text.as_bytes());
                let _ = ws.get_mut().write_all(&frame[..frame.len() / 2]).await;
                false
            }
            Out::Close => {
                self.truth.close(ws, 1001, "going away").await;
                false
            }
            Out::Cut => false,
            Out::Silence => std::future::pending().await,
        }
    }

    /// Takes a request; whether the connection goes on.
    fn take(&self, text: &str, line: &Line) -> bool {
        let truth = &self.truth;
        let request = truth.receive(text);
        let key = request.key;
        let act = truth.act();
        match act {
            Some(Act::CutBefore) => {
                truth.note("cut before work", Some(key));
                return false;
            }
            // Whatever is answered on this connection from now on is never sent.
            Some(Act::Silence) => {
                truth.note("silent", Some(key));
                let _ = line.send(Out::Silence);
            }
            _ => {}
        }
        let Received { key, id, content, once } = request;
        self.admit(Job { key, id, content, once, act, line: line.clone(), answered: false });
        true
    }

    fn admit(&self, mut job: Job) {
        let truth = &self.truth;
        if job.once {
            if let Some(line) = self.under_way.borrow_mut().get_mut(&job.key) {
                truth.note("taken again while under way", Some(job.key));
                *line = job.line;
                return;
            }
            if truth.store.borrow().contains(&job.key) {
                truth.note("rejected as a duplicate", Some(job.key));
                return send(&job.line, |out| duplicate_rejected(&job, out));
            }
        }
        let depth = self.queue.borrow().len();
        if depth >= truth.plan.capacity {
            truth.note("refused", Some(job.key));
            send(&job.line, |out| queue_full(&job, depth, truth.plan.capacity, out));
            return send(&job.line, |out| backpressure(depth, truth.plan.capacity, out));
        }
        if truth.strikes(Bug::AnswersBeforeWork) {
            self.answer(&job, &job.line);
            job.answered = true;
        }
        if job.once {
            self.under_way.borrow_mut().insert(job.key, job.line.clone());
        }
        self.queue.borrow_mut().push_back(job);
        self.work.notify_one();
    }

    /// Answers, or what the job meets with instead.
    fn answer(&self, job: &Job, line: &Line) {
        let truth = &self.truth;
        let encode = |id: &str, content: &str| {
            let mut out = BytesMut::new();
            processed(job, id, content, self.queue.borrow().len(), &mut out);
            String::from_utf8(out.to_vec()).unwrap()
        };
        let text = encode(&job.id, &job.content);
        let out = match job.act {
            Some(Act::CutAfter) => Out::Cut,
            Some(Act::CutWithin) => Out::Half(text),
            Some(Act::Close) => Out::Close,
            _ if truth.strikes(Bug::DropsAnswers) => return,
            _ if truth.strikes(Bug::Misnames) => {
                Out::Text(encode(&format!("nobody-{}", job.id), &job.content))
            }
            _ if truth.strikes(Bug::Alters) => Out::Text(encode(&job.id, &format!("x{}", job.content))),
            _ if truth.strikes(Bug::AnswersTwice) => {
                let _ = line.send(Out::Text(text.clone()));
                Out::Text(text)
            }
            _ => Out::Text(text),
        };
        match &out {
            Out::Cut => truth.note("cut after work", Some(job.key)),
            Out::Half(_) => truth.note("cut within an answer", Some(job.key)),
            Out::Close => truth.note("closed", Some(job.key)),
            _ => truth.note("answered", Some(job.key)),
        }
        let mut held_back = self.held_back.borrow_mut();
        if let Some(held) = held_back.remove(&job.key.0) {
            truth.bugs.set(truth.bugs.get() - 1);
            let _ = line.send(out);
            let _ = line.send(held);
        } else if held_back.is_empty() && self.swaps_next() {
            held_back.insert(job.key.0, out);
        } else {
            let _ = line.send(out);
        }
    }

    fn swaps_next(&self) -> bool {
        let planted = self.truth.plan.bug.is_some_and(|(bug, _)| bug == Bug::Swaps);
        planted && self.truth.bugs.get() > 0
    }
}

/// Processes what is queued, one after the other.
async fn work(life: Rc<Life>) {
    let truth = &life.truth;
    loop {
        let Some(job) = life.queue.borrow_mut().pop_front() else {
            life.work.notified().await;
            continue;
        };
        tokio::time::sleep(truth.wait(&truth.plan.processing_ms)).await;
        *truth.executed.borrow_mut().entry(job.key).or_default() += 1;
        truth.note("executed", Some(job.key));
        if job.once {
            truth.store.borrow_mut().insert(job.key);
        }
        let pause = truth.wait(&truth.plan.answering_ms);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let line = life.under_way.borrow_mut().remove(&job.key);
        if !job.answered {
            life.answer(&job, line.as_ref().unwrap_or(&job.line));
        }
    }
}

/// Connection and sequence of an id `{run}-{shard}-{connection}-{sequence}`.
pub fn key(id: &str) -> Key {
    let id = MessageId::parse(id).unwrap();
    let (_, connection) = id.client_id.rsplit_once('-').unwrap();
    (connection.parse().unwrap(), id.n)
}

fn now() -> WallTime {
    let since_epoch = turmoil::since_epoch().unwrap_or_default();
    WallTime::from_unix_ns(since_epoch.as_nanos() as u64)
}

fn send(line: &Line, encode: impl FnOnce(&mut BytesMut)) {
    let mut out = BytesMut::new();
    encode(&mut out);
    let _ = line.send(Out::Text(String::from_utf8(out.to_vec()).unwrap()));
}

fn processed(job: &Job, id: &str, content: &str, depth: usize, out: &mut BytesMut) {
    let (message_id, now, queue_depth) = (Cow::Borrowed(id), now(), depth as u64);
    if job.once {
        let (sequence_id, content) = (Some(job.key.1), Cow::Borrowed(content));
        AiResponse {
            message_id,
            sequence_id,
            content,
            processing_time_s: 0.0,
            server_timestamp: now,
            queue_depth,
            timestamp: now,
        }
        .encode(out);
    } else {
        let content_crc32 = Some(crc32fast::hash(content.as_bytes()));
        ThroughputResponse {
            message_id,
            sequence_id: job.key.1,
            server_time: now,
            queue_depth,
            content_crc32,
        }
        .encode(out);
    }
}

fn duplicate_rejected(job: &Job, out: &mut BytesMut) {
    DuplicateRejected { message_id: Cow::Borrowed(&job.id), original_timestamp: now(), timestamp: now() }
        .encode(out);
}

fn queue_full(job: &Job, depth: usize, capacity: usize, out: &mut BytesMut) {
    QueueFull {
        message_id: Cow::Borrowed(&job.id),
        sequence_id: Some(job.key.1),
        queue_depth: depth as u64,
        max_queue: capacity as u64,
    }
    .encode(out);
}

fn backpressure(depth: usize, capacity: usize, out: &mut BytesMut) {
    Backpressure {
        message: Cow::Borrowed("full"),
        queue_depth: depth as u64,
        max_queue: capacity as u64,
        timestamp: now(),
    }
    .encode(out);
}
