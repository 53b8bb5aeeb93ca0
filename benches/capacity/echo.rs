//! The first floor: a bare TCP echo of as many bytes in batches of the same size, which encodes, checks and counts nothing.

use std::time::{Duration, Instant};

use anyhow::bail;
use floodline::record::LatencyHistogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::peer::{self, Peer, READ_BYTES};

/// Turns this program into the server of this floor.
pub(super) const SERVER: &str = "--echo-server";

/// The bytes of a request and its answer with 64 bytes of content, frames included, halved: what an echo of as many bytes
/// sends and gets back.
const ECHO_BYTES: usize = 190;

/// Echoes a second, and the median of a round trip in microseconds.
pub(super) fn measure(connections: usize, window: usize, duration: Duration) -> anyhow::Result<(f64, f64)> {
    let server = Peer::start(SERVER, connections)?;
    LocalSet::new().block_on(&peer::runtime()?, async {
        let streams = server.connect(connections).await?;
        let begun = Instant::now();
        let tasks: Vec<_> = streams
            .into_iter()
            .map(|stream| tokio::task::spawn_local(ask(stream, window, begun + duration)))
            .collect();
        let (mut echoes, mut round_trips) = (0, LatencyHistogram::default());
        for task in tasks {
            let (some, histogram) = task.await??;
            echoes += some;
            round_trips.add(&histogram);
        }
        let rate = echoes as f64 / begun.elapsed().as_secs_f64();
        let p50_ns = round_trips.quantile(0.5, 0).unwrap_or_default();
        Ok((rate, p50_ns as f64 / 1e3))
    })
}

/// Keeps `window` messages under way until `ends`: whatever has come back is sent again in one write.
async fn ask(mut stream: TcpStream, window: usize, ends: Instant) -> anyhow::Result<(u64, LatencyHistogram)> {
    let messages = vec![b'x'; window * ECHO_BYTES];
    // Room for a byte more than can come: a read that fills its buffer is followed by one that finds nothing.
    let mut input = vec![0; READ_BYTES.min(window * ECHO_BYTES + 1)];
    let (mut echoes, mut part, mut round_trips) = (0, 0, LatencyHistogram::default());
    let mut sent = Instant::now();
    stream.write_all(&messages).await?;
    while sent < ends {
        let some = stream.read(&mut input).await?;
        if some == 0 {
            bail!("the echo server hung up");
        }
        part += some;
        let whole = part / ECHO_BYTES;
        part %= ECHO_BYTES;
        echoes += whole as u64;
        if whole > 0 {
            let now = Instant::now();
            round_trips.record((now - sent).as_nanos() as u64);
            sent = now;
            stream.write_all(messages.get(..whole * ECHO_BYTES).unwrap_or_default()).await?;
        }
    }
    Ok((echoes, round_trips))
}

/// The server: sends back what it reads.
pub(super) fn serve() -> anyhow::Result<()> {
    peer::serve(|mut stream| async move {
        let mut bytes = vec![0; READ_BYTES];
        while let Ok(some) = stream.read(&mut bytes).await
            && some > 0
            && stream.write_all(bytes.get(..some).unwrap_or_default()).await.is_ok()
        {}
    })
}
