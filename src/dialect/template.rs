//! A request with gaps: a text in which `{id}`, `{sequence}`, `{payload}` and `{now}` stand for what differs.

use bytes::BytesMut;
use serde_json::Value;

use crate::message::WallTime;

/// A request with gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Id,
    Sequence,
    Payload,
    Now,
}

static GAPS: [(&str, Piece); 4] = [
    ("{id}", Piece::Id),
    ("{sequence}", Piece::Sequence),
    ("{payload}", Piece::Payload),
    ("{now}", Piece::Now),
];

/// What the gaps are filled with.
pub(super) struct Values<'a> {
    pub(super) client_id: &'a str,
    pub(super) sequence: u64,
    /// Needs no escaping within a JSON text.
    pub(super) payload: &'a str,
    pub(super) now: WallTime,
}

impl Template {
    /// Reads a template, which must name its message and be JSON once its gaps are filled.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let template = Self { pieces: pieces(text) };
        if !template.has_id() && !template.pieces.contains(&Piece::Sequence) {
            return Err("the request must hold {id} or {sequence}, by which its answer is known");
        }
        let mut sample = BytesMut::new();
        let now = WallTime::from_unix_ns(1_500_000_000);
        template.write(&Values { client_id: "r-0-0", sequence: 1, payload: "x", now }, &mut sample);
        match serde_json::from_slice::<Value>(&sample) {
            Ok(_) => Ok(template),
            Err(_) => Err(
                "the request is not JSON once its gaps are filled; {id} and {payload} stand within quotes",
            ),
        }
    }

    pub(super) fn has_id(&self) -> bool {
        self.pieces.contains(&Piece::Id)
    }

    pub(super) fn has_payload(&self) -> bool {
        self.pieces.contains(&Piece::Payload)
    }

    /// Appends the request with its gaps filled.
    pub(super) fn write(&self, values: &Values<'_>, out: &mut BytesMut) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Payload => out.extend_from_slice(values.payload.as_bytes()),
                Piece::Now => values.now.encode(out),
                Piece::Sequence => {
                    out.extend_from_slice(itoa::Buffer::new().format(values.sequence).as_bytes());
                }
                Piece::Id => {
                    out.extend_from_slice(values.client_id.as_bytes());
                    out.extend_from_slice(b"-");
                    out.extend_from_slice(itoa::Buffer::new().format(values.sequence).as_bytes());
                }
            }
        }
    }
}

fn pieces(mut text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    loop {
        let first =
            GAPS.iter().filter_map(|(gap, piece)| Some((text.find(gap)?, gap, piece))).min_by_key(|g| g.0);
        let (before, rest) = first.map_or((text, ""), |(at, gap, _)| (&text[..at], &text[at + gap.len()..]));
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let Some((_, _, piece)) = first else { return pieces };
        pieces.push(piece.clone());
        text = rest;
    }
}
