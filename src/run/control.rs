//! A connection beside the load, to ask a server of our wire how it is.

use std::time::Duration;

use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::client::{Access, Connect, ConnectError, NetStream, TcpConnect};
use crate::message::{PerformanceStats, Response, decode_response, encode_purge, encode_stats_request};
use crate::workload::Target;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The server did not say how it is.
#[derive(Debug, Error)]
pub enum ControlError {
    /// It cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// There is no runtime to ask with.
    #[error("no runtime: {0}")]
    Runtime(#[from] std::io::Error),
    /// The connection broke.
    #[error("the server's statistics: {0}")]
    Lost(#[from] WsError),
    /// It did not answer in time, or with something else.
    #[error("the server does not answer `get_performance_stats`: {cause}")]
    NoStats {
        /// What it did instead.
        cause: &'static str,
    },
}

impl ControlError {
    /// Whether it is we who cannot ask, whatever the server would answer.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        match self {
            Self::Runtime(_) => true,
            Self::Connect(cause) => cause.is_ours(),
            _ => false,
        }
    }
}

/// Asks a server for its statistics.
pub struct ControlConnection {
    runtime: Runtime,
    ws: WebSocketStream<NetStream>,
}

impl ControlConnection {
    /// Connects to `target`.
    ///
    /// # Errors
    /// Where it cannot be reached.
    pub fn open(target: &Target, access: impl Into<Access>) -> Result<Self, ControlError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let connect = TcpConnect::new(target.clone(), access)?;
        let ws = runtime.block_on(async {
            let opening = async {
                let request = connect.request(0)?;
                let (ws, _) = client_async(request, connect.open().await?).await?;
                Ok::<_, ControlError>(ws)
            };
            match tokio::time::timeout(PATIENCE, opening).await {
                Ok(opened) => opened,
                Err(_) => Err(ControlError::NoStats { cause: "no handshake within 10 s" }),
            }
        })?;
        Ok(Self { runtime, ws })
    }

    /// The server's statistics now.
    ///
    /// # Errors
    /// Where it does not answer, or does not know the request.
    pub fn stats(&mut self) -> Result<PerformanceStats, ControlError> {
        self.ask(encode_stats_request)
    }

    /// Has the server give free memory back to the system; its statistics afterwards.
    ///
    /// # Errors
    /// Where it does not answer, or does not know the request.
    pub fn purge(&mut self) -> Result<PerformanceStats, ControlError> {
        self.ask(encode_purge)
    }

    fn ask(&mut self, encode: fn(&mut BytesMut)) -> Result<PerformanceStats, ControlError> {
        let mut request = BytesMut::new();
        encode(&mut request);
        let text = String::from_utf8_lossy(&request).into_owned();
        let ws = &mut self.ws;
        self.runtime.block_on(async {
            let answer = async {
                ws.send(Message::text(text)).await?;
                while let Some(message) = ws.next().await {
                    if let Message::Text(text) = message? {
                        return match decode_response(text.as_bytes()) {
                            Ok(Response::PerformanceStats(stats)) => Ok(*stats),
                            _ => Err(ControlError::NoStats { cause: "it answers something else" }),
                        };
                    }
                }
                Err(ControlError::NoStats { cause: "it closed the connection" })
            };
            match tokio::time::timeout(PATIENCE, answer).await {
                Ok(stats) => stats,
                Err(_) => Err(ControlError::NoStats { cause: "no answer within 10 s" }),
            }
        })
    }
}
