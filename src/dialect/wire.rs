//! What a session keeps whose frames are pieces of a byte stream: what came and is not whole yet, what the peer is owed.

use bytes::{Bytes, BytesMut};

use super::Frame;

/// A peer that makes us owe it more than this, and does not read it, is let go.
const OWED_BYTES: usize = 1 << 20;
/// The largest piece of a stream that is waited for, as the largest answer that the WebSocket layer takes.
pub(super) const PIECE_BYTES: usize = 16 << 20;

/// Both directions of a stream, and whether it is over.
#[derive(Debug, Default)]
pub(super) struct Wire {
    pub(super) incoming: BytesMut,
    owed: BytesMut,
    ended: Option<String>,
    /// Whether the end was told.
    told: bool,
    /// Whether the stream broke, and that is still to be counted.
    broken: bool,
}

impl Wire {
    /// Appends what came. Nothing that comes after the end is looked at.
    pub(super) fn feed(&mut self, frame: Frame<'_>) {
        if self.ended.is_none() {
            self.incoming.extend_from_slice(match frame {
                Frame::Text(text) => text.as_bytes(),
                Frame::Binary(bytes) => bytes,
            });
        }
    }

    /// What the peer is owed, to be added to.
    pub(super) fn owe(&mut self) -> &mut BytesMut {
        if self.owed.len() > OWED_BYTES {
            self.end("the server wants more replies than it reads".to_owned());
            self.owed.clear();
        }
        &mut self.owed
    }

    /// All that the peer is owed.
    pub(super) fn take_owed(&mut self) -> Option<Bytes> {
        (!self.owed.is_empty()).then(|| self.owed.split().freeze())
    }

    /// It is over, for this reason where there was none before.
    pub(super) fn end(&mut self, reason: String) {
        self.incoming.clear();
        self.ended.get_or_insert(reason);
    }

    /// What came can be nothing: it is over, and something is to be counted as corrupted.
    pub(super) fn broken(&mut self, reason: String) {
        self.broken = self.ended.is_none();
        self.end(reason);
    }

    /// Whether the stream has just broken; told once.
    pub(super) fn take_broken(&mut self) -> bool {
        std::mem::take(&mut self.broken)
    }

    /// Why it is over; told once.
    pub(super) fn take_end(&mut self) -> Option<String> {
        let ended = self.ended.as_ref().filter(|_| !self.told).cloned();
        self.told |= ended.is_some();
        ended
    }

    /// The same, for an opening.
    pub(super) fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }
}
