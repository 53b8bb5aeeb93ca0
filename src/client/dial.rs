//! Opening a connection: the byte stream, the handshake over it, and what the dialect says first, within a limit of time.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::{SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::connect::{Connect, ConnectError};
use super::opening::open_session;
use super::transport::Tapped;
use crate::clock::Clock;
use crate::dialect::{Dialect, Identity};

/// tungstenite fills its read buffer with zeros before each read, so a large one costs more than the system calls that
/// it saves; 8 KiB is also most of what a connection weighs.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// Above a batch, so that only a flush writes.
const WRITE_BUFFER_BYTES: usize = 128 * 1024;
/// What an answer may weigh: the largest payload, echoed with every character escaped, fits.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Opens connections to the target.
#[derive(Debug, Clone)]
pub(super) struct Dialer<K, D, C> {
    pub(super) connect: K,
    pub(super) dialect: D,
    pub(super) clock: C,
    /// How long opening one may take.
    pub(super) limit: Duration,
}

/// A connection over which load may be offered.
pub(super) struct Dialed<S, D, C> {
    pub(super) ws: WebSocketStream<Tapped<S, C>>,
    pub(super) session: D,
    pub(super) setup: Setup,
}

/// How long opening a WebSocket took, and what of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub(super) total_ns: u64,
    /// TCP alone.
    pub(super) connect_ns: u64,
    /// TLS alone; `None` without it.
    pub(super) tls_ns: Option<u64>,
    /// The handshake of the WebSocket.
    pub(super) upgrade_ns: u64,
}

impl<K: Connect, D: Dialect, C: Clock + Unpin> Dialer<K, D, C> {
    /// Opens that of the connection with this identity.
    pub(super) fn dial(
        &self,
        identity: Identity,
    ) -> impl Future<Output = Result<Dialed<K::Stream, D::Session, C>, ConnectError>> + use<K, D, C> {
        let Self { connect, dialect, clock, limit } = self.clone();
        let subprotocol = dialect.subprotocol();
        let connection = identity.connection;
        let shaking = async move {
            let begun_ns = clock.now_ns();
            let mut request = connect.request(connection)?;
            if let Some(name) = subprotocol {
                let headers = request.headers_mut();
                headers.entry(SEC_WEBSOCKET_PROTOCOL).or_insert(HeaderValue::from_static(name));
            }
            let stream = connect.open().await?;
            let opened_ns = clock.now_ns();
            let tls_ns = K::tls_time(&stream).map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
            let stream = Tapped::new(stream, clock.clone());
            let shaken = client_async_with_config(request, stream, Some(websocket_config())).await;
            let (ws, response) = shaken.map_err(ConnectError::of_handshake)?;
            // None is ever asked for, and tungstenite does not look (RFC 6455, section 4.1, last list, point 5).
            if let Some(extension) = response.headers().get(SEC_WEBSOCKET_EXTENSIONS) {
                let cause = format!("it uses an extension that was not asked for: {extension:?}");
                return Err(ConnectError::NotWebSocket { cause });
            }
            let open_ns = clock.now_ns();
            let setup = Setup {
                total_ns: open_ns.saturating_sub(begun_ns),
                connect_ns: opened_ns.saturating_sub(begun_ns).saturating_sub(tls_ns.unwrap_or_default()),
                tls_ns,
                upgrade_ns: open_ns.saturating_sub(opened_ns),
            };
            Ok((ws, clock, begun_ns, setup))
        };
        async move {
            let (deadline, seconds) = (Instant::now() + limit, limit.as_secs_f64());
            let shaken = timeout_at(deadline, Box::pin(shaking)).await;
            let (mut ws, clock, begun_ns, setup) = shaken.unwrap_or(Err(ConnectError::TimedOut { seconds }))?;
            let mut session = dialect.session(identity);
            let name = dialect.name();
            let opened = timeout_at(deadline, open_session(&mut ws, &mut session)).await;
            let said = opened.unwrap_or_else(|_| Err(format!("nothing that opens it, within {seconds} s")));
            said.map_err(|said| ConnectError::DialectRefused { dialect: name, said })?;
            // What the dialect says first is part of the whole.
            let setup = Setup { total_ns: clock.now_ns().saturating_sub(begun_ns), ..setup };
            Ok(Dialed { ws, session, setup })
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
