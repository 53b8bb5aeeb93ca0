//! What came from the server and matched nothing that was asked: beside the counts, the first few are shown.

use serde::{Deserialize, Serialize};

/// How many are kept: enough to see what a server says that nobody expected, few enough to read.
pub const UNMATCHED_KEPT: usize = 10;

/// A message from the server that answers none of ours as it should, as it came but for our secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unmatched {
    /// When it came, in seconds after the start of the load.
    pub t_s: f64,
    /// The connection's index over all shards.
    pub connection: u32,
    /// What it was counted as.
    pub kind: UnmatchedKind,
    /// The frame that held it, cut short where it is long; binary is escaped. Where a secret of ours was in it, there is
    /// [`HIDDEN`](crate::secrets::HIDDEN).
    pub text: String,
}

/// What is wrong with a message that matches none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnmatchedKind {
    /// It answers what this connection never asked.
    Foreign,
    /// Its form or its content is wrong.
    Corrupted,
    /// It names no message.
    Unattributed,
}

impl UnmatchedKind {
    /// The word, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Corrupted => "corrupted",
            Self::Unattributed => "unattributed",
        }
    }
}

impl Unmatched {
    /// Its text on one line, whatever it holds.
    #[must_use]
    pub fn line(&self) -> String {
        if self.text.is_empty() {
            return "(empty)".to_owned();
        }
        self.text.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
    }

    /// Leaves the first [`UNMATCHED_KEPT`] by when they came.
    pub fn keep_first(unmatched: &mut Vec<Self>) {
        unmatched.sort_by(|a, b| a.t_s.total_cmp(&b.t_s).then(a.connection.cmp(&b.connection)));
        unmatched.truncate(UNMATCHED_KEPT);
    }
}
