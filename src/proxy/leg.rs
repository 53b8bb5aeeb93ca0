//! One flow of a connection: reads from one side, writes to the other, under the effects in force.
//!
//! All state is in the [`Leg`], none in its futures: the connection may drop [`Leg::carry`] at any await,
//! change the effects and call it again, and no byte is lost or repeated.

use std::collections::VecDeque;
use std::future::pending;
use std::io;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::task::coop::consume_budget;

use super::journal::{Action, Journal};
use super::sleep_until;
use crate::clock::{Clock, TokioClock};
use crate::fault::effect::Effects;

/// At most so much is read at once: some dozen small messages, while 500 connections keep 16 MiB.
pub(super) const READ_BYTES: usize = 16 << 10;
/// At most so much is kept back by a latency, then reading stops: what a link of 100 MiB/s has under way at 40 ms.
const DELAYED_BYTES: usize = 4 << 20;

/// Why a connection can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// One side reset the connection, or is gone.
    Reset,
    /// The rule `rule` cut it, after a part of `bytes` bytes was forwarded.
    Cut { rule: u64, bytes: u64 },
}

/// What a leg needs beside its sockets.
pub(super) struct Surroundings<'a> {
    pub(super) clock: TokioClock,
    pub(super) journal: &'a Journal,
    pub(super) connection: u64,
}

#[derive(Debug, Default)]
pub(super) struct Leg {
    /// The faults in force; set by the connection.
    pub(super) effects: Effects,
    /// Bytes read so far, lost ones included.
    pub(super) read_bytes: u64,
    /// Read and not yet written.
    unsent: BytesMut,
    /// The due instants of the last of `unsent`, each with its number of bytes; what stands before them is
    /// due. The first blocks the others, so jitter can't turn the order around.
    delayed: VecDeque<(u64, usize)>,
    /// The sum of the bytes in `delayed`.
    delayed_bytes: usize,
    /// The source has ended, and how; passed on once `unsent` is empty.
    end: Option<End>,
    /// The end was passed on: nothing is left to do.
    over: bool,
    /// What is in `unsent` is the last, and then the rule named cuts the connection.
    cut: Option<Stop>,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Fin,
    Reset,
}

impl Leg {
    /// Carries bytes until the source's end was passed on.
    ///
    /// # Errors
    /// Where the whole connection is to end.
    pub(super) async fn carry(
        &mut self,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
        around: &Surroundings<'_>,
    ) -> Result<(), Stop> {
        if self.effects.holds() {
            // Not even read: the peer's bytes stay in the socket, and when that is full the peer must wait.
            return pending().await;
        }
        while !self.over {
            if let Some(cut) = self.cut {
                self.write_all(&mut to).await?;
                return Err(cut);
            }
            if self.effects.is_clear() {
                self.copy(&mut from, &mut to).await?;
            } else {
                self.shape(&from, &mut to, around).await?;
            }
        }
        Ok(())
    }

    /// The plain copy, while there is no fault: no clock, no journal.
    async fn copy(&mut self, from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) -> Result<(), Stop> {
        self.undelay();
        loop {
            self.write_all(to).await?;
            if let Some(end) = self.end {
                return self.pass_on(end, to).await;
            }
            self.unsent.reserve(READ_BYTES);
            let read = from.read_buf(&mut (&mut self.unsent).limit(READ_BYTES)).await;
            self.note_read(read);
        }
    }

    /// The copy under faults; returns when none is left.
    async fn shape(
        &mut self,
        from: &ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
        around: &Surroundings<'_>,
    ) -> Result<(), Stop> {
        if !self.effects.delays() {
            self.undelay();
        }
        while !self.effects.is_clear() && self.cut.is_none() {
            let now_ns = around.clock.now_ns();
            let mut wait = Wait::default();
            let wrote = self.write_due(to, now_ns, &mut wait)?;
            let read = self.read_allowed(from, now_ns, &mut wait, around);
            match self.end {
                // A silence keeps the end to itself as well.
                Some(end) if self.unsent.is_empty() && !self.effects.swallows() => {
                    return self.pass_on(end, to).await;
                }
                _ if wrote || read => consume_budget().await,
                _ => wait.over(from, to, around.clock).await,
            }
        }
        Ok(())
    }

