//! `floodline proxy`: faults between any client and any server.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use floodline::fault::Rule;
use floodline::proxy::{FaultProxy, Injection};
use serde::Serialize;

use super::exit::Failure;
use super::signals::Interrupts;

/// Flags of `floodline proxy`.
#[derive(Debug, Args)]
pub struct ProxyArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Address of the server behind it
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    /// A fault, such as latency=20ms,jitter=5ms,share=0.1 or drop=rst,every=1s,times=3; may be repeated
    #[arg(long, value_name = "RULE")]
    rule: Vec<Rule>,
    /// Print what was injected as JSON, an object a line
    #[arg(long)]
    json: bool,
}

/// What the proxy prints when it listens.
#[derive(Debug, Serialize)]
struct Listening {
    listening: SocketAddr,
    pid: u32,
}

/// Forwards until told to stop; then says what was injected.
pub fn run(args: &ProxyArgs) -> Result<ExitCode, Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::usage)?;
    let injections = runtime.block_on(forward(args)).map_err(Failure::Usage)?;
    let mut out = std::io::stdout().lock();
    for injection in &injections {
        print(&mut out, injection, args.json).map_err(Failure::Usage)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn forward(args: &ProxyArgs) -> anyhow::Result<Vec<Injection>> {
    let mut interrupts = Interrupts::listen()?;
    let proxy =
        FaultProxy::bind(args.listen, args.to).await.with_context(|| format!("--listen {}", args.listen))?;
    let handle = proxy.handle();
    args.rule.iter().for_each(|rule| handle.inject(rule.clone()).keep());
    let mut out = std::io::stdout();
    let listening = Listening { listening: proxy.local_addr(), pid: std::process::id() };
    writeln!(out, "{}", serde_json::to_string(&listening)?)?;
    out.flush()?;
    proxy.run(interrupts.next()).await;
    Ok(handle.events())
}

fn print(out: &mut impl Write, injection: &Injection, json: bool) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{}", serde_json::to_string(injection)?)?;
    } else {
        let Injection { rule, connection, at_ns, action, bytes, .. } = injection;
        let at_s = *at_ns as f64 / 1e9;
        writeln!(out, "{at_s:>10.3} s  connection {connection:<6} {action:?} ({bytes} bytes)  {rule}")?;
    }
    Ok(())
}
