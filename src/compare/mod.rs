//! Two results, or two servers, against each other: is the second better, worse, or the same?
//!
//! Two that run are measured in turn, which of them first drawn by lot, each time in a process of its own on cores of its own, so that whatever
//! the machine does over minutes falls on both alike, and the luck of one process (where its memory lies) is drawn anew
//! each time. Figures are compared pair by pair ([`analysis::paired`](crate::analysis::paired)), judged together (Holm), and
//! held against what two of the same differ by on this machine ([`noise`]).

pub mod judge;
pub mod measure;
pub mod noise;
mod order;
mod pin;
pub mod reference;
pub mod results;
pub mod turn;

use thiserror::Error;

use crate::analysis::bootstrap::BootstrapError;
use crate::limits::LimitError;
use crate::run::{RunError, ServerProcessError};
use crate::units::UnitError;
use crate::workload::WorkloadError;

/// Two cannot be compared.
#[derive(Debug, Error)]
pub enum CompareError {
    /// The loads of two results differ.
    #[error(
        "{load}: the results are of different loads: `{field}` differs (--force compares them all the same)"
    )]
    DifferentWorkload {
        /// Which load.
        load: String,
        /// The first field that differs.
        field: &'static str,
    },
    /// Two results are of different machines.
    #[error("the results are of different machines: {a} and {b} (--force compares them all the same)")]
    DifferentMachine {
        /// A's fingerprint.
        a: String,
        /// B's.
        b: String,
    },
    /// The results have no load in common.
    #[error("the results have no load in common{}", case.as_ref().map(|case| format!(" in the case {case}")).unwrap_or_default())]
    NothingInCommon {
        /// The case asked for.
        case: Option<String>,
    },
    /// A load could not be offered.
    #[error("{name}: {source}")]
    Run {
        /// To which of the two.
        name: String,
        /// What went wrong.
        source: Box<RunError>,
    },
    /// A server did not start.
    #[error("{name}: {source}")]
    Server {
        /// Which of the two.
        name: String,
        /// What went wrong.
        source: ServerProcessError,
    },
    /// An executable's own client did not deliver.
    #[error("{name}: its own client: {cause}")]
    OwnClient {
        /// Which of the two.
        name: String,
        /// What it did instead.
        cause: String,
    },
    /// The load makes no sense.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// A rate that is none.
    #[error(transparent)]
    Rate(#[from] UnitError),
    /// Not enough file descriptors.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// No figure has values in enough pairs.
    #[error("no figure can be compared: {0}")]
    Figures(#[from] BootstrapError),
    /// It was ended before there was enough.
    #[error("stopped before the comparison was done")]
    Stopped,
}
