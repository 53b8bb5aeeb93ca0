//! Ctrl-C and termination.

use std::io;

/// Waits for Ctrl-C or, on Unix, SIGTERM.
pub async fn interrupted() -> io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupt = tokio::signal::ctrl_c() => interrupt,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

/// Calls `on_signal` at every Ctrl-C or SIGTERM from now on, on a thread of its own.
pub fn on_interrupt(on_signal: impl Fn() + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            while interrupted().await.is_ok() {
                on_signal();
            }
        });
    })?;
    Ok(())
}
