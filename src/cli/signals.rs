//! Ctrl-C and termination.

use std::io;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C and, on Unix, SIGTERM. None is missed from the moment that this is there, whatever its owner does meanwhile.
#[derive(Debug)]
pub struct Interrupts {
    #[cfg(unix)]
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
    #[cfg(windows)]
    interrupt: tokio::signal::windows::CtrlC,
}

impl Interrupts {
    /// Begins to listen. Must be called where a tokio runtime is entered.
    ///
    /// # Errors
    /// Where the system refuses the handlers.
    pub fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        return Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        });
        #[cfg(windows)]
        Ok(Self { interrupt: tokio::signal::windows::ctrl_c()? })
    }

    /// Waits for the next of either.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(windows)]
        self.interrupt.recv().await;
    }

    /// Waits for SIGTERM, and lets Ctrl-C pass without effect.
    pub async fn terminated(&mut self) {
        #[cfg(unix)]
        self.terminate.recv().await;
        #[cfg(windows)]
        std::future::pending::<()>().await;
    }
}

/// Calls `on_signal` at every Ctrl-C or SIGTERM from now on, on a thread of its own.
///
/// # Errors
/// Where the system gives no thread or refuses the handlers.
pub fn on_interrupt(on_signal: impl Fn() + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut interrupts = {
        let _entered = runtime.enter();
        Interrupts::listen()?
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                interrupts.next().await;
                on_signal();
            }
        });
    })?;
    Ok(())
}
