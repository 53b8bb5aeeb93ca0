//! One proxied connection: which faults hold it, and how it ends.

use std::future::pending;
use std::io;
use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::journal::Action;
use super::leg::{Leg, READ_BYTES, Stop, Surroundings};
use super::{Injected, Shared, sleep_until};
use crate::clock::Clock;
use crate::fault::{Cut, Direction, Fault, Flow, Side, Verdict};

/// On one machine or in one rack a connection takes milliseconds; a server that takes longer is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// So long a closed connection still takes in what is under way, so that its end arrives as FIN: closing a
/// socket that has unread bytes sends RST.
const LINGER: Duration = Duration::from_secs(1);

/// One connection, from its acceptance to its end.
pub(super) struct Connection {
    /// Its number: what rules choose by.
    number: u64,
    opened_ns: u64,
    shared: Arc<Shared>,
    rules: watch::Receiver<Vec<Arc<Injected>>>,
    /// Rules below this number have been asked for their verdict.
    asked_below: u64,
    /// For each rule that meets this connection, now or later, its current or next hold.
    strikes: Vec<Strike>,
    wire: Wire,
}

/// One rule's current or next hold on this connection.
struct Strike {
    injected: Arc<Injected>,
    verdict: Verdict,
    /// Bytes read before it took hold; `None` until it does.
    held_from_bytes: Option<u64>,
}

/// The sockets and what flows between them.
struct Wire {
    client: Option<TcpStream>,
    /// `None` until the upstream is connected.
    server: Option<TcpStream>,
    to_server: Leg,
    to_client: Leg,
    /// The rule that closed one side without telling the other.
    half_opened_by: Option<u64>,
}

/// How the proxy leaves a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Both sides had ended it.
    Over,
    Fin,
    Reset,
}

impl Connection {
    pub(super) fn new(number: u64, client: TcpStream, shared: &Arc<Shared>) -> Self {
        // Where it fails the client has already gone, which the first read finds.
        let _ = client.set_nodelay(true);
        let wire = Wire {
            client: Some(client),
            server: None,
            to_server: Leg::default(),
            to_client: Leg::default(),
            half_opened_by: None,
        };
        Self {
            number,
            opened_ns: shared.clock.now_ns(),
            shared: Arc::clone(shared),
            rules: shared.rules.subscribe(),
            asked_below: 0,
            strikes: Vec::new(),
            wire,
        }
    }

    pub(super) async fn run(mut self) {
        let ending = self.live().await;
        for strike in take(&mut self.strikes) {
            if strike.spans() {
                self.release(&strike);
            }
        }
        self.wire.close(ending).await;
    }

    /// Carries bytes under whatever rules hold, until the connection ends. While nothing about the faults
    /// changes, all happens inside [`Wire::carry`].
    async fn live(&mut self) -> Ending {
        loop {
            if let Some(ending) = self.review() {
                return ending;
            }
            if self.wire.wants_server() {
                if self.connect().await.is_err() {
                    self.shared.upstream_failures.fetch_add(1, Ordering::Relaxed);
                    return Ending::Reset;
                }
                continue;
            }
            let next_change_ns = self.strikes.iter().filter_map(Strike::next_change_ns).min();
            let clock = self.shared.clock;
            let around = Surroundings { clock, journal: &self.shared.journal, connection: self.number };
            tokio::select! {
                biased;
                // Can't fail: the sender is in `shared`.
                _ = self.rules.changed() => {}
                () = sleep_until(clock, next_change_ns) => {}
                carried = self.wire.carry(&around) => return match carried {
                    Ok(()) => Ending::Over,
                    Err(Stop::Reset) => Ending::Reset,
                    Err(Stop::Cut { rule, bytes }) => {
                        self.shared.journal.record(rule, self.number, Action::Cut, bytes);
                        Ending::Fin
                    }
                },
            }
        }
    }

    /// Connects the upstream. Not interrupted by a change of the faults: a server would see each attempt.
    async fn connect(&mut self) -> io::Result<()> {
        let server = timeout(CONNECT_TIMEOUT, TcpStream::connect(self.shared.upstream())).await??;
        server.set_nodelay(true)?;
        self.wire.server = Some(server);
        Ok(())
    }

