//! The body of a message that comes back as it was sent: its id, a space, and content up to the payload's size.

use bytes::BytesMut;

use super::{Answer, Content, DialectError, Identity};
use crate::ledger::Lane;
use crate::message::MessageId;

/// Room for the longest id that a run makes: run, shard and connection, and a sequence of 20 digits.
pub(super) const ID_BYTES: usize = 48;

/// Bodies of one size.
#[derive(Debug, Clone)]
pub(super) struct Body {
    content: Content,
    bytes: usize,
}

impl Body {
    /// Bodies of `bytes` bytes, for a dialect of that name.
    pub(super) fn new(dialect: &'static str, seed: u64, bytes: usize) -> Result<Self, DialectError> {
        if bytes < ID_BYTES {
            return Err(DialectError::PayloadTooSmall { dialect, bytes, needed: ID_BYTES });
        }
        Ok(Self { content: Content::new(seed, bytes), bytes })
    }

    /// How long each is.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Appends that of message `sequence`: ASCII that neither JSON nor a line needs escaped.
    pub(super) fn write(&self, identity: &Identity, sequence: u64, out: &mut BytesMut) {
        out.reserve(self.bytes + ID_BYTES);
        let start = out.len();
        out.extend_from_slice(identity.client_id.as_bytes());
        out.extend_from_slice(b"-");
        out.extend_from_slice(itoa::Buffer::new().format(sequence).as_bytes());
        out.extend_from_slice(b" ");
        let head_bytes = out.len() - start;
        out.extend_from_slice(self.tail(identity, sequence, head_bytes).as_bytes());
    }

    /// What it means that `bytes` came back, compared byte for byte; `in_form` where what carried them was as it should be.
    pub(super) fn answer(&self, identity: &Identity, bytes: &[u8], in_form: bool) -> Answer {
        let head_bytes = bytes.iter().take(ID_BYTES * 2).position(|&byte| byte == b' ');
        let Some((id, tail)) = head_bytes.and_then(|at| Some((bytes.get(..at)?, bytes.get(at + 1..)?)))
        else {
            return Answer::Corrupted;
        };
        let Some(MessageId { client_id, n: sequence }) =
            std::str::from_utf8(id).ok().and_then(MessageId::parse)
        else {
            return Answer::Corrupted;
        };
        if client_id != identity.client_id {
            return Answer::Foreign;
        }
        let intact = in_form && tail == self.tail(identity, sequence, id.len() + 1).as_bytes();
        Answer::Processed { sequence, lane: Some(Lane::Normal), intact, queue_depth: None }
    }

    /// What follows the id and its space, which together take `head_bytes`.
    fn tail(&self, identity: &Identity, sequence: u64, head_bytes: usize) -> &str {
        let content = self.content.of(identity.connection, sequence);
        content.get(head_bytes..).unwrap_or_default()
    }
}
