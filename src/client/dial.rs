//! Opening a WebSocket: the byte stream, then the handshake over it, within a limit of time.

use std::time::Duration;

use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_EXTENSIONS;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::connect::{Connect, ConnectError};
use super::transport::Tapped;
use crate::clock::Clock;

/// tungstenite fills its read buffer with zeros before each read, so a large one costs more than the system calls that
/// it saves; 8 KiB is also most of what a connection weighs.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// Above a batch, so that only a flush writes.
const WRITE_BUFFER_BYTES: usize = 128 * 1024;
/// What an answer may weigh: the largest payload, echoed with every character escaped, fits.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Opens WebSockets to the target.
#[derive(Debug, Clone)]
pub(super) struct Dialer<K, C> {
    pub(super) connect: K,
    pub(super) clock: C,
    /// How long opening one may take.
    pub(super) limit: Duration,
}

/// A WebSocket whose handshake is done.
pub(super) struct Dialed<S, C> {
    pub(super) ws: WebSocketStream<Tapped<S, C>>,
    pub(super) setup_ns: u64,
}

impl<K: Connect, C: Clock + Unpin> Dialer<K, C> {
    /// Opens one.
    pub(super) fn dial(
        &self,
    ) -> impl Future<Output = Result<Dialed<K::Stream, C>, ConnectError>> + use<K, C> {
        let Self { connect, clock, limit } = self.clone();
        let opening = async move {
            let begun_ns = clock.now_ns();
            let request = connect.request()?;
            let stream = Tapped::new(connect.open().await?, clock.clone());
            let shaken = client_async_with_config(request, stream, Some(websocket_config())).await;
            let (ws, response) = shaken.map_err(ConnectError::of_handshake)?;
            // None is ever asked for, and tungstenite does not look (RFC 6455, section 4.1, last list, point 5).
            if let Some(extension) = response.headers().get(SEC_WEBSOCKET_EXTENSIONS) {
                let cause = format!("it uses an extension that was not asked for: {extension:?}");
                return Err(ConnectError::NotWebSocket { cause });
            }
            Ok(Dialed { ws, setup_ns: clock.now_ns().saturating_sub(begun_ns) })
        };
        async move {
            match tokio::time::timeout(limit, Box::pin(opening)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(ConnectError::TimedOut { seconds: limit.as_secs_f64() }),
            }
        }
    }
}

fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(Some(MAX_ANSWER_BYTES))
        .max_frame_size(Some(MAX_ANSWER_BYTES))
}
