//! Keeps one client connected: drives its WebSocket, and where that is lost opens the next, as far as the policy says.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::{Instant, sleep, timeout_at};

use super::account::Account;
use super::connect::Connect;
use super::connection::Connection;
use super::dial::{Dialer, Socket};
use super::report::End;
use super::transport::Transport;
use crate::clock::Clock;
use crate::dialect::Session;
use crate::retry::{Backoff, PingPolicy, RetryPolicy};
use crate::units;

/// A client under load.
pub(super) struct Keeper<K: Connect, C: Clock + Unpin, D> {
    account: Account<C, D>,
    line: Line<K::Stream, C>,
    ping: Option<PingPolicy>,
    retry: Option<Box<Retry<K, C>>>,
}

/// How a client gets its connection back.
pub(super) struct Retry<K, C> {
    policy: RetryPolicy,
    dialer: Rc<Dialer<K, C>>,
    backoff: Backoff,
    /// Since it lost a connection over which something had come.
    cut_off_since: Option<Instant>,
}

enum Line<S: Transport, C: Clock + Unpin> {
    Up(Box<Connection<S, C>>),
    Down { lost: End, redial: Redial<S, C> },
}

/// Dials until it has a connection, or has to give up: then the reason.
type Redial<S, C> = Pin<Box<dyn Future<Output = Result<Redialed<S, C>, End>>>>;

struct Redialed<S, C> {
    socket: Socket<S, C>,
    /// Where it stands, should this connection come to nothing.
    backoff: Backoff,
}

impl<K: Connect, C: Clock + Unpin> Retry<K, C> {
    pub(super) fn new(policy: RetryPolicy, dialer: Rc<Dialer<K, C>>, seed: u64) -> Self {
        Self { policy, dialer, backoff: policy.backoff(seed), cut_off_since: None }
    }

    fn redial(&mut self, lost: &End, was_served: bool) -> Redial<K::Stream, C> {
        let (dialer, mut backoff) = (Rc::clone(&self.dialer), self.backoff.clone());
        let since = *self.cut_off_since.get_or_insert_with(Instant::now);
        let give_up_after = self.policy.give_up_after;
        let End { refused, reason } = lost.clone();
        Box::pin(async move {
            let mut failure = None;
            let dialing = async {
                loop {
                    sleep(backoff.next().unwrap_or_default()).await;
                    match dialer.dial().await {
                        Ok(dialed) => return dialed.socket,
                        Err(error) => failure = Some(error.to_string()),
                    }
                }
            };
            let Some(limit) = give_up_after else {
                let socket = dialing.await;
                return Ok(Redialed { socket, backoff });
            };
            let dialed = timeout_at(since + limit, dialing).await;
            dialed.map(|socket| Redialed { socket, backoff }).map_err(|_| {
                let why = failure.unwrap_or(reason);
                let reason = format!("not connected again within {}: {why}", units::span(limit));
                End { refused: refused && !was_served, reason }
            })
        })
    }
}

impl<K: Connect, C: Clock + Unpin, D: Session> Keeper<K, C, D> {
    pub(super) fn new(
        account: Account<C, D>,
        socket: Socket<K::Stream, C>,
        ping: Option<PingPolicy>,
        retry: Option<Retry<K, C>>,
    ) -> Self {
        Self {
            account,
            line: Line::Up(Box::new(Connection::new(socket, ping))),
            ping,
            retry: retry.map(Box::new),
        }
    }

    /// Drives the client until it waits for something (pending), or is over.
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.account.is_closed() {
            match &mut self.line {
                Line::Up(connection) => match connection.exchange(&mut self.account, cx) {
                    Ok(()) => {
                        self.account.publish();
                        return Poll::Pending;
                    }
                    Err(end) => self.lost(end, cx),
                },
                Line::Down { redial, .. } => match redial.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.account.wait();
                        self.account.publish();
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(redialed)) => self.reconnected(redialed),
                    Poll::Ready(Err(end)) => self.finish(end),
                },
            }
        }
        Poll::Ready(())
    }

    /// The connection is lost: for good, or until the next.
    fn lost(&mut self, end: End, cx: &mut Context<'_>) {
        let Line::Up(connection) = &mut self.line else { return };
        let Some(retry) = &mut self.retry else { return self.finish(end) };
        // Where the peer has closed, this is the close frame that it is owed (RFC 6455, section 5.5.1); it is not
        // waited for.
        let _ = connection.poll_close(&self.account.shared, cx);
        let heard = connection.heard();
        if heard {
            retry.backoff.restart();
            retry.cut_off_since = None;
        }
        if end.refused && !heard && retry.cut_off_since.is_some() {
            self.account.refused_again();
        } else {
            self.account.lost(&end);
        }
        let redial = retry.redial(&end, self.account.was_served());
        self.line = Line::Down { lost: end, redial };
    }

    fn reconnected(&mut self, redialed: Redialed<K::Stream, C>) {
        if let Some(retry) = &mut self.retry {
            retry.backoff = redialed.backoff;
        }
        self.line = Line::Up(Box::new(Connection::new(redialed.socket, self.ping)));
        self.account.reconnected();
    }

    /// It ended before the load did.
    fn finish(&mut self, end: End) {
        self.account.end(end);
        self.account.report();
    }
}

impl<K: Connect, C: Clock + Unpin, D: Session + Unpin> Future for Keeper<K, C, D> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.account.slot().register(cx.waker());
        this.account.truncate();
        std::task::ready!(this.drive(cx));
        match &mut this.line {
            Line::Up(connection) => {
                this.account.report();
                // Where the peer has closed, this is the close frame that it is owed (RFC 6455, section 5.5.1).
                // A peer that does not close with us is not waited for: the worker drops the connection in the end.
                connection.poll_close(&this.account.shared, cx)
            }
            Line::Down { lost, .. } => {
                let refused = lost.refused && !this.account.was_served();
                let reason = format!("not connected again by the end: {}", lost.reason);
                this.account.end(End { refused, reason });
                this.account.report();
                Poll::Ready(())
            }
        }
    }
}