    /// Writes what is due and allowed; whether anything was.
    fn write_due(&mut self, to: &WriteHalf<'_>, now_ns: u64, wait: &mut Wait) -> Result<bool, Stop> {
        while let Some(&(due_ns, bytes)) = self.delayed.front() {
            if due_ns > now_ns {
                wait.until(due_ns);
                break;
            }
            self.delayed_bytes -= bytes;
            self.delayed.pop_front();
        }
        let due_bytes = self.unsent.len() - self.delayed_bytes;
        if due_bytes == 0 {
            return Ok(false);
        }
        let allowed = match self.effects.may_write(due_bytes, now_ns) {
            Ok(allowed) => allowed,
            Err(at_ns) => {
                wait.until(at_ns);
                return Ok(false);
            }
        };
        match to.try_write(&self.unsent[..allowed]) {
            Ok(written) => {
                self.unsent.advance(written);
                self.effects.wrote(written);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait.writable = true;
                Ok(false)
            }
            Err(_) => Err(Stop::Reset),
        }
    }

    /// Reads what is there, allowed and has room; whether anything was, an end included.
    fn read_allowed(
        &mut self,
        from: &ReadHalf<'_>,
        now_ns: u64,
        wait: &mut Wait,
        around: &Surroundings<'_>,
    ) -> bool {
        let most = if self.effects.delays() { DELAYED_BYTES } else { READ_BYTES };
        let room = most.saturating_sub(self.unsent.len()).min(READ_BYTES);
        if room == 0 || self.end.is_some() {
            return false;
        }
        let allowed = match self.effects.may_read(room, now_ns) {
            Ok(allowed) => allowed,
            Err(at_ns) => {
                wait.until(at_ns);
                return false;
            }
        };
        let before = self.unsent.len();
        self.unsent.reserve(allowed);
        match from.try_read_buf(&mut (&mut self.unsent).limit(allowed)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait.readable = true;
                return false;
            }
            read => self.note_read(read),
        }
        if self.unsent.len() > before {
            self.treat(before, now_ns, around);
        }
        true
    }

    /// Lets the faults have what was read after the first `before` bytes of `unsent`.
    fn treat(&mut self, before: usize, now_ns: u64, around: &Surroundings<'_>) {
        let fate = self.effects.read(&mut self.unsent[before..], now_ns);
        self.unsent.truncate(before + fate.kept_bytes);
        if let Some(due_ns) = fate.due_ns {
            self.delayed.push_back((due_ns, fate.kept_bytes));
            self.delayed_bytes += fate.kept_bytes;
        }
        for altered in fate.altered {
            let (offset_bytes, before, after) = (altered.offset_bytes, altered.before, altered.after);
            let action = Action::Corrupted { offset_bytes, before, after };
            around.journal.record(altered.rule, around.connection, action, 1);
        }
        self.cut = fate.cut_by.map(|rule| Stop::Cut { rule, bytes: fate.kept_bytes as u64 });
    }

    fn note_read(&mut self, read: io::Result<usize>) {
        match read {
            Ok(0) => self.end = Some(End::Fin),
            Ok(bytes) => self.read_bytes += bytes as u64,
            Err(_) => self.end = Some(End::Reset),
        }
    }

    async fn write_all(&mut self, to: &mut WriteHalf<'_>) -> Result<(), Stop> {
        while !self.unsent.is_empty() {
            let written = to.write(&self.unsent).await.map_err(|_| Stop::Reset)?;
            self.unsent.advance(written);
        }
        Ok(())
    }

    async fn pass_on(&mut self, end: End, to: &mut WriteHalf<'_>) -> Result<(), Stop> {
        match end {
            End::Fin => {
                self.over = true;
                to.shutdown().await.map_err(|_| Stop::Reset)
            }
            End::Reset => Err(Stop::Reset),
        }
    }

    fn undelay(&mut self) {
        self.delayed.clear();
        self.delayed_bytes = 0;
    }
}

/// What a leg that can do nothing waits for; whichever comes first.
#[derive(Debug, Default)]
struct Wait {
    readable: bool,
    writable: bool,
    at_ns: Option<u64>,
}

impl Wait {
    fn until(&mut self, at_ns: u64) {
        self.at_ns = Some(self.at_ns.map_or(at_ns, |earlier_ns| earlier_ns.min(at_ns)));
    }

    async fn over(&self, from: &ReadHalf<'_>, to: &WriteHalf<'_>, clock: TokioClock) {
        // An error of either socket is found by the read or write that follows.
        tokio::select! {
            _ = from.readable(), if self.readable => {}
            _ = to.writable(), if self.writable => {}
            () = sleep_until(clock, self.at_ns) => {}
        }
    }
}
