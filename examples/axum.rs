//! A WebSocket server of somebody else's, made with axum, under floodline's cases: as tests (`cargo test --example axum`)
//! and as benchmarks (`cargo run --release --example axum -- --bench`; in a repository of your own that is a file in
//! `benches/`).

use std::process::ExitCode;

use axum::Router;
use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{Message, WebSocket};
use axum::response::Response;
use axum::routing::any;
use axum::serve::ListenerExt;
use floodline::dialect::DialectKind;
use floodline::harness::Harness;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

// The server: what a repository of your own has already.

/// Sends each message back.
async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let answer = matches!(message, Message::Text(_) | Message::Binary(_));
        if answer && socket.send(message).await.is_err() {
            return;
        }
    }
}

async fn upgrade(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(echo)
}

/// Listens on a free port of this machine; ends when the runtime is dropped.
fn serve() -> std::io::Result<(String, Runtime)> {
    let runtime = Runtime::new()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let url = format!("ws://{}/ws", listener.local_addr()?);
    // Else each small answer waits for the acknowledgement of the one before.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let app = Router::new().route("/ws", any(upgrade));
    runtime.spawn(async move { axum::serve(listener, app).await });
    Ok((url, runtime))
}

// All that floodline needs to know of it.

fn server() -> Harness {
    #[allow(clippy::expect_used, reason = "a test fails by panicking")]
    Harness::in_process(|| serve().expect("a port on loopback")).dialect(DialectKind::Echo)
}

fn main() -> ExitCode {
    server().bench("axum")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_order_and_loses_nothing() {
        server().check("ordering");
    }

    #[test]
    fn it_comes_through_cuts() {
        server().set("delivery.messages", "100").set("delivery.kill_period", "500ms").check("delivery");
    }
}