    /// Brings the faults up to the present: lets go what was removed or is over, takes up what is new,
    /// begins what is due. Returns how the connection ends, where a fault ends it.
    fn review(&mut self) -> Option<Ending> {
        let rules = self.rules.borrow_and_update().clone();
        let now_ns = self.shared.clock.now_ns();
        let mut ending = None;
        let (kept, removed): (Vec<Strike>, Vec<Strike>) = take(&mut self.strikes)
            .into_iter()
            .partition(|strike| rules.iter().any(|injected| injected.id == strike.injected.id));
        for strike in removed {
            ending = ending.or(self.release(&strike));
        }
        let asked_below = self.asked_below;
        let unasked = rules.into_iter().filter(|injected| injected.id >= asked_below);
        let new: Vec<Strike> = unasked
            .inspect(|injected| self.asked_below = injected.id + 1)
            .filter_map(|injected| Strike::next(injected, self.number, self.opened_ns, None))
            .collect();
        for strike in kept.into_iter().chain(new) {
            let (strike, ended) = self.advance(strike, now_ns);
            self.strikes.extend(strike);
            ending = ending.or(ended);
        }
        ending
    }

    /// Begins and ends `strike`, and those of the same rule that follow it, up to `now_ns`; returns the one
    /// that then holds or comes next.
    fn advance(&mut self, mut strike: Strike, now_ns: u64) -> (Option<Strike>, Option<Ending>) {
        let mut ending = None;
        while strike.next_change_ns().is_some_and(|change_ns| change_ns <= now_ns) {
            if strike.held_from_bytes.is_none() {
                ending = ending.or(self.take_hold(&mut strike, now_ns));
                continue;
            }
            ending = ending.or(self.release(&strike));
            let after = Some(strike.verdict.occurrence);
            match Strike::next(strike.injected, self.number, self.opened_ns, after) {
                Some(next) => strike = next,
                None => return (None, ending),
            }
        }
        (Some(strike), ending)
    }

    fn take_hold(&mut self, strike: &mut Strike, now_ns: u64) -> Option<Ending> {
        strike.held_from_bytes = Some(self.wire.read_bytes(strike.direction()));
        let (id, fault, seed) = (strike.injected.id, strike.injected.rule.fault(), strike.verdict.seed);
        match fault {
            Fault::Drop(Cut::Fin) => {
                self.record(id, Action::Closed, 0);
                return Some(Ending::Fin);
            }
            Fault::Drop(Cut::Rst) => {
                self.record(id, Action::Reset, 0);
                return Some(Ending::Reset);
            }
            Fault::HalfOpen { closed } => {
                if self.wire.half_opened_by.is_none() {
                    self.wire.half_open(closed, id);
                    self.record(id, Action::HalfOpened, 0);
                }
            }
            _ => {
                self.wire.to_server.effects.begin(id, fault, Flow::ToServer, seed, now_ns);
                self.wire.to_client.effects.begin(id, fault, Flow::ToClient, seed, now_ns);
                if strike.spans() {
                    self.record(id, Action::Began, 0);
                }
            }
        }
        None
    }

    fn release(&mut self, strike: &Strike) -> Option<Ending> {
        let from_bytes = strike.held_from_bytes?;
        let id = strike.injected.id;
        self.wire.to_server.effects.end(id);
        self.wire.to_client.effects.end(id);
        let bytes = self.wire.read_bytes(strike.direction()) - from_bytes;
        if self.wire.half_opened_by == Some(id) {
            self.record(id, Action::Reset, bytes);
            return Some(Ending::Reset);
        }
        if strike.spans() {
            self.record(id, Action::Ended, bytes);
        }
        None
    }

    fn record(&self, rule: u64, action: Action, bytes: u64) {
        self.shared.journal.record(rule, self.number, action, bytes);
    }
}

