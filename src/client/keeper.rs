//! Keeps one client connected: drives its WebSocket, and where that is lost opens the next, as far as the policy says.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::{Instant, sleep, timeout_at};

use super::account::Account;
use super::connect::Connect;
use super::connection::Connection;
use super::dial::{Dialed, Dialer, Socket};
use super::report::End;
use super::transport::Transport;
use crate::clock::Clock;
use crate::dialect::{Dialect, Identity};
use crate::retry::{Backoff, PingPolicy, RetryPolicy};
use crate::units;

/// A client under load.
pub(super) struct Keeper<K: Connect, C: Clock + Unpin, D: Dialect> {
    account: Account<C, D::Session>,
    line: Line<K::Stream, D::Session, C>,
    ping: Option<PingPolicy>,
    retry: Option<Box<Retry<K, D, C>>>,
}

/// How a client gets its connection back.
pub(super) struct Retry<K, D, C> {
    policy: RetryPolicy,
    dialer: Rc<Dialer<K, D, C>>,
    identity: Identity,
    backoff: Backoff,
    /// Since it lost a connection over which something had come.
    cut_off_since: Option<Instant>,
}

enum Line<S: Transport, D, C: Clock + Unpin> {
    Up(Box<Connection<S, C>>),
    Down { lost: End, redial: Redial<S, D, C> },
}

/// Dials until it has a connection, or has to give up: then the reason.
type Redial<S, D, C> = Pin<Box<dyn Future<Output = Result<Redialed<S, D, C>, End>>>>;

struct Redialed<S, D, C> {
    socket: Socket<S, C>,
    session: D,
    /// Where it stands, should this connection come to nothing.
    backoff: Backoff,
}

impl<K: Connect, D: Dialect, C: Clock + Unpin> Retry<K, D, C> {
    pub(super) fn new(
        policy: RetryPolicy,
        dialer: Rc<Dialer<K, D, C>>,
        identity: Identity,
        seed: u64,
    ) -> Self {
        Self { policy, dialer, identity, backoff: policy.backoff(seed), cut_off_since: None }
    }

    fn redial(&mut self, lost: &End, was_served: bool) -> Redial<K::Stream, D::Session, C> {
        let (dialer, mut backoff) = (Rc::clone(&self.dialer), self.backoff.clone());
        let identity = self.identity.clone();
        let since = *self.cut_off_since.get_or_insert_with(Instant::now);
        let give_up_after = self.policy.give_up_after;
        let End { refused, reason } = lost.clone();
        Box::pin(async move {
            let mut failure = None;
            let dialing = async {
                loop {
                    sleep(backoff.next().unwrap_or_default()).await;
                    match dialer.dial(identity.clone()).await {
                        Ok(dialed) => return dialed,
                        Err(error) => failure = Some(error.to_string()),
                    }
                }
            };
            let Some(limit) = give_up_after else {
                let Dialed { socket, session, .. } = dialing.await;
                return Ok(Redialed { socket, session, backoff });
            };
            let dialed = timeout_at(since + limit, dialing).await;
            dialed.map(|Dialed { socket, session, .. }| Redialed { socket, session, backoff }).map_err(|_| {
                let why = failure.unwrap_or(reason);
                let reason = format!("not connected again within {}: {why}", units::span(limit));
                End { refused: refused && !was_served, reason }
            })
        })
    }
}

impl<K: Connect, C: Clock + Unpin, D: Dialect> Keeper<K, C, D> {
    pub(super) fn new(
        account: Account<C, D::Session>,
        socket: Socket<K::Stream, C>,
        ping: Option<PingPolicy>,
        retry: Option<Retry<K, D, C>>,
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

    fn reconnected(&mut self, redialed: Redialed<K::Stream, D::Session, C>) {
        if let Some(retry) = &mut self.retry {
            retry.backoff = redialed.backoff;
        }
        self.line = Line::Up(Box::new(Connection::new(redialed.socket, self.ping)));
        self.account.reconnected(redialed.session);
    }

    /// It ended before the load did.
    fn finish(&mut self, end: End) {
        self.account.end(end);
        self.account.report();
    }
}

impl<K: Connect, C: Clock + Unpin, D: Dialect> Future for Keeper<K, C, D>
where
    D::Session: Unpin,
{
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