impl Strike {
    fn next(injected: Arc<Injected>, connection: u64, opened_ns: u64, after: Option<u64>) -> Option<Self> {
        let opened_ns = opened_ns.saturating_sub(injected.epoch_ns);
        let verdict = injected.rule.verdict(connection, opened_ns, after)?;
        Some(Self { injected, verdict, held_from_bytes: None })
    }

    /// When it begins or, once it holds, ends, on the proxy's clock.
    fn next_change_ns(&self) -> Option<u64> {
        let since_epoch_ns = match self.held_from_bytes {
            None => Some(self.verdict.begins_ns),
            Some(_) => self.verdict.ends_ns,
        };
        since_epoch_ns.map(|ns| ns.saturating_add(self.injected.epoch_ns))
    }

    /// Whether its beginning and its end are events of their own.
    fn spans(&self) -> bool {
        let fault = self.injected.rule.fault();
        fault.lasts() && !matches!(fault, Fault::Corrupt { .. })
    }

    fn direction(&self) -> Direction {
        match self.injected.rule.fault() {
            Fault::Latency { direction, .. }
            | Fault::Bandwidth { direction, .. }
            | Fault::SlowReader { direction, .. }
            | Fault::Partition { direction }
            | Fault::Silence { direction }
            | Fault::Corrupt { direction, .. }
            | Fault::Drop(Cut::MidFrame { direction }) => direction,
            Fault::Drop(Cut::Fin | Cut::Rst) | Fault::HalfOpen { .. } => Direction::Both,
        }
    }
}

impl Wire {
    /// Carries bytes both ways until both sides have ended. May be dropped at any await and called again.
    async fn carry(&mut self, around: &Surroundings<'_>) -> Result<(), Stop> {
        match (&mut self.client, &mut self.server) {
            (Some(client), Some(server)) => {
                let (from_client, to_client) = client.split();
                let (from_server, to_server) = server.split();
                tokio::try_join!(
                    self.to_server.carry(from_client, to_server, around),
                    self.to_client.carry(from_server, to_client, around),
                )?;
            }
            (Some(client), None) if self.half_opened_by.is_some() => {
                swallow(client, &mut self.to_server.read_bytes).await;
            }
            (None, Some(server)) => swallow(server, &mut self.to_client.read_bytes).await,
            // Held before it reached the server.
            (Some(_), None) => pending().await,
            // Both closed, by two faults: nothing is left.
            (None, None) => {}
        }
        Ok(())
    }

    fn wants_server(&self) -> bool {
        self.server.is_none() && self.half_opened_by.is_none() && !self.to_server.effects.holds()
    }

    fn half_open(&mut self, closed: Side, rule: u64) {
        match closed {
            Side::Client => self.client = None,
            Side::Server => self.server = None,
        }
        self.half_opened_by = Some(rule);
    }

    fn read_bytes(&self, direction: Direction) -> u64 {
        [(Flow::ToServer, &self.to_server), (Flow::ToClient, &self.to_client)]
            .into_iter()
            .filter(|(flow, _)| direction.meets(*flow))
            .map(|(_, leg)| leg.read_bytes)
            .sum()
    }

    async fn close(self, ending: Ending) {
        let streams = [self.client, self.server];
        match ending {
            Ending::Over => {}
            Ending::Reset => {
                for stream in streams.iter().flatten() {
                    // Where it fails the peer has already gone.
                    let _ = stream.set_zero_linger();
                }
            }
            Ending::Fin => {
                let [client, server] = streams;
                let _ = timeout(LINGER, async { tokio::join!(finish(client), finish(server)) }).await;
            }
        }
    }
}

/// Sends FIN, then takes in what still comes, until the other side ends as well.
async fn finish(stream: Option<TcpStream>) {
    if let Some(mut stream) = stream
        && stream.shutdown().await.is_ok()
    {
        swallow(&mut stream, &mut 0).await;
    }
}

/// Reads and forgets until the stream ends; adds to `read_bytes`.
async fn swallow(stream: &mut TcpStream, read_bytes: &mut u64) {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    while let Ok(read @ 1..) = stream.read_buf(&mut buffer).await {
        *read_bytes += read as u64;
        buffer.clear();
    }
}
